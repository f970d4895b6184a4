//! One tapped connection: two streams, one protocol session, and what it has told of itself.

pub(crate) mod naming;
mod told;

use std::{collections::VecDeque, sync::Arc};

use ebpf_abi::{
    CloseFact, LOST_RECEIVED, LOST_SENT, MissingReason, PROBE_MISSED_RECEIVED, PROBE_MISSED_SENT,
    SegmentHeader, SocketFact,
};
use pg_wire::{CopyOf, Direction, Exchange, Limits, Nanos, RowsOf, Session};

use crate::{
    assertions::{Assertions, Tracked},
    catalog::{Catalog, Definer},
    discarded::Discarded,
    earlier::{self, Past, Places, Told},
    encoding::Encodings,
    encrypted::Encrypted,
    event::{Body, Event, Gap, SessionFacts, Times},
    meanings::Meanings,
    query::{Answered, Redaction},
    relations::Relations,
    stream::ByteStream,
    subjects::Watch,
    transaction::Transactions,
};

/// Where events go, and what they are made with: shared by all connections.
pub(crate) struct Recorder {
    pub(crate) meanings: Meanings,
    pub(crate) redaction: Redaction,
    pub(crate) events: VecDeque<Event>,
    /// Empty between units.
    pub(crate) told: Vec<Answered>,
    /// What clients may say about themselves.
    pub(crate) names: Tracked,
    /// Looks for values of classified columns.
    pub(crate) watch: Option<Watch>,
    /// Which tables are behind the numbers in results.
    pub(crate) relations: Relations,
    /// What servers' catalogs say, where they are looked at.
    pub(crate) catalog: Option<Catalog>,
}

/// What a session may keep of what passes.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) limits: Limits,
    /// Of rows; `None`: nothing.
    pub(crate) rows_of: Option<RowsOf>,
    /// What it asks for is looked at when it asks.
    pub(crate) weighs: bool,
    /// Of copied data.
    pub(crate) copy_of: Option<CopyOf>,
}

/// A connection and everything that is known of it.
pub(crate) struct Connection {
    pub(crate) facts: Arc<SessionFacts>,
    pub(crate) session: Session,
    pub(crate) frontend: ByteStream,
    pub(crate) backend: ByteStream,
    pub(crate) encrypted: Encrypted,
    statements: u64,
    transactions: Transactions,
    encodings: Encodings,
    pub(crate) assertions: Assertions,
    /// What it may be doing to names.
    pub(crate) definer: Definer,
    /// How it looks for names.
    looks: naming::Looks,
    /// Time of the segment that is being read.
    now: Nanos,
    /// Requests answered whose ReadyForQuery ends others too.
    #[expect(
        clippy::vec_box,
        reason = "an exchange is large, and handed on from list to list"
    )]
    unit: Vec<Box<Exchange>>,
    /// The client asked for the replication protocol.
    replication: bool,
    /// By what number clients name the backend, and whether that was asked for already.
    key: Option<(u32, bool)>,
    asked_for_credentials: bool,
    /// The credentials were accepted then; the server may refuse the session still.
    authenticated: Option<Nanos>,
    pub(crate) let_in: bool,
    terminated: bool,
    /// What was under way when the tap was attached has not been told of yet.
    pub(crate) joining: bool,
    /// When something was last seen of each stream.
    heard: [Nanos; 2],
    /// When it was last heard of; `None` once it has been told to rest since.
    pub(crate) busy_at: Option<Nanos>,
    pub(crate) past: Past,
    pub(crate) discarded: Discarded,
}

impl Connection {
    pub(crate) fn new(facts: SessionFacts, socket: &SocketFact, kept: Kept) -> Self {
        let mid_stream = facts.opened_before_attach;
        let stream = if mid_stream {
            ByteStream::mid_stream
        } else {
            ByteStream::from_start
        };
        Self {
            facts: Arc::new(facts),
            encrypted: Encrypted::new(socket.flags, kept.clone()),
            session: read(
                if mid_stream {
                    Session::mid_stream(kept.limits.clone())
                } else {
                    Session::new(kept.limits.clone())
                },
                &kept,
            ),
            assertions: Assertions::new(mid_stream),
            definer: Definer::new(mid_stream),
            looks: naming::Looks::new(socket.at),
            now: socket.at,
            frontend: stream(),
            backend: stream(),
            statements: 0,
            transactions: Transactions::new(),
            encodings: Encodings::new(),
            unit: Vec::new(),
            replication: false,
            key: None,
            asked_for_credentials: false,
            authenticated: None,
            let_in: mid_stream,
            terminated: false,
            joining: mid_stream,
            heard: [socket.at; 2],
            busy_at: None,
            past: Past::default(),
            discarded: Discarded::default(),
        }
    }

    pub(crate) fn facts(&self) -> &Arc<SessionFacts> {
        &self.facts
    }

    pub(crate) fn facts_mut(&mut self) -> &mut SessionFacts {
        Arc::make_mut(&mut self.facts)
    }

