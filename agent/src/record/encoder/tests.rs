//! The encoded form against the rule, and what repeats.

use bytes::Bytes;

use subjects::Classification;

use super::*;
use crate::record::{Gathered, event, tests::answered};

fn facts(cookie: u64) -> Arc<SessionFacts> {
    Arc::new(SessionFacts {
        cookie,
        backend_pid: 7,
        server_pid: 1,
        transport: tap_core::Transport::Tcp,
        is_counted: true,
        client: tap_core::Endpoint::Inet([10, 0, 0, 5].into(), 51_234),
        server: tap_core::Endpoint::Inet([10, 0, 0, 1].into(), 5432),
        netns: 1,
        opened_before_attach: false,
        fingerprint: Some(7),
        login_role: Some("app_user".to_owned()),
        database: None,
        application_name: None,
        server_version: Some("15.18".to_owned()),
        auth_method: Some("none"),
        encryption: None,
        tls_version: None,
        tls_cipher: None,
    })
}

fn of(session: &Arc<SessionFacts>, body: Body) -> Event {
    Event {
        times: tap_core::Times {
            start: 5,
            first_response: Some(6),
            end: 7,
        },
        session: Arc::clone(session),
        body,
    }
}

/// Queries that have every field at once, each alone, and none.
fn queries() -> Vec<Query> {
    let plain = || {
        answered(
            "select id, email from customers c join orders o using (id)",
            "SELECT 3",
        )
    };
    let mut changed: Vec<Query> = Vec::new();
    let mut change = |by: fn(&mut Query)| {
        let mut query = plain();
        by(&mut query);
        changed.push(query);
    };
    change(|_| {});
    change(|query| query.text = None);
    change(|query| {
        query.truncated = true;
        query.digest = Some(Box::new([9; 32]));
        query.original_bytes = 1 << 40;
    });
    change(|query| {
        query.param_count = 4;
        let param = |kept: &'static [u8]| tap_core::Param {
            type_oid: 25,
            format: tap_core::Format::Text,
            bytes: Some(9),
            kept: kept.into(),
        };
        query.params = [param(b""), param(b""), param(b"in the cl"), param(b"")].into();
        let told = |index, token, shown| tap_core::ParamTold { index, token, shown };
        let of = Arc::new(subjects::SubjectColumn {
            database: None,
            schema: "public".into(),
            name: "customers".into(),
            object: "public.customers".into(),
            column: "id".into(),
            family: subjects::Family::Integer,
            type_oid: 20,
        });
        let subject = |told, complete| tap_core::Subject {
            of: Arc::clone(&of),
            key: "k1".into(),
            told,
            complete,
            sources: tap_core::Sources {
                predicate: complete,
                written: false,
                returned: true,
            },
        };
        let token = |byte| subjects::Token([byte; 16]);
        let listed = subjects::Told {
            tokens: vec![token(1), token(2)],
            ..subjects::Told::default()
        };
        let filtered = subjects::Told {
            filter: Some(subjects::Filter::of([token(3)].into_iter())),
            filter_values: 1,
            left_out: true,
            ..subjects::Told::default()
        };
        query.touched = Some(Box::new(tap_core::Touched {
            subjects: vec![subject(listed, true), subject(filtered, false)],
            params: vec![
                told(0, Some(token(4)), tap_core::Shown::Masked("j***@***".into())),
                told(2, Some(token(5)), tap_core::Shown::Clear),
                told(3, None, tap_core::Shown::Dropped),
            ],
        }));
    });
    change(|query| query.statement_name = Bytes::from_static(b"S_\xff1"));
    change(|query| query.portal = Bytes::from_static(b"C_1"));
    change(|query| {
        let claim = |says: &str, set_by, possibly_stale| tap_core::Claim {
            says: says.into(),
            value: "bob".into(),
            source: tap_core::Source::Set("app.end_user".into()),
            set_by,
            possibly_stale,
        };
        let by = tap_core::SetBy {
            statement: 2,
            request_from: 300,
            index: 1,
            lease: None,
        };
        query.asserted = Some(Arc::new(tap_core::Asserted {
            claims: vec![claim("end_user", Some(by), true), claim("tenant", None, false)],
            unknown: Some("gap"),
            foreign: vec!["tenant".into()],
        }));
    });
    change(|query| {
        query.effective_role = Some(tap_core::EffectiveRole {
            name: "reader".into(),
            possibly_stale: true,
        });
    });
    change(|query| query.source = Some("x".repeat(5000).into()));
    change(|query| {
        let statement = query.statement.as_ref().expect("one");
        let known = statement
            .objects
            .iter()
            .map(|object| tap_core::relations::Object {
                object: sql_meaning::ObjectRef {
                    columns: vec!["id".to_owned(), "email".to_owned()],
                    filtered: vec!["id".to_owned()],
                    exact: true,
                    ..object.clone()
                },
                source: tap_core::relations::FROM_WIRE,
            });
        query.objects = Some(known.collect());
    });
    change(|query| {
        query.error = Some(tap_core::ServerError {
            severity: "ERROR".to_owned(),
            sqlstate: "57014".to_owned(),
        });
        query.outcome = tap_core::Outcome::Error;
        query.tag = None;
    });
    change(|query| {
        query.transaction_status = Some(b'T');
        query.transaction_final = Some(tap_core::Final::Committed);
        query.continues = Some(0);
        query.request = 10..300;
        query.client = Some(0..290);
        query.function_oid = Some(0);
        query.rows_affected = Some(0);
        query.copy_bytes = Some(0);
    });
    change(|query| {
        query.param_count = 4;
        query.params = [
            tap_core::Param {
                type_oid: 23,
                format: tap_core::Format::Binary,
                bytes: Some(4),
                kept: vec![0, 0, 0, 1].into(),
            },
            tap_core::Param {
                type_oid: 25,
                format: tap_core::Format::Binary,
                bytes: Some(300),
                kept: Default::default(),
            },
            tap_core::Param {
                type_oid: 25,
                format: tap_core::Format::Text,
                bytes: Some(0),
                kept: Default::default(),
            },
            tap_core::Param {
                type_oid: 0,
                format: tap_core::Format::Text,
                bytes: None,
                kept: Default::default(),
            },
        ]
        .into();
    });
    changed
}

