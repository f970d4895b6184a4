//! One statement's meaning against pgAudit's lines for it.
//!
//! Owns the rules by which the two can be compared: what the text says is compared, what only the executor or the
//! catalog knows is counted apart. Every rule has a name under which it is counted; the arguments are in
//! `docs/truth.md`. Pure.

mod identity;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;

use self::{
    identity::{Said, dotted, identity, is_part},
    words::{count, words},
};
use super::audit::Audited;

/// What pgwitness says of a statement.
#[derive(Clone, Debug, Default)]
pub(super) struct Meant {
    pub(super) class: String,
    pub(super) command: String,
    pub(super) objects: Vec<Named>,
}

/// An object that pgwitness names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub(super) schema: Option<String>,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) access: String,
}

/// How one side of the comparison came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Equal,
    /// pgAudit does not say.
    Unwitnessed,
    /// For people.
    Different(String),
}

/// Class and objects of one statement.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) class: Verdict,
    pub(super) objects: Verdict,
    /// Names of the rules that were needed, and of what was left out.
    pub(super) rules: BTreeSet<&'static str>,
}

/// Names of all functions that a log speaks of, and of types, whose constructors are called like functions.
pub(super) fn functions<'a>(lines: impl Iterator<Item = &'a Audited>) -> BTreeSet<String> {
    let callable = lines.filter(|line| {
        matches!(
            line.kind.as_str(),
            "FUNCTION" | "AGGREGATE" | "PROCEDURE" | "TYPE"
        )
    });
    callable.filter_map(|line| dotted(&line.name).pop()).collect()
}

/// Compares. `text` is the statement, `whole` the string that it was sent in, `lines` what pgAudit wrote while it ran.
pub(super) fn judge(
    text: &str,
    whole: &str,
    failed: bool,
    meant: &Meant,
    lines: &[Audited],
    functions: &BTreeSet<String>,
) -> Judged {
    let mut rules = BTreeSet::new();
    let own: Vec<&Audited> = lines.iter().filter(|line| is_own(line, whole)).collect();
    if own.len() < lines.len() {
        rules.insert("ran_inside");
    }
    if meant.command == "EXECUTE" && own.is_empty() {
        // EXECUTE of a query that failed: only the query's own lines are there.
        return Judged {
            class: Verdict::Unwitnessed,
            objects: Verdict::Unwitnessed,
            rules,
        };
    }
    if meant.command == "DROP OWNED" && own.iter().all(|line| line.command != meant.command) {
        // It is broken down into REVOKE and DROP, and these alone have lines.
        rules.insert("only_its_parts");
        return Judged {
            class: Verdict::Unwitnessed,
            objects: Verdict::Unwitnessed,
            rules,
        };
    }
    let class = class(meant, &own, failed, &mut rules);
    let objects = match class {
        Verdict::Unwitnessed => Verdict::Unwitnessed,
        _ => objects(text, meant, &own, functions, &mut rules),
    };
    Judged {
        class,
        objects,
        rules,
    }
}

/// A line is of the statement itself when it was running this text; pgAudit cuts texts behind the word `password`.
fn is_own(line: &Audited, whole: &str) -> bool {
    line.text == whole
        || line
            .text
            .strip_suffix("<REDACTED>")
            .is_some_and(|front| whole.starts_with(front.trim_end()))
}

