//! Which class, command and objects statements have, one by one.

use super::*;

#[test]
fn meaning_of_what_the_parser_takes() {
    use Class::{Ddl, Function, Misc, Read, Role, Write};
    for (sql, class, command, expected) in [
        (
            "SELECT id, email FROM users WHERE region = $1",
            Read,
            "SELECT",
            "read table users(id,email)",
        ),
        (
            "SELECT * FROM Public.\"Users\"",
            Read,
            "SELECT",
            "read table public.Users",
        ),
        (
            "SELECT a.x, b.y, z FROM a JOIN s.bee b ON a.i = b.i",
            Read,
            "SELECT",
            "read table a(x); read table s.bee(y)",
        ),
        (
            "SELECT count(id) FROM t FOR UPDATE",
            Read,
            "SELECT",
            "read table t(id)",
        ),
        (
            "SELECT (SELECT n FROM b) FROM a",
            Read,
            "SELECT",
            "read table a; read table b",
        ),
        ("SELECT * FROM generate_series(1, 2)", Read, "SELECT", ""),
        (
            "WITH users AS (SELECT id FROM users) SELECT * FROM users",
            Read,
            "SELECT",
            "read table users(id)",
        ),
        (
            "WITH RECURSIVE r AS (SELECT 1 UNION SELECT * FROM r) SELECT * FROM r",
            Read,
            "SELECT",
            "",
        ),
        (
            "WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b, c",
            Read,
            "SELECT",
            "read table c",
        ),
        (
            "WITH x AS (SELECT 1) INSERT INTO t (c) SELECT * FROM x",
            Write,
            "INSERT",
            "write table t(c)",
        ),
        (
            "WITH x AS (DELETE FROM t RETURNING id) SELECT * FROM x",
            Write,
            "SELECT",
            "write table t(id)",
        ),
        (
            "INSERT INTO t (a, b) SELECT c, d FROM u",
            Write,
            "INSERT",
            "write table t(a,b); read table u(c,d)",
        ),
        (
            "UPDATE s.t SET a = 1 FROM u WHERE u.i = t.i",
            Write,
            "UPDATE",
            "write table s.t(a); read table u",
        ),
        (
            "DELETE FROM t USING u WHERE t.i = u.i",
            Write,
            "DELETE",
            "write table t; read table u",
        ),
        (
            "MERGE INTO t USING u ON t.i = u.i WHEN MATCHED THEN DELETE",
            Write,
            "MERGE",
            "write table t; read table u",
        ),
        (
            "TRUNCATE a, s.b",
            Write,
            "TRUNCATE TABLE",
            "write table a; write table s.b",
        ),
        ("COPY t (a, b) FROM STDIN", Write, "COPY", "write table t(a,b)"),
        (
            "COPY (SELECT a FROM t) TO STDOUT",
            Read,
            "COPY",
            "read table t(a)",
        ),
        ("COPY s.t TO STDOUT", Read, "COPY", "read table s.t"),
        ("CALL s.p(1)", Function, "CALL", "execute function s.p"),
        ("EXPLAIN SELECT * FROM t", Misc, "EXPLAIN", "read table t"),
        ("EXPLAIN ANALYZE DELETE FROM t", Write, "EXPLAIN", "write table t"),
        ("EXPLAIN (ANALYZE, BUFFERS) SELECT 1", Misc, "EXPLAIN", ""),
        (
            "EXPLAIN (ANALYZE false) DELETE FROM t",
            Misc,
            "EXPLAIN",
            "write table t",
        ),
        ("PREPARE p AS SELECT * FROM t", Read, "PREPARE", "read table t"),
        (
            "PREPARE p (int) AS INSERT INTO t VALUES ($1)",
            Write,
            "PREPARE",
            "write table t",
        ),
        ("EXECUTE p(1)", Misc, "EXECUTE", "execute statement p"),
        (
            "SELECT a INTO n FROM t",
            Ddl,
            "SELECT INTO",
            "ddl table n; read table t(a)",
        ),
        (
            "CREATE TABLE n AS SELECT a FROM t",
            Ddl,
            "CREATE TABLE AS",
            "ddl table n; read table t(a)",
        ),
        ("CREATE TABLE s.n (a int)", Ddl, "CREATE TABLE", "ddl table s.n"),
        (
            "CREATE VIEW v AS SELECT a FROM t",
            Ddl,
            "CREATE VIEW",
            "ddl view v; read table t(a)",
        ),
        (
            "CREATE INDEX i ON s.t (a)",
            Ddl,
            "CREATE INDEX",
            "ddl index i; ddl table s.t",
        ),
        (
            "DROP TABLE IF EXISTS a, b CASCADE",
            Ddl,
            "DROP TABLE",
            "ddl table a; ddl table b",
        ),
        (
            "GRANT SELECT ON s.t TO bob",
            Role,
            "GRANT",
            "ddl table s.t; ddl role bob",
        ),
        (
            "CREATE ROLE bob PASSWORD 'x'",
            Role,
            "CREATE ROLE",
            "ddl role bob",
        ),
        ("BEGIN", Misc, "BEGIN", ""),
        ("VALUES (1)", Read, "SELECT", ""),
    ] {
        let statement = interpret(sql);
        assert_eq!(
            (statement.class, statement.command.as_str()),
            (class, command),
            "{sql}"
        );
        assert_eq!(objects(&statement), expected, "{sql}");
        assert!(statement.parsed, "{sql}");
    }
}

