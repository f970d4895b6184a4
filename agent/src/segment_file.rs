//! `run --record-segments`: what the pipeline took, kept in a file, so that it can be gone through again.
//!
//! For forensics only, and off by default: the file holds the bytes of connections as they passed, rows and passwords
//! included. It refuses to write over a file, is readable by its owner alone, and ends at its limit or at the first error:
//! neither stops the tap.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, BufWriter},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use recording::{Record, segments::Writer};
use tracing::{error, info, warn};

use crate::clock::Clock;

/// A recording that is being written.
#[derive(Debug)]
pub struct SegmentFile {
    path: PathBuf,
    limit: u64,
    /// Gone once it is over.
    writer: Option<Writer<BufWriter<File>>>,
    boot: String,
    clock_ns: Option<i64>,
    flushed: Instant,
    /// Processes that served a connection which is recorded: the ends of others are nobody's business.
    servers: HashSet<u32>,
}

/// What was taken is on its way to the disk after this time at the latest.
const FLUSH: Duration = Duration::from_secs(1);

/// Bytes written at once: a backend's 8 KiB messages take few calls.
const BUFFER: usize = 256 << 10;

/// The clocks are compared in each round and differ by some nanoseconds each time; this much counts as an adjustment.
const ADJUSTED_NS: u64 = 100_000;

impl SegmentFile {
    /// Makes the file. The recording ends with the record that brings it to `limit` bytes.
    ///
    /// # Errors
    ///
    /// If there is such a file, or it cannot be made.
    pub fn create(path: &Path, limit: u64) -> anyhow::Result<Self> {
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => anyhow::bail!(
                "{} exists: a recording is never written over another file, give another name to --record-segments",
                path.display()
            ),
            made => made.with_context(|| {
                format!(
                    "cannot make {}: give a file in a folder that can be written to --record-segments",
                    path.display()
                )
            })?,
        };
        let writer = Writer::new(BufWriter::with_capacity(BUFFER, file))
            .with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            limit,
            writer: Some(writer),
            boot: String::new(),
            clock_ns: None,
            flushed: Instant::now(),
            servers: HashSet::new(),
        })
    }

    /// Says loudly what this means.
    pub fn announce(&self) {
        warn!(
            "--record-segments: everything that passes the tapped connections is written to {}, with every row, literal \
             and password, whatever the redaction is, until it has {} bytes: guard that file, and delete it when it has served",
            self.path.display(),
            self.limit
        );
    }

    /// A round begins, at which UTC and the kernel's clock were compared.
    pub fn begin_round(&mut self, boot: &str, clock: Clock) {
        let now = clock.offset_ns();
        if self.clock_ns.is_none_or(|then| then.abs_diff(now) > ADJUSTED_NS) {
            self.clock_ns = Some(now);
            boot.clone_into(&mut self.boot);
            let boot = std::mem::take(&mut self.boot);
            self.write(&Record::Clock {
                utc_offset_ns: now,
                boot: &boot,
            });
            self.boot = boot;
        }
        if self.flushed.elapsed() >= FLUSH {
            self.flush();
        }
    }

    /// Takes what the pipeline is about to take.
    pub fn write(&mut self, record: &Record<'_>) {
        match record {
            Record::Socket(fact) => {
                self.servers.insert(fact.tgid);
            }
            Record::Exit { tgid, .. } if !self.servers.remove(tgid) => return,
            _ => {}
        }
        let Some(writer) = &mut self.writer else { return };
        if let Err(problem) = writer.write(record) {
            self.failed(&problem);
        } else if writer.written() >= self.limit {
            warn!(
                "the recording {} has reached its limit (--record-limit) and is over; the tap goes on",
                self.path.display()
            );
            self.finish();
        }
    }

    /// Hands the rest to the system.
    pub fn finish(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        let written = writer.written();
        match writer.finish() {
            Ok(_) => info!("{written} bytes were recorded in {}", self.path.display()),
            Err(problem) => self.failed(&problem),
        }
    }

    fn flush(&mut self) {
        self.flushed = Instant::now();
        if let Some(Err(problem)) = self.writer.as_mut().map(Writer::flush) {
            self.failed(&problem);
        }
    }

    fn failed(&mut self, problem: &io::Error) {
        self.writer = None;
        error!(
            "the recording {} is over, because it cannot be written: {problem}; the tap goes on",
            self.path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use recording::segments::{MAGIC, Reader};

    use super::*;

    fn read(path: &Path) -> Vec<String> {
        let bytes = std::fs::read(path).expect("the recording");
        let mut reader = Reader::new(bytes.as_slice()).expect("begins as it should");
        let mut records = Vec::new();
        while let Some(record) = reader.read().expect("whole") {
            records.push(format!("{record:?}"));
        }
        assert_eq!(reader.torn(), 0);
        records
    }

    #[test]
    fn a_recording_is_its_owners_alone_and_never_replaces_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.segments");
        let mut file = SegmentFile::create(&path, 1 << 20).expect("new");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            SegmentFile::create(&path, 1)
                .expect_err("it is there")
                .to_string()
                .contains("exists")
        );
        file.begin_round("0a1b2c3d", Clock::of_offset(5));
        file.begin_round("0a1b2c3d", Clock::of_offset(6));
        // The end of a process that served nobody is not recorded.
        file.write(&Record::Exit { tgid: 1, at: 2 });
        file.finish();
        assert_eq!(
            read(&path),
            [r#"Clock { utc_offset_ns: 5, boot: "0a1b2c3d" }"#.to_owned()]
        );
    }

    #[test]
    fn at_its_limit_it_ends_behind_a_whole_record() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.segments");
        let mut file = SegmentFile::create(&path, MAGIC.len() as u64 + 1).expect("new");
        for _ in 0..10 {
            file.write(&Record::Clock {
                utc_offset_ns: 0,
                boot: "",
            });
        }
        assert_eq!(read(&path).len(), 1);
    }

    #[test]
    fn a_full_disk_ends_it_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = SegmentFile::create(&folder.path().join("a"), 1 << 20).expect("new");
        let full = OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("every Linux has it");
        file.writer = Writer::new(BufWriter::new(full)).ok();
        file.flush();
        assert!(file.writer.is_none());
        file.write(&Record::Exit { tgid: 1, at: 2 });
    }
}
