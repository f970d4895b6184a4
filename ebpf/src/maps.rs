//! The maps that kernel and user space share, and the kernel side's own state of connecting sockets.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use ebpf_abi::{Client, MARKS, REASON_COUNTERS, Target, Walk};

/// Payload. Its size is set at load time.
#[btf_map]
pub static SEGMENTS: RingBuf<u8, { 1 << 24 }> = RingBuf::new();

/// Everything that is not payload: few, and never pushed out by it.
#[btf_map]
pub static FACTS: RingBuf<u8, { 1 << 22 }> = RingBuf::new();

/// What poolers did with their sockets. Its size is set at load time.
#[btf_map]
pub static TRANSFERS: RingBuf<u8, { 1 << 22 }> = RingBuf::new();

/// Processes of PostgreSQL servers, by process id, each with the connection that it serves; and processes of poolers.
#[btf_map]
pub static TARGETS: HashMap<u32, Target, 65536> = HashMap::new();

/// Whether a process may be in `TARGETS`: not 0 for all that are, by process id. Most calls are of others, and a byte among its
/// neighbours is sooner at hand than an entry. Its size is set at load time.
#[btf_map]
pub static MARKED: Array<[u8; MARKS as usize], 1, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { REASON_COUNTERS as usize }> = PerCpuArray::new();

/// Names by which programs are taken for poolers, as a task's name shows them. Filled at load time.
#[btf_map]
pub static POOLER_NAMES: HashMap<[u8; 16], u32, 64> = HashMap::new();

/// Not 0 from the first process on that was taken for a pooler's, by either side: before that no call that moved nothing matters.
#[btf_map]
pub static POOLERS_SEEN: Array<u32, 1> = Array::new();

/// Threads of poolers, by thread id, from their first call on a socket to their end.
#[btf_map]
pub static THREADS: HashMap<u32, Thread, 16384> = HashMap::new();

/// Encrypted sessions of poolers.
#[btf_map]
pub static SESSIONS: HashMap<SessionKey, Session, 16384> = HashMap::new();

/// Sockets of poolers. It goes with the socket.
#[btf_map]
pub static POOLED: SkStorage<Pooled> = SkStorage::new();

/// Unix sockets that poolers had open when they were found running, by inode number: nobody counted what passed before.
#[btf_map]
pub static OLD_SOCKETS: HashMap<u64, u32, 16384> = HashMap::new();

/// Who called `connect`, by the address of the `struct sock`, from then until the socket is closed.
#[btf_map]
pub static OWNERS: HashMap<u64, Owner, 65536> = HashMap::new();

/// Sockets whose change of state the first of the two programs there took and the second did not see yet, the newest first: one,
/// and one that it interrupted.
#[btf_map]
pub static TAKEN_CHANGES: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();

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

/// A thread of a pooler.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Thread {
    /// Records of it so far, those that were lost included.
    pub order: u32,
    /// What the last call on a socket said that moved nothing, inside of `call`: `TRANSFER_…` flags.
    pub said: u32,
    /// The call of an encryption function that it is in.
    pub call: Encrypting,
    /// Where the walk over the buffers of its call stands.
    pub walk: Walk,
}

/// A call of an encryption function that has not returned.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Encrypting {
    /// The session that it was given (`SSL *`); 0 while there is no call.
    pub session: u64,
    /// The buffer for plaintext.
    pub buffer: u64,
    /// Where it will say how much there was; 0 if it returns that.
    pub length: u64,
    /// An `ebpf_abi::Direction`.
    pub direction: u32,
    pub reserved: u32,
}

/// An encrypted session, by process and address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey {
    pub tgid: u64,
    pub address: u64,
}

/// An encrypted session of a pooler.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Session {
    /// Its connection.
    pub cookie: u64,
    /// Plaintext bytes received and sent.
    pub received: u64,
    /// As above.
    pub sent: u64,
    /// What was lost, as in `Client`.
    pub lost: u8,
    /// Not 0: its plaintext is told.
    pub told: u8,
    pub reserved: [u8; 6],
}

/// A socket of a pooler.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pooled {
    pub client: Client,
    pub stage: Stage,
    /// Or'ed `SOCKET_…` flags that it is told with.
    pub flags: u8,
    pub reserved: [u8; 3],
    /// The encrypted session over it; zeros if there is none.
    pub session: SessionKey,
}

/// What is known of a pooler's socket. A number: user space zeroes the value.
pub type Stage = u32;

/// It was not looked at.
pub const NEW: Stage = 0;

/// It is counted, and could not be told yet.
pub const UNTOLD: Stage = 1;

/// It is told.
pub const TOLD: Stage = 2;

/// It is nothing that statements go over.
pub const OTHER: Stage = 3;
