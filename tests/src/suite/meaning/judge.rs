//! One statement's meaning against pgAudit's lines for it.
//!
//! Owns the rules by which the two can be compared: what the text says is compared, what only the executor or the
//! catalog knows is counted apart. Every rule has a name under which it is counted; the arguments are in
//! `docs/truth.md`. Pure.

use std::collections::BTreeSet;

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

/// An object that pgAudit names.
#[derive(Clone, Debug)]
struct Said {
    schema: Option<String>,
    name: String,
    kind: String,
    access: &'static str,
    /// It is named because another object belongs to it.
    owner: bool,
}

impl Said {
    fn is(&self, ours: &Named) -> bool {
        let schema = match (&ours.schema, &self.schema) {
            (Some(ours), Some(said)) => {
                ours == said || said.starts_with("pg_temp") && ours.starts_with("pg_temp")
            }
            _ => true,
        };
        ours.name == self.name && ours.access == self.access && schema
    }

    fn full(&self) -> String {
        self.schema
            .iter()
            .map(|schema| format!("{schema}."))
            .collect::<String>()
            + &self.name
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

/// Whether the line tells of a part of what the command is about: the index of a key, the sequence of a column, what a
/// CASCADE takes along.
fn is_part(line: &Audited) -> bool {
    let Some((verb, about)) = line.command.split_once(' ') else {
        return false;
    };
    if !matches!(verb, "CREATE" | "ALTER" | "DROP") {
        return verb == "DROP" && about == "OWNED";
    }
    let is = |kinds: &[&str]| !kinds.contains(&line.kind.as_str());
    match about {
        "TABLE" | "FOREIGN TABLE" | "TABLE AS" => is(&[
            "TABLE",
            "FOREIGN TABLE",
            "TABLE COLUMN",
            "VIEW",
            "VIEW COLUMN",
            "SEQUENCE",
            "MATERIALIZED VIEW",
            "COMPOSITE TYPE",
        ]),
        "DOMAIN" | "TYPE" => is(&["TYPE", "COMPOSITE TYPE", "DOMAIN"]),
        "ROUTINE" => is(&["FUNCTION", "PROCEDURE", "AGGREGATE"]),
        "VIEW" => is(&["VIEW", "VIEW COLUMN"]),
        "FOREIGN DATA WRAPPER" => is(&["FOREIGN-DATA WRAPPER"]),
        "STATISTICS" => is(&["STATISTICS OBJECT"]),
        "PUBLICATION" => is(&["PUBLICATION", "PUBLICATION RELATION", "PUBLICATION NAMESPACE"]),
        "OWNED" => true,
        about => line.kind != about,
    }
}

/// The objects of an identity (`pg_identify_object`), without those that have no name.
fn identity(line: &Audited, access: &'static str) -> Vec<Said> {
    let said = |text: &str, owner: bool| {
        let mut parts = dotted(text);
        let name = parts.pop();
        name.map(|name| Said {
            schema: parts.pop(),
            name,
            kind: line.kind.clone(),
            access,
            owner,
        })
    };
    let plain = line.name.as_str();
    match line.kind.as_str() {
        "CAST" | "TRANSFORM" | "DEFAULT VALUE" | "OPERATOR" | "LARGE OBJECT" => Vec::new(),
        "TRIGGER" | "POLICY" | "RULE" | "TABLE CONSTRAINT" | "DOMAIN CONSTRAINT" => {
            match plain.rsplit_once(" on ") {
                Some((main, owner)) => said(main, false).into_iter().chain(said(owner, true)).collect(),
                None => said(plain, false).into_iter().collect(),
            }
        }
        "TABLE COLUMN"
        | "VIEW COLUMN"
        | "COMPOSITE TYPE COLUMN"
        | "FOREIGN TABLE COLUMN"
        | "MATERIALIZED VIEW COLUMN" => {
            let mut parts = dotted(plain);
            parts.pop();
            let name = parts.pop();
            let schema = parts.pop();
            name.map(|name| Said {
                schema,
                name,
                kind: line.kind.clone(),
                access,
                owner: false,
            })
            .into_iter()
            .collect()
        }
        "USER MAPPING" => plain
            .rsplit_once(" on server ")
            .and_then(|(_, server)| said(server, false))
            .into_iter()
            .collect(),
        "PUBLICATION RELATION" | "PUBLICATION NAMESPACE" => match plain.rsplit_once(" in publication ") {
            Some((relation, publication)) => said(relation, true)
                .into_iter()
                .chain(said(publication, false))
                .collect(),
            None => Vec::new(),
        },
        "OPERATOR CLASS" | "OPERATOR FAMILY" => said(plain.split(" USING ").next().unwrap_or(plain), false)
            .into_iter()
            .collect(),
        _ => said(plain, false).into_iter().collect(),
    }
}

/// The parts of a dotted name up to a bracket, quotes taken off.
fn dotted(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            '(' if !quoted => break,
            other => part.push(other),
        }
    }
    parts.push(part);
    parts
}

