//! Whose records: the table, its files, and who touched one.

use std::{fmt, ops::Range, sync::atomic::AtomicU64, time::Instant};

use ::subjects::{Family, Filter, Key, Keys, Token, canonical_text};
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutResult,
};

use super::*;
use crate::store::{
    question::Span,
    who::{Asked, Made, Sought},
};

const SHOP: &str = "spiffe://td/host/h/unit/shop.service";
const DESK: &str = "spiffe://td/host/h/unit/desk.service";
const JOB: &str = "spiffe://td/host/h/unit/job.service";
const OBJECT: &str = "public.customers";

fn keys() -> Keys {
    Keys::parse(
        "old 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n\
         new 101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f\n",
    )
    .unwrap()
}

fn key(id: &str) -> Key {
    keys().iter().find(|key| key.id() == id).unwrap().clone()
}

pub(super) fn token(key_id: &str, value: u64) -> Token {
    let form = canonical_text(Family::Integer, &value.to_string()).unwrap();
    key(key_id).token(Family::Integer, &form)
}

/// The values of `public.customers.id` that a statement told.
fn told(values: &[u64], sources: &[&str], complete: bool) -> v1::Subject {
    let mut tokens: Vec<Vec<u8>> = values
        .iter()
        .map(|value| token("new", *value).0.to_vec())
        .collect();
    tokens.sort();
    v1::Subject {
        object: OBJECT.into(),
        column: "id".into(),
        family: "integer".into(),
        key: "new".into(),
        tokens,
        complete,
        sources: sources.iter().map(|source| (*source).to_owned()).collect(),
        ..Default::default()
    }
}

/// The same under the former key.
fn told_before(values: &[u64]) -> v1::Subject {
    v1::Subject {
        key: "old".into(),
        tokens: values
            .iter()
            .map(|value| token("old", *value).0.to_vec())
            .collect(),
        ..told(&[], &["predicate"], true)
    }
}

/// The same, too many to be listed.
fn filtered(values: Range<u64>, complete: bool) -> v1::Subject {
    let tokens: Vec<Token> = values.map(|value| token("new", value)).collect();
    v1::Subject {
        filter_values: tokens.len() as u64,
        filter: Filter::of(tokens.into_iter()).as_bytes().to_vec(),
        ..told(&[], &["returned"], complete)
    }
}

/// A statement on `public.customers`.
fn on_customers(seq: u64, principal: &str, command: &str, subjects: Vec<v1::Subject>) -> v1::Event {
    let mut event = query(seq, principal, &format!("{command} customers"));
    let Some(Body::Query(query)) = &mut event.body else {
        unreachable!()
    };
    query.subjects = subjects;
    let meaning = query.meaning.as_mut().unwrap();
    meaning.command = command.into();
    meaning.parsed = true;
    if command != "SELECT" {
        meaning.class = v1::Class::Write.into();
    }
    meaning.objects[0].name = "customers".into();
    event
}

fn asked(value: u64, keys: &[&str]) -> Asked {
    let sought = |id: &&str| Sought {
        key: (*id).to_owned(),
        family: "integer".into(),
        token: token(id, value).to_string(),
    };
    Asked {
        object: OBJECT.into(),
        column: "id".into(),
        tokens: keys.iter().map(sought).collect(),
        span: Span::default(),
    }
}

/// Some columns of a page, row by row.
fn cells(page: &page::Page, columns: &[&str]) -> Vec<Vec<Value>> {
    let place = |name: &&str| page.columns.iter().position(|column| column == name).unwrap();
    let places: Vec<usize> = columns.iter().map(place).collect();
    let row = |row: &Vec<Value>| places.iter().map(|place| row[*place].clone()).collect();
    page.rows.iter().map(row).collect()
}

