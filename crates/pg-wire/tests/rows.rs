//! Values of chosen columns in rows: which are kept, in which format, and when it is said that some are missing.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what is not there fails the test"
)]

mod conversation;

use std::sync::Arc;

use conversation::*;
use pg_wire::{Column, Direction, Exchange, Format, KeptRows, Limits, Outcome, Session};

/// All columns of tables that are called `id`.
fn ids(text: Option<&[u8]>, columns: &[Column]) -> Vec<u16> {
    let text = text.expect("a text");
    assert!(
        text.starts_with(b"SELECT") && !text.contains(&b';'),
        "the statement alone"
    );
    (0..)
        .zip(columns)
        .filter(|(_, column)| column.table_oid != 0 && column.name.as_ref() == b"id")
        .map(|(index, _)| index)
        .collect()
}

/// The statements of these tests hold no semicolon.
fn statements(sql: &str) -> Vec<std::ops::Range<usize>> {
    let start = |part: &str| part.as_ptr() as usize - sql.as_ptr() as usize;
    let range = |part: &str| start(part)..start(part) + part.len();
    sql.split(';').map(str::trim).map(range).collect()
}

fn watching(limits: &Limits) -> Session {
    Session::new(limits.clone())
        .with_split(statements)
        .with_rows_of(Arc::new(ids))
}

fn play(conversation: &Conversation) -> Vec<Exchange> {
    let mut player = Player::new(watching(&Limits::default()));
    player.turns(&conversation.turns);
    exchanges(player.close())
}

fn rows(exchange: &Exchange, result: usize) -> &KeptRows {
    exchange.results[result].kept.as_deref().expect("kept rows")
}

fn values(rows: &KeptRows) -> Vec<Option<String>> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    rows.values(0).map(|value| value.map(text)).collect()
}

fn some(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

fn wide(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        body.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
        body.extend(value.unwrap_or_default().as_bytes());
    }
    message(b'D', &body)
}

/// As `bind`, asking for these formats.
fn bind_for(portal: &str, statement: &str, formats: &[u16]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\0\0\0").into_bytes();
    body.extend((formats.len() as u16).to_be_bytes());
    formats
        .iter()
        .for_each(|format| body.extend(format.to_be_bytes()));
    message(b'B', &body)
}

const CUSTOMERS: &[(&str, u32, i16)] = &[("name", 16_402, 2), ("id", 16_402, 1), ("id", 0, 0)];

fn query_of_customers() -> Conversation {
    Conversation::logged_in()
        .client(&[query(
            "SELECT name, id, 7 AS id FROM customers; SELECT 1; SELECT id FROM t",
        )])
        .server(&[
            row_description(CUSTOMERS),
            wide(&[Some("ann"), Some("42"), Some("7")]),
            wide(&[None, Some("43"), Some("7")]),
            wide(&[Some("bob"), None, None]),
            complete("SELECT 3"),
            row_description(&[("?column?", 0, 0)]),
            row("1"),
            complete("SELECT 1"),
            row_description(&[("id", 5, 1)]),
            row("44"),
            complete("SELECT 1"),
            ready(b'I'),
        ])
        .client(&[terminate()])
}

fn check_query_of_customers(exchanges: &[Exchange]) {
    let [exchange] = exchanges else {
        panic!("{} exchanges", exchanges.len());
    };
    let first = rows(exchange, 0);
    assert_eq!(values(first), [Some("42".into()), Some("43".into()), None]);
    assert!(first.is_complete());
    assert_eq!(
        (first.columns()[0].index, first.columns()[0].format),
        (1, Format::Text)
    );
    assert!(exchange.results[1].kept.is_none());
    assert_eq!(values(rows(exchange, 2)), some(&["44"]));
    assert!(!format!("{exchange:?}").contains("43"));
}

#[test]
fn chosen_values_of_each_result_of_a_string() {
    check_query_of_customers(&play(&query_of_customers()));
    // Without a choice nothing is looked at.
    let exchanges = query_of_customers().exchanges();
    assert!(exchanges[0].results.iter().all(|result| result.kept.is_none()));
}

#[test]
fn however_the_bytes_are_cut() {
    let conversation = query_of_customers();
    for cut in 1..conversation
        .turns
        .iter()
        .map(|turn| turn.1.len())
        .max()
        .unwrap_or(0)
    {
        let mut player = Player::new(watching(&Limits::default()));
        for (direction, bytes) in &conversation.turns {
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            player.bytes(*direction, first);
            player.bytes(*direction, second);
        }
        check_query_of_customers(&exchanges(player.close()));
    }
}

