//! What a batch's events and definitions give, and that the quick way gives nothing else.

use proto::v1::{BatchHeader, event::Body as Kinds};

use super::*;

fn party() -> v1::Party {
    v1::Party {
        session: Some(v1::Session {
            id: "boot-1".into(),
            client: Some(v1::Endpoint {
                addr: "::1".into(),
                port: 40_000,
            }),
            ..Default::default()
        }),
        attribution: Some(v1::Attribution {
            principal: "spiffe://td/x".into(),
            evidence: vec!["é".into()],
            ..Default::default()
        }),
    }
}

fn template() -> v1::Query {
    v1::Query {
        protocol: 2,
        statement: Some(v1::Statement {
            text: "SELECT $1".into(),
            original_bytes: 9,
            ..Default::default()
        }),
        meaning: Some(v1::Meaning {
            class: 1,
            tag: "SELECT 1".into(),
            ..Default::default()
        }),
        result: Some(v1::Result {
            columns: vec![v1::ResultColumn {
                name: "ä".into(),
                table_oid: 1,
                attnum: 2,
            }],
            ..Default::default()
        }),
        param_count: 1,
        ..Default::default()
    }
}

/// What an agent says of an execution, every field of it.
fn own() -> v1::Event {
    v1::Event {
        ts_start_ns: 1 << 60,
        first_response_after_ns: Some(0),
        ended_after_ns: Some(1 << 30),
        party: Some(0),
        template: Some(1),
        body: Some(Kinds::Query(v1::Query {
            statement: Some(v1::Statement {
                original_bytes: 11,
                sha256: vec![7; 32],
                ..Default::default()
            }),
            meaning: Some(v1::Meaning {
                tag: "SELECT 300".into(),
                ..Default::default()
            }),
            result: Some(v1::Result {
                phase: 4,
                outcome: 2,
                rows: Some(0),
                rows_affected: Some(300),
                bytes_in: 1,
                bytes_out: 2,
                copy_bytes: Some(9),
                sqlstate: "22012".into(),
                severity: "ERROR".into(),
                columns: vec![],
            }),
            transaction: Some(v1::Transaction {
                status: "T".into(),
                seq: 3,
                r#final: 1,
            }),
            stream: Some(v1::StreamRange {
                request_from: 1,
                request_to: 2,
                response_to: 3,
                continues: Some(1),
                client_from: Some(0),
                client_to: Some(45),
            }),
            params: vec![v1::Param {
                oid: 23,
                format: 1,
                null: true,
                bytes: 4,
                value: Some("ö".into()),
                truncated: true,
                raw: true,
                token: vec![5; 16],
                dropped: true,
            }],
            subjects: vec![
                v1::Subject {
                    object: "public.customers".into(),
                    column: "id".into(),
                    family: "integer".into(),
                    key: "k".into(),
                    tokens: vec![vec![5; 16], vec![6; 16]],
                    complete: true,
                    sources: vec!["predicate".into()],
                    ..Default::default()
                },
                v1::Subject::default(),
            ],
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn definitions() -> Vec<Bytes> {
    [Kind::Party(party()), Kind::Template(template())]
        .map(|kind| v1::Definition { kind: Some(kind) }.encode_to_vec().into())
        .to_vec()
}

fn batch(events: Vec<v1::Event>, definitions: Vec<Bytes>) -> OpenedBatch {
    OpenedBatch {
        header: BatchHeader {
            agent_id: "a".into(),
            sequence: 1,
            first_event_seq: 7,
            ..Default::default()
        },
        events: events.iter().map(|event| event.encode_to_vec().into()).collect(),
        definitions,
        erased: Vec::new(),
        header_hash: [0; 32],
    }
}

/// The record that the whole event gives.
fn by_the_rule(seq: u64, event: &[u8], definitions: &[Bytes]) -> Result<Record, Refused> {
    whole::event(seq, event, definitions).map(Record::from)
}

#[test]
fn what_the_agent_sends_is_ordinary_and_shares_what_is_defined() {
    let mut decoder = Decoder::default();
    let batch = batch(vec![own(), own()], definitions());
    let records = decoder.decode(&batch).unwrap().records;
    let [one, two] = records.as_slice() else {
        panic!("two records")
    };
    assert_eq!((one.seq, two.seq), (7, 8));
    assert_eq!(
        Ok(one),
        by_the_rule(7, &batch.events[0], &batch.definitions).as_ref()
    );
    let again = decoder.decode(&batch).unwrap().records;
    for other in [two, &again[0]] {
        assert!(Arc::ptr_eq(
            one.party.as_ref().unwrap(),
            other.party.as_ref().unwrap()
        ));
        let [one, other] = [one, other].map(|record| match &record.body {
            Body::Query(query) => query,
            body => panic!("{body:?}"),
        });
        assert!(Arc::ptr_eq(&one.template, &other.template));
        assert_eq!(one.tag, "SELECT 300");
    }
    let defined: Vec<Defined> = definitions()
        .iter()
        .filter_map(|definition| decoder.defined(definition))
        .collect();
    assert!(ordinary(7, &batch.events[0], &defined, &mut Record::default()).is_some());
}

#[test]
fn the_ordinary_way_never_differs_from_the_rule() {
    let encoded = own().encode_to_vec();
    let mut decoder = Decoder::default();
    let definitions = definitions();
    let defined: Vec<Defined> = definitions
        .iter()
        .filter_map(|definition| decoder.defined(definition))
        .collect();
    let (mut same, mut refused) = (0, 0);
    // Always the same place: nothing of an event before may be left in it.
    let mut found = Record::default();
    let mut compare = |bytes: &[u8]| {
        let is_ordinary = ordinary(7, bytes, &defined, &mut found).is_some();
        match (is_ordinary, by_the_rule(7, bytes, &definitions)) {
            (true, Ok(record)) => {
                assert_eq!(found, record, "{bytes:?}");
                same += 1;
            }
            (true, Err(error)) => panic!("{error}, but {found:?} of {bytes:?}"),
            (false, Err(_)) => refused += 1,
            (false, Ok(_)) => {}
        }
    };
    for length in 0..encoded.len() {
        compare(&encoded[..length]);
    }
    for place in 0..encoded.len() {
        for byte in 0..=255 {
            let mut changed = encoded.clone();
            changed[place] = byte;
            compare(&changed);
        }
    }
    compare(&[encoded.clone(), encoded.clone()].concat());
    assert!(same > 1000 && refused > 1000, "{same} {refused}");
}

#[test]
fn a_template_that_says_more_than_it_should_is_merged_by_the_rule() {
    let mut more = template();
    more.result.as_mut().unwrap().rows = Some(8);
    let more = v1::Definition {
        kind: Some(Kind::Template(more)),
    };
    let definitions = vec![definitions().remove(0), more.encode_to_vec().into()];
    let mut event = own();
    let Some(Kinds::Query(query)) = &mut event.body else {
        panic!("a query")
    };
    query.result = None;
    let batch = batch(vec![event], definitions);
    let records = Decoder::default().decode(&batch).unwrap().records;
    let Body::Query(query) = &records[0].body else {
        panic!("a query")
    };
    assert_eq!(query.result.as_ref().unwrap().rows, Some(8));
}

#[test]
fn whole_events_and_other_kinds_are_taken_as_they_are() {
    let gap = v1::Event {
        seq: 7,
        body: Some(Kinds::Gap(v1::Gap::default())),
        ..Default::default()
    };
    let end = v1::Event {
        party: Some(0),
        body: Some(Kinds::SessionClose(v1::SessionClose::default())),
        ..Default::default()
    };
    let batch = batch(vec![gap.clone(), end], definitions());
    let records = Decoder::default().decode(&batch).unwrap();
    assert_eq!(records.records[0], Record::from(gap));
    assert_eq!(records.records[0].kind(), "gap");
    assert_eq!(records.records[1].kind(), "session_close");
    assert_eq!(records.records[1].party.as_deref(), Some(&Weighed::from(party())));
}

#[test]
fn what_does_not_hold_together_is_refused_with_what_is_wrong() {
    let refused = |change: fn(&mut v1::Event)| {
        let mut event = own();
        change(&mut event);
        let batch = batch(vec![own(), event], definitions());
        Decoder::default().decode(&batch).unwrap_err()
    };
    assert_eq!(refused(|event| event.seq = 9), "event 8 calls itself 9");
    assert_eq!(
        refused(|event| event.template = Some(2)),
        "event 8 names definition 2, which the batch does not have"
    );
    assert_eq!(
        refused(|event| event.party = Some(u32::MAX)),
        "event 8 names definition 4294967295, which the batch does not have"
    );
    assert_eq!(
        refused(|event| event.party = Some(1)),
        "event 8 names definition 1, which is of another kind"
    );
    assert_eq!(
        refused(|event| event.template = Some(0)),
        "event 8 names definition 0, which is of another kind"
    );
    let twice = "event 8 says again what its definition says, or is not what that is of";
    assert_eq!(
        refused(|event| event.session = Some(v1::Session::default())),
        twice
    );
    assert_eq!(refused(|event| event.ts_end_ns = 5), twice);
    assert_eq!(refused(|event| event.body = None), twice);
    let mut malformed = batch(vec![own()], definitions());
    malformed.events[0] = Bytes::from_static(&[0xff]);
    assert_eq!(
        Decoder::default().decode(&malformed).unwrap_err(),
        "event 7 is malformed"
    );
    // Also where no event names it.
    for broken in [&[0xff][..], &[]] {
        let mut definitions = definitions();
        definitions.push(Bytes::copy_from_slice(broken));
        let batch = batch(vec![own()], definitions);
        assert_eq!(
            Decoder::default().decode(&batch).unwrap_err(),
            "definition 2 is malformed"
        );
    }
}

#[test]
fn what_is_at_hand_is_bounded() {
    let mut decoder = Decoder::default();
    let of = |text: String| {
        let statement = v1::Statement {
            text,
            ..Default::default()
        };
        let kind = Kind::Template(v1::Query {
            statement: Some(statement),
            ..Default::default()
        });
        Bytes::from(v1::Definition { kind: Some(kind) }.encode_to_vec())
    };
    for n in 0..10_000_u32 {
        assert!(
            decoder
                .defined(&of(format!("{n} {}", "x".repeat(1000))))
                .is_some()
        );
        assert!(decoder.bytes <= MAX_KNOWN_BYTES);
    }
    assert!(decoder.known.len() < 4200);
    let before = decoder.known.len();
    assert!(decoder.defined(&of("x".repeat(MAX_KNOWN_BYTES))).is_some());
    assert_eq!(decoder.known.len(), before);
}

#[test]
fn what_events_share_knows_its_size() {
    let records = Decoder::default()
        .decode(&batch(vec![own()], definitions()))
        .unwrap();
    let [record] = records.records.as_slice() else {
        panic!("one record")
    };
    let party = record.party.as_ref().unwrap();
    assert_eq!(party.encoded_len(), self::party().encoded_len());
    assert_ne!(party.encoded_len(), 0);
    let Body::Query(query) = &record.body else {
        panic!("a query")
    };
    assert_eq!(
        query.template.encoded_len(),
        v1::Query::clone(&query.template).encoded_len()
    );
}
