//! `pgwitness-collector rebuild`: deletes the store and makes it anew from the evidence log.
//!
//! Owns the way from the log back to the store, which offline queries use too. Refuses to touch a folder that a
//! collector is using. The evidence itself is only read.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::mpsc;

use crate::{
    log,
    progress::Progress,
    store::{Site, Store, StoreOptions},
};
use record::Decoder;

/// Deletes the store and rebuilds it from the evidence log; the collector must not be running.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The collector's data folder.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

/// Rebuilds, with progress on standard error.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let evidence = log::evidence_in(&args.data)?;
    let _lock = lock(&args.data)?;
    let site = Site::recorded(&args.data)?;
    site.clear().await?;
    let store = site.open(StoreOptions::default()).await?;
    let mut progress = Progress::default();
    let filled = refill(&evidence, &store, |so_far| {
        progress.tell(|| format!("{} batches, {} events", so_far.batches, so_far.events));
    })
    .await?;
    store.seal().await?;
    eprintln!(
        "the store is rebuilt: {} batches, {} events",
        filled.batches, filled.events
    );
    Ok(ExitCode::SUCCESS)
}

/// What [`refill`] handed to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) batches: u64,
    pub(crate) events: u64,
}

/// Gives the store every batch of the log that its files do not hold, and fails if it did not take them all.
pub(crate) async fn refill(
    evidence: &Path,
    store: &Store,
    progress: impl FnMut(Filled),
) -> anyhow::Result<Filled> {
    let filled = hand_over(evidence, store, progress).await?;
    if let Some(entry) = store.status().behind_from {
        bail!(
            "the store could not take in entry {entry} of the log and what follows; rebuild it first if it is old"
        );
    }
    Ok(filled)
}

/// Gives the store every batch of the log that its files do not hold. What it could not take its status says.
pub(crate) async fn hand_over(
    evidence: &Path,
    store: &Store,
    mut progress: impl FnMut(Filled),
) -> anyhow::Result<Filled> {
    if let Some((first, _)) = log::segments(evidence)?.first() {
        store.begin_at(*first);
    }
    let from = store.resume_point().unwrap_or(0);
    let evidence = evidence.to_owned();
    let (batches, mut received) = mpsc::channel(READ_AHEAD);
    let reader = tokio::task::spawn_blocking(move || {
        for batch in log::read_batches(&evidence, from) {
            let failed = batch.is_err();
            if batches.blocking_send(batch).is_err() || failed {
                break;
            }
        }
    });
    let mut filled = Filled::default();
    let mut decoder = Decoder::default();
    while let Some(batch) = received.recv().await {
        let (log_index, opened) =
            batch.context("the evidence log cannot be read (pgwitness-collector verify)")?;
        let events = decoder
            .decode(&opened)
            .map_err(|reason| anyhow!("entry {log_index} of the evidence log: {reason}"))?;
        filled.batches += 1;
        filled.events += events.records.len() as u64;
        store.append(log_index, events).await;
        progress(filled);
    }
    reader.await?;
    Ok(filled)
}

/// Takes the folder's lock, as `serve` does; the kernel lets go of it when this process ends.
fn lock(data: &Path) -> anyhow::Result<Flock<File>> {
    let path = data.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::Error::EWOULDBLOCK)) => bail!("a collector is using {}: stop it first", data.display()),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Batches read ahead of the store.
const READ_AHEAD: usize = 4;

