//! Tables of cases, most of them hostile, and properties over generated statements.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn interpret(sql: &str) -> Arc<Statement> {
    Interpreter::new(1).interpret(sql.as_bytes())
}

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

/// Objects as `access kind schema.name(columns)`.
fn objects(statement: &Statement) -> String {
    let one = |o: &ObjectRef| {
        let schema = o.schema.as_ref().map(|s| format!("{s}.")).unwrap_or_default();
        let columns = if o.columns.is_empty() {
            String::new()
        } else {
            format!("({})", o.columns.join(","))
        };
        format!("{} {} {schema}{}{columns}", o.access.as_str(), o.kind, o.name)
    };
    statement.objects.iter().map(one).collect::<Vec<_>>().join("; ")
}

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

/// The statements of `tests/corpus/meaning`, as psql would send them.
fn corpus() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus/meaning");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let (mut text, mut copying) = (String::new(), false);
        for line in std::fs::read_to_string(file).unwrap().lines() {
            if copying {
                copying = line != "\\.";
                continue;
            }
            text.push_str(line);
            if line.ends_with(';') {
                copying = line.contains("FROM STDIN");
                let whole = std::mem::take(&mut text).replace("\\;", ";");
                found.extend(split(&whole).into_iter().map(|range| whole[range].to_owned()));
            } else {
                text.push('\n');
            }
        }
    }
    found
}

/// Class, command and objects of the corpus as they were reviewed; the suite `meaning` holds the same statements against
/// pgAudit, which does not name what GRANT, LOCK or TRUNCATE are about. `PGWITNESS_BLESS=1` writes the file anew.
#[test]
fn corpus_means_what_was_reviewed() {
    let mut found = String::new();
    for sql in corpus() {
        let statement = interpret(&sql);
        let named = statement.objects.iter().map(|object| {
            let schema = object
                .schema
                .as_ref()
                .map(|schema| format!("{schema}."))
                .unwrap_or_default();
            format!(
                "{} {} {schema}{}",
                object.access.as_str(),
                object.kind,
                object.name
            )
        });
        let named = named.collect::<Vec<_>>().join("; ");
        let line = [
            statement.class.as_str(),
            &statement.command,
            &named,
            &sql.replace('\n', " "),
        ]
        .join("\t");
        found.push_str(line.trim_end());
        found.push('\n');
    }
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/corpus/meaning/expected.tsv"
    );
    if std::env::var_os("PGWITNESS_BLESS").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    for (expected, found) in expected.lines().zip(found.lines()) {
        assert_eq!(expected, found);
    }
    assert_eq!(expected.lines().count(), found.lines().count());
}

