//! `pgwitness-agent replay`: packet captures and recorded segments through the same pipeline as live traffic, events
//! as lines of JSON to standard output.
//!
//! Needs neither root nor a kernel. Refuses to name who is behind a connection: no process is behind a file.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use attribution::{Host, Peer};
use clap::ValueEnum;
use ebpf_abi::CloseFact;
use proto::v1;
use recording::{Format, Input, Record, Source};
use tap_core::{Body, Event, Outcome, Settings, Tap};

use crate::{clock::Clock, config::RedactionConfig, record};

/// Reads packet captures (pcap, pcapng) or what `run --record-segments` recorded, also compressed by zstd, and prints
/// the events as lines of JSON. Several files of packets are one capture that was cut into files.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files in the order in which they were written; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Packets: the server's port (can be given several times) [default: connections are recognised by what passes]
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// What of a statement's text is printed
    #[arg(long, value_enum, default_value = "literals")]
    redaction: RedactionConfig,
    /// What the files are
    #[arg(long, value_enum, default_value = "auto")]
    format: FormatArg,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// By its first bytes.
    Auto,
    /// Packets, also pcapng.
    Pcap,
    /// Recorded segments.
    Segments,
}

/// Who recorded the events, in their JSON form.
const AGENT: &str = "replay";

/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(250);

/// Packets between two looks at the clock.
const PROGRESS_STEPS: u64 = 1024;