    /// How far everything is in events.
    pub(crate) fn told(&self) -> Option<Told> {
        let nothing_waits =
            self.unit.is_empty() && self.authenticated.is_none() && !self.encrypted.is_awaited();
        let ends = self.frontend.seen_to().zip(self.backend.seen_to());
        let places = ends.map(|(frontend, backend)| Places {
            frontend,
            backend,
            channel: self.encrypted.channel,
        });
        self.past.told(
            places.filter(|_| nothing_waits && self.session.is_settled()),
            !self.session.is_opaque(),
            self.encrypted.channel,
        )
    }

    /// One direction of a connection that was there before is heard of: tells how much was missed.
    pub(crate) fn meet(
        &mut self,
        direction: Direction,
        channel: u8,
        offset: u64,
        at: Nanos,
        recorder: &mut Recorder,
    ) {
        let Some(met) = self.past.meet(direction, channel, offset) else {
            return;
        };
        if let Some(places) = met.next_request {
            let kept = &self.encrypted.kept;
            self.session = read(Session::between_requests(kept.limits.clone()), kept);
            self.frontend = ByteStream::at(places.frontend);
            self.backend = ByteStream::at(places.backend);
            self.joining = false;
        }
        if met.missing == Some(0) {
            return;
        }
        let mut event = self.event(at, earlier::gap(&met.earlier, direction, met.missing));
        event.times.start = met.earlier.since;
        recorder.events.push_back(event);
        if self.stream(direction).take(offset, 0).missing > 0 {
            self.session.handle_gap(direction, at, offset, met.missing);
            self.poll(recorder);
        }
    }

    /// Nobody will ever know how much was missed in the directions that were not heard of again.
    pub(crate) fn miss_the_rest(&mut self, at: Nanos, recorder: &mut Recorder) {
        for direction in [Direction::Frontend, Direction::Backend] {
            if let Some(earlier) = self.past.take_earlier(direction) {
                let mut event = self.event(at, earlier::gap(&earlier, direction, None));
                event.times.start = earlier.since;
                recorder.events.push_back(event);
            }
        }
    }

    /// Takes a segment: what is missing before it, its bytes, what is missing behind them.
    pub(crate) fn handle_segment(&mut self, header: &SegmentHeader, bytes: &[u8], recorder: &mut Recorder) {
        let direction = direction(header);
        if self.is_of_channel(header) {
            self.take(direction, header, bytes, recorder);
        }
        self.hears(direction, header.at);
    }

    /// Something passed in this direction.
    pub(crate) fn hears(&mut self, direction: Direction, at: Nanos) {
        self.busy_at = Some(at);
        let [frontend, backend] = &mut self.heard;
        match direction {
            Direction::Frontend => *frontend = at,
            Direction::Backend => *backend = at,
        }
    }

    /// When something was last seen of this stream: what is missing passed after that.
    pub(crate) fn last_heard(&self, direction: Direction) -> Nanos {
        let [frontend, backend] = self.heard;
        match direction {
            Direction::Frontend => frontend,
            Direction::Backend => backend,
        }
    }

    /// Whether something passed since then.
    pub(crate) fn was_heard(&self, since: Nanos) -> bool {
        self.heard.iter().any(|at| *at >= since)
    }

    fn take(&mut self, direction: Direction, header: &SegmentHeader, bytes: &[u8], recorder: &mut Recorder) {
        self.now = header.at;
        self.meet(direction, header.channel, header.offset, header.at, recorder);
        let fit = self.stream(direction).take(header.offset, bytes.len() as u64);
        if fit.missing > 0 {
            self.missing(
                direction,
                header.at,
                header.offset,
                fit.missing,
                lost(direction, header.flags),
                recorder,
            );
        }
        if header.flags & probe_missed(direction) != 0 {
            self.probe_missed(header.at, direction, header.offset, recorder);
        }
        let fresh = bytes.get(fit.repeated..).unwrap_or_default();
        if !fresh.is_empty() {
            let offset = header.offset.saturating_add(fit.repeated as u64);
            if self.session.is_opaque() {
                self.cipher_text(header.at, direction, fresh, recorder);
            }
            self.session.handle_bytes(direction, header.at, offset, fresh);
            if direction == Direction::Frontend {
                self.asks(recorder);
            }
            self.poll(recorder);
        }
        let from = header.offset.saturating_add(bytes.len() as u64);
        let behind = self.stream(direction).take(from, u64::from(header.missing));
        let missing = u64::from(header.missing).saturating_sub(behind.repeated as u64);
        if missing > 0 {
            let after = from.saturating_add(u64::from(header.missing));
            // The kernel side leaves out what is behind the front of a very large call, and counts that. Of rows nothing
            // would have been kept.
            let start = after.saturating_sub(missing);
            if reason(header.reason) == CALL_CAP && self.session.is_unread(direction, start, missing) {
                self.session
                    .handle_gap(direction, header.at, after, Some(missing));
                return self.poll(recorder);
            }
            self.missing(
                direction,
                header.at,
                after,
                missing,
                reason(header.reason),
                recorder,
            );
        }
    }

