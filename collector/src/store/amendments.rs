//! What sessions and statements are called by now: the collector's own amendments, in memory.
//!
//! Owns which amendment stands for a session, or for a statement of one, at the moment of a question, and of its attribution what columns show. Only the
//! collector's own chain counts: whoever else sends such events has them recorded, and not believed. Refuses to be the
//! record: it is filled from the store's files and from the log, and the whole attribution is read from there.
//!
//! Memory: some 110 bytes an amendment (with sixteen more where it came in place of another), and what columns show of it, which most share with others of the same workload,
//! once (some 300 bytes). Six bytes a statement that has an amendment of its own; of the newest 32 million such statements:
//! older ones are shown as their session is.

mod added;
mod erased;
mod statements;

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use compact_str::CompactString;
use datafusion::{
    arrow::array::{BooleanArray, Int32Array, Int64Array, StringArray},
    common::HashMap,
};
use prost::Message;
use proto::v1::{self, event};

use self::statements::Statements;
use super::uses;
use record::{Body, Records};

/// All amendments, the newest of each session in front.
#[derive(Debug, Default)]
pub struct Amendments {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Whose word counts; nobody's, as long as that was not said.
    originator: Option<Arc<str>>,
    /// By agent and session, the newest amendment's place in `list`.
    newest: HashMap<Arc<str>, HashMap<CompactString, u32>>,
    /// By agent, the newest amendment of each statement.
    statements: HashMap<Arc<str>, Statements>,
    /// Of amendments of statements, which newer one came in place of which older one, at least of one statement.
    replaced: BTreeSet<(u32, u32)>,
    /// By agent and session, the newest one behind which no older one of a statement holds.
    taken_back: HashMap<Arc<str>, HashMap<CompactString, u32>>,
    /// There is one at least that gives what one kernel saw another name.
    renames: bool,
    list: Vec<Entry>,
    /// What columns show of an attribution, encoded, but for the process id.
    faces: Vec<Arc<[u8]>>,
    known: HashMap<Arc<[u8]>, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    log_index: u64,
    seq: u64,
    face: u32,
    pid: u32,
    /// It is of statements, which a pooler passed on.
    of_statements: bool,
    /// The one that stood for the session before.
    before: Option<u32>,
    /// It gives a pod's name to what the session's own host found by this method, and to nothing else of the session.
    only: Option<&'static str>,
    /// Of statements: the one whose pod it names, and with which it is taken back.
    upon: Option<u32>,
    /// It was erased, and stands for nothing.
    gone: bool,
}

/// One amendment on its way in.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) log_index: u64,
    pub(super) seq: u64,
    pub(super) agent: String,
    pub(super) session: CompactString,
    pub(super) attribution: v1::Attribution,
    /// As in `Amendment.events`.
    pub(super) events: Box<[u64]>,
    /// Names of the session's statements are taken back.
    pub(super) takes_back: bool,
    /// It gives the name of a pod, by its uid.
    pub(super) names_pod: bool,
}

impl Amendments {
    /// From now on, `originator`'s amendments count.
    pub(crate) fn believe(&self, originator: &str) {
        self.write(|inner| inner.originator = Some(originator.into()));
    }

    /// What the collector itself names anew in this entry of the log, as uses know it.
    pub(super) fn named_in(&self, records: &Records) -> Vec<uses::Named> {
        if self.read().originator.as_deref() != Some(&*records.agent) {
            return Vec::new();
        }
        let bodies = records.records.iter().filter_map(|record| match &record.body {
            Body::Other(body) => Some(body.as_ref()),
            _ => None,
        });
        let named = bodies.filter_map(|body| match body {
            event::Body::Amendment(of) => Some(uses::Named::new(&of.agent_id, &of.session, &of.events)),
            _ => None,
        });
        named.collect()
    }

    /// Takes in what the collector itself said in this entry of the log; what is here already changes nothing.
    pub(crate) fn take(&self, log_index: u64, records: &Records) {
        if self.read().originator.as_deref() != Some(&*records.agent) {
            return;
        }
        self.write(|inner| {
            for record in &records.records {
                let (Body::Other(body), Some(party)) = (&record.body, &record.party) else {
                    continue;
                };
                if let (event::Body::Amendment(amendment), Some(attribution)) =
                    (body.as_ref(), &party.attribution)
                {
                    inner.add(Stored {
                        log_index,
                        seq: record.seq,
                        agent: amendment.agent_id.clone(),
                        session: amendment.session.as_str().into(),
                        attribution: attribution.clone(),
                        events: amendment.events.as_slice().into(),
                        takes_back: amendment.r#match == attribution::POOLERS,
                        names_pod: amendment.r#match == attribution::POD_UID,
                    });
                }
            }
        });
    }

    /// Takes in those that files hold, in whatever order.
    pub(super) fn take_stored(&self, mut stored: Vec<Stored>) {
        stored.sort_by_key(|one| (one.log_index, one.seq));
        self.write(|inner| stored.into_iter().for_each(|one| inner.add(one)));
    }