#[test]
fn a_prepared_statement_is_described_once_and_each_bind_says_in_which_format() {
    let conversation = Conversation::logged_in()
        .client(&[
            parse("s", "SELECT name, id, 7 AS id FROM customers"),
            describe('S', "s"),
            sync(),
        ])
        .server(&[
            parsed(),
            parameter_description(),
            row_description(CUSTOMERS),
            ready(b'I'),
        ])
        .client(&[bind_for("", "s", &[]), execute("", 1), sync()])
        .server(&[bound(), wide(&[None, Some("1"), None]), suspended(), ready(b'T')])
        // Continued without anything in between: the row comes first.
        .client(&[execute("", 1), sync()])
        .server(&[wide(&[None, Some("2"), None]), suspended(), ready(b'T')])
        .client(&[bind_for("", "s", &[1]), execute("", 0), sync()])
        .server(&[
            bound(),
            wide(&[None, Some("\0\0\0*"), None]),
            complete("SELECT 1"),
            ready(b'I'),
        ])
        .client(&[bind_for("", "s", &[0, 1, 0]), execute("", 0), sync()])
        .server(&[
            bound(),
            wide(&[None, Some("\0\0\0+"), None]),
            complete("SELECT 1"),
            ready(b'I'),
        ])
        // Fewer formats than columns, which the server would refuse.
        .client(&[bind_for("", "s", &[0, 1]), execute("", 0), sync()])
        .server(&[
            bound(),
            wide(&[None, Some("x"), None]),
            complete("SELECT 1"),
            ready(b'I'),
        ]);
    let exchanges = play(&conversation);
    let seen: Vec<_> = exchanges
        .iter()
        .map(|exchange| {
            let rows = rows(exchange, 0);
            (rows.columns()[0].format, values(rows))
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Format::Text, some(&["1"])),
            (Format::Text, some(&["2"])),
            (Format::Binary, some(&["\0\0\0*"])),
            (Format::Binary, some(&["\0\0\0+"])),
            (Format::Binary, some(&["x"])),
        ]
    );
    assert_eq!(exchanges[0].results[0].outcome, Outcome::Suspended);
}

#[test]
fn what_is_too_much_is_said_to_be_missing() {
    let limits = Limits {
        row_value_bytes: 4,
        rows_bytes: 100,
        ..Limits::default()
    };
    let conversation = Conversation::logged_in()
        .client(&[query("SELECT id FROM t")])
        .server(&[
            row_description(&[("id", 5, 1)]),
            row("1"),
            row("12345"),
            row("2"),
            complete("SELECT 3"),
            ready(b'I'),
        ])
        .client(&[query("SELECT id FROM t")])
        .server(
            &[
                vec![row_description(&[("id", 5, 1)])],
                (10..30).map(|n| row(&n.to_string())).collect(),
                vec![complete("SELECT 20"), ready(b'I')],
            ]
            .concat(),
        )
        .client(&[query("SELECT id FROM t")])
        .server(&[
            row_description(&[("id", 5, 1)]),
            row("3"),
            complete("SELECT 1"),
            ready(b'I'),
        ]);
    let mut player = Player::new(watching(&limits));
    player.turns(&conversation.turns);
    let exchanges = exchanges(player.close());
    let kept: Vec<_> = exchanges.iter().map(|exchange| rows(exchange, 0)).collect();
    assert_eq!(
        (values(kept[0]), kept[0].is_complete()),
        (some(&["1", "2"]), false)
    );
    assert!(
        !kept[1].is_complete() && values(kept[1]).len() < 20 && values(kept[1])[..2] == some(&["10", "11"])
    );
    assert_eq!((values(kept[2]), kept[2].is_complete()), (some(&["3"]), true));
}

#[test]
fn a_gap_in_a_row_is_stepped_over_and_what_it_hides_is_missing() {
    let before = Conversation::logged_in().client(&[query("SELECT name, id FROM t")]);
    let long = "n".repeat(100);
    // Type and length, the count, the length of the name, ten bytes of it.
    for (missing, complete_rows, expected) in [(50, true, &["42", "43"][..]), (95, false, &["43"])] {
        let mut player = Player::new(watching(&Limits::default()));
        player.turns(&before.turns);
        player.bytes(
            Direction::Backend,
            &row_description(&[("name", 5, 2), ("id", 5, 1)]),
        );
        let first = wide(&[Some(&long), Some("42")]);
        player.bytes(Direction::Backend, &first[..5 + 2 + 4 + 10]);
        player.gap(Direction::Backend, missing as u64, true);
        player.bytes(Direction::Backend, &first[5 + 2 + 4 + 10 + missing..]);
        player.bytes(
            Direction::Backend,
            &[wide(&[Some("n"), Some("43")]), complete("SELECT 2"), ready(b'I')].concat(),
        );
        let exchanges = exchanges(player.close());
        let rows = rows(&exchanges[0], 0);
        assert_eq!(
            (values(rows), rows.is_complete()),
            (some(expected), complete_rows),
            "{missing} missing"
        );
        assert_eq!(exchanges[0].results[0].rows, 2);
    }
}
