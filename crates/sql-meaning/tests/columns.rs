//! Columns and values of the statements in `tests/corpus/meaning/columns.tsv`, and properties over generated ones.
//!
//! Each line holds a statement and, behind a tab, what is known of its objects and values:
//! `read customers(name) by(id) bound(id); customers.id restricts 0` — columns, columns decided by, `all` for `*`, `inexact`
//! where more may be named; then the values: `$1` a parameter, `0` the first literal, `-0` the same with a minus before it.

use std::{cell::RefCell, fmt::Write, fs, path::Path};

use proptest::prelude::*;
use sql_meaning::{
    Backslash, Interpreter, Literal, ObjectRef, Operand, Statement, ValueRole, ValueUse, literals,
};

fn object(object: &ObjectRef) -> String {
    let schema = object
        .schema
        .as_ref()
        .map(|schema| format!("{schema}."))
        .unwrap_or_default();
    let mut out = format!("{} {schema}{}", object.access.as_str(), object.name);
    for (word, list) in [
        ("", &object.columns),
        (" by", &object.filtered),
        (" bound", &object.bound),
    ] {
        if !list.is_empty() {
            out += &format!("{word}({})", list.join(","));
        }
    }
    for (word, holds) in [(" all", object.star), (" inexact", !object.exact)] {
        if holds {
            out += word;
        }
    }
    out
}

fn value(statement: &Statement, value: &ValueUse) -> String {
    let role = match value.role {
        ValueRole::Restricts => "restricts",
        ValueRole::Compared => "compared",
        ValueRole::Written => "written",
    };
    let operand = match value.operand {
        Operand::Param(number) => format!("${number}"),
        Operand::Literal(number) => number.to_string(),
        Operand::Negative(number) => format!("-{number}"),
    };
    let object = statement
        .objects
        .get(value.object)
        .map_or("?", |object| &object.name);
    let cast = value.cast.map(|cast| format!("::{cast}")).unwrap_or_default();
    let each = if value.each { " each" } else { "" };
    format!("{object}.{} {role} {operand}{cast}{each}", value.column)
}

fn said(sql: &str) -> String {
    let statement = Interpreter::new(1).interpret(sql.as_bytes());
    let mut said: Vec<String> = Vec::new();
    if !statement.parsed {
        said.push("unparsed".to_owned());
    }
    said.extend(statement.objects.iter().map(object));
    said.extend(statement.values.iter().map(|one| value(&statement, one)));
    said.join("; ")
}

/// With `BLESS` set the file is written anew, to be read.
#[test]
fn columns_of_the_corpus() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/meaning/columns.tsv");
    let corpus = fs::read_to_string(&path).expect("the corpus is in the repository");
    let (mut blessed, mut wrong, mut statements) = (String::new(), String::new(), 0);
    for line in corpus.lines() {
        if line.starts_with('#') || line.is_empty() {
            writeln!(blessed, "{line}").unwrap();
            continue;
        }
        let (sql, expected) = line.split_once('\t').unwrap_or((line, ""));
        let said = said(sql);
        statements += 1;
        writeln!(blessed, "{sql}\t{said}").unwrap();
        if said != expected {
            writeln!(wrong, "{sql}\n  expected {expected}\n  found    {said}").unwrap();
        }
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, blessed).expect("writable");
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
    assert!(statements >= 150, "{statements}");
}

/// A literal as written, and its value.
fn literal() -> impl Strategy<Value = (String, Literal)> {
    let text = "[a-z'\\\\ ?$-]{0,6}";
    prop_oneof![
        (0_u32..100_000).prop_map(|n| (n.to_string(), Literal::Number(n.to_string()))),
        (0_u32..1000, 0_u32..100)
            .prop_map(|(a, b)| (format!("{a}.{b}"), Literal::Number(format!("{a}.{b}")))),
        (0_u32..1000).prop_map(|n| (format!("0x{n:x}"), Literal::Number(n.to_string()))),
        (1_u32..1000).prop_map(|n| (format!("{n}_000"), Literal::Number(format!("{n}000")))),
        "[a-z' ?$-]{0,6}".prop_map(|t| (format!("'{}'", t.replace('\'', "''")), Literal::Text(t))),
        text.prop_map(|t| {
            (
                format!("E'{}'", t.replace('\\', "\\\\").replace('\'', "\\'")),
                Literal::Text(t),
            )
        }),
        text.prop_filter("no tag", |t| !t.contains('$'))
            .prop_map(|t| (format!("$q${t}$q$"), Literal::Text(t))),
    ]
}

