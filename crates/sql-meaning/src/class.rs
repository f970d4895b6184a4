//! pgAudit's classes, and what the server's command tag says by itself.
//!
//! Owns the scheme: `GetCommandLogLevel` in PostgreSQL's `utility.c` sorts commands into read, change, DDL and
//! the rest, and `log_audit_event` in `pgaudit.c` names the classes. Refuses to look at
//! SQL text; the recogniser does.

/// A class of pgAudit's scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Neither text nor tag says.
    Unknown,
    /// `SELECT`, `COPY … TO`, `DECLARE CURSOR`, `PREPARE` of a query.
    Read,
    /// `INSERT`, `UPDATE`, `DELETE`, `MERGE`, `TRUNCATE`, `COPY … FROM`.
    Write,
    /// `DO` and `CALL`. (pgAudit logs the procedure of a `CALL` as FUNCTION beside a MISC line for
    /// the command; one class tells more than the other.)
    Function,
    /// `GRANT`, `REVOKE`, roles, default privileges, `CREATE` and `ALTER USER MAPPING`.
    Role,
    /// All other definitions; `CLUSTER`, `COMMENT`, `SELECT INTO` and `ALTER SYSTEM` among them.
    Ddl,
    /// `EXPLAIN`, `EXECUTE`, `VACUUM`, `REINDEX`, transactions, `SHOW` and the rest.
    Misc,
    /// `SET` and `RESET`, also of roles and transaction modes. pgAudit prints MISC for it but selects by this name.
    MiscSet,
}

impl Class {
    /// pgAudit's name: `READ`, `MISC_SET`; `UNKNOWN` is ours.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Unknown => "UNKNOWN",
            Class::Read => "READ",
            Class::Write => "WRITE",
            Class::Function => "FUNCTION",
            Class::Role => "ROLE",
            Class::Ddl => "DDL",
            Class::Misc => "MISC",
            Class::MiscSet => "MISC_SET",
        }
    }
}

/// The class that a command tag (`INSERT 0 1`, `CREATE TABLE`) proves.
///
/// `Unknown` where the tag decides nothing: `COPY` does not tell its direction and `PREPARE` not its statement.
/// A tag can know less than the text: `CREATE TABLE AS` and `SELECT INTO` answer `SELECT n`.
pub fn class_of_tag(tag: &str) -> Class {
    class_of_command(tag.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' '))
}

/// The number of rows that the command changed. Only tags of commands that change rows have one; `COPY n` has
/// none, since only the text tells its direction: use [`rows_in_tag`] when the class is `Write`.
pub fn rows_affected(tag: &str) -> Option<u64> {
    let command = tag.split(' ').next()?;
    matches!(command, "INSERT" | "UPDATE" | "DELETE" | "MERGE")
        .then(|| rows_in_tag(tag))
        .flatten()
}

/// The count at the end of a tag, whatever it counts: `SELECT 3`, `COPY 5`, `INSERT 0 1`.
pub fn rows_in_tag(tag: &str) -> Option<u64> {
    tag.rsplit_once(' ')?.1.parse().ok()
}

/// The class of a command as the server names it, without counts.
pub(crate) fn class_of_command(command: &str) -> Class {
    match command {
        "SELECT" | "DECLARE CURSOR" => return Class::Read,
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "TRUNCATE TABLE" => return Class::Write,
        "DO" | "CALL" => return Class::Function,
        "SET CONSTRAINTS" | "PREPARE TRANSACTION" => return Class::Misc,
        "SET" | "RESET" => return Class::MiscSet,
        "SELECT INTO"
        | "CLUSTER"
        | "COMMENT"
        | "SECURITY LABEL"
        | "REASSIGN OWNED"
        | "IMPORT FOREIGN SCHEMA"
        | "REFRESH MATERIALIZED VIEW" => return Class::Ddl,
        "CREATE USER MAPPING" | "ALTER USER MAPPING" | "ALTER DEFAULT PRIVILEGES" => return Class::Role,
        _ => {}
    }
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    match verb {
        "GRANT" | "REVOKE" => Class::Role,
        "CREATE" | "ALTER" | "DROP" if rest == "ROLE" => Class::Role,
        "CREATE" | "ALTER" | "DROP" if !rest.is_empty() => Class::Ddl,
        _ if MISC.contains(&verb) => Class::Misc,
        _ => Class::Unknown,
    }
}

/// First words of the MISC commands, the replication protocol's own among them.
const MISC: [&str; 33] = [
    "ALTER_REPLICATION_SLOT",
    "ANALYZE",
    "BASE_BACKUP",
    "BEGIN",
    "CHECKPOINT",
    "CLOSE",
    "COMMIT",
    "CREATE_REPLICATION_SLOT",
    "DEALLOCATE",
    "DISCARD",
    "DROP_REPLICATION_SLOT",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "IDENTIFY_SYSTEM",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MOVE",
    "NOTIFY",
    "READ_REPLICATION_SLOT",
    "REINDEX",
    "RELEASE",
    "ROLLBACK",
    "SAVEPOINT",
    "SHOW",
    "START",
    "START_REPLICATION",
    "START_STREAMING",
    "TIMELINE_HISTORY",
    "UNLISTEN",
    "UPLOAD_MANIFEST",
    "VACUUM",
];
