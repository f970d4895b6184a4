//! Whose records a statement touched: the values of identifying columns that it named, wrote or got back, as tokens.
//!
//! Owns the decision which values are whose, and when they are all. Values of parameters and rows come from the protocol, of
//! literals from the text; what they are compared with is told by `sql-meaning`. A value whose column is not sure is
//! nobody's: a wrong name is worse than one that is missing, and what is missing is said by `complete`.

mod copied;
mod operand;
mod params;
mod returned;

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use pg_wire::{Column, CopyOf, Outcome, Param, Phase, RowsOf, StatementResult};
use sql_meaning::{Access, Backslash, Interpreter, Statement, ValueRole};
use subjects::{Classification, Family, Key, SubjectColumn, Token, Tokens};

pub use params::{ParamTold, Shown};

use self::operand::Values;
use crate::{
    catalog::Resolved,
    relations::{Told, told},
};

/// What is sensitive, and with which key tokens are made.
#[derive(Clone, Debug)]
pub struct Sensitive {
    /// Which columns are.
    pub classification: Classification,
    /// The key in use.
    pub key: Key,
}

/// What a query says of sensitive columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Whose records it touched, one for each identifying column of its objects, in their order.
    pub subjects: Vec<Subject>,
    /// Of its parameters those that stand against classified columns, in their order.
    pub params: Vec<ParamTold>,
}

/// The values of one identifying column.
#[derive(Clone, PartialEq, Eq)]
pub struct Subject {
    /// The object and the column as the classification names them.
    pub of: Arc<SubjectColumn>,
    /// Id of the key.
    pub key: Arc<str>,
    /// Tokens, or a filter of them.
    pub told: subjects::Told,
    /// All records of the object that the statement touched are among these.
    pub complete: bool,
    /// Where the values come from.
    pub sources: Sources,
}

/// Where values come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The statement compares the column with them.
    pub predicate: bool,
    /// It inserts or assigns them.
    pub written: bool,
    /// They came back in rows.
    pub returned: bool,
}

impl Sources {
    /// As events name them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let Self {
            predicate,
            written,
            returned,
        } = self;
        [
            (predicate, "predicate"),
            (written, "written"),
            (returned, "returned"),
        ]
        .into_iter()
        .filter_map(|(is, name)| is.then_some(name))
    }
}

/// Looks for values of classified columns.
pub(crate) struct Watch {
    sensitive: Sensitive,
    key: Arc<str>,
    /// The identifying columns, shared with the events.
    subjects: Vec<Arc<SubjectColumn>>,
    rows_of: RowsOf,
    copy_of: CopyOf,
    /// Statements of which it is known whether they name anything classified, by where they lie in memory. What is kept
    /// here cannot be another one at the same place.
    known: Vec<Option<(Arc<Statement>, bool)>>,
}

/// Statements that are known at once; each is kept in memory for as long.
const KNOWN: usize = 256;

/// One statement and what belongs to it.
pub(crate) struct Asked<'a> {
    /// What runs: of an EXECUTE or FETCH what that runs.
    pub(crate) statement: &'a Statement,
    /// Its text as sent, where it is known and not shared with others.
    pub(crate) text: Option<&'a [u8]>,
    /// What was bound to it.
    pub(crate) params: &'a [Param],
    /// It does not run yet: what PREPARE and DECLARE keep touches records when EXECUTE and FETCH come.
    pub(crate) is_kept_for_later: bool,
    /// The text of the EXECUTE that gives it its parameters.
    pub(crate) executes: Option<&'a [u8]>,
    pub(crate) result: &'a StatementResult,
    pub(crate) phase: Phase,
    /// How the session reads a backslash.
    pub(crate) backslash: Backslash,
    /// Nothing was converted from the client's encoding.
    pub(crate) plain: bool,
    /// What its objects are, by the server's catalog.
    pub(crate) resolution: &'a [Option<Resolved>],
    /// Of the session, if it is known.
    pub(crate) database: Option<&'a str>,
}

