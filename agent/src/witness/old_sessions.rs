//! Sessions that are older than this run of the agent, and what is left of this run's for the next: names from process
//! titles, gaps over restarts, ends that nobody saw.
//!
//! Separate from the witness' flow of facts and segments, because all of it looks backwards: at `/proc` and at what a
//! former run left in the state folder.

mod clients;
mod kept;

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
};

use attribution::Peer;
use ebpf_abi::SocketFact;
use proto::v1;
use tap_core::{
    AGENT_RESTART, Body, Direction, Earlier, Endpoint, Event, Gap, MISSED, Places, SessionFacts, Times,
    Title, session_facts,
};

use self::kept::{address, kept_owner, owner_fact, port, socket_fact};
use super::{End, Witness};
use crate::{
    broker::Broker,
    clock::boot_ns,
    facts::{
        processes::{Processes, TICK_NS},
        titles::Titles,
    },
    progress::{Former, Kept, KeptOwner, KeptSession, Note, Progress, Run, kept_name},
    record::{self, Encoded},
};

/// How often progress is noted, in nanoseconds: as long as events wait for their batch, anyway.
const NOTE_NS: u64 = 100_000_000;

/// How often it is noted that nothing happened.
const IDLE_NS: u64 = 1_000_000_000;

/// How long a record may take from its time stamp until it can be read, in nanoseconds: microseconds, if nothing
/// interrupts the processor.
const UNDER_WAY_NS: u64 = 10_000_000;

/// What is known of sessions beyond their connections.
pub(super) struct OldSessions {
    titles: Titles,
    /// The run of the agent before this one, on the same boot of the host.
    former: Option<Run>,
    /// Its connections that were not heard of again yet.
    left: HashMap<u64, Kept>,
    /// The processes that served them: every process that ends on the host is looked up here.
    backends_left: HashSet<u32>,
    /// When this run began.
    began: u64,
    /// Who connected, of open connections.
    owners: HashMap<u64, KeptOwner>,
    /// What is kept of open connections.
    kept: HashMap<u64, KeptSession>,
    closed: Vec<u64>,
    /// Clients of poolers that a former run knew and that were not heard of again.
    clients: HashMap<u64, KeptSession>,
    /// Those that are to be kept for the next one.
    new_clients: Vec<Note>,
    /// Ports that servers were seen to listen on.
    listening: HashSet<(u32, u16)>,
    noted_at: u64,
    /// When the round began that is under way.
    pub(super) round_began: u64,
}

impl OldSessions {
    pub(super) fn new(broker: Broker) -> Self {
        Self {
            titles: Titles::new(broker),
            former: None,
            left: HashMap::new(),
            backends_left: HashSet::new(),
            began: 0,
            owners: HashMap::new(),
            kept: HashMap::new(),
            closed: Vec::new(),
            clients: HashMap::new(),
            new_clients: Vec::new(),
            listening: HashSet::new(),
            noted_at: 0,
            round_began: 0,
        }
    }

    /// Much was told at once: how far that is, is noted in this round.
    pub(super) fn note_now(&mut self) {
        self.noted_at = 0;
    }
}

impl Witness {
    /// Goes on from what a former run left: what ended in between is told, the rest is awaited.
    pub fn go_on(&mut self, former: Former, out: &mut impl FnMut(&Encoded)) {
        self.old.began = boot_ns();
        for server in self.servers.iter() {
            let ports = self.broker.ports(server.pid).into_iter();
            self.old.listening.extend(ports.map(|port| (server.pid, port)));
        }
        if former.damaged > 0 {
            // Whose they were is not known; each of them that is still open is told of when it is heard of.
            let gap = v1::Gap {
                reason: AGENT_RESTART.to_owned(),
                detail: format!(
                    "of {} sessions it cannot be read any more how far they were delivered",
                    former.damaged
                ),
                ..v1::Gap::default()
            };
            out(&Encoded::own(
                self.old.began,
                self.clock,
                v1::event::Body::Gap(gap),
            ));
        }
        self.old.former = former.run;
        self.old.left = former.connections;
        self.go_on_with_clients();
        let sessions = self.old.left.values().filter_map(|kept| kept.session.as_ref());
        self.old.backends_left = sessions.map(|session| session.backend_pid).collect();
        let gone: Vec<u64> = self
            .old
            .left
            .values()
            .filter(|kept| {
                kept.session
                    .as_ref()
                    .is_none_or(|session| !is_running(&self.processes, session))
            })
            .map(|kept| kept.cookie)
            .collect();
        for cookie in gone {
            self.unseen_end(cookie, self.old.began, out);
        }
    }