/// Everything that a statement can have told.
fn events() -> Vec<v1::Event> {
    vec![
        on_customers(
            1,
            SHOP,
            "SELECT",
            vec![told(&[42], &["predicate", "returned"], true)],
        ),
        on_customers(2, SHOP, "UPDATE", vec![told(&[42], &["predicate"], true)]),
        on_customers(3, DESK, "SELECT", vec![told(&[7, 42, 9], &["returned"], true)]),
        on_customers(4, DESK, "SELECT", vec![told(&[7, 9], &["returned"], true)]),
        // Neither: a value of another object, and another value of this one.
        on_customers(
            5,
            JOB,
            "INSERT",
            vec![
                v1::Subject {
                    object: "public.orders".into(),
                    ..told(&[42], &["written"], true)
                },
                told(&[8], &["written"], true),
            ],
        ),
        on_customers(6, JOB, "SELECT", vec![told(&[], &[], false)]),
        on_customers(7, JOB, "SELECT", vec![filtered(0..3000, true)]),
        on_customers(8, JOB, "SELECT", vec![filtered(5000..8000, true)]),
        on_customers(9, JOB, "DELETE", Vec::new()),
        on_customers(10, SHOP, "SELECT", vec![told_before(&[42])]),
        // No row came back.
        on_customers(11, JOB, "SELECT", vec![told(&[], &[], true)]),
        {
            let mut other = on_customers(12, JOB, "SELECT", Vec::new());
            if let Some(Body::Query(query)) = &mut other.body {
                query.meaning.as_mut().unwrap().objects[0].name = "orders".into();
            }
            other
        },
    ]
}

async fn filled(store: &Store, sealed: usize) {
    for (entry, event) in (0..).zip(events()) {
        if entry as usize == sealed {
            store.seal().await.unwrap();
        }
        store.append(entry, records(vec![event])).await;
    }
    if sealed >= 12 {
        store.seal().await.unwrap();
    }
}

#[tokio::test]
async fn the_table_is_the_same_in_tail_and_files() {
    let all = "SELECT * FROM subjects ORDER BY seq, object, token";
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    filled(&store, 100).await;
    // `filled` seals at its end; what the tail says is asked of another store.
    let tail = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    for (entry, event) in (0..).zip(events()) {
        tail.append(entry, records(vec![event])).await;
    }
    let half = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    filled(&half, 5).await;
    let of_tail = tail.query(all, 1000).await.unwrap();
    assert_eq!(
        (tail.status().sealed_subjects, store.status().sealed_subjects),
        (0, 14)
    );
    assert_eq!(store.query(all, 1000).await.unwrap(), of_tail);
    assert_eq!(half.query(all, 1000).await.unwrap(), of_tail);
    assert_eq!(of_tail.rows.len(), 14);
    let columns = [
        "event_id",
        "agent",
        "object",
        "column_name",
        "family",
        "key_id",
        "token",
        "filter_values",
        "complete",
        "sources",
    ];
    assert_eq!(
        cells(&of_tail, &columns)[1],
        [
            json!("a-2"),
            json!("a"),
            json!(OBJECT),
            json!("id"),
            json!("integer"),
            json!("new"),
            json!(token("new", 42).to_string()),
            Value::Null,
            json!(true),
            json!(["predicate"]),
        ]
    );
    let sql = "SELECT count(*) FROM subjects s JOIN events e ON s.log_index = e.log_index AND s.seq = e.seq \
        AND s.agent = e.agent AND s.ts_start = e.ts_start";
    assert_eq!(rows(&half, sql).await, [[json!(14)]]);
    drop(store);
    // And after a start.
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    assert_eq!(store.query(all, 1000).await.unwrap(), of_tail);
}

#[tokio::test]
async fn a_store_without_a_subjects_file_starts_empty() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    filled(&store, 100).await;
    let file = store.state().manifest.subjects[0].path.clone();
    drop(store);
    std::fs::remove_file(folder.path().join(file)).unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    assert_eq!((sum(&store).await.0, store.resume_point()), (0, None));
}