    /// All that there are by now, for one question.
    pub(super) fn view(self: &Arc<Self>) -> View {
        let inner = self.read();
        View {
            seen: inner.list.len() as u32,
            by: inner.originator.clone().unwrap_or_default(),
            all: Arc::clone(self),
        }
    }

    /// What columns show of the session's newest amendment.
    #[must_use]
    pub fn standing(&self, agent: &str, session: &str) -> Option<v1::Attribution> {
        let inner = self.read();
        let place = inner.standing(inner.newest.get(agent)?, session, u32::MAX, None)?;
        inner.shown(place)
    }

    /// The same of a statement's own.
    #[must_use]
    pub fn of_statement(&self, agent: &str, seq: u64) -> Option<v1::Attribution> {
        let inner = self.read();
        let place = inner.statements.get(agent)?.get(seq)?;
        inner.shown(place)
    }

    /// Whether a statement has an amendment of its own.
    #[must_use]
    pub fn is_amended(&self, agent: &str, seq: u64) -> bool {
        let inner = self.read();
        let statements = inner.statements.get(agent);
        statements.is_some_and(|statements| statements.get(seq).is_some())
    }

    /// Whether names of a session's statements were taken back.
    #[must_use]
    pub fn is_taken_back(&self, agent: &str, session: &str) -> bool {
        let inner = self.read();
        let sessions = inner.taken_back.get(agent);
        sessions.is_some_and(|sessions| sessions.contains_key(session))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().list.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // Nothing panics while it holds the lock with a change half made.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Inner {
    fn stands(&self, place: u32) -> bool {
        self.list.get(place as usize).is_some_and(|entry| !entry.gone)
    }

    /// Keeps what columns show, once.
    fn face(&mut self, attribution: v1::Attribution) -> u32 {
        let mut face = stripped(attribution);
        if let Some(process) = &mut face.process {
            process.pid = 0;
            process.start_ns = 0;
        }
        let face: Arc<[u8]> = face.encode_to_vec().into();
        if let Some(known) = self.known.get(&face) {
            return *known;
        }
        let place = self.faces.len() as u32;
        self.faces.push(Arc::clone(&face));
        self.known.insert(face, place);
        place
    }

    fn shown(&self, place: u32) -> Option<v1::Attribution> {
        let entry = self.list.get(place as usize)?;
        let mut face = self.face_at(entry.face)?;
        if let Some(process) = &mut face.process {
            process.pid = entry.pid;
        }
        Some(face)
    }

    fn face_at(&self, face: u32) -> Option<v1::Attribution> {
        // It was encoded here.
        v1::Attribution::decode(self.faces.get(face as usize)?.as_ref()).ok()
    }

    /// The amendment of a statement itself, among the first `seen`.
    fn of_statement(&self, agent: &str, session: &str, seq: u64, seen: u32) -> Option<u32> {
        let place = self
            .statements
            .get(agent)?
            .get(seq)
            .filter(|place| self.stands(*place))?;
        let upon = self.list.get(place as usize).and_then(|entry| entry.upon);
        let taken_back = self
            .taken_back
            .get(agent)
            .and_then(|sessions| sessions.get(session));
        (place < seen && taken_back.is_none_or(|behind| upon.unwrap_or(place) > *behind)).then_some(place)
    }

    /// Of a session's amendments the newest among the first `seen` that a row may have; of any row, without one.
    fn standing(
        &self,
        sessions: &HashMap<CompactString, u32>,
        session: &str,
        seen: u32,
        row: Option<Row<'_>>,
    ) -> Option<u32> {
        let mut place = *sessions.get(session)?;
        while place >= seen || !self.stands(place) || row.is_some_and(|row| !self.is_of(place, row)) {
            place = self.list.get(place as usize)?.before?;
        }
        Some(place)
    }

    fn is_of(&self, place: u32, row: Row<'_>) -> bool {
        let only = self.list.get(place as usize).and_then(|entry| entry.only);
        match only {
            // A statement that a pooler passed on is looked up by the session of its client, and is whoever that is.
            Some(method) => row.method == method || row.method == attribution::LEASE,
            None => !row.observed,
        }
    }
}

/// What a row was recorded with, as far as it decides which amendments it may have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row<'a> {
    /// One kernel saw both ends: nobody else knows better, but what the pod is called.
    pub(super) observed: bool,
    /// How it was attributed.
    pub(super) method: &'a str,
}

