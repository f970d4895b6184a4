use super::*;

fn read(sql: &str) -> Option<Vec<Change>> {
    changes(sql, Backslash::Plain)
}

fn text(text: &str) -> Given {
    Given::Text(text.to_owned())
}

#[test]
fn settings_are_read_as_the_grammar_has_them() {
    let table = [
        ("SET app.end_user = 'bob'", "app.end_user", text("bob"), false),
        (
            "set session App.\"End_User\" to Bob;",
            "app.end_user",
            text("bob"),
            false,
        ),
        (
            "SET LOCAL \"app.end_user\" = \"Bob\"",
            "app.end_user",
            text("Bob"),
            true,
        ),
        ("SET app.user_id = 42", "app.user_id", text("42"), false),
        ("SET app.user_id = -42", "app.user_id", text("-42"), false),
        ("SET app.user_id = 1.5", "app.user_id", Given::Unread, false),
        ("SET app.a = 'x', 'y'", "app.a", Given::Unread, false),
        (
            "SET app.end_user TO DEFAULT",
            "app.end_user",
            Given::Default,
            false,
        ),
        ("SET app.a FROM CURRENT", "app.a", Given::Current, false),
        ("RESET app.end_user", "app.end_user", Given::Default, false),
        ("SET ROLE Reader", "role", text("reader"), false),
        ("SET LOCAL ROLE 'Reader'", "role", text("Reader"), true),
        ("SET SESSION ROLE none", "role", text("none"), false),
        ("SET role TO x", "role", text("x"), false),
        ("SET SESSION role = x", "role", text("x"), false),
        ("RESET ROLE", "role", Given::Default, false),
        (
            "SET SESSION AUTHORIZATION bob",
            "session_authorization",
            text("bob"),
            false,
        ),
        (
            "SET LOCAL SESSION AUTHORIZATION 'Bob'",
            "session_authorization",
            text("Bob"),
            true,
        ),
        (
            "SET SESSION SESSION AUTHORIZATION DEFAULT",
            "session_authorization",
            Given::Default,
            false,
        ),
        (
            "RESET SESSION AUTHORIZATION",
            "session_authorization",
            Given::Default,
            false,
        ),
        ("SET SESSION = 5", "session", text("5"), false),
        ("SET /* c */ app.x -- d\n = $$y$$", "app.x", text("y"), false),
    ];
    for (sql, name, to, local) in table {
        let name = name.to_owned();
        assert_eq!(read(sql), Some(vec![Change::Set { name, to, local }]), "{sql}");
    }
    for sql in [
        "SET TRANSACTION READ ONLY",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET TIME ZONE 'UTC'",
        "SET LOCAL TIME ZONE 5",
        "SET NAMES 'UTF8'",
        "RESET TIME ZONE",
    ] {
        assert_eq!(read(sql), Some(Vec::new()), "{sql}");
    }
    for sql in [
        "SET U&\"d\\0061t\" = 1",
        "SET",
        "SET a b",
        "RESET",
        "SAVEPOINT",
        "ROLLBACK TO",
    ] {
        assert_eq!(read(sql), None, "{sql}");
    }
    assert_eq!(read("RESET ALL"), Some(vec![Change::ResetAll]));
    assert_eq!(read("DISCARD ALL;"), Some(vec![Change::DiscardAll]));
}

#[test]
fn savepoints_have_names() {
    for sql in [
        "ROLLBACK TO S1",
        "rollback work to savepoint s1",
        "ROLLBACK TRANSACTION TO \"s1\"",
    ] {
        assert_eq!(
            read(sql),
            Some(vec![Change::RollbackTo("s1".to_owned())]),
            "{sql}"
        );
    }
    for (sql, name) in [
        ("RELEASE s1", "s1"),
        ("RELEASE SAVEPOINT s1", "s1"),
        ("RELEASE savepoint", "savepoint"),
    ] {
        assert_eq!(read(sql), Some(vec![Change::Release(name.to_owned())]), "{sql}");
    }
    let long = "x".repeat(70);
    let cut = "x".repeat(63);
    assert_eq!(
        read(&format!("SAVEPOINT {long}")),
        Some(vec![Change::Savepoint(cut)])
    );
}

