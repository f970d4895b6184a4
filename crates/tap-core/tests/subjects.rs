//! Whose records a statement touched: the same token whichever way a value comes, nobody's where the column is not sure,
//! and complete only where it is.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "what is not there fails the test"
)]

mod host;

use std::sync::Arc;

use host::{COOKIE, Conversation, Host, tcp, wire};
use subjects::{Classification, Family, Key, Token};
use tap_core::{Query, Redaction, Sensitive, Settings, Shown, Subject};

const FILE: &str = r#"
[[column]]
object = "public.customers"
column = "id"
type = "bigint"
subject = true
mode = "token"

[[column]]
object = "public.customers"
column = "email"
type = "text"
mode = "mask"

[[column]]
object = "public.customers"
column = "name"
type = "text"
mode = "clear"

[[column]]
object = "public.customers"
column = "note"
mode = "drop"

[[column]]
object = "hr.people"
column = "badge"
type = "uuid"
subject = true
"#;

fn key() -> Key {
    Key::new("k1", &std::array::from_fn(|index| index as u8)).expect("a key")
}

fn settings(redaction: Redaction) -> Settings {
    Settings {
        redaction,
        sensitive: Some(Arc::new(Sensitive {
            classification: Classification::parse(FILE).expect("a classification"),
            key: key(),
        })),
        ..Settings::default()
    }
}

fn customer(number: i64) -> Token {
    key().token(Family::Integer, number.to_string().as_bytes())
}

fn host(redaction: Redaction) -> Host {
    let mut host = Host::with(settings(redaction));
    host.accept(&tcp(COOKIE, host::BACKEND));
    host.play(COOKIE, &Conversation::logged_in());
    host
}

/// Text, of no declared type.
fn bind(values: &[&str]) -> Vec<u8> {
    let mut body = b"\0\0\0\0".to_vec();
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 0]);
    wire::message(b'B', &body)
}

/// The one statement of this string, answered with a column `id` of table 16402 and these values.
fn asked(sql: &str, rows: Option<&[&str]>, tag: &str) -> Query {
    let mut host = host(Redaction::Literals);
    host.client(&[wire::query(sql)]);
    let mut answer = Vec::new();
    if let Some(rows) = rows {
        answer.push(wire::row_description(&[("id", 16_402, 1)]));
        answer.extend(rows.iter().map(|row| wire::row(row)));
    }
    answer.extend([wire::complete(tag), wire::ready(b'I')]);
    host.server(&answer);
    let mut queries = host.queries();
    assert_eq!(queries.len(), 1, "{sql}");
    queries.remove(0)
}

fn only(query: &Query) -> &Subject {
    let touched = query.touched.as_deref().expect("something touched");
    let [subject] = touched.subjects.as_slice() else {
        panic!("{} subjects", touched.subjects.len());
    };
    subject
}

/// Customers named, whether these are all, and where they come from.
fn said(query: &Query) -> (Vec<Token>, bool, Vec<&'static str>) {
    let subject = only(query);
    assert_eq!(
        (
            subject.of.object.as_str(),
            subject.of.column.as_str(),
            &*subject.key
        ),
        ("public.customers", "id", "k1")
    );
    (
        subject.told.tokens.clone(),
        subject.complete,
        subject.sources.names().collect(),
    )
}

fn tokens(numbers: &[i64]) -> Vec<Token> {
    let mut tokens: Vec<Token> = numbers.iter().map(|number| customer(*number)).collect();
    tokens.sort_unstable();
    tokens
}