/// Every kind of event, each query twice, so that templates are made and used.
fn bodies() -> Vec<Body> {
    let mut bodies: Vec<Body> = queries()
        .into_iter()
        .flat_map(|query| [query.clone(), query])
        .map(|query| Body::Query(Box::new(query)))
        .collect();
    bodies.push(Body::SessionOpen);
    bodies.push(Body::Opaque {
        kind: tap_core::EncryptionKind::Tls,
        reason: tap_core::Unreadable::NotProbed,
    });
    bodies
}

#[test]
fn with_its_definitions_it_is_what_the_rule_says() {
    let attribution = Arc::new(v1::Attribution {
        principal: "spiffe://x/host/y".to_owned(),
        ..v1::Attribution::default()
    });
    let session = facts(3);
    let mut encoder = Encoder::default();
    let clock = Clock::now();
    for body in bodies() {
        for known in [Some(&attribution), None] {
            let event_of = of(&session, body.clone());
            let rule = v1::Event {
                seq: 300,
                ..event(&event_of, known.map(AsRef::as_ref), clock, "boot")
            };
            let encoded = encoder.encode(&event_of, known, clock, "boot");
            assert_eq!(
                (encoded.first_ns, encoded.last_ns),
                (rule.ts_start_ns, rule.ts_end_ns)
            );
            assert_eq!(encoded.whole(300), Some(rule));
        }
    }
}