#[cfg(test)]
pub(crate) mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;
    use prost::Message;
    use proto::v1;

    use super::*;

    /// A closed log of `batches` batches with two events each, the n-th returning n rows.
    pub(crate) async fn logged(data: &Path, batches: u64) {
        let options = log::LogOptions {
            name: Some("test".to_owned()),
            checkpoint_interval: Duration::from_secs(3600),
            segment_bytes: 2000,
        };
        let opened = log::Log::open(data, options, Arc::default()).unwrap();
        drop(opened.durable);
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        let mut chain = evidence::Chain::new("db1");
        opened
            .log
            .hello("db1".to_owned(), key.verifying_key())
            .await
            .unwrap()
            .unwrap();
        for n in 0..batches {
            let first = n * 2 + 1;
            let event = |seq| {
                let result = v1::Result {
                    rows: Some(seq),
                    ..Default::default()
                };
                let query = v1::Query {
                    result: Some(result),
                    ..Default::default()
                };
                let body = Some(v1::event::Body::Query(query));
                Bytes::from(
                    v1::Event {
                        seq,
                        ts_start_ns: seq,
                        body,
                        ..Default::default()
                    }
                    .encode_to_vec(),
                )
            };
            let events = vec![event(first), event(first + 1)];
            let batch = evidence::seal(
                &mut chain,
                &key,
                events,
                first,
                first,
                first + 1,
                v1::Counters::default(),
                [7; 32],
            );
            let content = evidence::open(&batch, &key.verifying_key(), &log::limits()).unwrap();
            let events = log::decode_events(&content).unwrap();
            let seal = evidence::Seal {
                header: content.header,
                header_hash: content.header_hash,
            };
            let candidate = log::Candidate {
                batch,
                seal,
                events,
                stream_refused: Arc::default(),
            };
            let stored = opened.log.append(candidate).await.unwrap().await.unwrap();
            assert_eq!(stored, log::Appended::Stored(n));
        }
        opened.log.close().await;
        opened.ended.await.unwrap().unwrap();
    }

    async fn count_and_sum(store: &Store) -> Vec<serde_json::Value> {
        store
            .query("SELECT count(*), sum(rows) FROM queries", 1)
            .await
            .unwrap()
            .rows
            .remove(0)
    }

    #[tokio::test]
    async fn a_deleted_or_outdated_store_comes_back_from_the_log_alone() {
        let data = tempfile::tempdir().unwrap();
        logged(data.path(), 20).await;
        let (evidence, root) = (data.path().join("evidence"), data.path().join("store"));
        // Offline, with no store at all.
        let offline = Store::open_read_only(&root).await.unwrap();
        let filled = refill(&evidence, &offline, |_| {}).await.unwrap();
        assert_eq!(
            filled,
            Filled {
                batches: 20,
                events: 40
            }
        );
        assert_eq!(count_and_sum(&offline).await, [40, 820]);
        assert!(!root.exists());
        // Rebuilt over something that is not right.
        std::fs::create_dir_all(root.join("events")).unwrap();
        std::fs::write(root.join("sealed.json"), "{").unwrap();
        std::fs::write(root.join("events/left.parquet"), "over").unwrap();
        run(Args {
            data: data.path().to_owned(),
        })
        .await
        .unwrap();
        let store = Store::open_read_only(&root).await.unwrap();
        assert_eq!(store.resume_point(), Some(20));
        assert_eq!(
            refill(&evidence, &store, |_| {}).await.unwrap(),
            Filled::default()
        );
        assert_eq!(count_and_sum(&store).await, [40, 820]);
        assert!(!root.join("events/left.parquet").exists());
    }

    #[tokio::test]
    async fn events_are_shown_as_the_log_holds_them_and_no_other_way() {
        let data = tempfile::tempdir().unwrap();
        logged(data.path(), 20).await;
        let evidence = data.path().join("evidence");
        assert!(std::fs::read_dir(evidence.join("payload")).unwrap().count() > 2);
        let show = async || {
            let store = Store::open_read_only(&data.path().join("store")).await.unwrap();
            refill(&evidence, &store, |_| {}).await.unwrap();
            store.show_events_of(Arc::new(log::Places::new(&evidence)));
            let sql = "SELECT seq, event FROM events WHERE seq % 7 = 1 ORDER BY seq DESC";
            store.query(sql, 100).await.map(|page| page.rows)
        };
        run(Args {
            data: data.path().to_owned(),
        })
        .await
        .unwrap();
        let rows = show().await.unwrap();
        assert_eq!(rows.len(), 6);
        for (row, seq) in rows.iter().zip([36, 29, 22, 15, 8, 1]) {
            let event: serde_json::Value = serde_json::from_str(row[1].as_str().unwrap()).unwrap();
            assert_eq!(
                (&row[0], &event["event_id"]),
                (&seq.into(), &format!("db1-{seq}").into())
            );
            assert_eq!(event["result"]["rows"], seq);
        }
        // The store would still answer; an event that does not hold is not shown.
        let mut newest: Vec<_> = std::fs::read_dir(evidence.join("payload"))
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        newest.sort();
        let file = newest.first().unwrap();
        let mut bytes = std::fs::read(file).unwrap();
        bytes[100] ^= 1;
        std::fs::write(file, bytes).unwrap();
        let error = show().await.unwrap_err();
        assert!(format!("{error:#}").contains("at byte 0"), "{error:#}");
    }

    #[tokio::test]
    async fn a_folder_in_use_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(data.path().join("evidence")).unwrap();
        std::fs::create_dir_all(data.path().join("store")).unwrap();
        std::fs::write(data.path().join("store/sealed.json"), "kept").unwrap();
        let _collector = lock(data.path()).unwrap();
        let error = run(Args {
            data: data.path().to_owned(),
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains("is using"), "{error:#}");
        assert_eq!(
            std::fs::read(data.path().join("store/sealed.json")).unwrap(),
            b"kept"
        );
    }

    #[tokio::test]
    async fn a_folder_without_evidence_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let error = run(Args {
            data: data.path().to_owned(),
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains("no evidence log"), "{error:#}");
    }
}
