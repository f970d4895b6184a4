//! What is recorded in full, whatever a policy says: what went wrong, what is privileged, what runs code that nobody sees, and
//! what is not understood well enough to be put together with others.
//!
//! Owns that list. Whose a statement is, and whether its objects are sensitive, is asked elsewhere.

use sql_meaning::{Class, ObjectRef};
use tap_core::{Outcome, Query, Statement};

/// Whether this execution is recorded in full because of how it went.
pub(crate) fn by_its_end(query: &Query) -> bool {
    query.outcome != Outcome::Ok
        || query.error.is_some()
        // Refers to another one by its place.
        || query.continues.is_some()
        || query.replication
        || query.function_oid.is_some()
        || !query.text_is_whole()
}

/// Whether all executions of this are, because of what it is.
pub(crate) fn by_its_text(statement: &Statement, source: Option<&Statement>) -> bool {
    let runs_another = matches!(statement.command.as_str(), "EXECUTE" | "FETCH" | "MOVE");
    let source_matters = match source {
        Some(source) => is_privileged(source),
        // Prepared out of sight.
        None => runs_another,
    };
    source_matters || is_privileged(statement)
}

/// What a statement touches, and what it runs by an SQL-level EXECUTE or FETCH.
pub(crate) fn objects<'a>(statement: &'a Statement, source: Option<&'a Statement>) -> Vec<&'a ObjectRef> {
    let source = source.into_iter().flat_map(|source| &source.objects);
    statement.objects.iter().chain(source).collect()
}

fn is_privileged(statement: &Statement) -> bool {
    let command = statement.command.as_str();
    match statement.class {
        Class::Read | Class::Write | Class::Misc | Class::MiscSet => {}
        Class::Role | Class::Ddl | Class::Function | Class::Unknown => return true,
    }
    // Functions that are not the server's own, and blocks of code.
    if statement.effect.unseen {
        return true;
    }
    if !statement.parsed && !NAMES_NOTHING.contains(&command) || COMMANDS.contains(&command) {
        return true;
    }
    let text = &*statement.redacted;
    // To and from a file or a program of the server.
    if command == "COPY" && !words(text).any(|word| word == "stdin" || word == "stdout") {
        return true;
    }
    let is_setting = statement.class == Class::MiscSet;
    let listed = |word: &str| {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| word.starts_with(prefix));
        WORDS.contains(&word)
            || begins(&PREFIXES)
            || is_setting && (SETTINGS.contains(&word) || begins(&SETTING_PREFIXES))
    };
    // Quoted names are looked at as others are; a name in Unicode escapes may be any.
    words(text).any(|word| listed(&word)) || text.to_ascii_lowercase().contains("u&\"")
}

/// Words and names, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    text.split(move |c: char| !is_part(c))
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
}

/// Commands that touch no object: nothing of them is missed where the parser knows them not.
const NAMES_NOTHING: [&str; 20] = [
    "BEGIN",
    "START TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "SET",
    "RESET",
    "SHOW",
    "SET CONSTRAINTS",
    "DISCARD ALL",
    "DISCARD PLANS",
    "DISCARD SEQUENCES",
    "DISCARD TEMP",
    "DEALLOCATE",
    "DEALLOCATE ALL",
    "CLOSE CURSOR",
    "CLOSE CURSOR ALL",
    "LISTEN",
    "UNLISTEN",
];

/// Commands of class MISC that take a superuser, or do what a bystander would want to know.
const COMMANDS: [&str; 6] = [
    "LOAD",
    "CHECKPOINT",
    "PREPARE TRANSACTION",
    "COMMIT PREPARED",
    "ROLLBACK PREPARED",
    "NOTIFY",
];

/// Functions that reach beyond the database, steer the server, or run a text; catalogs that hold secrets or say how the server is
/// guarded. The server's own only: any other function counts as code that nobody sees.
const WORDS: [&str; 35] = [
    // Files and programs (manual, "Generic File Access Functions", "Large Object" functions).
    "program",
    "lo_import",
    "lo_export",
    "pg_stat_file",
    "pg_current_logfile",
    "pg_relation_filepath",
    // Steering ("Server Signaling Functions", "Recovery Control Functions", "Backup Control Functions").
    "pg_cancel_backend",
    "pg_terminate_backend",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_log_backend_memory_contexts",
    "pg_switch_wal",
    "pg_create_restore_point",
    "pg_promote",
    "pg_start_backup",
    "pg_stop_backup",
    "set_config",
    "setseed",
    // Run a text that is a value.
    "query_to_xml",
    "query_to_xmlschema",
    "query_to_xml_and_xmlschema",
    "ts_stat",
    // Catalogs and views.
    "pg_authid",
    "pg_shadow",
    "pg_auth_members",
    "pg_user_mapping",
    "pg_user_mappings",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_file_settings",
    "pg_largeobject",
    "pg_statistic",
    "pg_subscription",
    "pg_db_role_setting",
    "pg_config",
];

/// The same by how they begin.
const PREFIXES: [&str; 17] = [
    "pg_read_",
    "pg_ls_",
    "pg_file_",
    "pg_backup_",
    "pg_wal_replay_",
    "pg_logical_",
    "pg_create_logical_",
    "pg_create_physical_",
    "pg_drop_replication_",
    "pg_copy_",
    "pg_replication_",
    "pg_sync_",
    "pg_import_system_",
    "dblink",
    "database_to_xml",
    "schema_to_xml",
    "table_to_xml",
];

/// Settings that change whose rights count, what is logged, or what is guarded; in SET and RESET.
const SETTINGS: [&str; 9] = [
    "role",
    "authorization",
    "session_authorization",
    "session_replication_role",
    "row_security",
    "zero_damaged_pages",
    "ignore_system_indexes",
    "allow_system_table_mods",
    "lo_compat_privileges",
];

/// The same by how they begin.
const SETTING_PREFIXES: [&str; 4] = ["log_", "pgaudit", "session_preload_", "local_preload_"];
