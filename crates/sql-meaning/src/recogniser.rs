//! The command, its class and the objects of utility statements, from the first words of a statement.
//!
//! Utility statements have a regular form: verb, object type, name. Reading it from tokens gives the same
//! answer whether or not a parser accepts the rest. Refuses to descend into queries: `objects` does.

use crate::Access;
use crate::class::{Class, class_of_command};
use crate::definition::{definition, object_type};
use crate::objects::{Found, MAX_COLUMNS};
use crate::phrase::Phrase;

/// Levels of statements inside statements (`EXPLAIN ANALYZE PREPARE …`): the grammar has two.
const MAX_INNER: usize = 3;

/// Names of one list that are read. Of most kinds no more than [`crate::MAX_OBJECTS`] are kept, and each is looked for
/// among these: this bounds the time.
const MAX_NAMES: usize = 4_096;

#[derive(Debug)]
pub(crate) struct Recognised {
    pub(crate) command: String,
    pub(crate) class: Class,
}

/// Reads one statement and adds the objects that its own words name.
pub(crate) fn recognise(phrase: Phrase<'_>, found: &mut Found) -> Recognised {
    inner(phrase, found, MAX_INNER)
}

fn inner(phrase: Phrase<'_>, found: &mut Found, levels: usize) -> Recognised {
    let opening = (0..phrase.len()).take_while(|&at| phrase.symbol(at, "(")).count();
    let p = phrase.from(opening);
    let verb = p.word(0).to_ascii_uppercase();
    let named = |command: &str| Recognised {
        command: command.into(),
        class: class_of_command(command),
    };
    match verb.as_str() {
        "TABLE" => named("SELECT"),
        "SELECT" | "VALUES" | "WITH" => query(p, found),
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" => named(&verb),
        "TRUNCATE" => {
            let at = 1 + usize::from(p.is(1, "TABLE"));
            names(
                p,
                at,
                &["RESTART", "CONTINUE", "CASCADE", "RESTRICT"],
                "table",
                Access::Write,
                found,
            );
            named("TRUNCATE TABLE")
        }
        "COPY" => copy(p, found),
        "CALL" => {
            name(p, 1, "function", Access::Execute, found);
            named("CALL")
        }
        "EXECUTE" => {
            name(p, 1, "statement", Access::Execute, found);
            named("EXECUTE")
        }
        "EXPLAIN" if levels > 0 => explain(p, found, levels),
        "PREPARE" if p.is(1, "TRANSACTION") => named("PREPARE TRANSACTION"),
        "PREPARE" => {
            let body = p.find(1, &["AS"]).map(|at| p.from(at + 1)).filter(|_| levels > 0);
            let class = body.map_or(Class::Unknown, |body| inner(body, found, levels - 1).class);
            // pgAudit sorts PREPARE with the statement that it prepares.
            Recognised { command: verb, class }
        }
        "DECLARE" => named("DECLARE CURSOR"),
        "CLOSE" => named(if p.is(1, "ALL") {
            "CLOSE CURSOR ALL"
        } else {
            "CLOSE CURSOR"
        }),
        "DEALLOCATE" => {
            let at = 1 + usize::from(p.is(1, "PREPARE"));
            named(if p.is(at, "ALL") {
                "DEALLOCATE ALL"
            } else {
                "DEALLOCATE"
            })
        }
        "START" if p.is(1, "TRANSACTION") => named("START TRANSACTION"),
        "COMMIT" | "ROLLBACK" if p.is(1, "PREPARED") => named(&format!("{verb} PREPARED")),
        "END" => named("COMMIT"),
        "ABORT" => named("ROLLBACK"),
        "SET" if p.is(1, "CONSTRAINTS") => named("SET CONSTRAINTS"),
        "DISCARD" if p.is(1, "TEMPORARY") => named("DISCARD TEMP"),
        "DISCARD" => named(&format!("DISCARD {}", p.word(1).to_ascii_uppercase())),
        "ANALYSE" | "ANALYZE" | "VACUUM" => {
            maintained(p, found);
            named(if verb == "VACUUM" { "VACUUM" } else { "ANALYZE" })
        }
        "CLUSTER" => {
            maintained(p, found);
            named("CLUSTER")
        }
        "REINDEX" => {
            reindex(p, found);
            named("REINDEX")
        }
        "LOCK" => {
            let at = 1 + usize::from(p.is(1, "TABLE"));
            names(p, at, &["IN", "NOWAIT"], "table", Access::Read, found);
            named("LOCK TABLE")
        }
        "REFRESH" => {
            let at = 3 + usize::from(p.is(3, "CONCURRENTLY"));
            name(p, at, "materialized view", Access::Ddl, found);
            named("REFRESH MATERIALIZED VIEW")
        }
        "IMPORT" => {
            if let Some(from) = p.find(3, &["FROM"]).filter(|&at| p.is(at + 1, "SERVER")) {
                let server = name(p, from + 2, "server", Access::Ddl, found);
                if p.is(server, "INTO") {
                    name(p, server + 1, "schema", Access::Ddl, found);
                }
            }
            named("IMPORT FOREIGN SCHEMA")
        }
        "REASSIGN" => {
            names(p, 3, &["TO"], "role", Access::Ddl, found);
            if let Some(to) = p.find(3, &["TO"]) {
                name(p, to + 1, "role", Access::Ddl, found);
            }
            named("REASSIGN OWNED")
        }
        "GRANT" | "REVOKE" => privileges(p, &verb, found),
        "CREATE" | "ALTER" | "DROP" => definition(p, &verb, found),
        "COMMENT" => {
            commented(p, 2, found);
            named("COMMENT")
        }
        "SECURITY" => {
            if let Some(on) = p.find(2, &["ON"]) {
                commented(p, on + 1, found);
            }
            named("SECURITY LABEL")
        }
        _ => match class_of_command(&verb) {
            Class::Unknown => Recognised {
                command: String::new(),
                class: Class::Unknown,
            },
            class => Recognised { command: verb, class },
        },
    }
}