/// The class of pgAudit's line for the command; for a query, which has a line for each relation, the strongest.
fn class(meant: &Meant, own: &[&Audited], failed: bool, rules: &mut BTreeSet<&'static str>) -> Verdict {
    let is_query = |line: &&&Audited| QUERIES.contains(&line.command.as_str());
    let is_function = |line: &&&Audited| line.class == "FUNCTION" && line.command == "EXECUTE";
    let command = own
        .iter()
        .find(|line| line.command == meant.command && !is_query(line) && !is_function(line))
        .or_else(|| {
            own.iter()
                .rev()
                .find(|line| !is_query(line) && !is_function(line))
        });
    let said = match command {
        Some(line) => line.class.as_str(),
        None if own.iter().any(|line| line.class == "WRITE") => "WRITE",
        None if own.iter().any(|line| line.class == "READ") => "READ",
        None => {
            if !own.is_empty() {
                rules.insert("only_inner_lines");
            }
            return Verdict::Unwitnessed;
        }
    };
    if failed && command.is_none() && !QUERIES.contains(&meant.command.as_str()) {
        // A utility command that fails has no line of its own, but what it opened before may.
        rules.insert("failed_before_its_line");
        return Verdict::Unwitnessed;
    }
    let ours = meant.class.as_str();
    let same = match (said, ours) {
        _ if said == ours => true,
        ("MISC", "MISC_SET") => true,
        ("READ", "WRITE") if meant.command == "COPY" && own.iter().any(|line| line.class == "WRITE") => {
            rules.insert("copy_of_what_it_writes");
            true
        }
        // The procedure has a line of class FUNCTION, the command one of MISC.
        ("MISC", "FUNCTION") if meant.command == "CALL" => {
            rules.insert("call_by_its_procedure");
            true
        }
        // ROLE since 16.1, 1.7.1 and their like, which also hide its password.
        ("DDL", "ROLE")
            if matches!(
                meant.command.as_str(),
                "CREATE USER MAPPING" | "ALTER USER MAPPING"
            ) =>
        {
            rules.insert("user_mapping_as_later_versions");
            true
        }
        _ => false,
    };
    match same {
        true => Verdict::Equal,
        false => Verdict::Different(format!("pgAudit {said}, we {ours}")),
    }
}

