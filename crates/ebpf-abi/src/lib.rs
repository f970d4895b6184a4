//! The records that the kernel side writes and the agent reads, laid out alike on both sides.
//!
//! Owns the layout of everything that crosses from kernel to user space, and of what is handed to the
//! kernel side at load time. Refuses behaviour: no parsing beyond viewing bytes as a record. It is separate
//! because it is compiled twice, for the host and for BPF. Times are nanoseconds of `CLOCK_BOOTTIME`.

#![no_std]
#![expect(
    unsafe_code,
    reason = "records are viewed in bytes that another program wrote"
)]

mod counter;
mod fact;
mod layout;
mod segment;
mod target;
mod transfer;

pub use counter::{Counter, REASON_COUNTERS};
pub use fact::{
    ARGS_MAX, CGROUP_PATH_MAX, CgroupFact, CloseFact, ENVIRONMENT_MAX, EnvironmentFact, ExecFact, FactKind,
    OwnerFact, PATH_MAX, PEER_CGROUP, PEER_CRED, PeerProcess, SOCKET_MID_STREAM, SOCKET_POOLER,
    SOCKET_PROBED_GSS, SOCKET_PROBED_TLS, SOCKET_UNCOUNTED, SocketFact, SocketRole, TaskFact, TaskPlace,
    UNIX_PATH_MAX,
};
pub use layout::{KernelLayout, Wishes};
pub use segment::{
    CHUNK_MAX, CHUNKS_MAX, Channel, Direction, LOST_RECEIVED, LOST_SENT, MissingReason,
    PROBE_MISSED_RECEIVED, PROBE_MISSED_SENT, SegmentHeader,
};
pub use target::{
    Client, MARKS, ProbedCall, TARGET_BORN_TAPPED, TARGET_POOLER, TARGET_PROBED_GSS, TARGET_PROBED_TLS,
    TARGET_SOCKET_UNTOLD, Target, Walk,
};
pub use transfer::{
    BUFFERS_MAX, FRONT, TRANSFER_END, TRANSFER_LOST, TRANSFER_NONE, TRANSFER_UNPROVEN, Transfer,
};

/// A record that can be viewed in bytes that the kernel wrote.
///
/// # Safety
///
/// Implementors are `repr(C)`, hold integers and arrays of integers only (any bit pattern is valid), and have
/// no padding.
pub unsafe trait Record: Copy {
    /// The record at the front of `bytes`, or `None` if they are too few. Alignment does not matter.
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        // SAFETY: enough bytes were checked for, any bit pattern is a valid value, and the read is unaligned.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}
