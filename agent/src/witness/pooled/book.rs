//! Who is meant by a pooler's sockets: its clients by name, its connections by the sessions that they lead to, and what
//! several hops come to.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use attribution::{Attribution, Confidence, Hop, Lease, Principal, Relay, Shown, through_pooler};
use ebpf_abi::SocketFact;
use proto::v1;
use tap_core::{ByCookie, lease::Kind};

use crate::record;

/// Sockets that are over and remembered: what passed over them may be told seconds later.
const GONE: usize = 8_192;

/// Sockets in all. Of a pooler's Unix sockets nobody tells that they were closed; the oldest are forgotten then.
pub(super) const SOCKETS: usize = 65_536;

/// Processes of poolers; some have one for each client.
const PROGRAMS: usize = 4_096;

/// How long a process of which nothing was known is left alone, in nanoseconds: each look may take 50 ms.
const AGAIN_NS: u64 = 500_000_000;

/// Attributions that are kept made: each has some KiB.
const MADE: usize = 4_096;

/// What both ends of a connection have in common, and no other connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::witness) enum Key {
    /// Both first sequence numbers.
    Numbers(u64),
    /// Inode number of the connecting end of a Unix socket.
    Inode(u64),
}

impl Key {
    /// Of an end of which it is known which one it is; `None` if nothing is known.
    pub(in crate::witness) fn of(fact: &SocketFact) -> Option<Self> {
        let inode = Some(fact.client_inode).filter(|inode| *inode != 0);
        fact.numbers().map(Self::Numbers).or(inode.map(Self::Inode))
    }
}

/// How a pooler works, by the name of its executable.
pub(super) fn kind(process: &attribution::Process) -> Kind {
    let program = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
    match program {
        Some("pgbouncer") => Kind::PgBouncer,
        Some("pgpool") => Kind::Pgpool,
        _ => Kind::Other,
    }
}

/// A process of a pooler of which nothing is known but its number.
pub(super) fn nameless(tgid: u32) -> Hop {
    Hop {
        relay: Relay::Pooler,
        principal: Principal::unknown(),
        confidence: Confidence::None,
        process: Arc::new(attribution::Process {
            pid: tgid,
            ..attribution::Process::default()
        }),
        client: None,
    }
}

/// A pooler's end of a client's connection.
struct Client {
    tgid: u32,
    key: Option<Key>,
    /// Its id in records.
    session: Arc<str>,
    who: Attribution,
    is_over: bool,
}

struct Server {
    tgid: u32,
    key: Option<Key>,
    is_over: bool,
}

struct Program {
    hop: Hop,
    /// In nanoseconds since boot.
    looked_at: u64,
    is_over: bool,
}

/// The sockets of poolers.
#[derive(Default)]
pub(super) struct Book {
    clients: ByCookie<Client>,
    servers: ByCookie<Server>,
    /// Connections to servers by what they have in common with the other end.
    leading: HashMap<Key, Vec<u64>>,
    /// Clients' connections by the same.
    ends: HashMap<Key, u64>,
    programs: HashMap<u32, Program>,
    gone: VecDeque<u64>,
    /// Clients' among them since it was last asked.
    ended: Vec<u64>,
}

impl Book {
    pub(super) fn knows(&self, cookie: u64) -> bool {
        self.clients.contains_key(&cookie) || self.servers.contains_key(&cookie)
    }

    /// Whether a process is a pooler whose sockets are told.
    pub(super) fn is_tapped(&self, tgid: u32) -> bool {
        self.programs.get(&tgid).is_some_and(|program| !program.is_over)
    }

    /// Processes of which nothing was known when they were looked at, and it is time to look again.
    pub(super) fn to_be_named(&self, now: u64) -> Vec<u32> {
        let is_due = |program: &Program| {
            let is_nameless = program.hop.confidence == Confidence::None && !program.is_over;
            is_nameless && program.looked_at.saturating_add(AGAIN_NS) <= now
        };
        let programs = self.programs.iter();
        programs
            .filter_map(|(tgid, program)| is_due(program).then_some(*tgid))
            .collect()
    }

    pub(super) fn add_program(&mut self, tgid: u32, hop: Hop, looked_at: u64) {
        if self.programs.len() >= PROGRAMS {
            self.programs.retain(|_, program| !program.is_over);
        }
        let program = Program {
            hop,
            looked_at,
            is_over: false,
        };
        self.programs.insert(tgid, program);
    }