fn config(name: Given, to: Given, local: Given) -> Change {
    Change::Config { name, to, local }
}

#[test]
fn calls_are_read_from_a_select_list() {
    assert_eq!(
        read("SELECT set_config('App.x', 'v', false)"),
        Some(vec![config(text("App.x"), text("v"), text("false"))])
    );
    assert_eq!(
        read(
            "select pg_catalog.set_config('a', $1::text, true) AS a, now(), SET_CONFIG($2, NULL, $3::bool) x, \
             set_config('b', lower('X'), 't');"
        ),
        Some(vec![
            config(text("a"), Given::Parameter(1), text("true")),
            config(Given::Parameter(2), Given::Default, Given::Parameter(3)),
            config(text("b"), Given::Unread, text("t")),
        ])
    );
    for sql in [
        "SELECT set_config('a', 'b', true) FROM t",
        "SELECT lower(set_config('a', 'b', true))",
        "SELECT set_config('a', set_config('b', 'c', true), true)",
        "SELECT set_config('a', 'b')",
        "SELECT set_config('a', 'b', true) WHERE false",
        "SELECT 1 UNION SELECT set_config('a', 'b', true)",
        "SELECT set_config('a', 'b', true",
        "INSERT INTO t SELECT set_config('a', 'b', true)",
    ] {
        assert_eq!(read(sql), None, "{sql}");
    }
    assert_eq!(read("SELECT app.set_config('a', 'b', true)"), Some(Vec::new()));
    for yes in ["SELECT SET_config(1)", "xset_config"] {
        assert!(may_configure(yes.as_bytes()));
    }
    for no in ["SELECT 1", "_config", "set_confi", "a_set"] {
        assert!(!may_configure(no.as_bytes()));
    }
}

#[test]
fn what_may_change_settings_is_told_by_shape() {
    let effect = |sql: &str| {
        let effect = crate::Interpreter::new(1).interpret(sql.as_bytes()).effect;
        (effect.settings, effect.unseen)
    };
    let nothing = [
        "SELECT 1",
        "SELECT count(*), lower(a), coalesce(b, now()) FROM t WHERE c = any($1) AND d IN (1, 2)",
        "INSERT INTO t (a, b) VALUES (1, 2) RETURNING id",
        "WITH x (a) AS (SELECT 1) SELECT * FROM x JOIN y USING (a)",
        "UPDATE t SET a = (b + 1) WHERE c::varchar(10) = 'x'",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "CREATE TABLE t (a int DEFAULT f(1))",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT set_config(1)'",
        "PREPARE s AS SELECT set_config('a', $1, true)",
        "SELECT 'set_config(1)'",
        "GRANT EXECUTE ON FUNCTION f(int) TO x",
        "SELECT * FROM generate_series(1, 10) g",
        "COPY t (a, b) FROM STDIN",
    ];
    for sql in nothing {
        assert_eq!(effect(sql), (false, false), "{sql}");
    }
    for sql in [
        "SET a.b = 'x'",
        "RESET ALL",
        "DISCARD ALL",
        "SAVEPOINT x",
        "RELEASE x",
        "ROLLBACK TO x",
        "SELECT set_config('a', 'x', false), now()",
    ] {
        assert_eq!(effect(sql), (true, false), "{sql}");
    }
    for sql in [
        "DO $$ BEGIN END $$",
        "CALL p()",
        "SELECT login('bob')",
        "SELECT app.now()",
        "SELECT * FROM login('bob')",
        "INSERT INTO t VALUES (login('bob'))",
        "WITH x AS (SELECT set_config('a', 'b', true)) SELECT * FROM x",
        "EXPLAIN ANALYZE SELECT set_config('a', 'b', true)",
        "EXPLAIN ANALYZE EXECUTE s",
        "SELECT set_config('a', 'b', true) FROM t",
        "CREATE EXTENSION x",
    ] {
        assert_eq!(effect(sql), (false, true), "{sql}");
    }
    assert_eq!(
        effect("SELECT set_config('a', 'x', false), login('y')"),
        (true, true)
    );
}
