//! The store against crashes, hostile text and hostile SQL.

use object_store::{
    ObjectStoreExt, PutPayload,
    path::Path as ObjectPath,
    throttle::{ThrottleConfig, ThrottledStore},
};
use proto::v1::{self, event::Body};
use serde_json::{Value, json};

use super::*;
use crate::live::Filter;

mod amended;
mod bucket;
mod compact;
mod hostile;
mod oracle;
mod rollup;
mod subjects;

const START: u64 = 1_795_225_200_000_000_000;

/// Never seals or compacts by itself.
fn by_hand() -> StoreOptions {
    StoreOptions {
        seal_rows: usize::MAX,
        seal_after: Duration::from_secs(100_000),
        wait_bytes: usize::MAX,
        compact_files: 2,
        compact_every: Duration::from_secs(100_000),
        keep_retired: Duration::ZERO,
        uses_after: Duration::ZERO,
        now: jiff::Timestamp::now,
    }
}

/// While some of the first hours are over, and no day is.
fn amid() -> jiff::Timestamp {
    jiff::Timestamp::from_second((START / 1_000_000_000).cast_signed() + 6 * 3600).unwrap()
}

/// When the first days are long over.
fn later() -> jiff::Timestamp {
    jiff::Timestamp::from_second((START / 1_000_000_000).cast_signed() + 40 * 86_400).unwrap()
}

/// Batches as a log would hold them.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<std::collections::HashMap<u64, Records>>);

impl Shelf {
    pub(crate) fn put(&self, log_index: u64, records: &Records) {
        self.0.lock().unwrap().insert(log_index, records.clone());
    }
}

impl Batches for Shelf {
    fn read(&self, log_index: u64) -> anyhow::Result<evidence::OpenedBatch> {
        let shelf = self.0.lock().unwrap();
        let batch = shelf.get(&log_index).context("no such batch")?;
        let header = v1::BatchHeader {
            agent_id: batch.agent.to_string(),
            first_event_seq: batch.records[0].seq,
            ..Default::default()
        };
        Ok(evidence::OpenedBatch {
            header,
            events: batch.encoded.clone(),
            definitions: batch.definitions.to_vec(),
            erased: Vec::new(),
            header_hash: [0; 32],
        })
    }
}

fn records(events: Vec<v1::Event>) -> Records {
    Records::of("a", events[0].seq, events)
}