    /// What a pooler is called.
    pub(super) fn name(&self, tgid: u32) -> String {
        self.hop(tgid).principal.id
    }

    pub(super) fn add_client(
        &mut self,
        cookie: u64,
        tgid: u32,
        key: Option<Key>,
        session: Arc<str>,
        who: Attribution,
    ) {
        let client = Client {
            tgid,
            key,
            session,
            who,
            is_over: false,
        };
        self.clients.insert(cookie, client);
        if let Some(key) = key {
            self.ends.insert(key, cookie);
        }
        self.make_room();
    }

    /// This process uses a socket: a pooler that restarts may pass its connections on to its successor. Returns whether that
    /// is another one than before.
    pub(super) fn used(&mut self, cookie: u64, by: u32) -> bool {
        let client = self.clients.get_mut(&cookie);
        let client = client.map(|client| (&mut client.tgid, &mut client.is_over));
        let server = self.servers.get_mut(&cookie);
        let server = server.map(|server| (&mut server.tgid, &mut server.is_over));
        let Some((tgid, is_over)) = client.or(server).filter(|(tgid, _)| **tgid != by) else {
            return false;
        };
        (*tgid, *is_over) = (by, false);
        true
    }

    pub(super) fn add_server(&mut self, cookie: u64, tgid: u32, key: Option<Key>) {
        let server = Server {
            tgid,
            key,
            is_over: false,
        };
        if let Some(before) = self.servers.insert(cookie, server) {
            self.leads_no_more(before.key, cookie);
        }
        if let Some(key) = key {
            self.leading.entry(key).or_default().push(cookie);
        }
        self.make_room();
    }

    /// Whether a pooler of this host is at the other end of a connection.
    pub(super) fn ends_here(&self, key: Key) -> bool {
        self.ends.contains_key(&key)
    }

    /// The connection that leads to an end; `None` if there is none, or several could be meant.
    pub(super) fn leading(&self, key: Key) -> Option<u64> {
        match self.leading.get(&key).map(Vec::as_slice) {
            Some([one]) => Some(*one),
            _ => None,
        }
    }

    /// A pooler's connection that leads to this client's end of another pooler.
    pub(super) fn behind(&self, client: u64) -> Option<u64> {
        self.leading(self.clients.get(&client)?.key?)
    }

    /// The process that uses a connection to a server.
    pub(super) fn program_of(&self, server: u64) -> Option<u32> {
        self.servers.get(&server).map(|server| server.tgid)
    }

    /// A socket is over; false if it is none of a pooler's, or was over before.
    pub(super) fn gone(&mut self, cookie: u64) -> bool {
        let client = self.clients.get_mut(&cookie).map(|client| &mut client.is_over);
        let server = self.servers.get_mut(&cookie).map(|server| &mut server.is_over);
        let was_over = client.or(server).map(|is_over| std::mem::replace(is_over, true));
        if was_over != Some(false) {
            return false;
        }
        self.gone.push_back(cookie);
        if self.clients.contains_key(&cookie) && self.ended.len() < SOCKETS {
            self.ended.push(cookie);
        }
        while self.gone.len() > GONE {
            if let Some(oldest) = self.gone.pop_front()
                && !self.is_open(oldest)
            {
                self.forget(oldest);
            }
        }
        true
    }

