//! `BPF_LINK_CREATE` with `uprobe_multi` (Linux 6.6): the way to a probe in user space that CAP_BPF and CAP_PERFMON
//! suffice for, while `perf_event_open` wants CAP_SYS_ADMIN since the fix of CVE-2025-38466.
//!
//! Our own, because aya 0.14 has neither this call nor a way to load a program for it; to be dropped for aya's once the
//! toolchain allows a newer one.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::{Btf, Ebpf, maps::Map};
use aya_obj::{
    Object,
    btf::BtfKind,
    generated::{BPF_F_UPROBE_MULTI_RETURN, bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type},
};

/// Programs that were loaded for this kind of link, by name.
pub(super) struct MultiPrograms(HashMap<String, OwnedFd>);

/// Whether this kernel has links of this kind.
pub(super) fn exists(types: &Btf) -> bool {
    types
        .id_by_type_name_kind("bpf_uprobe_multi_link", BtfKind::Struct)
        .is_ok()
}

impl MultiPrograms {
    /// Loads programs of the object whose maps `loaded` has made.
    pub(super) fn load<'a>(
        object: &[u8],
        loaded: &Ebpf,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let fail = |error: &dyn std::fmt::Display| error.to_string();
        let mut object = Object::parse(object).map_err(|error| fail(&error))?;
        let fds: HashMap<&str, RawFd> = loaded
            .maps()
            .filter_map(|(name, map)| Some((name, fd(map)?)))
            .collect();
        let maps = object.maps.clone();
        let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object
            .relocate_maps(
                maps.iter()
                    .filter_map(|(name, map)| Some((name.as_str(), *fds.get(name.as_str())?, map))),
                &text,
            )
            .map_err(|error| fail(&error))?;
        object.relocate_calls(&text).map_err(|error| fail(&error))?;
        let mut programs = HashMap::new();
        for name in names {
            let program = object
                .programs
                .get(name)
                .ok_or_else(|| format!("the embedded object has no program {name}"))?;
            let function = object
                .functions
                .get(&program.function_key())
                .ok_or_else(|| format!("the program {name} has no code"))?;
            // SAFETY: an all-zero union of integers is valid.
            let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
            // SAFETY: of the union this member is what BPF_PROG_LOAD reads.
            let load = unsafe { &mut attributes.__bindgen_anon_3 };
            load.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
            load.expected_attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
            load.insns = function.instructions.as_ptr() as u64;
            load.insn_cnt = u32::try_from(function.instructions.len()).unwrap_or(u32::MAX);
            load.license = program.license.as_ptr() as u64;
            // What tools show of it: 15 characters and an end.
            let shown = name.bytes().take(load.prog_name.len() - 1);
            for (place, byte) in load.prog_name.iter_mut().zip(shown) {
                *place = byte.cast_signed();
            }
            let program = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes)
                .map_err(|error| format!("the kernel refused the program {name}: {error}"))?;
            programs.insert(name.to_owned(), program);
        }
        Ok(Self(programs))
    }

    /// Attaches a program at an offset of a file, for all processes that run it or for one of them, until the link is dropped.
    pub(super) fn attach(
        &self,
        name: &str,
        executable: &Path,
        offset: u64,
        at_return: bool,
        process: Option<u32>,
    ) -> io::Result<OwnedFd> {
        let program = self.0.get(name).ok_or(io::ErrorKind::NotFound)?;
        let path = CString::new(executable.as_os_str().as_bytes())?;
        let offsets = [offset];
        // SAFETY: as above.
        let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
        attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
        attributes.link_create.attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
        // SAFETY: of the union these members are what BPF_LINK_CREATE reads for this type.
        let multi = unsafe { &mut attributes.link_create.__bindgen_anon_3.uprobe_multi };
        multi.path = path.as_ptr() as u64;
        multi.offsets = offsets.as_ptr() as u64;
        multi.cnt = 1;
        // 0: all.
        multi.pid = process.unwrap_or(0);
        multi.flags = if at_return { BPF_F_UPROBE_MULTI_RETURN } else { 0 };
        bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
    }
}

/// A call of `bpf` that gives a file descriptor.
fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the attributes live through the call, and what they point to was borrowed by the callers for as long.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attributes),
            size_of::<bpf_attr>(),
        )
    };
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just made it for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The descriptor of a map of one of the kinds that the object has.
fn fd(map: &Map) -> Option<RawFd> {
    let (Map::Array(data)
    | Map::HashMap(data)
    | Map::PerCpuArray(data)
    | Map::RingBuf(data)
    | Map::SkStorage(data)) = map
    else {
        return None;
    };
    Some(data.fd().as_fd().as_raw_fd())
}
