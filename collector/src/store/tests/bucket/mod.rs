//! A store in a bucket: the same answers as in a folder, one owner, and a server that is away.

use std::path::Path;

use object_store::prefix::PrefixStore;
use s3_server::{SECRET, Server};

use super::{compact::parquet_files, *};
use crate::{
    config::StoreConfig,
    rebuild::{self, tests::logged},
    store::erase::Gone,
};

trait Stores {
    /// The configuration of a store below this prefix.
    fn store(&self, prefix: &str) -> StoreConfig;

    /// The same, for somebody who has this secret.
    fn store_as(&self, prefix: &str, secret: &str) -> StoreConfig;
}

impl Stores for Server {
    fn store(&self, prefix: &str) -> StoreConfig {
        self.store_as(prefix, SECRET)
    }

    fn store_as(&self, prefix: &str, secret: &str) -> StoreConfig {
        StoreConfig {
            url: Some(format!("s3://records/{prefix}")),
            endpoint: Some(self.endpoint()),
            allow_http: true,
            credentials: Some(self.credentials(secret).unwrap()),
            ..StoreConfig::default()
        }
    }
}

/// Tried again each second that it is looked at, and after each entry.
fn soon() -> StoreOptions {
    StoreOptions {
        seal_rows: 1,
        seal_after: Duration::from_millis(1),
        ..by_hand()
    }
}

/// A data folder of a log of its own, with twenty batches of two events.
async fn data() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    logged(data.path(), 20).await;
    data
}

async fn open(data: &Path, config: &StoreConfig, options: StoreOptions) -> anyhow::Result<Arc<Store>> {
    Site::configured(data, config)?.open(options).await
}

async fn refused(data: &Path, config: &StoreConfig) -> String {
    match open(data, config, by_hand()).await {
        Ok(_) => panic!("{config:?} is taken"),
        Err(error) => format!("{error:#}"),
    }
}

async fn answers(store: &Store) -> Vec<Vec<Vec<Value>>> {
    let mut answers = Vec::new();
    for sql in [
        "SELECT event_id, ts_start, principal, session_id, rows, objects, statement FROM events ORDER BY event_id",
        "SELECT principal, statements, rows, objects, first_seen FROM principals ORDER BY 1",
    ] {
        answers.push(rows(store, sql).await);
    }
    let second_day = i64::try_from(START - AGE).unwrap() + 86_400_000_000_000;
    let overview = store.overview(second_day).await.unwrap();
    answers.push(vec![vec![Value::Object(overview)]]);
    answers
}

/// Of events that are of two days which are over, whenever this runs.
const AGE: u64 = 600 * 86_400 * 1_000_000_000;

async fn append_old(store: &Store, n: u64) {
    let mut event = query(n + 1, "spiffe://td/host/h/unit/shop.service", "SELECT $1");
    event.ts_start_ns -= AGE;
    event.ts_end_ns -= AGE;
    store.append(n, records(vec![event])).await;
}

/// How many files of a store lie there, and their bytes.
fn lying(root: &Path) -> (usize, u64) {
    let mut folders: Vec<_> = [manifest::EVENTS, manifest::SUBJECTS, manifest::USES]
        .into_iter()
        .map(|folder| root.join(folder))
        .filter(|folder| folder.exists())
        .collect();
    let (mut files, mut bytes) = (0, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                files += 1;
                bytes += metadata.len();
            }
        }
    }
    (files, bytes)
}

