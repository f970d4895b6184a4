//! Reading the kernel's own structures: offsets come from user space, bytes through `bpf_probe_read_kernel`.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use ebpf_abi::KernelLayout;

/// Written by the agent when it loads the object.
#[unsafe(no_mangle)]
pub static LAYOUT: KernelLayout = KernelLayout {
    sock_family: 0,
    sock_daddr: 0,
    sock_rcv_saddr: 0,
    sock_dport: 0,
    sock_num: 0,
    sock_v6_daddr: 0,
    sock_v6_rcv_saddr: 0,
    sock_net: 0,
    sock_type: 0,
    sock_shutdown: 0,
    sock_socket: 0,
    sock_peer_pid: 0,
    sock_peer_cred: 0,
    socket_file: 0,
    socket_sk: 0,
    net_ns_inum: 0,
    tcp_copied_seq: 0,
    tcp_write_seq: 0,
    tcp_rcv_nxt: 0,
    tcp_snd_una: 0,
    tcp_bytes_received: 0,
    tcp_bytes_acked: 0,
    unix_addr: 0,
    unix_address_len: 0,
    unix_address_name: 0,
    task_pid: 0,
    task_tgid: 0,
    task_group_leader: 0,
    task_real_parent: 0,
    task_start_boottime: 0,
    task_cred: 0,
    task_loginuid: 0,
    task_cgroups: 0,
    task_files: 0,
    task_mm: 0,
    task_signal: 0,
    task_comm: 0,
    task_pid_links: 0,
    cred_uid: 0,
    css_set_dfl_cgrp: 0,
    cgroup_kn: 0,
    cgroup_root: 0,
    cgroup_root_hierarchy: 0,
    kernfs_node_id: 0,
    files_fdt: 0,
    fdtable_fd: 0,
    fdtable_max_fds: 0,
    mm_arg_start: 0,
    mm_arg_end: 0,
    signal_live: 0,
    pid_tasks: 0,
    pid_numbers: 0,
    binprm_filename: 0,
    binprm_file: 0,
    file_inode: 0,
    file_private: 0,
    inode_ino: 0,
    inode_mode: 0,
};

/// Offset of one member. Volatile, because the compiler sees only zeros.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: the global is valid for the life of the program.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!($crate::kernel::LAYOUT.$field)) }
    };
}
pub(crate) use offset;

/// A kernel address that is only ever read through a checked copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl Address {
    #[inline(always)]
    pub fn of<T>(pointer: *const T) -> Self {
        Self(pointer as u64)
    }

    /// The value `offset` bytes on.
    #[inline(always)]
    pub fn read<T>(self, offset: u32) -> Option<T> {
        // SAFETY: the helper copies with fault handling; any address is safe to try.
        unsafe { bpf_probe_read_kernel((self.0 + u64::from(offset)) as *const T) }.ok()
    }

    /// The pointer that stands `offset` bytes on; `None` if it is null.
    #[inline(always)]
    pub fn follow(self, offset: u32) -> Option<Self> {
        match self.read::<u64>(offset) {
            Some(0) | None => None,
            Some(address) => Some(Self(address)),
        }
    }

    #[inline(always)]
    pub fn plus(self, offset: u32) -> Self {
        Self(self.0 + u64::from(offset))
    }
}
