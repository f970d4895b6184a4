//! Why a file cannot be read.

use std::io;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// Reading failed.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin with the magic line of our format.
    #[error("it is no segment recording of this version: it does not begin with \"pgwitness segments 1\"")]
    NotSegments,
    /// It begins like no format that is known.
    #[error(
        "it is neither a packet capture (pcap, pcapng) nor a segment recording, plain or compressed by zstd"
    )]
    UnknownFormat,
    /// It is compressed by gzip.
    #[error("it is compressed by gzip: unpack it first, as in `zcat FILE | pgwitness-agent replay -`")]
    Gzip,
    /// A segment recording holds something else.
    #[error("damaged at byte {offset}: expected {expected}")]
    Damaged {
        /// Byte of the (uncompressed) file.
        offset: u64,
        /// What should be there.
        expected: &'static str,
    },
    /// A packet capture holds something else.
    #[error("the capture is damaged behind packet {packet}: {found}")]
    DamagedCapture {
        /// Packets that were read before.
        packet: u64,
        /// What the reader says.
        found: String,
    },
}
