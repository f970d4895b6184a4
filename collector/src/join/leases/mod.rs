//! The join of statements with what a pooler on another host did: whose bytes it wrote to the server, and who got the answer.
//!
//! The server's host tells of statements and of their places in the connection's two streams; the pooler's host of the same
//! connection's pieces, and of the clients' sessions. Both know the connection by its first sequence numbers. Owns what waits
//! for its other side, whichever comes first, and how decisions are gathered into amendments: one for each client and second,
//! of however many statements. The decision itself is `lease`'s, and what follows from it `attribution`'s.
//!
//! **Bounds.** 500,000 statements of connections that no pooler told of yet, the newest (some 50 MB); 20,000 connections of poolers,
//! each with 65,536 statements that wait; 1,000,000 pieces of what poolers did (some 160 MB); 200,000 clients. What is beyond
//! goes, the oldest first, and is counted; its statements stay as they were recorded.
//!
//! **What an agent can do.** It can lay claim to any connection whose fingerprint it knows. Where a second one does, at either
//! end, nothing more is said of the connection, and what was said of its statements is taken back.

mod link;
mod said;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use attribution::{LEASE_VERSION, POOLERS};
use compact_str::CompactString;
use datafusion::common::HashMap;
use link::{Backend, Link, Pooler, Statement};
use prost::Message;
use proto::{
    json,
    v1::{self, event},
};
use said::{Gathered, Group, Grouped};

pub(super) use link::Told;
pub(super) use said::Said;

use record::{Place, Weighed};

use crate::store::Amendments;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Leases {
    links: HashMap<u64, Link>,
    /// In the order in which they came.
    order: VecDeque<u64>,
    pieces: usize,
    /// Statements of connections that no pooler told of, and the order in which they came.
    early: HashMap<u64, VecDeque<(Backend, Statement)>>,
    early_order: VecDeque<u64>,
    clients: HashMap<Arc<str>, HashMap<CompactString, Client>>,
    client_order: VecDeque<(Arc<str>, CompactString)>,
    due: VecDeque<u64>,
    /// Connections with statements that wait for more.
    undecided: BTreeSet<u64>,
    /// Those whose names are to be taken back.
    taken_back: Vec<u64>,
    /// When something is decided again.
    next: u64,
    forgotten: u64,
}

/// A client of a pooler.
#[derive(Debug)]
struct Client {
    seq: u64,
    /// Encoded.
    attribution: Arc<[u8]>,
    /// What a third host said of its connection, and with which event of this collector's.
    amended: Option<(u64, Arc<[u8]>)>,
    /// A third host may say more until then.
    until: u64,
}

impl Leases {
    /// A pooler's host tells what it did with a connection; false if that is not to be used.
    pub(super) fn see_traffic(
        &mut self,
        agent: &Arc<str>,
        seq: u64,
        of: &v1::PoolerTraffic,
        attribution: &v1::Attribution,
    ) -> bool {
        let Some(fingerprint) = of.fingerprint.filter(|known| *known != 0) else {
            return false;
        };
        let Some(encoded) = super::small(attribution) else {
            return false;
        };
        if !self.links.contains_key(&fingerprint) {
            self.order.push_back(fingerprint);
        }
        let link = self.links.entry(fingerprint).or_default();
        if link.contested {
            return true;
        }
        let is_new = link.pooler.is_none();
        let pooler = link
            .pooler
            .get_or_insert_with(|| Pooler::new(agent, &of.connection));
        if (&pooler.agent, pooler.connection.as_str()) != (agent, &of.connection) {
            self.contest(fingerprint);
            return true;
        }
        let before = pooler.pieces();
        let taken = pooler.absorb(seq, of, encoded.into());
        self.pieces = (self.pieces + pooler.pieces()).saturating_sub(before);
        if is_new {
            self.take_early(fingerprint);
        }
        self.make_due(fingerprint);
        taken
    }

