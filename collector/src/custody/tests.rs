//! An erasure from the command to every byte, and cut short at each of its steps.

use std::{path::PathBuf, sync::atomic::AtomicBool, time::Duration};

use bytes::Bytes;
use datafusion::parquet::{
    column::page::Page,
    file::reader::{FileReader, SerializedFileReader},
};
use ed25519_dalek::SigningKey;
use evidence::{Chain, Contents};
use prost::Message;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    log::{Appended, Candidate, LogOptions, Opened},
    store::StoreOptions,
    verify::{Report, verify},
};

mod removal;

/// An agent, and a data folder that it delivers to.
struct Scene {
    data: tempfile::TempDir,
    key: SigningKey,
    chain: Chain,
    next: u64,
}

/// A collector over a data folder, but for its sockets.
pub(crate) struct Running {
    log: Arc<Log>,
    pub(crate) store: Arc<Store>,
    custodian: Arc<Custodian>,
    ended: tokio::sync::oneshot::Receiver<anyhow::Result<()>>,
    feed: JoinHandle<()>,
}

impl Scene {
    fn new() -> Self {
        Self {
            data: tempfile::tempdir().unwrap(),
            key: SigningKey::from_bytes(&[1; 32]),
            chain: Chain::new("db1"),
            next: 1,
        }
    }

    async fn start(&self) -> anyhow::Result<Running> {
        Running::over(self.data.path()).await
    }

    /// Delivers a batch with an event for each of these values, which stands in all that may hold one, and in a session of its own.
    async fn deliver(&mut self, running: &Running, values: &[&str]) {
        let mut contents = Contents::default();
        for (n, value) in values.iter().enumerate() {
            let seq = self.next + n as u64;
            let party = v1::Party {
                session: Some(v1::Session {
                    id: format!("session-{value}"),
                    application_name: format!("app {value}"),
                    ..v1::Session::default()
                }),
                attribution: Some(v1::Attribution {
                    principal: format!("spiffe://td/{value}"),
                    ..v1::Attribution::default()
                }),
            };
            let template = v1::Query {
                statement: Some(v1::Statement {
                    text: format!("SELECT '{value}'"),
                    ..v1::Statement::default()
                }),
                meaning: Some(v1::Meaning {
                    parsed: true,
                    objects: vec![v1::Object {
                        schema: "public".to_owned(),
                        name: "customers".to_owned(),
                        ..v1::Object::default()
                    }],
                    ..v1::Meaning::default()
                }),
                ..v1::Query::default()
            };
            let define = |kind| v1::Definition { kind: Some(kind) }.encode_to_vec();
            let party = contents.definition(&define(v1::definition::Kind::Party(party)));
            let template = contents.definition(&define(v1::definition::Kind::Template(template)));
            let query = v1::Query {
                asserted: Some(v1::Asserted {
                    claims: vec![v1::Claim {
                        says: "end_user".to_owned(),
                        value: format!("user {value}"),
                        ..v1::Claim::default()
                    }],
                    ..v1::Asserted::default()
                }),
                subjects: vec![v1::Subject {
                    object: "public.customers".to_owned(),
                    column: "id".to_owned(),
                    family: "text".to_owned(),
                    key: "k".to_owned(),
                    tokens: vec![token(value)],
                    ..v1::Subject::default()
                }],
                ..v1::Query::default()
            };
            let event = v1::Event {
                ts_start_ns: seq * SECOND,
                party: Some(party),
                template: Some(template),
                body: Some(Body::Query(query)),
                ..v1::Event::default()
            };
            contents.event(&[&event.encode_to_vec()]);
        }
        let hello = running
            .log
            .hello("db1".to_owned(), self.key.verifying_key())
            .await;
        hello.unwrap().unwrap();
        let seed = [self.next as u8; 32];
        let (from, to) = (self.next * SECOND, (self.next + values.len() as u64) * SECOND);
        let batch = evidence::seal(
            &mut self.chain,
            &self.key,
            contents,
            self.next,
            from,
            to - 1,
            None,
            seed,
        );
        let opened = evidence::open(&batch, &self.key.verifying_key(), &log::limits()).unwrap();
        let candidate = Candidate {
            batch,
            events: log::decode_events(&opened).unwrap(),
            seal: evidence::Seal {
                header: opened.header,
                header_hash: opened.header_hash,
            },
            stream_refused: Arc::new(AtomicBool::new(false)),
        };
        let stored = running.log.append(candidate).await.unwrap().await.unwrap();
        let Appended::Stored(entry) = stored else {
            panic!("{stored:?}")
        };
        self.next += values.len() as u64;
        while running.store.status().entries <= entry {
            tokio::task::yield_now().await;
        }
    }

