//! What the objects of one statement are, by what was looked up and what its answer shows.
//!
//! Three ways, of which each is sure by itself. The result's columns have the table's oid: the server's own word. The name
//! stands for one object in all of the database, and the statement ran: then it was that one, wherever the session looked. And
//! the session's `search_path` leads to it. Where none is sure, the object stays as the text has it.

use std::{collections::HashMap, sync::Arc};

use pg_wire::{Columns, Nanos};
use sql_meaning::{Access, ObjectRef, Statement};

use super::{Known, Names, names::Found, path::Sight};
use crate::relations::{Told, told};

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Its schema.
    pub(crate) schema: Arc<str>,
    /// What it is called: `view`, `partition`, … Of functions `None`.
    pub(crate) kind: Option<&'static str>,
    /// All of its columns, where `*` stands for them.
    pub(crate) columns: Vec<String>,
}

/// One for each object of a statement, then of what it runs; `None`: not known.
pub(crate) type Resolution = Arc<[Option<Resolved>]>;

/// A statement that is asked about.
pub(crate) struct Asking<'a> {
    /// Postmaster, database and cookie of its session.
    pub(crate) server: u32,
    pub(crate) database: &'a str,
    pub(crate) session: u64,
    /// When its request began.
    pub(crate) since: Nanos,
    pub(crate) statement: &'a Arc<Statement>,
    /// Of an EXECUTE or FETCH what that runs.
    pub(crate) source: Option<&'a Arc<Statement>>,
    pub(crate) columns: &'a Columns,
    /// It ran, so that all of its names were found.
    pub(crate) ran: bool,
    /// Nothing but the oids of its result tells of its tables: it was begun before, or its session may have tables of its own.
    pub(crate) only_oids: bool,
    /// How its session looks for names, if that is known, and was as it is when the statement was parsed.
    pub(crate) sight: Option<&'a Arc<Sight>>,
}

/// Statements whose objects are at hand, so that one that is run again costs a look.
const PLACES: usize = 256;

/// Ways to look for names that are kept: a path and a role each.
const MAX_SIGHTS: usize = 1_024;

/// What was resolved, as long as the catalog says what it said then.
#[derive(Default)]
pub(super) struct Cache {
    places: Vec<Option<Place>>,
    /// By the address of the names, which they hold, and the role.
    sights: HashMap<(usize, Option<Box<str>>), Vec<Looked>>,
    kept: usize,
}

/// A path, and where it leads.
struct Looked {
    path: Box<str>,
    /// `None`: it is no path.
    sight: Option<Arc<Sight>>,
    _names: Arc<Names>,
}

/// A statement that was asked about. The references held here keep the addresses from being used anew.
struct Place {
    names: Arc<Names>,
    statement: Arc<Statement>,
    source: Option<Arc<Statement>>,
    columns: Columns,
    ran: bool,
    only_oids: bool,
    sight: Option<Arc<Sight>>,
    resolution: Option<Resolution>,
}

impl Cache {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn sight(&mut self, known: &Known, path: &str, role: Option<&str>) -> Option<Arc<Sight>> {
        let key = (Arc::as_ptr(&known.names) as usize, role.map(Box::from));
        if self.kept >= MAX_SIGHTS {
            self.sights.clear();
            self.kept = 0;
        }
        let same = self.sights.entry(key).or_default();
        if let Some(looked) = same.iter().find(|looked| *looked.path == *path) {
            return looked.sight.clone();
        }
        let sight = Sight::new(&known.names, path, role).map(Arc::new);
        same.push(Looked {
            path: path.into(),
            sight: sight.clone(),
            _names: Arc::clone(&known.names),
        });
        self.kept += 1;
        sight
    }

    pub(super) fn resolve(&mut self, known: &Known, asking: &Asking<'_>) -> Option<Resolution> {
        if asking.statement.objects.is_empty() && asking.source.is_none() {
            return None;
        }
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let address = Arc::as_ptr(asking.statement) as usize;
        let at = (address >> 6 ^ address >> 14) % PLACES;
        if let Some(Some(place)) = self.places.get(at)
            && place.is_of(known, asking)
        {
            return place.resolution.clone();
        }
        let resolution = resolution(&known.names, asking);
        if let Some(place) = self.places.get_mut(at) {
            *place = Some(Place {
                names: Arc::clone(&known.names),
                statement: Arc::clone(asking.statement),
                source: asking.source.cloned(),
                columns: Arc::clone(asking.columns),
                ran: asking.ran,
                only_oids: asking.only_oids,
                sight: asking.sight.cloned(),
                resolution: resolution.clone(),
            });
        }
        resolution
    }
}