    /// A connection is announced that was open before this run: what else is known of it is said first. Returns whether a
    /// former run recorded who connected.
    pub(super) fn find_older(&mut self, fact: &SocketFact) -> bool {
        let kept = self.take_left(fact);
        let Some(session) = self.tap.session(fact.cookie) else {
            return false;
        };
        let known = kept.as_ref().and_then(|kept| kept.session.as_ref());
        let title = match known.and_then(|known| known.login_role.clone()) {
            Some(login_role) => Some(Title {
                login_role,
                database: known.and_then(|known| known.database.clone()),
            }),
            None => self.old.titles.read(session, fact.at),
        };
        let owner = known.and_then(|known| known.owner);
        if let Some(owner) = &owner {
            self.connections.opened(&owner_fact(owner, fact));
        }
        let earlier = match &kept {
            Some(kept) => Some(of_kept(kept, session)),
            None => of_unknown(self.old.former.as_ref(), self.old.began, session, &self.processes),
        };
        if let Some(title) = title {
            self.tap.handle_title(fact.cookie, title);
        }
        if let Some(earlier) = earlier {
            self.tap.handle_earlier(fact.cookie, fact.at, earlier);
        }
        owner.is_some()
    }

    /// What the former run left of a connection. Where connections have no cookie of the kernel's, the backend names it:
    /// it serves one in its life.
    fn take_left(&mut self, fact: &SocketFact) -> Option<Kept> {
        if let Some(kept) = self.old.left.remove(&fact.cookie) {
            return Some(kept);
        }
        let serves = |kept: &&Kept| {
            let session = kept.session.as_ref();
            session.is_some_and(|session| {
                session.backend_pid == fact.tgid && is_running(&self.processes, session)
            })
        };
        let cookie = self.old.left.values().find(serves)?.cookie;
        self.old.closed.push(cookie);
        self.old.left.remove(&cookie)
    }

    /// Whether the server accepted a TCP connection that was open before this run, and did not open it itself: the kernel
    /// side cannot know. It did if it listens on that port, or did when it was last looked at: one that is about to stop
    /// listens no more.
    pub(super) fn was_accepted(&mut self, fact: &SocketFact) -> bool {
        let port = (fact.server, fact.local_port);
        if self.old.left.contains_key(&fact.cookie) || self.old.listening.contains(&port) {
            return true;
        }
        let ports = self.broker.ports(fact.server).into_iter();
        self.old.listening.extend(ports.map(|port| (fact.server, port)));
        self.old.listening.contains(&port)
    }

    /// Who connected is kept for the next run.
    pub(super) fn keep_owner(&mut self, cookie: u64, peer: &Peer) {
        if let Some(owner) = kept_owner(peer) {
            self.old.owners.insert(cookie, owner);
        }
    }

    /// A process ended: so did the connection that it served, even if that was not heard of in this run.
    pub(super) fn process_ended(&mut self, tgid: u32, at: u64, out: &mut impl FnMut(&Encoded)) {
        self.old.titles.ended(tgid);
        self.old.listening.retain(|(server, _)| *server != tgid);
        self.clients_ended(tgid);
        if !self.old.backends_left.remove(&tgid) {
            return;
        }
        let served = |kept: &&Kept| {
            let session = kept.session.as_ref();
            session.is_some_and(|session| session.backend_pid == tgid)
        };
        let cookies: Vec<u64> = self
            .old
            .left
            .values()
            .filter(served)
            .map(|kept| kept.cookie)
            .collect();
        for cookie in cookies {
            self.unseen_end(cookie, at, out);
        }
    }