/// Whether the line is of a command that this one was broken down into: the index of CREATE TABLE's key.
fn is_another(line: &Audited, meant: &Meant) -> bool {
    line.command != meant.command && !matches!(meant.command.as_str(), "CREATE SCHEMA" | "EXPLAIN")
}

/// How often a name stands in the text.
fn count(text: &str, name: &str) -> usize {
    names(text).iter().filter(|one| *one == name).count()
}

fn words(text: &str) -> BTreeSet<String> {
    names(text).into_iter().collect()
}

/// Everything in the text that could be a name: words as the server folds them, and what stands in double quotes. Not
/// what stands in strings and comments.
fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '\'' => quoted(rest, '\''),
            '"' => {
                let length = quoted(rest, '"');
                names.push(rest.get(1..length - 1).unwrap_or_default().replace("\"\"", "\""));
                length
            }
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '$' => {
                let tag = rest
                    .get(1..)
                    .and_then(|after| after.find('$'))
                    .and_then(|end| rest.get(..end + 2));
                let is_tag = |tag: &&str| tag.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$');
                match tag
                    .filter(is_tag)
                    .filter(|tag| !tag[1..].starts_with(|c: char| c.is_ascii_digit()))
                {
                    Some(tag) => rest[tag.len()..]
                        .find(tag)
                        .map_or(rest.len(), |end| end + 2 * tag.len()),
                    None => 1,
                }
            }
            c if c.is_alphanumeric() || c == '_' => {
                let length = rest
                    .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
                    .unwrap_or(rest.len());
                names.push(rest.get(..length).unwrap_or_default().to_ascii_lowercase());
                length
            }
            other => other.len_utf8(),
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    names
}

