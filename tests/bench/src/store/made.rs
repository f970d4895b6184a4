//! Made-up events of a busy site, the same for the same seed: what a recording is too short for.
//!
//! Owns the skew. Principals, statements and customers are chosen by a power of an even number, so that a few are seen all the time and
//! most hardly ever (of 300 principals the busiest has some 15 %). Sessions are those of a pool: they last, and are replaced one by
//! one. Times advance evenly over the span, of each agent by itself. Now and then a login fails, something is not seen, or a session cannot be
//! read, and in the last half day there is one program that was not there before. Agents, definitions and batches are as real ones are.

use std::collections::HashMap;

use anyhow::Result;
use evidence::{Chain, Contents};
use prost::Message as _;
use proto::v1::{self, definition::Kind};
use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng};
use subjects::{Family, Keys};

use crate::ingest::Agent;

/// Events of a batch, as agents have them at full speed.
const BATCH: u64 = 2048;

const PRINCIPALS: usize = 300;
const TABLES: usize = 200;
const TEMPLATES: usize = 2_000;
/// Of them, so many of a hundred name customers.
const NAMING: usize = 30;
pub(super) const CUSTOMERS: u64 = 1_000_000;
/// Open at once on each host.
const SESSIONS: usize = 200;
/// Of so many events, one replaces a session.
const LASTING: u32 = 400;
/// The last of the time, in which of so many sessions that are opened one is of a program that is new.
const LATELY_NS: u64 = 12 * 3_600_000_000_000;
const NEWCOMERS: u32 = 10;
/// Of so many events, so many are a login that failed, something that was not seen, and a session that cannot be read.
const OF_RARE: u32 = 1_000_000;
const FAILED_LOGINS: u32 = 60;
const GAPS: u32 = 40;
const OPAQUE: u32 = 10;

/// One agent, and what it will still send.
pub(super) struct Maker {
    id: String,
    key: ed25519_dalek::SigningKey,
    chain: Chain,
    random: StdRng,
    templates: Vec<Template>,
    sessions: Vec<Session>,
    opened: u64,
    next: u64,
    at_ns: f64,
    step_ns: f64,
    lately_ns: u64,
    /// The first half of its sessions' names.
    boot: u32,
    keys: Keys,
}

struct Template {
    encoded: Vec<u8>,
    names_customers: bool,
}

struct Session {
    number: u64,
    encoded: Vec<u8>,
}

