//! What waits, and what is decided about it.
//!
//! Owns when a session is looked at: when it is heard of first, when its end is known better, and whenever a connection is
//! told of that may be its own. Of several connections the first by agent and number is named, so that the order in which
//! they arrived changes nothing.

use std::sync::Arc;

use attribution::{
    Account, End, JOIN_VERSION, Joined, METHOD, Match, POD_ADDRESS, TAKEN_BACK, amended, is_by_pod_uid,
    is_same_container, join, says_more, taken_back,
};
use compact_str::CompactString;
use datafusion::common::HashMap;
use prost::Message;
use proto::{
    json,
    v1::{self, event},
};

use super::{
    Flow, Session,
    shelf::{Kept, Shelf},
};
use crate::store::Amendments;

/// The ends that wait for each other.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    sessions: Shelf<Session>,
    flows: Shelf<Flow>,
    /// Places of sessions, by agent and id.
    places: HashMap<Arc<str>, HashMap<CompactString, u64>>,
    /// Places of sessions to be decided about.
    due: std::collections::VecDeque<u64>,
}

impl Kept for Session {
    fn end(&self) -> &End {
        &self.end
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.attribution.len() + self.id.len()
    }
}

impl Kept for Flow {
    fn end(&self) -> &End {
        &self.end
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.attribution.len() + self.claim.len()
    }
}

/// Who it is by the client's host: the principal, or the relays that are known; `None` where it says neither.
pub(super) fn claim(attribution: &v1::Attribution) -> Option<Box<str>> {
    let address = v1::Attribution {
        kind: v1::PrincipalKind::Remote.into(),
        ..v1::Attribution::default()
    };
    if !says_more(&address, attribution) {
        return None;
    }
    let hops = attribution.hops.iter().map(|hop| hop.name.as_str());
    let words: Vec<&str> = [attribution.principal.as_str()].into_iter().chain(hops).collect();
    Some(words.join("\n").into())
}

impl Waiting {
    /// Whether the session is known with all that `end` says.
    pub(super) fn knows(&self, agent: &str, id: &str, end: &End) -> bool {
        let place = self.places.get(agent).and_then(|sessions| sessions.get(id));
        let known = place.and_then(|place| self.sessions.get(*place));
        known.is_some_and(|known| known.end.fingerprint.is_some() || end.fingerprint.is_none())
    }

    /// Takes in a session, or what is known better of it; false if later flows will not find it.
    pub(super) fn add_session(&mut self, session: Session) -> bool {
        let sessions = match self.places.get_mut(&session.agent) {
            Some(sessions) => sessions,
            None => self.places.entry(Arc::clone(&session.agent)).or_default(),
        };
        let id = session.id.clone();
        if let Some(place) = sessions.get(&id).copied() {
            let Some(known) = self.sessions.get(place) else {
                return false;
            };
            if (known.end.client, known.end.server) != (session.end.client, session.end.server) {
                // A session does not move: whoever says so is not listened to.
                return false;
            }
            let (due, telling, met) = (known.due, known.telling, known.met);
            let better = Session {
                due,
                telling,
                met,
                ..session
            };
            let found = self.sessions.replace(place, better);
            self.make_due(place);
            return found;
        }
        let (place, found) = self.sessions.push(session);
        sessions.insert(id, place);
        self.make_due(place);
        found
    }

    /// Takes in a connection; false if it is one too many of its kind.
    pub(super) fn add_flow(&mut self, flow: Flow) -> bool {
        let end = flow.end;
        let again = self.flows.fitting(&end).places.into_iter().any(|place| {
            self.flows.get(place).is_some_and(|known| {
                (&known.agent, &known.claim) == (&flow.agent, &flow.claim)
                    && (known.end.client, known.end.server, known.end.fingerprint)
                        == (end.client, end.server, end.fingerprint)
                    && (end.fingerprint.is_some() || known.end.at == end.at)
            })
        });
        if again {
            return true;
        }
        let (_, found) = self.flows.push(flow);
        for place in self.sessions.fitting(&end).places {
            self.make_due(place);
        }
        found
    }

