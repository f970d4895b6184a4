//! The kernel side as seen from here: loaded, attached, and read.
//!
//! Owns everything that talks to the kernel about eBPF; the only place in the agent with `unsafe`. Refuses to
//! know what the bytes mean.
#![expect(unsafe_code, reason = "values are handed to the kernel as plain bytes")]

pub mod btf;
pub mod gauge;
pub mod handover;
pub mod heap;
pub mod hooks;
mod marked;
mod multi;
mod openssl;
pub mod plaintext;
#[cfg(test)]
mod pooler_tests;
pub mod seccomp;
pub mod wake;

use std::{
    collections::HashSet,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use ebpf_abi::{KernelLayout, REASON_COUNTERS, TARGET_POOLER, Target, Wishes};
use nix::sys::resource::{Resource, setrlimit};

pub use hooks::{Hook, Tier};
use marked::Marked;
pub use plaintext::{AtReturn, Probes};

/// The compiled kernel side, carried in this program.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PGWITNESS_EBPF_OBJECT"));

/// Sizes of the rings in bytes (both are rounded up to a power of two pages by the kernel's rule), and of the maps in
/// entries.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Payload.
    pub segments: u32,
    /// Facts about processes and sockets.
    pub facts: u32,
    /// Processes of servers.
    pub processes: u32,
    /// Connections of this host's clients.
    pub connections: u32,
    /// What poolers did with their sockets, in bytes.
    pub transfers: u32,
}

/// Threads of poolers, their encrypted connections, and the sockets that they had open when they were found: as many as are
/// kept at once. Some 120 bytes each.
const THREADS: u32 = 16_384;
const SESSIONS: u32 = 16_384;
const OLD_SOCKETS: u32 = 16_384;