#[test]
fn literals_in_predicates() {
    for (sql, numbers, complete) in [
        ("SELECT name FROM customers WHERE id = 42", &[42][..], true),
        ("SELECT name FROM public.customers WHERE id = '42'", &[42], true),
        (
            "SELECT name FROM customers c WHERE c.id IN (1, '2', 3) AND name = 'x'",
            &[1, 2, 3],
            true,
        ),
        ("SELECT name FROM customers WHERE id = -7", &[-7], true),
        ("SELECT name FROM customers WHERE id = '042'::bigint", &[42], true),
        (
            "SELECT name FROM customers WHERE id = ANY ('{5,6}')",
            &[5, 6],
            true,
        ),
        (
            "SELECT name FROM customers WHERE id = 42 OR name = 'x'",
            &[42],
            false,
        ),
        ("SELECT name FROM customers WHERE id > 42", &[], false),
        ("SELECT count(*) FROM customers", &[], false),
        ("UPDATE customers SET name = 'x' WHERE id = 42", &[42], true),
        ("DELETE FROM customers WHERE id IN (8, 9)", &[8, 9], true),
        (
            "INSERT INTO customers (id, name) VALUES (10, 'a'), (11, 'b')",
            &[10, 11],
            true,
        ),
        ("INSERT INTO customers (name) VALUES ('a')", &[], false),
        ("SELECT name FROM customers WHERE id = 1e1", &[], false),
    ] {
        let query = asked(sql, None, "SELECT 1");
        let (found, all, _) = said(&query);
        assert_eq!((found, all), (tokens(numbers), complete), "{sql}");
    }
    assert_eq!(
        said(&asked("SELECT 1 FROM customers WHERE id = 42", None, "SELECT 1")).2,
        ["predicate"]
    );
    assert_eq!(
        said(&asked(
            "INSERT INTO customers (id) VALUES (1)",
            None,
            "INSERT 0 1"
        ))
        .2,
        ["written"]
    );
    for sql in [
        "SELECT name FROM orders WHERE id = 42",
        "SELECT 1",
        "SELECT name FROM old.customers WHERE id = 42",
    ] {
        assert_eq!(asked(sql, None, "SELECT 1").touched, None, "{sql}");
    }
}

#[test]
fn rows_that_came_back() {
    for (sql, rows, numbers, complete) in [
        (
            "SELECT id FROM customers WHERE name = 'x'",
            &["42", "43"][..],
            &[42, 43][..],
            true,
        ),
        ("SELECT * FROM customers WHERE id = 42", &["42"], &[42], true),
        ("SELECT DISTINCT id FROM customers", &["42"], &[42], false),
        (
            "UPDATE customers SET name = 'x' RETURNING id",
            &["1", "2"],
            &[1, 2],
            true,
        ),
        (
            "UPDATE customers SET id = 5 WHERE name = 'x' RETURNING id",
            &["5"],
            &[5],
            false,
        ),
        (
            "INSERT INTO customers (name) VALUES ('x') RETURNING id",
            &["44"],
            &[44],
            true,
        ),
        // By whatever name it comes back.
        ("SELECT name AS id FROM customers", &["42"], &[], false),
        (
            "SELECT x.id FROM (SELECT c.id FROM customers c) x",
            &["42"],
            &[42],
            false,
        ),
        (
            "SELECT o.id FROM customers c JOIN orders o ON o.customer = c.id",
            &["42"],
            &[],
            false,
        ),
        (
            "SELECT c.id FROM customers c JOIN orders o ON o.customer = c.id",
            &["42"],
            &[42],
            true,
        ),
        (
            "SELECT c.id FROM customers c JOIN customers d ON d.id = c.boss",
            &["42"],
            &[42],
            false,
        ),
    ] {
        let query = asked(sql, Some(rows), "SELECT 1");
        let (found, all, _) = said(&query);
        assert_eq!((found, all), (tokens(numbers), complete), "{sql}");
    }
    // No row came back: no record was read.
    assert_eq!(
        asked("SELECT id FROM customers WHERE name = 'x'", Some(&[]), "SELECT 0").touched,
        None
    );
    let mut host = host(Redaction::Literals);
    host.client(&[wire::query(
        "SELECT 1; SELECT c.id AS customers_id FROM customers c; SELECT 2",
    )]);
    host.server(&[
        wire::row_description(&[("?column?", 0, 0)]),
        wire::row("1"),
        wire::complete("SELECT 1"),
        wire::row_description(&[("customers_id", 16_402, 1)]),
        wire::row("42"),
        wire::complete("SELECT 1"),
        wire::row_description(&[("?column?", 0, 0)]),
        wire::row("2"),
        wire::complete("SELECT 1"),
        wire::ready(b'I'),
    ]);
    let queries = host.queries();
    assert_eq!((&queries[0].touched, &queries[2].touched), (&None, &None));
    assert_eq!(said(&queries[1]), (tokens(&[42]), true, vec!["returned"]));
    let both = asked(
        "SELECT id FROM customers WHERE id = 42",
        Some(&["42"]),
        "SELECT 1",
    );
    assert_eq!(said(&both), (tokens(&[42]), true, vec!["predicate", "returned"]));
}

