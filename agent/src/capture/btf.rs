//! Reads struct layouts out of the running kernel's BTF.
//!
//! Owns the BTF format as far as member offsets need it (kernel: Documentation/bpf/btf.rst). It is our own
//! because the crates that parse BTF for this either keep members private (`aya-obj`) or carry a licence that
//! does not suit a statically linked program.

use std::collections::HashMap;

use ebpf_abi::KernelLayout;

/// Where the kernel publishes its own type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why a layout could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("cannot read {VMLINUX} ({0}): the kernel must be built with CONFIG_DEBUG_INFO_BTF")]
    Unreadable(#[from] std::io::Error),
    /// The bytes are not BTF of a known version.
    #[error("{VMLINUX} is malformed: expected {expected} at byte {at}")]
    Malformed {
        /// What should have stood there.
        expected: &'static str,
        /// Byte offset.
        at: usize,
    },
    /// The kernel has no such member.
    #[error("this kernel has no `{member}` in `struct {structure}`")]
    Missing {
        /// The struct.
        structure: &'static str,
        /// The path of members.
        member: &'static str,
    },
}

/// Reads all offsets that the kernel side needs.
///
/// # Errors
///
/// If the kernel has no BTF, or a member that cannot be done without is not there.
pub fn kernel_layout() -> Result<KernelLayout, BtfError> {
    layout(&Btf::parse(&std::fs::read(VMLINUX)?)?)
}

fn layout(btf: &Btf<'_>) -> Result<KernelLayout, BtfError> {
    let at = |structure, member| {
        btf.offset(structure, member)
            .ok_or(BtfError::Missing { structure, member })
    };
    Ok(KernelLayout {
        sock_family: at("sock", "__sk_common.skc_family")?,
        sock_state: at("sock", "__sk_common.skc_state")?,
        sock_daddr: at("sock", "__sk_common.skc_daddr")?,
        sock_rcv_saddr: at("sock", "__sk_common.skc_rcv_saddr")?,
        sock_dport: at("sock", "__sk_common.skc_dport")?,
        sock_num: at("sock", "__sk_common.skc_num")?,
        sock_v6_daddr: at("sock", "__sk_common.skc_v6_daddr")?,
        sock_v6_rcv_saddr: at("sock", "__sk_common.skc_v6_rcv_saddr")?,
        sock_net: at("sock", "__sk_common.skc_net.net")?,
        sock_type: at("sock", "sk_type")?,
        sock_protocol: at("sock", "sk_protocol")?,
        sock_shutdown: at("sock", "sk_shutdown")?,
        sock_socket: at("sock", "sk_socket")?,
        sock_peer_pid: at("sock", "sk_peer_pid")?,
        sock_peer_cred: at("sock", "sk_peer_cred")?,
        // Absent where sockets do not know their cgroup.
        sock_cgroup: btf.offset("sock", "sk_cgrp_data").unwrap_or(0),
        socket_file: at("socket", "file")?,
        socket_sk: at("socket", "sk")?,
        net_ns_inum: at("net", "ns.inum")?,
        tcp_copied_seq: at("tcp_sock", "copied_seq")?,
        tcp_write_seq: at("tcp_sock", "write_seq")?,
        tcp_rcv_nxt: at("tcp_sock", "rcv_nxt")?,
        tcp_snd_una: at("tcp_sock", "snd_una")?,
        tcp_snd_nxt: at("tcp_sock", "snd_nxt")?,
        tcp_bytes_received: at("tcp_sock", "bytes_received")?,
        tcp_bytes_acked: at("tcp_sock", "bytes_acked")?,
        tcp_bytes_sent: at("tcp_sock", "bytes_sent")?,
        tcp_bytes_retrans: at("tcp_sock", "bytes_retrans")?,
        unix_addr: at("unix_sock", "addr")?,
        unix_peer: at("unix_sock", "peer")?,
        unix_address_len: at("unix_address", "len")?,
        unix_address_name: at("unix_address", "name")?,
        task_pid: at("task_struct", "pid")?,
        task_tgid: at("task_struct", "tgid")?,
        task_group_leader: at("task_struct", "group_leader")?,
        task_real_parent: at("task_struct", "real_parent")?,
        task_start_boottime: at("task_struct", "start_boottime")?,
        task_cred: at("task_struct", "cred")?,
        // Absent where the kernel is built without auditing: then there are no login uids.
        task_loginuid: btf.offset("task_struct", "loginuid").unwrap_or(0),
        task_cgroups: at("task_struct", "cgroups")?,
        task_files: at("task_struct", "files")?,
        task_mm: at("task_struct", "mm")?,
        task_signal: at("task_struct", "signal")?,
        task_comm: at("task_struct", "comm")?,
        task_pid_links: at("task_struct", "pid_links")?,
        cred_uid: at("cred", "uid")?,
        css_set_dfl_cgrp: at("css_set", "dfl_cgrp")?,
        cgroup_kn: at("cgroup", "kn")?,
        cgroup_root: at("cgroup", "root")?,
        cgroup_root_hierarchy: at("cgroup_root", "hierarchy_id")?,
        kernfs_node_id: at("kernfs_node", "id")?,
        files_fdt: at("files_struct", "fdt")?,
        fdtable_fd: at("fdtable", "fd")?,
        fdtable_max_fds: at("fdtable", "max_fds")?,
        mm_arg_start: at("mm_struct", "arg_start")?,
        mm_arg_end: at("mm_struct", "arg_end")?,
        signal_live: at("signal_struct", "live")?,
        pid_tasks: at("pid", "tasks")?,
        pid_numbers: at("pid", "numbers")?,
        binprm_filename: at("linux_binprm", "filename")?,
        binprm_file: at("linux_binprm", "file")?,
        file_inode: at("file", "f_inode")?,
        file_private: at("file", "private_data")?,
        inode_ino: at("inode", "i_ino")?,
        inode_mode: at("inode", "i_mode")?,
        // As above.
        task_sessionid: btf.offset("task_struct", "sessionid").unwrap_or(0),
        task_nsproxy: at("task_struct", "nsproxy")?,
        task_thread_pid: at("task_struct", "thread_pid")?,
        signal_pids: at("signal_struct", "pids")?,
        signal_tty: at("signal_struct", "tty")?,
        tty_name: at("tty_struct", "name")?,
        nsproxy_net: at("nsproxy", "net_ns")?,
        nsproxy_mnt: at("nsproxy", "mnt_ns")?,
        mnt_ns_inum: at("mnt_namespace", "ns.inum")?,
        pid_ns_inum: at("pid_namespace", "ns.inum")?,
        pid_ns_child_reaper: at("pid_namespace", "child_reaper")?,
        pid_level: at("pid", "level")?,
        mm_env_start: at("mm_struct", "env_start")?,
        mm_env_end: at("mm_struct", "env_end")?,
    })
}

