//! Names by the server's catalog: the schema that the server takes, or the text's own word where that is not sure.

#![expect(clippy::expect_used, reason = "what is not there fails the test")]

mod host;

use std::sync::Arc;

use host::{BACKEND, COOKIE, Conversation, Host, SERVER, tcp, wire::*};
use tap_core::{
    Direction, Query, Settings,
    catalog::{Column, Function, Names, PathOf, Relation, Role, Schema, Snapshot},
};

const USERS: u32 = 1_000;
const USERS_OF_A: u32 = 1_001;

fn snapshot() -> Snapshot {
    let schema = |(oid, name, public): (u32, &str, bool)| Schema {
        oid,
        name: name.to_owned(),
        public,
    };
    let relation = |(oid, schema, name, kind): (u32, u32, &str, char)| Relation {
        oid,
        schema,
        name: name.to_owned(),
        kind,
        partition: name.ends_with("_2026"),
    };
    let column = |(relation, number, name): (u32, i16, &str)| Column {
        relation,
        number,
        name: name.to_owned(),
    };
    let function = |(schema, name): (u32, &str)| Function {
        schema,
        name: name.to_owned(),
    };
    let role = |(oid, name, superuser): (u32, &str, bool)| Role {
        oid,
        name: name.to_owned(),
        superuser,
    };
    Snapshot {
        standby: false,
        path: Some("\"$user\", public".to_owned()),
        paths: vec![PathOf {
            of_database: false,
            role: "bob".to_owned(),
            path: "b, public".to_owned(),
        }],
        schemas: [
            (11, "pg_catalog", true),
            (2_200, "public", true),
            (100, "a", false),
            (101, "b", false),
            (102, "ann", false),
            (900, "pg_temp_3", false),
        ]
        .map(schema)
        .to_vec(),
        roles: [(10, "ann", false), (11, "bob", false), (12, "root", true)]
            .map(role)
            .to_vec(),
        grants: vec![(100, 10), (102, 10), (101, 11)],
        relations: [
            (USERS, 2_200, "users", 'r'),
            (USERS_OF_A, 100, "users", 'r'),
            (1_002, 101, "users", 'r'),
            (1_003, 2_200, "orders", 'p'),
            (1_004, 100, "latest", 'v'),
            (1_005, 2_200, "orders_2026", 'r'),
            (1_006, 900, "scratch", 'r'),
            (1_007, 2_200, "scratch", 'r'),
            (1_008, 102, "mine", 'm'),
            (1_009, 2_200, "mine", 'r'),
        ]
        .map(relation)
        .to_vec(),
        columns: [(1_003, 1, "id"), (1_003, 3, "total"), (USERS, 1, "id")]
            .map(column)
            .to_vec(),
        functions: [(2_200, "once"), (2_200, "twice"), (100, "twice")]
            .map(function)
            .to_vec(),
    }
}

struct Site {
    host: Host,
}

impl Site {
    /// `user` logged in to the database `shop`, whose catalog was looked at.
    fn new(user: &str, parameters: &[(&str, &str)], reported: &[(&str, &str)]) -> Self {
        let mut host = Host::with(Settings {
            catalog: true,
            ..Settings::default()
        });
        host.accept(&tcp(COOKIE, BACKEND));
        host.play(COOKIE, &login(user, parameters, reported));
        host.lines();
        let mut site = Self { host };
        site.look();
        site
    }

    /// A look at the catalog, which begins now.
    fn look(&mut self) {
        self.host.at += 10;
        let names = Arc::new(Names::new(snapshot()));
        self.host.tap.learn_names(SERVER, "shop", names, self.host.at);
    }

    fn is_stale(&self) -> bool {
        self.host.tap.is_stale(SERVER, "shop")
    }

    /// One statement as a query string, and what became of its objects.
    fn says(&mut self, sql: &str, tag: &str, status: u8) -> String {
        self.host.client(&[query(sql)]);
        self.host.server(&[complete(tag), ready(status)]);
        last(&self.host.queries())
    }

    fn inserts(&mut self, table: &str) -> String {
        self.says(&format!("INSERT INTO {table} VALUES (1)"), "INSERT 0 1", b'I')
    }
}