impl Maker {
    /// One that will send so many events, which began within so many nanoseconds before now.
    pub(super) fn new(number: u64, events: u64, now_ns: u64, span_ns: u64) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(SEED + number);
        let mut key = [0; 32];
        random.fill_bytes(&mut key);
        // Of all agents the same: they are of one site.
        let mut common = StdRng::seed_from_u64(SEED);
        let id = format!("db-{number}");
        let mut maker = Self {
            key: ed25519_dalek::SigningKey::from_bytes(&key),
            chain: Chain::new(&id),
            id,
            templates: (0..TEMPLATES).map(|n| template(&mut common, n)).collect(),
            sessions: Vec::new(),
            opened: 0,
            next: 1,
            at_ns: (now_ns - span_ns) as f64,
            step_ns: span_ns as f64 / events.max(1) as f64,
            lately_ns: now_ns - LATELY_NS,
            boot: random.next_u32(),
            keys: Keys::parse(KEYS)?,
            random,
        };
        maker.sessions = (0..SESSIONS).map(|_| maker.session()).collect();
        Ok(maker)
    }

    /// The next events, in batches.
    pub(super) fn make(&mut self, events: u64) -> Agent {
        let (mut batches, mut made) = (Vec::new(), 0);
        while made < events {
            let count = BATCH.min(events - made);
            let (first_ns, first_seq) = (self.at_ns as u64, self.next);
            let contents = self.batch(count);
            let mut salt = [0; 32];
            self.random.fill_bytes(&mut salt);
            let last_ns = self.at_ns as u64;
            let (chain, key) = (&mut self.chain, &self.key);
            batches.push(evidence::seal(
                chain, key, contents, first_seq, first_ns, last_ns, None, salt,
            ));
            made += count;
        }
        Agent::with(&self.id, &self.key.verifying_key(), batches, made)
    }

    fn batch(&mut self, count: u64) -> Contents {
        let mut contents = Contents::default();
        let (mut templates, mut parties) = (HashMap::new(), HashMap::new());
        for _ in 0..count {
            if self.random.gen_ratio(1, LASTING) {
                let place = self.random.gen_range(0..SESSIONS);
                let session = self.session();
                if let Some(old) = self.sessions.get_mut(place) {
                    *old = session;
                }
            }
            let place = self.random.gen_range(0..SESSIONS);
            let chosen = skewed(&mut self.random, TEMPLATES as u64) as usize;
            let (Some(session), Some(template)) = (self.sessions.get(place), self.templates.get(chosen))
            else {
                continue;
            };
            let party = *parties
                .entry(session.number)
                .or_insert_with(|| contents.definition(&session.encoded));
            let named = *templates
                .entry(chosen)
                .or_insert_with(|| contents.definition(&template.encoded));
            let at_ns = self.at_ns as u64;
            let event = rare(&mut self.random, at_ns, party).unwrap_or_else(|| {
                let touched = template
                    .names_customers
                    .then(|| touched(&mut self.random, &self.keys));
                event(&mut self.random, at_ns, (party, named), touched)
            });
            contents.event(&[&event.encode_to_vec()]);
            self.next += 1;
            self.at_ns += self.step_ns;
        }
        contents
    }

    fn session(&mut self) -> Session {
        self.opened += 1;
        let is_new = self.at_ns as u64 > self.lately_ns && self.random.gen_ratio(1, NEWCOMERS);
        let principal = match is_new {
            true => PRINCIPALS as u64,
            false => skewed(&mut self.random, PRINCIPALS as u64),
        };
        let port = self.random.gen_range(32_768..61_000);
        let client = |addr: String, port| Some(v1::Endpoint { addr, port });
        let session = v1::Session {
            id: format!("{:08x}-{:x}", self.boot, self.opened),
            backend_pid: 1_000 + (self.opened % 30_000) as u32,
            login_role: "app_user".into(),
            database: format!("shop{}", principal % 3),
            application_name: format!("service-{principal}"),
            transport: v1::Transport::Tcp.into(),
            encryption: v1::Encryption::None.into(),
            client: client(format!("10.0.{}.{}", principal / 250, principal % 250), port),
            server: client("10.0.9.9".into(), 5432),
            server_version: "17.6".into(),
            ..Default::default()
        };
        let attribution = v1::Attribution {
            principal: format!("spiffe://site/host/{}/unit/service-{principal}.service", self.id),
            kind: v1::PrincipalKind::Unit.into(),
            confidence: v1::Confidence::Observed.into(),
            method: "tcp-owner".into(),
            evidence: vec![format!("connect() recorded by the kernel: port {port}")],
            ..Default::default()
        };
        let party = v1::Party {
            session: Some(session),
            attribution: Some(attribution),
        };
        Session {
            number: self.opened,
            encoded: definition(Kind::Party(party)),
        }
    }
}

/// The token that stands for a customer.
pub(super) fn token(keys: &Keys, customer: u64) -> [u8; 16] {
    keys.active()
        .token(Family::Integer, customer.to_string().as_bytes())
        .0
}

/// A number below `all`; small ones are far more likely.
fn skewed(random: &mut StdRng, all: u64) -> u64 {
    let even: f64 = random.gen_range(0.0..1.0);
    ((even.powi(3) * all as f64) as u64).min(all - 1)
}

/// Mostly one customer by a predicate, and now and then a page of them that was returned.
fn touched(random: &mut StdRng, keys: &Keys) -> v1::Subject {
    let count = if random.gen_ratio(1, 50) { 20 } else { 1 };
    let mut tokens: Vec<Vec<u8>> = (0..count)
        .map(|_| token(keys, skewed(random, CUSTOMERS)).to_vec())
        .collect();
    tokens.sort();
    tokens.dedup();
    v1::Subject {
        object: OBJECT.into(),
        column: COLUMN.into(),
        family: Family::Integer.name().into(),
        key: keys.active().id().into(),
        complete: true,
        sources: vec![if count == 1 { "predicate" } else { "returned" }.into()],
        tokens,
        ..Default::default()
    }
}

