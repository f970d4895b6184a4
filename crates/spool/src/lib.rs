//! A durable queue of numbered frames in a folder: what an agent has sealed and no collector has acknowledged.
//!
//! Owns the files, their recovery and their bound. Refuses to know what a frame says, when it is worth a sync (the caller
//! does, [`Spool::wants_sync`] says whether there is anything to sync), and any thread or clock of its own. All of the file
//! system comes through [`disk::Disk`], so that tests can take the power away between any two calls.
//!
//! # What holds
//!
//! - A frame is returned as it was appended, or not at all.
//! - What was there when [`Spool::sync`] returned without error is there after any crash or loss of power, until it is
//!   acknowledged. A crash of the process alone (`kill -9`) loses nothing that was appended: it lies in the page cache.
//! - After a loss of power the frames that are left are, of those not acknowledged, the oldest ones without a hole: what was not synced is cut
//!   at the first frame that did not survive, and [`Recovered::cuts`] says where.
//! - The newest frame stays, acknowledged or not: the caller's numbering goes on behind it.
//! - After an error nothing that was there is gone, and the call can be made again. A frame that was refused is appended again
//!   as the same bytes, or never; never as others under its number.
//! - **A full disk**, or the bound: [`Spool::append`] says so and takes nothing, as often as it is tried, until acknowledged files
//!   are removed or there is room on the disk again.
//! - **A failed sync**: nobody knows what the pages of that file are worth, so it is not believed any more. All that was not known to be durable
//!   is written from memory to a new file.
//!
//! # Format, version 1
//!
//! A folder of files named `NNNNNNNNNN-SSSSSSSSSSSSSSSSSSSS.spool`, both numbers decimal: *N* counts files and only rises, *S* is the
//! sequence of the file's first frame. Other names are not touched. Numbers in files are little-endian.
//!
//! ```text
//! file    = "pgwitness spool1" frame*                      16 bytes, then frames with rising sequences without a hole, the first is S
//! frame   = sum:u32 length:u32 sequence:u64 body
//! length  = bytes of the body, from 1 to 16 MiB + 64 KiB
//! sum     = CRC-32C (Castagnoli, RFC 3720 appendix B.4) over length, sequence and body as they lie in the file
//! ```
//!
//! A file counts up to its first frame that does not hold, or whose sequence is not below *S* of every file with a higher *N* in which
//! something counts: a later file takes the place of what it says anew, unless it is the newest and did not come as far as the one
//! that it was to replace. A file in which nothing counts is removed. Files are removed from the oldest on, when
//! all their frames are acknowledged and a later frame is durable. An agent's bodies are encoded `SignedBatch` messages
//! (`proto/pgwitness/v1/delivery.proto`).

pub mod disk;
mod files;
mod frame;
mod recovery;
mod spool;

pub use frame::{BODY_BYTES, Broken, FRONT, Frame};
pub use recovery::{Cut, OpenError, Recovered};
pub use spool::{AppendError, Limits, ReadError, Spool};