/// Why the tap could not be attached; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Not enough privilege.
    #[error(
        "loading eBPF programs is not permitted: run as root, or with CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE \
         and CAP_DAC_READ_SEARCH"
    )]
    NotPermitted,
    /// The kernel has no BTF, or lacks a member.
    #[error(transparent)]
    Btf(#[from] btf::BtfError),
    /// The kernel has no such tracepoint.
    #[error(
        "this kernel has no tracepoint `{hook}` (it exists from Linux {since}): the tap cannot work here that way"
    )]
    NoTracepoint {
        /// Name of the tracepoint.
        hook: &'static str,
        /// First kernel that has it.
        since: &'static str,
    },
    /// The kernel refused the object.
    #[error("the kernel refused the eBPF program{}: {source}", .hook.map(|hook| format!(" `{hook}`")).unwrap_or_default())]
    Refused {
        /// Which program, if it was one.
        hook: Option<&'static str>,
        /// aya's account of it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The attached tap, in its parts. Dropping `probes` detaches everything.
pub struct Tap {
    /// How sockets are tapped.
    pub tier: Tier,
    /// Payload.
    pub segments: Ring,
    /// Processes and sockets.
    pub facts: Ring,
    /// What poolers did with their sockets.
    pub transfers: Ring,
    /// Which processes are tapped.
    pub targets: Targets,
    /// What was lost, and why.
    pub counters: Counters,
    /// The programs, attached to the kernel, and to servers as they are found.
    pub probes: Probes,
}

impl Tap {
    /// Loads the programs and attaches all hooks of a tier; of the best that this kernel has, if none is wished.
    /// `wishes`: what else is told; poolers are followed in tier A only, where the programs have one of the names `poolers`,
    /// as tasks show them.
    ///
    /// # Errors
    ///
    /// Says what is missing and what to do.
    pub fn attach(
        sizes: Sizes,
        wished: Option<Tier>,
        at_return: AtReturn,
        wishes: Wishes,
        poolers: impl Iterator<Item = [u8; 16]>,
    ) -> Result<Self, AttachError> {
        require_privilege()?;
        // Below Linux 5.11 maps count against this limit; newer kernels ignore it, so a refusal is no error.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
        let layout = LayoutValue(btf::kernel_layout()?);
        let types = aya::Btf::from_sys_fs().map_err(|error| refused(None, error))?;
        let tier = wished.unwrap_or_else(|| Tier::of_this_kernel(&types));
        let wishes = WishesValue(match tier {
            Tier::A => wishes,
            Tier::B => Wishes { poolers: 0, ..wishes },
        });
        // Room is taken when they are made: none where there is nothing to keep.
        let of_poolers = |entries| if wishes.0.poolers == 0 { 1 } else { entries };
        let mut programs = EbpfLoader::new()
            .btf(Some(&types))
            .override_global("LAYOUT", &layout, true)
            .override_global("WISHES", &wishes, true)
            .map_max_entries("SEGMENTS", sizes.segments.next_power_of_two())
            .map_max_entries("FACTS", sizes.facts.next_power_of_two())
            .map_max_entries("TARGETS", sizes.processes)
            .map_max_entries("MARKED", marked::pages())
            .map_max_entries("OWNERS", sizes.connections)
            .map_max_entries("TRANSFERS", sizes.transfers.next_power_of_two())
            .map_max_entries("THREADS", of_poolers(THREADS))
            .map_max_entries("SESSIONS", of_poolers(SESSIONS))
            .map_max_entries("OLD_SOCKETS", of_poolers(OLD_SOCKETS))
            .load(OBJECT)
            .map_err(|error| refused(None, error))?;
        let multi = multi::exists(&types).then(|| plaintext::load_multi(OBJECT, &programs));
        let mut names: HashMap<_, [u8; 16], u32> = map_of(&mut programs, "POOLER_NAMES", HashMap::try_from)?;
        for name in poolers {
            names
                .insert(name, 1_u32, 0)
                .map_err(|error| refused(None, error))?;
        }
        for hook in tier.hooks() {
            hook.attach(&mut programs, &types)?;
        }
        Ok(Self {
            tier,
            segments: Ring(map_of(&mut programs, "SEGMENTS", RingBuf::try_from)?),
            facts: Ring(map_of(&mut programs, "FACTS", RingBuf::try_from)?),
            transfers: Ring(map_of(&mut programs, "TRANSFERS", RingBuf::try_from)?),
            targets: Targets {
                processes: map_of(&mut programs, "TARGETS", HashMap::try_from)?,
                old_sockets: map_of(&mut programs, "OLD_SOCKETS", HashMap::try_from)?,
                poolers_seen: map_of(&mut programs, "POOLERS_SEEN", Array::try_from)?,
                marked: map_of(&mut programs, "MARKED", Marked::try_from)?,
            },
            counters: Counters(map_of(&mut programs, "COUNTERS", PerCpuArray::try_from)?),
            probes: Probes::new(programs, multi, at_return),
        })
    }
}

/// Takes a map over from the loaded object.
fn map_of<M>(
    programs: &mut Ebpf,
    name: &str,
    typed: impl FnOnce(Map) -> Result<M, MapError>,
) -> Result<M, AttachError> {
    let map = programs.take_map(name);
    let map = map.ok_or_else(|| refused(None, format!("no map {name}")))?;
    typed(map).map_err(|error| refused(None, error))
}

/// A ring that the kernel side writes.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    /// The ring whose descriptor this is, as another process loaded it.
    ///
    /// # Errors
    ///
    /// If it is no ring, or the kernel does not let this process see what it is.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, MapError> {
        let map = Map::from_map_data(MapData::from_fd(fd)?)?;
        Ok(Self(RingBuf::try_from(map)?))
    }

    /// Hands over the next record. Returns false if there was none.
    pub fn next(&mut self, take: impl FnOnce(&[u8])) -> bool {
        match self.0.next() {
            Some(item) => {
                take(&item);
                true
            }
            None => false,
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The processes that are tapped.
pub struct Targets {
    processes: HashMap<MapData, u32, TargetValue>,
    /// Sockets that poolers had open when they were found, by inode number.
    old_sockets: HashMap<MapData, u64, u32>,
    poolers_seen: Array<MapData, u32>,
    marked: Marked,
}

impl Targets {
    /// Marks a process that was found running, unless the kernel side has marked it already. `probed` are the flags of
    /// what of its encryption is read.
    ///
    /// # Errors
    ///
    /// If the map is full.
    pub fn mark(&mut self, tgid: u32, server: u32, probed: u32) -> Result<(), MapError> {
        const NO_EXIST: u64 = 1;
        let target = TargetValue(Target {
            server,
            flags: probed,
            ..Target::default()
        });
        self.marked.mark(tgid);
        match self.processes.insert(tgid, target, NO_EXIST) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// From here on what a server forks has its plaintext read from the first byte. The postmaster serves no client, so
    /// there is no state of the kernel side's own that this could overwrite.
    pub fn probed(&mut self, server: u32, probed: u32) {
        const EXIST: u64 = 2;
        if let Ok(TargetValue(mut target)) = self.processes.get(&server, 0) {
            target.flags |= probed;
            // It may have ended meanwhile.
            let _ = self.processes.insert(server, TargetValue(target), EXIST);
        }
    }

    /// Marks a pooler's process that was found running. `sockets` lists what it has open.
    ///
    /// What is used before the list is complete counts as old, what is not in it was opened since, with every byte of it seen.
    ///
    /// # Errors
    ///
    /// If the map of processes is full.
    pub fn mark_pooler(&mut self, tgid: u32, sockets: impl FnOnce() -> HashSet<u64>) -> Result<(), MapError> {
        /// As in the kernel side: all sockets are old.
        const ALL: u64 = 0;
        if self.processes.get(&tgid, 0).is_ok() {
            return Ok(());
        }
        self.poolers_seen.set(0, 1, 0)?;
        self.old_sockets.insert(ALL, 1, 0)?;
        self.mark(tgid, tgid, TARGET_POOLER)?;
        for inode in sockets() {
            if self.old_sockets.insert(inode, 1, 0).is_err() {
                // Without room for all of them, all that are met from here on count as old.
                return Ok(());
            }
        }
        self.old_sockets.remove(&ALL)
    }

    /// Takes the marks of a server's or pooler's processes back.
    pub fn unmark_server(&mut self, server: u32) {
        let marked: Vec<u32> = self
            .processes
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, target)| target.0.server == server)
            .map(|(tgid, _)| tgid)
            .collect();
        for tgid in marked {
            // It may have ended meanwhile.
            let _ = self.processes.remove(&tgid);
        }
    }
}

/// The kernel side's counters.
pub struct Counters(PerCpuArray<MapData, u64>);

impl Counters {
    /// Sums over all processors.
    pub fn read(&self) -> KernelCounters {
        let mut values = [0; REASON_COUNTERS as usize];
        for (index, value) in (0..REASON_COUNTERS).zip(values.iter_mut()) {
            *value = self.0.get(&index, 0).map_or(0, |per_cpu| per_cpu.iter().sum());
        }
        KernelCounters(values)
    }
}

/// What the kernel side counted since it was attached.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelCounters([u64; REASON_COUNTERS as usize]);

impl KernelCounters {
    /// As [`Self::values`] gave them.
    pub fn of(values: &[u64]) -> Self {
        let mut counters = Self::default();
        counters
            .0
            .iter_mut()
            .zip(values)
            .for_each(|(to, from)| *to = *from);
        counters
    }

    /// All of them, by the index of their `ebpf_abi::Counter`.
    pub fn values(&self) -> &[u64] {
        &self.0
    }

    /// One of them, by the index of its `ebpf_abi::Counter`.
    pub fn at(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }
}

/// A plain answer before the kernel gives an obscure one.
fn require_privilege() -> Result<(), AttachError> {
    if !Path::new(btf::VMLINUX).exists() {
        return Err(btf::BtfError::Unreadable(std::io::ErrorKind::NotFound.into()).into());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    // include/uapi/linux/capability.h
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_PERFMON: u64 = 1 << 38;
    const CAP_BPF: u64 = 1 << 39;
    let enough =
        effective & CAP_SYS_ADMIN != 0 || effective & (CAP_PERFMON | CAP_BPF) == CAP_PERFMON | CAP_BPF;
    if enough {
        Ok(())
    } else {
        Err(AttachError::NotPermitted)
    }
}

fn refused(
    hook: Option<&'static str>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> AttachError {
    AttachError::Refused {
        hook,
        source: source.into(),
    }
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct LayoutValue(KernelLayout);

// SAFETY: `repr(C)` of `u32`s only: no padding, any bit pattern is valid.
unsafe impl aya::Pod for LayoutValue {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct WishesValue(Wishes);

// SAFETY: as above.
unsafe impl aya::Pod for WishesValue {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct TargetValue(Target);

// SAFETY: `repr(C)`, integers only, no padding: any bit pattern is valid.
unsafe impl aya::Pod for TargetValue {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_is_missing_and_what_would_do() {
        let said = |error: AttachError| error.to_string();
        let text = said(AttachError::NotPermitted);
        for expected in [
            "run as root",
            "CAP_BPF",
            "CAP_PERFMON",
            "CAP_SYS_PTRACE",
            "CAP_DAC_READ_SEARCH",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        let text = said(btf::BtfError::Unreadable(std::io::ErrorKind::NotFound.into()).into());
        assert!(
            text.contains(btf::VMLINUX) && text.contains("CONFIG_DEBUG_INFO_BTF"),
            "{text}"
        );
        let hook = &hooks::SOCKET_CALLS[0];
        let text = said(AttachError::NoTracepoint {
            hook: hook.name,
            since: hook.since,
        });
        assert!(
            text.contains("`sock_recv_length`") && text.contains("from Linux 6.3"),
            "{text}"
        );
        let text = said(
            btf::BtfError::Missing {
                structure: "sock",
                member: "sk_type",
            }
            .into(),
        );
        assert!(text.contains("`sk_type` in `struct sock`"), "{text}");
        let text = said(refused(Some("cgroup_mkdir"), "no such helper"));
        assert!(text.contains("`cgroup_mkdir`: no such helper"), "{text}");
    }
}
