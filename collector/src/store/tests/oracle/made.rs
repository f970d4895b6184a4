//! Made-up evidence: a log of two agents and of the collector's own word, random but for its seed.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use evidence::Chain;
use prost::Message as _;

use super::*;
use crate::{
    log::{Appended, Candidate, Log, LogOptions, Originator},
    store::erase::Selected,
};

mod statement;

use self::statement::query;

const PRINCIPALS: [&str; 5] = [
    "spiffe://td/host/h/unit/shop.service",
    "spiffe://td/host/h/unit/desk_1.service",
    "spiffe://td/host/h/unit/desk%1.service",
    "spiffe://td/addr/10.0.0.5",
    "unknown",
];
const HOURS: u64 = 9;
const HOUR_NS: u64 = 3_600_000_000_000;
const DAY_NS: u64 = 24 * HOUR_NS;
/// Where all of a log is not of one day, the second half of what agents told is of this one.
pub(super) const SECOND_HALF: u64 = START + 2 * DAY_NS;

/// Makes a log of some hundred events in the folder, of one day or of several, closed; returns the id of the collector's own chain.
pub(super) async fn log(data: &Path, seed: u64) -> String {
    let mut random = StdRng::seed_from_u64(seed);
    let options = LogOptions {
        name: Some("test".to_owned()),
        checkpoint_interval: Duration::from_secs(3600),
        segment_bytes: 20_000,
    };
    let opened = Log::open(data, options, Arc::default()).unwrap();
    drop(opened.durable);
    let key = SigningKey::from_bytes(&[3; 32]);
    let mut chains = ["a", "b"].map(|agent| (Chain::new(agent), 1));
    for (chain, _) in &chains {
        let met = opened
            .log
            .hello(chain.agent_id.clone(), key.verifying_key())
            .await;
        met.unwrap().unwrap();
    }
    let mut own = Originator::enrol(&opened.log).await.unwrap();
    let several_days = !seed.is_multiple_of(2);
    let batches = random.gen_range(40..70);
    for place in 0..batches {
        if random.gen_ratio(1, 6) {
            let count = random.gen_range(1..4);
            let later = if several_days { DAY_NS } else { 0 };
            let said = (0..count).map(|_| amendment(&mut random, &chains, later));
            let said = said.collect();
            own.say(said).await.unwrap();
            continue;
        }
        let (chain, next) = &mut chains[random.gen_range(0..2)];
        let later = if several_days && place > batches / 2 {
            SECOND_HALF - START
        } else {
            0
        };
        let events: Vec<v1::Event> = (0..random.gen_range(1..9))
            .map(|n| v1::Event {
                seq: *next + n,
                ..event(&mut random, later)
            })
            .collect();
        append(&opened.log, chain, &key, &events).await;
        *next += events.len() as u64;
    }
    let id = own.id().to_owned();
    opened.log.close().await;
    opened.ended.await.unwrap().unwrap();
    id
}

async fn append(log: &Log, chain: &mut Chain, key: &SigningKey, events: &[v1::Event]) {
    let encoded: Vec<Bytes> = events
        .iter()
        .map(|event| Bytes::from(event.encode_to_vec()))
        .collect();
    let first = events[0].seq;
    let batch = evidence::seal(
        chain,
        key,
        encoded,
        first,
        1,
        2,
        v1::Counters::default(),
        [first as u8; 32],
    );
    let opened = evidence::open(&batch, &key.verifying_key(), &crate::log::limits()).unwrap();
    let events = crate::log::decode_events(&opened).unwrap();
    let seal = evidence::Seal {
        header: opened.header,
        header_hash: opened.header_hash,
    };
    let candidate = Candidate {
        batch,
        seal,
        events,
        stream_refused: Arc::default(),
    };
    let stored = log.append(candidate).await.unwrap().await.unwrap();
    assert!(matches!(stored, Appended::Stored(_)), "{stored:?}");
}

pub(super) fn session(random: &mut StdRng) -> String {
    format!("boot-{}", random.gen_range(0..4))
}