    /// A connection is over.
    pub(super) fn connection_ended(&mut self, cookie: u64) {
        self.old.owners.remove(&cookie);
        self.old.kept.remove(&cookie);
        self.old.closed.push(cookie);
    }

    /// Notes how far everything has come. `events`: how many events in all have to be delivered before that holds.
    /// `complete`: what had been captured before this round has all been taken. `last`: the run ends.
    pub fn note_progress(&mut self, progress: &Progress, events: u64, complete: bool, last: bool) {
        let now = self.old.round_began;
        let quiet = self.old.closed.is_empty() && !self.tap.was_touched() && !self.pooled.is_unnoted();
        let wait = if quiet { IDLE_NS } else { NOTE_NS };
        if !last && now < self.old.noted_at + wait {
            return;
        }
        self.old.noted_at = now;
        let mut notes: Vec<Note> = Vec::new();
        let touched = self.tap.take_touched().into_iter();
        for cookie in self.pooled.take_unnoted().into_iter().chain(touched) {
            if self.pooled.holds(cookie) || self.is_reduced(cookie) {
                self.pooled.note_later(cookie);
                continue;
            }
            let Some(told) = self.tap.told(cookie) else {
                continue;
            };
            if let Some(session) = self.kept_session(cookie) {
                notes.push(Note::Open(Box::new(Kept::new(cookie, &told, session))));
            }
        }
        notes.append(&mut self.old.new_clients);
        self.old.closed.extend(self.pooled.take_ended());
        // Of some that ended a number is still to be told.
        let (later, closed) = mem::take(&mut self.old.closed)
            .into_iter()
            .partition(|cookie| self.is_reduced(*cookie));
        self.old.closed = later;
        notes.extend(Vec::into_iter(closed).map(Note::Closed));
        let complete_at = if complete {
            // What waits for a pooler, or for its equals, was captured and is not told yet.
            let reduced = self.volume.as_ref().and_then(::volume::Volume::oldest);
            let oldest = self.pooled.oldest().into_iter().chain(reduced).min();
            let told = oldest.map_or(now, |oldest| oldest.saturating_sub(1));
            now.saturating_sub(UNDER_WAY_NS).min(told)
        } else {
            0
        };
        progress.note(events, complete_at, notes.into_iter());
    }

    /// Facts were lost: what they would have said is looked up as far as that goes. Processes that are gone end their
    /// sessions, servers that were not noticed are tapped.
    ///
    /// # Errors
    ///
    /// If the map of tapped processes is full.
    pub fn reconcile(&mut self) -> anyhow::Result<()> {
        let now = boot_ns();
        self.processes.inventory(&mut self.cgroups);
        let backends: HashSet<u32> = self.tap.backends().collect();
        let left = self.old.left.values().filter_map(|kept| kept.session.as_ref());
        let gone: HashSet<u32> = backends
            .into_iter()
            .filter(|pid| self.processes.start_of(*pid).is_none())
            .chain(
                left.filter(|session| !is_running(&self.processes, session))
                    .map(|session| session.backend_pid),
            )
            .collect();
        for tgid in gone {
            // At the end of the next round: its last segments may still wait.
            self.ends_of_round.push(End::Process { tgid, at: now });
        }
        self.find_servers()?;
        self.find_poolers()
    }

    /// Marks the processes of tapped servers that are not: there was no room for them.
    ///
    /// # Errors
    ///
    /// If there still is not for all.
    pub fn mark_all(&mut self) -> anyhow::Result<()> {
        self.broker.mark_all()
    }

