//! A real client's library against the server, over loopback.

use std::time::SystemTime;

use object_store::memory::InMemory;
use record::Records;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, error::SqlState};

use super::*;
use crate::{
    access::{
        Role,
        tests::{add, over, remove},
    },
    store::{
        StoreOptions, page,
        tests::{Shelf, query},
    },
};

struct Served {
    store: Arc<Store>,
    accesses: Arc<Accesses>,
    port: u16,
    shelf: Arc<Shelf>,
    next: u64,
    _stop: watch::Sender<bool>,
}

impl Served {
    async fn to(access: Access) -> Self {
        let store = Store::over(Arc::new(InMemory::new()), StoreOptions::default())
            .await
            .unwrap();
        let shelf = Arc::new(Shelf::default());
        store.show_events_of(shelf.clone());
        let accesses = Arc::<Accesses>::default();
        let sql = Sql {
            store: Arc::clone(&store),
            access: Arc::new(access),
            accesses: Some(Arc::clone(&accesses)),
            questions: Turns::at_questions(),
            metrics: Arc::default(),
            tls: None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(sql.serve(listener, stopped));
        Self {
            store,
            accesses,
            port,
            shelf,
            next: 0,
            _stop: stop,
        }
    }

    async fn append(&mut self, principal: &str, text: &str) {
        let records = Records::of("a", self.next + 1, vec![query(self.next + 1, principal, text)]);
        self.shelf.put(self.next, &records);
        self.store.append(self.next, records).await;
        self.next += 1;
    }

    async fn connect(&self, user: &str, token: Option<&str>) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user(user)
            .dbname(DATABASE);
        if let Some(token) = token {
            config.password(token);
        }
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// The values of the first column.
async fn ask(client: &Client, sql: &str) -> Vec<String> {
    let said = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let row = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    };
    said.into_iter().filter_map(row).collect()
}

fn code(error: &tokio_postgres::Error) -> SqlState {
    error
        .code()
        .unwrap_or_else(|| panic!("no error of the server's: {error:?}"))
        .clone()
}

#[tokio::test]
async fn every_statement_sees_the_record_as_it_is_now() {
    let mut served = Served::to(Access::everybody()).await;
    served.append("spiffe://td/a", "SELECT 1").await;
    let client = served.connect("anybody", None).await.unwrap();
    assert_eq!(ask(&client, "SELECT count(*) FROM events").await, ["1"]);
    let prepared = "SELECT principal, executions, ts_start, objects, event FROM events \
                    WHERE principal = $1 AND executions >= $2 ORDER BY ts_start";
    let prepared = client.prepare(prepared).await.unwrap();
    let before = client
        .query(&prepared, &[&"spiffe://td/b", &1_i64])
        .await
        .unwrap();
    assert!(before.is_empty(), "{before:?}");
    served.append("spiffe://td/b", "SELECT 2").await;
    served.append("spiffe://td/b", "SELECT 3").await;
    let rows = client
        .query(&prepared, &[&"spiffe://td/b", &1_i64])
        .await
        .unwrap();
    assert_eq!(rows.len(), 2, "prepared before they were recorded");
    let (principal, executions): (String, i64) = (rows[0].get(0), rows[0].get(1));
    assert_eq!((&*principal, executions), ("spiffe://td/b", 1));
    let began: SystemTime = rows[0].get(2);
    assert!(began > SystemTime::UNIX_EPOCH);
    let _objects: Option<Vec<String>> = rows[0].get(3);
    let json: String = rows[1].get(4);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["statement"]["text"], "SELECT 3",
        "the form that `explain` shows"
    );
    // What one statement did not need, another finds.
    let counted = client
        .query_one("SELECT count(*) FROM queries", &[])
        .await
        .unwrap();
    assert_eq!(counted.get::<_, i64>(0), 3);
}