impl Asked<'_> {
    /// The schema of an object: as the text has it, else as the catalog does; without either it is taken for `public`.
    fn schema(&self, place: usize) -> &str {
        let written = self.statement.objects.get(place);
        let written = written.and_then(|object| object.schema.as_deref());
        let resolved = || Some(&*self.resolution.get(place)?.as_ref()?.schema);
        written.or_else(resolved).unwrap_or(PUBLIC)
    }

    /// Whether the text names this object, to read or change its rows.
    fn is_of(&self, place: usize, subject: &SubjectColumn) -> bool {
        self.statement
            .objects
            .get(place)
            .is_some_and(|object| may_be(object, subject))
            && self.schema(place) == subject.schema
            && subject
                .database
                .as_deref()
                .is_none_or(|of| self.database == Some(of))
    }
}

impl Watch {
    pub(crate) fn new(sensitive: &Sensitive) -> Self {
        let subjects: Vec<Arc<SubjectColumn>> = sensitive
            .classification
            .all_subjects()
            .cloned()
            .map(Arc::new)
            .collect();
        let wanted = subjects.clone();
        let copy_of = move |text: &[u8]| {
            let text = std::str::from_utf8(text).ok()?;
            if !wanted.iter().any(|subject| names(text.as_bytes(), &subject.name)) {
                return None;
            }
            // A copy is rare, and long.
            let statement = Interpreter::new(1).interpret(text.as_bytes());
            let is_wanted = |told: &Told<'_>| {
                wanted
                    .iter()
                    .any(|subject| may_be_column(&statement, told, subject))
            };
            copied::wanted(text, &statement, is_wanted)
        };
        let wanted = subjects.clone();
        let reader = Mutex::new(Interpreter::new(KNOWN));
        let rows_of = move |text: Option<&[u8]>, columns: &[Column]| {
            let text = text.filter(|text| wanted.iter().any(|subject| names(text, &subject.name)));
            let (Some(text), Ok(mut reader)) = (text, reader.lock()) else {
                return Vec::new();
            };
            let statement = reader.interpret(text);
            let is_wanted = |told: &Told<'_>| {
                wanted
                    .iter()
                    .any(|subject| may_be_column(&statement, told, subject))
            };
            (0..)
                .zip(told(&statement, columns))
                .filter(|(_, told)| told.as_ref().is_some_and(is_wanted))
                .map(|(index, _)| index)
                .collect()
        };
        Self {
            key: Arc::from(sensitive.key.id()),
            sensitive: sensitive.clone(),
            subjects,
            rows_of: Arc::new(rows_of),
            copy_of: Arc::new(copy_of),
            known: vec![None; KNOWN],
        }
    }

    /// Which columns of results are kept.
    pub(crate) fn rows_of(&self) -> RowsOf {
        Arc::clone(&self.rows_of)
    }

    /// Which columns of copied data are kept.
    pub(crate) fn copy_of(&self) -> CopyOf {
        Arc::clone(&self.copy_of)
    }

    /// What a statement touched. `None`: nothing that is classified.
    pub(crate) fn touched(&mut self, statement: &Arc<Statement>, asked: &Asked<'_>) -> Option<Box<Touched>> {
        if !self.names_classified(statement) {
            return None;
        }
        let values = Values::new(asked);
        let touched = Touched {
            subjects: self
                .subjects
                .iter()
                .filter_map(|subject| self.subject(subject, asked, &values))
                .collect(),
            params: params::told(&self.sensitive, asked, &values),
        };
        (touched != Touched::default()).then(|| Box::new(touched))
    }

    /// Whether a statement names any object that is classified. Most do not, and are asked about often.
    fn names_classified(&mut self, statement: &Arc<Statement>) -> bool {
        let classification = &self.sensitive.classification;
        let read = || {
            statement.objects.iter().any(|object| {
                object.kind == TABLE
                    && classification.may_be_sensitive(object.schema.as_deref(), &object.name)
            })
        };
        let address = Arc::as_ptr(statement) as usize;
        let Some(place) = self.known.get_mut((address >> 4 ^ address >> 12) % KNOWN) else {
            return read();
        };
        if let Some((known, named)) = place
            && Arc::ptr_eq(known, statement)
        {
            return *named;
        }
        let named = read();
        *place = Some((Arc::clone(statement), named));
        named
    }

    /// What a statement touched by one identifying column; `None` if it did not touch its object.
    fn subject(&self, of: &Arc<SubjectColumn>, asked: &Asked<'_>, values: &Values<'_>) -> Option<Subject> {
        let statement = asked.statement;
        let places: Vec<usize> = (0..statement.objects.len())
            .filter(|&place| asked.is_of(place, of))
            .collect();
        if places.is_empty() {
            return None;
        }
        let mut gathered = Gathered {
            watch: self,
            family: of.family,
            tokens: Tokens::default(),
            sources: Sources::default(),
        };
        // Every place where the object is used is bound to values of the column, and each of these has a token.
        let mut complete = places.iter().all(|&place| {
            let bound = statement.objects.get(place).map(|object| &object.bound);
            bound.is_some_and(|columns| columns.contains(&of.column))
        });
        for used in &statement.values {
            if !places.contains(&used.object) || used.column != of.column {
                continue;
            }
            let read = values.of(used, of.family);
            complete &= read.is_some();
            for canonical in read.into_iter().flatten() {
                gathered.add(&canonical);
                match used.role {
                    ValueRole::Written => gathered.sources.written = true,
                    ValueRole::Restricts | ValueRole::Compared => gathered.sources.predicate = true,
                }
            }
        }
        complete |= returned::add(of, asked, &mut gathered);
        let Gathered { tokens, sources, .. } = gathered;
        // What failed before it ran touched nothing but what it tried; what is kept for later is told when it runs.
        let ran = !matches!(asked.phase, Phase::Parse | Phase::Bind)
            && asked.result.outcome != Outcome::Error
            && !asked.is_kept_for_later;
        // And what surely touched no record needs no word.
        if tokens.is_empty() && (complete || !ran) {
            return None;
        }
        let told = tokens.told();
        Some(Subject {
            of: Arc::clone(of),
            key: Arc::clone(&self.key),
            complete: complete && !told.left_out,
            told,
            sources,
        })
    }
}

