//! The maps that kernel and user space share, and the kernel side's own state of sockets.

use aya_ebpf::{
    btf_maps::{HashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use ebpf_abi::{CHUNK_MAX, OwnerFact, REASON_COUNTERS, SegmentHeader, Target};

/// Payload. Its size is set at load time.
#[btf_map]
pub static SEGMENTS: RingBuf<u8, { 1 << 24 }> = RingBuf::new();

/// Everything that is not payload: few, and never pushed out by it.
#[btf_map]
pub static FACTS: RingBuf<u8, { 1 << 22 }> = RingBuf::new();

/// Processes of PostgreSQL servers, by process id.
#[btf_map]
pub static TARGETS: HashMap<u32, Target, 65536> = HashMap::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { REASON_COUNTERS as usize }> = PerCpuArray::new();

/// State of the sockets that tapped processes use; the kernel frees it with the socket.
#[btf_map]
pub static SOCKETS: SkStorage<SocketState> = SkStorage::new();

/// Who called `connect`, kept under the socket until it is established.
#[btf_map]
pub static CONNECTING: SkStorage<OwnerFact> = SkStorage::new();

/// Room to build a record in; one program runs on a CPU at a time, and each has its own.
#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

#[btf_map]
pub static EXEC_SCRATCH: PerCpuArray<ExecScratch, 1> = PerCpuArray::new();

#[btf_map]
pub static CGROUP_SCRATCH: PerCpuArray<CgroupScratch, 1> = PerCpuArray::new();

#[btf_map]
pub static SOCKET_SCRATCH: PerCpuArray<SocketScratch, 1> = PerCpuArray::new();

#[repr(C)]
pub struct SocketScratch {
    pub fact: ebpf_abi::SocketFact,
}

#[repr(C)]
pub struct CgroupScratch {
    pub fact: ebpf_abi::CgroupFact,
}

#[repr(C)]
pub struct Scratch {
    pub header: SegmentHeader,
    pub payload: [u8; CHUNK_MAX],
}

#[repr(C)]
pub struct ExecScratch {
    pub fact: ebpf_abi::ExecFact,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct SocketState {
    /// 0 until the socket was announced.
    pub cookie: u64,
    /// Bytes that the tapped process received and sent in all.
    pub received: u64,
    pub sent: u64,
    /// `tcp_sock.copied_seq` and `write_seq` when the above were true.
    pub copied_seq: u32,
    pub write_seq: u32,
    pub family: u16,
    /// An `ebpf_abi::SocketRole`.
    pub role: u8,
    pub reserved: [u8; 5],
}

impl SocketState {
    pub const NEW: Self = Self {
        cookie: 0,
        received: 0,
        sent: 0,
        copied_seq: 0,
        write_seq: 0,
        family: 0,
        role: 0,
        reserved: [0; 5],
    };
}