#[test]
fn parameters_of_either_format_and_rows_of_a_prepared_statement() {
    let mut host = host(Redaction::Literals);
    host.client(&[
        wire::parse("s", "SELECT id FROM customers WHERE id = $1"),
        wire::describe('S', "s"),
        wire::sync(),
    ]);
    host.server(&[
        wire::parsed(),
        wire::parameter_description(),
        wire::row_description(&[("id", 16_402, 1)]),
        wire::ready(b'I'),
    ]);
    host.client(&[wire::bind("", "s", &["42"]), wire::execute("", 0), wire::sync()]);
    host.server(&[
        wire::bound(),
        wire::row("42"),
        wire::complete("SELECT 1"),
        wire::ready(b'I'),
    ]);
    let binary = {
        let mut body = b"\0s\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x2a".to_vec();
        body.extend([0, 1, 0, 1]);
        wire::message(b'B', &body)
    };
    host.client(&[binary, wire::execute("", 0), wire::sync()]);
    let row = wire::message(b'D', b"\0\x01\0\0\0\x04\0\0\0\x2a");
    host.server(&[wire::bound(), row, wire::complete("SELECT 1"), wire::ready(b'I')]);
    let queries = host.queries();
    assert_eq!(queries.len(), 2);
    for query in &queries {
        let (found, _, sources) = said(query);
        assert_eq!((found, sources), (tokens(&[42]), vec!["predicate", "returned"]));
        let told = &query.touched.as_deref().expect("parameters").params;
        assert_eq!(
            (told[0].token, &told[0].shown),
            (Some(customer(42)), &Shown::Hidden)
        );
        assert!(query.params.iter().all(|param| param.kept.is_empty()));
        assert!(
            !format!("{query:?}").contains(&customer(42).to_string()),
            "tokens are in no log"
        );
    }
}

#[test]
fn what_failed_was_tried() {
    let mut host = host(Redaction::Literals);
    host.client(&[wire::query("UPDATE customers SET name = 'x' WHERE id = 42")]);
    host.server(&[wire::error("ERROR", "42501"), wire::ready(b'I')]);
    host.client(&[wire::query("SELECT * FROM customers")]);
    host.server(&[wire::error("ERROR", "42501"), wire::ready(b'I')]);
    let queries = host.queries();
    assert_eq!(said(&queries[0]).0, tokens(&[42]));
    assert_eq!(queries[1].touched, None);
}

#[test]
fn cursors_and_prepared_statements_of_sql_are_followed_to_their_text() {
    let mut host = host(Redaction::Literals);
    host.client(&[wire::query(
        "DECLARE c CURSOR FOR SELECT id FROM customers WHERE name = 'x'",
    )]);
    host.server(&[wire::complete("DECLARE CURSOR"), wire::ready(b'T')]);
    host.client(&[wire::query("FETCH 2 FROM c")]);
    host.server(&[
        wire::row_description(&[("id", 16_402, 1)]),
        wire::row("1"),
        wire::row("2"),
        wire::complete("FETCH 2"),
        wire::ready(b'T'),
    ]);
    host.client(&[wire::query(
        "PREPARE p AS SELECT name FROM customers WHERE id = $1",
    )]);
    host.server(&[wire::complete("PREPARE"), wire::ready(b'T')]);
    host.client(&[wire::query("EXECUTE p(42)")]);
    host.server(&[
        wire::row_description(&[("name", 16_402, 2)]),
        wire::row("x"),
        wire::complete("SELECT 1"),
        wire::ready(b'T'),
    ]);
    let queries = host.queries();
    assert_eq!(said(&queries[1]).0, tokens(&[1, 2]));
    // What is only kept for later touched nobody yet.
    for kept in [&queries[0], &queries[2]] {
        let subjects = kept.touched.as_ref().map_or(0, |touched| touched.subjects.len());
        assert_eq!(subjects, 0, "{kept:?}");
    }
    assert_eq!(said(&queries[3]), (tokens(&[42]), true, vec!["predicate"]));
}