    fn verify(&self) -> Report {
        verify(&self.data.path().join("evidence"), None)
    }

    /// Files in which a value stands, whatever they are packed with.
    fn holding(&self, value: &str) -> Vec<PathBuf> {
        let mut folders = vec![self.data.path().to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for file in std::fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let bytes = unpacked(&path);
                let holds = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
                if holds(value.as_bytes())
                    || holds(&token(value))
                    || holds(hex::encode(token(value)).as_bytes())
                {
                    found.push(path);
                }
            }
        }
        found
    }
}

impl Running {
    /// As `serve` starts one.
    pub(crate) async fn over(data: &Path) -> anyhow::Result<Self> {
        Self::with(data, StoreOptions::default()).await
    }

    /// The same, with a store that does as it is told.
    pub(crate) async fn with(data: &Path, of_store: StoreOptions) -> anyhow::Result<Self> {
        let options = LogOptions {
            name: Some("test".to_owned()),
            checkpoint_interval: Duration::from_secs(3600),
            segment_bytes: 3000,
        };
        let Opened {
            log,
            mut durable,
            ended,
            removals,
        } = Log::open(data, options, Arc::default())?;
        let store = Store::open(&data.join("store"), of_store).await?;
        finish(&store, &removals).await?;
        let originator = Originator::enrol(&log).await?;
        let own = originator.id().to_owned();
        store.believe(&own).await?;
        let evidence = data.join("evidence");
        store.show_events_of(Arc::new(Places::new(&evidence)));
        crate::rebuild::hand_over(&evidence, &store, |_| {}).await?;
        let custodian = Custodian::new(
            data,
            &log,
            &store,
            (&own, &Arc::new(Mutex::new(originator))),
            removals,
        );
        let fed = Arc::clone(&store);
        let feed = tokio::spawn(async move {
            while let Some(batch) = durable.recv().await {
                fed.append(batch.log_index, batch.events).await;
            }
        });
        Ok(Self {
            log,
            store,
            custodian: Arc::new(custodian),
            ended,
            feed,
        })
    }

    pub(crate) async fn stop(self) {
        self.log.close().await;
        self.ended.await.unwrap().unwrap();
        self.feed.await.unwrap();
        self.store.seal().await.unwrap();
    }

    /// Ends as if it had been killed: nothing more is written by what it began.
    async fn vanish(self) {
        self.log.close().await;
        self.ended.await.unwrap().unwrap();
        self.feed.await.unwrap();
    }

    pub(crate) async fn erase(&self, selected: Selected) -> anyhow::Result<Erased> {
        self.custodian.erase(selected, &asker(), false).await
    }

    /// Removes the payloads of segments in which everything had ended by then; how many segments.
    pub(crate) async fn remove_older(&self, before_ns: u64) -> u64 {
        let removed = self.custodian.retain(before_ns, &asker(), false).await;
        removed.unwrap().segments
    }

    /// Waits until the store has heard of so many erasures.
    async fn has_said(&self, acts: u64) {
        while self
            .count("SELECT count(*) FROM events WHERE kind = 'erasure'")
            .await
            != acts
        {
            tokio::task::yield_now().await;
        }
    }

    async fn count(&self, sql: &str) -> serde_json::Value {
        let page = self.store.query(sql, 10).await.unwrap();
        page.rows[0][0].clone()
    }
}

/// Each event begins so much later than the one before.
const SECOND: u64 = 1_000_000_000;

fn asker() -> Asker {
    Asker {
        by: "root".to_owned(),
        reason: "article 17".to_owned(),
    }
}

/// Stands for a value as one would that a key made.
fn token(value: &str) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(value)[..16].to_vec()
}