#[test]
fn meaning_of_utility_statements() {
    use Class::{Ddl, Function, Misc, MiscSet, Read, Role, Unknown, Write};
    for (sql, class, command, expected) in [
        ("DO $$ BEGIN END $$", Function, "DO", ""),
        ("TABLE t", Read, "SELECT", "read table t"),
        ("SET x = 1", MiscSet, "SET", ""),
        ("RESET ALL", MiscSet, "RESET", ""),
        ("SET ROLE a", MiscSet, "SET", ""),
        ("SET CONSTRAINTS ALL DEFERRED", Misc, "SET CONSTRAINTS", ""),
        ("SHOW x", Misc, "SHOW", ""),
        ("ABORT", Misc, "ROLLBACK", ""),
        ("PREPARE TRANSACTION 'x'", Misc, "PREPARE TRANSACTION", ""),
        ("COMMIT PREPARED 'x'", Misc, "COMMIT PREPARED", ""),
        ("DECLARE c CURSOR FOR SELECT 1", Read, "DECLARE CURSOR", ""),
        ("FETCH 1 FROM c", Misc, "FETCH", ""),
        ("DISCARD ALL", Misc, "DISCARD ALL", ""),
        ("CHECKPOINT", Misc, "CHECKPOINT", ""),
        ("VACUUM (FULL) s.t", Misc, "VACUUM", "ddl table s.t"),
        ("REINDEX TABLE t", Misc, "REINDEX", "ddl table t"),
        ("LOCK TABLE t IN SHARE MODE", Misc, "LOCK TABLE", "read table t"),
        ("CLUSTER t USING i", Ddl, "CLUSTER", "ddl table t"),
        ("ALTER SYSTEM SET a = b", Ddl, "ALTER SYSTEM", ""),
        (
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO a",
            Role,
            "ALTER DEFAULT PRIVILEGES",
            "ddl role a",
        ),
        (
            "CREATE USER MAPPING FOR u SERVER s OPTIONS (password 'x')",
            Role,
            "CREATE USER MAPPING",
            "ddl server s",
        ),
        (
            "DROP USER MAPPING FOR u SERVER s",
            Ddl,
            "DROP USER MAPPING",
            "ddl server s",
        ),
        (
            "ALTER USER bob RENAME TO rob",
            Role,
            "ALTER ROLE",
            "ddl role bob; ddl role rob",
        ),
        ("DROP OWNED BY bob", Ddl, "DROP OWNED", "ddl role bob"),
        (
            "CREATE OR REPLACE AGGREGATE s.a (int) (sfunc = f)",
            Ddl,
            "CREATE AGGREGATE",
            "ddl aggregate s.a",
        ),
        (
            "CREATE RULE r AS ON INSERT TO s.t DO NOTHING",
            Ddl,
            "CREATE RULE",
            "ddl rule r; ddl table s.t",
        ),
        (
            "COMMENT ON COLUMN s.t.c IS 'x'",
            Ddl,
            "COMMENT",
            "ddl table s.t(c)",
        ),
        (
            "COMMENT ON TRIGGER g ON t IS 'x'",
            Ddl,
            "COMMENT",
            "ddl trigger g; ddl table t",
        ),
        (
            "ALTER FOREIGN TABLE ft OPTIONS (SET a 'b')",
            Ddl,
            "ALTER FOREIGN TABLE",
            "ddl foreign table ft",
        ),
        (
            "CREATE PUBLICATION p FOR TABLE t",
            Ddl,
            "CREATE PUBLICATION",
            "ddl publication p",
        ),
        (
            "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
            Ddl,
            "REFRESH MATERIALIZED VIEW",
            "ddl materialized view m",
        ),
        (
            "IMPORT FOREIGN SCHEMA a FROM SERVER s INTO b",
            Ddl,
            "IMPORT FOREIGN SCHEMA",
            "ddl server s; ddl schema b",
        ),
        (
            "GRANT admin TO bob",
            Role,
            "GRANT ROLE",
            "ddl role admin; ddl role bob",
        ),
        (
            "REVOKE gibberish everywhere FROM bob",
            Role,
            "REVOKE ROLE",
            "ddl role gibberish; ddl role bob",
        ),
        ("COPY t FROM PROGRAM (", Write, "COPY", "write table t"),
        (
            "REVOKE ALL ON ALL TABLES IN SCHEMA s FROM bob",
            Role,
            "REVOKE",
            "ddl schema s; ddl role bob",
        ),
        (
            "INSERT INTO s.t (a) VALUES (1) ON CONFLICT gibberish (((",
            Write,
            "INSERT",
            "write table s.t(a)",
        ),
        ("SELEC 1", Unknown, "", ""),
        ("", Unknown, "", ""),
    ] {
        let statement = interpret(sql);
        assert_eq!(
            (statement.class, statement.command.as_str()),
            (class, command),
            "{sql}"
        );
        assert_eq!(objects(&statement), expected, "{sql}");
    }
    let broken = interpret(
        "WITH c AS (SELECT 1) SELECT x FROM a, s.b, c JOIN d USING (i) WHERE extract(y FROM z) !!! ((",
    );
    assert!(!broken.parsed);
    assert_eq!(objects(&broken), "read table a; read table s.b; read table d");
}