#[tokio::test]
async fn who_touched_a_record_and_what_is_not_excluded() {
    for sealed in [0, 5, 100] {
        let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
        filled(&store, sealed).await;
        let answer = store.who(&asked(42, &["old", "new"])).await.unwrap();
        let touched = cells(
            &answer.touched,
            &[
                "principal",
                "command",
                "sure",
                "sources",
                "statements",
                "last_event",
            ],
        );
        assert_eq!(
            touched,
            [
                // Newest first.
                vec![
                    json!(SHOP),
                    json!("SELECT"),
                    json!(true),
                    json!("predicate"),
                    json!(1),
                    json!("a-10")
                ],
                vec![
                    json!(DESK),
                    json!("SELECT"),
                    json!(true),
                    json!("returned"),
                    json!(1),
                    json!("a-3")
                ],
                vec![
                    json!(SHOP),
                    json!("UPDATE"),
                    json!(true),
                    json!("predicate"),
                    json!(1),
                    json!("a-2")
                ],
                vec![
                    json!(SHOP),
                    json!("SELECT"),
                    json!(true),
                    json!("predicate, returned"),
                    json!(1),
                    json!("a-1")
                ],
                vec![
                    json!(JOB),
                    json!("SELECT"),
                    json!(false),
                    json!("returned"),
                    json!(1),
                    json!("a-7")
                ],
            ],
            "sealed {sealed}"
        );
        let open = cells(
            &answer.not_excluded,
            &["principal", "because", "statements", "commands", "on_object"],
        );
        assert_eq!(
            open,
            [
                vec![
                    json!(JOB),
                    json!("its records are not known"),
                    json!(1),
                    json!(["DELETE"]),
                    json!(true)
                ],
                vec![
                    json!(JOB),
                    json!("not all of its records are known"),
                    json!(1),
                    json!(["SELECT"]),
                    json!(true)
                ],
            ],
            "sealed {sealed}"
        );
        assert_eq!((answer.gaps, answer.opaque_sessions, answer.more), (0, 0, false));

        // Without the former key, what it made is neither found nor excluded.
        let answer = store.who(&asked(42, &["new"])).await.unwrap();
        assert_eq!(answer.touched.rows.len(), 4);
        let open = cells(&answer.not_excluded, &["principal", "because"]);
        assert!(
            open.contains(&vec![
                json!(SHOP),
                json!("its records are of another key or type, or not known")
            ]),
            "{open:?}"
        );
        // In no time: what is looked up is told, and that the rest was not counted.
        let asked_both = asked(42, &["old", "new"]);
        let whole = store.who(&asked_both).await.unwrap();
        let hasty = store.who_within(&asked_both, Some(Duration::ZERO)).await.unwrap();
        assert!(hasty.not_counted && hasty.not_excluded.rows.is_empty());
        assert_eq!(
            (hasty.touched, hasty.gaps, hasty.seen),
            (whole.touched, whole.gaps, whole.seen)
        );
        assert!(!whole.not_counted && !whole.not_excluded.rows.is_empty());
        // Somebody whom nobody touched, but maybe those who did not say.
        let answer = store.who(&asked(4711, &["old", "new"])).await.unwrap();
        assert_eq!(
            (answer.touched.rows.len(), answer.not_excluded.rows.len()),
            (0, 2)
        );
        // Only what is asked for counts.
        let mut later = asked(42, &["old", "new"]);
        later.span.since_ns = Some((START + 10 * 2_400_000_000_000) as i64);
        let answer = store.who(&later).await.unwrap();
        assert_eq!(cells(&answer.touched, &["last_event"]), [[json!("a-10")]]);
        assert_eq!(answer.not_excluded.rows.len(), 0);
        later.span.until_ns = later.span.since_ns;
        assert_eq!(store.who(&later).await.unwrap().touched.rows.len(), 0);
    }
}