    /// An amendment of this session is in the log, and in the table.
    pub(super) fn was_told(&mut self, agent: &str, id: &str) {
        let place = self.places.get(agent).and_then(|sessions| sessions.get(id));
        if let Some(session) = place.and_then(|place| self.sessions.get_mut(*place)) {
            session.telling = false;
        }
    }

    /// Lets go of what is too much; gives how many of those had met nothing.
    pub(super) fn forget_excess(&mut self) -> u64 {
        let mut alone = 0;
        while let Some(session) = self.sessions.pop_excess(MAX_SESSIONS) {
            alone += u64::from(!session.met);
            if let Some(sessions) = self.places.get_mut(&session.agent) {
                sessions.remove(&session.id);
            }
        }
        while let Some(flow) = self.flows.pop_excess(MAX_FLOWS) {
            alone += u64::from(!flow.met);
        }
        alone
    }

    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    fn make_due(&mut self, place: u64) {
        if let Some(session) = self.sessions.get_mut(place)
            && !session.due
        {
            session.due = true;
            self.due.push_back(place);
        }
    }

    /// Decides about those that are due, until there are `most` amendments or about `bytes` of them.
    pub(super) fn decide(
        &mut self,
        standing: &Amendments,
        now: u64,
        most: usize,
        bytes: usize,
    ) -> Vec<v1::Event> {
        let mut events = Vec::new();
        let mut taken = 0;
        for _ in 0..self.due.len() {
            let Some(place) = self.due.pop_front() else { break };
            let Some(session) = self.sessions.get_mut(place) else {
                continue;
            };
            if session.telling {
                // What is on the way is not in the table yet.
                self.due.push_back(place);
                continue;
            }
            session.due = false;
            if let Some(event) = self.decide_one(place, standing, now) {
                taken += event.encoded_len();
                events.push(event);
                if let Some(session) = self.sessions.get_mut(place) {
                    session.telling = true;
                }
            }
            if events.len() >= most || taken >= bytes {
                break;
            }
        }
        events
    }

    fn decide_one(&mut self, place: u64, standing: &Amendments, now: u64) -> Option<v1::Event> {
        let session = self.sessions.get(place)?;
        let fitting = self.flows.fitting(&session.end);
        let mut flows: Vec<(u64, &Flow)> = Vec::new();
        for place in fitting.places {
            flows.extend(self.flows.get(place).map(|flow| (place, flow)));
        }
        flows.sort_by_key(|(_, flow)| (Arc::clone(&flow.agent), flow.seq));
        let ends = flows.iter().enumerate().map(|(nth, (_, flow))| (nth, flow.end));
        let claim = |nth: usize| flows.get(nth).map(|(_, flow)| &flow.claim);
        let joined = join(&session.end, ends, |one, other| claim(one) == claim(other));
        let joined = match joined {
            Joined::One(..) if fitting.crowded => Joined::Several(flows.len() + 1),
            other => other,
        };
        let before = standing.standing(&session.agent, &session.id);
        let (event, met) = match joined {
            Joined::None => return None,
            Joined::One(nth, how) => {
                let (place, flow) = *flows.get(nth)?;
                (of_one(session, flow, how, before, now), vec![place])
            }
            Joined::Several(claims) => {
                let places = flows.iter().map(|(place, _)| *place).collect();
                (of_several(session, &flows, claims, before, now), places)
            }
        };
        self.sessions.get_mut(place)?.met = true;
        for place in met {
            if let Some(flow) = self.flows.get_mut(place) {
                flow.met = true;
            }
        }
        event
    }
}

