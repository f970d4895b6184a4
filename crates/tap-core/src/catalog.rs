//! Names as a server's catalog has them: what an object that a statement names without a schema is, and of which kind.
//!
//! Owns how long what a catalog said may be believed. It said so at one moment; whatever may have changed a name since, be it
//! under way still, makes every answer wait for the next look. So an object is told with the catalog's word, or as its text has
//! it, and never with an old word. What nobody sees on the wire is the exception, and `docs/operations.md` says so.
//!
//! `names` is what one look found, `path` how a session looks for names, `definer` what a session may be changing, `resolve`
//! the decision for one statement.

mod definer;
mod names;
mod path;
mod resolve;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use pg_wire::Nanos;
use sql_meaning::Defines;

pub use self::names::{
    Column, Function, MAX_COLUMNS, MAX_FUNCTIONS, MAX_GRANTS, MAX_NAME_BYTES, MAX_PATHS, MAX_RELATIONS,
    MAX_ROLES, MAX_SCHEMAS, Names, PathOf, Relation, Role, Schema, Snapshot,
};
use self::resolve::Cache;
pub(crate) use self::{
    definer::Definer,
    path::{Path, Sight, quoted},
    resolve::{Asking, Resolution, Resolved},
};

/// Databases of one server that are told apart: beyond, what changes in one counts for all of them.
const MAX_DATABASES: usize = 1_024;

/// What is known of the names of all servers.
#[derive(Default)]
pub(crate) struct Catalog {
    servers: HashMap<u32, Server>,
    cache: Cache,
}

/// One server, by its postmaster.
#[derive(Default)]
struct Server {
    /// When something ended last that may have changed what all databases share.
    shared: Nanos,
    /// Sessions that may change names at this moment.
    defining: HashSet<u64>,
    databases: HashMap<String, Database>,
}

#[derive(Default)]
struct Database {
    known: Option<Known>,
    /// When something ended last that may have changed a name.
    doubted: Nanos,
}

/// What a look at a catalog found.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) names: Arc<Names>,
    /// When the look began: what had ended by then is in it.
    began: Nanos,
}

impl Catalog {
    /// A look at a database's catalog, which began then.
    pub(crate) fn learn(&mut self, server: u32, database: &str, names: Arc<Names>, began: Nanos) {
        let database = self
            .servers
            .entry(server)
            .or_default()
            .databases
            .entry(database.to_owned())
            .or_default();
        let former = database.known.replace(Known { names, began });
        let is_same = match (&former, &database.known) {
            (Some(former), Some(known)) => Arc::ptr_eq(&former.names, &known.names),
            _ => false,
        };
        if !is_same {
            self.cache.clear();
        }
    }

    /// Nothing is known of a database's names any longer.
    pub(crate) fn unlearn(&mut self, server: u32, database: &str) {
        if let Some(database) = self.of_mut(server, database) {
            database.known = None;
        }
        self.cache.clear();
    }

    /// A server has ended.
    pub(crate) fn drop_server(&mut self, server: u32) {
        self.servers.remove(&server);
        self.cache.clear();
    }

    /// Whether something may have changed a name of this database since it was looked at.
    pub(crate) fn is_stale(&self, server: u32, database: &str) -> bool {
        self.server(server).is_some_and(|server| {
            server.databases.get(database).is_some_and(|found| {
                let known = found.known.as_ref();
                known.is_some_and(|known| known.began <= found.doubted.max(server.shared))
            })
        })
    }

    /// What is known of a database, and holds for a statement of this session that began then.
    pub(crate) fn sure(&self, server: u32, database: &str, session: u64, since: Nanos) -> Option<&Known> {
        let server = self.server(server)?;
        if server.defining.iter().any(|other| *other != session) {
            return None;
        }
        let database = server.databases.get(database)?;
        let doubted = database.doubted.max(server.shared);
        let known = database.known.as_ref()?;
        (known.began > doubted && since > doubted && !known.names.is_standby()).then_some(known)
    }

    /// When something ended last that may have changed the settings that sessions begin with.
    pub(crate) fn settings_changed(&self, server: u32) -> Nanos {
        self.server(server).map_or(0, |server| server.shared)
    }

    /// A session may change names of others, or does not any longer.
    pub(crate) fn defining(&mut self, server: u32, session: u64, is: bool) {
        if is {
            self.servers.entry(server).or_default().defining.insert(session);
        } else if let Some(server) = self.servers.get_mut(&server) {
            server.defining.remove(&session);
        }
    }

    /// What ended at this moment may have changed names. Of a session whose database is not known, those of all.
    pub(crate) fn doubt(&mut self, server: u32, database: Option<&str>, what: Defines, at: Nanos) {
        let server = self.servers.entry(server).or_default();
        match database {
            Some(database)
                if what == Defines::Names
                    && (server.databases.len() < MAX_DATABASES
                        || server.databases.contains_key(database)) =>
            {
                if !server.databases.contains_key(database) {
                    server.databases.insert(database.to_owned(), Database::default());
                }
                if let Some(found) = server.databases.get_mut(database) {
                    found.doubted = found.doubted.max(at);
                }
            }
            _ if what >= Defines::Names => server.shared = server.shared.max(at),
            _ => {}
        }
    }

    /// What the objects of a statement are; `None` if nothing is known beyond its text.
    pub(crate) fn resolve(&mut self, asking: &Asking<'_>) -> Option<Resolution> {
        let known = self
            .sure(asking.server, asking.database, asking.session, asking.since)?
            .clone();
        self.cache.resolve(&known, asking)
    }

    /// How a session looks for names, shared by all that do so alike.
    pub(crate) fn sight(&mut self, known: &Known, path: &str, role: Option<&str>) -> Option<Arc<Sight>> {
        self.cache.sight(known, path, role)
    }

    fn server(&self, server: u32) -> Option<&Server> {
        self.servers.get(&server)
    }

    fn of_mut(&mut self, server: u32, database: &str) -> Option<&mut Database> {
        self.servers.get_mut(&server)?.databases.get_mut(database)
    }
}

impl Known {
    /// Whether the look began after this.
    pub(crate) fn is_after(&self, at: Nanos) -> bool {
        self.began > at
    }
}