#[tokio::test]
async fn nothing_but_reading_is_done() {
    let mut served = Served::to(Access::everybody()).await;
    served.append("spiffe://td/a", "SELECT 1").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.csv");
    let out = file.display();
    let hostile = [
        "CREATE TABLE t (a int)".to_owned(),
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT * FROM events".to_owned(),
        "SELECT * INTO t FROM events".to_owned(),
        "INSERT INTO inventory SELECT * FROM inventory".to_owned(),
        "DELETE FROM events".to_owned(),
        "UPDATE events SET principal = 'x'".to_owned(),
        "TRUNCATE events".to_owned(),
        "DROP TABLE events".to_owned(),
        format!("COPY events TO '{out}'"),
        format!("COPY (SELECT 1) TO '{out}' STORED AS CSV"),
        format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}' STORED AS CSV"),
        "COPY events FROM '/etc/passwd'".to_owned(),
        "CREATE EXTERNAL TABLE p STORED AS CSV LOCATION '/etc/passwd'".to_owned(),
        "SELECT * FROM '/etc/passwd'".to_owned(),
        "SET datafusion.runtime.memory_limit = '64G'".to_owned(),
        "SET \"datafusion.execution.batch_size\" = 1".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        "DECLARE c CURSOR FOR SELECT * FROM events".to_owned(),
        "CALL f()".to_owned(),
        "DO $$ BEGIN END $$".to_owned(),
        "GRANT ALL ON events TO x".to_owned(),
    ];
    let client = served.connect("anybody", None).await.unwrap();
    for sql in &hostile {
        let simple = client.simple_query(sql).await;
        assert!(simple.is_err(), "{sql}: {simple:?}");
        let prepared = client.prepare(sql).await;
        assert!(prepared.is_err(), "{sql}: {prepared:?}");
    }
    assert!(!file.exists());
    let refused = client.simple_query(&hostile[0]).await.unwrap_err();
    assert_eq!(code(&refused), SqlState::READ_ONLY_SQL_TRANSACTION);
    // Nothing of that is left, in this connection or in another.
    for client in [client, served.connect("anybody", None).await.unwrap()] {
        let tables = ask(
            &client,
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'",
        );
        let mut tables = tables.await;
        tables.sort();
        let views = [
            "events",
            "gaps",
            "inventory",
            "principals",
            "queries",
            "sessions",
            "subjects",
        ];
        assert_eq!(tables, views);
        assert_eq!(ask(&client, "SELECT count(*) FROM events").await, ["1"]);
    }
}

#[tokio::test]
async fn errors_have_the_codes_that_programs_know() {
    let served = Served::to(Access::everybody()).await;
    let client = served.connect("anybody", None).await.unwrap();
    for (sql, expected) in [
        ("SELEC 1", SqlState::SYNTAX_ERROR),
        ("SELECT * FROM nothing", SqlState::UNDEFINED_TABLE),
        ("SELECT nothing FROM events", SqlState::UNDEFINED_COLUMN),
        ("SELECT nothing(1)", SqlState::UNDEFINED_FUNCTION),
        ("SELECT 1/0", SqlState::DATA_EXCEPTION),
    ] {
        let failed = client.simple_query(sql).await.unwrap_err();
        assert_eq!(code(&failed), expected, "{sql}: {failed:?}");
    }
    assert_eq!(ask(&client, "SELECT 1").await, ["1"], "the connection goes on");
    let long = format!("SELECT '{}'", "x".repeat(page::MAX_SQL_BYTES));
    let failed = client.simple_query(&long).await.unwrap_err();
    assert_eq!(code(&failed), SqlState::PROGRAM_LIMIT_EXCEEDED);
}