/// `SELECT`, `VALUES`, `TABLE`, and what a `WITH` leads to. The class is WRITE also when only a
/// common table expression writes: pgAudit's relation lines (`log_relation`) say so then.
fn query(p: Phrase<'_>, found: &mut Found) -> Recognised {
    let main = ["SELECT", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE"];
    let at = if p.is(0, "WITH") {
        p.find(1, &main).unwrap_or(0)
    } else {
        0
    };
    let command = match p.word(at).to_ascii_uppercase() {
        verb if matches!(verb.as_str(), "INSERT" | "UPDATE" | "DELETE" | "MERGE") => verb,
        _ => match p.find(at, &["INTO"]) {
            Some(mut into) => {
                while p.any(
                    into + 1,
                    &["TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "UNLOGGED", "TABLE"],
                ) {
                    into += 1;
                }
                name(p, into + 1, "table", Access::Ddl, found);
                "SELECT INTO".into()
            }
            None => "SELECT".into(),
        },
    };
    let writes = p.is(0, "WITH")
        && (1..at).any(|at| {
            p.symbol(at, "(")
                && p.any(at + 1, &["INSERT", "UPDATE", "DELETE", "MERGE"])
                && p.any(at - 1, &["AS", "MATERIALIZED"])
        });
    let class = if writes {
        Class::Write
    } else {
        class_of_command(&command)
    };
    Recognised { command, class }
}

fn copy(p: Phrase<'_>, found: &mut Found) -> Recognised {
    let at = 1 + usize::from(p.is(1, "BINARY"));
    let query = p.symbol(at, "(");
    let direction = p.find(at, &["FROM", "TO"]);
    let (class, access) = match direction {
        Some(at) if p.is(at, "FROM") => (Class::Write, Access::Write),
        // A query that writes, too, is more than read.
        Some(_) if query && inner(p.from(at), found, 0).class == Class::Write => (Class::Write, Access::Read),
        Some(_) => (Class::Read, Access::Read),
        None => (Class::Unknown, Access::Read),
    };
    if !query && let Some((parts, next)) = p.name(at) {
        let columns = if p.symbol(next, "(") {
            identifiers(p, next)
        } else {
            Vec::new()
        };
        found.add(parts, "table", access, columns);
    }
    Recognised {
        command: "COPY".into(),
        class,
    }
}

/// The plain list of identifiers in the bracket at `open`.
pub(crate) fn identifiers(p: Phrase<'_>, open: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = open + 1;
    while found.len() < MAX_COLUMNS
        && let Some(column) = p.identifier(at)
    {
        found.push(column);
        if !p.symbol(at + 1, ",") {
            break;
        }
        at += 2;
    }
    found
}

/// MISC, but with ANALYZE the statement runs, and its class counts if it changes something.
fn explain(p: Phrase<'_>, found: &mut Found, levels: usize) -> Recognised {
    let mut at = 1;
    let mut runs = false;
    if p.symbol(1, "(") && !p.any(2, &["SELECT", "WITH", "VALUES", "TABLE"]) && !p.symbol(2, "(") {
        let end = p.after_bracket(1);
        // `ANALYZE 0` counts as running: a class must not hang on a literal.
        let off = |at| p.any(at, &["FALSE", "OFF"]);
        runs = (2..end).any(|at| p.any(at, &["ANALYZE", "ANALYSE"]) && !off(at + 1));
        at = end;
    }
    while p.any(at, &["ANALYZE", "ANALYSE", "VERBOSE"]) {
        runs |= !p.is(at, "VERBOSE");
        at += 1;
    }
    let explained = inner(p.from(at), found, levels - 1);
    let changes = runs && matches!(explained.class, Class::Write | Class::Ddl);
    let class = if changes { explained.class } else { Class::Misc };
    Recognised {
        command: "EXPLAIN".into(),
        class,
    }
}

/// `VACUUM`, `ANALYZE` and `CLUSTER`: options, then tables, perhaps with columns.
fn maintained(p: Phrase<'_>, found: &mut Found) {
    let mut at = if p.symbol(1, "(") { p.after_bracket(1) } else { 1 };
    while p.any(
        at,
        &["FULL", "FREEZE", "VERBOSE", "ANALYZE", "ANALYSE", "SKIP_LOCKED"],
    ) {
        at += 1;
    }
    names(p, at, &["USING", "ON"], "table", Access::Ddl, found);
}

fn reindex(p: Phrase<'_>, found: &mut Found) {
    let at = if p.symbol(1, "(") { p.after_bracket(1) } else { 1 };
    let kind = match p.word(at).to_ascii_uppercase().as_str() {
        "TABLE" => "table",
        "INDEX" => "index",
        "SCHEMA" => "schema",
        "DATABASE" | "SYSTEM" => "database",
        _ => return,
    };
    name(
        p,
        at + 1 + usize::from(p.is(at + 1, "CONCURRENTLY")),
        kind,
        Access::Ddl,
        found,
    );
}

fn privileges(p: Phrase<'_>, verb: &str, found: &mut Found) -> Recognised {
    let word = if verb == "GRANT" { "TO" } else { "FROM" };
    let on = p.find(1, &["ON"]);
    let to = p.find(on.unwrap_or(1), &[word]);
    let stop = ["WITH", "GRANTED", "CASCADE", "RESTRICT", word];
    if let Some(on) = on {
        let (kind, mut at) = object_type(p, on + 1);
        if p.is(on + 1, "ALL") && p.is(on + 3, "IN") {
            names(p, on + 5, &stop, "schema", Access::Ddl, found);
        } else {
            at += usize::from(p.is(at, "OBJECT") && kind == "large object");
            names(
                p,
                at,
                &stop,
                if kind.is_empty() { "table" } else { kind },
                Access::Ddl,
                found,
            );
        }
    } else {
        // `ADMIN OPTION FOR`, and its like since version 16.
        let option = if p.is(2, "OPTION") && p.is(3, "FOR") { 3 } else { 0 };
        names(p, 1 + option, &stop, "role", Access::Ddl, found);
    }
    if let Some(to) = to {
        let at = to + 1 + usize::from(p.is(to + 1, "GROUP"));
        names(p, at, &stop, "role", Access::Ddl, found);
    }
    let command = if on.is_some() {
        verb.to_owned()
    } else {
        format!("{verb} ROLE")
    };
    Recognised {
        command,
        class: Class::Role,
    }
}

/// `<type> <name>` after `COMMENT ON` or `SECURITY LABEL … ON`.
fn commented(p: Phrase<'_>, at: usize, found: &mut Found) {
    if p.is(at, "COLUMN") {
        if let Some((mut parts, _)) = p.name(at + 1) {
            let column = parts.pop().into_iter().collect();
            found.add(parts, "table", Access::Ddl, column);
        }
        return;
    }
    let (kind, next) = object_type(p, at);
    let end = name(p, next, kind, Access::Ddl, found);
    if matches!(kind, "constraint" | "trigger" | "rule" | "policy") && p.is(end, "ON") {
        name(p, end + 1, "table", Access::Ddl, found);
    }
}

/// Adds the name at `at`; answers the index after it.
pub(crate) fn name(p: Phrase<'_>, at: usize, kind: &'static str, access: Access, found: &mut Found) -> usize {
    match p.name(at) {
        Some((parts, next)) => {
            found.add(parts, kind, access, Vec::new());
            next
        }
        None => at,
    }
}

/// Adds a list of names, each perhaps with `ONLY` before it and arguments or columns in brackets after it.
pub(crate) fn names(
    p: Phrase<'_>,
    mut at: usize,
    stop: &[&str],
    kind: &'static str,
    access: Access,
    found: &mut Found,
) {
    for _ in 0..MAX_NAMES {
        at += usize::from(p.is(at, "ONLY"));
        if p.any(at, stop) {
            return;
        }
        let Some((parts, mut next)) = p.name(at) else {
            return;
        };
        let columns = if kind == "table" && p.symbol(next, "(") {
            identifiers(p, next)
        } else {
            Vec::new()
        };
        found.add(parts, kind, access, columns);
        if p.symbol(next, "(") {
            next = p.after_bracket(next);
        }
        next += usize::from(p.symbol(next, "*"));
        if !p.symbol(next, ",") {
            return;
        }
        at = next + 1;
    }
}