/// A query of agent `a`; rows, and so sums, tell events apart.
pub(crate) fn query(seq: u64, principal: &str, text: &str) -> v1::Event {
    let known = principal != "unknown";
    let confidence = if known {
        v1::Confidence::Observed
    } else {
        v1::Confidence::None
    };
    v1::Event {
        seq,
        // Forty minutes apart, so that few events already span hours.
        ts_start_ns: START + seq * 2_400_000_000_000,
        ts_end_ns: START + seq * 2_400_000_000_000 + 1_500_000,
        session: Some(v1::Session {
            id: format!("boot-{}", seq % 3),
            login_role: "app_user".into(),
            database: "shop".into(),
            ..Default::default()
        }),
        attribution: Some(v1::Attribution {
            principal: principal.into(),
            confidence: confidence.into(),
            ..Default::default()
        }),
        body: Some(Body::Query(v1::Query {
            statement: Some(v1::Statement {
                text: text.into(),
                text_known: true,
                ..Default::default()
            }),
            meaning: Some(v1::Meaning {
                class: v1::Class::Read.into(),
                objects: vec![v1::Object {
                    schema: "public".into(),
                    name: format!("t{}", seq % 2),
                    access: v1::Access::Read.into(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            result: Some(v1::Result {
                outcome: v1::Outcome::Ok.into(),
                rows: Some(seq),
                ..Default::default()
            }),
            effective_role: "reader".into(),
            asserted: Some(v1::Asserted {
                claims: vec![v1::Claim {
                    says: "end_user".into(),
                    value: format!("user-{seq}"),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn gap(seq: u64, bytes_missing: Option<u64>) -> v1::Event {
    let gap = v1::Gap {
        reason: "ring_full".into(),
        bytes_missing,
        ..Default::default()
    };
    v1::Event {
        seq,
        ts_start_ns: START,
        body: Some(Body::Gap(gap)),
        ..Default::default()
    }
}

async fn rows(store: &Store, sql: &str) -> Vec<Vec<Value>> {
    store
        .query(sql, 1000)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:#}"))
        .rows
}

/// Count and sum of all events: wrong if one is missing or there twice.
async fn sum(store: &Store) -> (u64, u64) {
    let rows = rows(
        store,
        "SELECT count(*), sum(rows), count(DISTINCT event_id) FROM events",
    )
    .await;
    assert_eq!(rows[0][0], rows[0][2], "an event is there twice");
    (rows[0][0].as_u64().unwrap(), rows[0][1].as_u64().unwrap_or(0))
}

async fn append(store: &Store, entries: std::ops::Range<u64>) {
    for n in entries {
        store
            .append(
                n,
                records(vec![query(
                    n + 1,
                    "spiffe://td/host/h/unit/shop.service",
                    "SELECT $1",
                )]),
            )
            .await;
    }
}

#[tokio::test]
async fn sealed_files_and_tail_are_counted_together_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        now: amid,
        ..by_hand()
    };
    let store = Store::open(folder.path(), options).await.unwrap();
    assert_eq!(store.resume_point(), None);
    assert_eq!(sum(&store).await, (0, 0));
    append(&store, 0..5).await;
    assert_eq!(sum(&store).await, (5, 15));
    store.seal().await.unwrap();
    assert_eq!((sum(&store).await, store.resume_point()), ((5, 15), Some(5)));
    append(&store, 5..70).await;
    assert_eq!(sum(&store).await, (70, 2485));
    // Delivered again: already there, sealed or not.
    append(&store, 3..8).await;
    assert_eq!(sum(&store).await, (70, 2485));
    store.seal().await.unwrap();
    assert_eq!(sum(&store).await, (70, 2485));
    let status = store.status();
    assert_eq!(
        (status.sealed_entries, status.tail_rows, status.sealed_rows),
        (70, 0, 70)
    );
    assert!(status.sealed_files > 10, "one file an hour: {status:?}");
    drop(store);
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    assert_eq!((sum(&store).await, store.resume_point()), ((70, 2485), Some(70)));
}

#[tokio::test]
async fn counts_hold_while_seals_run() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    append(&store, 0..60).await;
    let seal = tokio::spawn({
        let store = store.clone();
        async move { store.seal().await }
    });
    for n in 60..80 {
        append(&store, n..n + 1).await;
        assert_eq!(sum(&store).await.0, n + 1);
    }
    seal.await.unwrap().unwrap();
    assert_eq!(sum(&store).await, (80, 3240));
}

#[tokio::test]
async fn files_of_a_seal_that_a_crash_cut_short_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    append(&store, 0..3).await;
    store.seal().await.unwrap();
    let before = std::fs::read(folder.path().join(manifest::NAME)).unwrap();
    append(&store, 3..9).await;
    store.seal().await.unwrap();
    drop(store);
    // As if the process had died between the files and the manifest.
    std::fs::write(folder.path().join(manifest::NAME), before).unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    assert_eq!((sum(&store).await, store.resume_point()), ((3, 6), Some(3)));
    append(&store, 3..9).await;
    store.seal().await.unwrap();
    assert_eq!(sum(&store).await, (9, 45));
}

#[tokio::test]
async fn a_damaged_store_starts_empty_instead_of_answering_wrongly() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    append(&store, 0..3).await;
    store.seal().await.unwrap();
    let file = store.state().manifest.files[0].path.clone();
    drop(store);
    std::fs::write(folder.path().join(file), b"PAR1").unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    assert_eq!((sum(&store).await, store.resume_point()), ((0, 0), None));
}

#[tokio::test]
async fn a_failed_seal_loses_nothing_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    append(&store, 0..3).await;
    // A file where the folder must be.
    std::fs::write(folder.path().join("events"), b"").unwrap();
    assert!(store.seal().await.is_err());
    assert_eq!((sum(&store).await, store.resume_point()), ((3, 6), None));
    std::fs::remove_file(folder.path().join("events")).unwrap();
    store.seal().await.unwrap();
    assert_eq!((sum(&store).await, store.resume_point()), ((3, 6), Some(3)));
}

#[tokio::test]
async fn a_hole_is_never_sealed_over() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    append(&store, 0..2).await;
    append(&store, 3..5).await;
    store.seal().await.unwrap();
    assert_eq!((sum(&store).await, store.resume_point()), ((2, 3), Some(2)));
    assert_eq!(store.status().behind_from, Some(2));
}

#[tokio::test]
async fn a_full_or_old_tail_is_sealed_without_being_asked() {
    for options in [
        StoreOptions {
            seal_rows: 3,
            ..by_hand()
        },
        StoreOptions {
            seal_after: Duration::from_millis(1),
            ..by_hand()
        },
    ] {
        let store = Store::over(Arc::new(InMemory::new()), options).await.unwrap();
        append(&store, 0..4).await;
        let sealed = async {
            while store.resume_point().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), sealed)
            .await
            .expect("sealed by itself");
        assert_eq!(sum(&store).await, (4, 10));
    }
}

/// The tail is sealed after each entry, and no other is taken before it was.
fn one_by_one() -> StoreOptions {
    StoreOptions {
        seal_rows: 1,
        wait_bytes: 1,
        ..by_hand()
    }
}

#[tokio::test]
async fn entries_wait_for_a_seal_at_work() {
    let slow = ThrottleConfig {
        wait_put_per_call: Duration::from_millis(300),
        ..ThrottleConfig::default()
    };
    let objects = Arc::new(ThrottledStore::new(InMemory::new(), slow));
    let store = Store::over(objects, one_by_one()).await.unwrap();
    append(&store, 0..1).await;
    while store.state().bytes == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(
        store.resume_point(),
        None,
        "the seal was over before it was looked at"
    );
    append(&store, 1..2).await;
    assert!(store.resume_point() >= Some(1));
}

#[tokio::test]
async fn no_entry_waits_for_a_seal_that_does_not_work() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), one_by_one()).await.unwrap();
    // A file where the folder must be.
    std::fs::write(folder.path().join("events"), b"").unwrap();
    append(&store, 0..1).await;
    let mut seals = store.seals.subscribe();
    seals.wait_for(|works| !works).await.unwrap();
    let more = append(&store, 1..4);
    tokio::time::timeout(Duration::from_secs(30), more)
        .await
        .expect("nothing waits");
    assert_eq!((sum(&store).await, store.resume_point()), ((4, 10), None));
}

#[tokio::test]
async fn days_are_put_together_when_no_more_waits_than_a_seal_takes() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        wait_bytes: 2,
        ..by_hand()
    };
    let store = Store::open(folder.path(), options).await.unwrap();
    append(&store, 0..3).await;
    store.seal().await.unwrap();
    append(&store, 3..4).await;
    store.put_uses_together().await.unwrap();
    assert_eq!(store.status().rows_in_uses, 0);
    store.seal().await.unwrap();
    store.put_uses_together().await.unwrap();
    assert_eq!(store.status().rows_in_uses, 4);
}

#[tokio::test]
async fn a_reader_beside_a_collector_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    append(&store, 0..3).await;
    store.seal().await.unwrap();
    // What the running collector is just writing must survive the reader.
    store
        .objects
        .put(
            &ObjectPath::from("events/unfinished.parquet"),
            PutPayload::from("x"),
        )
        .await
        .unwrap();
    let reader = Store::open_read_only(folder.path()).await.unwrap();
    append(&reader, 3..5).await;
    assert_eq!(sum(&reader).await, (5, 15));
    assert!(reader.seal().await.is_err());
    assert!(folder.path().join("events/unfinished.parquet").exists());
    let nothing = Store::open_read_only(&folder.path().join("absent"))
        .await
        .unwrap();
    assert_eq!(sum(&nothing).await, (0, 0));
}

