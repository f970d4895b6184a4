//! The JSON form against the event reference.

use super::*;

/// The form as a value, from its text.
fn event(agent_id: &str, event: &v1::Event) -> Value {
    serde_json::from_str(&super::event(agent_id, event)).unwrap()
}

fn read() -> v1::Event {
    v1::Event {
        seq: 123,
        ts_start_ns: 1_795_225_200_000_000_001,
        ts_first_response_ns: 0,
        ts_end_ns: 1_795_225_200_100_000_000,
        session: Some(v1::Session {
            id: "boot-1f".into(),
            backend_pid: 1984,
            login_role: "app_user".into(),
            transport: v1::Transport::Tcp.into(),
            client: Some(v1::Endpoint {
                addr: "10.0.0.5".into(),
                port: 51234,
            }),
            ..Default::default()
        }),
        attribution: Some(v1::Attribution {
            principal: "spiffe://example/host/db1/unit/shop.service".into(),
            kind: v1::PrincipalKind::Unit.into(),
            confidence: v1::Confidence::Observed.into(),
            process: Some(v1::Process {
                pid: 7,
                exe: "/usr/bin/psql".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        body: Some(Body::Query(v1::Query {
            protocol: v1::Protocol::Simple.into(),
            statement: Some(v1::Statement {
                text: "SELECT $1 -- <script>\u{1b}[31m\n\"\\".into(),
                text_known: true,
                ..Default::default()
            }),
            meaning: Some(v1::Meaning {
                class: v1::Class::Read.into(),
                ..Default::default()
            }),
            result: Some(v1::Result {
                outcome: v1::Outcome::Ok.into(),
                rows: Some(0),
                ..Default::default()
            }),
            ..Default::default()
        })),
        ..Default::default()
    }
}

#[test]
fn a_query_keeps_the_order_and_names_of_the_reference() {
    let json = event("db1", &read());
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "kind",
            "event_id",
            "agent",
            "seq",
            "ts_start",
            "ts_end",
            "session",
            "protocol",
            "statement",
            "meaning",
            "result",
            "attribution"
        ]
    );
    assert_eq!(json["kind"], "query");
    assert_eq!(json["event_id"], "db1-123");
    assert_eq!(json["ts_start"], "2026-11-21T01:40:00.000000001Z");
    assert_eq!(json["ts_end"], "2026-11-21T01:40:00.100000000Z");
    assert_eq!(json["session"]["transport"], "tcp");
    assert_eq!(json["session"]["client"]["port"], 51234);
    assert_eq!(json["meaning"]["class"], "READ");
    assert_eq!(json["result"]["outcome"], "ok");
    assert_eq!(json["attribution"]["confidence"], "observed");
    assert_eq!(json["attribution"]["kind"], "unit");
    assert_eq!(json["attribution"]["process"]["uid"], 0);
}

#[test]
fn unknown_is_absent_but_zero_rows_and_telling_booleans_are_there() {
    let json = event("db1", &read());
    assert_eq!(json["result"]["rows"], 0);
    assert!(json["result"].get("rows_affected").is_none());
    assert!(json["session"].get("database").is_none());
    assert!(json["session"].get("encryption").is_none());
    assert_eq!(json["session"]["opened_before_attach"], false);
    assert_eq!(json["statement"]["truncated"], false);
    assert_eq!(json["meaning"]["parsed"], false);
    assert!(json.get("ts_first_response").is_none());
}

#[test]
fn what_a_client_asserts_stands_beside_what_was_observed() {
    let claim = |says: &str, value: &str, possibly_stale| v1::Claim {
        says: says.into(),
        value: value.into(),
        source: "set app.end_user".into(),
        set_by: Some(v1::SetBy {
            request_from: 0,
            index: 2,
        }),
        possibly_stale,
    };
    let mut one = read();
    if let Some(Body::Query(query)) = &mut one.body {
        query.effective_role = "reader".into();
        query.asserted = Some(v1::Asserted {
            claims: vec![
                claim("end_user", "bob", true),
                claim("end_user", "other", false),
                claim("tenant", "t-1", false),
            ],
            unknown: String::new(),
            foreign: vec!["tenant_before".to_owned()],
        });
    }
    let json = event("db1", &one);
    assert_eq!(json["session"]["effective_role"], "reader");
    assert_eq!(json["session"].get("effective_role_possibly_stale"), None);
    assert_eq!(json["attribution"]["confidence"], "observed");
    assert_eq!(
        json["attribution"]["asserted"],
        serde_json::json!({
            "end_user": "bob", "source": "set app.end_user", "set_by": {"request_from": 0, "index": 2},
            "tenant": "t-1", "possibly_stale": ["end_user"], "foreign": ["tenant_before"],
        })
    );
    one.attribution = None;
    let json = event("db1", &one);
    assert_eq!(json["attribution"].as_object().unwrap().len(), 1, "{json}");
}

#[test]
fn hostile_text_survives_a_round_trip() {
    let text = super::event("db1", &read());
    assert!(!text.contains('\n'), "one object is one line");
    let back: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(back["statement"]["text"], "SELECT $1 -- <script>\u{1b}[31m\n\"\\");
}

#[test]
fn a_gap_says_what_is_missing_and_what_is_not_known() {
    let gap = v1::Gap {
        reason: "ring_full".into(),
        direction: v1::Direction::Backend.into(),
        bytes_missing: Some(4096),
        ..Default::default()
    };
    let json = event(
        "db1",
        &v1::Event {
            seq: 2,
            body: Some(Body::Gap(gap)),
            ..Default::default()
        },
    );
    assert_eq!(
        json,
        serde_json::json!({
            "kind": "gap", "event_id": "db1-2", "agent": "db1", "seq": 2,
            "loss": {"bytes_missing": 4096, "reason": "ring_full", "direction": "backend"}
        })
    );
}

#[test]
fn every_kind_has_its_own_node() {
    let bodies = [
        Body::SessionOpen(v1::SessionOpen {}),
        Body::SessionClose(v1::SessionClose::default()),
        Body::AuthFailure(v1::AuthFailure {
            sqlstate: "28P01".into(),
            severity: "FATAL".into(),
        }),
        Body::OpaqueSession(v1::OpaqueSession {
            encryption: 2,
            reason: "no key".into(),
        }),
        Body::SessionError(v1::SessionError {
            sqlstate: "57P01".into(),
            severity: "FATAL".into(),
        }),
        Body::Cancel(v1::Cancel {
            victim_backend_pid: 9,
            victim_session: String::new(),
        }),
        Body::Heartbeat(v1::Heartbeat {
            left_out: Vec::new(),
            interval_ns: 5,
            counters: Some(v1::Counters::default()),
        }),
        Body::AgentStart(v1::AgentStart::default()),
        Body::AgentStop(v1::AgentStop {
            reason: "signal".into(),
            counters: None,
        }),
        Body::AgentPause(v1::AgentPause::default()),
        Body::AgentResume(v1::AgentResume::default()),
        Body::FlowOwner(v1::FlowOwner {
            fingerprint: Some(7),
            ..Default::default()
        }),
        Body::PoolerTraffic(v1::PoolerTraffic::default()),
        Body::PoolerClient(v1::PoolerClient { pooler: "p".into() }),
    ];
    for body in bodies {
        let one = v1::Event {
            seq: 1,
            body: Some(body),
            ..Default::default()
        };
        let json = event("a", &one);
        let name = kind(&one);
        assert_eq!(json["kind"], name);
        assert_eq!(json.get(name).is_some(), name != "session_open", "{name}");
    }
}

#[test]
fn an_enum_value_of_a_newer_version_is_kept_as_its_number() {
    let mut one = read();
    if let Some(s) = one.session.as_mut() {
        s.transport = 77;
    }
    assert_eq!(event("a", &one)["session"]["transport"], "77");
    assert_eq!(confidence(0), "none");
}

#[test]
fn an_amended_event_shows_both_names() {
    let recorded = v1::Event {
        seq: 7,
        attribution: Some(v1::Attribution {
            principal: "spiffe://td/addr/10.0.0.5".into(),
            kind: v1::PrincipalKind::Remote.into(),
            confidence: v1::Confidence::Inferred.into(),
            ..Default::default()
        }),
        ..read()
    };
    let attribution = v1::Attribution {
        principal: "spiffe://td/host/web/unit/a.service".into(),
        confidence: v1::Confidence::Joined.into(),
        ..Default::default()
    };
    let amended = Amended {
        by: "collector-x-3",
        attribution: &attribution,
    };
    let json: Value = serde_json::from_str(&amended_event("db1", &recorded, amended)).unwrap();
    let shown = &json["attribution"];
    assert_eq!(shown["principal"], "spiffe://td/host/web/unit/a.service");
    assert_eq!(shown["confidence"], "joined");
    assert_eq!(shown["amended_by"], "collector-x-3");
    assert_eq!(shown["recorded"]["principal"], "spiffe://td/addr/10.0.0.5");
    assert_eq!(shown["recorded"]["kind"], "remote");
    assert_eq!(event("db1", &recorded)["attribution"].get("recorded"), None);
}

#[test]
fn subjects_and_parameters_say_tokens_as_hexadecimal() {
    let mut read = read();
    let Some(Body::Query(query)) = &mut read.body else {
        panic!("a query")
    };
    query.subjects = vec![
        v1::Subject {
            object: "public.customers".into(),
            column: "id".into(),
            family: "integer".into(),
            key: "2026".into(),
            tokens: vec![vec![0x0f; 16], vec![0xf0; 16]],
            complete: true,
            sources: vec!["predicate".into(), "returned".into()],
            ..Default::default()
        },
        v1::Subject {
            object: "public.customers".into(),
            column: "email".into(),
            filter: vec![1, 2],
            filter_values: 5000,
            ..Default::default()
        },
    ];
    let token = v1::Param {
        token: vec![0x0f; 16],
        ..Default::default()
    };
    query.params = vec![token, v1::Param::default()];
    if let Some(meaning) = &mut query.meaning {
        meaning.objects = vec![v1::Object {
            name: "customers".into(),
            filtered: vec!["id".into()],
            columns_exact: true,
            ..Default::default()
        }];
    }
    let json = event("db1", &read);
    let low = "0f".repeat(16);
    assert_eq!(
        json["subjects"],
        serde_json::json!([
            {"object": "public.customers", "column": "id", "family": "integer", "key": "2026",
             "tokens": [low, "f0".repeat(16)], "complete": true, "sources": ["predicate", "returned"]},
            {"object": "public.customers", "column": "email", "filter": "0102", "filter_values": 5000, "complete": false},
        ])
    );
    assert_eq!(json["params"][0]["token"], low);
    assert!(json["params"][1].get("token").is_none());
    assert_eq!(
        json["meaning"]["objects"][0],
        serde_json::json!({"name": "customers", "filtered": ["id"], "columns_exact": true})
    );
}

#[test]
fn a_roll_up_is_a_query_with_numbers_of_its_own() {
    let Some(Body::Query(query)) = read().body else {
        panic!("a query")
    };
    let rolled = v1::Event {
        body: Some(Body::Rollup(v1::Rollup {
            query: Some(v1::Query {
                effective_role: "reader".into(),
                ..query
            }),
            executions: 12,
            committed: 10,
            open: 2,
            open_transaction: 7,
            duration_ns: 900,
            duration_from: 5,
            durations: vec![3, 0, 9],
            rule: "bench".into(),
            ..Default::default()
        })),
        ..read()
    };
    let json = event("db1", &rolled);
    assert_eq!(json["kind"], "rollup");
    assert_eq!(json["meaning"]["class"], "READ");
    assert_eq!(json["session"]["effective_role"], "reader");
    let expected = serde_json::json!({"executions": 12, "committed": 10, "open": 2, "open_transaction": 7,
        "duration_ns": 900, "duration_from": 5, "durations": [3, 0, 9], "rule": "bench"});
    assert_eq!(json["rollup"], expected);
}

#[test]
fn an_alarm_says_about_whom_and_how_often() {
    let alarm = v1::Alarm {
        kind: "revoked_agent".to_owned(),
        agent_id: "db1".to_owned(),
        detail: "it is revoked".to_owned(),
        times: 3,
    };
    let json = event(
        "collector-x",
        &v1::Event {
            body: Some(Body::Alarm(alarm)),
            ..v1::Event::default()
        },
    );
    assert_eq!(json["kind"], "alarm");
    assert_eq!(json["alarm"]["agent"], "db1");
    assert_eq!(json["alarm"]["times"], 3);
}

#[test]
fn a_change_of_the_policy_says_which_file_is_in_effect() {
    let change = v1::ConfigChange {
        part: "volume_policy".into(),
        file: "/etc/p.toml".into(),
        sha256: vec![1; 32],
        rules: 0,
        problem: "line 3: unknown field".into(),
        ..Default::default()
    };
    let json = event(
        "db1",
        &v1::Event {
            body: Some(Body::ConfigChange(change)),
            ..Default::default()
        },
    );
    assert_eq!(json["kind"], "config_change");
    let change = &json["config_change"];
    assert_eq!(
        (&change["sha256"], &change["rules"]),
        (&"01".repeat(32).into(), &0.into())
    );
    assert!(change.get("former_sha256").is_none());
}

#[test]
fn a_change_of_the_collector_names_both_logs() {
    let change = v1::CollectorChange {
        origin: "pgwitness/b".into(),
        former_origin: "pgwitness/a".into(),
        held: 0,
        acknowledged: 7,
    };
    let json = event(
        "db1",
        &v1::Event {
            body: Some(Body::CollectorChange(change)),
            ..Default::default()
        },
    );
    assert_eq!(json["kind"], "collector_change");
    let change = &json["collector_change"];
    assert_eq!(
        (&change["former_origin"], &change["held"], &change["acknowledged"]),
        (&"pgwitness/a".into(), &0.into(), &7.into())
    );
}

#[test]
fn a_restored_log_names_the_one_that_it_was_made_of() {
    let restored = v1::LogRestored {
        origin: "pgwitness/old".into(),
        verifier_key: "pgwitness/old+00000000+AQ==".into(),
        tree_size: 7,
        root: vec![1; 32],
        checkpoint: "pgwitness/old\n7\n".into(),
    };
    let json = event(
        "collector-new",
        &v1::Event {
            body: Some(Body::LogRestored(restored)),
            ..Default::default()
        },
    );
    assert_eq!(json["kind"], "log_restored");
    let restored = &json["log_restored"];
    assert_eq!(
        (&restored["origin"], &restored["tree_size"], &restored["root"]),
        (&"pgwitness/old".into(), &7.into(), &"01".repeat(32).into())
    );
}

#[test]
fn an_erasure_says_which_leaves_of_which_payloads_went() {
    let erasure = v1::Erasure {
        reason: "article 17".into(),
        by: "root".into(),
        selected_by: "event".into(),
        events: 1,
        batches: vec![v1::ErasedBatch {
            entry: 0,
            former_digest: vec![1; 32],
            digest: vec![2; 32],
            places: vec![0, 4],
        }],
    };
    let json = event(
        "collector-x",
        &v1::Event {
            body: Some(Body::Erasure(erasure)),
            ..Default::default()
        },
    );
    assert_eq!(json["kind"], "erasure");
    let batch = serde_json::json!({"entry": 0, "former_digest": "01".repeat(32), "digest": "02".repeat(32), "places": [0, 4]});
    assert_eq!(json["erasure"]["batches"], serde_json::json!([batch]));
    assert_eq!(json["erasure"]["events"], 1);
}

#[test]
fn a_hold_and_a_retention_say_what_they_are_of() {
    let of = |body| {
        event(
            "collector-x",
            &v1::Event {
                body: Some(body),
                ..Default::default()
            },
        )
    };
    let hold = of(Body::Hold(v1::Hold {
        id: "h1".into(),
        object: "public.t".into(),
        since_ns: 1,
        ..Default::default()
    }));
    assert_eq!(
        (&hold["kind"], &hold["hold"]["object"]),
        (&"hold".into(), &"public.t".into())
    );
    assert_eq!(hold["hold"]["since"], "1970-01-01T00:00:00.000000001Z");
    assert!(hold["hold"].get("until").is_none() && hold["hold"]["released"] == false);
    let retention = of(Body::Retention(v1::Retention {
        end_entry: 7,
        root: vec![1; 32],
        ..Default::default()
    }));
    assert_eq!(
        (&retention["kind"], &retention["retention"]["first_entry"]),
        (&"retention".into(), &0.into())
    );
    assert_eq!(retention["retention"]["root"], "01".repeat(32));
}