/// What a log counts and sums up to in [`data`].
const ALL: (u64, u64) = (40, 820);

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_answers_as_a_folder_does() {
    let server = Server::start().await.unwrap();
    let data = data().await;
    let folder = tempfile::tempdir().unwrap();
    let mut in_folder = Store::open(folder.path(), by_hand()).await.unwrap();
    let config = server.store("berlin/store");
    let mut in_bucket = open(data.path(), &config, by_hand()).await.unwrap();
    for n in 0..60 {
        append_old(&in_folder, n).await;
        append_old(&in_bucket, n).await;
        if n % 7 == 6 {
            in_folder.seal().await.unwrap();
            in_bucket.seal().await.unwrap();
        }
    }
    let lie_there = |store: &Store| {
        let status = store.status();
        let told = (status.sealed_files, status.sealed_bytes);
        assert_eq!(lying(&server.objects("berlin/store")), told);
    };
    let before = answers(&in_folder).await;
    assert_eq!(before[0].len(), 60);
    assert_eq!(answers(&in_bucket).await, before);
    let files = in_bucket.status().sealed_files;
    assert!(files > 5);
    lie_there(&in_bucket);

    for store in [&in_folder, &in_bucket] {
        store.seal().await.unwrap();
        store.compact().await.unwrap();
        store.put_uses_together().await.unwrap();
        store.sweep().await.unwrap();
    }
    assert!(in_bucket.status().sealed_files < files, "some became one");
    assert!(in_bucket.status().rows_in_uses > 0);
    assert_eq!(answers(&in_bucket).await, before);
    lie_there(&in_bucket);
    let told = |status: StoreStatus| (status.sealed_files, status.sealed_rows, status.rows_in_uses);
    assert_eq!(told(in_bucket.status()), told(in_folder.status()));

    drop((in_folder, in_bucket));
    in_folder = Store::open(folder.path(), by_hand()).await.unwrap();
    in_bucket = open(data.path(), &config, by_hand()).await.unwrap();
    assert_eq!(in_bucket.resume_point(), Some(60));
    assert_eq!(answers(&in_bucket).await, before);

    // What a seal left whose manifest did not come through holds what is erased, too.
    let left = server.objects("berlin/store/events/left.parquet");
    std::fs::write(&left, b"PAR1").unwrap();
    let gone = Gone {
        events: [(3, [4].into()), (50, [51].into())].into(),
        below: 0,
    };
    for store in [&in_folder, &in_bucket] {
        store.erase(&gone, 60).await.unwrap();
    }
    assert!(!left.exists());
    lie_there(&in_bucket);
    let after = answers(&in_folder).await;
    assert_eq!(after[0].len(), 58);
    assert_eq!(answers(&in_bucket).await, after);
}

#[tokio::test]
async fn a_file_that_is_missing_makes_no_smaller_answer() {
    let objects: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(InMemory::new(), "a/b"));
    let store = Store::over(Arc::clone(&objects), by_hand()).await.unwrap();
    append(&store, 0..9).await;
    store.seal().await.unwrap();
    assert_eq!(sum(&store).await, (9, 45));
    let file = store.state().manifest.files[0].path.clone();
    objects.delete(&ObjectPath::from(file)).await.unwrap();
    let answer = store.query("SELECT sum(rows) FROM events", 1).await;
    let error = format!("{:#}", answer.err().unwrap());
    assert!(error.contains("is missing"), "{error}");
}

#[tokio::test]
async fn commands_find_the_bucket_by_the_data_folder_and_rebuild_it() {
    let server = Server::start().await.unwrap();
    let data = data().await;
    let evidence = data.path().join("evidence");
    let store = open(data.path(), &server.store("a"), by_hand()).await.unwrap();
    rebuild::hand_over(&evidence, &store, |_| {}).await.unwrap();
    store.seal().await.unwrap();
    drop(store);
    let offline = async || {
        let site = Site::recorded(data.path()).unwrap();
        let store = site.open_read_only().await.unwrap();
        assert_eq!(
            rebuild::refill(&evidence, &store, |_| {}).await.unwrap().batches,
            20 - store.status().sealed_entries
        );
        (sum(&store).await, store.status().sealed_entries)
    };
    assert_eq!(offline().await, (ALL, 20));
    assert!(!data.path().join("store").exists());

    // What is not right there goes, and what belongs there comes back from the log.
    let manifest = server.objects("a").join(manifest::NAME);
    std::fs::write(&manifest, "{").unwrap();
    let left = server.objects("a/events/left.parquet");
    std::fs::write(&left, "over").unwrap();
    assert_eq!(offline().await, (ALL, 0), "from the log alone");
    let args = rebuild::Args {
        data: data.path().to_owned(),
    };
    rebuild::run(args).await.unwrap();
    assert!(!left.exists());
    assert_eq!(offline().await, (ALL, 20));
}

