//! Tables of a query that no parser accepted, as far as its words name them.
//!
//! Best effort by design and marked `parsed: false` by the caller. Separate so that it can be read
//! as what it is.

use std::collections::HashSet;

use crate::Access;
use crate::changes::is_set_config;
use crate::functions::is_built_in;
use crate::lexer::Kind;
use crate::objects::Found;
use crate::phrase::Phrase;
use crate::recogniser::identifiers;

/// Adds the tables of `TABLE t`, wherever a query may stand. `sqlparser` loses whether the name was quoted.
pub(crate) fn table_commands(p: Phrase<'_>, found: &mut Found) {
    // The word is reserved, so that in a query it is this command, or names what the query makes.
    let made = |at: usize| at > 0 && p.any(at - 1, &BEFORE_MADE_TABLE);
    let commands = (0..p.len()).filter(|&at| p.is(at, "TABLE") && !made(at));
    let commands: Vec<_> = commands.collect();
    if commands.is_empty() {
        return;
    }
    let defined = common_tables(p);
    for at in commands {
        let named = p.name(at + 1 + usize::from(p.is(at + 1, "ONLY")));
        let common = |parts: &Vec<String>| matches!(parts.as_slice(), [name] if defined.contains(name));
        if let Some((parts, _)) = named.filter(|(parts, _)| !common(parts)) {
            found.add(parts, "table", Access::Read, Vec::new());
        }
    }
}

/// What `TABLE` follows in `SELECT … INTO TABLE t`, and where a table is created from a query.
const BEFORE_MADE_TABLE: [&str; 9] = [
    "INTO",
    "CREATE",
    "TEMP",
    "TEMPORARY",
    "LOCAL",
    "GLOBAL",
    "UNLOGGED",
    "FOREIGN",
    "ON",
];

/// Adds targets of writes, and names after `FROM`, `JOIN` and `USING` that are neither functions nor common
/// table expressions.
pub(crate) fn query_tables(p: Phrase<'_>, found: &mut Found) {
    let defined = common_tables(p);
    // In a query `USING` comes before columns, operators, access methods, the path of a CYCLE.
    let joins_by_using = p.any(0, &["MERGE", "DELETE"])
        || (0..p.len()).any(|at| p.all(at, &["MERGE", "INTO"]) || p.all(at, &["DELETE", "FROM"]));
    // Whether each open bracket belongs to a function: `extract(year FROM d)` names no table.
    let mut arguments = Vec::new();
    for at in 0..p.len() {
        if p.symbol(at, "(") {
            let called = at > 0 && p.kind(at - 1) == Some(Kind::Word) && !p.any(at - 1, &BEFORE_QUERY);
            arguments.push(called && !p.any(at + 1, &["SELECT", "WITH"]));
        } else if p.symbol(at, ")") {
            arguments.pop();
        }
        let only = usize::from(p.is(at + 1, "ONLY"));
        if p.any(at, &["INSERT", "MERGE"]) && p.is(at + 1, "INTO") {
            if let Some((parts, next)) = p.name(at + 2 + usize::from(p.is(at + 2, "ONLY"))) {
                let columns = if p.symbol(next, "(") && !p.is(next + 1, "SELECT") {
                    identifiers(p, next)
                } else {
                    Vec::new()
                };
                found.add(parts, "table", Access::Write, columns);
            }
        } else if p.is(at, "UPDATE") && !p.any(at.wrapping_sub(1), &["FOR", "KEY", "DO", "ON", "OR"]) {
            if let Some((parts, _)) = p.name(at + 1 + only).filter(|_| !p.is(at + 1, "SET")) {
                found.add(parts, "table", Access::Write, Vec::new());
            }
        } else if p.all(at, &["DELETE", "FROM"]) {
            if let Some((parts, _)) = p.name(at + 2 + usize::from(p.is(at + 2, "ONLY"))) {
                found.add(parts, "table", Access::Write, Vec::new());
            }
        } else if (p.any(at, &["FROM", "JOIN"]) || (joins_by_using && p.is(at, "USING")))
            && !p.any(at.wrapping_sub(1), &["DELETE", "DISTINCT"])
            && arguments.last() != Some(&true)
        {
            sources(p, at + 1, &defined, found);
        }
    }
}