/// Every statement kind of PostgreSQL 18's grammar (`stmt` in gram.y), with the class that its node has: by
/// `GetCommandLogLevel` in utility.c, and `log_audit_event` in pgaudit.c 18.
#[test]
fn every_statement_of_the_grammar_has_a_class() {
    use Class::{Ddl, Function, Misc, MiscSet, Read, Role, Write};
    for (node, sql, class) in [
        ("AlterEventTrigStmt", "ALTER EVENT TRIGGER e DISABLE", Ddl),
        ("AlterCollationStmt", "ALTER COLLATION c REFRESH VERSION", Ddl),
        (
            "AlterDatabaseStmt",
            "ALTER DATABASE d REFRESH COLLATION VERSION",
            Ddl,
        ),
        ("AlterDatabaseSetStmt", "ALTER DATABASE d RESET ALL", Ddl),
        (
            "AlterDefaultPrivilegesStmt",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO a",
            Role,
        ),
        ("AlterDomainStmt", "ALTER DOMAIN d DROP NOT NULL", Ddl),
        ("AlterEnumStmt", "ALTER TYPE t ADD VALUE 'x'", Ddl),
        ("AlterExtensionStmt", "ALTER EXTENSION e UPDATE TO '2'", Ddl),
        ("AlterExtensionContentsStmt", "ALTER EXTENSION e ADD TABLE t", Ddl),
        ("AlterFdwStmt", "ALTER FOREIGN DATA WRAPPER w NO HANDLER", Ddl),
        ("AlterForeignServerStmt", "ALTER SERVER s VERSION '2'", Ddl),
        ("AlterFunctionStmt", "ALTER FUNCTION f() STRICT", Ddl),
        ("AlterGroupStmt", "ALTER GROUP g ADD USER u", Role),
        (
            "AlterObjectDependsStmt",
            "ALTER FUNCTION f() DEPENDS ON EXTENSION e",
            Ddl,
        ),
        ("AlterObjectSchemaStmt", "ALTER TABLE t SET SCHEMA s", Ddl),
        ("AlterOwnerStmt", "ALTER TABLE t OWNER TO u", Ddl),
        (
            "AlterOperatorStmt",
            "ALTER OPERATOR + (int, int) SET (RESTRICT = NONE)",
            Ddl,
        ),
        ("AlterTypeStmt", "ALTER TYPE t SET (STORAGE = plain)", Ddl),
        ("AlterPolicyStmt", "ALTER POLICY p ON t TO u", Ddl),
        (
            "AlterPublicationStmt",
            "ALTER PUBLICATION p ADD TABLES IN SCHEMA s",
            Ddl,
        ),
        ("AlterRoleSetStmt", "ALTER ROLE ALL SET a = b", Role),
        ("AlterRoleStmt", "ALTER ROLE r NOLOGIN", Role),
        ("AlterSeqStmt", "ALTER SEQUENCE s NO CYCLE", Ddl),
        ("AlterStatsStmt", "ALTER STATISTICS s SET STATISTICS 1", Ddl),
        ("AlterSubscriptionStmt", "ALTER SUBSCRIPTION s DISABLE", Ddl),
        ("AlterSystemStmt", "ALTER SYSTEM RESET a", Ddl),
        ("AlterTableStmt", "ALTER TABLE t DROP c", Ddl),
        (
            "AlterTableStmt",
            "ALTER MATERIALIZED VIEW m SET TABLESPACE s",
            Ddl,
        ),
        ("AlterTblSpcStmt", "ALTER TABLESPACE s RESET (seq_page_cost)", Ddl),
        ("AlterCompositeTypeStmt", "ALTER TYPE t ADD ATTRIBUTE a int", Ddl),
        (
            "AlterTSConfigurationStmt",
            "ALTER TEXT SEARCH CONFIGURATION c DROP MAPPING FOR word",
            Ddl,
        ),
        (
            "AlterTSDictionaryStmt",
            "ALTER TEXT SEARCH DICTIONARY d (a = b)",
            Ddl,
        ),
        (
            "AlterUserMappingStmt",
            "ALTER USER MAPPING FOR u SERVER s OPTIONS (DROP a)",
            Role,
        ),
        ("AnalyzeStmt", "ANALYZE (BUFFER_USAGE_LIMIT '1MB') t", Misc),
        ("CallStmt", "CALL p()", Function),
        ("CheckPointStmt", "CHECKPOINT", Misc),
        ("ClosePortalStmt", "CLOSE c", Misc),
        ("ClusterStmt", "CLUSTER (VERBOSE) t", Ddl),
        ("CommentStmt", "COMMENT ON TABLE t IS NULL", Ddl),
        ("ConstraintsSetStmt", "SET CONSTRAINTS a IMMEDIATE", Misc),
        ("CopyStmt", "COPY t FROM PROGRAM 'x'", Write),
        ("CopyStmt", "COPY t TO '/tmp/x'", Read),
        ("CreateAmStmt", "CREATE ACCESS METHOD a TYPE INDEX HANDLER h", Ddl),
        ("CreateAsStmt", "CREATE UNLOGGED TABLE t AS SELECT 1", Ddl),
        ("CreateAssertionStmt", "CREATE ASSERTION a CHECK (true)", Ddl),
        (
            "CreateCastStmt",
            "CREATE CAST (int AS text) WITHOUT FUNCTION",
            Ddl,
        ),
        (
            "CreateConversionStmt",
            "CREATE DEFAULT CONVERSION c FOR 'A' TO 'B' FROM f",
            Ddl,
        ),
        ("CreateDomainStmt", "CREATE DOMAIN d int", Ddl),
        ("CreateExtensionStmt", "CREATE EXTENSION IF NOT EXISTS e", Ddl),
        ("CreateFdwStmt", "CREATE FOREIGN DATA WRAPPER w", Ddl),
        (
            "CreateForeignServerStmt",
            "CREATE SERVER s FOREIGN DATA WRAPPER w",
            Ddl,
        ),
        (
            "CreateForeignTableStmt",
            "CREATE FOREIGN TABLE t (a int) SERVER s",
            Ddl,
        ),
        (
            "CreateFunctionStmt",
            "CREATE PROCEDURE p() LANGUAGE sql AS ''",
            Ddl,
        ),
        ("CreateGroupStmt", "CREATE GROUP g", Role),
        ("CreateMatViewStmt", "CREATE MATERIALIZED VIEW m AS SELECT 1", Ddl),
        (
            "CreateOpClassStmt",
            "CREATE OPERATOR CLASS c FOR TYPE int USING btree AS STORAGE int",
            Ddl,
        ),
        ("CreateOpFamilyStmt", "CREATE OPERATOR FAMILY f USING btree", Ddl),
        (
            "AlterOpFamilyStmt",
            "ALTER OPERATOR FAMILY f USING btree DROP OPERATOR 1 (int)",
            Ddl,
        ),
        ("CreatePolicyStmt", "CREATE POLICY p ON t", Ddl),
        ("CreatePLangStmt", "CREATE TRUSTED PROCEDURAL LANGUAGE l", Ddl),
        (
            "CreatePublicationStmt",
            "CREATE PUBLICATION p FOR ALL TABLES",
            Ddl,
        ),
        ("CreateRoleStmt", "CREATE ROLE r", Role),
        ("CreateSchemaStmt", "CREATE SCHEMA s", Ddl),
        ("CreateSeqStmt", "CREATE TEMP SEQUENCE s", Ddl),
        ("CreateStmt", "CREATE TABLE t ()", Ddl),
        ("CreateStatsStmt", "CREATE STATISTICS ON a, b FROM t", Ddl),
        (
            "CreateSubscriptionStmt",
            "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p",
            Ddl,
        ),
        ("CreateTableSpaceStmt", "CREATE TABLESPACE s LOCATION '/x'", Ddl),
        (
            "CreateTransformStmt",
            "CREATE OR REPLACE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION f(internal))",
            Ddl,
        ),
        (
            "CreateTrigStmt",
            "CREATE TRIGGER g AFTER TRUNCATE ON t EXECUTE FUNCTION f()",
            Ddl,
        ),
        (
            "CreateEventTrigStmt",
            "CREATE EVENT TRIGGER e ON login EXECUTE FUNCTION f()",
            Ddl,
        ),
        ("CreateUserStmt", "CREATE USER u", Role),
        (
            "CreateUserMappingStmt",
            "CREATE USER MAPPING FOR u SERVER s",
            Role,
        ),
        ("CreatedbStmt", "CREATE DATABASE d STRATEGY wal_log", Ddl),
        ("DeallocateStmt", "DEALLOCATE p", Misc),
        ("DeclareCursorStmt", "DECLARE c BINARY CURSOR FOR SELECT 1", Read),
        ("DefineStmt", "CREATE TYPE t", Ddl),
        ("DeleteStmt", "DELETE FROM t RETURNING old.*", Write),
        ("DiscardStmt", "DISCARD SEQUENCES", Misc),
        ("DoStmt", "DO ''", Function),
        ("DropCastStmt", "DROP CAST (int AS text)", Ddl),
        ("DropOpClassStmt", "DROP OPERATOR CLASS c USING btree", Ddl),
        ("DropOpFamilyStmt", "DROP OPERATOR FAMILY f USING btree", Ddl),
        ("DropOwnedStmt", "DROP OWNED BY CURRENT_USER", Ddl),
        ("DropStmt", "DROP RULE r ON t", Ddl),
        ("DropSubscriptionStmt", "DROP SUBSCRIPTION s", Ddl),
        ("DropTableSpaceStmt", "DROP TABLESPACE s", Ddl),
        ("DropTransformStmt", "DROP TRANSFORM FOR int LANGUAGE sql", Ddl),
        ("DropRoleStmt", "DROP GROUP g", Role),
        ("DropUserMappingStmt", "DROP USER MAPPING FOR u SERVER s", Ddl),
        ("DropdbStmt", "DROP DATABASE d WITH (FORCE)", Ddl),
        ("ExecuteStmt", "EXECUTE p", Misc),
        ("ExplainStmt", "EXPLAIN (SERIALIZE, MEMORY) SELECT 1", Misc),
        ("FetchStmt", "MOVE ABSOLUTE 3 c", Misc),
        ("GrantStmt", "GRANT MAINTAIN ON t TO u", Role),
        ("GrantRoleStmt", "GRANT r TO u WITH INHERIT FALSE", Role),
        (
            "ImportForeignSchemaStmt",
            "IMPORT FOREIGN SCHEMA a LIMIT TO (t) FROM SERVER s INTO b",
            Ddl,
        ),
        (
            "IndexStmt",
            "CREATE INDEX CONCURRENTLY ON t (a) NULLS NOT DISTINCT",
            Ddl,
        ),
        ("InsertStmt", "INSERT INTO t DEFAULT VALUES", Write),
        ("ListenStmt", "LISTEN c", Misc),
        ("RefreshMatViewStmt", "REFRESH MATERIALIZED VIEW m", Ddl),
        ("LoadStmt", "LOAD 'x'", Misc),
        ("LockStmt", "LOCK t", Misc),
        (
            "MergeStmt",
            "MERGE INTO t USING u ON true WHEN NOT MATCHED BY SOURCE THEN DELETE RETURNING merge_action()",
            Write,
        ),
        ("NotifyStmt", "NOTIFY c", Misc),
        ("PrepareStmt", "PREPARE p AS VALUES (1)", Read),
        (
            "PrepareStmt",
            "PREPARE p AS MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
            Write,
        ),
        ("ReassignOwnedStmt", "REASSIGN OWNED BY a TO b", Ddl),
        ("ReindexStmt", "REINDEX SYSTEM", Misc),
        ("RemoveAggrStmt", "DROP AGGREGATE a (*)", Ddl),
        ("RemoveFuncStmt", "DROP ROUTINE f", Ddl),
        ("RemoveOperStmt", "DROP OPERATOR + (int, NONE)", Ddl),
        ("RenameStmt", "ALTER VIEW v RENAME COLUMN a TO b", Ddl),
        ("RenameStmt", "ALTER USER a RENAME TO b", Role),
        ("RevokeStmt", "REVOKE ALL ON SCHEMA s FROM u", Role),
        ("RevokeRoleStmt", "REVOKE INHERIT OPTION FOR r FROM u", Role),
        (
            "RuleStmt",
            "CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING",
            Ddl,
        ),
        ("SecLabelStmt", "SECURITY LABEL ON ROLE r IS 'x'", Ddl),
        ("SelectStmt", "SELECT", Read),
        ("SelectStmt", "((SELECT 1) UNION (SELECT 2))", Read),
        ("TransactionStmt", "BEGIN TRANSACTION READ WRITE", Misc),
        ("TransactionStmt", "PREPARE TRANSACTION 'x'", Misc),
        ("TransactionStmt", "ROLLBACK WORK TO SAVEPOINT s", Misc),
        ("TruncateStmt", "TRUNCATE t CASCADE", Write),
        ("UnlistenStmt", "UNLISTEN c", Misc),
        ("UpdateStmt", "UPDATE t SET (a, b) = ROW (1, 2)", Write),
        ("VacuumStmt", "VACUUM (PARALLEL 2) t", Misc),
        ("VariableResetStmt", "RESET SESSION AUTHORIZATION", MiscSet),
        (
            "VariableSetStmt",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            MiscSet,
        ),
        ("VariableShowStmt", "SHOW TRANSACTION ISOLATION LEVEL", Misc),
        ("ViewStmt", "CREATE RECURSIVE VIEW v (a) AS SELECT 1", Ddl),
    ] {
        assert_eq!(interpret(sql).class, class, "{node}: {sql}");
    }
}

