//! All roll-ups in the making, told when their window is over.
//!
//! Driven as [`Volume::take`] and then [`Volume::poll`]. Owns what waits and its bounds: what finds no room makes all that waits be
//! told early, so that nothing is ever dropped.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use proto::v1;
use tap_core::{Body, ByCookie, Event, Query, Statement};

use crate::{
    always,
    policy::Policy,
    session::{Added, CachedSender, Rolled, Session},
    verdict::{Candidates, Verdict},
};

/// Roll-ups in the making, of all sessions: a thousand sessions with sixteen statements each. Each has some two KiB.
pub const MAX_ROLLS: usize = 16_384;

/// Bytes that they take, about.
pub const MAX_BYTES: usize = 48 << 20;

/// Roll-ups in the making of one session: they are looked through one by one.
const MAX_ROLLS_OF_SESSION: usize = 256;

/// Statements of which it is known what the policy says. Beyond it all are forgotten, which costs asking once more.
const MAX_VERDICTS: usize = 8_192;

/// Lists of rules that senders have in common. Beyond it all are forgotten.
const MAX_SENDERS: usize = 1_024;

/// Something to be told now.
#[derive(Debug)]
pub enum Told {
    /// An event that waited and had no equal: it is what it was.
    Single(Event, Option<Arc<v1::Attribution>>),
    /// Several executions.
    Rollup(Box<Rolled>),
}

/// Numbers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Statements told in roll-ups.
    pub rolled_up: u64,
    /// Statements of which nothing else is told.
    pub left_out: u64,
}

/// What waits, and what is counted.
#[derive(Debug)]
pub struct Volume {
    policy: Policy,
    window_ns: u64,
    sessions: ByCookie<Session>,
    /// Roll-ups in the making.
    pub(crate) rolls: usize,
    pub(crate) bytes: usize,
    /// Since when something waits.
    since: Option<u64>,
    /// When the oldest of it began, or what was left out since the numbers were told.
    oldest_roll: Option<u64>,
    oldest_left_out: Option<u64>,
    told: VecDeque<Told>,
    totals: Totals,
    /// Statements left out, by the rule's name.
    left_out: Vec<(String, u64)>,
    /// Equal lists are one and the same, so that verdicts can be shared.
    senders: Vec<Arc<Candidates>>,
    /// By the places of sender and statement in memory, which are held.
    verdicts: HashMap<(usize, usize), Known>,
}

/// What the policy says of one sender's statement.
#[derive(Debug)]
struct Known {
    /// Held, so that their places are not another's.
    _of: (Arc<Candidates>, Arc<Statement>),
    verdict: Verdict,
}

impl Volume {
    /// Nothing waits. `window_ns`: how long equal executions are gathered.
    #[must_use]
    pub fn new(policy: Policy, window_ns: u64) -> Self {
        Self {
            policy,
            window_ns,
            sessions: ByCookie::default(),
            rolls: 0,
            bytes: 0,
            since: None,
            oldest_roll: None,
            oldest_left_out: None,
            told: VecDeque::new(),
            totals: Totals::default(),
            left_out: Vec::new(),
            senders: Vec::new(),
            verdicts: HashMap::new(),
        }
    }

    /// Another policy is in effect from here on. What waits is to be told, by the former one.
    pub fn change(&mut self, policy: Policy) {
        self.flush();
        self.policy = policy;
        self.senders.clear();
        self.verdicts.clear();
        for session in self.sessions.values_mut() {
            session.sender = None;
            // By the former one it may have been.
            session.open_is_told();
        }
    }

