//! One session's roll-ups in the making, and its open transaction.

use std::sync::Arc;

use proto::v1;
use tap_core::{Body, EffectiveRole, Event, Final, Query, SessionFacts};

use crate::{durations::Durations, records, verdict::Candidates};

/// Equal executions of one session, as one.
#[derive(Clone, Debug)]
pub struct Rolled {
    /// The first of them. Of its query, rows and bytes are sums over all, the places reach to the end of the last answer, and what
    /// differs between them is gone; of its times the end is the last one's.
    pub event: Event,
    /// Whose they are.
    pub attribution: Option<Arc<v1::Attribution>>,
    /// How many they were.
    pub executions: u64,
    /// In how many transactions.
    pub transactions: u64,
    /// How many of them were in transactions that ended so.
    pub ends: Ends,
    /// Those whose transaction has not ended.
    pub open: u64,
    /// Its number; 0 where none is open.
    pub open_transaction: u64,
    /// All durations together, in nanoseconds.
    pub duration_ns: u64,
    /// Each of them.
    pub durations: Durations,
    /// Place of the rule.
    pub rule: u16,
    /// The newest one's transaction.
    newest_transaction: u64,
}

/// Executions by how their transactions ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Their work stands.
    pub committed: u64,
    /// It is undone.
    pub rolled_back: u64,
    /// It was prepared for a commit in two phases.
    pub prepared: u64,
    /// Nobody knows.
    pub unknown: u64,
}

impl Ends {
    fn add(&mut self, how: Final, count: u64) {
        *match how {
            Final::Committed => &mut self.committed,
            Final::RolledBack => &mut self.rolled_back,
            Final::Prepared => &mut self.prepared,
            Final::Unknown => &mut self.unknown,
        } += count;
    }
}

/// What is kept of a session.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) rolls: Vec<Rolled>,
    /// Where the newest execution was added: the next one often belongs to the one behind.
    newest: usize,
    /// Who sends, and the rules for that.
    pub(crate) sender: Option<CachedSender>,
    open: Open,
    /// Something of it was left out since the numbers were told last.
    pub(crate) left_out: bool,
}

/// Who sends, and the rules for that.
#[derive(Debug)]
pub(crate) struct CachedSender {
    pub(crate) facts: Arc<SessionFacts>,
    pub(crate) attribution: Option<Arc<v1::Attribution>>,
    pub(crate) effective_role: Option<EffectiveRole>,
    pub(crate) candidates: Arc<Candidates>,
}

impl CachedSender {
    /// The references held here keep what they point to from being changed in place.
    pub(crate) fn is_of(
        &self,
        event: &Event,
        attribution: Option<&Arc<v1::Attribution>>,
        query: &Query,
    ) -> bool {
        Arc::ptr_eq(&self.facts, &event.session)
            && self.attribution.as_ref().map(Arc::as_ptr) == attribution.map(Arc::as_ptr)
            && self.effective_role == query.effective_role
    }
}

/// The newest transaction.
#[derive(Debug, Default)]
struct Open {
    number: u64,
    /// Something of it is told, and so its end has to be.
    is_told: bool,
    /// Executions whose end is not known yet: which roll-up, and how many.
    undecided: Vec<(usize, u64)>,
}

impl Session {
    /// A statement of this transaction is told, whole.
    pub(crate) fn told(&mut self, transaction: u64) {
        self.meet(transaction);
        self.open.is_told = true;
    }

    /// A statement of this transaction is here.
    pub(crate) fn meet(&mut self, transaction: u64) {
        if self.open.number != transaction {
            // The end of the one before is told, always; were it not, nobody would know it.
            self.decide(Final::Unknown);
            self.open.number = transaction;
            self.open.is_told = false;
        }
    }

    /// What is open was told of before the policy was in effect, or another one was.
    pub(crate) fn open_is_told(&mut self) {
        self.open.is_told = true;
    }

    /// An execution is to be told with its equals; gives back one that makes a new roll-up, whose place is then the last.
    pub(crate) fn add(
        &mut self,
        event: Event,
        attribution: Option<&Arc<v1::Attribution>>,
        rule: u16,
    ) -> Added {
        let Body::Query(query) = &event.body else {
            return Added::New(event);
        };
        self.meet(query.transaction);
        let (transaction, how) = (query.transaction, query.transaction_final);
        let is_of = |roll: &Rolled| roll.rule == rule && roll.is_like(&event, query, attribution);
        let next = self.newest + 1;
        let guess = [self.newest, next, 0].into_iter();
        let place = guess
            .filter(|place| *place < self.rolls.len())
            .find(|place| self.rolls.get(*place).is_some_and(is_of))
            .or_else(|| self.rolls.iter().position(is_of));
        let Some((place, roll)) = place.and_then(|place| Some((place, self.rolls.get_mut(place)?))) else {
            return Added::New(event);
        };
        roll.add(&event);
        self.count(place, transaction, how);
        Added::Equal
    }

    /// Begins a roll-up.
    pub(crate) fn begin(&mut self, event: Event, attribution: Option<Arc<v1::Attribution>>, rule: u16) {
        let Body::Query(query) = &event.body else {
            return;
        };
        let (transaction, how) = (query.transaction, query.transaction_final);
        self.rolls.push(Rolled::new(event, attribution, rule));
        self.count(self.rolls.len() - 1, transaction, how);
    }

    fn count(&mut self, place: usize, transaction: u64, how: Option<Final>) {
        self.newest = place;
        let Some(roll) = self.rolls.get_mut(place) else {
            return;
        };
        roll.transactions += u64::from(roll.newest_transaction != transaction || roll.executions == 1);
        roll.newest_transaction = transaction;
        match (how, self.open.undecided.iter_mut().find(|(of, _)| *of == place)) {
            (Some(how), _) => roll.ends.add(how, 1),
            (None, Some((_, count))) => *count += 1,
            (None, None) => self.open.undecided.push((place, 1)),
        }
    }

