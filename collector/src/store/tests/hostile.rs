//! Questions and texts that mean no good.

use super::*;

#[tokio::test]
async fn nothing_but_reading_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    append(&store, 0..2).await;
    let out = folder.path().join("out.parquet");
    for sql in [
        "DELETE FROM events".to_owned(),
        "INSERT INTO events SELECT * FROM events".to_owned(),
        "UPDATE events SET rows = 0".to_owned(),
        "DROP TABLE events".to_owned(),
        "CREATE TABLE mine AS SELECT 1".to_owned(),
        "CREATE VIEW queries AS SELECT 1".to_owned(),
        "CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '/etc/'".to_owned(),
        format!("COPY (SELECT 1) TO '{}'", out.display()),
        format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{}'", out.display()),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "SELECT 1; DROP TABLE events".to_owned(),
        "SELECT * FROM '/etc/passwd'".to_owned(),
        "SELECT * FROM read_csv('/etc/passwd')".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        "not sql".to_owned(),
        format!("SELECT '{}'", "x".repeat(page::MAX_SQL_BYTES)),
    ] {
        let error = store.query(&sql, 10).await.expect_err(&sql);
        assert!(!error.to_string().is_empty());
    }
    assert!(!out.exists());
    for sql in [
        "SELECT 1",
        "WITH q AS (SELECT * FROM queries) SELECT count(*) FROM q",
        "EXPLAIN SELECT * FROM events",
        "SHOW TABLES",
        "DESCRIBE events",
        "SHOW COLUMNS FROM queries",
        "VALUES (1)",
    ] {
        assert!(!rows(&store, sql).await.is_empty(), "{sql}");
    }
    assert_eq!(sum(&store).await, (2, 3));
}

#[tokio::test]
async fn answers_are_cut_off_and_say_so() {
    let store = Store::over(Arc::new(InMemory::new()), by_hand()).await.unwrap();
    append(&store, 0..5).await;
    let page = store
        .query("SELECT seq FROM events ORDER BY seq", 3)
        .await
        .unwrap();
    assert_eq!(
        (page.rows, page.truncated),
        (vec![vec![json!(1)], vec![json!(2)], vec![json!(3)]], true)
    );
    assert!(!store.query("SELECT seq FROM events", 5).await.unwrap().truncated);
}

#[tokio::test]
async fn hostile_text_comes_back_as_it_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), by_hand()).await.unwrap();
    let text = "SELECT '</script>' -- \"\\\u{0}\u{1b}[2J\r\ndata: x\n\n\u{2028}\u{202e} 🐘";
    let principal = "x' OR '1'='1";
    let mut watcher = store.live().subscribe();
    let (batch, shelf) = (
        records(vec![query(1, principal, text)]),
        Arc::new(Shelf::default()),
    );
    shelf.put(0, &batch);
    assert_eq!(
        rows(&store, "SELECT event FROM events").await,
        Vec::<Vec<Value>>::new()
    );
    store.append(0, batch).await;
    assert_eq!(rows(&store, "SELECT event FROM events").await, [[Value::Null]]);
    store.show_events_of(shelf);
    let seen: Value = serde_json::from_str(watcher.recv().await.unwrap().json()).unwrap();
    assert_eq!(seen["statement"]["text"], text);
    for _ in 0..2 {
        assert_eq!(
            rows(&store, "SELECT statement, principal FROM events").await,
            [[json!(text), json!(principal)]]
        );
        let filter = Filter {
            principal: Some("' OR '".into()),
            ..Filter::default()
        };
        let newest = store.newest(&filter, None, 10).await.unwrap();
        assert_eq!((newest.len(), &newest[0]), (1, &seen));
        let none = Filter {
            principal: Some("y' OR ''='".into()),
            ..Filter::default()
        };
        assert!(store.newest(&none, None, 10).await.unwrap().is_empty());
        store.seal().await.unwrap();
    }
}
