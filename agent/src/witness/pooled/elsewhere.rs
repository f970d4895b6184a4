//! Poolers' connections to servers that are not on this host: what the pooler did with them is told, with the clients that it
//! names, and the collector decides (`lease`), because the statements are another agent's.
//!
//! Owns when that is told: a connection that no server of this host has accepted within a second, each second, or after some
//! hundred statements. While the agent is paused nothing is kept: what is told behind has a hole there.

use ebpf_abi::SocketFact;
use proto::v1;
use tap_core::ByCookie;

use super::{book::Key, *};
use crate::witness::Discard;

/// How long a server of this host has to show that it is the other end, in nanoseconds.
const HOLD_NS: u64 = 1_000_000_000;

/// How often is told what a connection did, in nanoseconds.
const TELL_NS: u64 = 1_000_000_000;

/// How often is looked whether something is to be told, in nanoseconds.
const LOOK_NS: u64 = 100_000_000;

/// Pieces that are told before their time: those of some hundred statements.
const PIECES: usize = 1_024;

/// How often a client is told again, in nanoseconds: a collector that was started meanwhile reads only the newest part of its log.
const AGAIN_NS: u64 = 600_000_000_000;

/// Connections that lead elsewhere, and clients that are remembered; the oldest are forgotten.
const KEPT: usize = 65_536;

/// What leads elsewhere, or may.
#[derive(Default)]
pub(super) struct Elsewhere {
    servers: ByCookie<Led>,
    clients: ByCookie<Known>,
    looked: u64,
    told: u64,
}

/// A connection to a server.
struct Led {
    fact: SocketFact,
    key: Key,
    since: u64,
    told: u64,
}

/// A client of a pooler.
struct Known {
    session: v1::Session,
    told: Option<u64>,
}

impl Elsewhere {
    /// A pooler has a connection to a server, wherever that is. One whose first sequence numbers are not known is not told:
    /// nobody could join it.
    pub(super) fn leads(&mut self, fact: &SocketFact, now: u64) {
        let (Some(_), Some(key)) = (fact.fingerprint(), Key::of(fact)) else {
            return;
        };
        make_room(&mut self.servers);
        self.servers.entry(fact.cookie).or_insert(Led {
            fact: *fact,
            key,
            since: now,
            told: now,
        });
    }

    /// A pooler has a client; `told`: as an event of its own.
    pub(super) fn has_client(&mut self, cookie: u64, session: v1::Session, told: Option<u64>) {
        make_room(&mut self.clients);
        self.clients.insert(cookie, Known { session, told });
    }

    /// The session of a client that is to be told now.
    fn untold(&mut self, client: u64, now: u64) -> Option<v1::Session> {
        let known = self.clients.get_mut(&client)?;
        let is_due = known.told.is_none_or(|told| told.saturating_add(AGAIN_NS) <= now);
        is_due.then(|| {
            known.told = Some(now);
            known.session.clone()
        })
    }
}

/// The kernel counts cookies up: low ones are old.
fn make_room<T>(kept: &mut ByCookie<T>) {
    if kept.len() < KEPT {
        return;
    }
    let mut cookies: Vec<u64> = kept.keys().copied().collect();
    cookies.sort_unstable();
    for cookie in cookies.into_iter().take(KEPT / 4) {
        kept.remove(&cookie);
    }
}

impl Pooled {
    /// Connections about which something is to be told; `last`: all.
    fn due_elsewhere(&mut self, now: u64, last: bool) -> Vec<u64> {
        let Self {
            tracker,
            accepted,
            book,
            elsewhere,
            ..
        } = self;
        // A server of this host has it, or another pooler, which goes on to one: what its statements are is decided here.
        elsewhere
            .servers
            .retain(|_, led| !accepted.contains_key(&led.key) && !book.ends_here(led.key));
        let due = elsewhere.servers.iter().filter(|(cookie, led)| {
            let is_ripe = last || now >= led.since.saturating_add(HOLD_NS);
            let is_time = last || now >= led.told.saturating_add(TELL_NS);
            is_ripe && (is_time || tracker.undrained(**cookie) >= PIECES)
        });
        due.map(|(cookie, _)| *cookie).collect()
    }
}

