//! How an answer to `who` is told.
//!
//! Owns its words and their order: first who touched the record, then what cannot be excluded, then how far that goes.

use std::{io::Write, process::ExitCode};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::Asking;
use crate::{
    query::{print_table, printable},
    store::{page::Page, who::Answer},
};

/// Prints an answer to standard output.
pub(super) fn show(asking: &Asking, answer: &Answer, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let done = if as_json {
        writeln!(out, "{}", in_json(asking, answer))
    } else {
        print(&mut out, asking, answer)
    };
    match done {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        done => done.context("cannot print the answer")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn in_json(asking: &Asking, answer: &Answer) -> Value {
    let asked = &asking.asked;
    let touched = rows(&answer.touched).into_iter().map(|mut row| {
        let access = access(&row);
        row.insert("access".to_owned(), json!(access));
        Value::from(row)
    });
    let keys: Vec<Value> = asked
        .tokens
        .iter()
        .map(|sought| json!({ "key": sought.key, "family": sought.family }))
        .collect();
    json!({
        "object": asked.object,
        "column": asked.column,
        "since": time(asked.span.since_ns),
        "until": time(asked.span.until_ns),
        "looked_for": keys,
        "keys_missing": asking.missing_keys,
        "not_of_family": asking.unread,
        "touched": touched.collect::<Vec<_>>(),
        "touched_more": answer.more || answer.touched.truncated,
        "not_excluded": rows(&answer.not_excluded).into_iter().map(Value::from).collect::<Vec<_>>(),
        "not_excluded_more": answer.not_excluded.truncated,
        "not_counted": answer.not_counted,
        "gaps": answer.gaps,
        "opaque_sessions": answer.opaque_sessions,
        "left_out": answer.left_out,
        "moved": answer.moved,
        "removals": answer.removals,
        "first_event": answer.seen[0],
        "last_event": answer.seen[1],
        "complete": is_complete(asking, answer),
    })
}

/// Every statement that names the object told all that it touched, and nothing hides another one.
fn is_complete(asking: &Asking, answer: &Answer) -> bool {
    asking.missing_keys.is_empty()
        && asking.unread.is_empty()
        && answer.not_excluded.rows.is_empty()
        && answer.gaps == 0
        && answer.opaque_sessions == 0
        && answer.left_out == 0
        && answer.moved == 0
        && answer.removals == 0
        && !answer.more
        && !answer.not_counted
        && !answer.touched.truncated
}

fn print(out: &mut impl Write, asking: &Asking, answer: &Answer) -> std::io::Result<()> {
    let asked = &asking.asked;
    let [first, last] = answer
        .seen
        .each_ref()
        .map(|time| time.as_deref().unwrap_or("nothing"));
    let what = printable(&format!("{}, {}", asked.object, asked.column));
    writeln!(
        out,
        "Who touched this record of {what}, among events from {first} to {last}:\n"
    )?;
    let touched = touched(&answer.touched);
    if touched.rows.is_empty() {
        writeln!(out, "nobody that is known")?;
    } else {
        print_table(out, &touched)?;
    }
    if answer.more || answer.touched.truncated {
        writeln!(out, "and more: narrow the time with --since and --until")?;
    }
    let (on_object, elsewhere) = not_excluded(&answer.not_excluded);
    if !on_object.rows.is_empty() {
        writeln!(
            out,
            "\nNot excluded, because it is not known which records they touched:\n"
        )?;
        print_table(out, &on_object)?;
    }
    writeln!(out)?;
    for line in limits(asking, answer, &elsewhere) {
        writeln!(out, "{}", printable(&line))?;
    }
    Ok(())
}

/// Who touched the record, as people read it.
pub(crate) fn touched(found: &Page) -> Page {
    let mut shown = table(
        &rows(found),
        TOUCHED,
        &[("access", &access_of), ("known", &sureness)],
    );
    shown.truncated = found.truncated;
    shown
}

/// What is not excluded on the object, as people read it, and the rows of what is elsewhere.
pub(crate) fn not_excluded(found: &Page) -> (Page, Vec<Map<String, Value>>) {
    let (on_object, elsewhere): (Vec<_>, Vec<_>) = rows(found)
        .into_iter()
        .partition(|row| row.get("on_object") == Some(&Value::Bool(true)));
    let mut shown = table(&on_object, NOT_EXCLUDED, &[]);
    shown.truncated = found.truncated;
    (shown, elsewhere)
}

/// How far the answer goes, in sentences.
pub(crate) fn limits(asking: &Asking, answer: &Answer, elsewhere: &[Map<String, Value>]) -> Vec<String> {
    let mut lines = Vec::new();
    if !asking.missing_keys.is_empty() {
        lines.push(format!(
            "Not looked for under the keys {}, which the key file does not have.",
            asking.missing_keys.join(", ")
        ));
    }
    for family in &asking.unread {
        lines.push(format!(
            "Not looked for among values of type {family}: the value given is none, or not surely one."
        ));
    }
    for (because, statements) in counted(elsewhere) {
        lines.push(format!(
            "Of {statements} statements it is not known whether they have to do with it: {because}."
        ));
    }
    if answer.gaps + answer.opaque_sessions > 0 {
        lines.push(format!(
            "Not everything was seen: {} gaps, {} sessions that could not be read (query \"SELECT * FROM gaps\").",
            answer.gaps, answer.opaque_sessions
        ));
    }
    if answer.left_out > 0 {
        lines.push("A volume policy left statements out: nothing but their number is kept.".to_owned());
    }
    if answer.moved > 0 {
        lines.push(
            "Agents have delivered to other collectors, too: what they told there is not in this answer. Ask there as well."
                .to_owned(),
        );
    }
    if answer.removals > 0 {
        lines.push(
            "Events were erased, or removed for their age: whose records they touched is not known any more (query \"SELECT event FROM events WHERE \
             kind IN ('erasure', 'retention')\")."
                .to_owned(),
        );
    }
    if answer.not_counted {
        lines.push(
            "Which other statements are not excluded was not counted: there are too many for the time that a question may take. Narrow it (--since, \
             --until), or ask a copy of the collector's folder (--data)."
                .to_owned(),
        );
    }
    if answer.not_excluded.truncated {
        lines.push("There are more that are not excluded.".to_owned());
    }
    lines.push(if is_complete(asking, answer) {
        "Every other statement of that time that was seen is known to have touched other records, or other objects.".to_owned()
    } else {
        "So it is not excluded that somebody else touched it.".to_owned()
    });
    lines.push("What views, triggers and functions did inside the server is not seen.".to_owned());
    lines
}

/// Statements by reason, in the order of the answer.
fn counted(rows: &[Map<String, Value>]) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    for row in rows {
        let because = text(row, "because");
        let statements = row.get("statements").and_then(Value::as_u64).unwrap_or_default();
        match counts.iter_mut().find(|(known, _)| *known == because) {
            Some((_, count)) => *count += statements,
            None => counts.push((because, statements)),
        }
    }
    counts
}

/// What was done with the record: a value that was bound or inserted was written, a row that came back was read; one that a
/// condition names was named, and what became of it the row counts tell.
fn access(row: &Map<String, Value>) -> Vec<&'static str> {
    let sources = text(row, "sources");
    let has = |source: &str| sources.split(", ").any(|one| one == source);
    let mut access = Vec::new();
    if has("written") {
        access.push("written");
    }
    if has("returned") {
        access.push("read");
    }
    if access.is_empty() {
        access.push(if text(row, "class") == "WRITE" {
            "named to write"
        } else {
            "named"
        });
    }
    access
}