fn login(user: &str, parameters: &[(&str, &str)], reported: &[(&str, &str)]) -> Conversation {
    let mut given = vec![("user", user), ("database", "shop")];
    given.extend(parameters);
    let mut answers = vec![auth(0, b"")];
    answers.extend(reported.iter().map(|(name, value)| parameter(name, value)));
    answers.extend([backend_key(1984, b"SECR"), ready(b'I')]);
    Conversation::new().client(&[startup(&given)]).server(&answers)
}

/// The objects of the last of these: `schema.name kind source`.
fn last(queries: &[Query]) -> String {
    let query = queries.last().expect("a query");
    let line = |schema: Option<&str>, name: &str, kind: &str, source: &str| {
        format!("{}.{name} {kind} {source}", schema.unwrap_or(""))
    };
    let objects: Vec<String> = match &query.objects {
        Some(objects) => objects
            .iter()
            .map(|known| {
                let object = &known.object;
                line(object.schema.as_deref(), &object.name, object.kind, known.source)
            })
            .collect(),
        None => {
            let statement = query.statement.as_ref().expect("a statement");
            let objects = statement.objects.iter();
            objects
                .map(|object| line(object.schema.as_deref(), &object.name, object.kind, "sql"))
                .collect()
        }
    };
    objects.join(", ")
}

const UNKNOWN: &str = ".users table sql";
const PUBLIC: &str = "public.users table catalog";
const OF_A: &str = "a.users table catalog";
const OF_B: &str = "b.users table catalog";

#[test]
fn the_path_leads_to_one_of_several() {
    let mut site = Site::new("ann", &[], &[]);
    assert_eq!(site.inserts("users"), PUBLIC);
    // Of the schema that is called like the role.
    assert_eq!(site.inserts("mine"), "ann.mine materialized view catalog");
    site.says("SET search_path = a, public", "SET", b'I');
    assert_eq!(site.inserts("users"), OF_A);
    assert_eq!(site.inserts("mine"), "public.mine table catalog");
    // Ann may not use b.
    site.says("SET search_path TO b, \"public\"", "SET", b'I');
    assert_eq!(site.inserts("users"), PUBLIC);
    // One name with a comma in it.
    site.says("SET search_path = 'a, public'", "SET", b'I');
    assert_eq!(site.inserts("users"), UNKNOWN);
    site.host
        .client(&[query("SELECT set_config('search_path', 'a, public', false)")]);
    site.host
        .server(&[row("a, public"), complete("SELECT 1"), ready(b'I')]);
    site.host.queries();
    assert_eq!(site.inserts("users"), OF_A);
    site.says("SET SCHEMA 'public'", "SET", b'I');
    assert_eq!(site.inserts("users"), PUBLIC);
    site.says("SET search_path = ''", "SET", b'I');
    assert_eq!(site.inserts("users"), UNKNOWN);
    site.says("RESET search_path", "RESET", b'I');
    assert_eq!(site.inserts("users"), PUBLIC);
    site.says("SET search_path = a", "SET", b'I');
    site.says("SET ROLE root", "SET", b'I');
    assert_eq!(site.inserts("users"), OF_A);
    site.says("SET search_path = b", "SET", b'I');
    assert_eq!(site.inserts("users"), OF_B);
    site.says("RESET ROLE", "RESET", b'I');
    assert_eq!(site.inserts("users"), UNKNOWN);
}

#[test]
fn what_is_local_ends_with_its_transaction() {
    let mut site = Site::new("ann", &[], &[]);
    for end in ["COMMIT", "ROLLBACK"] {
        site.says("BEGIN", "BEGIN", b'T');
        site.says("SET LOCAL search_path = a", "SET", b'T');
        let inside = site.says("INSERT INTO users VALUES (1)", "INSERT 0 1", b'T');
        assert_eq!(inside, OF_A);
        site.says(end, end, b'I');
        assert_eq!(site.inserts("users"), PUBLIC);
    }
    site.says("BEGIN", "BEGIN", b'T');
    site.says("SET search_path = a", "SET", b'T');
    site.says("ROLLBACK", "ROLLBACK", b'I');
    assert_eq!(site.inserts("users"), PUBLIC);
    // In one string it may have changed before.
    let both = site.says("SET search_path = a; INSERT INTO users VALUES (1)", "SET", b'I');
    assert_eq!(both, "");
    site.host
        .client(&[query("SET search_path = public; INSERT INTO users VALUES (1)")]);
    site.host
        .server(&[complete("SET"), complete("INSERT 0 1"), ready(b'I')]);
    assert_eq!(last(&site.host.queries()), UNKNOWN);
}