/// A file's bytes, and what they unpack to.
fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("seg") => {
            let mut rest = bytes.as_slice();
            let mut payloads = Vec::new();
            while let Some((frame, behind)) = rest.split_first_chunk::<12>() {
                let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
                let batch = v1::SignedBatch::decode(&behind[..length]).unwrap();
                payloads.extend(zstd::stream::decode_all(batch.payload.as_ref()).unwrap());
                rest = &behind[length..];
            }
            bytes.extend(payloads);
        }
        Some("parquet") => {
            let reader = SerializedFileReader::new(Bytes::from(bytes.clone())).unwrap();
            for group in 0..reader.num_row_groups() {
                let group = reader.get_row_group(group).unwrap();
                for column in 0..group.num_columns() {
                    let pages = group.get_column_page_reader(column).unwrap();
                    for page in pages {
                        let page: Page = page.unwrap();
                        bytes.extend_from_slice(page.buffer());
                    }
                }
            }
        }
        _ => {}
    }
    bytes
}

fn ids(seqs: &[u64]) -> Selected {
    Selected::Ids(seqs.iter().map(|seq| ("db1".to_owned(), *seq)).collect())
}

#[tokio::test]
async fn what_is_erased_is_in_no_byte_and_everything_else_holds() {
    let mut scene = Scene::new();
    let running = scene.start().await.unwrap();
    for n in 0..20 {
        let values = [format!("value-{n}-a"), format!("value-{n}-b")];
        scene.deliver(&running, &[&values[0], &values[1]]).await;
        if n == 9 {
            running.store.seal().await.unwrap();
        }
    }
    assert!(!scene.holding("value-3-a").is_empty());
    let looked = running
        .custodian
        .erase(ids(&[7, 40]), &asker(), true)
        .await
        .unwrap();
    assert_eq!((looked.events, looked.definitions, looked.batches), (2, 4, 2));
    assert!(!scene.holding("value-3-a").is_empty(), "it was only looked at");
    let erased = running.erase(ids(&[7, 40])).await.unwrap();
    assert_eq!((erased.events, erased.definitions, erased.batches), (2, 4, 2));
    for gone in ["value-3-a", "value-19-b"] {
        assert_eq!(scene.holding(gone), Vec::<PathBuf>::new());
    }
    for left in ["value-3-b", "value-19-a", "value-0-a"] {
        assert!(!scene.holding(left).is_empty(), "{left}");
    }
    assert_eq!(
        running
            .count("SELECT count(*) FROM events WHERE agent = 'db1'")
            .await,
        38
    );
    assert_eq!(running.count("SELECT count(*) FROM subjects").await, 38);
    running.has_said(1).await;
    let page = running
        .store
        .query("SELECT event FROM events WHERE kind = 'erasure'", 10)
        .await;
    let said = page.unwrap().rows[0][0].to_string();
    assert!(said.contains("article 17") && !said.contains("value-"), "{said}");
    // Others of the same batches are shown as ever.
    assert_eq!(
        running
            .count("SELECT count(event) FROM events WHERE agent = 'db1'")
            .await,
        38
    );
    // Again: nothing is left to be erased.
    let again = running.erase(ids(&[7, 40])).await.unwrap();
    assert_eq!((again.events, again.said.len()), (0, 0));
    running.stop().await;
    let report = scene.verify();
    assert_eq!(report.wrong, None);
    assert_eq!((report.erasures, report.erased_events), (1, 2));
    let evidence = scene.data.path().join("evidence");
    let error = crate::prove::prove(&evidence, "db1-7").unwrap_err();
    assert!(error.to_string().contains("was erased"), "{error:#}");
    let proof = crate::prove::prove(&evidence, "db1-8").unwrap();
    let report = crate::prove::check(&proof.to_bytes().unwrap(), &crate::verify::Options::default());
    assert_eq!(report.wrong, None);
    // A store made anew has the same.
    std::fs::remove_dir_all(scene.data.path().join("store")).unwrap();
    let running = scene.start().await.unwrap();
    assert_eq!(
        running
            .count("SELECT count(*) FROM events WHERE agent = 'db1'")
            .await,
        38
    );
    running.stop().await;
    assert_eq!(scene.holding("value-3-a"), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn events_are_found_by_record_principal_and_time() {
    let mut scene = Scene::new();
    let running = scene.start().await.unwrap();
    scene
        .deliver(&running, &["value-one", "value-two", "value-one"])
        .await;
    scene
        .deliver(&running, &["value-three", "value-one", "value-four"])
        .await;
    let asked = crate::store::who::Asked {
        object: "public.customers".to_owned(),
        column: "id".to_owned(),
        tokens: vec![crate::store::who::Sought {
            key: "k".to_owned(),
            family: "text".to_owned(),
            token: hex::encode(token("value-one")),
        }],
        span: crate::store::question::Span::default(),
    };
    let record = Selected::Record {
        asked,
        possible: false,
    };
    assert_eq!(running.erase(record).await.unwrap().events, 3);
    assert_eq!(scene.holding("value-one"), Vec::<PathBuf>::new());
    let principal = Selected::Principal("spiffe://td/value-three".to_owned());
    assert_eq!(running.erase(principal).await.unwrap().events, 1);
    assert_eq!(
        running
            .erase(Selected::Before(3_000_000_000))
            .await
            .unwrap()
            .events,
        1
    );
    for gone in ["value-three", "value-two"] {
        assert_eq!(scene.holding(gone), Vec::<PathBuf>::new());
    }
    assert!(!scene.holding("value-four").is_empty());
    // What the collector said of that itself stays.
    running.has_said(3).await;
    let all = running.erase(Selected::Before(i64::MAX)).await.unwrap();
    assert_eq!((all.events, all.kept), (1, 3));
    running.stop().await;
    assert_eq!(scene.verify().wrong, None);
}

/// How far an act comes before the collector is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Staged,
    Said,
    OneSegment,
    Payloads,
}

#[tokio::test]
async fn an_act_that_is_cut_short_is_finished_by_the_next_start_or_never_was() {
    for cut in [Cut::Staged, Cut::Said, Cut::OneSegment, Cut::Payloads] {
        let mut scene = Scene::new();
        let running = scene.start().await.unwrap();
        for n in 0..20 {
            scene
                .deliver(&running, &[&format!("value-{n}-a"), &format!("value-{n}-b")])
                .await;
        }
        running.store.seal().await.unwrap();
        let acts = Acts::default();
        let (meant, _) = running.store.select(&ids(&[1, 40])).await.unwrap();
        let staged = running.custodian.stage(&acts, &meant).await.unwrap().unwrap();
        assert!(staged.segments.len() == 2, "{:?}", staged.segments);
        if cut != Cut::Staged {
            let erasure = v1::Erasure {
                batches: staged.batches.clone(),
                ..v1::Erasure::default()
            };
            running.custodian.say(vec![Body::Erasure(erasure)]).await.unwrap();
        }
        let due = match cut {
            Cut::Staged | Cut::Said => 0,
            Cut::OneSegment => 1,
            Cut::Payloads => 2,
        };
        for first in staged.segments.iter().take(due) {
            log::put_in_place(&running.custodian.folder, *first).unwrap();
        }
        running.vanish().await;
        if cut == Cut::Said || cut == Cut::OneSegment {
            let wrong = scene.verify().wrong.unwrap();
            assert!(
                wrong.what.contains("said to be erased, and is still there"),
                "{wrong}"
            );
        }
        let running = scene.start().await.unwrap();
        let is_gone = cut != Cut::Staged;
        for value in ["value-0-a", "value-19-b"] {
            assert_eq!(scene.holding(value).is_empty(), is_gone, "{cut:?}: {value}");
        }
        let left = if is_gone { 38 } else { 40 };
        assert_eq!(
            running
                .count("SELECT count(*) FROM events WHERE agent = 'db1'")
                .await,
            left,
            "{cut:?}"
        );
        assert!(
            std::fs::read_dir(scene.data.path().join("erasing"))
                .unwrap()
                .next()
                .is_none()
        );
        running.stop().await;
        assert_eq!(scene.verify().wrong, None, "{cut:?}");
    }
}

#[tokio::test]
async fn what_nobody_said_to_be_erased_is_found_out() {
    let mut scene = Scene::new();
    let running = scene.start().await.unwrap();
    scene.deliver(&running, &["value-one", "value-two"]).await;
    scene.deliver(&running, &["value-three", "value-four"]).await;
    let acts = Acts::default();
    let (meant, _) = running.store.select(&ids(&[1])).await.unwrap();
    let staged = running.custodian.stage(&acts, &meant).await.unwrap().unwrap();
    for first in &staged.segments {
        log::put_in_place(&running.custodian.folder, *first).unwrap();
    }
    running.vanish().await;
    let wrong = scene.verify().wrong.unwrap();
    assert_eq!(
        (wrong.entry, wrong.file.as_str()),
        (Some(0), "payload/000000000000.seg")
    );
    assert!(wrong.what.contains("nobody said"), "{wrong}");
    assert!(scene.start().await.is_err(), "nothing is added to such a log");
}

#[tokio::test]
async fn more_than_was_said_is_found_out() {
    let mut scene = Scene::new();
    let running = scene.start().await.unwrap();
    scene.deliver(&running, &["value-one", "value-two"]).await;
    scene.deliver(&running, &["value-three", "value-four"]).await;
    running.erase(ids(&[1])).await.unwrap();
    let acts = Acts::default();
    let (meant, _) = running.store.select(&ids(&[2])).await.unwrap();
    let staged = running.custodian.stage(&acts, &meant).await.unwrap().unwrap();
    for first in &staged.segments {
        log::put_in_place(&running.custodian.folder, *first).unwrap();
    }
    running.vanish().await;
    let wrong = scene.verify().wrong.unwrap();
    assert_eq!(wrong.entry, Some(0));
    assert!(
        wrong.what.contains("not the one that was said to be left"),
        "{wrong}"
    );
}

#[tokio::test]
async fn a_batch_loses_its_events_one_after_the_other() {
    let mut scene = Scene::new();
    let running = scene.start().await.unwrap();
    scene
        .deliver(&running, &["value-one", "value-two", "value-three"])
        .await;
    for seq in [2, 1, 3] {
        assert_eq!(running.erase(ids(&[seq])).await.unwrap().events, 1);
    }
    for gone in ["value-one", "value-two", "value-three"] {
        assert_eq!(scene.holding(gone), Vec::<PathBuf>::new());
    }
    running.stop().await;
    let report = scene.verify();
    assert_eq!(
        (report.wrong, report.erasures, report.erased_events),
        (None, 3, 3)
    );
    let running = scene.start().await.unwrap();
    assert_eq!(
        running
            .count("SELECT count(*) FROM events WHERE agent = 'db1'")
            .await,
        0
    );
    running.stop().await;
}

#[tokio::test]
async fn a_hold_is_stronger_until_it_is_released() {
    let mut scene = Scene::new();
    let running = scene.start().await.unwrap();
    scene.deliver(&running, &["value-one", "value-two"]).await;
    // By time: a principal that a hold names stands in the record for good.
    let hold = v1::Hold {
        since_ns: 2 * SECOND,
        until_ns: 3 * SECOND,
        reason: "case 17".to_owned(),
        ..v1::Hold::default()
    };
    let id = running.custodian.hold(hold).await.unwrap();
    running.stop().await;
    // The record has it, and not the memory of one run.
    let running = scene.start().await.unwrap();
    assert_eq!(running.custodian.holds().await.len(), 1);
    let refused = format!("{:#}", running.erase(ids(&[1, 2])).await.unwrap_err());
    assert!(
        refused.contains(&id) && refused.contains("db1-2") && refused.contains("case 17"),
        "{refused}"
    );
    assert!(!scene.holding("value-one").is_empty(), "all or nothing");
    assert_eq!(running.erase(ids(&[1])).await.unwrap().events, 1);
    assert!(running.custodian.release("h999", &asker()).await.is_err());
    running.custodian.release(&id, &asker()).await.unwrap();
    assert!(running.custodian.release(&id, &asker()).await.is_err());
    assert_eq!(running.erase(ids(&[2])).await.unwrap().events, 1);
    assert_eq!(scene.holding("value-two"), Vec::<PathBuf>::new());
    running.stop().await;
    let running = scene.start().await.unwrap();
    assert!(running.custodian.holds().await.is_empty());
    running.stop().await;
    assert_eq!(scene.verify().wrong, None);
}