#[tokio::test]
async fn a_place_has_one_owner_and_is_empty_to_begin_with() {
    let server = Server::start().await.unwrap();
    let (one, other) = (data().await, data().await);
    let config = server.store("a");
    let store = open(one.path(), &config, by_hand()).await.unwrap();
    append(&store, 0..3).await;
    store.seal().await.unwrap();
    let manifest = server.objects("a").join(manifest::NAME);
    let before = std::fs::read(&manifest).unwrap();
    // Both logs have the same name.
    let error = refused(other.path(), &config).await;
    assert!(
        error.contains("holds the store of the log pgwitness/test"),
        "{error}"
    );
    assert!(error.contains("a prefix of its own (store.url)"), "{error}");
    assert!(!other.path().join("store.json").exists());
    std::fs::copy(one.path().join("store.json"), other.path().join("store.json")).unwrap();
    let site = Site::recorded(other.path()).unwrap();
    assert!(site.open_read_only().await.is_err() && site.clear().await.is_err());
    assert_eq!(std::fs::read(&manifest).unwrap(), before);
    drop(store);
    let store = open(one.path(), &config, by_hand()).await.unwrap();
    assert_eq!(sum(&store).await, (3, 6));

    let foreign = server.objects("b/events/theirs.parquet");
    std::fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    std::fs::write(&foreign, "theirs").unwrap();
    std::fs::remove_file(other.path().join("store.json")).unwrap();
    let error = refused(other.path(), &server.store("b")).await;
    assert!(
        error.contains("is not empty") && error.contains("events/theirs.parquet"),
        "{error}"
    );
    assert!(foreign.exists());
    // One that was cut short in its first moment is nobody's yet.
    std::fs::create_dir_all(server.objects("c")).unwrap();
    std::fs::write(server.objects("c/probe"), "pgwitness").unwrap();
    open(other.path(), &server.store("c"), by_hand()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_events_wait_in_memory() {
    let mut server = Server::start().await.unwrap();
    let data = data().await;
    let store = open(data.path(), &server.store("a"), soon()).await.unwrap();
    append(&store, 0..3).await;
    let sealed_to = async |entries: u64| {
        while store.resume_point() != Some(entries) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, sealed_to(3))
        .await
        .expect("sealed");
    server.stop().await;
    let more = append(&store, 3..40);
    tokio::time::timeout(patience, more).await.expect("nothing waits");
    let error = format!("{:#}", store.seal().await.unwrap_err());
    assert!(error.contains("cannot write events/"), "{error}");
    let error = store.query("SELECT sum(rows) FROM events", 1).await;
    assert!(error.is_err(), "a part cannot be read, which is no answer");
    let status = store.status();
    assert_eq!(
        (status.entries, status.sealed_entries, status.behind_from),
        (40, 3, None)
    );
    server.resume().await.unwrap();
    tokio::time::timeout(patience, sealed_to(40))
        .await
        .expect("sealed, once it is back");
    assert_eq!(sum(&store).await, (40, 820));
}

#[tokio::test]
async fn what_cannot_be_used_is_told_at_the_start() {
    let mut server = Server::start().await.unwrap();
    let data = data().await;
    let error = refused(data.path(), &server.store_as("a", "another-secret")).await;
    assert!(error.contains("does not take these credentials"), "{error}");
    assert!(!error.contains("another-secret"), "{error}");
    let mut config = server.store("a");
    config.url = Some("s3://nowhere/a".to_owned());
    let error = refused(data.path(), &config).await;
    assert!(error.contains("there is no such bucket"), "{error}");
    server.stop().await;
    let error = refused(data.path(), &server.store("a")).await;
    assert!(error.contains("it cannot be reached"), "{error}");
    assert!(!data.path().join("store.json").exists(), "it is as it was");
}

#[tokio::test]
async fn a_store_that_moves_leaves_nothing_behind() {
    let mut server = Server::start().await.unwrap();
    let data = data().await;
    let (folder, evidence) = (data.path().join("store"), data.path().join("evidence"));
    let filled = async |config: &StoreConfig| {
        let store = open(data.path(), config, by_hand()).await.unwrap();
        rebuild::hand_over(&evidence, &store, |_| {}).await.unwrap();
        store.seal().await.unwrap();
        assert_eq!(sum(&store).await, ALL);
    };
    let here = StoreConfig::default();
    filled(&here).await;
    assert!(parquet_files(&folder) > 0);
    filled(&server.store("a")).await;
    assert!(!folder.exists());
    filled(&server.store("b")).await;
    assert_eq!(parquet_files(&server.objects("a")), 0);
    assert!(parquet_files(&server.objects("b")) > 0);

    let away = server.store("b").url.unwrap();
    server.stop().await;
    let error = refused(data.path(), &here).await;
    assert!(error.contains(&away) && error.contains("store.json"), "{error}");
    server.resume().await.unwrap();
    filled(&here).await;
    assert_eq!(parquet_files(&server.objects("b")), 0);
    assert!(!data.path().join("store.json").exists());
}