#[test]
fn tags() {
    use Class::{Ddl, Function, Misc, MiscSet, Read, Role, Unknown, Write};
    for (tag, class, rows) in [
        ("INSERT 0 1", Write, Some(1)),
        ("UPDATE 3", Write, Some(3)),
        ("DELETE 0", Write, Some(0)),
        ("MERGE 2", Write, Some(2)),
        ("SELECT 3", Read, None),
        ("COPY 5", Unknown, None),
        ("CREATE TABLE", Ddl, None),
        ("GRANT ROLE", Role, None),
        ("DROP ROLE", Role, None),
        ("SET", MiscSet, None),
        ("RESET", MiscSet, None),
        ("DO", Function, None),
        ("FETCH 2", Misc, None),
        ("START TRANSACTION", Misc, None),
        ("TRUNCATE TABLE", Write, None),
        ("DEALLOCATE ALL", Misc, None),
        ("INSERT 0 x", Unknown, None),
        ("", Unknown, None),
    ] {
        assert_eq!((class_of_tag(tag), rows_affected(tag)), (class, rows), "{tag}");
    }
    assert_eq!(rows_in_tag("COPY 5"), Some(5));
}

#[test]
fn fingerprints() {
    let equal = |a: &str, b: &str| interpret(a).fingerprint == interpret(b).fingerprint;
    for (a, b) in [
        (
            "SELECT a FROM t WHERE b = 5",
            "select A from T where b=-7 -- note",
        ),
        ("SELECT a FROM t WHERE b = 5", "SELECT a FROM t WHERE b = $1"),
        (
            "SELECT a FROM t WHERE b IN (1)",
            "SELECT a FROM t WHERE b IN ($1::int, 2, NULL)",
        ),
        (
            "INSERT INTO t VALUES (1, 'a')",
            "INSERT INTO t VALUES (1, NULL), ($1, $2::numeric(10,2)), (5, 'x')",
        ),
        (
            "INSERT INTO t VALUES (1, now())",
            "INSERT INTO t VALUES (1, now()), (2, now())",
        ),
        ("SELECT ARRAY[1]", "SELECT ARRAY[1,2,3];"),
        ("SET x = a", "SET x = b, c"),
    ] {
        assert!(equal(a, b), "{a} | {b}");
    }
    for (a, b) in [
        ("SELECT a FROM t", "SELECT b FROM t"),
        ("SELECT \"A\" FROM t", "SELECT a FROM t"),
        ("INSERT INTO t VALUES (1, 2)", "INSERT INTO t VALUES (1)"),
        ("SELECT a - 1", "SELECT a + 1"),
    ] {
        assert!(!equal(a, b), "{a} | {b}");
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

#[test]
fn cache_shares_and_forgets() {
    let mut interpreter = Interpreter::new(4);
    let first = interpreter.interpret(b"SELECT a FROM t WHERE b = 1");
    assert!(Arc::ptr_eq(
        &first,
        &interpreter.interpret(b"SELECT a FROM t WHERE b = 1")
    ));
    assert!(Arc::ptr_eq(
        &first,
        &interpreter.interpret(b"SELECT a FROM t WHERE b = 2")
    ));
    for n in 0..100 {
        interpreter.interpret(format!("SELECT c{n} FROM t").as_bytes());
    }
    assert!(!Arc::ptr_eq(
        &first,
        &interpreter.interpret(b"SELECT a FROM t WHERE b = 1")
    ));
    // What doubtful literals hide is not confused: both are redacted to the same text.
    let hidden = interpreter.interpret(b"SELECT 'a\\' FROM secret");
    let plain = interpreter.interpret(b"SELECT 1");
    assert_eq!(hidden.redacted, plain.redacted);
    assert_eq!(objects(&plain), "");
}

/// Each of these made a naive reader slow or its stack overflow; a stack of 1 MiB stands for a small worker's.
#[test]
fn hostile_shapes_end_soon() {
    let n = 200_000;
    let shapes = [
        format!("SELECT {}", "(".repeat(n)),
        format!("SELECT {}1{}", "(".repeat(24), ")".repeat(24)),
        format!("SELECT * FROM {}t{}", "(".repeat(20), ")".repeat(20)),
        format!("SELECT * FROM {}t{}", "(".repeat(24), ")".repeat(24)),
        format!("SELECT {}", "(SELECT ".repeat(24)),
        format!("SELECT 1{}", "+1".repeat(4_000)),
        format!("SELECT 1{}", "+1".repeat(n)),
        format!("SELECT a{}", " IS NULL".repeat(2_000)),
        format!("SELECT a{}", "!".repeat(4_000)),
        format!("SELECT {}a", "NOT ".repeat(4_000)),
        format!("SELECT {}1", "- ".repeat(4_000)),
        format!("SELECT 1{}", " UNION SELECT 1".repeat(2_000)),
        format!("SELECT {}", "CASE WHEN ".repeat(2_000)),
        "SET a=b;".repeat(n / 2),
        "VALUES (a, ".repeat(n / 4),
        "IN (1, ".repeat(n / 4),
        "INSERT INTO a (".repeat(n / 8),
        ") AS (".repeat(n / 4),
        "WITH ) AS NOT ".repeat(n / 8),
        "'a\\'".repeat(n),
        "'a'\n--\n".repeat(n / 4),
        "$a$b".repeat(n),
        "/*".repeat(n),
        "password = ".repeat(n / 8),
        "://:@".repeat(n / 4),
    ];
    let run = move || {
        for shape in shapes {
            let start = Instant::now();
            fuzz_sql(shape.as_bytes());
            let took = start.elapsed();
            let head: String = shape.chars().take(30).collect();
            eprintln!("{head} {took:?}");
            assert!(took < Duration::from_secs(10), "{head}: {took:?}");
        }
    };
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn cached_statement_is_cheap() {
    let mut interpreter = Interpreter::default();
    let sql = b"SELECT id, email FROM users WHERE region = $1 AND state IN ('a', 'b')";
    interpreter.interpret(sql);
    let rounds = 20_000;
    let start = Instant::now();
    let kept = (0..rounds).filter(|_| interpreter.interpret(sql).parsed).count();
    assert_eq!(kept, rounds);
    // Far above what a hash of 70 bytes and a look-up take, far below a parse.
    assert!(
        start.elapsed() / 20_000 < Duration::from_micros(20),
        "{:?}",
        start.elapsed()
    );
}

const SECRET: &str = "s3cretvalue";

/// The secret in every quoting form.
fn literal() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        format!("'{SECRET}'"),
        format!("'it''s {SECRET}'"),
        format!("E'\\'{SECRET}\\\\'"),
        format!("e'\\'; {SECRET} -- '"),
        format!("N'{SECRET}'"),
        format!("U&'{SECRET}\\0061'"),
        format!("X'{SECRET}'"),
        format!("$${SECRET}$$"),
        format!("$q$ ' $$ {SECRET} $ $q$"),
        format!("'a'\n  '{SECRET}'"),
        format!("'a' -- x\n'{SECRET}'"),
        format!("E'a'\n'\\'{SECRET}'"),
        format!("12{SECRET}"),
        format!("'\\{SECRET}'"),
        format!("'/* {SECRET}'"),
        format!("'-- {SECRET}'"),
        format!("'\"{SECRET}'"),
    ])
}