    /// The policy in effect.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes an event; gives it back if it is to be told now, behind what [`Self::poll`] gives. `now` in nanoseconds.
    pub fn take(
        &mut self,
        event: Event,
        attribution: Option<&Arc<v1::Attribution>>,
        now: u64,
    ) -> Option<Event> {
        let cookie = event.session.cookie;
        match &event.body {
            Body::Query(query) => {
                let verdict = self.verdict(&event, attribution, query);
                let (transaction, start) = (query.transaction, event.times.start);
                let session = self.sessions.entry(cookie).or_default();
                match verdict {
                    Verdict::Full => {
                        session.told(transaction);
                        return Some(event);
                    }
                    Verdict::Off(rule) => {
                        session.meet(transaction);
                        session.left_out = true;
                        self.oldest_left_out = earlier(self.oldest_left_out, start);
                        self.leave_out(rule);
                    }
                    Verdict::Rollup(rule) => self.add(event, attribution, rule, now),
                }
                None
            }
            Body::Transaction(end) => {
                let session = self.sessions.get_mut(&cookie);
                let is_counted = session.is_some_and(|session| session.ended(end.number, end.how));
                (!is_counted).then_some(event)
            }
            Body::SessionClose { .. } => {
                self.flush_session(cookie);
                Some(event)
            }
            _ => Some(event),
        }
    }

