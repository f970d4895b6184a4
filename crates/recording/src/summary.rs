//! What was read, and what was not and why: counters.

/// What was read, and what was not and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets, or records of a segment recording.
    pub packets: u64,
    /// Packets that are not TCP over IP.
    pub not_tcp: u64,
    /// Parts of IP packets: they are not put together.
    pub fragments: u64,
    /// Packets whose headers are cut off or wrong.
    pub damaged: u64,
    /// Packets of a link layer that is not known.
    pub unknown_link: u64,
    /// Packets that were not captured as a whole.
    pub cut: u64,
    /// Packets whose numbers cannot be of their connection.
    pub implausible: u64,
    /// Connections that were followed.
    pub connections: u64,
    /// Those of them whose beginning was not captured.
    pub mid_stream: u64,
    /// Connections in which something passed that is not known to be PostgreSQL's, or not of the ports asked for.
    pub unrecognised: u64,
    /// Connections that were given up to make room for others.
    pub crowded_out: u64,
    /// Bytes handed on.
    pub bytes: u64,
    /// Bytes that came again.
    pub repeated_bytes: u64,
    /// Times that bytes came again and were not the same.
    pub differing_overlaps: u64,
    /// Bytes that were missing.
    pub missing_bytes: u64,
    /// Times that bytes were missing.
    pub gaps: u64,
    /// Bytes of an unfinished packet or record at the end of a file.
    pub torn_bytes: u64,
}
