//! Poolers of this host: each statement that one passes on goes back to the client that sent it.
//!
//! The backend is tapped as any other, and makes the events. The pooler's socket calls say whose bytes it wrote to its
//! servers ([`tap_core::lease`]); its connection to a server and the backend's session are the two ends of one stream, in
//! which a statement stands at the same place. Events of such a session wait until that is decided, for two seconds at
//! most, and are told in their order.
//!
//! Owns that wait, and who is meant by a socket. Refuses to decide whose bytes they are.

mod book;
mod claims;
mod elsewhere;
mod session;

use std::collections::{HashMap, HashSet};

use ebpf_abi::{SOCKET_MID_STREAM, SocketFact, SocketRole, TRANSFER_END, Transfer};
use proto::v1;
use tap_core::{
    ByCookie,
    lease::{End, Poolers},
    session_facts,
};

use self::{
    book::{Book, Key, Names},
    elsewhere::Elsewhere,
    session::Session,
};
use super::Witness;
use crate::record::{self, Encoded};

/// How long an event waits for its decision, in nanoseconds: the pooler passes an answer on within microseconds, unless its
/// client takes nothing.
const WAIT_NS: u64 = 2_000_000_000;

/// How long it waits for a sign that the pooler is tapped at all, in nanoseconds: its call and the backend's are on two
/// processors.
const SIGN_NS: u64 = 200_000_000;

/// Events that wait, of all sessions; what is beyond is told at once, decided or not.
const EVENTS: usize = 65_536;

/// Bytes that they take, about.
const BYTES: usize = 32 << 20;

/// Clients that wait to be told, while the agent is paused; those beyond keep the name of their address.
const STRANGERS: usize = 16_384;

/// What is known of poolers, and what waits for them.
pub(super) struct Pooled {
    tracker: Poolers,
    book: Book,
    names: Names,
    /// Sessions of backends that are, or may be, a pooler's connection.
    sessions: ByCookie<Session>,
    /// Sessions of all backends by what both ends of the connection have in common: a pooler's end may be told later.
    accepted: HashMap<Key, u64>,
    /// The same the other way round.
    keys: ByCookie<Key>,
    /// Sessions with events that wait.
    waiting: Vec<u64>,
    events: usize,
    bytes: usize,
    /// Sessions of which progress is to be noted as soon as nothing of them waits.
    unnoted: HashSet<u64>,
    /// Clients that another host's agent may know better, to be told.
    strangers: Vec<v1::Event>,
    /// Connections to servers that are not on this host.
    elsewhere: Elsewhere,
}

impl Pooled {
    pub(super) fn new() -> Self {
        Self {
            tracker: Poolers::new(),
            book: Book::default(),
            names: Names::default(),
            sessions: ByCookie::default(),
            accepted: HashMap::new(),
            keys: ByCookie::default(),
            waiting: Vec::new(),
            events: 0,
            bytes: 0,
            unnoted: HashSet::new(),
            strangers: Vec::new(),
            elsewhere: Elsewhere::default(),
        }
    }

    /// A backend's session was told, and who is at its other end.
    pub(super) fn accepted(&mut self, fact: &SocketFact, peer: &attribution::Attribution, now: u64) {
        let key = Key::of(fact);
        if let Some(key) = key {
            self.accepted.insert(key, fact.cookie);
            self.keys.insert(fact.cookie, key);
        }
        if self.sessions.contains_key(&fact.cookie) {
            return;
        }
        let process = peer.process.as_ref().map(|process| process.pid);
        let program = process.filter(|pid| self.book.is_tapped(*pid));
        let is_named_so = peer
            .hops
            .last()
            .is_some_and(|hop| hop.relay == attribution::Relay::Pooler);
        let leads = key.is_some_and(|key| self.book.leading(key).is_some());
        if is_named_so || leads || program.is_some() {
            let session = Session::new(key, process, now);
            self.sessions.insert(fact.cookie, session);
        }
    }

    /// A session is over, and nothing of it waits.
    pub(super) fn session_over(&mut self, cookie: u64) {
        self.unnoted.remove(&cookie);
        if let Some(key) = self.keys.remove(&cookie)
            && self.accepted.get(&key) == Some(&cookie)
        {
            self.accepted.remove(&key);
        }
        if let Some(session) = self.sessions.remove(&cookie)
            && let Some(server) = session.server
        {
            // Nobody tells of the end of a Unix socket of a process that goes on.
            self.closed(server);
        }
    }

    /// Whether something of a session waits.
    pub(super) fn holds(&self, cookie: u64) -> bool {
        self.sessions
            .get(&cookie)
            .is_some_and(|session| !session.held.is_empty())
    }

    /// A session ended of which events wait.
    pub(super) fn over_later(&mut self, cookie: u64) {
        if let Some(session) = self.sessions.get_mut(&cookie) {
            session.is_over = true;
        }
    }