/// What EXECUTE gives is what PREPARE says that it is, or what the column makes of it.
#[test]
fn arguments_of_execute_stand_for_parameters() {
    let given = |prepare: &str, execute: &str| {
        let mut host = host(Redaction::Literals);
        host.client(&[wire::query(prepare)]);
        host.server(&[wire::complete("PREPARE"), wire::ready(b'I')]);
        host.client(&[wire::query(execute)]);
        host.server(&[wire::complete("SELECT 1"), wire::ready(b'I')]);
        let queries = host.queries();
        let (found, complete, _) = said(&queries[1]);
        (found, complete)
    };
    let select = "PREPARE p AS SELECT name FROM customers WHERE id = $1";
    let declared = "PREPARE p (text, int) AS SELECT name FROM customers WHERE id = $2 AND name = $1";
    for (prepare, execute, numbers, complete) in [
        (select, "EXECUTE p('42')", &[42][..], true),
        (select, "execute P ( -42 )", &[-42], true),
        (select, "EXECUTE p(NULL)", &[], true),
        (select, "EXECUTE p(40 + 2)", &[], false),
        (select, "EXECUTE p(f(42))", &[], false),
        (select, "EXECUTE p('42'::bigint)", &[], false),
        // A whole number it becomes, but which one?
        (select, "EXECUTE p(4.6)", &[], false),
        (select, "EXECUTE p", &[], false),
        (declared, "EXECUTE p('42', 7)", &[7], true),
        (declared, "EXECUTE p(42, '7')", &[7], true),
        (declared, "EXECUTE p('x', 7.4)", &[], false),
        (
            "PREPARE p (varchar(1)) AS SELECT name FROM customers WHERE id = $1::bigint",
            "EXECUTE p('42')",
            &[],
            false,
        ),
        (
            "PREPARE p (text) AS SELECT name FROM customers WHERE id = $1::bigint",
            "EXECUTE p('42')",
            &[42],
            true,
        ),
        (
            "PREPARE p AS SELECT name FROM customers WHERE id = ANY ($1)",
            "EXECUTE p('{1,2}')",
            &[1, 2],
            true,
        ),
        (
            "PREPARE p AS INSERT INTO customers (id, name) VALUES ($2, $1)",
            "EXECUTE p('x', 9)",
            &[9],
            true,
        ),
    ] {
        if numbers.is_empty() && complete {
            // What surely touched no record needs no word.
            continue;
        }
        assert_eq!(
            given(prepare, execute),
            (tokens(numbers), complete),
            "{prepare}; {execute}"
        );
    }
}

/// A COPY whose data the client sends in these pieces, or the server.
fn copied(sql: &str, pieces: &[&[u8]], tag: &str) -> Query {
    let mut host = host(Redaction::Literals);
    host.client(&[wire::query(sql)]);
    let data: Vec<_> = pieces.iter().map(|piece| wire::message(b'd', piece)).collect();
    let done = wire::message(b'c', b"");
    if sql.contains("STDIN") {
        host.server(&[wire::message(b'G', b"\0\0\0")]);
        for message in data {
            host.client(&[message]);
        }
        host.client(&[done]);
    } else {
        host.server(&[wire::message(b'H', b"\0\0\0")]);
        for message in data {
            host.server(&[message]);
        }
        host.server(&[done]);
    }
    host.server(&[wire::complete(tag), wire::ready(b'I')]);
    let mut queries = host.queries();
    assert_eq!(queries.len(), 1, "{sql}");
    queries.remove(0)
}