#[tokio::test]
async fn views_say_what_their_names_promise() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    let shop = "spiffe://td/host/h/unit/shop.service";
    store
        .append(
            0,
            records(vec![query(1, shop, "SELECT 1"), query(2, shop, "SELECT 2")]),
        )
        .await;
    store.seal().await.unwrap();
    store
        .append(
            1,
            records(vec![
                query(3, "unknown", "SELECT 3"),
                gap(4, Some(100)),
                gap(5, None),
            ]),
        )
        .await;
    let principals = rows(
        &store,
        "SELECT principal, statements, rows, roles, objects, confidence, first_seen FROM principals ORDER BY 2 DESC",
    )
    .await;
    assert_eq!(
        principals,
        [
            vec![
                json!(shop),
                json!(2),
                json!(3),
                json!(["app_user"]),
                json!(["public.t0", "public.t1"]),
                json!(["observed"]),
                json!("2026-11-21T02:20:00Z")
            ],
            vec![
                json!("unknown"),
                json!(1),
                json!(3),
                json!(["app_user"]),
                json!(["public.t1"]),
                json!(["none"]),
                json!("2026-11-21T03:40:00Z")
            ],
        ]
    );
    assert_eq!(rows(&store, "SELECT count(*) FROM queries").await, [[json!(3)]]);
    assert_eq!(
        rows(&store, "SELECT gap_reason, bytes_missing FROM gaps ORDER BY seq").await[0][1],
        100
    );
    assert_eq!(
        rows(
            &store,
            "SELECT session_id, statements, principals FROM sessions ORDER BY 1"
        )
        .await
        .len(),
        3
    );
    assert_eq!(
        rows(
            &store,
            "SELECT event_id FROM events WHERE array_has(objects, 'public.t0')"
        )
        .await,
        [[json!("a-2")]]
    );
    let overview = store.overview(0).await.unwrap();
    for (key, value) in [
        ("statements", 3),
        ("principals", 1),
        ("roles", 1),
        ("attributed", 2),
        ("observed", 2),
        ("rows", 6),
        ("gaps", 2),
        ("bytes_missing", 100),
        ("gaps_of_unknown_size", 1),
        ("errors", 0),
    ] {
        assert_eq!(overview[key], value, "{key}");
    }
    assert_eq!(store.principals(0).await.unwrap().rows.len(), 2);
    let late = i64::try_from(START + 3 * 2_400_000_000_000).unwrap();
    assert_eq!(store.overview(late).await.unwrap()["statements"], 1);
}

