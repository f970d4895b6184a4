//! What was captured, in files: a segment recording or a packet capture becomes the same facts and segments that the
//! kernel side gives, so that it goes through exactly the same pipeline.
//!
//! Owns the formats, and the way from packets to streams. Refuses meaning: what the bytes say is the pipeline's
//! business. Works over any `Read`; opens no file, knows no clock.

mod connection;
mod connections;
mod error;
mod format;
mod fuzz;
mod link;
mod packets;
mod record;
pub mod segments;
mod server;
mod source;
mod stream;
mod summary;
#[cfg(test)]
mod tests;

pub use error::RecordingError;
pub use format::{Format, recognised, unpacked};
#[doc(hidden)]
pub use fuzz::{fuzz_pcap, fuzz_segments, fuzz_tcp};
pub use record::Record;
pub use source::{Input, Source};
pub use summary::Summary;