    /// Progress of a session is to be noted later.
    pub(super) fn note_later(&mut self, cookie: u64) {
        self.unnoted.insert(cookie);
    }

    /// Whether there are any.
    pub(super) fn is_unnoted(&self) -> bool {
        !self.unnoted.is_empty()
    }

    /// Those sessions; what still waits of them is to be said again.
    pub(super) fn take_unnoted(&mut self) -> HashSet<u64> {
        std::mem::take(&mut self.unnoted)
    }

    /// Clients' connections that ended since this was last asked.
    pub(super) fn take_ended(&mut self) -> Vec<u64> {
        self.book.take_ended()
    }

    /// When the oldest event began that waits.
    pub(super) fn oldest(&self) -> Option<u64> {
        let sessions = self.waiting.iter().filter_map(|cookie| self.sessions.get(cookie));
        sessions.flat_map(Session::starts).min()
    }

    /// Memory is short: what can be made anew is forgotten.
    pub(super) fn forget(&mut self) {
        self.names.forget();
    }

    /// A connection of a pooler is over.
    pub(super) fn closed(&mut self, cookie: u64) {
        if self.book.gone(cookie) {
            self.tracker.handle_close(cookie);
        }
    }

    /// A process ended.
    pub(super) fn exited(&mut self, tgid: u32) {
        if self.book.exited(tgid) {
            self.tracker.handle_exit(tgid);
        }
    }

    /// Keeps an event of a pooled session; gives back one of any other.
    fn keep(&mut self, event: tap_core::Event, now: u64) -> Option<tap_core::Event> {
        let cookie = event.session.cookie;
        let Some(session) = self.sessions.get_mut(&cookie) else {
            return Some(event);
        };
        if session.held.is_empty() {
            self.waiting.push(cookie);
        }
        self.events += 1;
        self.bytes += session.hold(event, now);
        None
    }

    fn is_full(&self) -> bool {
        self.events > EVENTS || self.bytes > BYTES
    }
}

impl Witness {
    /// Whether a socket of a pooler was told, so that its transfers make sense.
    pub fn knows_pooler_socket(&self, cookie: u64) -> bool {
        self.pooled.book.knows(cookie)
    }

    /// A pooler used a socket for the first time ([`ebpf_abi::SOCKET_POOLER`]).
    pub fn pooler_socket(&mut self, fact: &SocketFact) {
        let is_client = match fact.role {
            role if role == SocketRole::Accepted as u8 => true,
            role if role == SocketRole::Connected as u8 => false,
            // Of a Unix socket the end with the name is the server's.
            _ if fact.path_length > 0 => true,
            _ => self.was_accepted(fact),
        };
        // Which end is whose: the first sequence numbers are told as seen from here.
        let role = if is_client {
            SocketRole::Accepted
        } else {
            SocketRole::Connected
        };
        let fact = SocketFact {
            role: role as u8,
            ..*fact
        };
        self.pooler_program(fact.tgid);
        if is_client {
            self.pooler_client(&fact);
            self.pooled.tracker.handle_socket(&fact, End::Client);
        } else {
            let key = Key::of(&fact);
            self.pooled.book.add_server(fact.cookie, fact.tgid, key);
            self.pooled.tracker.handle_socket(&fact, End::Server);
            self.pooled.elsewhere.leads(&fact, self.old.round_began);
            let session = key.and_then(|key| self.pooled.accepted.get(&key).copied());
            if let Some(cookie) = session {
                let now = self.old.round_began;
                let sessions = &mut self.pooled.sessions;
                sessions
                    .entry(cookie)
                    .or_insert_with(|| Session::new(key, Some(fact.tgid), now));
            }
        }
    }

    /// A pooler's thread received or sent, or found nothing.
    pub fn transfer(&mut self, transfer: &Transfer) {
        if self.pooled.book.used(transfer.cookie, transfer.tgid) {
            self.pooler_program(transfer.tgid);
        }
        self.pooled.tracker.handle_transfer(transfer);
        if transfer.flags & TRANSFER_END != 0 {
            self.pooled.closed(transfer.cookie);
        }
    }

    /// Transfers found no room in their ring, whichever pooler's they were.
    pub fn transfers_lost(&mut self) {
        self.pooled.tracker.handle_loss();
    }

    /// Tells what is decided by now. `caught_up`: all that was captured before this round has been taken, so that what waits
    /// for too long is given up.
    pub fn tell_pooled(&mut self, caught_up: bool, out: &mut impl FnMut(&Encoded)) {
        for tgid in self.pooled.book.to_be_named(self.old.round_began) {
            self.name_pooler(tgid);
        }
        self.tell_waiting(caught_up, false, out);
    }

    /// Nothing is waited for any more.
    pub fn flush_pooled(&mut self, out: &mut impl FnMut(&Encoded)) {
        self.tell_waiting(true, true, out);
    }