#[test]
fn sessions_begin_with_the_path_of_their_role_or_what_they_ask_for() {
    assert_eq!(Site::new("bob", &[], &[]).inserts("users"), OF_B);
    let mut asked = Site::new("bob", &[("options", "-c search_path=public")], &[]);
    assert_eq!(asked.inserts("users"), PUBLIC);
    // As PostgreSQL 18 reports it.
    let mut reported = Site::new("ann", &[], &[("search_path", "a, public")]);
    assert_eq!(reported.inserts("users"), OF_A);
    reported.host.client(&[query("SELECT once()")]);
    reported.host.server(&[
        complete("SELECT 1"),
        parameter("search_path", "public"),
        ready(b'I'),
    ]);
    assert_eq!(last(&reported.host.queries()), "public.once function catalog");
    reported.look();
    assert_eq!(reported.inserts("users"), PUBLIC);
    // Changed after it began: nobody knows which one it began with.
    let mut changed = Site::new("ann", &[], &[]);
    other(
        &mut changed.host,
        "ALTER ROLE ann SET search_path = a",
        "ALTER ROLE",
    );
    changed.host.queries();
    assert!(changed.is_stale());
    changed.look();
    assert!(!changed.is_stale());
    assert_eq!(changed.inserts("users"), UNKNOWN);
    assert_eq!(changed.inserts("orders"), "public.orders table catalog");
}

#[test]
fn the_only_one_of_a_name_is_it_wherever_the_session_looks() {
    let mut site = Site::new("ann", &[], &[]);
    site.says("SELECT set_config('search_path', $1, false)", "SELECT 1", b'I');
    assert_eq!(site.inserts("orders"), "public.orders table catalog");
    assert_eq!(
        site.inserts("orders_2026"),
        "public.orders_2026 partition catalog"
    );
    assert_eq!(site.inserts("latest"), "a.latest view catalog");
    assert_eq!(site.inserts("a.latest"), "a.latest view catalog");
    assert_eq!(site.inserts("a.orders"), "a.orders table sql");
    assert_eq!(site.inserts("nothing"), ".nothing table sql");
    // Some session has a temporary table of this name: it may be this one.
    assert_eq!(site.inserts("scratch"), ".scratch table sql");
    assert_eq!(site.inserts("public.scratch"), "public.scratch table catalog");
    // What failed may have failed because there is none.
    site.host.client(&[query("INSERT INTO orders VALUES (1)")]);
    site.host.server(&[error("ERROR", "42P01"), ready(b'I')]);
    assert_eq!(last(&site.host.queries()), ".orders table sql");
    assert_eq!(
        site.says("SELECT once(), twice()", "SELECT 1", b'I'),
        "public.once function catalog, .twice function sql"
    );
}

#[test]
fn a_result_names_its_table_by_its_oid() {
    let mut site = Site::new("ann", &[], &[]);
    site.says(
        "DO $$ BEGIN PERFORM set_config('search_path', 'a', false); END $$",
        "DO",
        b'I',
    );
    assert_eq!(site.inserts("users"), UNKNOWN, "a look is due");
    site.look();
    assert_eq!(site.inserts("users"), UNKNOWN, "the path may be another one");
    let read = |site: &mut Site, sql: &str, oid| {
        site.host.client(&[query(sql)]);
        site.host.server(&[
            row_description(&[("id", oid, 1)]),
            row("1"),
            complete("SELECT 1"),
            ready(b'I'),
        ]);
        let queries = site.host.queries();
        let objects = queries[0].objects.as_ref();
        let columns = objects.map(|objects| objects[0].object.columns.join(" "));
        (last(&queries), columns.unwrap_or_default())
    };
    assert_eq!(
        read(&mut site, "SELECT id FROM users", USERS_OF_A),
        (OF_A.into(), "id".into())
    );
    assert_eq!(read(&mut site, "SELECT id FROM users", USERS).0, PUBLIC);
    // A number that does not fit its name.
    assert_eq!(read(&mut site, "SELECT id FROM users", 1_003).0, UNKNOWN);
    assert_eq!(
        read(&mut site, "SELECT id FROM a.users", USERS).0,
        "a.users table sql"
    );
    let all = read(&mut site, "SELECT * FROM users", USERS);
    assert_eq!(all, (PUBLIC.into(), "id".into()));
}