fn access_of(row: &Map<String, Value>) -> Value {
    access(row).join(", ").into()
}

/// Of a roll-up it is known that one of its executions touched it, at least: its tokens are those of all together.
fn sureness(row: &Map<String, Value>) -> Value {
    if text(row, "kind") == "rollup" {
        return "of some".into();
    }
    if row.get("sure") == Some(&Value::Bool(true)) {
        "surely"
    } else {
        "possibly"
    }
    .into()
}

/// A cell that is made of its row.
type Made<'a> = &'a dyn Fn(&Map<String, Value>) -> Value;

/// Some columns of some rows; those in `made` are made of the row.
fn table(rows: &[Map<String, Value>], columns: &[(&str, &str)], made: &[(&str, Made<'_>)]) -> Page {
    let cell = |row: &Map<String, Value>, name: &str| match made.iter().find(|(made, _)| *made == name) {
        Some((_, make)) => make(row),
        None => row.get(name).cloned().unwrap_or_default(),
    };
    Page {
        columns: columns.iter().map(|(_, title)| (*title).to_owned()).collect(),
        rows: rows
            .iter()
            .map(|row| columns.iter().map(|(name, _)| cell(row, name)).collect())
            .collect(),
        truncated: false,
    }
}

fn rows(page: &Page) -> Vec<Map<String, Value>> {
    let object = |row: &Vec<Value>| page.columns.iter().cloned().zip(row.iter().cloned()).collect();
    page.rows.iter().map(object).collect()
}

fn text(row: &Map<String, Value>, name: &str) -> String {
    row.get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn time(ns: Option<i64>) -> Option<String> {
    proto::json::time(u64::try_from(ns?).ok()?)
}

/// What is shown of a sort of statements, and its title.
const TOUCHED: &[(&str, &str)] = &[
    ("principal", "principal"),
    ("confidence", "certainty"),
    ("statements", "statements"),
    ("access", "record"),
    ("sources", "by"),
    ("known", "known"),
    ("outcome", "outcome"),
    ("login_role", "role"),
    ("first_seen", "first"),
    ("last_seen", "last"),
    ("last_event", "event"),
    ("statement", "statement"),
];

const NOT_EXCLUDED: &[(&str, &str)] = &[
    ("principal", "principal"),
    ("confidence", "certainty"),
    ("statements", "statements"),
    ("commands", "commands"),
    ("because", "because"),
    ("first_seen", "first"),
    ("last_seen", "last"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        question::Span,
        who::{Asked, Sought},
    };

    fn asking() -> Asking {
        Asking {
            asked: Asked {
                object: "public.customers".to_owned(),
                column: "id".to_owned(),
                tokens: vec![Sought {
                    key: "k".to_owned(),
                    family: "integer".to_owned(),
                    token: "00".repeat(16),
                }],
                span: Span::default(),
            },
            missing_keys: Vec::new(),
            unread: Vec::new(),
        }
    }

    fn page(columns: &[&str], rows: Value) -> Page {
        Page {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: serde_json::from_value(rows).expect("rows"),
            truncated: false,
        }
    }

    fn printed(asking: &Asking, answer: &Answer) -> String {
        let mut out = Vec::new();
        print(&mut out, asking, answer).expect("printed");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn nobody_else_is_said_only_where_nothing_is_open() {
        let mut answer = Answer {
            touched: page(
                &[
                    "principal",
                    "confidence",
                    "statements",
                    "sources",
                    "sure",
                    "class",
                ],
                json!([
                    [
                        "spiffe://x/unit/a",
                        "observed",
                        3,
                        "predicate, returned",
                        true,
                        "READ"
                    ],
                    ["spiffe://x/unit/b", "joined", 1, "predicate", false, "WRITE"]
                ]),
            ),
            ..Answer::default()
        };
        let told = printed(&asking(), &answer);
        assert!(told.contains("Every other statement"), "{told}");
        for words in ["read", "surely", "possibly", "named to write"] {
            assert!(told.contains(words), "{words} is not in\n{told}");
        }
        assert_eq!(in_json(&asking(), &answer)["complete"], true);
        let open = |told: &str| {
            assert!(!told.contains("Every other statement"), "{told}");
            assert!(told.contains("not excluded that somebody else"), "{told}");
        };
        answer.gaps = 1;
        open(&printed(&asking(), &answer));
        answer.gaps = 0;
        answer.left_out = 1;
        open(&printed(&asking(), &answer));
        answer.left_out = 0;
        answer.moved = 1;
        open(&printed(&asking(), &answer));
        assert_eq!(in_json(&asking(), &answer)["complete"], false);
        answer.moved = 0;
        answer.removals = 1;
        open(&printed(&asking(), &answer));
        assert_eq!(in_json(&asking(), &answer)["complete"], false);
        answer.removals = 0;
        answer.not_counted = true;
        open(&printed(&asking(), &answer));
        assert_eq!(in_json(&asking(), &answer)["complete"], false);
        answer.not_counted = false;
        let mut without = asking();
        without.missing_keys.push("old".to_owned());
        open(&printed(&without, &answer));
        let mut without = asking();
        without.unread.push("uuid".to_owned());
        open(&printed(&without, &answer));
        answer.not_excluded = page(
            &["on_object", "principal", "because", "statements"],
            json!([
                [true, "spiffe://x/unit/c", "its records are not known", 7],
                [false, "spiffe://x/unit/c", "it ran what is not seen", 2],
                [false, "spiffe://x/unit/d", "it ran what is not seen", 3]
            ]),
        );
        let told = printed(&asking(), &answer);
        open(&told);
        assert!(told.contains("Of 5 statements"), "{told}");
        assert!(told.contains("its records are not known"), "{told}");
    }
}
