//! Files in, records out. Several files of packets are one capture, as a capture that was cut into files is.

use std::io::BufRead;

use crate::{
    connections::Connections,
    error::RecordingError,
    format::{Format, recognised},
    link::{self, Unread},
    packets::{Capture, Frame},
    record::Record,
    segments::Reader,
    summary::Summary,
};

/// Reads files, and knows the connections in them.
#[derive(Debug, Default)]
pub struct Source {
    connections: Connections,
    summary: Summary,
    /// The times of the records so far were those of packets.
    tells_utc: bool,
}

/// A file that is being read.
pub struct Input<'a>(Kind<'a>);

enum Kind<'a> {
    Segments(Reader<Box<dyn BufRead + Send + 'a>>),
    Packets(Capture<'a>),
}

impl<'a> Input<'a> {
    /// Begins to read a file, which was unpacked (see [`crate::unpacked`]). Without a format it is recognised.
    ///
    /// # Errors
    ///
    /// If it has no format that is known, or not the one given.
    pub fn new(
        mut from: Box<dyn BufRead + Send + 'a>,
        format: Option<Format>,
    ) -> Result<Self, RecordingError> {
        let format = match format {
            Some(format) => format,
            None => recognised(from.as_mut())?,
        };
        Ok(Self(match format {
            Format::Segments => Kind::Segments(Reader::new(from)?),
            Format::Packets => Kind::Packets(Capture::new(from)?),
        }))
    }

    /// What the file holds.
    #[must_use]
    pub fn format(&self) -> Format {
        match self.0 {
            Kind::Segments(_) => Format::Segments,
            Kind::Packets(_) => Format::Packets,
        }
    }
}

impl Source {
    /// Of packets, connections with servers on these ports are followed; if there are none, those that show that
    /// they are PostgreSQL's.
    #[must_use]
    pub fn new(ports: Vec<u16>) -> Self {
        Self {
            connections: Connections::new(ports),
            ..Self::default()
        }
    }

    /// Reads the next packet or record; false at the end of the file. What comes of a packet may come later.
    ///
    /// # Errors
    ///
    /// If the file is damaged or cannot be read. What was read before stands.
    pub fn step(
        &mut self,
        input: &mut Input<'_>,
        sink: &mut dyn FnMut(Record<'_>),
    ) -> Result<bool, RecordingError> {
        let Self {
            connections,
            summary,
            tells_utc,
        } = self;
        match &mut input.0 {
            Kind::Segments(reader) => {
                if let Some(record) = reader.read()? {
                    *tells_utc = false;
                    summary.packets += 1;
                    count(&record, summary);
                    sink(record);
                    return Ok(true);
                }
                summary.torn_bytes += reader.torn();
                Ok(false)
            }
            Kind::Packets(capture) => {
                if !std::mem::replace(tells_utc, true) {
                    sink(Record::Clock {
                        utc_offset_ns: 0,
                        boot: "capture",
                    });
                }
                let more = capture.step(&mut |frame| take(&frame, connections, summary, sink))?;
                summary.torn_bytes += capture.torn();
                Ok(more)
            }
        }
    }

    /// There are no more files: what was waited for is given up. Connections that are open stay so.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Record<'_>)) {
        self.connections.finish(&mut self.summary, sink);
    }

    /// What was read so far, and what was not.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }
}

fn count(record: &Record<'_>, summary: &mut Summary) {
    match record {
        Record::Socket(fact) => {
            summary.connections += 1;
            summary.mid_stream += u64::from(fact.flags & ebpf_abi::SOCKET_MID_STREAM != 0);
        }
        Record::Segment(header, bytes) => {
            summary.bytes += bytes.len() as u64;
            summary.missing_bytes += u64::from(header.missing);
            summary.gaps += u64::from(header.missing > 0);
        }
        Record::Clock { .. } | Record::Close(_) | Record::Exit { .. } => {}
    }
}

fn take(
    frame: &Frame<'_>,
    connections: &mut Connections,
    summary: &mut Summary,
    sink: &mut dyn FnMut(Record<'_>),
) {
    summary.packets += 1;
    summary.cut += u64::from(frame.cut > 0);
    match link::packet(frame.link, frame.at, frame.bytes, frame.cut) {
        Ok(packet) => connections.handle(&packet, summary, sink),
        Err(Unread::Link) => summary.unknown_link += 1,
        Err(Unread::NotTcp) => summary.not_tcp += 1,
        Err(Unread::Fragment) => summary.fragments += 1,
        Err(Unread::Damaged) => summary.damaged += 1,
    }
}