    /// The next of what is to be told.
    pub fn poll(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// Time went on: what waited for its window is to be told; true if there was something.
    pub fn handle_time(&mut self, now: u64) -> bool {
        let is_due = self
            .since
            .is_some_and(|since| since.saturating_add(self.window_ns) <= now);
        if is_due {
            self.flush();
        }
        is_due
    }

    /// Nothing waits any longer.
    pub fn flush(&mut self) {
        for session in self.sessions.values_mut() {
            tell(session.take(), &mut self.told, &mut self.totals);
        }
        (self.rolls, self.bytes, self.since, self.oldest_roll) = (0, 0, None, None);
    }

    /// A connection is over, and all of it was taken.
    pub fn session_over(&mut self, cookie: u64) {
        self.flush_session(cookie);
        // Until its number is told it is needed.
        if let Some(session) = self.sessions.get_mut(&cookie) {
            session.sender = None;
            if !session.left_out {
                self.sessions.remove(&cookie);
            }
        }
    }

    /// Whether something of a session waits, or was left out and its number is not told yet.
    #[must_use]
    pub fn holds(&self, cookie: u64) -> bool {
        self.sessions
            .get(&cookie)
            .is_some_and(|session| session.left_out || !session.rolls.is_empty())
    }

    /// When the oldest of that began.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        [self.oldest_roll, self.oldest_left_out]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether statements were left out since the numbers were told.
    #[must_use]
    pub fn owes_numbers(&self) -> bool {
        self.oldest_left_out.is_some()
    }

    /// The numbers are told: what was left out until here is accounted for. `is_open` says whether a connection still is.
    pub fn numbers_told(&mut self, is_open: impl Fn(u64) -> bool) {
        if self.oldest_left_out.take().is_none() {
            return;
        }
        self.sessions.retain(|cookie, session| {
            let was_left_out = std::mem::take(&mut session.left_out);
            !was_left_out || is_open(*cookie)
        });
    }

    /// Numbers since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Statements left out since the start, by the name of the rule.
    pub fn left_out(&self) -> impl Iterator<Item = (&str, u64)> {
        self.left_out.iter().map(|(rule, count)| (rule.as_str(), *count))
    }

    fn leave_out(&mut self, rule: u16) {
        self.totals.left_out += 1;
        let name = self.policy.name(rule);
        let known = self.left_out.iter().position(|(known, _)| known == name);
        let place = known.unwrap_or_else(|| {
            let last = MAX_NAMED_RULES - 1;
            match self.left_out.len() {
                count if count > last => last,
                count => {
                    // The last of them stands for all that come after it.
                    let name = if count == last { "others" } else { name };
                    self.left_out.push((name.to_owned(), 0));
                    count
                }
            }
        });
        if let Some((_, count)) = self.left_out.get_mut(place) {
            *count += 1;
        }
    }

    fn add(&mut self, event: Event, attribution: Option<&Arc<v1::Attribution>>, rule: u16, now: u64) {
        let (cookie, start) = (event.session.cookie, event.times.start);
        self.since.get_or_insert(now);
        self.oldest_roll = earlier(self.oldest_roll, start);
        let session = self.sessions.entry(cookie).or_default();
        let Added::New(event) = session.add(event, attribution, rule) else {
            return;
        };
        if self.rolls >= MAX_ROLLS || self.bytes >= MAX_BYTES {
            self.flush();
        } else if session.rolls.len() >= MAX_ROLLS_OF_SESSION {
            self.flush_session(cookie);
        }
        self.since.get_or_insert(now);
        self.oldest_roll = earlier(self.oldest_roll, start);
        let session = self.sessions.entry(cookie).or_default();
        session.begin(event, attribution.cloned(), rule);
        self.rolls += 1;
        self.bytes += session.rolls.last().map_or(0, Rolled::weight);
    }

    fn flush_session(&mut self, cookie: u64) {
        let Some(session) = self.sessions.get_mut(&cookie) else {
            return;
        };
        self.rolls = self.rolls.saturating_sub(session.rolls.len());
        let weight = session.rolls.iter().map(Rolled::weight).sum();
        self.bytes = self.bytes.saturating_sub(weight);
        tell(session.take(), &mut self.told, &mut self.totals);
    }

    /// What the policy says; looked up where it was asked before.
    fn verdict(
        &mut self,
        event: &Event,
        attribution: Option<&Arc<v1::Attribution>>,
        query: &Query,
    ) -> Verdict {
        let Some(statement) = &query.statement else {
            return Verdict::Full;
        };
        if self.policy.is_empty() || always::by_its_end(query) {
            return Verdict::Full;
        }
        let candidates = self.candidates(event, attribution, query);
        if candidates.is_empty() {
            return Verdict::Full;
        }
        let source = query.source_statement.as_deref();
        if source.is_some() {
            return self.policy.of_statement(&candidates, statement, source);
        }
        let key = (Arc::as_ptr(&candidates).addr(), Arc::as_ptr(statement).addr());
        if let Some(known) = self.verdicts.get(&key) {
            return known.verdict;
        }
        let verdict = self.policy.of_statement(&candidates, statement, None);
        if self.verdicts.len() >= MAX_VERDICTS {
            self.verdicts.clear();
        }
        let known = Known {
            _of: (candidates, Arc::clone(statement)),
            verdict,
        };
        self.verdicts.insert(key, known);
        verdict
    }

    fn candidates(
        &mut self,
        event: &Event,
        attribution: Option<&Arc<v1::Attribution>>,
        query: &Query,
    ) -> Arc<Candidates> {
        let session = self.sessions.entry(event.session.cookie).or_default();
        if let Some(sender) = &session.sender
            && sender.is_of(event, attribution, query)
        {
            return Arc::clone(&sender.candidates);
        }
        let found = self.policy.candidates(
            &event.session,
            attribution.map(AsRef::as_ref),
            query.effective_role.as_ref(),
        );
        let candidates = match self.senders.iter().find(|known| ***known == found) {
            Some(known) => Arc::clone(known),
            None => {
                if self.senders.len() >= MAX_SENDERS {
                    self.senders.clear();
                }
                let found = Arc::new(found);
                self.senders.push(Arc::clone(&found));
                found
            }
        };
        session.sender = Some(CachedSender {
            facts: Arc::clone(&event.session),
            attribution: attribution.cloned(),
            effective_role: query.effective_role.clone(),
            candidates: Arc::clone(&candidates),
        });
        candidates
    }
}

/// Rules whose numbers are told apart in each heartbeat.
const MAX_NAMED_RULES: usize = 64;

fn tell(rolls: impl Iterator<Item = Rolled>, told: &mut VecDeque<Told>, totals: &mut Totals) {
    told.extend(rolls.map(|mut roll| {
        if roll.executions == 1 {
            return Told::Single(roll.event, roll.attribution);
        }
        totals.rolled_up += roll.executions;
        roll.finish();
        Told::Rollup(Box::new(roll))
    }));
}

fn earlier(known: Option<u64>, at: u64) -> Option<u64> {
    Some(known.map_or(at, |known| known.min(at)))
}