/// A condition on column `c<n>`, and the values that must be told for it: with whether each is negative.
fn condition() -> impl Strategy<Value = (String, Vec<(bool, Literal)>)> {
    let one = || literal();
    prop_oneof![
        one().prop_map(|(w, v)| (format!("COL = {w}"), vec![(false, v)])),
        one().prop_map(|(w, v)| (format!("{w} = COL"), vec![(false, v)])),
        one()
            .prop_filter("a number", |(_, v)| matches!(v, Literal::Number(_)))
            .prop_map(|(w, v)| (format!("COL = -{w}"), vec![(true, v)])),
        (one(), one())
            .prop_map(|((a, v), (b, w))| (format!("COL IN ({a}, {b})"), vec![(false, v), (false, w)])),
        (one(), one())
            .prop_map(|((a, v), (b, w))| (format!("(COL = {a} OR COL = {b})"), vec![(false, v), (false, w)])),
        (one(), one()).prop_map(|((a, v), (b, w))| (
            format!("COL = ANY (ARRAY[{a}, {b}])"),
            vec![(false, v), (false, w)]
        )),
        one().prop_map(|(a, v)| (format!("(COL, 1) = ({a}, 1)"), vec![(false, v)])),
        one().prop_map(|(a, v)| (format!("COL = {a}::text"), vec![(false, v)])),
        // No values of a column, but literals all the same.
        one().prop_map(|(w, _)| (format!("lower(x, {w}) > 'a'"), vec![])),
        one().prop_map(|(w, _)| (format!("data ? {w}"), vec![])),
        one().prop_map(|(w, _)| (format!("COL > {w}"), vec![])),
        one().prop_map(|(w, _)| (format!("COL = {w} || 'b'"), vec![])),
        one().prop_map(|(w, _)| (format!("COL = 5 - {w}"), vec![])),
        one().prop_map(|(w, _)| (format!("COL LIKE {w} ESCAPE 'x'"), vec![])),
        Just(("/* it's 'a' 5 */ x IS NULL".to_owned(), vec![])),
        Just(("x IS NULL -- '5'\n".to_owned(), vec![])),
    ]
}