#[test]
fn copied_data_names_records() {
    let (written, returned) = (vec!["written"], vec!["returned"]);
    for (sql, data, tag, numbers, complete, sources) in [
        (
            "COPY customers (name, id) FROM STDIN",
            &[&b"a\t1\nb"[..], b"\t2\n"][..],
            "COPY 2",
            &[1, 2][..],
            true,
            &written,
        ),
        (
            "COPY public.customers (id, name) FROM STDIN WITH (FORMAT csv, HEADER)",
            &[b"id,name\n1,\"a\n\"\n2,b\n"],
            "COPY 2",
            &[1, 2],
            true,
            &written,
        ),
        (
            "COPY customers (id) FROM STDIN (FORMAT binary)",
            &[
                b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x08",
                b"\0\0\0\0\0\0\0\x07\xff\xff",
            ],
            "COPY 1",
            &[7],
            true,
            &written,
        ),
        // The server took fewer than were sent.
        (
            "COPY customers (id) FROM STDIN",
            &[b"1\n2\n"],
            "COPY 1",
            &[1, 2],
            false,
            &written,
        ),
        (
            "COPY customers (id) FROM STDIN",
            &[b"1\nx\n"],
            "COPY 2",
            &[1],
            false,
            &written,
        ),
        (
            "COPY customers (id, name) TO STDOUT",
            &[b"1\ta\n", b"2\tb\n"],
            "COPY 2",
            &[1, 2],
            true,
            &returned,
        ),
        (
            "COPY (SELECT name, id AS x FROM customers WHERE name > 'a') TO STDOUT CSV",
            &[b"a,1\n", b"b,2\n"],
            "COPY 2",
            &[1, 2],
            true,
            &returned,
        ),
        (
            "COPY (SELECT DISTINCT id FROM customers) TO STDOUT",
            &[b"1\n"],
            "COPY 1",
            &[1],
            false,
            &returned,
        ),
    ] {
        let query = copied(sql, data, tag);
        assert_eq!(
            said(&query),
            (tokens(numbers), complete, sources.clone()),
            "{sql}"
        );
    }
    // Which column is which is not in the text, or which rows are taken is not on the wire.
    for sql in [
        "COPY customers FROM STDIN",
        "COPY customers TO STDOUT",
        "COPY (SELECT * FROM customers) TO STDOUT",
        "COPY customers (id) FROM STDIN WHERE id > 1",
        "COPY customers (id) FROM STDIN (ON_ERROR ignore)",
        "COPY (SELECT id + 1 FROM customers) TO STDOUT",
    ] {
        assert_eq!(
            said(&copied(sql, &[b"1\n"], "COPY 1")),
            (vec![], false, vec![]),
            "{sql}"
        );
    }
    assert_eq!(
        copied("COPY customers (id) FROM STDIN", &[], "COPY 0").touched,
        None
    );
    assert_eq!(
        copied("COPY orders (id) FROM STDIN", &[b"1\n"], "COPY 1").touched,
        None
    );
}

/// Data that came before anybody knew what is wanted of it, and data with a gap, is nobody's.
/// Whichever way they go, and not those of a file that the server writes itself.
#[test]
fn copied_rows_are_counted() {
    let counted = |query: &Query| (query.rows, query.rows_affected);
    let taken = copied("COPY customers (id) FROM STDIN", &[b"1\n2\n"], "COPY 2");
    assert_eq!(counted(&taken), (0, Some(2)));
    let sent = copied("COPY customers (id) TO STDOUT", &[b"1\n", b"2\n"], "COPY 2");
    assert_eq!(counted(&sent), (2, None));
    let kept = asked("COPY customers (id) TO '/tmp/customers'", None, "COPY 2");
    assert_eq!(counted(&kept), (0, None));
}

