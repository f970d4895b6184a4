//! A recording in memory, which can be played many times.

use std::{fs::File, io::BufReader, path::Path};

use anyhow::Context as _;
use ebpf_abi::{CloseFact, SegmentHeader, SocketFact};
use recording::{Input, Record, Source};
use tap_core::{Settings, Tap};

/// What was captured, in order.
pub(crate) struct Tape {
    steps: Vec<Step>,
    /// Bytes of both streams of all connections.
    pub(crate) bytes: u64,
}

enum Step {
    Socket(Box<SocketFact>),
    Segment(SegmentHeader, Vec<u8>),
    Close(CloseFact),
    Exit(u32, u64),
}

impl Tape {
    /// Reads a recording.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
        let mut input = Input::new(recording::unpacked(Box::new(BufReader::new(file)))?, None)?;
        let mut source = Source::new(Vec::new());
        let mut tape = Self {
            steps: Vec::new(),
            bytes: 0,
        };
        while source.step(&mut input, &mut |record| tape.take(record))? {}
        source.finish(&mut |record| tape.take(record));
        Ok(tape)
    }

    fn take(&mut self, record: Record<'_>) {
        self.steps.push(match record {
            Record::Clock { .. } => return,
            Record::Socket(fact) => Step::Socket(Box::new(fact)),
            Record::Segment(header, bytes) => {
                self.bytes += bytes.len() as u64;
                Step::Segment(header, bytes.to_vec())
            }
            Record::Close(fact) => Step::Close(fact),
            Record::Exit { tgid, at } => Step::Exit(tgid, at),
        });
    }

    /// Plays it to a new pipeline; gives the events to `out`.
    pub(crate) fn play(&self, settings: Settings, out: &mut impl FnMut(tap_core::Event)) {
        let mut tap = Tap::new(settings);
        for step in &self.steps {
            match step {
                Step::Socket(fact) => tap.handle_socket(fact),
                Step::Segment(header, bytes) => tap.handle_segment(header, bytes),
                Step::Close(fact) => tap.handle_close(fact),
                Step::Exit(tgid, at) => tap.handle_exit(*tgid, *at),
            }
            while let Some(event) = tap.poll() {
                out(event);
            }
        }
    }

    /// Plays it to the protocol alone: streams and sessions, without meaning and events.
    pub(crate) fn play_protocol(&self, out: &mut impl FnMut(pg_wire::Output)) {
        let mut sessions = std::collections::HashMap::new();
        for step in &self.steps {
            match step {
                Step::Socket(fact) => {
                    sessions
                        .entry(fact.cookie)
                        .or_insert_with(|| pg_wire::Session::new(pg_wire::Limits::default()));
                }
                Step::Segment(header, bytes) => {
                    let Some(session) = sessions.get_mut(&header.cookie) else {
                        continue;
                    };
                    let direction = if header.direction == ebpf_abi::Direction::Received as u8 {
                        pg_wire::Direction::Frontend
                    } else {
                        pg_wire::Direction::Backend
                    };
                    session.handle_bytes(direction, header.at, header.offset, bytes);
                    while let Some(output) = session.poll() {
                        out(output);
                    }
                }
                Step::Close(_) | Step::Exit(..) => {}
            }
        }
    }
}