thread_local! {
    /// One for all cases, so that each meets what was read before.
    static SHARED: RefCell<Interpreter> = RefCell::new(Interpreter::new(64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Every value is told with the column that it stands against, and every condition of these shapes restricts; what is
    /// remembered of another text with the same redacted text says the same.
    #[test]
    fn values_are_told_as_written(conditions in prop::collection::vec(condition(), 1..4)) {
        let mut sql = "SELECT 'first', a FROM t WHERE ".to_owned();
        let mut expected: Vec<(String, bool, Literal)> = Vec::new();
        for (at, (text, values)) in conditions.iter().enumerate() {
            let column = format!("c{at}");
            write!(sql, "{}{}", if at > 0 { " AND " } else { "" }, text.replace("COL", &column)).unwrap();
            expected.extend(values.iter().map(|(negative, value)| (column.clone(), *negative, value.clone())));
        }
        let shared = SHARED.with_borrow_mut(|interpreter| interpreter.interpret(sql.as_bytes()));
        let fresh = Interpreter::new(1).interpret(sql.as_bytes());
        prop_assert_eq!(&*shared, &*fresh, "{}", sql);
        // A backslash in a plain string is not read, and makes the text one of two readings.
        prop_assert!(fresh.parsed, "{}", sql);
        let literals = literals(&sql, Backslash::Plain);
        prop_assert_eq!(literals.len(), fresh.redacted.matches('?').count() - sql.matches("data ? ").count());
        let told: Vec<(String, bool, Literal)> = fresh
            .values
            .iter()
            .map(|value| {
                assert_eq!(value.role, ValueRole::Restricts, "{sql}");
                let (negative, number) = match value.operand {
                    Operand::Literal(number) => (false, number),
                    Operand::Negative(number) => (true, number),
                    Operand::Param(_) => panic!("{sql}"),
                };
                (value.column.clone(), negative, literals[number as usize].clone())
            })
            .collect();
        prop_assert_eq!(told, expected, "{}", sql);
    }

    /// Texts whose redacted text is the same, made by exchanging literals: the values are the same, also when the other one
    /// is what is remembered.
    #[test]
    fn the_same_redacted_text_has_the_same_values(
        conditions in prop::collection::vec(condition(), 1..4),
        others in prop::collection::vec(literal(), 8),
    ) {
        let text: Vec<String> = conditions.iter().enumerate()
            .map(|(at, (text, _))| text.replace("COL", &format!("c{at}")))
            .collect();
        let sql = format!("SELECT a FROM t WHERE {}", text.join(" AND "));
        let one = Interpreter::new(1).interpret(sql.as_bytes());
        // Other literals of any kind in their places.
        let mut others = others.iter().map(|(written, _)| format!(" {written} "));
        let redacted = one.redacted.replace("data ?", "data @@");
        let other: String = redacted
            .split_inclusive('?')
            .map(|part| part.strip_suffix('?').map_or_else(|| part.to_owned(), |part| format!("{part}{}", others.next().unwrap_or_default())))
            .collect::<String>()
            .replace("data @@", "data ?");
        let mut interpreter = Interpreter::new(8);
        interpreter.interpret(sql.as_bytes());
        let second = interpreter.interpret(other.as_bytes());
        let fresh = Interpreter::new(1).interpret(other.as_bytes());
        prop_assert_eq!(&*second, &*fresh, "{} and {}", sql, other);
        if one.redacted == fresh.redacted && one.parsed && fresh.parsed && !sql.contains(" -") {
            prop_assert_eq!(&one.values, &fresh.values, "{} and {}", sql, other);
        }
    }
}

/// Texts that double with each step: they end soon, and nothing of them is called exact.
#[test]
fn what_doubles_is_cut() {
    for step in [
        "SELECT * FROM a#, a# b",
        "SELECT x, y FROM a# UNION SELECT x, y FROM a#",
    ] {
        let steps: String = (1..60)
            .map(|n| format!(", a{n} AS ({})", step.replace('#', &(n - 1).to_string())))
            .collect();
        let sql = format!("WITH a0 AS (SELECT x, y FROM t){steps} SELECT * FROM a59 WHERE x = 1");
        let statement = Interpreter::new(1).interpret(sql.as_bytes());
        assert!(
            statement.parsed && !statement.objects.iter().any(|object| object.exact),
            "{step}"
        );
        assert!(
            statement.outputs.is_empty() && statement.objects.iter().all(|object| object.bound.is_empty())
        );
    }
    let many: String = (0..500).map(|n| format!(", t t{n}")).collect();
    let sql = format!("SELECT a, t.b FROM t{many} WHERE t.c = 1");
    let statement = Interpreter::new(1).interpret(sql.as_bytes());
    assert!(
        statement.parsed
            && statement
                .objects
                .iter()
                .all(|object| !object.exact && object.bound.is_empty())
    );
    let values: String = (0..5_000)
        .map(|n| format!("{}{n}", if n > 0 { "," } else { "" }))
        .collect();
    let statement =
        Interpreter::new(1).interpret(format!("SELECT a FROM t WHERE a IN ({values})").as_bytes());
    assert!(statement.values.len() < 3_000 && statement.objects.iter().all(|object| object.bound.is_empty()));
    assert!(
        statement
            .values
            .iter()
            .all(|value| value.role == ValueRole::Compared)
    );
}