/// Everything that is in two batches, by every column, before and after sealing.
#[tokio::test]
async fn files_hold_what_the_tail_held() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    let shelf = Arc::new(Shelf::default());
    store.show_events_of(shelf.clone());
    let batches = [
        vec![
            query(1, "p1", "SELECT 1"),
            query(2, "p2", "SELECT 2"),
            gap(3, Some(7)),
        ],
        vec![query(4, "p1", "SELECT 1"), query(5, "unknown", "SELECT 5")],
    ];
    for (n, events) in (0..).zip(batches) {
        let batch = records(events);
        shelf.put(n, &batch);
        store.append(n, batch).await;
    }
    let every = "SELECT * FROM events ORDER BY seq";
    let page = store.query(every, 10).await.unwrap();
    let of = |name: &str| page.columns.iter().position(|column| column == name).unwrap();
    let first = &page.rows[0];
    for (column, value) in [
        ("event_id", json!("a-1")),
        ("kind", json!("query")),
        ("login_role", json!("app_user")),
        ("effective_role", json!("reader")),
        ("end_user", json!("user-1")),
        ("principal", json!("p1")),
        ("statement", json!("SELECT 1")),
        ("objects", json!(["public.t1"])),
        ("object_access", json!(["read"])),
        ("outcome", json!("ok")),
        ("rows", json!(1)),
        ("parsed", json!(false)),
        ("batch_sequence", json!(1)),
        ("log_index", json!(0)),
        ("gap_reason", json!(null)),
    ] {
        assert_eq!(first[of(column)], value, "{column}");
    }
    assert_eq!(page.rows[2][of("gap_reason")], "ring_full");
    assert_eq!(page.rows[2][of("session_id")], json!(null));
    let event: Value = serde_json::from_str(page.rows[4][of("event")].as_str().unwrap()).unwrap();
    assert_eq!(
        (&event["event_id"], &event["statement"]["text"]),
        (&json!("a-5"), &json!("SELECT 5"))
    );
    assert_eq!(page.columns.last().unwrap(), "event");
    store.seal().await.unwrap();
    assert_eq!(store.query(every, 10).await.unwrap(), page);
    let ids = rows(
        &store,
        "SELECT seq FROM events WHERE event_id = 'a-4' AND principal = 'p1'",
    )
    .await;
    assert_eq!(ids, [[json!(4)]]);
    let listed = rows(&store, "SELECT array_agg(event) FROM events WHERE seq = 1").await;
    assert!(
        listed[0][0][0]
            .as_str()
            .unwrap()
            .starts_with("{\"kind\":\"query\"")
    );
}

const SHOP: &str = "spiffe://td/host/h/unit/shop.service";

/// An inventory in a file that a store goes by.
fn expecting(store: &Store, text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    store.expect(Arc::new(Expectations::open(file.path()).unwrap()));
    file
}

fn at(mut event: v1::Event, days: u64) -> v1::Event {
    event.ts_start_ns = START + days * 86_400_000_000_000;
    event
}

