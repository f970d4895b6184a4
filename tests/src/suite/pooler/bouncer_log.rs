//! PgBouncer's own log: which of its clients each answer of each server connection was for.
//!
//! Owns the reading of the log of PgBouncer 1.18 to 1.24 at `verbose = 2` or more. It refuses to know statements: only
//! `ReadyForQuery` is followed. Pure.
//!
//! What is read (objects.c, server.c and client.c of PgBouncer): `login attempt` names a client's object and address,
//! `new connection to server (from …)` a server connection's own port. `S-…: read pkt='Z'` is a `ReadyForQuery` of the
//! server; if a request of a client's is answered with it, `C-…: query time` follows at once, before any other packet is
//! read; a pipelining client has that line for the last of its answers only, before `S-…: release_server`. What the pooler
//! asks on its own account is announced (`varcache_apply: SET …`), or answered with nobody named before the release.

use std::collections::HashMap;

/// Everything that the log says.
#[derive(Debug, Default)]
pub(super) struct BouncerLog {
    /// In the order in which they logged in.
    pub(super) clients: Vec<Client>,
    /// In the order in which they were opened.
    pub(super) servers: Vec<Server>,
}

/// A client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// `Tcp(port)`, or `Unix(pid)` by the peer's credentials.
    pub(super) place: Place,
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Tcp(u16),
    Unix(u32),
}

/// A connection to a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// Its own port, if it is TCP.
    pub(super) port: Option<u16>,
    /// For each `ReadyForQuery` behind the login what it answers, or none if that is the pooler's own.
    pub(super) answers: Vec<Option<Answer>>,
}

/// Which of a client's requests is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Among the log's clients.
    pub(super) client: usize,
    /// How many of its requests were answered before, over whichever connection.
    pub(super) nth: usize,
}

/// Reads a whole log.
pub(super) fn parse(text: &str) -> BouncerLog {
    let mut state = State::default();
    for line in text.lines() {
        // `2026-11-21 17:18:27.792 UTC [4394] NOISE rest`
        let Some((_, rest)) = line.split_once("] ") else {
            continue;
        };
        let Some((_, rest)) = rest.split_once(' ') else {
            continue;
        };
        state.line(rest);
    }
    state.settle();
    state.log
}

#[derive(Default)]
struct State {
    log: BouncerLog,
    /// By the address of the object, which is used again.
    clients: HashMap<String, usize>,
    /// Requests answered so far, of each client.
    answered: Vec<usize>,
    live: HashMap<String, Live>,
    /// A server connection whose `ReadyForQuery` was read just now.
    ready: Option<String>,
}

struct Live {
    index: usize,
    /// Answers since the last one that was told to be somebody's: positions in the server's list.
    pending: Vec<usize>,
    /// The next answer is to what the pooler asked itself.
    own: bool,
    logged_in: bool,
}

impl State {
    fn line(&mut self, rest: &str) {
        let Some((object, said)) = rest.split_once(": ") else {
            return;
        };
        let what = said.split_once(' ').map_or("", |(_, what)| what);
        match object.split_at_checked(2) {
            Some(("C-", _)) => self.client(object, said, what),
            Some(("S-", _)) => self.server(object, what),
            _ => {}
        }
    }

    fn client(&mut self, object: &str, said: &str, what: &str) {
        if what.starts_with("login attempt") {
            if let Some(place) = place(said) {
                self.clients.insert(object.to_owned(), self.log.clients.len());
                self.log.clients.push(Client { place });
                self.answered.push(0);
            }
        } else if what.starts_with("query time") {
            let server = self.ready.clone();
            self.settle();
            if let (Some(server), Some(client)) = (server, self.clients.get(object).copied()) {
                self.name(&server, client);
            }
        } else if what.starts_with("read pkt") {
            self.settle();
        }
    }

    /// The last answer, and those before it that nobody was named for, are this client's.
    fn name(&mut self, server: &str, client: usize) {
        let Some(live) = self.live.get_mut(server) else {
            return;
        };
        let (Some(server), Some(count)) = (
            self.log.servers.get_mut(live.index),
            self.answered.get_mut(client),
        ) else {
            return;
        };
        for place in live.pending.drain(..) {
            if let Some(answer) = server.answers.get_mut(place) {
                *answer = Some(Answer { client, nth: *count });
                *count += 1;
            }
        }
    }

    fn server(&mut self, object: &str, what: &str) {
        if what.starts_with("new connection to server") {
            self.settle();
            self.live.insert(
                object.to_owned(),
                Live {
                    index: self.log.servers.len(),
                    pending: Vec::new(),
                    own: false,
                    logged_in: false,
                },
            );
            let port = what
                .rsplit_once(':')
                .and_then(|(_, port)| port.trim_end_matches(')').parse().ok());
            self.log.servers.push(Server {
                port,
                ..Server::default()
            });
        } else if what.starts_with("server login ok") {
            // The login's own `ReadyForQuery`.
            self.ready = None;
            if let Some(live) = self.live.get_mut(object) {
                live.logged_in = true;
            }
        } else if what.starts_with("read pkt='Z'") {
            self.settle();
            self.ready = Some(object.to_owned());
        } else if what.starts_with("read pkt") {
            self.settle();
        } else if what.starts_with("release_server") {
            self.settle();
            if let Some(live) = self.live.get_mut(object) {
                live.own = false;
                live.pending.clear();
            }
        } else if what.starts_with("varcache_apply: SET") {
            self.settle();
            if let Some(live) = self.live.get_mut(object) {
                live.own = true;
            }
        } else if what.starts_with("closing because") {
            self.settle();
            self.live.remove(object);
        }
    }

