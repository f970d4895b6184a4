//! A backend's session at the other end of a pooler's connection: its events wait here, each until it is known whose it is.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use attribution::Shown;
use proto::v1;
use tap_core::{
    Body, Event, ExchangeKind,
    lease::{Asked, By, Decision},
};

use super::{
    Pooled, SIGN_NS, WAIT_NS,
    book::{Key, Leg, Route},
    claims::{Turns, Whose},
};

/// Poolers one behind another that are followed.
const CHAIN: usize = 4;

/// A session.
pub(super) struct Session {
    pub(super) key: Option<Key>,
    /// The pooler's socket at its other end.
    pub(super) server: Option<u64>,
    /// The process at its other end, as the connect was recorded.
    peer: Option<u32>,
    /// When it was told.
    since: u64,
    pub(super) held: VecDeque<Held>,
    /// The connection is over.
    pub(super) is_over: bool,
    turns: Turns,
    /// The newest transaction, and whose its statements are.
    transaction: Option<(u64, Route)>,
}

/// An event that waits.
pub(super) struct Held {
    event: Event,
    /// Since when.
    since: u64,
    bytes: usize,
}

/// What an event's way was found to be.
enum Way {
    /// Ask again.
    NotYet,
    /// The pooler is not tapped: as the session itself was named.
    AsBefore,
    Of(Route, Option<Range<u64>>),
}

impl Session {
    pub(super) fn new(key: Option<Key>, peer: Option<u32>, since: u64) -> Self {
        Self {
            key,
            server: None,
            peer,
            since,
            held: VecDeque::new(),
            is_over: false,
            turns: Turns::default(),
            transaction: None,
        }
    }

    /// When what waits began.
    pub(super) fn starts(&self) -> impl Iterator<Item = u64> {
        self.held.iter().map(|held| held.event.times.start)
    }

    /// An event waits; returns how many bytes that takes.
    pub(super) fn hold(&mut self, event: Event, since: u64) -> usize {
        let bytes = weight(&event);
        self.held.push_back(Held { event, since, bytes });
        bytes
    }
}

/// What an event takes in memory, about.
fn weight(event: &Event) -> usize {
    /// Without what has no bound.
    const EVENT: usize = 1_024;
    let Body::Query(query) = &event.body else {
        return EVENT;
    };
    let texts = [&query.text, &query.source].into_iter().flatten();
    let values = query.params.iter().map(|param| param.kept.len());
    EVENT + texts.map(|text| text.len()).sum::<usize>() + values.sum::<usize>()
}

impl Pooled {
    /// The next event of a session that is decided, or has waited for long enough, and whose it is; `None` for that if it is
    /// as the session itself was named.
    pub(super) fn next(
        &mut self,
        cookie: u64,
        now: u64,
        caught_up: bool,
        give_up: bool,
    ) -> Option<(Event, Option<Arc<v1::Attribution>>)> {
        let session = self.sessions.get_mut(&cookie)?;
        let held = session.held.front()?;
        let is_late = caught_up && held.since.saturating_add(WAIT_NS) <= now;
        let over = give_up || is_late;
        if session.server.is_none() {
            session.server = session.key.and_then(|key| self.book.leading(key));
        }
        let way = self.way(cookie, now, caught_up, over);
        let session = self.sessions.get_mut(&cookie)?;
        let (route, range) = match way {
            Way::NotYet => return None,
            Way::AsBefore => (None, None),
            Way::Of(route, range) => (Some(route), range),
        };
        let mut held = session.held.pop_front()?;
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(held.bytes);
        let Some(route) = route else {
            // A pooler that is not followed: whose a setting is nobody knows.
            if let Body::Query(query) = &mut held.event.body {
                let asserted = query.asserted.take();
                query.asserted = asserted.and_then(|all| session.turns.own(&all, Whose::Unknown));
            }
            return Some((held.event, None));
        };
        if let Body::Query(query) = &mut held.event.body {
            let whose = whose(&route);
            session.turns.add(query.number, whose);
            query.client = range;
            query.asserted = query
                .asserted
                .take()
                .and_then(|asserted| session.turns.own(&asserted, whose));
            session.count(query.transaction, &route);
        }
        let who = self.names.of(&route, &self.book);
        Some((held.event, Some(who)))
    }