#[test]
fn copied_data_that_was_not_seen_from_its_beginning_names_nobody() {
    let mut host = host(Redaction::Literals);
    let sql = "COPY customers (id) FROM STDIN";
    host.client(&[wire::query(sql), wire::message(b'd', b"1")]);
    host.server(&[wire::message(b'G', b"\0\0\0")]);
    host.client(&[wire::message(b'd', b"2\n3\n"), wire::message(b'c', b"")]);
    host.server(&[wire::complete("COPY 2"), wire::ready(b'I')]);
    // The next one, in one connection, from its beginning; and one that failed.
    host.client(&[wire::query(sql)]);
    host.server(&[wire::message(b'G', b"\0\0\0")]);
    host.client(&[wire::message(b'd', b"4\n"), wire::message(b'c', b"")]);
    host.server(&[wire::complete("COPY 1"), wire::ready(b'I')]);
    host.client(&[wire::query(sql)]);
    host.server(&[wire::message(b'G', b"\0\0\0")]);
    host.client(&[wire::message(b'd', b"5\n")]);
    host.server(&[wire::error("ERROR", "23505"), wire::ready(b'I')]);
    host.client(&[wire::message(b'd', b"6\n"), wire::message(b'c', b"")]);
    host.client(&[wire::query("SELECT name FROM customers WHERE id = 7")]);
    host.server(&[wire::complete("SELECT 0"), wire::ready(b'I')]);
    let queries = host.queries();
    assert_eq!(said(&queries[0]), (vec![], false, vec![]));
    assert_eq!(said(&queries[1]).0, tokens(&[4]));
    assert_eq!(queries[2].touched, None);
    assert_eq!(said(&queries[3]).0, tokens(&[7]));
}

#[test]
fn many_records_become_a_filter() {
    let rows: Vec<String> = (0..3_000).map(|number| number.to_string()).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let query = asked("SELECT id FROM customers", Some(&rows), "SELECT 3000");
    let subject = only(&query);
    assert!(subject.complete && subject.told.tokens.is_empty());
    assert_eq!(subject.told.filter_values, 3_000);
    let filter = subject.told.filter.as_ref().expect("a filter");
    assert!((0..3_000).all(|number| filter.contains(customer(number))));
}

#[test]
fn parameters_are_told_as_the_classification_says() {
    for redaction in [Redaction::Literals, Redaction::Clear] {
        let mut host = host(redaction);
        let sql = "UPDATE customers SET email = $1, name = $2, note = $3, other = $4 WHERE id = $5";
        host.client(&[
            wire::message(b'P', format!("\0{sql}\0\0\0").as_bytes()),
            bind(&["jane@example.com", "Jane", "secret note", "plain", "42"]),
            wire::execute("", 0),
            wire::sync(),
        ]);
        host.server(&[
            wire::parsed(),
            wire::bound(),
            wire::complete("UPDATE 1"),
            wire::ready(b'I'),
        ]);
        let query = host.queries().remove(0);
        let told = &query.touched.as_deref().expect("parameters").params;
        let shown: Vec<(u16, bool, &Shown)> = told
            .iter()
            .map(|one| (one.index, one.token.is_some(), &one.shown))
            .collect();
        assert_eq!(shown[0], (0, true, &Shown::Masked("j***@***".to_owned())));
        assert_eq!(shown[1], (1, true, &Shown::Clear));
        assert_eq!((shown[2].0, shown[2].1, shown[2].2), (2, false, &Shown::Dropped));
        assert_eq!(shown[3], (4, true, &Shown::Hidden));
        let kept: Vec<&[u8]> = query.params.iter().map(|param| param.kept.as_ref()).collect();
        let other: &[u8] = if redaction == Redaction::Clear {
            b"plain"
        } else {
            b""
        };
        assert_eq!(kept, [&b""[..], b"Jane", b"", other, b""]);
    }
}

#[test]
fn without_a_classification_nothing_is_told() {
    let mut host = Host::logged_in();
    host.client(&[wire::query("SELECT id FROM customers WHERE id = 42")]);
    host.server(&[
        wire::row_description(&[("id", 16_402, 1)]),
        wire::row("42"),
        wire::complete("SELECT 1"),
        wire::ready(b'I'),
    ]);
    assert_eq!(host.queries()[0].touched, None);
}