#[test]
fn times_that_run_backwards_stay_as_they_are() {
    let session = facts(3);
    let mut odd = of(&session, Body::SessionOpen);
    odd.times = tap_core::Times {
        start: 50,
        first_response: Some(40),
        end: 50,
    };
    let clock = Clock::now();
    let whole = Encoder::default().encode(&odd, None, clock, "boot").whole(1);
    assert_eq!(
        whole,
        Some(v1::Event {
            seq: 1,
            ..event(&odd, None, clock, "boot")
        })
    );
}

#[test]
fn what_repeats_is_said_once_in_a_batch() {
    let (one, other) = (facts(3), facts(4));
    let mut encoder = Encoder::default();
    let clock = Clock::now();
    let mut query = answered("select id from customers where id = 5", "SELECT 1");
    let mut batches = [Gathered::default(), Gathered::default()];
    for batch in &mut batches {
        for (session, rows) in [(&one, 1), (&other, 2), (&one, 3), (&other, 1000)] {
            query.rows = rows;
            query.tag = Some(format!("SELECT {rows}").as_str().into());
            query.original_bytes += rows;
            let event = of(session, Body::Query(Box::new(query.clone())));
            batch.add(encoder.encode(&event, None, clock, "boot"));
        }
    }
    for batch in &batches {
        let definitions: Vec<&[u8]> = batch.contents.definitions().collect();
        assert_eq!(definitions.len(), 3, "two sessions and one statement");
        let wholes = batch.contents.events().zip(1..);
        let tags: Vec<(String, String)> = wholes
            .map(|(event, number)| {
                let whole = proto::whole::event(number, event, &definitions).expect("an event");
                let Some(v1::event::Body::Query(query)) = whole.body else {
                    panic!("a query")
                };
                (
                    whole.session.expect("its session").id,
                    query.meaning.expect("a meaning").tag,
                )
            })
            .collect();
        let expected = [
            ("boot-3", "SELECT 1"),
            ("boot-4", "SELECT 2"),
            ("boot-3", "SELECT 3"),
            ("boot-4", "SELECT 1000"),
        ];
        assert_eq!(
            tags,
            expected.map(|(session, tag)| (session.to_owned(), tag.to_owned()))
        );
        let each = batch.contents.events().map(<[u8]>::len).max();
        assert!(each < Some(90), "{each:?} bytes an event");
    }
}

#[test]
fn templates_are_bounded() {
    let mut templates = Templates::default();
    for n in 0..100_000_u32 {
        let mut query = answered("select 1", "SELECT 1");
        query.statement_name = Bytes::from(format!("S_{n}"));
        query.source = Some("x".repeat(1000).into());
        if n % 2 == 0 {
            query.statement = None;
        }
        templates.of(&query);
        assert!(templates.len() <= 4096);
    }
}

#[test]
fn what_changes_in_a_session_is_in_its_next_event() {
    let mut session = facts(3);
    let mut encoder = Encoder::default();
    let clock = Clock::now();
    let mut role = |session: &Arc<SessionFacts>| {
        let encoded = encoder.encode(&of(session, Body::SessionOpen), None, clock, "boot");
        let event = encoded.whole(1).expect("an event");
        event.session.expect("its session").login_role
    };
    assert_eq!(role(&session), "app_user");
    Arc::make_mut(&mut session).login_role = Some("other".to_owned());
    assert_eq!(role(&session), "other");
}

