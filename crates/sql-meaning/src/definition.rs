//! `CREATE`, `ALTER` and `DROP`: the object type, its tag, and the names.
//!
//! Owns the table of object types, which is closed and regular. Separate from the other commands because
//! it is the long tail that parsers miss.

use crate::Access;
use crate::class::class_of_command;
use crate::objects::Found;
use crate::phrase::Phrase;
use crate::recogniser::{Recognised, name, names};

/// Object types of the grammar, longest first where one begins another, with the kind they are reported as.
const TYPES: [(&[&str], &str); 42] = [
    (&["ACCESS", "METHOD"], "access method"),
    (&["AGGREGATE"], "aggregate"),
    (&["CAST"], "cast"),
    (&["COLLATION"], "collation"),
    (&["CONSTRAINT"], "constraint"),
    (&["CONVERSION"], "conversion"),
    (&["DATABASE"], "database"),
    (&["DOMAIN"], "domain"),
    (&["EVENT", "TRIGGER"], "event trigger"),
    (&["EXTENSION"], "extension"),
    (&["FOREIGN", "DATA", "WRAPPER"], "foreign-data wrapper"),
    (&["FOREIGN", "SERVER"], "server"),
    (&["FOREIGN", "TABLE"], "foreign table"),
    (&["FUNCTION"], "function"),
    (&["GROUP"], "role"),
    (&["INDEX"], "index"),
    (&["LANGUAGE"], "language"),
    (&["LARGE", "OBJECT"], "large object"),
    (&["MATERIALIZED", "VIEW"], "materialized view"),
    (&["OPERATOR", "CLASS"], "operator class"),
    (&["OPERATOR", "FAMILY"], "operator family"),
    (&["OPERATOR"], "operator"),
    (&["PARAMETER"], "parameter"),
    (&["POLICY"], "policy"),
    (&["PROCEDURE"], "procedure"),
    (&["PUBLICATION"], "publication"),
    (&["ROLE"], "role"),
    (&["ROUTINE"], "routine"),
    (&["RULE"], "rule"),
    (&["SCHEMA"], "schema"),
    (&["SEQUENCE"], "sequence"),
    (&["SERVER"], "server"),
    (&["STATISTICS"], "statistics"),
    (&["SUBSCRIPTION"], "subscription"),
    (&["TABLE"], "table"),
    (&["TABLESPACE"], "tablespace"),
    (&["TRANSFORM"], "transform"),
    (&["TRIGGER"], "trigger"),
    (&["TYPE"], "type"),
    (&["USER", "MAPPING"], "user mapping"),
    (&["USER"], "role"),
    (&["VIEW"], "view"),
];

/// Words that may stand between verb and type.
const MODIFIERS: [&str; 12] = [
    "OR",
    "REPLACE",
    "TEMP",
    "TEMPORARY",
    "GLOBAL",
    "LOCAL",
    "UNLOGGED",
    "UNIQUE",
    "RECURSIVE",
    "TRUSTED",
    "PROCEDURAL",
    "DEFAULT",
];

/// The kind of the object type at `at` (`""` if none is there) and the index after it.
pub(crate) fn object_type(p: Phrase<'_>, at: usize) -> (&'static str, usize) {
    if p.all(at, &["TEXT", "SEARCH"]) {
        return ("text search", at + 3);
    }
    let found = TYPES.iter().find(|(words, _)| p.all(at, words));
    found.map_or(("", at), |(words, kind)| (kind, at + words.len()))
}

