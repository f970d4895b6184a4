//! Names by addresses: of sessions that nobody told of but by where they came from.
//!
//! Owns how long such a session waits, to be joined and for the API server's word, and when a pod is said again because it has got an
//! address since. Separate from names by uids, which wait for nobody.

use std::net::IpAddr;

use attribution::{POD_ADDRESS, by_address};
use prost::Message;
use proto::{json, v1};

use super::{
    Outcome, Pods,
    waiting::{Of, Saying},
};
use crate::{
    cluster::{Cluster, Had},
    store::Amendments,
};

impl Pods {
    /// Decides about all that wait for an address and have waited for long enough.
    pub(super) fn decide_addresses(
        &mut self,
        own: &str,
        standing: &Amendments,
        cluster: &Cluster,
        now: u64,
        saying: &mut Saying,
    ) {
        let mut next = 0;
        while !saying.is_full()
            && let Some(place) = self.by_address.range(next..).next().copied()
        {
            next = place + 1;
            let outcome = self.by_its_address(place, own, standing, cluster, now);
            // They came in order, and where the API server is silent, it is for all of them.
            if matches!(outcome, Outcome::Wait) {
                break;
            }
            self.settle(place, outcome, now, saying);
        }
    }

    fn by_its_address(
        &self,
        place: u64,
        own: &str,
        standing: &Amendments,
        cluster: &Cluster,
        now: u64,
    ) -> Outcome {
        let Some(one) = self.waiting.get(&place) else {
            return Outcome::Done;
        };
        let Of::Address { address, at } = one.of else {
            return Outcome::Done;
        };
        let waited = now.saturating_sub(one.since);
        if waited < PATIENCE_NS {
            return Outcome::Wait;
        }
        // Whoever connected knows better.
        if standing.standing(&one.agent, &one.session).is_some() {
            return Outcome::Done;
        }
        let known = match cluster.by_address(address, at) {
            Had::By(known) => known,
            Had::Nobody => return Outcome::Done,
            Had::NotKnown if waited < GIVE_UP_NS => return Outcome::Wait,
            Had::NotKnown => return Outcome::Done,
        };
        let uid = known.told.pod.as_ref().map_or("", |pod| &pod.uid);
        if self.is_contested(uid, cluster) {
            return Outcome::Done;
        }
        let Some(told) = self.told.get(uid) else {
            return Outcome::Tell(known);
        };
        let pod_event = json::event_id(own, told.seq);
        let recorded = v1::Attribution::decode(one.attribution.as_ref()).unwrap_or_default();
        match by_address(&session(address), &recorded, at, &pod_event, &told.pod) {
            Some(named) => Outcome::Name(Box::new(one.event(named, POD_ADDRESS, pod_event, now))),
            // It was said before it had the address.
            None if known.told.addresses != told.pod.addresses => Outcome::Tell(known),
            None => Outcome::Done,
        }
    }
}

/// What a name by an address rests on, of a session.
fn session(address: IpAddr) -> v1::Session {
    v1::Session {
        transport: v1::Transport::Tcp.into(),
        client: Some(v1::Endpoint {
            addr: address.to_string(),
            port: 0,
        }),
        ..v1::Session::default()
    }
}

/// How long a session waits to be joined before its address counts, and the API server's word on the address may take.
const PATIENCE_NS: u64 = cluster::LATE_NS;

/// How long a session waits for the API server to be heard again; later, its addresses of that time are not known any more.
const GIVE_UP_NS: u64 = 600_000_000_000;