/// Type information, indexed.
struct Btf<'a> {
    types: Vec<Type<'a>>,
    structs: HashMap<&'a [u8], usize>,
}

struct Type<'a> {
    kind: u32,
    /// The type that a typedef or qualifier stands for.
    refers: usize,
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    name: &'a [u8],
    of: usize,
    bits: u32,
}

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_TYPE_TAG: u32 = 18;

/// Anonymous members and type chains nest a few levels deep; a loop in broken input ends here.
const DEPTH_MAX: u32 = 16;

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let mut header = Cursor { bytes, at: 0 };
        if header.u16()? != 0xeb9f {
            return Err(BtfError::Malformed {
                expected: "the magic number",
                at: 0,
            });
        }
        header.u16()?; // version and flags
        let length = header.u32()? as usize;
        let (type_offset, type_length) = (header.u32()? as usize, header.u32()? as usize);
        let (string_offset, string_length) = (header.u32()? as usize, header.u32()? as usize);
        let part = |offset: usize, size: usize, expected| {
            let from = length.saturating_add(offset);
            bytes
                .get(from..from.saturating_add(size))
                .ok_or(BtfError::Malformed { expected, at: from })
        };
        let types_part = part(type_offset, type_length, "the type section")?;
        let strings = part(string_offset, string_length, "the string section")?;
        let name = |offset: u32| {
            let rest = strings.get(offset as usize..).unwrap_or_default();
            rest.split(|byte| *byte == 0).next().unwrap_or_default()
        };

        // Type 0 is void.
        let mut types = vec![Type {
            kind: 0,
            refers: 0,
            members: Vec::new(),
        }];
        let mut structs = HashMap::new();
        let mut cursor = Cursor {
            bytes: types_part,
            at: 0,
        };
        while cursor.at < types_part.len() {
            let type_name = name(cursor.u32()?);
            let info = cursor.u32()?;
            let refers = cursor.u32()? as usize;
            let (kind, count) = ((info >> 24) & 0x1f, info & 0xffff);
            let bitfields = info >> 31 == 1;
            let mut members = Vec::new();
            if kind == KIND_STRUCT || kind == KIND_UNION {
                for _ in 0..count {
                    let (member, of, offset) = (name(cursor.u32()?), cursor.u32()? as usize, cursor.u32()?);
                    let bits = if bitfields { offset & 0x00ff_ffff } else { offset };
                    members.push(Member {
                        name: member,
                        of,
                        bits,
                    });
                }
                if kind == KIND_STRUCT && !type_name.is_empty() {
                    structs.entry(type_name).or_insert(types.len());
                }
            } else {
                cursor.skip(trailing_bytes(kind, count, cursor.at)?)?;
            }
            types.push(Type {
                kind,
                refers,
                members,
            });
        }
        Ok(Self { types, structs })
    }

    /// Byte offset of a member, named by its path from the struct on; anonymous members are looked through.
    fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let mut at = *self.structs.get(structure.as_bytes())?;
        let mut bits = 0;
        for name in path.split('.') {
            let (of, offset) = self.member(at, name.as_bytes(), 0)?;
            bits += offset;
            at = of;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    fn member(&self, structure: usize, name: &[u8], depth: u32) -> Option<(usize, u32)> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.resolved(structure)?.members.iter().find_map(|member| {
            if member.name == name {
                return Some((member.of, member.bits));
            }
            if !member.name.is_empty() {
                return None;
            }
            let (of, bits) = self.member(member.of, name, depth + 1)?;
            Some((of, bits + member.bits))
        })
    }

    /// The type behind typedefs and qualifiers.
    fn resolved(&self, mut index: usize) -> Option<&Type<'a>> {
        for _ in 0..DEPTH_MAX {
            let found = self.types.get(index)?;
            match found.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    index = found.refers;
                }
                _ => return Some(found),
            }
        }
        None
    }
}

