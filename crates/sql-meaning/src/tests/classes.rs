//! All kinds of statements: the reviewed corpus, the grammar, and command tags.

use super::*;

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
