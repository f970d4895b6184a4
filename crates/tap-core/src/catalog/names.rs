//! What one look at a database's catalog found, in the form in which it is asked: plain data in, look-ups out.
//!
//! Refuses what is too much: each list has a limit, and a catalog beyond one is not used at all, because what is left out would
//! be looked for elsewhere.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Tables, views, sequences and indexes of a database: some 100 bytes each are kept.
pub const MAX_RELATIONS: usize = 131_072;
/// Columns of all of them: some 40 bytes each. Beyond, none are known.
pub const MAX_COLUMNS: usize = 524_288;
/// Functions, by schema and name.
pub const MAX_FUNCTIONS: usize = 65_536;
/// Schemas.
pub const MAX_SCHEMAS: usize = 16_384;
/// Roles of the server.
pub const MAX_ROLES: usize = 65_536;
/// Roles that may use a schema which not everybody may use.
pub const MAX_GRANTS: usize = 262_144;
/// Settings of `search_path` for roles and databases.
pub const MAX_PATHS: usize = 16_384;
/// Bytes of a name: 63, unless the server was built otherwise (`NAMEDATALEN`).
pub const MAX_NAME_BYTES: usize = 255;

/// A schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Everybody may use what is in it.
    pub public: bool,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// It may use everything.
    pub superuser: bool,
}

/// A table, or what has a name among tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its oid.
    pub oid: u32,
    /// Oid of its schema.
    pub schema: u32,
    /// Its name.
    pub name: String,
    /// `relkind` of the manual's `pg_class`.
    pub kind: char,
    /// It is a partition of another one.
    pub partition: bool,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Oid of its table.
    pub relation: u32,
    /// Its number.
    pub number: i16,
    /// Its name.
    pub name: String,
}

/// A function, or several of one name that differ in their arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Oid of its schema.
    pub schema: u32,
    /// Its name.
    pub name: String,
}

/// The `search_path` that sessions begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathOf {
    /// Only those of this database.
    pub of_database: bool,
    /// Only those of this role; empty: of any.
    pub role: String,
    /// As the server keeps it.
    pub path: String,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The server repeats what another one does: names change without a word on the wire.
    pub standby: bool,
    /// The server's own `search_path`; `None` if it could not be seen.
    pub path: Option<String>,
    /// Paths of roles and databases.
    pub paths: Vec<PathOf>,
    /// Schemas, without those of TOAST tables.
    pub schemas: Vec<Schema>,
    /// Roles.
    pub roles: Vec<Role>,
    /// Schema and role: who may use schemas that not everybody may use. Without superusers.
    pub grants: Vec<(u32, u32)>,
    /// Tables.
    pub relations: Vec<Relation>,
    /// Their columns, in the order of their numbers.
    pub columns: Vec<Column>,
    /// Functions.
    pub functions: Vec<Function>,
}

/// What is asked for names.
#[derive(Debug, Default)]
pub struct Names {
    standby: bool,
    path: Option<String>,
    paths: Vec<PathOf>,
    schemas: HashMap<u32, Known>,
    by_name: HashMap<String, u32>,
    roles: HashMap<String, (u32, bool)>,
    relations: HashMap<u32, Found>,
    relations_by_name: HashMap<Arc<str>, Vec<u32>>,
    functions: HashMap<String, Vec<u32>>,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    public: bool,
    users: HashSet<u32>,
}

/// A relation.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) schema: u32,
    pub(crate) name: Arc<str>,
    kind: char,
    partition: bool,
    pub(crate) columns: Vec<Box<str>>,
}

/// What schemas of temporary tables are called: one for each session that has some.
const TEMPORARY: &str = "pg_temp_";