#[test]
fn all_columns_stand_behind_a_star() {
    let mut site = Site::new("ann", &[], &[]);
    site.host
        .client(&[query("INSERT INTO users SELECT * FROM orders")]);
    site.host.server(&[complete("INSERT 0 1"), ready(b'I')]);
    let queries = site.host.queries();
    let objects = queries[0].objects.as_ref().expect("objects");
    let orders = objects
        .iter()
        .find(|known| known.object.name == "orders")
        .expect("orders");
    assert_eq!(orders.object.columns, ["id", "total"]);
}

#[test]
fn what_was_prepared_before_is_not_looked_for_again() {
    let mut site = Site::new("ann", &[], &[]);
    let bound = |site: &mut Site, table: &str, parsed_now: bool| {
        let insert = parse("s", &format!("INSERT INTO {table} VALUES (1)"));
        let run = [bind("", "s", &[]), execute("", 0), sync()];
        if parsed_now {
            site.host.client(&[&[insert][..], &run].concat());
            site.host
                .server(&[parsed(), bound(), complete("INSERT 0 1"), ready(b'I')]);
        } else {
            site.host.client(&[insert, sync()]);
            site.host.server(&[parsed(), ready(b'I')]);
            site.host.client(&run);
            site.host.server(&[bound(), complete("INSERT 0 1"), ready(b'I')]);
        }
        last(&site.host.queries())
    };
    assert_eq!(bound(&mut site, "users", true), PUBLIC);
    assert_eq!(bound(&mut site, "users", false), UNKNOWN);
    assert_eq!(bound(&mut site, "orders", false), "public.orders table catalog");
}

#[test]
fn nothing_is_sure_between_a_definition_and_the_next_look() {
    let mut site = Site::new("ann", &[], &[]);
    assert_eq!(site.inserts("orders"), "public.orders table catalog");
    site.says("ALTER TABLE orders RENAME TO sales", "ALTER TABLE", b'I');
    assert!(site.is_stale());
    assert_eq!(site.inserts("orders"), ".orders table sql");
    site.look();
    assert_eq!(site.inserts("orders"), "public.orders table catalog");

    // Not before the transaction has ended, and then a look has to begin.
    site.says("BEGIN", "BEGIN", b'T');
    site.says("CREATE TABLE a.orders (id int)", "CREATE TABLE", b'T');
    site.look();
    let inside = site.says("INSERT INTO orders VALUES (1)", "INSERT 0 1", b'T');
    assert_eq!(inside, ".orders table sql");
    site.says("COMMIT", "COMMIT", b'I');
    assert!(site.is_stale());
    assert_eq!(site.inserts("orders"), ".orders table sql");
    site.look();
    assert_eq!(site.inserts("orders"), "public.orders table catalog");

    // A statement that began before the definition ended.
    site.host.client(&[query("INSERT INTO orders VALUES (1)")]);
    other(&mut site.host, "DROP TABLE a.orders", "DROP TABLE");
    site.look();
    site.host.server(&[complete("INSERT 0 1"), ready(b'I')]);
    let queries = site.host.queries();
    assert_eq!(last(&queries), ".orders table sql");
}

