//! Process titles of backends: for a session whose startup packet went by unseen, the only place on the host that names
//! its role and database.
//!
//! A title is text in which names may hold anything, spaces and addresses included. It is believed only if it can be read
//! in one single way and names the very client of the socket; otherwise role and database stay unknown. The form is that of
//! PostgreSQL 13 to 18 (`BackendInitialize` in tcop/backend_startup.c, before 17 postmaster/postmaster.c, and
//! `init_ps_display` in utils/misc/ps_status.c):
//!
//! ```text
//! postgres: [cluster_name: ][walsender ]role [database ]client activity
//! ```
//!
//! where the client is `[local]`, or its address or host name with the port in parentheses.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
};

use tap_core::{Endpoint, SessionFacts, Title};

use crate::broker::Broker;

/// Before `cluster_name`, or where there is none before everything else.
const PREFIX: &[u8] = b"postgres: ";

/// Titles of processes that every server has: what stands before these is the same for all its processes.
const FIXED: [&[u8]; 3] = [b"checkpointer", b"background writer", b"walwriter"];

/// `GetBackendTypeDesc(B_WAL_SENDER)`
const WALSENDER: &[u8] = b"walsender ";

/// What only a walsender is busy with (replication/walsender.c, backup/basebackup.c).
const WALSENDER_ACTIVITIES: [&[u8]; 3] = [b"streaming ", b"sending backup ", b"START_REPLICATION"];

/// What the titles of each server's processes begin with, once it was learnt: it cannot change while the server runs.
pub struct Titles {
    broker: Broker,
    prefixes: HashMap<u32, Vec<u8>>,
}

impl Titles {
    /// Nothing was learnt yet.
    pub fn new(broker: Broker) -> Self {
        Self {
            broker,
            prefixes: HashMap::new(),
        }
    }

    /// Role and database of a session whose socket was used by its backend at a time (nanoseconds since boot). `None` if
    /// the title cannot be read in one single way, or may be that of a later process.
    pub fn read(&mut self, session: &SessionFacts, at: u64) -> Option<Title> {
        let (start, title) = self.broker.title(session.backend_pid)?;
        // A tick is the finest that `/proc` knows; whoever began later cannot have used the socket then.
        if start.saturating_mul(super::processes::TICK_NS) > at {
            return None;
        }
        let prefix = self.prefix(session.server_pid)?;
        parse(title.strip_prefix(prefix)?, &session.client)
    }

    /// A server ended.
    pub fn ended(&mut self, server: u32) {
        self.prefixes.remove(&server);
    }

    fn prefix(&mut self, server: u32) -> Option<&[u8]> {
        match self.prefixes.entry(server) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(unknown) => {
                let titles = self.broker.titles(server);
                Some(unknown.insert(common_prefix(titles.into_iter())?))
            }
        }
    }
}

/// What the titles of a server's own processes say, if they agree.
fn common_prefix(titles: impl Iterator<Item = Vec<u8>>) -> Option<Vec<u8>> {
    let mut prefixes = titles.filter_map(|title| {
        let title = title.trim_ascii_end();
        let prefix = FIXED.iter().find_map(|name| title.strip_suffix(*name))?;
        let cluster = prefix.strip_prefix(PREFIX)?;
        (cluster.is_empty() || cluster.ends_with(b": ")).then(|| prefix.to_vec())
    });
    let first = prefixes.next()?;
    prefixes.all(|other| other == first).then_some(first)
}

