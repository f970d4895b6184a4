//! Which table is behind a number: what results say of their columns, and what was learnt of it.
//!
//! A result's description gives the table's oid and the column's number, never their names. The text of the same statement
//! gives names, and which columns of the result are which: so each statement that is read teaches a little. [`told`] is what one
//! statement says of its own result; [`Relations`] remembers it for those that say less. Refuses to guess: what two statements
//! say differently is forgotten.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use pg_wire::{Column, Columns, Outcome};
use sql_meaning::{Class, ObjectRef, Output, Statement};

use crate::{
    catalog::Resolution,
    event::{Query, SessionFacts},
};

/// Tables remembered of all servers: beyond, all are forgotten, and learnt anew from what comes.
const MAX_RELATIONS: usize = 16_384;

/// Columns remembered of all tables, for the same reason.
const MAX_COLUMNS: usize = 262_144;

/// Statements whose objects are at hand, so that one that is run again costs a look.
const PLACES: usize = 256;

/// A column of a result that is a column of a table, by the text of its statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// Place of the table in [`Statement::objects`].
    pub object: usize,
    /// The table's own name of the column, whatever the result calls it.
    pub column: &'a str,
}

/// What a statement's text says of the columns of its result, one for one; `None` for a computed one. Empty if the two do
/// not fit: then the text says nothing of this result.
///
/// `*` stands for all columns of its table in the order of their numbers: that is how it is told where it ends.
#[must_use]
pub fn told<'a>(statement: &'a Statement, columns: &'a [Column]) -> Vec<Option<Told<'a>>> {
    align(statement, columns).unwrap_or_default()
}

fn align<'a>(statement: &'a Statement, columns: &'a [Column]) -> Option<Vec<Option<Told<'a>>>> {
    let mut told = Vec::with_capacity(columns.len());
    for output in &statement.outputs {
        match *output {
            Output::Column { object, column } => {
                let object = usize::from(object);
                let column = statement.objects.get(object)?.columns.get(usize::from(column))?;
                told.push(Some(Told { object, column }));
            }
            Output::Other => told.push(None),
            Output::Star { object } => {
                let first = columns.get(told.len())?;
                if first.table_oid == 0 {
                    return None;
                }
                let mut number = 0;
                let rest = columns.get(told.len()..)?;
                for column in rest {
                    if column.table_oid != first.table_oid || column.attnum <= number {
                        break;
                    }
                    number = column.attnum;
                    let column = std::str::from_utf8(&column.name).ok()?;
                    told.push(Some(Told {
                        object: usize::from(object),
                        column,
                    }));
                }
                // At least one, else it is another's column that stands here.
                (number > 0).then_some(())?;
            }
        }
    }
    (told.len() == columns.len()).then_some(told)
}

/// An object that a statement touches, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// As the text names it, with the columns that `*` stands for.
    pub object: ObjectRef,
    /// Where the knowledge comes from: `sql`, `wire` or `catalog`.
    pub source: &'static str,
}

/// The statement's text.
pub const FROM_SQL: &str = "sql";

/// The description of its result, too.
pub const FROM_WIRE: &str = "wire";

/// The server's catalog: schema and kind, and the columns that `*` stands for.
pub const FROM_CATALOG: &str = "catalog";

/// What is known of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relation {
    /// Schema; `None` if no text named one.
    pub schema: Option<String>,
    /// Name.
    pub name: String,
    /// Name and oid of the type.
    columns: HashMap<i16, (String, u32)>,
}

/// Tables by their oids, of every server and database, and the objects of statements that were told before.
#[derive(Debug, Default)]
pub struct Relations {
    /// By postmaster and database.
    databases: HashMap<(u32, String), HashMap<u32, Relation>>,
    relations: usize,
    columns: usize,
    places: VecDeque<Option<Place>>,
}