/// What drivers and pools say as a matter of course.
#[tokio::test]
async fn clients_habits_are_borne() {
    let mut served = Served::to(Access::everybody()).await;
    served.append("spiffe://td/a", "SELECT 1").await;
    let mut client = served.connect("anybody", None).await.unwrap();
    for sql in [
        "SET client_encoding = 'UTF8'",
        "SET statement_timeout = 5000",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET extra_float_digits = 3",
        "SET application_name = 'bi'",
        "SHOW server_version",
        "SHOW transaction_isolation",
        "SHOW search_path",
        "SELECT version()",
        "SELECT current_database(), current_schema()",
        "BEGIN",
        "SAVEPOINT a",
        "RELEASE SAVEPOINT a",
        "COMMIT",
        "DISCARD ALL",
        "RESET ALL",
        "DEALLOCATE ALL",
        "CLOSE ALL",
        "UNLISTEN *",
        "SELECT 1; SELECT 2",
        ";",
        "",
    ] {
        ask(&client, sql).await;
    }
    let transaction = client.transaction().await.unwrap();
    let counted = transaction
        .query_one("SELECT count(*) FROM events", &[])
        .await
        .unwrap();
    assert_eq!(counted.get::<_, i64>(0), 1);
    // A part at a time.
    let all = transaction
        .prepare("SELECT value FROM generate_series(1, 5)")
        .await
        .unwrap();
    let portal = transaction.bind(&all, &[]).await.unwrap();
    let first = transaction.query_portal(&portal, 2).await.unwrap();
    let rest = transaction.query_portal(&portal, 0).await.unwrap();
    assert_eq!((first.len(), rest.len()), (2, 3));
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_token_lets_in_whom_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let analyst = add(data, "ann", Role::Analyst, None);
    let viewer = add(data, "vic", Role::Viewer, None);
    let expired = add(data, "old", Role::Admin, Some(-1));
    let served = Served::to(over(data)).await;
    let refused = async |user: &str, token: Option<&str>| {
        let refused = served.connect(user, token).await.err();
        refused.and_then(|error| error.code().cloned())
    };
    assert_eq!(refused("ann", None).await, None, "the library has nothing to say");
    for (user, token) in [
        ("ann", "x"),
        ("ann", ""),
        ("old", &*expired),
        ("vic", &analyst),
        ("ANN", &analyst),
        ("admin", &analyst),
        ("ann", "pgwu1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ] {
        assert_eq!(
            refused(user, Some(token)).await,
            Some(SqlState::INVALID_PASSWORD),
            "{user}"
        );
    }
    assert_eq!(
        refused("vic", Some(&viewer)).await,
        Some(SqlState::INSUFFICIENT_PRIVILEGE)
    );
    for user in ["ann", "token"] {
        let client = served.connect(user, Some(&analyst)).await.unwrap();
        assert_eq!(ask(&client, "SELECT count(*) FROM events").await, ["0"]);
    }
    let client = served.connect("ann", Some(&analyst)).await.unwrap();
    remove(data, "ann");
    let failed = client
        .simple_query("SELECT count(*) FROM events")
        .await
        .unwrap_err();
    assert_eq!(code(&failed), SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
}

#[tokio::test]
async fn who_asks_what_is_recorded_and_the_catalogue_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let token = add(data, "ann", Role::Analyst, None);
    let viewer = add(data, "vic", Role::Viewer, None);
    let mut served = Served::to(over(data)).await;
    served.append("spiffe://td/a", "SELECT 1").await;
    served.append("spiffe://td/b", "SELECT 2").await;
    let client = served.connect("ann", Some(&token)).await.unwrap();
    ask(&client, "SELECT oid, relname FROM pg_catalog.pg_class").await;
    ask(&client, "SELECT table_name FROM information_schema.tables").await;
    ask(&client, "SELECT 1").await;
    ask(&client, "SET pgwitness.purpose = 'DSAR 42'").await;
    ask(&client, "SELECT principal FROM events").await;
    client
        .simple_query("SELECT nothing FROM events")
        .await
        .unwrap_err();
    client
        .query(
            "SELECT count(*) FROM queries WHERE principal = $1",
            &[&"spiffe://td/a"],
        )
        .await
        .unwrap();
    served.connect("vic", Some(&viewer)).await.err().unwrap();
    let mut told = served.accesses.asked_so_far();
    told.sort();
    let of = |kind: &str, text: &str, purpose: &str, who: &str, rows, failed| {
        (
            kind.to_owned(),
            text.to_owned(),
            purpose.to_owned(),
            who.to_owned(),
            rows,
            failed,
        )
    };
    assert_eq!(
        told,
        [
            of("forbidden", "sql", "", "vic", 0, true),
            of(
                "query",
                "SELECT count(*) FROM queries WHERE principal = $1",
                "DSAR 42",
                "ann",
                1,
                false
            ),
            of("query", "SELECT nothing FROM events", "DSAR 42", "ann", 0, true),
            of(
                "query",
                "SELECT principal FROM events",
                "DSAR 42",
                "ann",
                2,
                false
            ),
        ]
    );
}

#[tokio::test]
async fn one_purpose_can_be_given_at_the_start() {
    let served = Served::to(Access::everybody()).await;
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(served.port)
        .user("u")
        .dbname(DATABASE);
    config.options("-c pgwitness.purpose=review\\ of\\ Q3 -c geqo=off");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    ask(&client, "SELECT count(*) FROM events").await;
    let told = served.accesses.asked_so_far();
    assert_eq!(told[0].2, "review of Q3");
    assert_eq!(told[0].3, "local");
}

/// Nobody is held up by who never says who he is, and one too many is told why.
#[tokio::test]
async fn connections_have_a_limit() {
    let served = Served::to(Access::everybody()).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_OF_EACH {
        open.push(served.connect("u", None).await.unwrap());
    }
    let refused = served.connect("u", None).await.err().unwrap();
    assert_eq!(code(&refused), SqlState::TOO_MANY_CONNECTIONS);
    drop(open);
    let mut attempts = 0;
    let client = loop {
        match served.connect("u", None).await {
            Ok(client) => break client,
            Err(error) => assert!(attempts < 100, "{error}"),
        }
        attempts += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(ask(&client, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_an_error_and_room_comes_back() {
    let served = Served::to(Access::everybody()).await;
    let client = served.connect("u", None).await.unwrap();
    let huge = "SELECT repeat('x', 1000) || value FROM generate_series(1, 100000)";
    let failed = client.simple_query(huge).await.unwrap_err();
    assert_eq!(code(&failed), SqlState::PROGRAM_LIMIT_EXCEEDED);
    assert!(format!("{failed:?}").contains("32 MiB"), "{failed:?}");
    let room = Arc::new(Semaphore::new(100));
    let context = served.store.lasting(DATABASE);
    let of = async |rows: u32| {
        let sql = format!("SELECT repeat('x', 1000) FROM generate_series(1, {rows})");
        let plan = context.state().create_logical_plan(&sql).await.unwrap();
        answer::Answer::of(&context, plan, served.store.shown(), Arc::clone(&room)).await
    };
    let held = of(60).await.unwrap();
    let refused = of(60).await.err().map(|error| error.to_string());
    assert!(refused.is_some_and(|why| why.contains("ask again")));
    drop(held);
    assert_eq!(of(60).await.unwrap().rows(), 60);
    assert_eq!(room.available_permits(), 100);
}

/// Whatever comes, others are answered.
#[tokio::test]
async fn garbage_ends_its_own_connection() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let served = Served::to(Access::everybody()).await;
    let client = served.connect("u", None).await.unwrap();
    let startup = b"\0\0\0\x13\0\x03\0\0user\0u\0\0\0".as_slice();
    let lies: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"B\0\0\0\x0c\0\0\x7f\xff\x7f\xff\xff\xff",
        b"P\0\0\0\x07\0\0\x7f\xff\xff",
        b"Q\x7f\xff\xff\xffSELECT 1",
    ];
    for lie in lies {
        for opening in [&b""[..], startup] {
            let mut raw = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
            raw.write_all(opening).await.unwrap();
            raw.write_all(lie).await.unwrap();
            raw.shutdown().await.unwrap();
            // Until the server has done with it.
            let mut said = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(10), raw.read_to_end(&mut said)).await;
            assert!(ended.is_ok(), "{lie:?} holds the connection open");
        }
    }
    assert_eq!(ask(&client, "SELECT 1").await, ["1"]);
    assert_eq!(served.connect("u", None).await.map(|_| ()).ok(), Some(()));
}

/// A question can be ended from another connection, as psql does.
#[tokio::test]
async fn a_question_can_be_cancelled() {
    let served = Served::to(Access::everybody()).await;
    let client = served.connect("u", None).await.unwrap();
    let cancel = client.cancel_token();
    let long = "SELECT count(*) FROM generate_series(1, 3000000) a, generate_series(1, 3000000) b";
    let running = tokio::spawn(async move { client.simple_query(long).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    cancel.cancel_query(NoTls).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
    let failed = ended.expect("it was cancelled").unwrap().unwrap_err();
    assert_eq!(code(&failed), SqlState::QUERY_CANCELED);
    // And gives itself a time.
    let client = served.connect("u", None).await.unwrap();
    ask(&client, "SET statement_timeout = '100ms'").await;
    let failed = client.simple_query(long).await.unwrap_err();
    assert_eq!(code(&failed), SqlState::QUERY_CANCELED);
}