    /// Notes the last `ReadyForQuery`: nobody's, until somebody is named.
    fn settle(&mut self) {
        let Some(object) = self.ready.take() else { return };
        if let Some(live) = self.live.get_mut(&object)
            && live.logged_in
            && let Some(server) = self.log.servers.get_mut(live.index)
        {
            if !std::mem::take(&mut live.own) {
                live.pending.push(server.answers.len());
            }
            server.answers.push(None);
        }
    }
}

/// `postgres/postgres@127.0.0.1:33612 login attempt…` or `…@unix(4411):6700 …`
fn place(said: &str) -> Option<Place> {
    let address = said.split_once(' ')?.0.rsplit_once('@')?.1;
    if let Some(rest) = address.strip_prefix("unix(") {
        return Some(Place::Unix(rest.split_once(')')?.0.parse().ok()?));
    }
    Some(Place::Tcp(address.rsplit_once(':')?.1.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "2026-11-21 17:18:27.792 UTC [4394] NOISE ";

    fn log(lines: &[&str]) -> BouncerLog {
        parse(
            &lines
                .iter()
                .map(|line| format!("{HEAD}{line}\n"))
                .collect::<String>(),
        )
    }

    fn answer(client: usize, nth: usize) -> Option<Answer> {
        Some(Answer { client, nth })
    }

    #[test]
    fn each_answer_has_its_client() {
        let log = log(&[
            "C-0x1: shop/app@127.0.0.1:33612 login attempt: db=shop user=app tls=no",
            "S-0x9: shop/app@127.0.0.1:6699 new connection to server (from 127.0.0.1:42648)",
            "S-0x9: shop/app@127.0.0.1:6699 read pkt='Z', len=6",
            "S-0x9: shop/app@127.0.0.1:6699 server login ok, start accepting queries",
            "S-0x9: shop/app@127.0.0.1:6699 release_server: new state=12",
            "C-0x2: shop/app@unix(4411):6700 login attempt: db=shop user=app tls=no",
            // Its own, then the client's: the address of the parameter has a colon, too.
            "S-0x9: shop/app@127.0.0.1:6699 varcache_apply: SET application_name='a2';",
            "S-0x9: shop/app@127.0.0.1:6699 read pkt='Z', len=6",
            "resync(11): done=40, parse=40, recv=40",
            "C-0x1: shop/app@127.0.0.1:33612 read pkt='Q' len=14",
            // Two that were sent at once.
            "S-0x9: shop/app@127.0.0.1:6699 read pkt='Z', len=6",
            "S-0x9: shop/app@127.0.0.1:6699 read pkt='T', len=6",
            "S-0x9: shop/app@127.0.0.1:6699 read pkt='Z', len=6",
            "S-0x9: shop/app@127.0.0.1:6699 pop_outstanding_request: popped S, still outstanding 0, skip 0",
            "C-0x1: shop/app@127.0.0.1:33612 query time: 447 us",
            "C-0x1: shop/app@127.0.0.1:33612 transaction time: 447 us",
            "S-0x9: shop/app@127.0.0.1:6699 release_server: new state=12",
            "S-0x9: shop/app@127.0.0.1:6699 read pkt='Z', len=6",
            "C-0x2: shop/app@unix(4411):6700 query time: 9 us",
            "S-0x9: shop/app@127.0.0.1:6699 closing because: client disconnect while server was not ready (age=0s)",
        ]);
        assert_eq!(
            log.clients,
            [
                Client {
                    place: Place::Tcp(33612)
                },
                Client {
                    place: Place::Unix(4411)
                }
            ]
        );
        assert_eq!(
            log.servers,
            [Server {
                port: Some(42648),
                answers: vec![None, answer(0, 0), answer(0, 1), answer(1, 0)],
            }]
        );
    }

    #[test]
    fn an_address_that_is_used_again_is_another_client() {
        let log = log(&[
            "S-0x9: shop/app@127.0.0.1:6699 new connection to server (from 127.0.0.1:42648)",
            "S-0x9: shop/app@127.0.0.1:6699 read pkt='Z', len=6",
            "S-0x9: shop/app@127.0.0.1:6699 server login ok, start accepting queries",
            "C-0x1: shop/app@127.0.0.1:1 login attempt: db=shop user=app tls=no",
            "S-0x9: shop/app@127.0.0.1:6699 read pkt='Z', len=6",
            "C-0x1: shop/app@127.0.0.1:1 query time: 9 us",
            "C-0x1: shop/app@127.0.0.1:2 login attempt: db=shop user=app tls=no",
            "S-0x9: shop/app@127.0.0.1:6699 read pkt='Z', len=6",
            "C-0x1: shop/app@127.0.0.1:2 query time: 9 us",
        ]);
        assert_eq!(log.servers[0].answers, [answer(0, 0), answer(1, 0)]);
        assert_eq!(parse("nonsense\n] x y: z\n").servers, []);
    }
}