/// Notes names that are followed by a bracket and may be functions which are not the server's own. Errs on the side of
/// yes.
pub(crate) fn calls(p: Phrase<'_>, found: &mut Found) {
    let defined = common_tables(p);
    for open in (1..p.len()).filter(|&at| p.symbol(at, "(")) {
        let at = open - 1;
        let Some(name) = p.identifier(at).filter(|_| !p.any(at, &BEFORE_BRACKET)) else {
            continue;
        };
        let qualified = at >= 2 && p.symbol(at - 1, ".");
        let schema = qualified.then(|| p.identifier(at - 2)).flatten();
        let before = if qualified {
            at.wrapping_sub(3)
        } else {
            at.wrapping_sub(1)
        };
        if !p.any(before, &BEFORE_TABLE) && !is_built_in(schema.as_deref(), &name) && !is_set_config(p, at) {
            found.calls_unknown = true;
            // Behind a bracket it is an alias with columns: `(VALUES (1)) v(a)`; behind `::` a type.
            let common = schema.is_none() && defined.contains(&name);
            if !p.symbol(before, ")") && !p.symbol(before, ":") && !common {
                found.call(schema, name);
            }
        }
    }
}

/// Words that come before a table with columns in brackets.
const BEFORE_TABLE: [&str; 13] = [
    "CONFLICT",
    "EXISTS",
    "TABLESAMPLE",
    "VIEW",
    "EXECUTE",
    "INTO",
    "TABLE",
    "COPY",
    "AS",
    "WITH",
    "RECURSIVE",
    "ON",
    "REFERENCES",
];

/// Words that come before a bracket and are none of [`is_built_in`].
const BEFORE_BRACKET: [&str; 19] = [
    "ONLY",
    "INSERT",
    "USING",
    "ON",
    "WHERE",
    "WHEN",
    "JOIN",
    "WITH",
    "SET",
    "CHECK",
    "KEY",
    "LIKE",
    "RETURNING",
    "MATERIALIZED",
    "WINDOW",
    "CONFLICT",
    "EXPLAIN",
    "COPY",
    "TO",
];

/// Words that a bracket follows without being a call.
const BEFORE_QUERY: [&str; 16] = [
    "FROM",
    "JOIN",
    "IN",
    "AS",
    "EXISTS",
    "ANY",
    "SOME",
    "ALL",
    "LATERAL",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "MATERIALIZED",
    "SELECT",
    "WHERE",
    "AND",
];

/// Tokens of a common table expression's column list that are looked back over.
const MAX_COLUMN_LIST: usize = 256;

/// A comma-separated list of tables with optional aliases.
fn sources(p: Phrase<'_>, mut at: usize, defined: &HashSet<String>, found: &mut Found) {
    loop {
        if p.is(at, "ONLY") {
            at += 1 + usize::from(p.symbol(at + 1, "("));
        }
        if p.any(at, &["LATERAL", "SELECT", "ROWS", "CURRENT"]) {
            return;
        }
        let Some((parts, mut next)) = p.name(at) else {
            return;
        };
        if p.symbol(next, "(") {
            return;
        }
        let common = parts.len() == 1 && parts.iter().any(|part| defined.contains(part));
        if !common {
            found.add(parts, "table", Access::Read, Vec::new());
        }
        next += usize::from(p.is(next, "AS"));
        if !p.symbol(next, ",") {
            next += 1;
        }
        if !p.symbol(next, ",") {
            return;
        }
        at = next + 1;
    }
}

/// Names before `AS (` in a statement that has a `WITH`.
fn common_tables(p: Phrase<'_>) -> HashSet<String> {
    if !(0..p.len()).any(|at| p.is(at, "WITH")) {
        return HashSet::new();
    }
    let opens = |at| p.symbol(at, "(") || p.any(at, &["MATERIALIZED", "NOT"]);
    (1..p.len())
        .filter(|&at| p.is(at, "AS") && opens(at + 1))
        .filter_map(|at| {
            // A column list may stand between the name and AS.
            let open = if p.symbol(at - 1, ")") {
                (0..at)
                    .rev()
                    .take(MAX_COLUMN_LIST)
                    .find(|&open| p.symbol(open, "("))?
            } else {
                at
            };
            p.identifier(open.checked_sub(1)?)
        })
        .collect()
}