#[test]
fn a_definition_of_another_session_counts_from_its_request_on() {
    let mut site = Site::new("ann", &[], &[]);
    site.host.accept(&tcp(OTHER, BACKEND + 1));
    site.host.play(OTHER, &login("bob", &[], &[]));
    site.host.lines();
    site.host.segment(
        OTHER,
        Direction::Frontend,
        &query("ALTER TABLE orders RENAME TO sales"),
    );
    // Its answer is still to come, and yet this may have waited for it.
    assert_eq!(site.inserts("orders"), ".orders table sql");
    let answer = [complete("ALTER TABLE"), ready(b'I')].concat();
    site.host.segment(OTHER, Direction::Backend, &answer);
    assert!(site.is_stale());
    site.look();
    assert_eq!(site.inserts("orders"), "public.orders table catalog");
    // An open transaction changes nothing until it is about to end.
    for (sql, tag) in [("BEGIN", "BEGIN"), ("DROP TABLE b.users", "DROP TABLE")] {
        site.host.segment(OTHER, Direction::Frontend, &query(sql));
        let answer = [complete(tag), ready(b'T')].concat();
        site.host.segment(OTHER, Direction::Backend, &answer);
    }
    site.host.queries();
    assert_eq!(site.inserts("orders"), "public.orders table catalog");
    site.host.segment(OTHER, Direction::Frontend, &query("COMMIT"));
    assert_eq!(site.inserts("orders"), ".orders table sql");
    // It is over, and nobody knows how.
    site.host.close(OTHER);
    assert!(site.is_stale());
    site.look();
    assert_eq!(site.inserts("orders"), "public.orders table catalog");
}

#[test]
fn temporary_tables_are_of_their_session() {
    let mut site = Site::new("ann", &[], &[]);
    site.says("CREATE TEMP TABLE users (id int)", "CREATE TABLE", b'I');
    assert!(!site.is_stale(), "nobody else is concerned");
    assert_eq!(site.inserts("users"), UNKNOWN);
    assert_eq!(site.inserts("orders"), ".orders table sql");
    site.look();
    assert_eq!(site.inserts("orders"), "public.orders table catalog");
}

#[test]
fn what_is_lost_may_have_been_a_definition() {
    let mut site = Site::new("ann", &[], &[]);
    site.host.unseen(COOKIE, Direction::Frontend, 100);
    site.host.unseen(COOKIE, Direction::Backend, 100);
    site.host.client(&[query("SELECT 1"), query("SELECT 2")]);
    site.host.server(&[
        complete("SELECT 1"),
        ready(b'I'),
        complete("SELECT 1"),
        ready(b'I'),
    ]);
    assert_eq!(site.inserts("orders"), ".orders table sql");
    assert!(site.is_stale());
    site.look();
    assert_eq!(site.inserts("orders"), "public.orders table catalog");
    assert_eq!(
        site.inserts("users"),
        UNKNOWN,
        "the path may have been changed, too"
    );
}

#[test]
fn a_stream_that_lasts_hides_nothing() {
    let mut site = Site::new("ann", &[], &[]);
    site.host.accept(&tcp(OTHER, BACKEND + 1));
    site.host
        .play(OTHER, &login("bob", &[("replication", "database")], &[]));
    let stream = query("START_REPLICATION SLOT s LOGICAL 0/0");
    site.host.segment(OTHER, Direction::Frontend, &stream);
    site.host.segment(OTHER, Direction::Backend, &copy_both());
    site.host.queries();
    for _ in 0..2 {
        site.host.segment(OTHER, Direction::Frontend, &copy_data("r"));
        assert_eq!(site.inserts("orders"), "public.orders table catalog");
    }
}

#[test]
fn a_server_that_has_ended_is_forgotten() {
    let mut site = Site::new("ann", &[], &[]);
    site.host.tap.drop_server(SERVER);
    assert_eq!(site.inserts("orders"), ".orders table sql");
    site.look();
    assert_eq!(site.inserts("orders"), "public.orders table catalog");
    site.host.tap.unlearn_names(SERVER, "shop");
    assert_eq!(site.inserts("orders"), ".orders table sql");
    let standby = Snapshot {
        standby: true,
        ..snapshot()
    };
    let at = site.host.at + 10;
    site.host
        .tap
        .learn_names(SERVER, "shop", Arc::new(Names::new(standby)), at);
    site.host.at += 20;
    assert_eq!(site.inserts("orders"), ".orders table sql");
}

const OTHER: u64 = 0x52;

/// A second session that does one thing.
fn other(host: &mut Host, sql: &str, tag: &str) {
    host.accept(&tcp(OTHER, BACKEND + 1));
    host.play(OTHER, &login("bob", &[], &[]));
    host.segment(OTHER, Direction::Frontend, &query(sql));
    host.segment(OTHER, Direction::Backend, &[complete(tag), ready(b'I')].concat());
}
