//! What the kernel side counts, by reason.

/// Index into the per-CPU array `COUNTERS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Segments written.
    Segments = 0,
    /// Payload bytes written.
    Bytes = 1,
    /// Segments that found the segment ring full.
    RingFull = 2,
    /// Payloads that could not be copied from user memory.
    CopyFault = 3,
    /// Transfers by a system call whose buffer is not known, or is not proven to be this socket's.
    UnsupportedCall = 4,
    /// Transfers longer than what one call may hand over.
    CallCap = 5,
    /// Facts that found the fact ring full.
    FactsLost = 6,
    /// Processes that could not be marked because the target map was full.
    TargetsFull = 7,
    /// Connecting sockets whose owner could not be kept.
    OwnersFull = 8,
    /// Bytes of segments that found the ring full.
    RingFullBytes = 9,
    /// Encrypted bytes that passed outside of any probed function.
    ProbeMissed = 10,
    /// Calls of an encryption function by a process whose socket is not known.
    PlaintextUnplaced = 11,
}

/// How many counters there are.
pub const REASON_COUNTERS: u32 = 12;