impl Place {
    fn is_of(&self, known: &Known, asking: &Asking<'_>) -> bool {
        Arc::ptr_eq(&self.names, &known.names)
            && Arc::ptr_eq(&self.statement, asking.statement)
            && same(self.source.as_ref(), asking.source)
            && same(self.sight.as_ref(), asking.sight)
            && (self.ran, self.only_oids) == (asking.ran, asking.only_oids)
            && (Arc::ptr_eq(&self.columns, asking.columns) || self.columns == *asking.columns)
    }
}

fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

fn resolution(names: &Names, asking: &Asking<'_>) -> Option<Resolution> {
    let result = asking.source.unwrap_or(asking.statement);
    let columns = told(result, asking.columns);
    let of = |statement: &Statement, is_result: bool| {
        let oid = |place: usize| match is_result {
            true => oid_of(place, &columns, asking),
            false => Oid::None,
        };
        let one = |(place, object): (usize, &ObjectRef)| {
            let oid = oid(place);
            resolved(names, statement, object, oid, asking)
        };
        statement.objects.iter().enumerate().map(one).collect::<Vec<_>>()
    };
    let mut found = of(asking.statement, asking.source.is_none());
    if let Some(source) = asking.source {
        found.extend(of(source, true));
    }
    found.iter().any(Option::is_some).then(|| found.into())
}

/// What a result says of an object.
enum Oid {
    None,
    /// The table's.
    One(u32),
    /// Columns of one object are of several tables: then the text does not fit its result.
    Several,
}

fn oid_of(place: usize, columns: &[Option<Told<'_>>], asking: &Asking<'_>) -> Oid {
    let mut found = Oid::None;
    for (column, told) in asking.columns.iter().zip(columns) {
        if told.as_ref().is_some_and(|told| told.object == place) {
            found = match found {
                Oid::None => Oid::One(column.table_oid),
                Oid::One(oid) if oid == column.table_oid => Oid::One(oid),
                _ => return Oid::Several,
            };
        }
    }
    found
}

fn resolved(
    names: &Names,
    statement: &Statement,
    object: &ObjectRef,
    oid: Oid,
    asking: &Asking<'_>,
) -> Option<Resolved> {
    if object.kind == FUNCTION && object.access == Access::Execute {
        let sure = asking.ran && !asking.only_oids && statement.parsed && object.schema.is_none();
        let schema = names.function(&object.name).filter(|_| sure)?;
        return Some(Resolved {
            schema: Arc::clone(names.schema_name(schema)?),
            kind: None,
            columns: Vec::new(),
        });
    }
    if object.kind != TABLE || !matches!(object.access, Access::Read | Access::Write) {
        return None;
    }
    let found = match oid {
        Oid::One(oid) => names.relation(oid).filter(|found| *found.name == *object.name)?,
        Oid::Several => return None,
        Oid::None => by_name(names, statement, object, asking)?,
    };
    let schema = names.schema_name(found.schema)?;
    let as_written = object
        .schema
        .as_deref()
        .is_none_or(|written| *written == **schema);
    if names.is_of_session(found) || !as_written {
        return None;
    }
    let columns = found.columns.iter().filter(|_| object.star);
    Some(Resolved {
        schema: Arc::clone(schema),
        kind: Some(found.kind()?),
        columns: columns.map(ToString::to_string).collect(),
    })
}

fn by_name<'a>(
    names: &'a Names,
    statement: &Statement,
    object: &ObjectRef,
    asking: &Asking<'_>,
) -> Option<&'a Found> {
    if let Some(schema) = &object.schema {
        return names
            .in_schema(names.schema(schema)?, &object.name)
            .filter(|_| !asking.only_oids);
    }
    let is_read = statement.parsed || UTILITIES.contains(&statement.command.as_str());
    if asking.only_oids || !is_read || names.is_temporary(&object.name) {
        return None;
    }
    let mut same = names.named(&object.name).map(|(_, found)| found);
    let first = same.next()?;
    if asking.ran && same.next().is_none() {
        return Some(first);
    }
    asking.sight?.find(names, &object.name)
}

/// How `sql-meaning` calls what has rows, and what is called.
const TABLE: &str = "table";
const FUNCTION: &str = "function";

/// Commands whose objects the tokens tell for sure.
const UTILITIES: [&str; 3] = ["COPY", "TRUNCATE TABLE", "LOCK TABLE"];
