//! Payload that the host took and did not want: it is not read, and told as one gap for each direction as soon as
//! something is wanted again, or the connection is over.
//!
//! Owns what was discarded of a connection and not told yet. Why it was discarded is the caller's business: it gives the
//! gap its reason.

use ebpf_abi::SegmentHeader;
use pg_wire::{Direction, Nanos};

use crate::{
    connection::{Connection, Recorder, direction, lost},
    event::{Body, Gap},
    tap::Tap,
};

/// What was discarded of one direction and not told yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    reason: &'static str,
    /// When the first and the last of it passed.
    from: Nanos,
    to: Nanos,
    /// Place in the stream behind the last of it.
    end: u64,
}

/// What was discarded of a connection and not told yet, by direction. Boxed, because it is rare.
#[derive(Debug, Default)]
pub(crate) struct Discarded(Option<Box<[Option<Span>; 2]>>);

impl Tap {
    /// Bytes passed that are not wanted, for this reason. `length`: as many as the segment would have brought.
    pub fn handle_discarded(&mut self, header: &SegmentHeader, length: u64, reason: &'static str) {
        let Some(connection) = self.connections.get_mut(&header.cookie) else {
            return;
        };
        if connection.past.touch(header) {
            self.touched.push(header.cookie);
        }
        connection.handle_discarded(header, length, reason, &mut self.recorder);
    }

    /// Bytes are wanted again, or for another reason not: what was discarded is told.
    pub fn tell_discarded(&mut self) {
        for connection in self.connections.values_mut() {
            connection.tell_discarded(&mut self.recorder);
        }
    }
}

impl Connection {
    fn handle_discarded(
        &mut self,
        header: &SegmentHeader,
        length: u64,
        reason: &'static str,
        recorder: &mut Recorder,
    ) {
        if header.channel != self.encrypted.channel {
            // Its places are of other streams.
            self.tell_discarded(recorder);
        }
        if !self.is_of_channel(header) {
            return;
        }
        let direction = direction(header);
        self.meet(direction, header.channel, header.offset, header.at, recorder);
        let end = header
            .offset
            .saturating_add(length)
            .saturating_add(u64::from(header.missing));
        if let Some(span) = self.discarded.of(direction) {
            (span.to, span.end) = (header.at, span.end.max(end));
            return;
        }
        // What was lost before is another loss.
        let fit = self.stream(direction).take(header.offset, 0);
        if fit.missing > 0 {
            let lost = lost(direction, header.flags);
            self.missing(direction, header.at, header.offset, fit.missing, lost, recorder);
        }
        let at = header.at;
        self.hears(direction, at);
        *self.discarded.slot(direction) = Some(Span {
            reason,
            from: at,
            to: at,
            end,
        });
    }

    /// Tells what was discarded of this connection, if something was.
    pub(crate) fn tell_discarded(&mut self, recorder: &mut Recorder) {
        let Some(spans) = self.discarded.0.take() else {
            return;
        };
        for (direction, span) in [Direction::Frontend, Direction::Backend].into_iter().zip(*spans) {
            let Some(span) = span else { continue };
            let missing = self.stream(direction).take(span.end, 0).missing;
            if missing == 0 {
                continue;
            }
            let gap = Gap {
                reason: span.reason,
                direction,
                bytes_missing: Some(missing),
                detail: String::new(),
            };
            let mut event = self.event(span.to, Body::Gap(gap));
            event.times.start = span.from;
            recorder.events.push_back(event);
            self.session
                .handle_gap(direction, span.to, span.end, Some(missing));
            self.poll(recorder);
        }
    }
}

impl Discarded {
    fn slot(&mut self, direction: Direction) -> &mut Option<Span> {
        let [frontend, backend] = self.0.get_or_insert_default().as_mut();
        match direction {
            Direction::Frontend => frontend,
            Direction::Backend => backend,
        }
    }

    fn of(&mut self, direction: Direction) -> Option<&mut Span> {
        self.0.as_ref()?;
        self.slot(direction).as_mut()
    }
}
