//! One thing that was captured: what the pipeline takes, whatever file it comes from.

use ebpf_abi::{CloseFact, SegmentHeader, SocketFact};

/// One captured thing, in the order in which the pipeline must take them.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// How the times that follow relate to UTC. May come again when UTC was adjusted.
    Clock {
        /// Nanoseconds to add to a time of a record to get nanoseconds since the Unix epoch.
        utc_offset_ns: i64,
        /// Tells cookies of one boot of one host from those of another; empty if that is not known.
        boot: &'a str,
    },
    /// A connection was announced.
    Socket(SocketFact),
    /// Bytes passed; as many as `length` says.
    Segment(SegmentHeader, &'a [u8]),
    /// A TCP connection was closed.
    Close(CloseFact),
    /// A server process ended, and all its connections with it.
    Exit {
        /// Its process id.
        tgid: u32,
        /// When.
        at: u64,
    },
}