fn by(mut event: v1::Event, role: &str, address: &str) -> v1::Event {
    let session = event.session.as_mut().unwrap();
    session.login_role = role.into();
    session.client = Some(v1::Endpoint {
        addr: address.into(),
        ..Default::default()
    });
    event
}

#[tokio::test]
async fn events_and_sessions_are_marked_by_the_inventory() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    let shelf = Arc::new(Shelf::default());
    store.show_events_of(shelf.clone());
    let batch = records(vec![
        at(query(1, SHOP, "SELECT 1"), 0),
        at(by(query(2, SHOP, "SELECT 2"), "postgres", "10.1.0.7"), 0),
        at(query(3, "unknown", "SELECT 3"), 0),
        gap(4, None),
        // The day behind the last on which the credential is good.
        at(query(5, SHOP, "SELECT 5"), 2),
        at(query(6, "spiffe://td/host/h/unit/else.service", "SELECT 6"), 2),
    ]);
    shelf.put(0, &batch);
    store.append(0, batch).await;
    let every = "SELECT seq, expected, unexpected_because FROM events ORDER BY seq";
    for row in rows(&store, every).await {
        assert_eq!(row[1..], [Value::Null, Value::Null], "no inventory");
    }
    assert_eq!(
        rows(&store, "SELECT * FROM inventory").await,
        Vec::<Vec<Value>>::new()
    );
    let _file = expecting(
        &store,
        "[[principal]]\nid = \"spiffe://td/host/*/unit/shop.service\"\nowner = \"team-shop\"\nroles = [\"app_user\"]\n\
         databases = [\"shop\"]\nfrom = [\"10.0.0.0/16\"]\ncredential = { expires = 2026-11-22 }\n",
    );
    let because = "role postgres is not listed; 10.1.0.7 is in none of the listed networks";
    let expired = "the credential expired on 2026-11-22";
    for _ in 0..2 {
        assert_eq!(
            rows(&store, every).await,
            [
                [json!(1), json!("expected"), Value::Null],
                [json!(2), json!("unexpected"), json!(because)],
                [json!(3), json!("not in inventory"), Value::Null],
                [json!(4), Value::Null, Value::Null],
                [json!(5), json!("unexpected"), json!(expired)],
                [json!(6), json!("not in inventory"), Value::Null],
            ]
        );
        assert_eq!(
            rows(&store, "SELECT seq FROM queries WHERE expected = 'unexpected' AND unexpected_because LIKE '%expired%'").await,
            [[json!(5)]]
        );
        // Sessions are of the numbers modulo three: 3 and 6; 1; 2 and 5.
        assert_eq!(
            rows(
                &store,
                "SELECT session_id, expected, unexpected_because FROM sessions ORDER BY 1"
            )
            .await,
            [
                [json!("boot-0"), json!("not in inventory"), Value::Null],
                [json!("boot-1"), json!("expected"), Value::Null],
                [
                    json!("boot-2"),
                    json!("unexpected"),
                    json!(format!("{because}; {expired}"))
                ],
            ]
        );
        let events = rows(&store, "SELECT event FROM events ORDER BY seq").await;
        let event = |n: usize| -> Value { serde_json::from_str(events[n][0].as_str().unwrap()).unwrap() };
        assert_eq!(
            event(1)["inventory"],
            json!({"mark": "unexpected", "because": because, "owner": "team-shop"})
        );
        assert_eq!(event(3)["inventory"], Value::Null, "of no session");
        store.seal().await.unwrap();
    }
    assert_eq!(
        rows(
            &store,
            "SELECT id, owner, roles, networks, credential_expires, credential_rotated FROM inventory"
        )
        .await,
        [[
            json!("spiffe://td/host/*/unit/shop.service"),
            json!("team-shop"),
            json!(["app_user"]),
            json!(["10.0.0.0/16"]),
            json!("2026-11-22"),
            Value::Null
        ]]
    );
}

