//! Compaction against readers, erasure and crashes: answers stay what they were.

use std::path::Path;

use datafusion::{
    arrow::{array::AsArray as _, datatypes::TimestampNanosecondType},
    parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
};
use futures::StreamExt as _;

use super::*;
use crate::store::{erase::Gone, selection::Selection};

/// Nine seals of twenty events; the hours of each overlap those of the next.
async fn sealed(root: &Path) -> Arc<Store> {
    let store = Store::open(root, by_hand()).await.unwrap();
    for seal in 0..9 {
        for n in 0..20 {
            let event = query(seal * 10 + n, "spiffe://td/host/h/unit/shop.service", "SELECT $1");
            let seq = seal * 20 + n + 1;
            store
                .append(seq - 1, records(vec![v1::Event { seq, ..event }]))
                .await;
        }
        store.seal().await.unwrap();
    }
    store
}

async fn answers(store: &Store) -> Vec<Vec<Value>> {
    rows(
        store,
        "SELECT event_id, ts_start, principal, session_id, rows, objects, statement FROM events ORDER BY event_id",
    )
    .await
}

pub(super) fn parquet_files(root: &Path) -> usize {
    let mut folders = vec![root.to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files += usize::from(path.extension().is_some_and(|of| of == "parquet"));
            }
        }
    }
    files
}

#[tokio::test]
async fn files_put_together_answer_what_they_answered_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = sealed(folder.path()).await;
    let (before, status) = (answers(&store).await, store.status());
    assert_eq!(before.len(), 180);
    store.compact().await.unwrap();
    let after = store.status();
    assert!(
        after.sealed_files < status.sealed_files * 2 / 3,
        "two seals reach into most hours: {status:?}, {after:?}"
    );
    assert_eq!(
        (after.sealed_rows, after.entries),
        (status.sealed_rows, status.entries)
    );
    assert_eq!(answers(&store).await, before);
    store.sweep().await.unwrap();
    assert_eq!(parquet_files(folder.path()), after.sealed_files);
    // What it has is in order of time, as in a file of one seal.
    for file in store.state().manifest.files.clone() {
        let of_file = format!("{}/{}", folder.path().display(), file.path);
        let reader = std::fs::File::open(of_file).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(reader).unwrap();
        let mut times = Vec::new();
        for rows in reader.build().unwrap() {
            let rows = rows.unwrap();
            let column = rows.column_by_name("ts_start").unwrap();
            times.extend_from_slice(column.as_primitive::<TimestampNanosecondType>().values());
        }
        assert_eq!(times.len() as u64, file.rows);
        assert!(times.is_sorted(), "{}", file.path);
    }
    drop(store);
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    assert_eq!(answers(&store).await, before);
    assert_eq!(store.resume_point(), Some(180));
}

#[tokio::test]
async fn a_question_reads_to_its_end_what_was_put_together_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let store = sealed(folder.path()).await;
    let files = store.status().sealed_files;
    let mut selected = store.all_of(&Selection::default(), false).await.unwrap();
    store.compact().await.unwrap();
    store.sweep().await.unwrap();
    assert!(
        parquet_files(folder.path()) > files,
        "those that are read are there"
    );
    let mut read = 0;
    while let Some(batch) = selected.rows.next().await {
        read += batch.unwrap().num_rows();
    }
    assert_eq!(read, 180);
    drop(selected);
    store.sweep().await.unwrap();
    assert_eq!(parquet_files(folder.path()), store.status().sealed_files);
}

#[tokio::test]
async fn what_is_erased_is_not_left_in_files_that_count_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = sealed(folder.path()).await;
    let reading = store.session().await.unwrap();
    store.compact().await.unwrap();
    let gone = Gone {
        events: [(3, [4].into()), (100, [101].into())].into(),
        below: 0,
    };
    store.erase(&gone, 180).await.unwrap();
    assert_eq!(parquet_files(folder.path()), store.status().sealed_files);
    assert_eq!(answers(&store).await.len(), 178);
    drop(reading);
    store.compact().await.unwrap();
    assert_eq!(answers(&store).await.len(), 178);
}

#[tokio::test]
async fn a_crash_between_the_file_and_the_manifest_leaves_what_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = sealed(folder.path()).await;
    let before = (answers(&store).await, store.status().sealed_files);
    let manifest = std::fs::read(folder.path().join(manifest::NAME)).unwrap();
    store.compact().await.unwrap();
    drop(store);
    std::fs::write(folder.path().join(manifest::NAME), manifest).unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    assert_eq!((answers(&store).await, store.status().sealed_files), before);
    assert_eq!(parquet_files(folder.path()), before.1);
}
