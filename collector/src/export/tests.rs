//! What is exported is what the store has, each event once, and a file is whole or not there.

use std::collections::BTreeSet;

use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use object_store::memory::InMemory;
use serde_json::Value;

use super::*;
use crate::store::{
    StoreOptions,
    tests::{Shelf, query},
};
use record::Records;

const SHOP: &str = "spiffe://td/host/h/unit/shop.service";

/// Forty statements, some in files and some not, two of them hostile to CSV.
async fn filled() -> std::sync::Arc<Store> {
    let store = Store::over(std::sync::Arc::new(InMemory::new()), StoreOptions::default())
        .await
        .unwrap();
    let shelf = std::sync::Arc::new(Shelf::default());
    store.show_events_of(shelf.clone());
    for entry in 0..10 {
        let text = if entry == 3 {
            "SELECT \"a,b\"\r\n, 'ü'"
        } else {
            "SELECT 1"
        };
        let events = (1..=4).map(|n| query(entry * 4 + n, if n == 4 { "unknown" } else { SHOP }, text));
        let records = Records::of("a", entry + 1, events.collect());
        shelf.put(entry, &records);
        store.append(entry, records).await;
        if entry == 6 {
            store.seal().await.unwrap();
        }
    }
    store
}

async fn whole(store: &Store, format: Format, which: Selection) -> anyhow::Result<Vec<u8>> {
    let mut pieces = Export { format, which }.of(store).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece?.bytes);
    }
    Ok(bytes)
}

fn where_is(predicate: &str) -> Selection {
    Selection {
        predicate: Some(predicate.to_owned()),
        ..Selection::default()
    }
}

fn ids(lines: &[u8], place: &str) -> Vec<String> {
    let lines = std::str::from_utf8(lines).unwrap().lines();
    let events = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut ids: Vec<String> = events
        .map(|event| event.pointer(place).unwrap().as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn every_form_has_every_event_once() {
    let store = filled().await;
    let mut all: Vec<String> = (1..=40).map(|n| format!("a-{n}")).collect();
    all.sort();
    let lines = whole(&store, Format::Jsonl, Selection::default()).await.unwrap();
    assert_eq!(ids(&lines, "/event_id"), all);
    let lines = whole(&store, Format::Ocsf, Selection::default()).await.unwrap();
    assert_eq!(ids(&lines, "/metadata/uid"), all);
    let parquet = whole(&store, Format::Parquet, Selection::default())
        .await
        .unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(parquet)).unwrap();
    let columns: BTreeSet<String> = reader
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let rows: usize = reader
        .build()
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 40);
    for column in ["event_id", "principal", "objects", "ts_start", "expected"] {
        assert!(columns.contains(column), "{column} is not in {columns:?}");
    }
    let csv = String::from_utf8(whole(&store, Format::Csv, Selection::default()).await.unwrap()).unwrap();
    assert!(csv.starts_with("ts_start,ts_end,kind,agent,"), "{csv}");
    // Four texts have a line break, which is quoted.
    assert_eq!(csv.matches("\r\n").count(), 1 + 40 + 4);
    assert_eq!(csv.matches("\"SELECT \"\"a,b\"\"\r\n, 'ü'\"").count(), 4);
}

#[tokio::test]
async fn only_what_is_asked_for_is_exported() {
    let store = filled().await;
    let count = async |which: Selection| {
        let lines = whole(&store, Format::Jsonl, which).await.unwrap();
        lines.iter().filter(|byte| **byte == b'\n').count()
    };
    assert_eq!(count(where_is("rows > 20 AND rows <= 30")).await, 10);
    assert_eq!(count(where_is("array_has(objects, 'public.t0')")).await, 20);
    let principal = |text: &str| Selection {
        principal: Some(text.to_owned()),
        ..Selection::default()
    };
    assert_eq!(count(principal(SHOP)).await, 30);
    assert_eq!(count(principal("*/shop.service")).await, 30);
    assert_eq!(count(principal("unknown")).await, 10);
    assert_eq!(count(principal("shop")).await, 0);
    let both = Selection {
        principal: Some("unknown".to_owned()),
        ..where_is("rows > 20")
    };
    assert_eq!(count(both).await, 5);
    let empty = whole(&store, Format::Csv, where_is("false")).await.unwrap();
    assert_eq!(
        empty.iter().filter(|byte| **byte == b'\n').count(),
        1,
        "the header"
    );
    for wrong in ["absent = 1", "rows >", "1; DROP TABLE events", "event LIKE 'x'"] {
        let error = whole(&store, Format::Csv, where_is(wrong))
            .await
            .expect_err(wrong);
        assert!(error.to_string().contains("--where"), "{wrong}: {error:#}");
    }
}

#[tokio::test]
async fn a_file_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let left = || std::fs::read_dir(folder.path()).unwrap().count();
    let breaks = futures::stream::iter([
        Ok(Piece::from(Bytes::from("half"))),
        Err(anyhow::anyhow!("it broke")),
    ])
    .boxed();
    let error = file::write(breaks, &path, false).await.expect_err("half of it");
    assert!(error.to_string().contains("it broke") && left() == 0, "{error:#}");
    // As long as it is not whole it has another name, and whoever gives up leaves nothing.
    let never = futures::stream::iter([Ok(Piece::from(Bytes::from("half")))])
        .chain(futures::stream::pending())
        .boxed();
    let waiting = file::write(never, &path, false);
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(50), waiting)
            .await
            .is_err()
    );
    assert_eq!(left(), 0);
    let text = |text: &'static str| deliver(text.into(), Some(&path), false);
    text("one").await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
    let error = text("two").await.expect_err("it is there");
    assert!(error.to_string().contains("--force"), "{error:#}");
    deliver("two".into(), Some(&path), true).await.unwrap();
    assert_eq!(
        (std::fs::read_to_string(&path).unwrap(), left()),
        ("two".to_owned(), 1)
    );
}