/// Length of what is quoted at the front; the quote is doubled inside.
fn quoted(text: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(end) = text.get(at..).and_then(|rest| rest.find(quote)) {
        at += end + 1;
        if !text.get(at..).is_some_and(|rest| rest.starts_with(quote)) {
            return at;
        }
        at += 1;
    }
    text.len()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(class: &str, command: &str, kind: &str, name: &str) -> Audited {
        let text = |text: &str| text.to_owned();
        Audited {
            class: text(class),
            command: text(command),
            kind: text(kind),
            name: text(name),
            text: String::new(),
        }
    }

    fn meant(class: &str, command: &str, objects: &[(&str, &str, &str)]) -> Meant {
        let named = |(access, kind, name): &(&str, &str, &str)| {
            let (schema, name) = name
                .split_once('.')
                .map_or((None, *name), |(schema, name)| (Some(schema), name));
            Named {
                schema: schema.map(str::to_owned),
                name: name.to_owned(),
                kind: (*kind).to_owned(),
                access: (*access).to_owned(),
            }
        };
        Meant {
            class: class.to_owned(),
            command: command.to_owned(),
            objects: objects.iter().map(named).collect(),
        }
    }

    /// Class and objects: `=`, `?` or what differs.
    fn judged(sql: &str, meant: &Meant, lines: &[Audited]) -> (String, String) {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| Audited {
                text: if line.text.is_empty() {
                    sql.to_owned()
                } else {
                    line.text.clone()
                },
                ..line.clone()
            })
            .collect();
        let judged = judge(sql, sql, false, meant, &lines, &functions(lines.iter()));
        let shown = |verdict: Verdict| match verdict {
            Verdict::Equal => "=".to_owned(),
            Verdict::Unwitnessed => "?".to_owned(),
            Verdict::Different(how) => how,
        };
        (shown(judged.class), shown(judged.objects))
    }

    #[test]
    fn what_is_equal_and_what_is_not() {
        let read = |name: &str| line("READ", "SELECT", "TABLE", name);
        let sql = "SELECT * FROM a JOIN s.b ON f(1)";
        let both = [("read", "table", "a"), ("read", "table", "s.b")];
        let lines = [read("public.a"), read("s.b"), read("public.behind_a_view")];
        assert_eq!(
            judged(sql, &meant("READ", "SELECT", &both), &lines),
            ("=".into(), "=".into())
        );
        let other = judged(sql, &meant("WRITE", "SELECT", &both), &lines);
        assert_eq!(other, ("pgAudit READ, we WRITE".into(), "=".into()));
        let lacking = judged(sql, &meant("READ", "SELECT", &both[..1]), &lines);
        assert_eq!(lacking.1, "lacking [read TABLE s.b] extra []");
        let wrong = [
            ("read", "table", "a"),
            ("read", "table", "t.b"),
            ("read", "table", "only"),
        ];
        let wrong = judged(sql, &meant("READ", "SELECT", &wrong), &lines);
        assert_eq!(
            wrong.1,
            "lacking [read TABLE s.b] extra [read table only; read table t.b]"
        );
        // A function that no line of the log speaks of is none.
        let function = [both[0], both[1], ("execute", "function", "f")];
        assert_eq!(
            judged(sql, &meant("READ", "SELECT", &function), &lines).1,
            "lacking [] extra [execute function f]"
        );
        let called = [
            lines[0].clone(),
            lines[1].clone(),
            line("FUNCTION", "EXECUTE", "FUNCTION", "public.f"),
        ];
        assert_eq!(judged(sql, &meant("READ", "SELECT", &function), &called).1, "=");
        // A query without relations says so.
        let none = [line("READ", "SELECT", "", "")];
        let invented = judged(
            "SELECT 1",
            &meant("READ", "SELECT", &[("read", "table", "a")]),
            &none,
        );
        assert_eq!(invented.1, "lacking [] extra [read table a]");
    }

    #[test]
    fn what_only_the_server_knows_is_left_out() {
        let table = [("ddl", "table", "t")];
        let sql = "CREATE TABLE t (id int CONSTRAINT key PRIMARY KEY)";
        let lines = [
            line("DDL", "CREATE TABLE", "TABLE", "public.t"),
            line("DDL", "CREATE INDEX", "INDEX", "public.key"),
        ];
        assert_eq!(
            judged(sql, &meant("DDL", "CREATE TABLE", &table), &lines),
            ("=".into(), "=".into())
        );
        let wrong = meant("DDL", "CREATE TABLE", &[("ddl", "table", "u")]);
        assert_eq!(
            judged(sql, &wrong, &lines).1,
            "lacking [ddl TABLE public.t] extra []"
        );
        let inside = Audited {
            text: "DELETE FROM t".to_owned(),
            ..line("WRITE", "DELETE", "TABLE", "public.t")
        };
        let call = [
            line("FUNCTION", "EXECUTE", "FUNCTION", "public.p"),
            inside,
            line("MISC", "CALL", "", ""),
        ];
        let ours = meant("FUNCTION", "CALL", &[("execute", "function", "p")]);
        assert_eq!(judged("CALL p()", &ours, &call), ("=".into(), "=".into()));
        let failed = judge(
            "GRANT a TO b",
            "GRANT a TO b",
            true,
            &meant("ROLE", "GRANT ROLE", &[]),
            &[],
            &BTreeSet::new(),
        );
        assert_eq!(failed.class, Verdict::Unwitnessed);
    }

    #[test]
    fn names_are_read_as_the_server_writes_them() {
        assert_eq!(dotted("\"Odd.\"\"Name\".\"b c\""), ["Odd.\"Name", "b c"]);
        assert_eq!(dotted("public.f(integer, s.t)"), ["public", "f"]);
        let trigger = identity(
            &line("DDL", "CREATE TRIGGER", "TRIGGER", "\"g on\" on s.t"),
            "ddl",
        );
        assert_eq!(
            trigger.iter().map(Said::full).collect::<Vec<_>>(),
            ["g on", "s.t"]
        );
        let column = identity(&line("DDL", "ALTER TABLE", "TABLE COLUMN", "s.t.c"), "ddl");
        assert_eq!(column.iter().map(Said::full).collect::<Vec<_>>(), ["s.t"]);
        assert_eq!(
            names("SELECT 'a b', $$c$$, \"D\"\"e\" FROM F -- g\n/* h */"),
            ["select", "D\"e", "from", "f"]
        );
    }
}