/// What stands behind the prefix: names, client, activity.
fn parse(title: &[u8], client: &Endpoint) -> Option<Title> {
    let (names, activity) = around_client(title, client)?;
    let walsender = names.strip_prefix(WALSENDER);
    let at_work = WALSENDER_ACTIVITIES.iter().any(|work| activity.starts_with(work));
    let mut readings = Vec::new();
    if !(walsender.is_some() && at_work) {
        readings.extend(splits(names));
    }
    if let Some(rest) = walsender.filter(|rest| !rest.is_empty()) {
        readings.push((rest, None));
        readings.extend(splits(rest));
    }
    let [(role, database)] = readings.as_slice() else {
        return None;
    };
    // The server cuts long names at a byte, and a name may be in any encoding: half a character is no name.
    Some(Title {
        login_role: str::from_utf8(role).ok()?.to_owned(),
        database: match database {
            Some(database) => Some(str::from_utf8(database).ok()?.to_owned()),
            None => None,
        },
    })
}

/// What stands before and behind the client, if there is only one place where it can be.
fn around_client<'a>(title: &'a [u8], client: &Endpoint) -> Option<(&'a [u8], &'a [u8])> {
    let mut found = None;
    let mut start = 0;
    for word in title.split(|byte| *byte == b' ') {
        let end = start + word.len();
        if could_be_client(word, client) {
            if found.is_some() {
                return None;
            }
            found = Some((start, end));
        }
        start = end + 1;
    }
    let (start, end) = found?;
    let word = title.get(start..end)?;
    // The fixed part of a title ends with a space: without one it was cut.
    let activity = title.get(end..)?.strip_prefix(b" ")?;
    let names = title.get(..start)?.strip_suffix(b" ")?;
    is_client(word, client).then_some((names, activity))
}

/// Whether a word looks like this client, so that it must not occur twice.
fn could_be_client(word: &[u8], client: &Endpoint) -> bool {
    match client {
        Endpoint::Unix(_) => word.starts_with(b"[local]"),
        Endpoint::Inet(_, port) => host_of(word, *port).is_some(),
    }
}

fn is_client(word: &[u8], client: &Endpoint) -> bool {
    match client {
        Endpoint::Unix(_) => word == b"[local]",
        Endpoint::Inet(address, port) => {
            let Some(host) = host_of(word, *port).and_then(|host| str::from_utf8(host).ok()) else {
                return false;
            };
            // With `log_hostname` it is a name, and the port must do; an IPv6 address may have a zone.
            let plain = host.split('%').next().unwrap_or(host);
            plain
                .parse::<IpAddr>()
                .map_or(!host.is_empty() && !host.contains(':'), |found| {
                    found.to_canonical() == *address
                })
        }
    }
}

/// `host` of `host(port)`.
fn host_of(word: &[u8], port: u16) -> Option<&[u8]> {
    word.strip_suffix(format!("({port})").as_bytes())
}