/// `CREATE`, `ALTER` or `DROP` with whatever follows.
pub(crate) fn definition(p: Phrase<'_>, verb: &str, found: &mut Found) -> Recognised {
    let named = |object: &str| {
        let command = format!("{verb} {object}");
        let class = class_of_command(&command);
        Recognised { command, class }
    };
    if p.is(1, "SYSTEM") {
        return named("SYSTEM");
    }
    if p.all(1, &["DEFAULT", "PRIVILEGES"]) {
        default_privileges(p, found);
        return named("DEFAULT PRIVILEGES");
    }
    if p.is(1, "OWNED") {
        names(p, 3, &["CASCADE", "RESTRICT"], "role", Access::Ddl, found);
        return named("OWNED");
    }
    let mut at = 1;
    // A constraint trigger has a type of its own in the table.
    while p.any(at, &MODIFIERS) || p.all(at, &["CONSTRAINT", "TRIGGER"]) {
        at += 1;
    }
    let start = at;
    let (kind, next) = object_type(p, at);
    if kind.is_empty() {
        return Recognised {
            command: verb.to_owned(),
            class: class_of_command(&format!("{verb} ?")),
        };
    }
    at = next;
    at += usize::from(p.is(at, "CONCURRENTLY"));
    if p.is(at, "IF") {
        at += if p.is(at + 1, "NOT") { 3 } else { 2 };
    }
    at += usize::from(p.is(at, "ONLY"));
    match kind {
        "cast" | "transform" => {}
        "user mapping" => {
            if let Some(server) = p.find(at, &["SERVER"]) {
                name(p, server + 1, "server", Access::Ddl, found);
            }
        }
        "operator" | "large object" => {}
        "schema" if p.is(at, "AUTHORIZATION") => {
            // Without a name of its own it gets the role's.
            if verb == "CREATE" && !p.any(at + 1, &["CURRENT_ROLE", "CURRENT_USER", "SESSION_USER"]) {
                name(p, at + 1, kind, Access::Ddl, found);
            }
        }
        "index" | "statistics" if p.is(at, "ON") => {}
        "table" | "index" | "materialized view" if p.is(at, "ALL") && p.is(at + 1, "IN") => {}
        _ if verb == "DROP" => {
            names(
                p,
                at,
                &["CASCADE", "RESTRICT", "ON", "USING"],
                kind,
                Access::Ddl,
                found,
            );
        }
        _ => {
            name(p, at, kind, Access::Ddl, found);
        }
    }
    related(p, at, kind, verb, found);
    if verb == "ALTER"
        && !matches!(
            kind,
            "operator" | "cast" | "transform" | "large object" | "user mapping"
        )
    {
        becomes(p, at, kind, found);
    } else if verb == "CREATE" && kind == "schema" {
        elements(p, at, found);
    }
    let created_as = verb == "CREATE" && kind == "table" && p.find(at, &["AS"]).is_some();
    match kind {
        "role" => named("ROLE"),
        "table" if created_as => named("TABLE AS"),
        _ => {
            let words: Vec<_> = (start..next).map(|at| p.word(at).to_ascii_uppercase()).collect();
            named(&words.join(" "))
        }
    }
}

/// The schemas that new objects are in, whose they are, and who is given what.
fn default_privileges(p: Phrase<'_>, found: &mut Found) {
    let action = ["GRANT", "REVOKE"];
    let end = p.find(3, &action).unwrap_or(p.len());
    for at in 3..end {
        if p.any(at, &["ROLE", "USER"]) && p.is(at - 1, "FOR") {
            names(p, at + 1, &["IN", "GRANT", "REVOKE"], "role", Access::Ddl, found);
        } else if p.is(at, "SCHEMA") && p.is(at - 1, "IN") {
            names(
                p,
                at + 1,
                &["FOR", "GRANT", "REVOKE"],
                "schema",
                Access::Ddl,
                found,
            );
        }
    }
    let word = if p.is(end, "GRANT") { "TO" } else { "FROM" };
    if let Some(to) = p.find(end, &[word]) {
        let at = to + 1 + usize::from(p.is(to + 1, "GROUP"));
        names(
            p,
            at,
            &["WITH", "CASCADE", "RESTRICT"],
            "role",
            Access::Ddl,
            found,
        );
    }
}

/// The name that `RENAME TO` and `SET SCHEMA` give: the object is to be found under either. And the partition that a table
/// or index gets or loses.
fn becomes(p: Phrase<'_>, at: usize, kind: &'static str, found: &mut Found) {
    let Some((mut parts, next)) = p.name(at) else {
        return;
    };
    if p.any(next, &["ATTACH", "DETACH"]) && p.is(next + 1, "PARTITION") {
        name(p, next + 2, kind, Access::Ddl, found);
    }
    let renamed = p.find(at, &["RENAME"]).filter(|&at| p.is(at + 1, "TO"));
    if let Some(new) = renamed.and_then(|at| p.identifier(at + 2)) {
        parts.pop();
        parts.push(new);
        found.add(parts, kind, Access::Ddl, Vec::new());
        return;
    }
    let moved = p.find(at, &["SET"]).filter(|&at| p.is(at + 1, "SCHEMA"));
    if let Some(schema) = moved.and_then(|at| p.identifier(at + 2)) {
        let name = parts.pop().unwrap_or_default();
        found.add(vec![schema, name], kind, Access::Ddl, Vec::new());
    }
}

/// What is made in a schema by the statement that makes the schema.
fn elements(p: Phrase<'_>, mut at: usize, found: &mut Found) {
    while let Some(element) = p.find(at, &["CREATE"]) {
        let end = p.find(element + 1, &["CREATE", "GRANT"]).unwrap_or(p.len());
        let tokens = p.tokens.get(element..end).unwrap_or_default();
        definition(Phrase { sql: p.sql, tokens }, "CREATE", found);
        at = end;
    }
}

/// The table that an index, trigger, policy, rule or statistics object belongs to.
fn related(p: Phrase<'_>, at: usize, kind: &str, verb: &str, found: &mut Found) {
    let word = match (kind, verb) {
        ("index" | "policy", "CREATE") | ("trigger" | "policy" | "rule", "DROP" | "ALTER") => "ON",
        ("trigger", _) => "ON",
        ("rule", _) => "TO",
        ("statistics", "CREATE") => "FROM",
        _ => return,
    };
    if let Some(on) = p.find(at, &[word]) {
        name(
            p,
            on + 1 + usize::from(p.is(on + 1, "ONLY")),
            "table",
            Access::Ddl,
            found,
        );
    }
}