#[tokio::test]
async fn what_hides_a_record_is_said() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    let change = |seq, change: fn(&mut v1::Query)| {
        let mut event = query(seq, JOB, "x");
        if let Some(Body::Query(query)) = &mut event.body {
            query.meaning.as_mut().unwrap().parsed = true;
            change(query);
        }
        event
    };
    let mut events = vec![
        change(1, |query| query.statement.as_mut().unwrap().text_known = false),
        change(2, |query| {
            query.meaning.as_mut().unwrap().class = v1::Class::Function.into();
        }),
        change(3, |query| query.protocol = v1::Protocol::Replication.into()),
        change(4, |query| query.meaning.as_mut().unwrap().parsed = false),
        // As written, without its schema.
        change(5, |query| {
            let object = &mut query.meaning.as_mut().unwrap().objects[0];
            object.schema.clear();
            object.name = "customers".into();
        }),
        // Of these nothing is to be said.
        change(6, |_| {}),
        change(7, |query| {
            let meaning = query.meaning.as_mut().unwrap();
            meaning.parsed = false;
            meaning.class = v1::Class::Misc.into();
        }),
        // A token that is none.
        on_customers(
            8,
            SHOP,
            "SELECT",
            vec![v1::Subject {
                tokens: vec![vec![1; 15]],
                ..told(&[], &["predicate"], true)
            }],
        ),
        // A filter of a later version.
        on_customers(
            9,
            DESK,
            "SELECT",
            vec![v1::Subject {
                filter: vec![9, 9, 9],
                filter_values: 3000,
                ..told(&[], &["returned"], true)
            }],
        ),
    ];
    events.push(v1::Event {
        seq: 10,
        ts_start_ns: START,
        body: Some(Body::Gap(v1::Gap::default())),
        ..Default::default()
    });
    events.push(v1::Event {
        seq: 11,
        ts_start_ns: START,
        body: Some(Body::Heartbeat(v1::Heartbeat {
            counters: Some(v1::Counters {
                left_out: 5,
                ..Default::default()
            }),
            ..Default::default()
        })),
        ..Default::default()
    });
    store.append(0, records(events)).await;
    let answer = store.who(&asked(42, &["new"])).await.unwrap();
    assert_eq!(answer.touched.rows.len(), 0);
    let mut open = cells(
        &answer.not_excluded,
        &["because", "statements", "on_object", "principal"],
    );
    open.sort_by_key(|row| row[0].to_string());
    assert_eq!(
        open,
        [
            vec![
                json!("it ran what is not seen"),
                json!(2),
                json!(false),
                json!(JOB)
            ],
            vec![
                json!("its records are not known"),
                json!(1),
                json!(true),
                json!(JOB)
            ],
            vec![json!("its text is not known"), json!(1), json!(false), json!(JOB)],
            vec![
                json!("its text is not understood"),
                json!(1),
                json!(false),
                json!(JOB)
            ],
            vec![
                json!("not all of its records are known"),
                json!(1),
                json!(true),
                json!(DESK)
            ],
            vec![
                json!("not all of its records are known"),
                json!(1),
                json!(true),
                json!(SHOP)
            ],
        ]
    );
    assert_eq!((answer.gaps, answer.left_out), (1, 5));
}

#[tokio::test]
async fn rules_and_keys_are_told_and_odd_questions_are_not_answered() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    filled(&store, 5).await;
    let made = store.made_of(OBJECT, Span::default()).await.unwrap();
    let of = |key: &str, values| Made {
        column: "id".into(),
        family: Some("integer".into()),
        key: Some(key.into()),
        values,
    };
    assert_eq!(made, [of("new", 12), of("old", 1)]);
    assert_eq!(
        store.made_of("public.c' OR ''='", Span::default()).await.unwrap(),
        []
    );
    for wrong in ["", "zz", &"0".repeat(31), &"0A".repeat(16), "' OR 1=1 --"] {
        let mut asked = asked(42, &["new"]);
        asked.tokens[0].token = wrong.to_owned();
        assert!(store.who(&asked).await.is_err(), "{wrong}");
    }
    let mut many = asked(42, &["new"]);
    many.tokens = vec![many.tokens[0].clone(); 257];
    assert!(store.who(&many).await.is_err());
    let mut none = asked(42, &[]);
    none.object = "x' OR objects IS NOT NULL --".to_owned();
    let answer = store.who(&none).await.unwrap();
    assert_eq!(
        (answer.touched.rows.len(), answer.not_excluded.rows.len()),
        (0, 0)
    );
}

/// Counts the bytes that are read.
#[derive(Debug)]
struct Counted {
    objects: InMemory,
    read: Arc<AtomicU64>,
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counted")
    }
}

