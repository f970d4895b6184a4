//! What is left of a text: redacted, split, masked.

use super::*;

#[test]
fn redaction_cases() {
    for (sql, expected) in [
        (
            "SELECT id FROM t WHERE a = 'x' AND b = 5",
            "SELECT id FROM t WHERE a = ? AND b = ?",
        ),
        ("select  'it''s' ,\n 'a\\b'", "select ? , ?"),
        ("SELECT E'a\\'b' , x", "SELECT ? , x"),
        ("SELECT e'\\\\', x", "SELECT ?, x"),
        (
            "SELECT B'01', X'1F', N'n', U&'\\0061' UESCAPE '!'",
            "SELECT ?, ?, ?, ? UESCAPE ?",
        ),
        ("SELECT 'a'\n  'b' , c", "SELECT ? , c"),
        ("SELECT 'a' -- note\n 'b', c", "SELECT ?, c"),
        ("SELECT E'a'\n'b\\'c', d", "SELECT ?, d"),
        ("SELECT $$ it's $$, $tag$ $$ ' $tag$, x", "SELECT ?, ?, x"),
        ("SELECT a$b$c, x", "SELECT a$b$c, x"),
        ("SELECT $1, $2::int", "SELECT $1, $2::int"),
        ("SELECT $1$$secret$$", "SELECT $1?"),
        (
            "SELECT -5, +1.5e-10, 0xFF, 1_000, .5, 1., 12abc",
            "SELECT -?, +?, ?, ?, ?, ?, ?",
        ),
        ("SELECT 1..2", "SELECT ?.?"),
        ("SELECT 1$$ secret $$", "SELECT ?"),
        ("SELECT /* a /* nested */ 'x' */ y -- 'end", "SELECT y"),
        ("/* lead */ SELECT 1", "SELECT ?"),
        ("SELECT a--b\n-c", "SELECT a -c"),
        ("SELECT 'open and FROM t", "SELECT ?"),
        ("SELECT \"open and FROM t", "SELECT ?"),
        ("SELECT $x$ open FROM t", "SELECT ?"),
        ("SELECT $ open", "SELECT ?"),
        ("SELECT x /* open 'secret'", "SELECT x"),
        (
            "SELECT \"a\"\"b\", U&\"d\\0061t\" FROM \"T\"",
            "SELECT \"a\"\"b\", U&\"d\\0061t\" FROM \"T\"",
        ),
        (
            "SELECT TRUE, NULL, DATE '2020-01-01'",
            "SELECT TRUE, NULL, DATE ?",
        ),
        ("SELECT naïve, 'é' FROM tablé", "SELECT naïve, ? FROM tablé"),
        // Two readings: as under standard_conforming_strings = off, and as under on.
        ("SELECT 'a\\' , col FROM t", "SELECT ?"),
        ("SELECT 'it\\'s' , 'he\\'s' FROM t", "SELECT ? FROM t"),
        ("SELECT 'C:\\dir', x FROM t", "SELECT ?, x FROM t"),
        // A backslash that may be half of a character hides all after it.
        ("SELECT E'\u{fffd}\\', 'secret", "SELECT ?"),
        ("SELECT $\u{fffd}$ a $\u{fffd}$, b", "SELECT ?"),
        ("SET x = secret", "SET x = ?"),
        (
            "SET LOCAL app.user TO alice, bob; SELECT 1",
            "SET LOCAL app.user TO ?; SELECT ?",
        ),
        ("SET TIME ZONE PST8PDT", "SET TIME ZONE ?"),
        ("SET x TO DEFAULT", "SET x TO DEFAULT"),
        ("SET ROLE admin", "SET ROLE admin"),
        ("SET SESSION AUTHORIZATION bob", "SET SESSION AUTHORIZATION bob"),
        (
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        ),
        ("RESET ROLE", "RESET ROLE"),
        ("SHOW x", "SHOW x"),
        ("UPDATE t SET a = b", "UPDATE t SET a = b"),
        (
            "ALTER ROLE r SET search_path TO secret, b",
            "ALTER ROLE r SET search_path TO ?",
        ),
        ("ALTER SYSTEM SET a.b = secret", "ALTER SYSTEM SET a.b = ?"),
        (
            "ALTER TABLE t ALTER c SET DEFAULT 5",
            "ALTER TABLE t ALTER c SET DEFAULT ?",
        ),
        (
            "CREATE FUNCTION f() RETURNS int SET a = b, c LANGUAGE sql AS $$SELECT 1$$",
            "CREATE FUNCTION f() RETURNS int SET a = ? LANGUAGE sql AS ?",
        ),
        ("ALTER ROLE r PASSWORD 'x'", "ALTER ROLE r PASSWORD ?"),
        ("ALTER ROLE r PASSWORD hunter2 !", "ALTER ROLE r PASSWORD ?"),
        ("ALTER USER r PASSWORD \"hunter2\"", "ALTER USER r PASSWORD ?"),
        ("ALTER USER r PASSWORD NULL", "ALTER USER r PASSWORD NULL"),
        ("CREATE TABLE t (password text)", "CREATE TABLE t (password text)"),
        ("", ""),
    ] {
        assert_eq!(redact(sql), expected, "{sql}");
        assert_eq!(redact(expected), expected, "idempotent: {sql}");
    }
}