impl Names {
    /// Puts them in order.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        let mut names = Self {
            standby: snapshot.standby,
            path: snapshot.path,
            paths: snapshot.paths,
            ..Self::default()
        };
        for Schema { oid, name, public } in snapshot.schemas {
            names.by_name.insert(name.clone(), oid);
            let known = Known {
                name: name.into(),
                public,
                users: HashSet::new(),
            };
            names.schemas.insert(oid, known);
        }
        for (schema, role) in snapshot.grants {
            if let Some(known) = names.schemas.get_mut(&schema) {
                known.users.insert(role);
            }
        }
        let roles = snapshot.roles.into_iter();
        names.roles = roles
            .map(|role| (role.name, (role.oid, role.superuser)))
            .collect();
        for relation in snapshot.relations {
            let name: Arc<str> = relation.name.into();
            let same = names.relations_by_name.entry(Arc::clone(&name)).or_default();
            same.push(relation.oid);
            let found = Found {
                schema: relation.schema,
                name,
                kind: relation.kind,
                partition: relation.partition,
                columns: Vec::new(),
            };
            names.relations.insert(relation.oid, found);
        }
        for column in snapshot.columns {
            if let Some(found) = names.relations.get_mut(&column.relation) {
                found.columns.push(column.name.into());
            }
        }
        for Function { schema, name } in snapshot.functions {
            names.functions.entry(name).or_default().push(schema);
        }
        names
    }

    pub(crate) fn is_standby(&self) -> bool {
        self.standby
    }

    /// The `search_path` that a session of this role begins with (`process_settings` in the server's utils/init/postinit.c).
    /// `None` if it is not known.
    pub(crate) fn path_of(&self, role: &str) -> Option<&str> {
        let find = |of_database: bool, role: &str| {
            let is = |path: &&PathOf| path.of_database == of_database && path.role == role;
            self.paths.iter().find(is)
        };
        find(true, role)
            .or_else(|| find(false, role))
            .or_else(|| find(true, ""))
            .or_else(|| find(false, ""))
            .map(|found| found.path.as_str())
            .or(self.path.as_deref())
    }

    /// The schema of this name.
    pub(crate) fn schema(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn schema_name(&self, oid: u32) -> Option<&Arc<str>> {
        Some(&self.schemas.get(&oid)?.name)
    }

    /// Whether a role may use a schema; `None` if that hangs on which role it is, and that is not known.
    pub(crate) fn may_use(&self, schema: u32, role: Option<&str>) -> Option<bool> {
        let known = self.schemas.get(&schema)?;
        if known.public {
            return Some(true);
        }
        let (oid, superuser) = self.roles.get(role?)?;
        Some(*superuser || known.users.contains(oid))
    }

    /// Whether a schema is called like a role and holds something of this name.
    pub(crate) fn is_in_a_roles_schema(&self, name: &str) -> bool {
        self.named(name).any(|(_, found)| {
            self.schema_name(found.schema)
                .is_some_and(|schema| self.roles.contains_key(&**schema))
        })
    }

    pub(crate) fn relation(&self, oid: u32) -> Option<&Found> {
        self.relations.get(&oid)
    }

    /// Everything of this name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = (u32, &Found)> {
        let oids = self.relations_by_name.get(name);
        oids.into_iter()
            .flatten()
            .filter_map(|oid| Some((*oid, self.relations.get(oid)?)))
    }

    /// What has this name in a schema.
    pub(crate) fn in_schema(&self, schema: u32, name: &str) -> Option<&Found> {
        self.named(name)
            .map(|(_, found)| found)
            .find(|found| found.schema == schema)
    }

    /// Whether a session has a temporary table of this name.
    pub(crate) fn is_temporary(&self, name: &str) -> bool {
        self.named(name).any(|(_, found)| self.is_of_session(found))
    }

    /// Whether it is a temporary one of some session.
    pub(crate) fn is_of_session(&self, found: &Found) -> bool {
        self.schema_name(found.schema)
            .is_none_or(|schema| schema.starts_with(TEMPORARY))
    }

    /// The one schema that has functions of this name.
    pub(crate) fn function(&self, name: &str) -> Option<u32> {
        match self.functions.get(name)?.as_slice() {
            [schema] => Some(*schema),
            _ => None,
        }
    }
}

impl Found {
    /// As events call it, if it can stand where tables do (manual, `pg_class`).
    pub(crate) fn kind(&self) -> Option<&'static str> {
        Some(match self.kind {
            'r' | 'p' | 'f' if self.partition => "partition",
            'r' | 'p' => "table",
            'v' => "view",
            'm' => "materialized view",
            'S' => "sequence",
            'f' => "foreign table",
            _ => return None,
        })
    }
}