/// A pooler's connection: its clients speak in turn, and each has a name of its own in the session.
#[test]
fn clients_in_turn_are_each_said_once_in_a_batch() {
    let clients: Vec<(Arc<v1::Attribution>, Arc<SessionFacts>)> = (0..20)
        .map(|number| {
            let who = Arc::new(v1::Attribution {
                principal: format!("spiffe://x/host/y/unit/{number}"),
                ..v1::Attribution::default()
            });
            let mut session = facts(3);
            Arc::make_mut(&mut session).application_name = Some(format!("app {number}"));
            (who, session)
        })
        .collect();
    let mut encoder = Encoder::default();
    let clock = Clock::now();
    let mut batch = Gathered::default();
    let query = answered("select 1", "SELECT 1");
    for turn in 0..400_usize {
        let (who, session) = &clients[turn * 7 % clients.len()];
        // As the pipeline makes them: facts that are equal and not the same.
        let session = Arc::new(SessionFacts::clone(session));
        let told = of(&session, Body::Query(Box::new(query.clone())));
        let encoded = encoder.encode(&told, Some(who), clock, "boot");
        if turn >= 200 {
            batch.add(encoded);
            continue;
        }
        let rule = v1::Event {
            seq: 9,
            ..event(&told, Some(who), clock, "boot")
        };
        assert_eq!(encoded.whole(9), Some(rule));
    }
    assert_eq!(
        batch.contents.definitions().count(),
        21,
        "twenty clients and one statement"
    );
    assert_eq!((encoder.heads.len(), encoder.more), (1, 19));
    encoder.forget(3);
    assert_eq!((encoder.heads.len(), encoder.more), (0, 0));
}

#[test]
fn parties_are_bounded_and_one_client_has_one() {
    let mut encoder = Encoder::default();
    let clock = Clock::now();
    let who = |number: u32| {
        Arc::new(v1::Attribution {
            principal: format!("spiffe://x/host/y/unit/{number}"),
            ..v1::Attribution::default()
        })
    };
    for number in 0..200 {
        let mut session = facts(3);
        Arc::make_mut(&mut session).application_name = Some(number.to_string());
        encoder.encode(&of(&session, Body::SessionOpen), None, clock, "boot");
        assert_eq!(encoder.heads[&3].parties.len(), 1, "what it was is past");
    }
    for number in 0..20_000 {
        let session = facts(u64::from(number % 100));
        encoder.encode(
            &of(&session, Body::SessionOpen),
            Some(&who(number)),
            clock,
            "boot",
        );
        let more: usize = encoder.heads.values().map(Head::more).sum();
        assert_eq!(more, encoder.more);
        assert!(more <= PARTIES_IN_ALL + 1, "{more}");
        assert!(encoder.heads.values().all(|head| head.parties.len() <= PARTIES));
    }
}

#[test]
fn a_roll_up_is_what_the_rule_says() {
    let attribution = Arc::new(v1::Attribution {
        principal: "spiffe://x/host/y".to_owned(),
        confidence: v1::Confidence::Observed.into(),
        ..v1::Attribution::default()
    });
    let policy = volume::Policy::parse(
        "[[rule]]\nkeep = \"rollup\"\nname = \"all\"\n",
        &Classification::default(),
    );
    let mut volume = volume::Volume::new(policy.expect("a policy"), 1);
    let session = facts(3);
    let mut encoder = Encoder::default();
    let clock = Clock::now();
    let mut told = 0;
    for query in queries() {
        // Twice, so that templates are made and used.
        for _ in 0..2 {
            for rows in [1, 300] {
                let mut query = query.clone();
                query.rows = rows;
                query.tag = query.tag.map(|_| format!("SELECT {rows}").as_str().into());
                let event = of(&session, Body::Query(Box::new(query)));
                volume.take(event, Some(&attribution), 1);
            }
            volume.flush();
            while let Some(one) = volume.poll() {
                // Some of them are recorded in full, whatever a policy says.
                let volume::Told::Rollup(roll) = one else {
                    continue;
                };
                let rule = v1::Event {
                    seq: 300,
                    ..crate::record::rollup(&roll, "all", clock, "boot")
                };
                let encoded = encoder.encode_rollup(&roll, "all", clock, "boot");
                assert_eq!(encoded.whole(300), Some(rule));
                told += 1;
            }
        }
    }
    assert!(told >= 6, "{told} of them can be put together");
}