    /// Gives memory back if nothing was heard since then.
    pub(crate) fn rest(&mut self, since: Nanos) {
        if self.busy_at.is_some_and(|at| at <= since) {
            self.busy_at = None;
            self.session.rest();
            self.unit.shrink_to(0);
        }
    }

    /// The streams ended at these positions, by the kernel's count.
    pub(crate) fn handle_end(&mut self, close: &CloseFact, recorder: &mut Recorder) {
        self.tell_discarded(recorder);
        let at = close.at;
        let (received, sent) = self.ends(close);
        for (direction, end) in [(Direction::Frontend, received), (Direction::Backend, sent)] {
            self.meet(direction, self.encrypted.channel, end, at, recorder);
            let fit = self.stream(direction).take(end, 0);
            if fit.missing > 0 {
                let reason = lost(direction, close.flags);
                self.missing(direction, at, end, fit.missing, reason, recorder);
            }
            if close.flags & probe_missed(direction) != 0 {
                self.probe_missed(at, direction, end, recorder);
            }
        }
    }

    /// The connection is over: what is under way, then the closing, unless the client was refused.
    pub(crate) fn handle_close(&mut self, at: Nanos, reason: &'static str, recorder: &mut Recorder) {
        self.tell_discarded(recorder);
        self.miss_the_rest(at, recorder);
        self.session.handle_close(at);
        self.poll(recorder);
        self.ended_unread(at, recorder);
        self.open(recorder);
        self.stops_defining(at, recorder);
        if let Some(end) = self.transactions.close() {
            let event = self.event(at, Body::Transaction(end));
            recorder.events.push_back(event);
        }
        // Whether an encrypted one was let in cannot be seen; that it ended, and how much went by, can.
        if !self.let_in && self.facts.encryption.is_none() {
            return;
        }
        let closed = Body::SessionClose {
            reason: if self.terminated { "terminate" } else { reason },
            bytes_in: self.frontend.position(),
            bytes_out: self.backend.position(),
            statements: self.statements,
        };
        recorder.events.push_back(self.event(at, closed));
    }

    pub(crate) fn missing(
        &mut self,
        direction: Direction,
        at: Nanos,
        offset_after: u64,
        missing: u64,
        reason: &'static str,
        recorder: &mut Recorder,
    ) {
        let gap = Gap {
            reason,
            direction,
            bytes_missing: Some(missing),
            detail: String::new(),
        };
        let told = self.event_since(self.last_heard(direction), at, Body::Gap(gap));
        recorder.events.push_back(told);
        self.session
            .handle_gap(direction, at, offset_after, Some(missing));
        self.poll(recorder);
    }

    pub(crate) fn stream(&mut self, direction: Direction) -> &mut ByteStream {
        match direction {
            Direction::Frontend => &mut self.frontend,
            Direction::Backend => &mut self.backend,
        }
    }

    pub(crate) fn event(&self, at: Nanos, body: Body) -> Event {
        self.event_since(at, at, body)
    }

    /// Of a span of time.
    pub(crate) fn event_since(&self, since: Nanos, at: Nanos, body: Body) -> Event {
        let times = Times {
            start: since.min(at),
            first_response: None,
            end: at,
        };
        Event {
            times,
            session: Arc::clone(&self.facts),
            body,
        }
    }
}

/// What a session has to know of SQL,
/// and what is kept of rows.
pub(crate) fn read(session: Session, kept: &Kept) -> Session {
    let session = match &kept.rows_of {
        Some(rows_of) => session.with_rows_of(Arc::clone(rows_of)),
        None => session,
    };
    let session = match kept.weighs {
        true => session.with_weight_of(naming::weigh),
        false => session,
    };
    let session = match &kept.copy_of {
        Some(copy_of) => session.with_copy_of(Arc::clone(copy_of), &kept.limits),
        None => session,
    };
    session
        .with_split(sql_meaning::split)
        .with_values_of(sql_meaning::may_configure, &kept.limits)
}

/// The tapped process is the server: what it receives is the frontend's.
pub(crate) fn direction(header: &SegmentHeader) -> Direction {
    if header.direction == ebpf_abi::Direction::Received as u8 {
        Direction::Frontend
    } else {
        Direction::Backend
    }
}

/// Why bytes before a record are missing, by its flags.
pub(crate) fn lost(direction: Direction, flags: u8) -> &'static str {
    let flag = match direction {
        Direction::Frontend => LOST_RECEIVED,
        Direction::Backend => LOST_SENT,
    };
    if flags & flag == 0 { "missed" } else { "ring_full" }
}

/// The flag of a direction's plaintext that was missed.
fn probe_missed(direction: Direction) -> u8 {
    match direction {
        Direction::Frontend => PROBE_MISSED_RECEIVED,
        Direction::Backend => PROBE_MISSED_SENT,
    }
}

const CALL_CAP: &str = "call_cap";

fn reason(code: u8) -> &'static str {
    match code {
        code if code == MissingReason::CopyFault as u8 => "copy_fault",
        code if code == MissingReason::UnsupportedCall as u8 => "unsupported_call",
        code if code == MissingReason::CallCap as u8 => CALL_CAP,
        _ => "unknown",
    }
}
