//! Connections that are no sessions of a server of this host, as they are told: those that lead to servers elsewhere, those of
//! poolers' clients, and what a pooler did with the former.

use attribution::Attribution;
use ebpf_abi::SocketFact;
use proto::v1;
use tap_core::{
    Endpoint, SessionFacts,
    lease::{Kind, Portion},
};

use super::{attribution, endpoint, session_id};
use crate::{clock::Clock, facts::flows::Flow, fleet_key};

/// Whose a connection to a server elsewhere is.
pub fn flow_owner(flow: &Flow, answer: &Attribution, clock: Clock) -> v1::Event {
    let fact = &flow.fact;
    let end = |bytes, port| endpoint(&Endpoint::Inet(tap_core::address(fact.family, bytes), port));
    let body = v1::FlowOwner {
        client: end(fact.local, fact.local_port),
        server: end(fact.remote, fact.remote_port),
        fingerprint: fleet_key::fingerprint(fact.fingerprint()),
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

/// A client of a pooler, first heard of `at` (nanoseconds since boot). Whether its connection is encrypted nobody looked at.
pub fn pooler_client(
    session: &SessionFacts,
    answer: &Attribution,
    pooler: &str,
    at: u64,
    clock: Clock,
    boot: &str,
) -> v1::Event {
    let body = v1::PoolerClient {
        pooler: pooler.to_owned(),
    };
    v1::Event {
        session: Some(v1::Session {
            encryption: v1::Encryption::Unknown.into(),
            ..super::session(session, boot)
        }),
        attribution: Some(attribution(answer)),
        ..super::own_event(at, clock, v1::event::Body::PoolerClient(body))
    }
}

/// The same client once more, for whoever did not hear of it.
pub fn pooler_client_again(
    session: v1::Session,
    answer: &Attribution,
    pooler: &str,
    at: u64,
    clock: Clock,
) -> v1::Event {
    let body = v1::PoolerClient {
        pooler: pooler.to_owned(),
    };
    v1::Event {
        session: Some(session),
        attribution: Some(attribution(answer)),
        ..super::own_event(at, clock, v1::event::Body::PoolerClient(body))
    }
}

/// What a pooler, which is `own`, did with its end of a connection to a server elsewhere.
pub fn pooler_traffic(
    fact: &SocketFact,
    own: &Attribution,
    (kind, portion): (Kind, &Portion),
    at: u64,
    clock: Clock,
    boot: &str,
) -> v1::Event {
    let end = |bytes, port| endpoint(&Endpoint::Inet(tap_core::address(fact.family, bytes), port));
    let body = v1::PoolerTraffic {
        client: end(fact.local, fact.local_port),
        server: end(fact.remote, fact.remote_port),
        fingerprint: fleet_key::fingerprint(fact.fingerprint()),
        connection: session_id(boot, fact.cookie),
        ..::attribution::pooler_traffic(kind, portion, |client| session_id(boot, client))
    };
    v1::Event {
        attribution: Some(attribution(own)),
        ..super::own_event(at, clock, v1::event::Body::PoolerTraffic(body))
    }
}
