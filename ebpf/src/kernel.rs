//! Reading the kernel's own structures: offsets come from user space, bytes through `bpf_probe_read_kernel`, or by plain
//! loads where the verifier knows what a pointer points to.

use core::ptr;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use ebpf_abi::{KernelLayout, Wishes};

/// Written by the agent when it loads the object.
#[unsafe(no_mangle)]
pub static LAYOUT: KernelLayout = KernelLayout {
    sock_family: 0,
    sock_state: 0,
    sock_daddr: 0,
    sock_rcv_saddr: 0,
    sock_dport: 0,
    sock_num: 0,
    sock_v6_daddr: 0,
    sock_v6_rcv_saddr: 0,
    sock_net: 0,
    sock_type: 0,
    sock_protocol: 0,
    sock_shutdown: 0,
    sock_socket: 0,
    sock_peer_pid: 0,
    sock_peer_cred: 0,
    sock_cgroup: 0,
    socket_file: 0,
    socket_sk: 0,
    net_ns_inum: 0,
    tcp_copied_seq: 0,
    tcp_write_seq: 0,
    tcp_rcv_nxt: 0,
    tcp_snd_una: 0,
    tcp_snd_nxt: 0,
    tcp_bytes_received: 0,
    tcp_bytes_acked: 0,
    tcp_bytes_sent: 0,
    tcp_bytes_retrans: 0,
    unix_addr: 0,
    unix_peer: 0,
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
    task_sessionid: 0,
    task_nsproxy: 0,
    task_thread_pid: 0,
    signal_pids: 0,
    signal_tty: 0,
    tty_name: 0,
    nsproxy_net: 0,
    nsproxy_mnt: 0,
    mnt_ns_inum: 0,
    pid_ns_inum: 0,
    pid_ns_child_reaper: 0,
    pid_level: 0,
    mm_env_start: 0,
    mm_env_end: 0,
};

/// Written by the agent when it loads the object, too.
#[unsafe(no_mangle)]
pub static WISHES: Wishes = Wishes {
    environments: 0,
    flows: 0,
    poolers: 0,
    alone: 0,
};

/// Whether environments are to be told.
#[inline(always)]
pub fn tells_environments() -> bool {
    // SAFETY: the global is valid for the life of the program. Volatile, because the compiler sees only zeros.
    unsafe { ptr::read_volatile(ptr::addr_of!(WISHES.environments)) != 0 }
}

/// Whether connections to PostgreSQL servers are to be told.
#[inline(always)]
pub fn tells_flows() -> bool {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(ptr::addr_of!(WISHES.flows)) != 0 }
}

/// Whether poolers are followed. Where they are not, the verifier never looks at what is behind it, so that a kernel may lack
/// what that takes.
#[inline(always)]
pub fn follows_poolers() -> bool {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(ptr::addr_of!(WISHES.poolers)) != 0 }
}

/// Whether the second program at changes of a socket's state does nothing.
#[inline(always)]
pub fn is_alone() -> bool {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(ptr::addr_of!(WISHES.alone)) != 0 }
}

/// Offset of one member. Volatile, because the compiler sees only zeros.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: the global is valid for the life of the program.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!($crate::kernel::LAYOUT.$field)) }
    };
}
pub(crate) use offset;

/// Where a structure of the kernel stands.
pub trait Place: Copy {
    /// The value `offset` bytes on.
    fn read<T: Copy>(self, offset: u32) -> Option<T>;

    /// Several words that stand there one behind the other.
    fn words<const N: usize>(self, offset: u32) -> Option<[u64; N]>;

    /// The structure that is pointed to from `offset` bytes on; `None` if the pointer is null.
    fn follow(self, offset: u32) -> Option<Self>;
}

/// A kernel address that is only ever read through a checked copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl Place for Address {
    #[inline(always)]
    fn read<T: Copy>(self, offset: u32) -> Option<T> {
        // SAFETY: the helper copies with fault handling; any address is safe to try.
        unsafe { bpf_probe_read_kernel((self.0 + u64::from(offset)) as *const T) }.ok()
    }

    #[inline(always)]
    fn words<const N: usize>(self, offset: u32) -> Option<[u64; N]> {
        self.read(offset)
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Option<Self> {
        match self.read::<u64>(offset) {
            Some(0) | None => None,
            Some(address) => Some(Self(address)),
        }
    }
}

/// A pointer whose type the verifier knows from the kernel's BTF, an argument of a tracepoint or a helper's result: the
/// verifier checks each offset, and the kernel catches the fault of a pointer that turns out to be stale. A load costs a
/// tenth of a checked copy. What is behind a pointer to a pointer has no type: that takes an [`Address`].
#[derive(Clone, Copy)]
pub struct Typed(pub *const u8);

impl Place for Typed {
    #[inline(always)]
    fn read<T: Copy>(self, offset: u32) -> Option<T> {
        // SAFETY: the verifier has proven type and offset, or refused the program.
        Some(unsafe { ptr::read_volatile(self.0.add(offset as usize).cast()) })
    }

    #[inline(always)]
    fn words<const N: usize>(self, offset: u32) -> Option<[u64; N]> {
        let mut words = [0; N];
        let mut at = offset;
        // The verifier takes one register at a time.
        for word in &mut words {
            *word = self.read(at)?;
            at += 8;
        }
        Some(words)
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Option<Self> {
        let next: *const u8 = self.read(offset)?;
        if next.is_null() { None } else { Some(Self(next)) }
    }
}

impl Address {
    #[inline(always)]
    pub fn of<T>(pointer: *const T) -> Self {
        Self(pointer as u64)
    }

    #[inline(always)]
    pub fn plus(self, offset: u32) -> Self {
        Self(self.0 + u64::from(offset))
    }
}