/// Known contents, and what each question has to find there.
#[tokio::test]
async fn questions_by_name_find_what_is_there() {
    use crate::ask::{Question, When};

    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    let [batch_job, dba] = [
        "spiffe://td/host/h/unit/batch.service",
        "spiffe://td/host/h/login/dba",
    ];
    let refused = |seq, role, days| {
        let mut event = at(by(query(seq, dba, ""), role, "10.0.0.9"), days);
        event.body = Some(Body::AuthFailure(v1::AuthFailure::default()));
        event
    };
    store
        .append(
            0,
            records(vec![
                at(query(1, SHOP, "SELECT 1"), 0),
                at(by(query(2, batch_job, "SELECT 2"), "batch", "10.0.0.5"), 0),
                refused(3, "postgres", 1),
                at(by(query(4, "unknown", "SELECT 4"), "batch", "10.0.0.6"), 41),
                at(query(5, SHOP, "SELECT 5"), 40),
                at(query(6, batch_job, "SELECT 6"), 40),
                at(query(7, SHOP, "SELECT 7"), 41),
                at(
                    by(query(8, "spiffe://td/new", "SELECT 8"), "fresh", "10.0.0.5"),
                    42,
                ),
                refused(9, "app_user", 41),
            ]),
        )
        .await;
    let day = |n: i64| i64::try_from(START).unwrap() + n * 86_400_000_000_000;
    let when = When {
        since: day(30),
        quiet: 30 * 86_400,
        now: day(0),
        expires: day(30),
        rotated: day(-100),
    };
    let ask = async |question: Question, columns: &str| {
        let page = store.query(&question.sql(&when), 1000).await.unwrap();
        let of = |name: &str| page.columns.iter().position(|column| column == name).unwrap();
        let wanted: Vec<usize> = columns.split(", ").map(of).collect();
        let row = |row: &Vec<Value>| wanted.iter().map(|n| row[*n].clone()).collect::<Vec<_>>();
        page.rows.iter().map(row).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        assert_eq!(
            ask(
                Question::SharedRoles,
                "login_role, used_by, statements, statements_of_unknown"
            )
            .await,
            [[json!("app_user"), json!([batch_job, SHOP]), json!(3), json!(0)]],
            "a failed login uses nothing"
        );
        assert_eq!(
            ask(Question::NewPrincipals, "principal, roles, statements").await,
            [[json!("spiffe://td/new"), json!(["fresh"]), json!(1)]]
        );
        assert_eq!(
            ask(Question::Dormant, "principal, last_seen, seen_again, days").await,
            [
                (dba, "2026-11-22T01:40:00Z", "2027-01-01T01:40:00Z"),
                (batch_job, "2026-11-21T01:40:00Z", "2026-12-31T01:40:00Z"),
                (SHOP, "2026-11-21T01:40:00Z", "2026-12-31T01:40:00Z"),
            ]
            .map(|(who, before, again)| [json!(who), json!(before), json!(again), json!(40.0)]),
            "who is turned away is seen"
        );
        assert_eq!(
            ask(Question::NewWorkloads, "login_role, principal, used_before_by").await,
            [
                [json!("fresh"), json!("spiffe://td/new"), Value::Null],
                [json!("app_user"), json!(batch_job), json!([SHOP])],
            ]
        );
        store.seal().await.unwrap();
    }
    let _file = expecting(
        &store,
        &format!(
            "[[principal]]\nid = \"{batch_job}\"\nowner = \"t\"\nroles = [\"batch\"]\n\
             [[principal]]\nid = \"{SHOP}\"\nowner = \"t\"\ncredential = {{ expires = 2027-01-10 }}\n\
             [[principal]]\nid = \"spiffe://td/a\"\nowner = \"t\"\ncredential = {{ expires = 2026-12-21 }}\n\
             [[principal]]\nid = \"spiffe://td/b\"\nowner = \"t\"\ncredential = {{ rotated = 2020-01-01 }}\n\
             [[principal]]\nid = \"spiffe://td/c\"\nowner = \"t\"\ncredential = {{ rotated = 2026-11-01, expires = 2020-01-01 }}\n"
        ),
    );
    assert_eq!(
        ask(
            Question::Unexpected,
            "principal, login_role, unexpected_because, statements, an_event"
        )
        .await,
        [[
            json!(batch_job),
            json!("app_user"),
            json!("role app_user is not listed"),
            json!(1),
            json!("a-6")
        ]]
    );
    assert_eq!(
        ask(Question::NotListed, "principal, login_role").await,
        [
            [json!("spiffe://td/new"), json!("fresh")],
            [json!(dba), json!("app_user")],
            [json!("unknown"), json!("batch")]
        ]
    );
    assert_eq!(
        ask(Question::Expiring, "id, because").await,
        [
            ["spiffe://td/c", "has expired"],
            ["spiffe://td/a", "expires soon"],
            ["spiffe://td/b", "was not changed for long"],
        ]
        .map(|row| row.map(|text| json!(text)))
    );
}
