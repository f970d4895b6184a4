//! What is equal, what is not, and what only the server knows.

use super::{
    identity::{Said, dotted, identity},
    words::names,
    *,
};

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
