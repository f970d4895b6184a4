//! What the kernel side counts, by reason: losses, and what tells them from none, because what it hands over the reader can count.

/// Index into the per-CPU array `COUNTERS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Segments that found the segment ring full.
    RingFull = 0,
    /// Payloads that could not be copied from user memory.
    CopyFault = 1,
    /// Transfers by a system call whose buffer is not known, or is not proven to be this socket's.
    UnsupportedCall = 2,
    /// Transfers longer than what one call may hand over.
    CallCap = 3,
    /// Facts that found the fact ring full.
    FactsLost = 4,
    /// Processes that could not be marked because the target map was full.
    TargetsFull = 5,
    /// Connecting sockets whose owner could not be kept.
    OwnersFull = 6,
    /// Bytes of segments that found the ring full.
    RingFullBytes = 7,
    /// Encrypted bytes that passed outside of any probed function.
    ProbeMissed = 8,
    /// Calls of an encryption function by a process whose socket is not known.
    PlaintextUnplaced = 9,
    /// Calls of poolers on their sockets that could not be told: the ring for them was full, or there was no room for what is
    /// kept of a thread or a socket.
    TransfersLost = 10,
    /// No loss: changes of a socket's state for which the kernel skipped the first of the two programs there, and which the second
    /// took.
    TakenByOther = 11,
}

/// How many counters there are.
pub const REASON_COUNTERS: u32 = 12;