fn context() -> impl Strategy<Value = String> {
    prop::sample::select(
        [
            "SELECT ",
            " FROM t ",
            " WHERE a = ",
            ", ",
            "(",
            ")",
            " IN ",
            "/* note */",
            "-- note\n",
            " $1 ",
            "::text",
            " \"quo''ted\" ",
            " || ",
            " - ",
            "\n",
            "\t",
            " AND ",
            "; ",
            " naïve ",
            " x->>",
            "[",
            "]",
            " SET a = ",
            "*",
            " INTERVAL ",
            " /* /* ' */ */ ",
            " U&\"d\\0061\" ",
            " true ",
            " ab$c ",
            "'plain'",
            " 12.5e-3 ",
            "+",
        ]
        .map(String::from)
        .to_vec(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_literal_survives(
        parts in prop::collection::vec((prop::collection::vec(context(), 0..6), literal()), 1..5),
        tail in prop::collection::vec(context(), 0..4),
    ) {
        let mut sql = String::new();
        for (before, literal) in parts {
            sql.extend(before);
            // Directly after a letter, a prefix would be part of the word.
            sql.push(' ');
            sql.push_str(&literal);
        }
        sql.extend(tail);
        let redacted = redact(&sql);
        prop_assert!(!redacted.contains(SECRET), "{sql} -> {redacted}");
        prop_assert!(!interpret(&sql).redacted.contains(SECRET));
        let args = mask_command_line(&["psql".into(), "-c".into(), sql.clone()]);
        prop_assert!(!args.concat().contains(SECRET), "{args:?}");
        for range in split(&sql) {
            prop_assert!(!redact(&sql[range]).contains(SECRET), "{sql}");
        }
    }

    #[test]
    fn arbitrary_text_is_survived(text in any::<String>()) {
        fuzz_sql(text.as_bytes());
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_sql(&bytes);
    }

    #[test]
    fn near_sql_is_survived(
        parts in prop::collection::vec(
            prop_oneof![context(), literal(), "['\"$\\\\eE\\-/*;?= a1\n]{1,6}",
                "(CREATE|ALTER|ROLE|USER|PASSWORD|SET|DROP|GRANT|ON|TO|AS|WITH|INSERT|INTO|VALUES|BEGIN|ATOMIC|END) "],
            0..14),
    ) {
        fuzz_sql(parts.concat().as_bytes());
    }

    #[test]
    fn fingerprint_sees_no_values(
        a in prop::sample::select(vec!["'x'", "5", "-1.5", "$1", "E'\\n'", "$$y$$"]),
        b in prop::sample::select(vec!["'it''s'", "99", "0xF", "$2", "N'z'"]),
        space in prop::sample::select(vec![" ", "\n\t", "/* c */", " -- c\n"]),
        upper in any::<bool>(),
        more in 0..5_usize,
    ) {
        let base = "select a , b from t where c = 1 and d in ( 2 )";
        let list = std::iter::repeat_n(b, more + 1).collect::<Vec<_>>().join(",");
        let mut other: Vec<String> = base.split(' ').map(String::from).collect();
        if upper {
            other.iter_mut().for_each(|word| word.make_ascii_uppercase());
        }
        let other = other.join(space).replace('1', a).replace('2', &list);
        prop_assert_eq!(interpret(base).fingerprint, interpret(&other).fingerprint, "{}", other);
    }

    #[test]
    fn text_without_secrets_is_kept(parts in prop::collection::vec(prop_oneof![context(), literal()], 0..12)) {
        let sql = parts.concat();
        prop_assert_eq!(mask_secrets(&sql), sql);
    }
}