/// A moment of the time that events are of, or near it.
pub(super) fn moment(random: &mut StdRng) -> i64 {
    (START + random.gen_range(0..HOURS * HOUR_NS)) as i64
}

pub(super) fn span(random: &mut StdRng) -> Span {
    let mut some = || random.gen_bool(0.5).then(|| moment(random));
    Span {
        since_ns: some(),
        until_ns: some(),
    }
}

pub(super) fn pattern(random: &mut StdRng) -> String {
    let patterns = [
        "spiffe://td/host/h/unit/desk_?.service",
        "*desk%1*",
        "*",
        "spiffe://td/addr/*",
        "none",
    ];
    let all: Vec<&str> = PRINCIPALS.into_iter().chain(patterns).collect();
    all[random.gen_range(0..all.len())].to_owned()
}

pub(super) fn object_asked(random: &mut StdRng) -> String {
    let asked = [
        "public.customers",
        "customers",
        "public.orders",
        "orders",
        "public",
        "omers",
    ];
    asked[random.gen_range(0..asked.len())].to_owned()
}

/// A record of `public.customers`: one of those that statements touch, or none.
pub(super) fn asked(random: &mut StdRng, span: Span) -> Asked {
    let value = random.gen_range(0..12);
    let keys: &[&str] = if random.gen_bool(0.5) {
        &["old", "new"]
    } else {
        &["new"]
    };
    let sought = |key: &&str| Sought {
        key: (*key).to_owned(),
        family: "integer".to_owned(),
        token: subjects::token(key, value).to_string(),
    };
    Asked {
        object: "public.customers".to_owned(),
        column: "id".to_owned(),
        tokens: keys.iter().map(sought).collect(),
        span,
    }
}

/// What an erasure may be of: a principal, a record, or some events, whatever they are.
pub(super) fn to_erase(random: &mut StdRng, events: &[(String, u64)]) -> Selected {
    match random.gen_range(0..3) {
        0 => Selected::Principal(one_of(random, &PRINCIPALS).to_owned()),
        1 => Selected::Record {
            asked: asked(random, Span::default()),
            possible: random.gen_bool(0.5),
        },
        _ => Selected::Ids((0..20).map(|_| one_of(random, events)).collect()),
    }
}

/// Some of the collector's own words: names that were given later, of which nothing else goes.
pub(super) fn names_to_erase(random: &mut StdRng, events: &[(String, u64)], own: &str) -> Selected {
    let said = events.iter().filter(|(agent, _)| agent == own).cloned();
    let said: Vec<(String, u64)> = said.collect();
    Selected::Ids((0..4).map(|_| one_of(random, &said)).collect())
}

fn one_of<T: Clone>(random: &mut StdRng, of: &[T]) -> T {
    of[random.gen_range(0..of.len())].clone()
}

fn attribution(random: &mut StdRng) -> v1::Attribution {
    let principal = one_of(random, &PRINCIPALS);
    let known = principal != "unknown";
    let confidence = match random.gen_range(0..4) {
        _ if !known => v1::Confidence::None,
        0 | 1 => v1::Confidence::Observed,
        2 => v1::Confidence::Inferred,
        _ => v1::Confidence::Joined,
    };
    let reason = match random.gen_range(0..3) {
        0 => String::new(),
        1 => "no connect() was recorded".to_owned(),
        _ => format!(
            "process {} had ended before the server read from it",
            random.gen_range(1..99_999)
        ),
    };
    let pooled = random.gen_ratio(1, 8).then(|| v1::Hop {
        name: "spiffe://td/host/h/unit/pgbouncer.service".to_owned(),
        role: "pooler".to_owned(),
        session: session(random),
        ..Default::default()
    });
    v1::Attribution {
        principal: principal.to_owned(),
        confidence: confidence.into(),
        method: one_of(random, &["tcp-owner", "address", "lease"]).to_owned(),
        reason: if known { String::new() } else { reason },
        hops: pooled.into_iter().collect(),
        ..Default::default()
    }
}