/// The amendment of a session that one connection fits; `None` where that says nothing new.
fn of_one(
    session: &Session,
    flow: &Flow,
    how: Match,
    before: Option<v1::Attribution>,
    now: u64,
) -> Option<v1::Event> {
    let told = Told::of(session)?;
    let flow_told = v1::Attribution::decode(flow.attribution.as_ref()).ok()?;
    let flow_id = json::event_id(&flow.agent, flow.seq);
    let account = Account {
        agent: &flow.agent,
        event_id: &flow_id,
        end: flow.end,
        attribution: &flow_told,
    };
    let attribution = amended(&told.account(session), &account, how)?;
    let inputs = vec![told.event_id.clone(), flow_id];
    let weak = i32::from(v1::Confidence::Inferred);
    // Under its pod's name a container is who it was.
    let same = |before: &v1::Attribution| {
        before.principal == attribution.principal
            || is_by_pod_uid(before) && is_same_container(before, &attribution)
    };
    let stands = |before: &v1::Attribution| {
        // What was contested once stays so.
        before.method != METHOD
            || before.confidence >= attribution.confidence && (same(before) || attribution.confidence == weak)
    };
    // Another claim of the same strength, of which the first is not at hand any longer.
    let contested = |before: &v1::Attribution| {
        !same(before) && (before.confidence != weak || attribution.confidence <= weak)
    };
    // Whoever connected knows better than a map of addresses.
    match before.filter(|before| before.method != POD_ADDRESS) {
        Some(before) if stands(&before) => None,
        Some(before) if contested(&before) => {
            let recorded = taken_back(&told.account(session), 2);
            Some(event(session, recorded, TAKEN_BACK, inputs, now))
        }
        _ => Some(event(session, attribution, how.name(), inputs, now)),
    }
}

/// The amendment that takes back a name that several claim, or says beforehand that none is taken: else the address of the session would
/// count. `None` where that was said, or where nothing was and the claims may yet give way to one that is exact.
fn of_several(
    session: &Session,
    flows: &[(u64, &Flow)],
    claims: usize,
    before: Option<v1::Attribution>,
    now: u64,
) -> Option<v1::Event> {
    // Others have the same addresses, and are of other connections.
    let how = |end: End| match join(&session.end, [((), end)], |(), ()| true) {
        Joined::One((), how) => Some(how),
        _ => None,
    };
    let fitting = flows.iter().filter_map(|(_, flow)| Some((*flow, how(flow.end)?)));
    let is_to_be_said = match before {
        Some(before) => before.method == METHOD || before.method == POD_ADDRESS,
        None => fitting.clone().any(|(_, how)| how != Match::Pair),
    };
    if !is_to_be_said {
        return None;
    }
    let told = Told::of(session)?;
    let ids = fitting.map(|(flow, _)| json::event_id(&flow.agent, flow.seq));
    let inputs = [told.event_id.clone()].into_iter().chain(ids).collect();
    let attribution = taken_back(&told.account(session), claims);
    Some(event(session, attribution, TAKEN_BACK, inputs, now))
}

fn event(
    session: &Session,
    attribution: v1::Attribution,
    how: &str,
    inputs: Vec<String>,
    now: u64,
) -> v1::Event {
    v1::Event {
        ts_start_ns: now,
        ts_end_ns: now,
        attribution: Some(attribution),
        body: Some(event::Body::Amendment(v1::Amendment {
            agent_id: session.agent.to_string(),
            session: session.id.to_string(),
            inputs,
            join_version: JOIN_VERSION,
            r#match: how.to_owned(),
            events: Vec::new(),
        })),
        ..v1::Event::default()
    }
}

/// What a session's own host told.
struct Told {
    event_id: String,
    attribution: v1::Attribution,
}

impl Told {
    fn of(session: &Session) -> Option<Self> {
        Some(Self {
            event_id: json::event_id(&session.agent, session.seq),
            attribution: v1::Attribution::decode(session.attribution.as_ref()).ok()?,
        })
    }

    fn account<'a>(&'a self, session: &'a Session) -> Account<'a> {
        Account {
            agent: &session.agent,
            event_id: &self.event_id,
            end: session.end,
            attribution: &self.attribution,
        }
    }
}

/// Sessions and connections that are kept.
const MAX_SESSIONS: usize = 200_000;
const MAX_FLOWS: usize = 200_000;
