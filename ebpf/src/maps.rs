//! The maps that kernel and user space share, and the kernel side's own state of connecting sockets.

use aya_ebpf::{
    btf_maps::{HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use ebpf_abi::{REASON_COUNTERS, Target};

/// Payload. Its size is set at load time.
#[btf_map]
pub static SEGMENTS: RingBuf<u8, { 1 << 24 }> = RingBuf::new();

/// Everything that is not payload: few, and never pushed out by it.
#[btf_map]
pub static FACTS: RingBuf<u8, { 1 << 22 }> = RingBuf::new();

/// Processes of PostgreSQL servers, by process id, each with the connection that it serves.
#[btf_map]
pub static TARGETS: HashMap<u32, Target, 65536> = HashMap::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { REASON_COUNTERS as usize }> = PerCpuArray::new();

/// Who called `connect`, by the address of the `struct sock`, from then until the socket is closed.
#[btf_map]
pub static OWNERS: HashMap<u64, Owner, 65536> = HashMap::new();

/// The process that called `connect`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Owner {
    pub start: u64,
    pub cgroup_id: u64,
    pub tgid: u32,
    pub uid: u32,
    /// Local port and remote port (as it stands in the socket) once the connection is established, 0 before.
    pub ports: u32,
    /// First sequence numbers of its data and of the other end's, once it is established.
    pub sequence: u32,
    pub answer: u32,
    pub login_uid: u32,
    pub comm: [u8; 16],
}