/// The sets of objects, as far as both can know them.
fn objects(
    text: &str,
    meant: &Meant,
    own: &[&Audited],
    functions: &BTreeSet<String>,
    rules: &mut BTreeSet<&'static str>,
) -> Verdict {
    let words = words(text);
    let mut said: Vec<Said> = Vec::new();
    let mut implied: Vec<Said> = Vec::new();
    for line in own.iter().filter(|line| !line.name.is_empty()) {
        let access = match line.class.as_str() {
            "READ" => "read",
            "WRITE" => "write",
            "FUNCTION" => "execute",
            "DDL" | "ROLE" => "ddl",
            // `???`: a relation that needs no permission, such as a partition beside its parent.
            _ => {
                rules.insert("no_permission_needed");
                continue;
            }
        };
        if access != "ddl" && meant.class == "DDL" && !FILLING.contains(&meant.command.as_str()) {
            // ALTER TABLE reads a table to check a new constraint.
            rules.insert("run_by_a_definition");
            continue;
        }
        for one in identity(line, access) {
            let spoken = words.contains(one.name.as_str());
            let part = access == "ddl" && (is_part(line) || is_another(line, meant));
            let written = |ours: &Named| ours.access == "write" && ours.name == one.name;
            if access == "read" && line.kind == "COMPOSITE TYPE" && meant.objects.iter().any(written) {
                // `excluded` of ON CONFLICT has the table's name and a kind of its own; so has a partitioned table.
                rules.insert("excluded");
                implied.push(one);
                continue;
            }
            if access == "read" && line.kind == "VIEW" && meant.objects.iter().any(written) {
                // A view that is written by its rules is itself only read.
                rules.insert("view_written_by_its_rules");
                implied.push(Said {
                    access: "write",
                    ..one.clone()
                });
                implied.push(one);
                continue;
            }
            if access == "read" && meant.objects.iter().any(written) && count(text, &one.name) < 2 {
                // A rule of the table reads it.
                rules.insert("not_in_the_text");
                implied.push(one);
                continue;
            }
            match spoken && !part && !one.owner {
                true => said.push(one),
                false => {
                    rules.insert(if spoken {
                        "part_of_another"
                    } else {
                        "not_in_the_text"
                    });
                    implied.push(one);
                }
            }
        }
    }
    let has = |access: &str| {
        own.iter()
            .any(|line| !line.name.is_empty() && access_of(&line.class) == access)
    };
    // A query's line that names nothing says that there is no relation in it.
    let relations = own.iter().any(|line| QUERIES.contains(&line.command.as_str()));
    let told = |access: &str| has(access) || (relations && matches!(access, "read" | "write"));
    let mut lacking: BTreeSet<String> = BTreeSet::new();
    let mut extra: BTreeSet<String> = BTreeSet::new();
    for one in &said {
        if !meant.objects.iter().any(|ours| one.is(ours)) {
            lacking.insert(format!("{} {} {}", one.access, one.kind, one.full()));
        }
    }
    for ours in &meant.objects {
        if said.iter().chain(&implied).any(|one| one.is(ours)) {
            continue;
        }
        if UNWITNESSED_KINDS.contains(&ours.kind.as_str()) {
            rules.insert("kind_without_event_trigger");
        } else if ours.kind == "function" && ours.access == "execute" {
            // Functions in SQL are inlined, and what never runs has no line. That it is one, other lines of the log say.
            if functions.contains(&ours.name) {
                rules.insert("inlined_or_not_run");
            } else {
                extra.insert(format!("{} {} {}", ours.access, ours.kind, ours.full()));
            }
        } else if !told(&ours.access) {
            // No line of this kind of access names anything: TRUNCATE, LOCK, GRANT; the tables of a view's definition.
            rules.insert("names_nothing");
        } else if meant.command.starts_with("DROP ") && NOT_TOLD_OF_DROPS.contains(&ours.kind.as_str()) {
            rules.insert("drop_not_told");
        } else if ours.access == "ddl" && said.iter().chain(&implied).any(|one| one.access == "ddl") {
            // RENAME and SET SCHEMA: pgAudit has the new name alone. An index: not the table.
            rules.insert("beside_what_it_names");
        } else {
            extra.insert(format!("{} {} {}", ours.access, ours.kind, ours.full()));
        }
    }
    if lacking.is_empty() && extra.is_empty() {
        return match said.is_empty() && meant.objects.is_empty() || !said.is_empty() {
            true => Verdict::Equal,
            false => Verdict::Unwitnessed,
        };
    }
    let list = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join("; ");
    Verdict::Different(format!("lacking [{}] extra [{}]", list(lacking), list(extra)))
}

fn access_of(class: &str) -> &'static str {
    match class {
        "READ" => "read",
        "WRITE" => "write",
        "FUNCTION" => "execute",
        "DDL" | "ROLE" => "ddl",
        _ => "",
    }
}

impl Named {
    fn full(&self) -> String {
        self.schema
            .iter()
            .map(|schema| format!("{schema}."))
            .collect::<String>()
            + &self.name
    }
}

/// Whether the line is of a command that this one was broken down into: the index of CREATE TABLE's key.
fn is_another(line: &Audited, meant: &Meant) -> bool {
    line.command != meant.command && !matches!(meant.command.as_str(), "CREATE SCHEMA" | "EXPLAIN")
}

const QUERIES: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "???"];
/// Definitions that run a query.
const FILLING: [&str; 4] = [
    "SELECT INTO",
    "CREATE TABLE AS",
    "CREATE MATERIALIZED VIEW",
    "EXPLAIN",
];
/// pgAudit's question for what was dropped leaves out types and all that is in no schema.
const NOT_TOLD_OF_DROPS: [&str; 14] = [
    "schema",
    "domain",
    "type",
    "server",
    "foreign-data wrapper",
    "language",
    "publication",
    "subscription",
    "access method",
    "extension",
    "event trigger",
    "cast",
    "transform",
    "user mapping",
];
/// Event triggers do not tell of them (manual, 40.1), and `PREPARE`d statements are no objects.
const UNWITNESSED_KINDS: [&str; 5] = ["role", "database", "tablespace", "statement", "large object"];