impl Witness {
    /// Portions told of connections that lead elsewhere.
    pub fn traffic_told(&self) -> u64 {
        self.pooled.elsewhere.told
    }

    /// Tells what poolers did with connections to servers elsewhere, as far as it is time; `last`: all of it.
    pub(super) fn tell_elsewhere(&mut self, last: bool, out: &mut impl FnMut(&Encoded)) {
        let now = self.old.round_began;
        let elsewhere = &mut self.pooled.elsewhere;
        if elsewhere.servers.is_empty() || !last && now < elsewhere.looked.saturating_add(LOOK_NS) {
            return;
        }
        elsewhere.looked = now;
        for cookie in self.pooled.due_elsewhere(now, last) {
            self.tell_traffic(cookie, now, out);
        }
    }

    fn tell_traffic(&mut self, cookie: u64, now: u64, out: &mut impl FnMut(&Encoded)) {
        let Pooled {
            tracker,
            book,
            elsewhere,
            ..
        } = &mut self.pooled;
        let drained = tracker.drain(cookie);
        let is_over = drained.as_ref().is_some_and(|(_, portion)| portion.is_over);
        let Some(led) = elsewhere.servers.get_mut(&cookie) else {
            return;
        };
        led.told = now;
        let fact = led.fact;
        if is_over || !book.knows(cookie) {
            elsewhere.servers.remove(&cookie);
        }
        let (Some((kind, portion)), Some(tgid)) = (drained, book.program_of(cookie)) else {
            return;
        };
        if self.discard == Some(Discard::Paused) {
            return;
        }
        let name = book.name(tgid);
        for client in portion.clients() {
            let who = book.client(client).map(|(who, _)| who);
            if let Some(who) = who
                && let Some(session) = elsewhere.untold(client, now)
            {
                let event = record::pooler_client_again(session, who, &name, now, self.clock);
                out(&Encoded::of(&event));
            }
        }
        elsewhere.told += 1;
        let own = attribution::through_pooler(&book.hop(tgid), &attribution::Lease::Own);
        let event = record::pooler_traffic(&fact, &own, (kind, &portion), now, self.clock, &self.boot);
        out(&Encoded::of(&event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(cookie: u64, number: u32) -> SocketFact {
        crate::witness::pooled::tests::socket(cookie, 9, SocketRole::Connected, (number, 7))
    }

    #[test]
    fn what_a_server_of_this_host_has_is_not_told() {
        let mut pooled = Pooled::new();
        pooled.elsewhere.leads(&fact(1, 10), 5);
        pooled.elsewhere.leads(&fact(2, 11), 5);
        pooled.elsewhere.leads(&fact(3, 0), 5);
        assert!(pooled.due_elsewhere(4 + HOLD_NS, false).is_empty());
        if let Some(key) = Key::of(&fact(1, 10)) {
            pooled.accepted.insert(key, 77);
        }
        assert_eq!(pooled.due_elsewhere(5 + HOLD_NS, false), [2]);
        assert_eq!(pooled.due_elsewhere(0, true), [2]);
        // Another pooler of this host, which goes on to a server.
        let who = attribution::attribute(
            &attribution::Host {
                trust_domain: "td".into(),
                name: "h".into(),
            },
            &attribution::Peer::Unknown {
                reason: "x".to_owned(),
            },
        );
        pooled
            .book
            .add_client(8, 9, Key::of(&fact(2, 11)), "b-8".into(), who);
        assert!(pooled.due_elsewhere(0, true).is_empty());
    }

    #[test]
    fn a_client_is_told_once_and_again_much_later() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.has_client(1, v1::Session::default(), None);
        elsewhere.has_client(2, v1::Session::default(), Some(3));
        assert!(elsewhere.untold(1, 10).is_some() && elsewhere.untold(1, 11).is_none());
        assert!(elsewhere.untold(2, 10).is_none() && elsewhere.untold(3, 10).is_none());
        assert!(elsewhere.untold(1, 10 + AGAIN_NS).is_some());
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut elsewhere = Elsewhere::default();
        for cookie in 0..2 * KEPT as u64 {
            elsewhere.has_client(cookie, v1::Session::default(), None);
        }
        assert!(elsewhere.clients.len() <= KEPT && elsewhere.clients.contains_key(&(2 * KEPT as u64 - 1)));
    }
}