    /// Clients' connections that ended since this was last asked.
    pub(super) fn take_ended(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.ended)
    }

    fn is_open(&self, cookie: u64) -> bool {
        let client = self.clients.get(&cookie).is_some_and(|client| !client.is_over);
        client || self.servers.get(&cookie).is_some_and(|server| !server.is_over)
    }

    /// A process ended; false if it is no pooler.
    pub(super) fn exited(&mut self, tgid: u32) -> bool {
        let Some(program) = self.programs.get_mut(&tgid) else {
            return false;
        };
        program.is_over = true;
        let clients = self.clients.iter().map(|(cookie, client)| (cookie, client.tgid));
        let servers = self.servers.iter().map(|(cookie, server)| (cookie, server.tgid));
        let its: Vec<u64> = clients
            .chain(servers)
            .filter_map(|(cookie, of)| (of == tgid).then_some(*cookie))
            .collect();
        for cookie in its {
            self.gone(cookie);
        }
        true
    }

    /// All that are remembered.
    #[cfg(test)]
    pub(super) fn sockets(&self) -> usize {
        self.clients.len() + self.servers.len()
    }

    fn forget(&mut self, cookie: u64) {
        let client = self.clients.remove(&cookie);
        if let Some(key) = client.and_then(|client| client.key)
            && self.ends.get(&key) == Some(&cookie)
        {
            self.ends.remove(&key);
        }
        if let Some(server) = self.servers.remove(&cookie) {
            self.leads_no_more(server.key, cookie);
        }
    }

    fn leads_no_more(&mut self, key: Option<Key>, cookie: u64) {
        let Some(key) = key else { return };
        if let Some(leading) = self.leading.get_mut(&key) {
            leading.retain(|other| *other != cookie);
            if leading.is_empty() {
                self.leading.remove(&key);
            }
        }
    }

    /// The kernel counts cookies up: low ones are old.
    fn make_room(&mut self) {
        if self.clients.len() + self.servers.len() <= SOCKETS {
            return;
        }
        let mut cookies: Vec<u64> = self.clients.keys().chain(self.servers.keys()).copied().collect();
        cookies.sort_unstable();
        for cookie in cookies.into_iter().take(SOCKETS / 4) {
            self.forget(cookie);
        }
    }

    pub(super) fn hop(&self, tgid: u32) -> Hop {
        let program = self.programs.get(&tgid);
        program.map_or_else(|| nameless(tgid), |program| program.hop.clone())
    }

    pub(super) fn client(&self, cookie: u64) -> Option<(&Attribution, &Arc<str>)> {
        let client = self.clients.get(&cookie)?;
        Some((&client.who, &client.session))
    }
}

/// One pooler on a statement's way, and what is known of it there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Leg {
    /// It came from this client of the pooler's.
    Client(u64, Shown),
    /// It is the pooler's own.
    Own,
    /// Not known: why, and clients whose it may be.
    Undecided(&'static str, Vec<u64>),
}

/// A statement's way, from the backend to the client: the pooler's process each time.
pub(super) type Route = Vec<(u32, Leg)>;

/// Who is meant by a route, made once.
#[derive(Default)]
pub(super) struct Names {
    made: HashMap<Route, Arc<v1::Attribution>>,
}

impl Names {
    /// They can be made anew; have to be, where something else is known of a pooler.
    pub(super) fn forget(&mut self) {
        self.made.clear();
    }

    pub(super) fn of(&mut self, route: &Route, book: &Book) -> Arc<v1::Attribution> {
        if let Some(made) = self.made.get(route) {
            return Arc::clone(made);
        }
        let made = Arc::new(record::attribution(&attribution_of(route, book)));
        if self.made.len() >= MADE {
            self.made.clear();
        }
        self.made.insert(route.clone(), Arc::clone(&made));
        made
    }
}

fn attribution_of(route: &Route, book: &Book) -> Attribution {
    let mut behind: Option<Attribution> = None;
    for (tgid, leg) in route.iter().rev() {
        let hop = &book.hop(*tgid);
        let lost = Lease::Undecided {
            reason: "its client is not known any more",
            candidates: &[],
        };
        let answer = match leg {
            Leg::Own => through_pooler(hop, &Lease::Own),
            Leg::Client(cookie, shown) => match book.client(*cookie) {
                None => through_pooler(hop, &lost),
                Some((who, session)) => {
                    let lease = Lease::Client {
                        client: behind.as_ref().unwrap_or(who),
                        session,
                        shown: *shown,
                    };
                    through_pooler(hop, &lease)
                }
            },
            Leg::Undecided(reason, candidates) => {
                let candidates: Vec<(&Attribution, &Arc<str>)> = candidates
                    .iter()
                    .filter_map(|cookie| book.client(*cookie))
                    .collect();
                through_pooler(
                    hop,
                    &Lease::Undecided {
                        reason,
                        candidates: &candidates,
                    },
                )
            }
        };
        behind = Some(answer);
    }
    // A route has at least one leg.
    behind.unwrap_or_else(|| through_pooler(&nameless(0), &Lease::Own))
}