/// A statement with a result that was seen with it. The references held here keep the addresses from being used anew.
#[derive(Debug)]
struct Place {
    server: u32,
    database: Option<String>,
    statement: Arc<Statement>,
    source: Option<Arc<Statement>>,
    columns: Columns,
    resolution: Option<Resolution>,
    objects: Option<Arc<[Object]>>,
}

impl Relations {
    /// A table's schema, if it is known, and name.
    #[must_use]
    pub fn by_oid(&self, server: u32, database: &str, oid: u32) -> Option<(Option<&str>, &str)> {
        let relation = self.relation(server, database, oid)?;
        Some((relation.schema.as_deref(), &relation.name))
    }

    /// The name of a table's column by its number, and the oid of its type.
    #[must_use]
    pub fn column(&self, server: u32, database: &str, oid: u32, attnum: i16) -> Option<(&str, u32)> {
        let relation = self.relation(server, database, oid)?;
        relation
            .columns
            .get(&attnum)
            .map(|(name, type_oid)| (name.as_str(), *type_oid))
    }

    fn relation(&self, server: u32, database: &str, oid: u32) -> Option<&Relation> {
        // Databases are few: no key is made for a look.
        let of = |(key, _): &(&(u32, String), &HashMap<u32, Relation>)| key.0 == server && key.1 == database;
        self.databases.iter().find(of)?.1.get(&oid)
    }

    /// Learns from a query and its result, and answers what is known of its objects beyond their text; `None` if that is
    /// nothing. `resolution` is what the catalog says of them. A query that is run again allocates nothing.
    pub(crate) fn know(
        &mut self,
        facts: &SessionFacts,
        query: &Query,
        resolution: Option<&Resolution>,
    ) -> Option<Arc<[Object]>> {
        let statement = query.statement.as_ref().filter(|_| query.text_is_whole())?;
        if statement.class == Class::Ddl && changes_names(&statement.command) {
            self.forget(facts.server_pid, facts.database.as_deref().unwrap_or_default());
        }
        let source = query.source_statement.as_ref();
        // Of EXECUTE and FETCH the result is that of what they run.
        let result = source.unwrap_or(statement);
        let is_told = !query.columns.is_empty() && !result.outputs.is_empty();
        if !is_told && resolution.is_none() {
            return None;
        }
        let at = place_of(result, facts.server_pid);
        if let Some(Some(place)) = self.places.get(at)
            && place.is_of(facts, statement, source, &query.columns)
            && place.resolution.as_ref().map(Arc::as_ptr) == resolution.map(Arc::as_ptr)
        {
            return place.objects.clone();
        }
        let told = if is_told {
            told(result, &query.columns)
        } else {
            Vec::new()
        };
        if matches!(query.outcome, Outcome::Ok | Outcome::Suspended) {
            self.learn(facts, result, &query.columns, &told);
        }
        let objects = with_stars(statement, source, &told, resolution);
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        if let Some(place) = self.places.get_mut(at) {
            *place = Some(Place {
                server: facts.server_pid,
                database: facts.database.clone(),
                statement: Arc::clone(statement),
                source: source.cloned(),
                columns: Arc::clone(&query.columns),
                resolution: resolution.cloned(),
                objects: objects.clone(),
            });
        }
        objects
    }