/// Runs the command.
///
/// # Errors
///
/// One line that says what is wrong and what to do. What could be read was printed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut replay = Replay::new(args, io::stdout().lock());
    // What was understood before a file turned out to be damaged is told as well.
    let read = args.files.iter().try_for_each(|path| {
        replay
            .file(path, args.format)
            .with_context(|| format!("cannot replay {}", path.display()))
    });
    replay.end();
    if read.is_ok() || replay.source.summary().packets > 0 {
        eprintln!("{}", replay.summary());
    }
    read?;
    match replay.pipeline.failed {
        Some(problem) if problem.kind() != io::ErrorKind::BrokenPipe => {
            Err(problem).context("cannot write the events to standard output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

struct Replay<W: Write> {
    source: Source,
    pipeline: Pipeline<W>,
    /// Bytes read of all files, and what they have together.
    done: Arc<AtomicU64>,
    total: u64,
    /// When progress was shown last; `None` if nobody looks.
    shown: Option<Instant>,
}

impl<W: Write> Replay<W> {
    fn new(args: &Args, out: W) -> Self {
        let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
        Self {
            source: Source::new(args.port.clone()),
            pipeline: Pipeline::new(args.redaction, out),
            done: Arc::default(),
            total: args.files.iter().map(size).sum(),
            shown: io::stderr().is_terminal().then(Instant::now),
        }
    }

    fn file(&mut self, path: &Path, format: FormatArg) -> anyhow::Result<()> {
        let format = match format {
            FormatArg::Auto => None,
            FormatArg::Pcap => Some(Format::Packets),
            FormatArg::Segments => Some(Format::Segments),
        };
        let is_live = path == Path::new("-");
        let file: Box<dyn Read + Send> = if is_live {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path)?)
        };
        let counted = Counted {
            file,
            done: Arc::clone(&self.done),
        };
        let mut input = Input::new(recording::unpacked(counted)?, format)?;
        let known = self.pipeline.cookies_are_of.replace(input.format());
        if known.is_some_and(|known| known != input.format()) {
            bail!("packets and recorded segments cannot be replayed together: give them one after the other");
        }
        let mut steps: u64 = 0;
        while self.pipeline.failed.is_none()
            && self
                .source
                .step(&mut input, &mut |record| self.pipeline.take(&record))?
        {
            if is_live {
                self.pipeline.flush();
            }
            steps += 1;
            if steps.is_multiple_of(PROGRESS_STEPS) {
                self.progress();
            }
        }
        Ok(())
    }

    /// There is no more.
    fn end(&mut self) {
        self.source.finish(&mut |record| self.pipeline.take(&record));
        self.pipeline.end();
        self.pipeline.flush();
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }

    fn progress(&mut self) {
        if self.shown.is_none_or(|shown| shown.elapsed() < PROGRESS) {
            return;
        }
        self.shown = Some(Instant::now());
        let done = self.done.load(Ordering::Relaxed) >> 20;
        let of = match self.total >> 20 {
            0 => String::new(),
            total => format!(" of {total}"),
        };
        let packets = self.source.summary().packets;
        eprint!(
            "\r\x1b[K{done}{of} MiB, {packets} packets, {} events",
            self.pipeline.events
        );
    }

    /// One line: what there was, and what was not read and why.
    fn summary(&self) -> String {
        let (read, told) = (self.source.summary(), &self.pipeline);
        let what = match told.cookies_are_of {
            Some(Format::Segments) => "records",
            _ => "packets",
        };
        let mut line = format!(
            "{} {what}, {} connections, {} events ({} queries), {} gaps",
            read.packets, read.connections, told.events, told.queries, told.gaps
        );
        let not_read = [
            (read.mid_stream, "connections older than the capture"),
            (told.open_at_end, "connections open at its end"),
            (
                read.unrecognised,
                "connections left alone, because they do not look like PostgreSQL or are of other ports (see --port)",
            ),
            (read.not_tcp, "packets that are not TCP"),
            (read.fragments, "IP fragments not read"),
            (read.damaged, "packets with damaged headers"),
            (read.unknown_link, "packets of a link layer that is not known"),
            (read.cut, "packets cut short by the capture (see tcpdump -s 0)"),
            (read.implausible, "packets out of place"),
            (read.missing_bytes, "bytes missing"),
            (
                read.differing_overlaps,
                "times that bytes were sent again and differed",
            ),
            (read.crowded_out, "connections given up for lack of room"),
            (told.orphans(), "segments of connections that were not announced"),
            (read.torn_bytes, "bytes of an unfinished record at the end"),
        ];
        let mut lead = "; ";
        for (count, what) in not_read {
            if count > 0 {
                line += &format!("{lead}{count} {what}");
                lead = ", ";
            }
        }
        line
    }
}

/// What records become.
struct Pipeline<W: Write> {
    tap: Tap,
    open: BTreeSet<u64>,
    clock: Clock,
    boot: String,
    attribution: v1::Attribution,
    /// The newest time of a record.
    now: u64,
    cookies_are_of: Option<Format>,
    events: u64,
    queries: u64,
    gaps: u64,
    open_at_end: u64,
    /// Orphans of pipelines that were ended.
    orphans: u64,
    redaction: RedactionConfig,
    out: BufWriter<W>,
    /// It cannot be written; perhaps whoever read it went away.
    failed: Option<io::Error>,
}

impl<W: Write> Pipeline<W> {
    fn new(redaction: RedactionConfig, out: W) -> Self {
        let host = Host {
            trust_domain: String::new(),
            name: String::new(),
        };
        let peer = Peer::Unknown {
            reason: "replayed from a capture: no process is behind it".to_owned(),
        };
        Self {
            tap: tap(redaction),
            open: BTreeSet::new(),
            clock: Clock::of_offset(0),
            boot: String::new(),
            attribution: record::attribution(&attribution::attribute(&host, &peer)),
            now: 0,
            cookies_are_of: None,
            events: 0,
            queries: 0,
            gaps: 0,
            open_at_end: 0,
            orphans: 0,
            redaction,
            out: BufWriter::with_capacity(1 << 16, out),
            failed: None,
        }
    }

    fn take(&mut self, record: &Record<'_>) {
        match record {
            Record::Clock { utc_offset_ns, boot } => {
                // Cookies are of one boot of one host: the same one of another is another connection.
                if self.boot != *boot && !self.boot.is_empty() {
                    self.end();
                    self.orphans += self.tap.orphans();
                    self.tap = tap(self.redaction);
                }
                (*boot).clone_into(&mut self.boot);
                self.clock = Clock::of_offset(*utc_offset_ns);
            }
            Record::Socket(fact) => {
                self.now = fact.at;
                self.open.insert(fact.cookie);
                self.tap.handle_socket(fact);
            }
            Record::Segment(header, bytes) => {
                self.now = header.at;
                self.tap.handle_segment(header, bytes);
            }
            Record::Close(fact) => {
                self.now = fact.at;
                self.tap.handle_close(fact);
            }
            Record::Exit { tgid, at } => {
                self.now = *at;
                self.tap.handle_exit(*tgid, *at);
            }
        }
        self.emit(|_| {});
        for cookie in self.tap.take_closed() {
            self.open.remove(&cookie);
        }
    }

    /// The capture ends here; that is no end of a connection, and what is not answered may have been.
    fn end(&mut self) {
        for cookie in std::mem::take(&mut self.open) {
            self.open_at_end += 1;
            self.tap.handle_close(&CloseFact {
                cookie,
                at: self.now,
                ..CloseFact::default()
            });
            self.emit(|body| match body {
                Body::SessionClose { reason, .. } if *reason == "closed" => *reason = "capture-end",
                Body::Query(query) if query.outcome == Outcome::Unanswered => {
                    query.outcome = Outcome::Unknown;
                }
                _ => {}
            });
        }
        self.tap.take_closed();
    }

    fn emit(&mut self, change: impl Fn(&mut Body)) {
        while let Some(mut event) = self.tap.poll() {
            change(&mut event.body);
            self.print(&event);
        }
    }

    fn print(&mut self, event: &Event) {
        self.events += 1;
        self.queries += u64::from(matches!(event.body, Body::Query(_)));
        self.gaps += u64::from(matches!(event.body, Body::Gap(_)));
        let event = v1::Event {
            seq: self.events,
            ..record::event(event, Some(&self.attribution), self.clock, &self.boot)
        };
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{}", proto::json::event(AGENT, &event)).err();
        }
    }

    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
    }

    fn orphans(&self) -> u64 {
        self.orphans + self.tap.orphans()
    }
}

fn tap(redaction: RedactionConfig) -> Tap {
    Tap::new(Settings {
        redaction: redaction.into(),
        ..Settings::default()
    })
}

/// A file that counts what was read of it.
struct Counted {
    file: Box<dyn Read + Send>,
    done: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let taken = self.file.read(into)?;
        self.done.fetch_add(taken as u64, Ordering::Relaxed);
        Ok(taken)
    }
}