    /// A connection of the former run is over, and this run never heard of it.
    fn unseen_end(&mut self, cookie: u64, at: u64, out: &mut impl FnMut(&Encoded)) {
        let Some(kept) = self.old.left.remove(&cookie) else {
            return;
        };
        let since = kept.at;
        self.old.closed.push(cookie);
        let Some(fact) = kept
            .session
            .as_ref()
            .map(|session| socket_fact(cookie, kept.at, session))
        else {
            return;
        };
        let mut facts = session_facts(&fact);
        let session = kept.session.unwrap_or_default();
        facts.login_role = session.login_role;
        facts.database = session.database;
        if let Some(owner) = session.owner {
            self.connections.opened(&owner_fact(&owner, &fact));
        }
        let peer = self
            .connections
            .peer(&fact, &facts, &mut self.processes, &mut self.cgroups);
        let answer = attribution::attribute(&self.host, &peer);
        let attribution = record::attribution(&answer);
        let facts = Arc::new(facts);
        let gap = |direction| {
            Body::Gap(Gap {
                reason: AGENT_RESTART,
                direction,
                bytes_missing: None,
                detail: "the connection ended unseen".to_owned(),
            })
        };
        let closed = Body::SessionClose {
            reason: "unseen",
            bytes_in: 0,
            bytes_out: 0,
            statements: 0,
        };
        let bodies = [
            (since, gap(Direction::Frontend)),
            (since, gap(Direction::Backend)),
            (at, closed),
        ];
        for (start, body) in bodies {
            let times = Times {
                start,
                first_response: None,
                end: at,
            };
            let session = Arc::clone(&facts);
            let event = Event { times, session, body };
            let told = record::event(&event, Some(&attribution), self.clock, &self.boot);
            out(&Encoded::of(&told));
        }
    }

    /// What the next run has to know of a session; `None` if its process is gone already.
    fn kept_session(&mut self, cookie: u64) -> Option<KeptSession> {
        if let Some(kept) = self.old.kept.get(&cookie) {
            return Some(kept.clone());
        }
        let facts = self.tap.session(cookie)?;
        let kept = KeptSession {
            backend_pid: facts.backend_pid,
            backend_start: self.processes.start_of(facts.backend_pid)?,
            server_pid: facts.server_pid,
            netns: facts.netns,
            client: address(&facts.client),
            client_port: port(&facts.client),
            server: address(&facts.server),
            server_port: port(&facts.server),
            path: match &facts.server {
                Endpoint::Unix(path) => kept_name(Some(path)).unwrap_or_default(),
                Endpoint::Inet(..) => String::new(),
            },
            of_pooler: false,
            login_role: kept_name(facts.login_role.as_ref()),
            database: kept_name(facts.database.as_ref()),
            owner: self.old.owners.get(&cookie).copied(),
        };
        self.old.kept.insert(cookie, kept.clone());
        Some(kept)
    }
}

/// What a former run that knew a connection says of it.
fn of_kept(kept: &Kept, session: &SessionFacts) -> Earlier {
    let places = kept.places();
    Earlier {
        places: Earlier::counts(session, places.channel).then_some(places),
        between_requests: kept.between_requests,
        since: kept.at,
        reason: AGENT_RESTART,
    }
}

/// What can be said of one of which it is not known how far it came, or that was not known at all.
fn of_unknown(
    run: Option<&Run>,
    began: u64,
    session: &SessionFacts,
    processes: &Processes,
) -> Option<Earlier> {
    let start = processes.start_of(session.backend_pid)?.saturating_mul(TICK_NS);
    let nothing = Places {
        frontend: 0,
        backend: 0,
        channel: ebpf_abi::Channel::Socket as u8,
    };
    let from_its_start = |reason| Earlier {
        places: Earlier::counts(session, nothing.channel).then_some(nothing),
        between_requests: false,
        since: start,
        reason,
    };
    if start > began {
        // Of this run, and yet announced too late: its announcement found no room.
        return Some(from_its_start(MISSED));
    }
    let run = run?;
    // Ticks are cut: one that began in the tick in which the run did may have been before it.
    if start > run.began.min(run.unheard_since) {
        // Nothing of it was ever delivered.
        return Some(from_its_start(AGENT_RESTART));
    }
    // Silent for as long as runs delivered something.
    Some(Earlier {
        places: None,
        between_requests: false,
        since: run.unheard_since,
        reason: AGENT_RESTART,
    })
}

fn is_running(processes: &Processes, session: &KeptSession) -> bool {
    processes.start_of(session.backend_pid) == Some(session.backend_start)
}
