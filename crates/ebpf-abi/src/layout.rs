//! Where the running kernel keeps the fields that the kernel side reads.

/// Byte offsets of kernel struct members, read from the kernel's BTF by the agent and handed to the kernel side
/// at load time (Rust has no CO-RE relocations). Each field is `<struct>_<member>`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    missing_docs,
    reason = "each field is named after the kernel's struct and member"
)]
pub struct KernelLayout {
    pub sock_family: u32,
    pub sock_state: u32,
    pub sock_daddr: u32,
    pub sock_rcv_saddr: u32,
    pub sock_dport: u32,
    pub sock_num: u32,
    pub sock_v6_daddr: u32,
    pub sock_v6_rcv_saddr: u32,
    pub sock_net: u32,
    pub sock_type: u32,
    pub sock_protocol: u32,
    pub sock_shutdown: u32,
    pub sock_socket: u32,
    pub sock_peer_pid: u32,
    pub sock_peer_cred: u32,
    pub sock_cgroup: u32,
    pub socket_file: u32,
    pub socket_sk: u32,
    pub net_ns_inum: u32,
    pub tcp_copied_seq: u32,
    pub tcp_write_seq: u32,
    pub tcp_rcv_nxt: u32,
    pub tcp_snd_una: u32,
    pub tcp_snd_nxt: u32,
    pub tcp_bytes_received: u32,
    pub tcp_bytes_acked: u32,
    pub tcp_bytes_sent: u32,
    pub tcp_bytes_retrans: u32,
    pub unix_addr: u32,
    pub unix_peer: u32,
    pub unix_address_len: u32,
    pub unix_address_name: u32,
    pub task_pid: u32,
    pub task_tgid: u32,
    pub task_group_leader: u32,
    pub task_real_parent: u32,
    pub task_start_boottime: u32,
    pub task_cred: u32,
    pub task_loginuid: u32,
    pub task_cgroups: u32,
    pub task_files: u32,
    pub task_mm: u32,
    pub task_signal: u32,
    pub task_comm: u32,
    pub task_pid_links: u32,
    pub cred_uid: u32,
    pub css_set_dfl_cgrp: u32,
    pub cgroup_kn: u32,
    pub cgroup_root: u32,
    pub cgroup_root_hierarchy: u32,
    pub kernfs_node_id: u32,
    pub files_fdt: u32,
    pub fdtable_fd: u32,
    pub fdtable_max_fds: u32,
    pub mm_arg_start: u32,
    pub mm_arg_end: u32,
    pub signal_live: u32,
    pub pid_tasks: u32,
    pub pid_numbers: u32,
    pub binprm_filename: u32,
    pub binprm_file: u32,
    pub file_inode: u32,
    pub file_private: u32,
    pub inode_ino: u32,
    pub inode_mode: u32,
    pub task_sessionid: u32,
    pub task_nsproxy: u32,
    pub task_thread_pid: u32,
    pub signal_pids: u32,
    pub signal_tty: u32,
    pub tty_name: u32,
    pub nsproxy_net: u32,
    pub nsproxy_mnt: u32,
    pub mnt_ns_inum: u32,
    pub pid_ns_inum: u32,
    pub pid_ns_child_reaper: u32,
    pub pid_level: u32,
    pub mm_env_start: u32,
    pub mm_env_end: u32,
}

/// What the agent asks of the kernel side, set at load time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// Not 0: environments of programs are told.
    pub environments: u32,
    /// Not 0: connections over which a client of PostgreSQL begins to speak are told, wherever they lead.
    pub flows: u32,
    /// Not 0: processes of poolers are followed.
    pub poolers: u32,
    /// Not 0: no program takes what the kernel skips of another, so that a test sees it told.
    pub alone: u32,
}