/// What is found of one identifying column.
struct Gathered<'a> {
    watch: &'a Watch,
    family: Family,
    tokens: Tokens,
    sources: Sources,
}

impl Gathered<'_> {
    fn add(&mut self, canonical: &[u8]) -> Token {
        let token = self.watch.sensitive.key.token(self.family, canonical);
        self.tokens.insert(token);
        token
    }
}

/// How `sql-meaning` calls what has rows.
const TABLE: &str = "table";
/// The schema of objects that are named without one.
const PUBLIC: &str = "public";

/// Whether the text may name this object, to read or change its rows.
fn may_be(object: &sql_meaning::ObjectRef, subject: &SubjectColumn) -> bool {
    object.kind == TABLE
        && matches!(object.access, Access::Read | Access::Write)
        && object.name == subject.name
        && object
            .schema
            .as_deref()
            .is_none_or(|schema| schema == subject.schema)
}

/// Whether a column of a result may be this one.
fn may_be_column(statement: &Statement, told: &Told<'_>, subject: &SubjectColumn) -> bool {
    told.column == subject.column
        && statement
            .objects
            .get(told.object)
            .is_some_and(|object| may_be(object, subject))
}

/// Whether a text may name an object: a look at its letters, so that others need not be read.
fn names(text: &[u8], name: &str) -> bool {
    let name = name.as_bytes();
    text.windows(name.len().max(1))
        .any(|window| window.eq_ignore_ascii_case(name))
}

/// Without tokens: with their key they can be guessed.
impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("object", &self.of.object)
            .field("column", &self.of.column)
            .field("tokens", &self.told.tokens.len())
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}