    /// A pooler's host tells of a client.
    pub(super) fn see_client(
        &mut self,
        agent: &Arc<str>,
        seq: u64,
        session: &str,
        attribution: &v1::Attribution,
        may_be_amended: bool,
        now: u64,
    ) -> bool {
        let Some(encoded) = super::small(attribution) else {
            return false;
        };
        let clients = match self.clients.get_mut(agent) {
            Some(clients) => clients,
            None => self.clients.entry(Arc::clone(agent)).or_default(),
        };
        if clients.contains_key(session) {
            // What was said first stands: it is said again for whoever did not hear it.
            return true;
        }
        let client = Client {
            seq,
            attribution: encoded.into(),
            amended: None,
            until: if may_be_amended {
                now.saturating_add(THIRD_HOST_NS)
            } else {
                0
            },
        };
        clients.insert(session.into(), client);
        self.client_order.push_back((Arc::clone(agent), session.into()));
        true
    }

    /// This collector said of a session whose it is: it may be one of a pooler's client.
    pub(super) fn see_amended(
        &mut self,
        agent: &str,
        session: &str,
        seq: u64,
        attribution: &v1::Attribution,
    ) {
        let client = self
            .clients
            .get_mut(agent)
            .and_then(|clients| clients.get_mut(session));
        if let Some(client) = client {
            client.amended = Some((seq, attribution.encode_to_vec().into()));
            client.until = 0;
        }
    }

    /// A server's host tells of a statement.
    pub(super) fn see_statement(
        &mut self,
        agent: &Arc<str>,
        party: (u64, &Arc<Weighed<v1::Party>>),
        seq: u64,
        place: &Place,
        simple: bool,
        now: u64,
    ) {
        let (fingerprint, party) = party;
        let statement = Statement {
            seq,
            request: place.request_from..place.request_to,
            response_to: (place.response_to != 0).then_some(place.response_to),
            simple,
            arrived: now,
        };
        let backend = Backend {
            agent: Arc::clone(agent),
            seq,
            party: Arc::clone(party),
        };
        if self.links.contains_key(&fingerprint) {
            self.take(fingerprint, backend, statement);
        } else {
            self.early
                .entry(fingerprint)
                .or_default()
                .push_back((backend, statement));
            self.early_order.push_back(fingerprint);
            self.forget_early();
        }
    }

    fn forget_early(&mut self) {
        while self.early_order.len() > EARLY
            && let Some(oldest) = self.early_order.pop_front()
        {
            // Those that were taken in since are not there any more.
            if let Some(early) = self.early.get_mut(&oldest) {
                early.pop_front();
                if early.is_empty() {
                    self.early.remove(&oldest);
                }
            }
        }
    }

    /// Takes in statements that came before their pooler.
    fn take_early(&mut self, fingerprint: u64) {
        for (backend, statement) in self.early.remove(&fingerprint).unwrap_or_default() {
            self.take(fingerprint, backend, statement);
        }
    }

    fn take(&mut self, fingerprint: u64, backend: Backend, statement: Statement) {
        let Some(link) = self.links.get_mut(&fingerprint) else {
            return;
        };
        let known = link.backend.get_or_insert_with(|| backend.clone());
        if (&known.agent, known.session()) != (&backend.agent, backend.session()) {
            return self.contest(fingerprint);
        }
        if link.contested {
            // It may have been named before.
            if !link.told && link.waiting.is_empty() {
                link.waiting.push_back(statement);
                self.taken_back.push(fingerprint);
            }
            return;
        }
        if link.waiting.len() >= WAITING {
            link.waiting.pop_front();
            self.forgotten += 1;
        }
        link.waiting.push_back(statement);
        self.make_due(fingerprint);
    }

    /// Two lay claim to one end: who can say.
    fn contest(&mut self, fingerprint: u64) {
        let Some(link) = self.links.get_mut(&fingerprint) else {
            return;
        };
        if !std::mem::replace(&mut link.contested, true) {
            self.taken_back.push(fingerprint);
        }
    }

    fn make_due(&mut self, fingerprint: u64) {
        if let Some(link) = self.links.get_mut(&fingerprint)
            && !link.due
        {
            link.due = true;
            self.due.push_back(fingerprint);
        }
    }