/// Every way to take names apart into role and database.
fn splits(names: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    let spaces = names.iter().enumerate().filter(|(_, byte)| **byte == b' ');
    spaces.filter_map(|(place, _)| {
        let (role, database) = (names.get(..place)?, names.get(place + 1..)?);
        (!role.is_empty() && !database.is_empty()).then_some((role, Some(database)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp() -> Endpoint {
        Endpoint::Inet("10.0.0.5".parse().expect("an address"), 51234)
    }

    fn read(title: &str, client: &Endpoint) -> Option<(String, Option<String>)> {
        let title = parse(title.as_bytes(), client)?;
        Some((title.login_role, title.database))
    }

    fn names(role: &str, database: &str) -> Option<(String, Option<String>)> {
        Some((role.to_owned(), Some(database.to_owned())))
    }

    #[test]
    fn the_usual_forms() {
        let local = Endpoint::Unix(String::new());
        for activity in [
            "idle",
            "SELECT",
            "idle in transaction (aborted)",
            "",
            "UPDATE waiting",
            "<FASTPATH>",
        ] {
            let title = format!("app_user shop 10.0.0.5(51234) {activity}");
            assert_eq!(read(&title, &tcp()), names("app_user", "shop"));
            let title = format!("app_user shop [local] {activity}");
            assert_eq!(read(&title, &local), names("app_user", "shop"));
        }
        let six = Endpoint::Inet("fe80::1".parse().expect("an address"), 9);
        assert_eq!(read("a b fe80::1(9) idle", &six), names("a", "b"));
        assert_eq!(read("a b fe80::1%eth0(9) idle", &six), names("a", "b"));
        assert_eq!(
            read("a b db-client.example.org(51234) idle", &tcp()),
            names("a", "b")
        );
        assert_eq!(
            read("Jürgen größe 10.0.0.5(51234) idle", &tcp()),
            names("Jürgen", "größe")
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        let local = Endpoint::Unix(String::new());
        for title in [
            // Which of the words is the role's?
            "app user shop 10.0.0.5(51234) idle",
            "app  shop 10.0.0.5(51234) idle",
            // Which of them is the client?
            "a b 10.0.0.5(51234) c 10.0.0.5(51234) idle",
            "a b evil(51234) c 10.0.0.5(51234) idle",
            "a b 10.0.0.5(51234) sending backup \"x 10.0.0.5(51234) y\"",
            // A walsender of the role `rep`, or the role `walsender` in the database `rep`?
            "walsender rep 10.0.0.5(51234) idle",
            "walsender rep shop 10.0.0.5(51234) streaming 0/3000148",
        ] {
            assert_eq!(read(title, &tcp()), None, "{title}");
        }
        for title in [
            "a b [local] c [local] idle",
            // A client whose own end is bound to a path.
            "a b [local](/tmp/x) idle",
            "a b [local] c d [local](/tmp/x) idle",
        ] {
            assert_eq!(read(title, &local), None, "{title}");
        }
    }

    #[test]
    fn a_walsender_at_work_is_known_by_that() {
        for activity in [
            "streaming 0/3000148",
            "sending backup \"label\"",
            "START_REPLICATION",
        ] {
            let title = format!("walsender rep 10.0.0.5(51234) {activity}");
            assert_eq!(read(&title, &tcp()), Some(("rep".to_owned(), None)));
        }
    }

    #[test]
    fn another_client_or_a_cut_title_is_not_believed() {
        for title in [
            "a b 10.0.0.6(51234) idle",
            "a b 10.0.0.5(51235) idle",
            "a b 10.0.0.5(5123",
            "a b 10.0.0.5(51234)",
            "a b [local] idle",
            "a 10.0.0.5(51234) idle",
            " b 10.0.0.5(51234) idle",
            "10.0.0.5(51234) idle",
            "a b ::(51234) idle",
            "a b (51234) idle",
            "a b ???(???) idle",
            "",
        ] {
            assert_eq!(read(title, &tcp()), None, "{title}");
        }
        let cut = [
            b"r\xc3 shop 10.0.0.5(51234) idle".as_slice(),
            b"r d\xc3 10.0.0.5(51234) ",
        ];
        for title in cut {
            assert_eq!(parse(title, &tcp()), None);
        }
    }

    #[test]
    fn the_prefix_is_what_the_servers_own_processes_have() {
        let prefix = |titles: &[&str]| {
            let titles = titles.iter().map(|title| title.as_bytes().to_vec());
            common_prefix(titles).map(|prefix| String::from_utf8(prefix).expect("text"))
        };
        let own = [
            "postgres: 15/main: checkpointer ",
            "postgres: 15/main: walwriter ",
        ];
        assert_eq!(prefix(&own).as_deref(), Some("postgres: 15/main: "));
        let odd = [
            "postgres: a: b: background writer",
            "postgres: a: b: u d [local] idle",
        ];
        assert_eq!(prefix(&odd).as_deref(), Some("postgres: a: b: "));
        assert_eq!(
            prefix(&["postgres: checkpointer "]).as_deref(),
            Some("postgres: ")
        );
        assert_eq!(
            prefix(&["postgres: checkpointer", "postgres: x: walwriter"]),
            None,
            "they do not agree"
        );
        assert_eq!(prefix(&["postgres: my checkpointer", "checkpointer"]), None);
        assert_eq!(prefix(&[]), None);
    }
}
