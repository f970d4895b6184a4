//! A connection from a pooler to a server, of which both ends are told: what the pooler did with it, and the statements that
//! came over it.

use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
    sync::Arc,
};

use compact_str::CompactString;
use datafusion::common::HashMap;
use lease::{Asked, Decision, Kind, Portion, Traffic, decide};
use proto::v1;
use record::Weighed;

/// A statement, as the server's host told of it.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) seq: u64,
    pub(super) request: Range<u64>,
    pub(super) response_to: Option<u64>,
    pub(super) simple: bool,
    /// When it was taken in here.
    pub(super) arrived: u64,
}

/// The server's end: whose session it is.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) agent: Arc<str>,
    /// Of the event that told of it first.
    pub(super) seq: u64,
    pub(super) party: Arc<Weighed<v1::Party>>,
}

/// The pooler's end.
#[derive(Debug)]
pub(super) struct Pooler {
    pub(super) agent: Arc<str>,
    pub(super) connection: CompactString,
    /// The pooler's own attribution, encoded, as the newest portion had it.
    pub(super) attribution: Arc<[u8]>,
    told: Told,
    names: Vec<CompactString>,
    numbers: HashMap<CompactString, u64>,
}

/// What was told of a pooler's end, in portions, and what that is together. A decision rests on the last portion that begins
/// before its statement and on all behind it, and on nothing else: so it can be made again.
#[derive(Debug, Default)]
pub(in crate::join) struct Told {
    kind: Kind,
    portions: VecDeque<(u64, Portion)>,
    /// Those put together.
    whole: Option<(Traffic, HashSet<u64>)>,
    pieces: usize,
}

/// Both.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) pooler: Option<Pooler>,
    pub(super) backend: Option<Backend>,
    pub(super) waiting: VecDeque<Statement>,
    /// More than one lays claim to an end: nothing is said of it.
    pub(super) contested: bool,
    /// Something was said of its statements.
    pub(super) told: bool,
    pub(super) due: bool,
}

impl Backend {
    pub(super) fn session(&self) -> &str {
        self.party.session.as_ref().map_or("", |session| &session.id)
    }
}

impl Statement {
    pub(super) fn asked(&self, last: bool) -> Asked {
        Asked {
            request: self.request.clone(),
            response_to: self.response_to,
            began: 0,
            simple: self.simple,
            last,
        }
    }
}

impl Pooler {
    pub(super) fn new(agent: &Arc<str>, connection: &str) -> Self {
        Self {
            agent: Arc::clone(agent),
            connection: connection.into(),
            attribution: Arc::default(),
            told: Told::default(),
            names: Vec::new(),
            numbers: HashMap::default(),
        }
    }

    /// Takes in what an event says; false if that is no portion.
    pub(super) fn absorb(&mut self, seq: u64, of: &v1::PoolerTraffic, attribution: Arc<[u8]>) -> bool {
        if self.names.len() > CLIENTS {
            // Their numbers are in what is known: all of it goes.
            *self = Self::new(&self.agent, &self.connection);
        }
        let (names, numbers) = (&mut self.names, &mut self.numbers);
        let number = |session: &str| {
            *numbers.entry(session.into()).or_insert_with(|| {
                names.push(session.into());
                (names.len() - 1) as u64
            })
        };
        let Some(portion) = attribution::portion(of, number) else {
            return false;
        };
        self.attribution = attribution;
        self.told.push(seq, Kind::named(&of.program), portion);
        true
    }

    /// Memory behind it, in pieces.
    pub(super) fn pieces(&self) -> usize {
        self.told.pieces + self.names.len()
    }

    pub(super) fn decide(&mut self, asked: &Asked) -> Decision {
        self.told.decide(asked)
    }

    /// The session of a client that a decision names.
    pub(super) fn session(&self, client: u64) -> &str {
        let name = usize::try_from(client)
            .ok()
            .and_then(|place| self.names.get(place));
        name.map_or("", |name| name)
    }

    /// Numbers of the events that the newest decision rests on.
    pub(super) fn inputs(&self) -> impl Iterator<Item = u64> {
        self.told.portions.iter().map(|(seq, _)| *seq)
    }
}

impl Told {
    /// Puts a portion behind the others.
    pub(in crate::join) fn push(&mut self, seq: u64, kind: Kind, portion: Portion) {
        self.kind = kind;
        self.pieces += size(&portion);
        if let Some((traffic, ended)) = &mut self.whole {
            traffic.absorb(&portion);
            ended.extend(&portion.ended);
        }
        self.portions.push_back((seq, portion));
        if self.portions.len() > PORTIONS {
            self.drop_first(1);
        }
    }

    /// Whose a statement is, to be asked in the order of the stream.
    pub(in crate::join) fn decide(&mut self, asked: &Asked) -> Decision {
        let begins = |(_, portion): &(u64, Portion)| portion.begins_before(asked);
        self.drop_first(self.portions.iter().rposition(begins).unwrap_or_default());
        let (traffic, ended) = self.whole.get_or_insert_with(|| {
            let (mut traffic, mut ended) = (Traffic::default(), HashSet::new());
            for (_, portion) in &self.portions {
                traffic.absorb(portion);
                ended.extend(&portion.ended);
            }
            (traffic, ended)
        });
        decide(self.kind, traffic, |client| !ended.contains(&client), asked)
    }

    fn drop_first(&mut self, count: usize) {
        for (_, portion) in self.portions.drain(..count) {
            self.pieces -= size(&portion);
            self.whole = None;
        }
    }
}

fn size(portion: &Portion) -> usize {
    1 + portion.written.len() + portion.passed.len() + portion.ended.len()
}

/// Portions of a connection that wait for statements: more than an hour's.
const PORTIONS: usize = 4_096;

/// Clients that one server connection had.
const CLIENTS: usize = 65_536;