    /// A transaction ended; whether that needs no telling, because all that was in it waits here or was left out.
    pub(crate) fn ended(&mut self, transaction: u64, how: Final) -> bool {
        if self.open.number != transaction {
            return false;
        }
        self.decide(how);
        !self.open.is_told
    }

    /// It is known how the newest transaction ended.
    fn decide(&mut self, how: Final) {
        for (place, count) in self.open.undecided.drain(..) {
            let Some(roll) = self.rolls.get_mut(place) else {
                continue;
            };
            roll.ends.add(how, count);
            // Told by itself it says so, too.
            if let (1, Body::Query(query)) = (roll.executions, &mut roll.event.body) {
                query.transaction_final = Some(how);
            }
        }
    }

    /// Takes all roll-ups out, to be told.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Rolled> {
        self.newest = 0;
        let number = self.open.number;
        for (place, count) in self.open.undecided.drain(..) {
            if let Some(roll) = self.rolls.get_mut(place) {
                (roll.open, roll.open_transaction) = (count, number);
                self.open.is_told = true;
            }
        }
        self.rolls.drain(..)
    }
}

/// What became of an execution.
pub(crate) enum Added {
    /// It was added to its equals.
    Equal,
    /// There are none.
    New(Event),
}

impl Rolled {
    fn new(event: Event, attribution: Option<Arc<v1::Attribution>>, rule: u16) -> Self {
        let duration = event.times.end.saturating_sub(event.times.start);
        let mut durations = Durations::default();
        durations.add(duration);
        Self {
            event,
            attribution,
            executions: 1,
            transactions: 0,
            ends: Ends::default(),
            open: 0,
            open_transaction: 0,
            duration_ns: duration,
            durations,
            rule,
            newest_transaction: 0,
        }
    }

    /// Whether an execution differs from these in nothing that a roll-up says.
    fn is_like(&self, event: &Event, query: &Query, attribution: Option<&Arc<v1::Attribution>>) -> bool {
        let Body::Query(own) = &self.event.body else {
            return false;
        };
        same(own.statement.as_ref(), query.statement.as_ref())
            && self.attribution.as_ref().map(Arc::as_ptr) == attribution.map(Arc::as_ptr)
            && same(Some(&self.event.session), Some(&event.session))
            && own.index == query.index
            && own.kind == query.kind
            && own.phase == query.phase
            && own.param_count == query.param_count
            && own.statement_name == query.statement_name
            && own.portal == query.portal
            && own.rows_affected.is_some() == query.rows_affected.is_some()
            && own.copy_bytes.is_some() == query.copy_bytes.is_some()
            && without_counts(own) == without_counts(query)
            && same(own.text.as_ref(), query.text.as_ref())
            && same(own.source.as_ref(), query.source.as_ref())
            && same(own.source_statement.as_ref(), query.source_statement.as_ref())
            && same(Some(&own.columns), Some(&query.columns))
            && same(own.objects.as_ref(), query.objects.as_ref())
            && own.effective_role == query.effective_role
            && same(own.asserted.as_ref(), query.asserted.as_ref())
            && records::can_be_united(own.touched.as_deref(), query.touched.as_deref())
    }

    fn add(&mut self, event: &Event) {
        let (Body::Query(own), Body::Query(query)) = (&mut self.event.body, &event.body) else {
            return;
        };
        if let (Some(own), Some(more)) = (&mut own.touched, &query.touched) {
            records::unite(own, more);
        }
        let sum = |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other?));
        own.rows = own.rows.saturating_add(query.rows);
        own.rows_affected = sum(own.rows_affected, query.rows_affected);
        own.copy_bytes = sum(own.copy_bytes, query.copy_bytes);
        own.bytes_in = own.bytes_in.saturating_add(query.bytes_in);
        own.bytes_out = own.bytes_out.saturating_add(query.bytes_out);
        own.request.end = query.request.end;
        own.response_to = query.response_to;
        self.event.times.end = self.event.times.end.max(event.times.end);
        let duration = event.times.end.saturating_sub(event.times.start);
        self.durations.add(duration);
        self.duration_ns = self.duration_ns.saturating_add(duration);
        self.executions += 1;
    }

    /// Takes away what is one execution's own.
    pub(crate) fn finish(&mut self) {
        let Body::Query(own) = &mut self.event.body else {
            return;
        };
        own.tag = own.tag.as_ref().map(|_| without_counts(own).into());
        own.params = Arc::default();
        if let Some(touched) = &mut own.touched {
            touched.params = Vec::new();
        }
        own.original_bytes = 0;
        own.digest = None;
        own.transaction = 0;
        own.transaction_status = None;
        own.transaction_final = None;
        own.client = None;
        self.event.times.first_response = None;
    }

    /// What it takes in memory, about.
    pub(crate) fn weight(&self) -> usize {
        /// Without what has no bound; what many share is counted by none.
        const ROLL: usize = 2_048;
        let Body::Query(query) = &self.event.body else {
            return ROLL;
        };
        let values = query.params.iter().map(|param| param.kept.len());
        let columns = query.columns.iter().map(|column| 64 + column.name.len());
        ROLL + values.sum::<usize>()
            + columns.sum::<usize>()
            + query.statement_name.len()
            + query.portal.len()
    }
}

/// The command tag without its counts: `INSERT 0 1` is `INSERT`.
fn without_counts(query: &Query) -> &str {
    let tag = query.tag.as_deref().unwrap_or_default();
    tag.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ')
}

/// Mostly they are one and the same.
fn same<T: PartialEq + ?Sized>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
    }
}