    fn way(&mut self, cookie: u64, now: u64, caught_up: bool, over: bool) -> Way {
        let Some(session) = self.sessions.get(&cookie) else {
            return Way::AsBefore;
        };
        let Some(held) = session.held.front() else {
            return Way::NotYet;
        };
        let Some(server) = session.server else {
            let tapped = session.peer.filter(|pid| self.book.is_tapped(*pid));
            let is_new = session.since.saturating_add(SIGN_NS) > now || !caught_up;
            return match tapped {
                _ if over => untold(tapped),
                None if is_new => Way::NotYet,
                Some(_) => Way::NotYet,
                None => Way::AsBefore,
            };
        };
        let Some(pooler) = self.book.program_of(server) else {
            return untold(session.peer.filter(|pid| self.book.is_tapped(*pid)));
        };
        let of = |leg| Way::Of(vec![(pooler, leg)], None);
        match &held.event.body {
            // The offsets have to be those of one stream at both ends.
            Body::Query(_)
                if self.tracker.is_encrypted(server) == Some(held.event.session.encryption.is_none()) =>
            {
                if over {
                    of(Leg::Undecided(
                        "its bytes are encrypted, and the plaintext is not seen at both ends",
                        Vec::new(),
                    ))
                } else {
                    Way::NotYet
                }
            }
            Body::Query(query) => {
                let asked = Asked {
                    request: query.request.clone(),
                    response_to: Some(query.response_to).filter(|to| *to > 0),
                    began: held.event.times.start,
                    simple: query.kind == ExchangeKind::Simple && !query.replication,
                    last: over,
                };
                self.route(server, pooler, asked)
            }
            Body::Transaction(end) => match &session.transaction {
                Some((number, route)) if *number == end.number => Way::Of(route.clone(), None),
                _ => of(Leg::Undecided(
                    "whose its statements were is not known",
                    Vec::new(),
                )),
            },
            Body::Cancel { .. } => of(Leg::Undecided(
                "for whom it cancels a statement was not followed",
                Vec::new(),
            )),
            _ => of(Leg::Own),
        }
    }

    /// From pooler to pooler.
    fn route(&mut self, mut server: u64, mut pooler: u32, mut asked: Asked) -> Way {
        let mut route = Route::new();
        let mut own_range = None;
        loop {
            // What another pooler in between spreads over its connections does not come in its own order.
            let decision = if route.is_empty() {
                self.tracker.decide(server, &asked)
            } else {
                self.tracker.look(server, &asked)
            };
            let leased = match decision {
                Decision::NotYet => return Way::NotYet,
                Decision::Own => {
                    route.push((pooler, Leg::Own));
                    break;
                }
                Decision::Undecided { reason, candidates } => {
                    route.push((pooler, Leg::Undecided(reason, candidates)));
                    break;
                }
                Decision::Client(leased) => leased,
            };
            route.push((pooler, Leg::Client(leased.client, shown(leased.by))));
            let is_known = !leased.range.is_empty();
            if own_range.is_none() && is_known {
                own_range = Some(leased.range.clone());
            }
            let Some(next) = self.book.behind(leased.client) else {
                break;
            };
            let Some(next_pooler) = self.book.program_of(next) else {
                break;
            };
            if !is_known || route.len() >= CHAIN {
                let reason = "another pooler wrote it anew, or there are too many of them";
                route.push((next_pooler, Leg::Undecided(reason, Vec::new())));
                break;
            }
            asked.request = leased.range;
            // Where its answer ends in that stream is not known.
            asked.response_to = None;
            (server, pooler) = (next, next_pooler);
        }
        Way::Of(route, own_range)
    }
}

impl Session {
    /// A statement of a transaction was told.
    fn count(&mut self, transaction: u64, route: &Route) {
        match &mut self.transaction {
            Some((number, known)) if *number == transaction => {
                let (before, now) = (whose(known), whose(route));
                if before == now || now == Whose::Own {
                    return;
                }
                *known = if before == Whose::Own {
                    route.clone()
                } else {
                    let several = Leg::Undecided("its statements are of several clients", Vec::new());
                    route
                        .iter()
                        .take(1)
                        .map(|(pooler, _)| (*pooler, several.clone()))
                        .collect()
                };
            }
            _ => self.transaction = Some((transaction, route.clone())),
        }
    }
}

/// The pooler's end was never told.
fn untold(tapped: Option<u32>) -> Way {
    match tapped {
        None => Way::AsBefore,
        Some(pooler) => {
            let reason = "the pooler's end of the connection is not known";
            Way::Of(vec![(pooler, Leg::Undecided(reason, Vec::new()))], None)
        }
    }
}

fn whose(route: &Route) -> Whose {
    match route.last() {
        Some((_, Leg::Client(client, _))) => Whose::Client(*client),
        Some((_, Leg::Own)) => Whose::Own,
        _ => Whose::Unknown,
    }
}

fn shown(by: By) -> Shown {
    match by {
        By::Both => Shown::Both,
        By::Request => Shown::Request,
        By::Answer => Shown::Answer,
        By::Sole => Shown::Sole,
    }
}
