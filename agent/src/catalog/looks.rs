//! When which catalog is looked at, and which server that was of: the one whose tap saw the connection over which it was asked.
//!
//! A connection counts as one of the agent's own because the kernel says that its client is the process that the agent started
//! for this, and for no other reason. What is asked over it is left out of the record, and counted.

use std::{
    collections::HashSet,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use attribution::Peer;
use tap_core::{Tap, catalog::Names};
use tracing::{info, warn};

use super::{
    CatalogConfig,
    link::{Answer, Found, Link},
    protocol::Ask,
};

/// Between two looks at one database at the least, whatever is defined meanwhile.
const LEAST: Duration = Duration::from_millis(250);

/// And this many times as long as a look takes, so that a large catalog costs its server no more than a tenth of a processor.
const SHARE: u32 = 10;

/// When a look that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How long the tap may take to see the connection over which was asked.
const SEEN: Duration = Duration::from_secs(5);

/// All of them.
pub struct Looks {
    link: Option<Link>,
    /// The process that looks; `None` once it has ended.
    process: Option<u32>,
    databases: Vec<Database>,
    /// Connections of that process, by their cookies.
    own: HashSet<u64>,
    /// Statements that were asked over these.
    left_out: u64,
    /// A look is under way since then.
    asked: Option<Instant>,
    /// What was found over a connection that was not seen yet.
    unseen: Option<(Found, Instant)>,
}

struct Database {
    entry: usize,
    database: usize,
    name: String,
    refresh: Duration,
    due: Instant,
    /// No look before this.
    not_before: Instant,
    names: Option<Arc<Names>>,
    /// The server, once the tap has seen it answer.
    server: Option<u32>,
    succeeded: Option<Instant>,
    warned: String,
}

impl Looks {
    /// For these, by the process at the other end of the socket.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started.
    pub fn start(catalogs: &[CatalogConfig], socket: OwnedFd, process: u32) -> anyhow::Result<Self> {
        let now = Instant::now();
        let databases = catalogs.iter().enumerate().flat_map(|(entry, catalog)| {
            catalog
                .databases
                .iter()
                .enumerate()
                .map(move |(database, name)| Database {
                    entry,
                    database,
                    name: name.clone(),
                    refresh: Duration::from_secs(catalog.refresh_s),
                    due: now,
                    not_before: now,
                    names: None,
                    server: None,
                    succeeded: None,
                    warned: String::new(),
                })
        });
        Ok(Self {
            databases: databases.collect(),
            link: Some(Link::start(socket)?),
            process: Some(process),
            own: HashSet::new(),
            left_out: 0,
            asked: None,
            unseen: None,
        })
    }

    /// A connection was accepted: whether it is one of the agent's own.
    pub fn accepted(&mut self, cookie: u64, peer: &Peer) {
        let process = match peer {
            Peer::UnixPeer { process, .. } | Peer::TcpOwner { process, .. } => process,
            _ => return,
        };
        if self.process == Some(process.pid) {
            self.own.insert(cookie);
        }
    }

    /// Whether what passes there is left out of the record: then it is counted.
    pub fn leaves_out(&mut self, event: &tap_core::Event) -> bool {
        if !self.own.contains(&event.session.cookie) {
            return false;
        }
        match event.body {
            tap_core::Body::Query(_) => {
                self.left_out += 1;
                true
            }
            tap_core::Body::Transaction(_) => true,
            _ => false,
        }
    }

    /// Statements that were left out since the start.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// A connection is over.
    pub fn closed(&mut self, cookie: u64) {
        self.own.remove(&cookie);
    }

    /// A process has ended: its number may be another's from here on.
    pub fn ended(&mut self, pid: u32) {
        if self.process == Some(pid) {
            self.process = None;
        }
        for database in &mut self.databases {
            if database.server == Some(pid) {
                database.server = None;
                database.due = Instant::now() + AGAIN;
            }
        }
    }

    /// Takes what was found, and has looked at what is due.
    pub fn go_on(&mut self, tap: &mut Tap) {
        if let Some((found, since)) = self.unseen.take() {
            self.take(found, since, tap);
        }
        while let Some(found) = self.link.as_ref().and_then(Link::found) {
            self.take(found, Instant::now(), tap);
        }
        if self.asked.is_some() || self.unseen.is_some() {
            return;
        }
        let now = Instant::now();
        let due = self.databases.iter_mut().find(|database| {
            let stale = || {
                let server = database.server;
                server.is_some_and(|server| tap.is_stale(server, &database.name))
            };
            now >= database.not_before && (now >= database.due || stale())
        });
        let (Some(database), Some(link)) = (due, &self.link) else {
            return;
        };
        let ask = Ask {
            entry: database.entry,
            database: database.database,
            whole: database.names.is_none(),
        };
        database.due = now + database.refresh;
        if link.ask(ask) {
            self.asked = Some(now);
        }
    }

    fn take(&mut self, found: Found, since: Instant, tap: &mut Tap) {
        let is_it = |database: &&mut Database| {
            (database.entry, database.database) == (found.ask.entry, found.ask.database)
        };
        let now = Instant::now();
        let Some(database) = self.databases.iter_mut().find(is_it) else {
            return;
        };
        if let Some(asked) = self.asked.take() {
            database.not_before = now + LEAST.max(asked.elapsed() * SHARE);
        }
        match &found.answer {
            Answer::Failed(why) => {
                database.failed(why, now, tap);
            }
            Answer::Gone(why) => {
                warn!(
                    "catalogs are not looked at any more, names stay as they are written: {why}; start the agent anew"
                );
                self.link = None;
                for database in &mut self.databases {
                    database.forget(tap);
                }
            }
            Answer::Names {
                at,
                application,
                names,
            } => {
                let mut own = self.own.iter().filter_map(|cookie| tap.session(*cookie));
                let server = own.find(|session| {
                    session.application_name.as_deref() == Some(application)
                        && session.database.as_deref() == Some(&database.name)
                });
                let Some(server) = server.map(|session| session.server_pid) else {
                    if since.elapsed() < SEEN {
                        self.unseen = Some((found, since));
                    } else {
                        database.failed(
                            "its connection leads to no server that is tapped here (does it go through a pooler?)",
                            now,
                            tap,
                        );
                    }
                    return;
                };
                if let Some(names) = names {
                    database.names = Some(Arc::clone(names));
                }
                let Some(names) = database.names.clone() else {
                    return;
                };
                if database.server != Some(server) {
                    info!(
                        "the catalog of database {:?} of server {server} is looked at",
                        database.name
                    );
                }
                database.server = Some(server);
                database.succeeded = Some(now);
                database.warned.clear();
                tap.learn_names(server, &database.name, names, *at);
            }
        }
    }
}

impl Database {
    fn failed(&mut self, why: &str, now: Instant, tap: &mut Tap) {
        self.not_before = now + AGAIN;
        self.due = now + AGAIN;
        if self.warned != why {
            warn!(
                "the catalog of database {:?} cannot be looked at, its names stay as they are written: {why}; see \"Names by \
                 the server's catalog\" in docs/operations.md",
                self.name
            );
            self.warned = why.to_owned();
        }
        // What nobody sees being defined is known by looking often enough.
        if self
            .succeeded
            .is_none_or(|at| now.duration_since(at) > self.refresh * 2)
        {
            self.forget(tap);
        }
    }

    fn forget(&mut self, tap: &mut Tap) {
        if let Some(server) = self.server {
            tap.unlearn_names(server, &self.name);
        }
    }
}