/// Of a session, or of some statements of one; sometimes it takes names of statements back, and sometimes it is of nothing that
/// there is.
fn amendment(random: &mut StdRng, chains: &[(Chain, u64); 2], later: u64) -> v1::Event {
    let (chain, next) = &chains[random.gen_range(0..2)];
    let mut seqs: Vec<u64> = (0..random.gen_range(1..6))
        .map(|_| random.gen_range(1..=*next))
        .collect();
    seqs.sort_unstable();
    seqs.dedup();
    let of_statements = random.gen_bool(0.5);
    let matched = match (of_statements, random.gen_ratio(1, 4)) {
        (true, _) => "lease",
        (false, true) => attribution::POOLERS,
        (false, false) => "fingerprint",
    };
    let steps = seqs
        .iter()
        .scan(0, |before, seq| Some(seq - std::mem::replace(before, *seq)));
    v1::Event {
        ts_start_ns: moment(random) as u64 + later,
        attribution: Some(attribution(random)),
        body: Some(Body::Amendment(v1::Amendment {
            agent_id: chain.agent_id.clone(),
            session: if of_statements {
                String::new()
            } else {
                session(random)
            },
            join_version: 1,
            r#match: matched.to_owned(),
            events: if of_statements {
                steps.collect()
            } else {
                Vec::new()
            },
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Anything that an agent tells.
fn event(random: &mut StdRng, later: u64) -> v1::Event {
    let begins = START + later + random.gen_range(0..HOURS * HOUR_NS);
    let of_session = v1::Event {
        ts_start_ns: begins,
        ts_end_ns: begins + random.gen_range(0..HOUR_NS / 4),
        session: Some(v1::Session {
            id: session(random),
            login_role: one_of(random, &["", "app_user", "postgres"]).to_owned(),
            database: one_of(random, &["shop", "ledger"]).to_owned(),
            ..Default::default()
        }),
        attribution: random.gen_ratio(19, 20).then(|| attribution(random)),
        ..Default::default()
    };
    let of_nobody = v1::Event {
        session: None,
        attribution: None,
        ..of_session.clone()
    };
    let gap = v1::Gap {
        reason: one_of(random, &["ring_full", "missed"]).to_owned(),
        bytes_missing: random.gen_bool(0.5).then_some(9),
        events_missing: random.gen_bool(0.3).then_some(4),
        ..Default::default()
    };
    let (event, body) = match random.gen_range(0..100) {
        0..70 => (of_session, Body::Query(query(random))),
        70..78 => {
            let executions = random.gen_range(2..50);
            let query = v1::Query {
                transaction: None,
                ..query(random)
            };
            let all = v1::Rollup {
                query: Some(query),
                executions,
                committed: executions,
                ..Default::default()
            };
            (of_session, Body::Rollup(all))
        }
        78..82 => (of_session, Body::Gap(gap)),
        82..86 => (of_nobody, Body::Gap(gap)),
        86..88 => (
            of_session,
            Body::OpaqueSession(v1::OpaqueSession {
                reason: "not readable".to_owned(),
                ..Default::default()
            }),
        ),
        88..91 => (
            of_session,
            Body::AuthFailure(v1::AuthFailure {
                sqlstate: "28P01".to_owned(),
                ..Default::default()
            }),
        ),
        91..93 => (of_session, Body::SessionError(v1::SessionError::default())),
        93..95 => (of_session, Body::SessionOpen(v1::SessionOpen {})),
        95..96 => (of_nobody, Body::AgentPause(v1::AgentPause::default())),
        96..97 => (of_nobody, Body::CollectorChange(v1::CollectorChange::default())),
        _ => {
            let counters = v1::Counters {
                left_out: random.gen_range(0..5),
                ..Default::default()
            };
            (
                of_nobody,
                Body::Heartbeat(v1::Heartbeat {
                    counters: Some(counters),
                    ..Default::default()
                }),
            )
        }
    };
    v1::Event {
        body: Some(body),
        ..event
    }
}
