//! Connections that lead from this host to servers elsewhere, as they are told.

use attribution::Attribution;
use proto::v1;
use tap_core::Endpoint;

use super::{attribution, endpoint};
use crate::{clock::Clock, facts::flows::Flow};

/// Whose a connection to a server elsewhere is.
pub fn flow_owner(flow: &Flow, answer: &Attribution, clock: Clock) -> v1::Event {
    let fact = &flow.fact;
    let end = |bytes, port| endpoint(&Endpoint::Inet(tap_core::address(fact.family, bytes), port));
    let body = v1::FlowOwner {
        client: end(fact.local, fact.local_port),
        server: end(fact.remote, fact.remote_port),
        fingerprint: fact.fingerprint(),
        network_namespace: fact.netns,
    };
    v1::Event {
        ts_start_ns: clock.utc(flow.opened),
        ts_end_ns: clock.utc(fact.at),
        attribution: Some(attribution(answer)),
        body: Some(v1::event::Body::FlowOwner(body)),
        ..v1::Event::default()
    }
}