    fn learn(
        &mut self,
        facts: &SessionFacts,
        statement: &Statement,
        columns: &[Column],
        told: &[Option<Told<'_>>],
    ) {
        let Some(database) = &facts.database else { return };
        for (column, told) in columns.iter().zip(told) {
            let Some(told) = told.filter(|_| column.table_oid != 0 && column.attnum > 0) else {
                continue;
            };
            if let Some(object) = statement.objects.get(told.object) {
                self.note((facts.server_pid, database), column, object, told.column);
            }
        }
    }

    fn note(&mut self, of: (u32, &String), column: &Column, object: &ObjectRef, name: &str) {
        if self.relations >= MAX_RELATIONS || self.columns >= MAX_COLUMNS {
            *self = Self::default();
        }
        let known = self.databases.entry((of.0, of.1.clone())).or_default();
        let relation = known.entry(column.table_oid).or_insert_with(|| {
            self.relations += 1;
            Relation {
                schema: object.schema.clone(),
                name: object.name.clone(),
                columns: HashMap::new(),
            }
        });
        let other_schema =
            matches!((&relation.schema, &object.schema), (Some(one), Some(other)) if one != other);
        let other_column = relation
            .columns
            .get(&column.attnum)
            .is_some_and(|(known, _)| known != name);
        if relation.name != object.name || other_schema || other_column {
            // Renamed, perhaps: what was known may be wrong, and what is said now may be, too.
            let lost = known
                .remove(&column.table_oid)
                .map_or(0, |relation| relation.columns.len());
            self.columns = self.columns.saturating_sub(lost);
            self.relations = self.relations.saturating_sub(1);
            return;
        }
        if relation.schema.is_none() {
            relation.schema.clone_from(&object.schema);
        }
        if relation
            .columns
            .insert(column.attnum, (name.to_owned(), column.type_oid))
            .is_none()
        {
            self.columns += 1;
        }
    }

    /// A server has ended: its oids mean nothing any longer.
    pub(crate) fn drop_server(&mut self, server: u32) {
        let databases: Vec<String> = self
            .databases
            .keys()
            .filter(|(of, _)| *of == server)
            .map(|(_, database)| database.clone())
            .collect();
        for database in databases {
            self.forget(server, &database);
        }
    }

    /// Names of this database have changed.
    pub(crate) fn forget(&mut self, server: u32, database: &str) {
        if let Some(known) = self.databases.remove(&(server, database.to_owned())) {
            self.relations = self.relations.saturating_sub(known.len());
            let columns: usize = known.values().map(|relation| relation.columns.len()).sum();
            self.columns = self.columns.saturating_sub(columns);
        }
        self.places.clear();
    }
}

impl Place {
    fn is_of(
        &self,
        facts: &SessionFacts,
        statement: &Arc<Statement>,
        source: Option<&Arc<Statement>>,
        columns: &Columns,
    ) -> bool {
        let same_source = match (&self.source, source) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same_source
            && self.server == facts.server_pid
            && Arc::ptr_eq(&self.statement, statement)
            && self.database == facts.database
            && (Arc::ptr_eq(&self.columns, columns) || self.columns == *columns)
    }
}

fn place_of(statement: &Arc<Statement>, server: u32) -> usize {
    let address = Arc::as_ptr(statement) as usize;
    (address >> 6 ^ address >> 14 ^ usize::try_from(server).unwrap_or(0)) % PLACES
}

/// Whether a command may give other names to what is there.
fn changes_names(command: &str) -> bool {
    command.starts_with("ALTER ") || command.starts_with("DROP ")
}

/// The objects with what the catalog says of them, and with the columns that `*` stands for; `None` if there is nothing of
/// either.
fn with_stars(
    statement: &Statement,
    source: Option<&Arc<Statement>>,
    told: &[Option<Told<'_>>],
    resolution: Option<&Resolution>,
) -> Option<Arc<[Object]>> {
    let own = source.map_or(0, |_| statement.objects.len());
    let of_source = source.iter().flat_map(|source| &source.objects);
    let mut objects: Vec<Object> = statement
        .objects
        .iter()
        .chain(of_source)
        .map(|object| Object {
            object: object.clone(),
            source: FROM_SQL,
        })
        .collect();
    let mut any = false;
    let mut missing: HashMap<usize, Vec<&str>> = HashMap::new();
    for (at, resolved) in resolution.into_iter().flat_map(|all| all.iter()).enumerate() {
        let (Some(object), Some(resolved)) = (objects.get_mut(at), resolved) else {
            continue;
        };
        object.object.schema = Some(resolved.schema.to_string());
        object.object.kind = resolved.kind.unwrap_or(object.object.kind);
        object.source = FROM_CATALOG;
        any = true;
        if object.object.star && !resolved.columns.is_empty() {
            missing.insert(at, resolved.columns.iter().map(String::as_str).collect());
        }
    }
    let by_catalog: Vec<usize> = missing.keys().copied().collect();
    for told in told.iter().flatten() {
        let at = own + told.object;
        if !by_catalog.contains(&at) {
            missing.entry(at).or_default().push(told.column);
        }
    }
    for (at, object) in objects
        .iter_mut()
        .enumerate()
        .filter(|(_, object)| object.object.star)
    {
        let Some(names) = missing.get(&at) else { continue };
        let mut columns: Vec<String> = Vec::with_capacity(names.len());
        // In the order of the table, then what else the text names.
        let known = names
            .iter()
            .copied()
            .chain(object.object.columns.iter().map(String::as_str));
        let mut seen = std::collections::HashSet::new();
        for name in known {
            if seen.insert(name) {
                columns.push(name.to_owned());
            }
        }
        object.object.columns = columns;
        if object.source == FROM_SQL {
            object.source = FROM_WIRE;
        }
        any = true;
    }
    any.then(|| objects.into())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sql_meaning::Interpreter;

    use super::*;

    fn column(name: &'static str, table_oid: u32, attnum: i16) -> Column {
        Column {
            name: Bytes::from_static(name.as_bytes()),
            table_oid,
            attnum,
            type_oid: 23,
            format: pg_wire::Format::Text,
        }
    }

    /// What is told of a result, as `table.column` or `-`.
    fn said(sql: &str, columns: &[Column]) -> String {
        let statement = Interpreter::new(1).interpret(sql.as_bytes());
        let one = |told: &Option<Told<'_>>| match told {
            Some(told) => format!("{}.{}", statement.objects[told.object].name, told.column),
            None => "-".to_owned(),
        };
        told(&statement, columns)
            .iter()
            .map(one)
            .collect::<Vec<_>>()
            .join(" ")
    }

    const T: u32 = 100;
    const U: u32 = 200;

    #[test]
    fn a_result_is_told_by_its_text() {
        let t = || [column("id", T, 1), column("b", T, 2), column("d", T, 4)];
        let u = || [column("id", U, 1), column("x", U, 3)];
        let all = |parts: &[&[Column]]| parts.concat();
        for (sql, columns, expected) in [
            (
                "SELECT id, b AS z FROM t",
                all(&[&[column("id", T, 1), column("z", T, 2)]]),
                "t.id t.b",
            ),
            ("SELECT * FROM t", all(&[&t()]), "t.id t.b t.d"),
            (
                "SELECT *, 1 FROM t",
                all(&[&t(), &[column("?column?", 0, 0)]]),
                "t.id t.b t.d -",
            ),
            (
                "SELECT lower(b), * FROM t",
                all(&[&[column("lower", 0, 0)], &t()]),
                "- t.id t.b t.d",
            ),
            // Where one ends and the next begins.
            ("SELECT * FROM t, u", all(&[&t(), &u()]), "t.id t.b t.d u.id u.x"),
            (
                "SELECT t.*, d FROM t",
                all(&[&t(), &[column("d", T, 4)]]),
                "t.id t.b t.d t.d",
            ),
            (
                "SELECT a.*, b.* FROM t a, t b",
                all(&[&t(), &t()]),
                "t.id t.b t.d t.id t.b t.d",
            ),
            (
                "SELECT * FROM t JOIN u USING (id)",
                all(&[&[
                    column("id", T, 1),
                    column("b", T, 2),
                    column("d", T, 4),
                    column("x", U, 3),
                ]]),
                "- t.b t.d u.x",
            ),
            (
                "SELECT x.* FROM (SELECT * FROM t) x",
                all(&[&t()]),
                "t.id t.b t.d",
            ),
            (
                "SELECT y FROM (SELECT b AS y FROM t) x",
                all(&[&[column("y", T, 2)]]),
                "t.b",
            ),
            (
                "INSERT INTO t (id) VALUES (1) RETURNING *",
                all(&[&t()]),
                "t.id t.b t.d",
            ),
            // What does not fit says nothing.
            ("SELECT id, b FROM t", all(&[&[column("id", T, 1)]]), ""),
            ("SELECT id FROM t", all(&[&t()]), ""),
            ("SELECT * FROM t, u", all(&[&t()]), ""),
            ("SELECT * FROM t", all(&[&[column("id", 0, 0)]]), ""),
            // Columns with other names than the table's.
            ("SELECT * FROM t AS x (p, q)", all(&[&t()]), ""),
            ("SELECT * FROM f(1)", all(&[&t()]), ""),
            ("SELECT * FROM t UNION SELECT * FROM u", all(&[&t()]), ""),
        ] {
            assert_eq!(said(sql, &columns), expected, "{sql}");
        }
    }

    fn facts(database: &str) -> SessionFacts {
        let fact = ebpf_abi::SocketFact {
            kind: 0,
            tgid: 1,
            at: 0,
            cookie: 1,
            server: 7,
            netns: 0,
            family: 2,
            local_port: 5432,
            remote_port: 0,
            role: 0,
            flags: 0,
            local: [0; 16],
            remote: [0; 16],
            peer: ebpf_abi::PeerProcess::default(),
            sequence: 0,
            answer: 0,
            client_inode: 0,
            path_length: 0,
            path: [0; ebpf_abi::UNIX_PATH_MAX],
        };
        SessionFacts {
            database: Some(database.to_owned()),
            ..crate::session_facts(&fact)
        }
    }

    fn learn(relations: &mut Relations, facts: &SessionFacts, sql: &str, columns: &[Column]) {
        let statement = Interpreter::new(1).interpret(sql.as_bytes());
        relations.learn(facts, &statement, columns, &told(&statement, columns));
    }

    #[test]
    fn what_was_learnt_is_known_until_something_else_is_said() {
        let mut relations = Relations::default();
        let shop = facts("shop");
        learn(&mut relations, &shop, "SELECT b FROM t", &[column("b", T, 2)]);
        assert_eq!(relations.by_oid(7, "shop", T), Some((None, "t")));
        assert_eq!(relations.by_oid(7, "other", T), None);
        assert_eq!(relations.by_oid(8, "shop", T), None);
        learn(
            &mut relations,
            &shop,
            "SELECT d AS e FROM s.t",
            &[column("e", T, 4)],
        );
        assert_eq!(relations.by_oid(7, "shop", T), Some((Some("s"), "t")));
        assert_eq!(relations.column(7, "shop", T, 2), Some(("b", 23)));
        assert_eq!(relations.column(7, "shop", T, 4), Some(("d", 23)));
        assert_eq!(relations.column(7, "shop", T, 3), None);
        // Another name for the same number.
        learn(
            &mut relations,
            &shop,
            "SELECT b FROM renamed",
            &[column("b", T, 2)],
        );
        assert_eq!(relations.by_oid(7, "shop", T), None);
        assert_eq!((relations.relations, relations.columns), (0, 0));
        learn(
            &mut relations,
            &shop,
            "SELECT b FROM renamed",
            &[column("b", T, 2)],
        );
        learn(
            &mut relations,
            &shop,
            "SELECT c FROM renamed",
            &[column("c", T, 2)],
        );
        assert_eq!(relations.by_oid(7, "shop", T), None);
        learn(
            &mut relations,
            &shop,
            "SELECT c FROM renamed",
            &[column("c", T, 2)],
        );
        relations.forget(7, "shop");
        assert_eq!(relations.by_oid(7, "shop", T), None);
        assert_eq!((relations.relations, relations.columns), (0, 0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut relations = Relations::default();
        let shop = facts("shop");
        for oid in 1..40_000 {
            learn(&mut relations, &shop, "SELECT b FROM t", &[column("b", oid, 2)]);
            assert!(relations.relations <= MAX_RELATIONS && relations.columns <= MAX_COLUMNS);
        }
        assert_eq!(relations.by_oid(7, "shop", 39_999), Some((None, "t")));
    }
}