    /// Whether something can be decided, now or with time.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty() || !self.taken_back.is_empty() || !self.undecided.is_empty()
    }

    /// Lets go of what is too much; gives how many statements that concerns.
    pub(super) fn forget_excess(&mut self) -> u64 {
        while self.links.len() > LINKS || self.pieces > PIECES {
            let Some(link) = self
                .order
                .pop_front()
                .and_then(|oldest| self.links.remove(&oldest))
            else {
                break;
            };
            self.forgotten += link.waiting.len() as u64;
            self.pieces = self
                .pieces
                .saturating_sub(link.pooler.map_or(0, |pooler| pooler.pieces()));
        }
        while self.client_order.len() > CLIENTS {
            if let Some((agent, session)) = self.client_order.pop_front()
                && let Some(clients) = self.clients.get_mut(&agent)
            {
                clients.remove(&session);
            }
        }
        std::mem::take(&mut self.forgotten)
    }

    /// Decides what can be decided, once in a second: the amendments of `own`, this collector's chain.
    pub(super) fn decide(&mut self, own: &str, standing: &Amendments, now: u64) -> Vec<v1::Event> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now.saturating_add(GATHER_NS);
        for fingerprint in std::mem::take(&mut self.undecided) {
            self.make_due(fingerprint);
        }
        let mut gathered = Gathered::default();
        while !gathered.is_full()
            && let Some(fingerprint) = self.due.pop_front()
        {
            self.decide_link(fingerprint, standing, now, &mut gathered);
        }
        if gathered.is_full() {
            // The next batch is for the rest.
            self.next = now;
        }
        let mut events = Vec::new();
        for fingerprint in std::mem::take(&mut self.taken_back) {
            events.extend(self.take_back(fingerprint, standing, now));
        }
        let groups = gathered.groups.into_iter();
        events.extend(groups.map(|(group, grouped)| self.event(own, &group, grouped, now)));
        events
    }

    /// Decides about the statements of a connection, in order, until one has to wait.
    fn decide_link(&mut self, fingerprint: u64, standing: &Amendments, now: u64, gathered: &mut Gathered) {
        let Some(link) = self.links.get_mut(&fingerprint) else {
            return;
        };
        link.due = false;
        if link.contested {
            return;
        }
        let (Some(pooler), Some(backend)) = (&mut link.pooler, &link.backend) else {
            return;
        };
        let before = pooler.pieces();
        while let Some(statement) = link.waiting.front() {
            if gathered.is_full() {
                self.undecided.insert(fingerprint);
                break;
            }
            if standing.is_amended(&backend.agent, statement.seq) {
                // Before a restart, perhaps.
                link.told = true;
                link.waiting.pop_front();
                continue;
            }
            let waited = now.saturating_sub(statement.arrived);
            let last = waited >= PATIENCE_NS;
            let decision = pooler.decide(&statement.asked(last));
            let said = Said::of(decision, |client| pooler.session(client));
            let clients = self.clients.get(&pooler.agent);
            let may_be_amended = |session: &str| {
                let client = clients.and_then(|clients| clients.get(session));
                client.map_or(waited < UNTOLD_NS, |client| now < client.until)
            };
            let Some(said) = said.filter(|said| match said {
                Said::Client(session, _) => !may_be_amended(session),
                _ => true,
            }) else {
                self.undecided.insert(fingerprint);
                break;
            };
            let group = Group {
                at_server: Arc::clone(&backend.agent),
                at_pooler: Arc::clone(&pooler.agent),
                pooler: Arc::clone(&pooler.attribution),
                whose: said,
            };
            gathered.add(group, statement.seq, pooler.inputs());
            link.told = true;
            link.waiting.pop_front();
        }
        self.pieces = (self.pieces + pooler.pieces()).saturating_sub(before);
    }

    fn event(&self, own: &str, group: &Group, grouped: Grouped, now: u64) -> v1::Event {
        let mut inputs = Vec::new();
        let client = match &group.whose {
            Said::Client(session, _) => self.client(&group.at_pooler, session),
            _ => None,
        };
        let decoded = |encoded: &[u8]| v1::Attribution::decode(encoded).unwrap_or_default();
        let who = client.map(|client| {
            inputs.push(json::event_id(&group.at_pooler, client.seq));
            let amended = client.amended.as_ref();
            amended.map_or_else(|| decoded(&client.attribution), |(_, amended)| decoded(amended))
        });
        let amended = client.and_then(|client| client.amended.as_ref());
        inputs.extend(amended.map(|(seq, _)| json::event_id(own, *seq)));
        let of_agent = |seq: u64| json::event_id(&group.at_pooler, seq);
        inputs.extend(grouped.inputs.into_iter().map(of_agent));
        let seen = (&*group.at_pooler, &*group.at_server);
        let (attribution, name) = group
            .whose
            .attribution(seen, &decoded(&group.pooler), who.as_ref());
        let mut before = 0;
        let events = grouped
            .seqs
            .into_iter()
            .map(|seq| seq - std::mem::replace(&mut before, seq));
        v1::Event {
            ts_start_ns: now,
            ts_end_ns: now,
            attribution: Some(attribution),
            body: Some(event::Body::Amendment(v1::Amendment {
                agent_id: group.at_server.to_string(),
                inputs,
                join_version: LEASE_VERSION,
                r#match: name.to_owned(),
                events: events.collect(),
                ..v1::Amendment::default()
            })),
            ..v1::Event::default()
        }
    }

    fn client(&self, agent: &str, session: &str) -> Option<&Client> {
        self.clients.get(agent)?.get(session)
    }

    /// What was said of a connection's statements no longer holds; nothing where nothing was said.
    fn take_back(&mut self, fingerprint: u64, standing: &Amendments, now: u64) -> Option<v1::Event> {
        let link = self.links.get_mut(&fingerprint)?;
        let backend = link.backend.as_ref()?;
        let session = backend.party.session.as_ref()?;
        let mut waiting = link.waiting.drain(..);
        link.told |= waiting.any(|statement| standing.is_amended(&backend.agent, statement.seq));
        drop(waiting);
        if !link.told || standing.is_taken_back(&backend.agent, &session.id) {
            return None;
        }
        Some(v1::Event {
            ts_start_ns: now,
            ts_end_ns: now,
            attribution: Some(taken_back(backend.party.attribution.as_ref()?)),
            body: Some(event::Body::Amendment(v1::Amendment {
                agent_id: backend.agent.to_string(),
                session: session.id.clone(),
                inputs: vec![json::event_id(&backend.agent, backend.seq)],
                join_version: LEASE_VERSION,
                r#match: POOLERS.to_owned(),
                ..v1::Amendment::default()
            })),
            ..v1::Event::default()
        })
    }
}

/// The attribution as it was recorded, behind names of statements that no longer hold.
pub(super) fn taken_back(recorded: &v1::Attribution) -> v1::Attribution {
    let mut recorded = recorded.clone();
    recorded
        .evidence
        .push("more than one lays claim to an end of this connection: none is believed".to_owned());
    recorded
}

/// Statements of connections that no pooler told of.
const EARLY: usize = 500_000;

/// Connections of poolers.
const LINKS: usize = 20_000;

/// Statements of one of them.
const WAITING: usize = 65_536;

/// Pieces, of all of them.
const PIECES: usize = 1_000_000;

/// Clients of poolers.
const CLIENTS: usize = 200_000;

/// How long decisions are gathered.
const GATHER_NS: u64 = 1_000_000_000;

/// How long a statement waits for what the pooler did with it.
const PATIENCE_NS: u64 = 60_000_000_000;

/// How long a client's first statements wait for what a third host says of it.
const THIRD_HOST_NS: u64 = 10_000_000_000;

/// How long a statement waits for its client to be told of.
const UNTOLD_NS: u64 = 5_000_000_000;