    fn tell_waiting(&mut self, caught_up: bool, give_up: bool, out: &mut impl FnMut(&Encoded)) {
        if self.discard != Some(super::Discard::Paused) {
            for stranger in std::mem::take(&mut self.pooled.strangers) {
                out(&Encoded::of(&stranger));
            }
        }
        self.tell_elsewhere(give_up, out);
        for cookie in std::mem::take(&mut self.pooled.waiting) {
            self.tell_session(cookie, caught_up, give_up, out);
            if self.pooled.holds(cookie) {
                self.pooled.waiting.push(cookie);
            }
        }
    }

    fn tell_session(&mut self, cookie: u64, caught_up: bool, give_up: bool, out: &mut impl FnMut(&Encoded)) {
        let now = self.old.round_began;
        while let Some((event, who)) = self.pooled.next(cookie, now, caught_up, give_up) {
            let who = who.or_else(|| self.attributions.get(&cookie).cloned());
            self.tell(event, who.as_ref(), out);
        }
        let is_over = self.pooled.sessions.get(&cookie);
        if is_over.is_some_and(|session| session.is_over && session.held.is_empty()) {
            self.session_over(cookie, out);
        }
    }

    /// Takes an event of a session: one of a pooler's connection waits.
    pub(super) fn take(&mut self, event: tap_core::Event, out: &mut impl FnMut(&Encoded)) {
        let cookie = event.session.cookie;
        if let Some(event) = self.pooled.keep(event, self.old.round_began) {
            let who = self.attributions.get(&cookie).cloned();
            return self.tell(event, who.as_ref(), out);
        }
        if self.pooled.is_full() {
            self.tell_session(cookie, true, true, out);
            let Self { pooled, .. } = self;
            let sessions = &pooled.sessions;
            pooled.waiting.retain(|cookie| {
                sessions
                    .get(cookie)
                    .is_some_and(|session| !session.held.is_empty())
            });
        }
    }

    /// A process turns out to be a pooler.
    fn pooler_program(&mut self, tgid: u32) {
        if !self.pooled.book.is_tapped(tgid) {
            self.name_pooler(tgid);
        }
    }

    fn name_pooler(&mut self, tgid: u32) {
        let living = self.processes.living(tgid, &mut self.cgroups);
        // A broker that is short of processor time gives no answer.
        let process = living
            .or_else(|| self.processes.newest(tgid))
            .map(|process| self.processes.completed(process));
        self.pooled.names.forget();
        let hop = match process {
            Some(process) => {
                let kind = book::kind(&process);
                self.pooled.tracker.handle_program(tgid, kind);
                attribution::pooler(&self.host, &process)
            }
            None => book::nameless(tgid),
        };
        self.pooled.book.add_program(tgid, hop, self.old.round_began);
    }

    /// A client of a pooler: named as a server's would be.
    fn pooler_client(&mut self, fact: &SocketFact) {
        let key = Key::of(fact);
        if self.pooled.book.knows(fact.cookie) {
            self.pooled.book.used(fact.cookie, fact.tgid);
            return;
        }
        let session = session_facts(fact);
        let was_seen = self.find_client(fact);
        let peer = self.peer_of(fact, &session);
        self.keep_client(fact, &session, &peer);
        if let Some(fingerprint) = fact.fingerprint() {
            self.flows.met(fingerprint, fact.at);
        }
        let mut who = attribution::attribute(&self.host, &peer);
        if was_seen {
            who.evidence.push(attribution::Fact::FormerRun);
        }
        let pooler = self.pooled.book.name(fact.tgid);
        let told = record::pooler_client(&session, &who, &pooler, fact.at, self.clock, &self.boot);
        let may_be_joined = told.session.as_ref().zip(told.attribution.as_ref());
        let is_stranger = may_be_joined
            .is_some_and(|(session, who)| attribution::may_be_joined(session, who))
            && self.pooled.strangers.len() < STRANGERS;
        if let Some(session) = &told.session {
            let since = is_stranger.then_some(self.old.round_began);
            self.pooled
                .elsewhere
                .has_client(fact.cookie, session.clone(), since);
        }
        if is_stranger {
            self.pooled.strangers.push(told);
        }
        let id = record::session_id(&self.boot, fact.cookie);
        self.pooled
            .book
            .add_client(fact.cookie, fact.tgid, key, id.into(), who);
    }

    /// Who is at the other end of an accepted socket.
    pub(super) fn peer_of(
        &mut self,
        fact: &SocketFact,
        session: &tap_core::SessionFacts,
    ) -> attribution::Peer {
        let peer = self
            .connections
            .peer(fact, session, &mut self.processes, &mut self.cgroups);
        if let attribution::Peer::UnixPeer { .. } = &peer
            && fact.flags & SOCKET_MID_STREAM != 0
            && fact.peer.start == 0
        {
            return attribution::Peer::Unknown {
                reason: "the connection is older than the agent".to_owned(),
            };
        }
        peer
    }
}

#[cfg(test)]
mod tests;