/// Mostly none: what happens seldom, and is no statement.
fn rare(random: &mut StdRng, at_ns: u64, party: u32) -> Option<v1::Event> {
    const SEEN: u32 = FAILED_LOGINS + GAPS;
    const ALL: u32 = SEEN + OPAQUE;
    let body = match random.gen_range(0..OF_RARE) {
        0..FAILED_LOGINS => v1::event::Body::AuthFailure(v1::AuthFailure {
            sqlstate: "28P01".into(),
            severity: "FATAL".into(),
        }),
        FAILED_LOGINS..SEEN => v1::event::Body::Gap(v1::Gap {
            reason: "ring_full".into(),
            direction: v1::Direction::Backend.into(),
            bytes_missing: random.gen_ratio(3, 4).then(|| random.gen_range(1_000..900_000)),
            ..Default::default()
        }),
        SEEN..ALL => v1::event::Body::OpaqueSession(v1::OpaqueSession {
            encryption: v1::Encryption::Tls.into(),
            reason: "its executable has no function be_tls_read".into(),
        }),
        _ => return None,
    };
    Some(v1::Event {
        ts_start_ns: at_ns,
        party: Some(party),
        body: Some(body),
        ..Default::default()
    })
}

fn event(
    random: &mut StdRng,
    at_ns: u64,
    (party, template): (u32, u32),
    touched: Option<v1::Subject>,
) -> v1::Event {
    let failed = random.gen_ratio(1, 200);
    let took = random.gen_range(20_000..3_000_000);
    let rows = random.gen_range(0..20);
    v1::Event {
        ts_start_ns: at_ns,
        first_response_after_ns: Some(took / 2),
        ended_after_ns: Some(took),
        party: Some(party),
        template: Some(template),
        body: Some(v1::event::Body::Query(v1::Query {
            result: Some(v1::Result {
                phase: v1::Phase::Complete.into(),
                outcome: if failed {
                    v1::Outcome::Error
                } else {
                    v1::Outcome::Ok
                }
                .into(),
                sqlstate: if failed { "23505".into() } else { String::new() },
                rows: Some(if failed { 0 } else { rows }),
                bytes_in: random.gen_range(40..200),
                bytes_out: 50 + rows * 60,
                ..Default::default()
            }),
            subjects: touched.into_iter().collect(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn template(random: &mut StdRng, number: usize) -> Template {
    let names_customers = number * 37 % 100 < NAMING;
    let table = |n: usize| format!("t{n}");
    let mut names: Vec<String> = (0..random.gen_range(1..3))
        .map(|_| table(skewed(random, TABLES as u64) as usize))
        .collect();
    if names_customers {
        names.push("customers".into());
    }
    let writes = random.gen_ratio(1, 4);
    let object = |name: &String| v1::Object {
        schema: "public".into(),
        name: name.clone(),
        kind: "table".into(),
        access: if writes {
            v1::Access::Write
        } else {
            v1::Access::Read
        }
        .into(),
        columns: vec!["id".into(), format!("c{}", number % 20)],
        source: "sql".into(),
        ..Default::default()
    };
    let text = format!(
        "{} /* {number} */ FROM {} WHERE id = $1",
        if writes { "UPDATE" } else { "SELECT" },
        names.join(", ")
    );
    let query = v1::Query {
        protocol: v1::Protocol::Extended.into(),
        statement: Some(v1::Statement {
            original_bytes: text.len() as u64,
            text,
            fingerprint: format!("{:016x}", random.next_u64()),
            text_known: true,
            ..Default::default()
        }),
        meaning: Some(v1::Meaning {
            class: if writes { v1::Class::Write } else { v1::Class::Read }.into(),
            command: if writes { "UPDATE" } else { "SELECT" }.into(),
            parsed: true,
            objects: names.iter().map(object).collect(),
            ..Default::default()
        }),
        param_count: 1,
        ..Default::default()
    };
    Template {
        encoded: definition(Kind::Template(query)),
        names_customers,
    }
}

fn definition(kind: Kind) -> Vec<u8> {
    v1::Definition { kind: Some(kind) }.encode_to_vec()
}

/// Of everything that is made up here.
const SEED: u64 = 20_260_510;

/// Whose records are touched, and by which rule and key values became tokens.
pub(super) const OBJECT: &str = "public.customers";
pub(super) const COLUMN: &str = "id";
/// As a file of token keys has it. Whoever knows it finds out whose these records are: nobody's.
pub(super) const KEYS: &str = "made-up 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