/// What follows a type of a kind that has no members.
fn trailing_bytes(kind: u32, count: u32, at: usize) -> Result<usize, BtfError> {
    let count = count as usize;
    Ok(match kind {
        2 | 7..=12 | 16 | 18 => 0,
        1 | 14 | 17 => 4,
        3 => 12,
        6 | 13 => count * 8,
        15 | 19 => count * 12,
        _ => {
            return Err(BtfError::Malformed {
                expected: "a known kind of type",
                at,
            });
        }
    })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn u16(&mut self) -> Result<u16, BtfError> {
        self.take::<2>().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, BtfError> {
        self.take::<4>().map(u32::from_ne_bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BtfError> {
        let found = self
            .bytes
            .get(self.at..self.at + N)
            .and_then(|bytes| bytes.try_into().ok());
        let found = found.ok_or(BtfError::Malformed {
            expected: "more bytes",
            at: self.at,
        })?;
        self.at += N;
        Ok(found)
    }

    fn skip(&mut self, count: usize) -> Result<(), BtfError> {
        self.at += count;
        if self.at > self.bytes.len() {
            return Err(BtfError::Malformed {
                expected: "more bytes",
                at: self.at,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_input_is_an_error_and_never_a_panic() {
        let whole: Vec<u8> = [&[0x9f, 0xeb, 1, 0][..], &24u32.to_ne_bytes(), &[0; 16]].concat();
        for length in 0..whole.len() {
            assert!(Btf::parse(&whole[..length]).is_err());
        }
        assert!(Btf::parse(&whole).is_ok());
        assert!(Btf::parse(b"not BTF at all").is_err());
    }

    #[test]
    fn the_running_kernel_has_every_member() {
        if std::path::Path::new(VMLINUX).exists() {
            let layout = kernel_layout().expect("a complete layout");
            assert!(layout.task_cred > 0 && layout.tcp_write_seq > layout.sock_type);
        }
    }
}