/// An attribution without what no column shows.
pub(super) fn stripped(mut attribution: v1::Attribution) -> v1::Attribution {
    attribution.evidence.clear();
    // Of hops columns show the poolers that were followed.
    attribution.hops.retain(|hop| !hop.session.is_empty());
    for hop in &mut attribution.hops {
        *hop = v1::Hop {
            name: std::mem::take(&mut hop.name),
            session: std::mem::take(&mut hop.session),
            ..v1::Hop::default()
        };
    }
    if let Some(process) = &mut attribution.process {
        process.ancestry.clear();
    }
    if let Some(pod) = &mut attribution.pod {
        // What another amendment goes on from.
        *pod = v1::Pod {
            uid: std::mem::take(&mut pod.uid),
            ..v1::Pod::default()
        };
    }
    attribution
}

/// The amendments as they were when a question was asked. A session is named by its agent and its id, an amendment by its
/// place.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    all: Arc<Amendments>,
    seen: u32,
    by: Arc<str>,
}

impl View {
    pub(super) fn is_empty(&self) -> bool {
        self.seen == 0
    }

    /// The amendment that stands for an event of a session: its own, else the session's.
    pub(super) fn find(&self, agent: &str, session: &str, seq: u64, row: Row<'_>) -> Option<u32> {
        let inner = self.all.read();
        let own = inner.of_statement(agent, session, seq, self.seen);
        own.filter(|_| !row.observed)
            .or_else(|| inner.standing(inner.newest.get(agent)?, session, self.seen, Some(row)))
    }

    /// The same for many.
    pub(super) fn find_all(
        &self,
        agents: &StringArray,
        sessions: &StringArray,
        confidences: &StringArray,
        methods: &StringArray,
        seqs: &Int64Array,
    ) -> Int32Array {
        let inner = self.all.read();
        struct Of<'a> {
            agent: &'a str,
            has_statements: bool,
            sessions: Option<&'a HashMap<CompactString, u32>>,
        }
        let mut of: Option<Of<'_>> = None;
        let rows = agents
            .iter()
            .zip(sessions)
            .zip(confidences)
            .zip(methods)
            .zip(seqs);
        let found = rows.map(|((((agent, session), confidence), method), seq)| {
            let (agent, session) = (agent?, session?);
            let row = Row {
                observed: confidence == Some(OBSERVED),
                method: method.unwrap_or_default(),
            };
            if row.observed && !inner.renames {
                return None;
            }
            let of = match &mut of {
                Some(known) if known.agent == agent => known,
                other => other.insert(Of {
                    agent,
                    has_statements: inner.statements.contains_key(agent),
                    sessions: inner.newest.get(agent),
                }),
            };
            let own = seq
                .filter(|_| of.has_statements && !row.observed)
                .and_then(|seq| inner.of_statement(agent, session, seq.cast_unsigned(), self.seen));
            own.or_else(|| inner.standing(of.sessions?, session, self.seen, Some(row)))
                .map(u32::cast_signed)
        });
        found.collect()
    }

    /// Whether an amendment is of statements.
    pub(super) fn is_of_statements(&self, place: u32) -> bool {
        let inner = self.all.read();
        inner
            .list
            .get(place as usize)
            .is_some_and(|entry| entry.of_statements)
    }

    /// The same of many; false where there is none.
    pub(super) fn are_of_statements(&self, places: &Int32Array) -> BooleanArray {
        let inner = self.all.read();
        let is_one = |place: i32| inner.list.get(place.cast_unsigned() as usize);
        let are = places.iter().map(|place| {
            let entry = place.and_then(is_one);
            Some(entry.is_some_and(|entry| entry.of_statements))
        });
        are.collect()
    }

    /// For each of these amendments the face that it shares with others.
    pub(super) fn faces(&self, places: &Int32Array) -> Int32Array {
        let inner = self.all.read();
        let face = |place: i32| {
            inner
                .list
                .get(place.cast_unsigned() as usize)
                .map(|entry| entry.face)
        };
        let faces = places.iter().map(|place| face(place?).map(u32::cast_signed));
        faces.collect()
    }

    /// What columns show of these faces; all but process ids.
    pub(super) fn of_faces(&self, faces: &[u32]) -> Vec<v1::Attribution> {
        let inner = self.all.read();
        let shown = |face: &u32| inner.face_at(*face).unwrap_or_default();
        faces.iter().map(shown).collect()
    }

    /// What columns show of these amendments.
    pub(super) fn shown(&self, places: &[u32]) -> Vec<v1::Attribution> {
        let inner = self.all.read();
        let shown = |place: &u32| inner.shown(*place).unwrap_or_default();
        places.iter().map(shown).collect()
    }

    /// Log entry and number of the event that makes an amendment.
    pub(super) fn place(&self, place: u32) -> Option<(u64, u64)> {
        let inner = self.all.read();
        inner
            .list
            .get(place as usize)
            .map(|entry| (entry.log_index, entry.seq))
    }

    /// That event's id.
    pub(super) fn event_id(&self, place: u32) -> Option<String> {
        self.place(place)
            .map(|(_, seq)| proto::json::event_id(&self.by, seq))
    }
}

/// The level of what one kernel saw at both ends: no amendment says of it who it is, only what its pod is called.
pub(super) const OBSERVED: &str = "observed";