#[tonic::async_trait]
impl ObjectStore for Counted {
    async fn put_opts(
        &self,
        to: &ObjectPath,
        what: PutPayload,
        how: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.objects.put_opts(to, what, how).await
    }

    async fn put_multipart_opts(
        &self,
        to: &ObjectPath,
        how: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(to, how).await
    }

    async fn get_opts(&self, from: &ObjectPath, how: GetOptions) -> object_store::Result<GetResult> {
        let head = how.head;
        let found = self.objects.get_opts(from, how).await?;
        if !head {
            let bytes = found.range.end - found.range.start;
            self.read.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(found)
    }

    async fn get_ranges(
        &self,
        from: &ObjectPath,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<bytes::Bytes>> {
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        self.read.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        self.objects.get_ranges(from, ranges).await
    }

    fn delete_stream(
        &self,
        of: BoxStream<'static, object_store::Result<ObjectPath>>,
    ) -> BoxStream<'static, object_store::Result<ObjectPath>> {
        self.objects.delete_stream(of)
    }

    fn list(&self, below: Option<&ObjectPath>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.objects.list(below)
    }

    async fn list_with_delimiter(&self, below: Option<&ObjectPath>) -> object_store::Result<ListResult> {
        self.objects.list_with_delimiter(below).await
    }

    async fn copy_opts(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        how: CopyOptions,
    ) -> object_store::Result<()> {
        self.objects.copy_opts(from, to, how).await
    }
}

/// Each of 100,000 statements names another customer and gets two more back: looking for one reads a part of one page a file.
#[tokio::test]
async fn a_token_is_found_without_reading_the_others() {
    let read = Arc::new(AtomicU64::new(0));
    let objects = Counted {
        objects: InMemory::new(),
        read: Arc::clone(&read),
    };
    let store = Store::over(Arc::new(objects), by_hand()).await.unwrap();
    let (entries, each) = (100, 1000);
    for entry in 0..entries {
        let events = (0..each).map(|n| {
            let seq = entry * each + n + 1;
            let mut event = on_customers(
                seq,
                SHOP,
                "SELECT",
                vec![told(&[seq, seq + 1, seq + 2], &["returned"], true)],
            );
            event.ts_start_ns = START + seq * 1_000_000;
            event
        });
        store.append(entry, records(events.collect())).await;
        if entry % 25 == 24 {
            store.seal().await.unwrap();
        }
    }
    let status = store.status();
    assert_eq!(
        (status.sealed_subjects, status.tail_rows),
        (3 * entries * each, 0)
    );
    read.store(0, std::sync::atomic::Ordering::Relaxed);
    let sought = token("new", 4711);
    let sql = format!("SELECT count(*), min(seq) FROM subjects WHERE token = '{sought}'");
    assert_eq!(rows(&store, &sql).await, [[json!(3), json!(4709)]]);
    let of_table = read.load(std::sync::atomic::Ordering::Relaxed);
    let table: u64 = store
        .state()
        .manifest
        .subjects
        .iter()
        .map(|file| file.bytes)
        .sum();
    println!("{of_table} bytes read of {table} for a token");
    read.store(0, std::sync::atomic::Ordering::Relaxed);
    let begun = Instant::now();
    let answer = store.who(&asked(4711, &["new"])).await.unwrap();
    assert_eq!(
        cells(&answer.touched, &["principal", "statements"]),
        [[json!(SHOP), json!(3)]]
    );
    assert_eq!(answer.not_excluded.rows.len(), 0);
    let whole = read.load(std::sync::atomic::Ordering::Relaxed);
    println!("{whole} bytes read in {:?} for the whole answer", begun.elapsed());
    // Footers are read for the first time.
    assert!(of_table * 6 < table, "{of_table} of {table}");
    read.store(0, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(rows(&store, &sql).await.len(), 1);
    let again = read.load(std::sync::atomic::Ordering::Relaxed);
    println!("{again} bytes read of {table} for it once more");
    assert!(again * 20 < table, "{again} of {table}");
}