#[test]
fn long_text_is_cut_to_a_value() {
    let sql = format!("SELECT {} 'secret'", "a,".repeat(MAX_TEXT_BYTES));
    let redacted = redact(&sql);
    assert!(redacted.ends_with('?') && redacted.len() < MAX_TEXT_BYTES + 10 && !redacted.contains("secret"));
}

#[test]
fn what_is_behind_too_many_tokens_is_a_value() {
    let sql = format!("SELECT {}'secret' , 1", "+".repeat(MAX_TOKENS - 1));
    assert!(sql.len() < MAX_TEXT_BYTES);
    let redacted = redact(&sql);
    assert!(redacted.ends_with('?') && !redacted.contains("secret") && !redacted.contains(','));
    assert!(!interpret(&sql).whole);
    let sql = sql.replacen('+', "", 4);
    assert!(interpret(&sql).whole);
    assert!(redact(&sql).ends_with("? , ?"));
}

#[test]
fn split_cases() {
    for (sql, expected) in [
        ("SELECT 1; SELECT 2", vec!["SELECT 1", "SELECT 2"]),
        ("  SELECT 1 ;; /* nothing */ ; -- end", vec!["SELECT 1"]),
        (
            "SELECT ';', \";\", $$;$$ /* ; */; x",
            vec!["SELECT ';', \";\", $$;$$ /* ; */", "x"],
        ),
        (
            "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b); SELECT 1",
            vec![
                "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b)",
                "SELECT 1",
            ],
        ),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END; SELECT 3",
            vec![
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END",
                "SELECT 3",
            ],
        ),
        ("BEGIN; COMMIT;", vec!["BEGIN", "COMMIT"]),
        (
            "SELECT 'a\\'; SELECT secret'; SELECT 1",
            vec!["SELECT 'a\\'; SELECT secret'; SELECT 1"],
        ),
        ("", vec![]),
    ] {
        let found: Vec<_> = split(sql).into_iter().map(|range| &sql[range]).collect();
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn secrets() {
    for (sql, expected) in [
        ("ALTER ROLE r PASSWORD 'hunter2'", "ALTER ROLE r PASSWORD '***'"),
        (
            "create user r encrypted password  E'hun\\'ter2' login",
            "create user r encrypted password  '***' login",
        ),
        (
            "ALTER ROLE r PASSWORD /* c */ $$hunter2$$;  SELECT 'a'",
            "ALTER ROLE r PASSWORD /* c */ '***';  SELECT 'a'",
        ),
        (
            "ALTER ROLE r PASSWORD \"hunter2\" VALID",
            "ALTER ROLE r PASSWORD '***'",
        ),
        (
            "CREATE USER MAPPING FOR u SERVER s OPTIONS (user 'u', \"password\" 'hunter2')",
            "CREATE USER MAPPING FOR u SERVER s OPTIONS (user 'u', \"password\" '***')",
        ),
        (
            "ALTER SERVER s OPTIONS (SET passwd 'hunter2')",
            "ALTER SERVER s OPTIONS (SET passwd '***')",
        ),
        (
            "SELECT dblink('host=h password=hunter2 dbname=d')",
            "SELECT dblink('host=h password=*** dbname=d')",
        ),
        (
            "SELECT dblink('host=h password = ''hunt er2'' dbname=d')",
            "SELECT dblink('host=h password = ''***'' dbname=d')",
        ),
        (
            "SELECT dblink('postgres://u:hunter2@h/d')",
            "SELECT dblink('postgres://u:***@h/d')",
        ),
        (
            "DO $$ BEGIN EXECUTE 'ALTER ROLE r PASSWORD ''hunter2'''; END $$",
            "DO $$ BEGIN EXECUTE 'ALTER ROLE r PASSWORD ''***'''; END $$",
        ),
        ("SELECT 1 /* password=hunter2*/", "SELECT 1 /* password=****/"),
        ("SELECT 1 -- password=hunter2", "SELECT 1 -- password=***"),
        (
            "SELECT 'x' WHERE password = 'y'",
            "SELECT 'x' WHERE password = 'y'",
        ),
        (
            "DO $$ SELECT 1 WHERE password = $1 $$",
            "DO $$ SELECT 1 WHERE password = $1 $$",
        ),
        ("ALTER ROLE r PASSWORD NULL", "ALTER ROLE r PASSWORD NULL"),
        ("SELECT\t'http://h:80/a@b' ", "SELECT\t'http://h:80/a@b' "),
    ] {
        assert_eq!(mask_secrets(sql), expected, "{sql}");
        assert_eq!(mask_secrets(expected), expected, "idempotent: {sql}");
    }
}

#[test]
fn command_lines() {
    let mask = |args: &[&str]| mask_command_line(&args.iter().map(ToString::to_string).collect::<Vec<_>>());
    for (args, expected) in [
        (
            vec!["psql", "-h", "db", "-c", "SELECT 'x' FROM t"],
            vec!["psql", "-h", "db", "-c", "SELECT ? FROM t"],
        ),
        (vec!["psql", "-Atc", "SELECT 5"], vec!["psql", "-Atc", "SELECT ?"]),
        (vec!["psql", "-cSELECT 'x'"], vec!["psql", "-cSELECT ?"]),
        (
            vec!["psql", "--command=SELECT 'x'"],
            vec!["psql", "--command=SELECT ?"],
        ),
        (
            vec!["psql", "--command", "SELECT 'x'"],
            vec!["psql", "--command", "SELECT ?"],
        ),
        (
            vec!["psql", "postgres://u:hunter2@h/d"],
            vec!["psql", "postgres://u:***@h/d"],
        ),
        (
            vec!["psql", "host=h password=hunter2 dbname=d"],
            vec!["psql", "host=h password=*** dbname=d"],
        ),
        (
            vec!["env", "PGPASSWORD=hunter 2", "psql"],
            vec!["env", "PGPASSWORD=***", "psql"],
        ),
        (
            vec!["tool", "--password=hunter2", "--password", "hunter2"],
            vec!["tool", "--password=***", "--password", "***"],
        ),
        (
            vec!["sh", "-c", "PGPASSWORD=hunter2 psql -c \"SELECT 'x'\""],
            vec!["sh", "-c", "PGPASSWORD=*** psql -c ?"],
        ),
        (
            vec!["app", "--dsn=postgres://u:hunter2@h/d"],
            vec!["app", "--dsn=postgres://u:***@h/d"],
        ),
        (vec!["app", "--port=5432", "-v"], vec!["app", "--port=5432", "-v"]),
    ] {
        assert_eq!(mask(&args), expected);
    }
}
