//! One value, one token, by what a real server was asked and answered: `tests/recordings/subjects.txt`, a conversation of
//! PostgreSQL 15. For each of its tables: a value by several spellings of a literal, as a parameter in text without and with a
//! type and in binary, in a row in text and in binary, inserted both ways, given back by DELETE; then another value. When
//! it was recorded, the server found the one row by each of the spellings. `tests/tests/subjects.rs` does the same through a whole agent.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "what is not there fails the test"
)]

mod host;

use std::{collections::HashSet, sync::Arc};

use host::{COOKIE, Host, tcp};
use subjects::{Classification, Key, Token};
use tap_core::{Direction, Query, Redaction, Sensitive, Settings, Shown};

const RECORDING: &str = include_str!("../../../tests/recordings/subjects.txt");

/// Requests about a table beside those by a literal.
const BESIDE_LITERALS: usize = 9;

#[test]
fn one_value_has_one_token() {
    let kinds: Vec<(&str, &str)> = RECORDING
        .lines()
        .filter_map(|line| line.strip_prefix("# t").and_then(|rest| rest.split_once(' ')))
        .collect();
    assert_eq!(kinds.len(), 15);
    let entry = |(number, kind): &(&str, &str)| {
        format!(
            "[[column]]\nobject = \"public.t{number}\"\ncolumn = \"v\"\ntype = \"{kind}\"\nsubject = true\nmode = \"token\"\n"
        )
    };
    let file: String = kinds.iter().map(entry).collect();
    let mut host = Host::with(Settings {
        redaction: Redaction::Literals,
        sensitive: Some(Arc::new(Sensitive {
            classification: Classification::parse(&file).expect("a classification"),
            key: Key::new("k1", &std::array::from_fn(|index| index as u8)).expect("a key"),
        })),
        ..Settings::default()
    });
    host.accept(&tcp(COOKIE, host::BACKEND));
    for line in RECORDING.lines().filter(|line| !line.starts_with('#')) {
        let (side, digits) = line.split_once(' ').expect("a side and its bytes");
        let direction = if side == "F" {
            Direction::Frontend
        } else {
            Direction::Backend
        };
        host.segment(COOKIE, direction, &bytes(digits));
    }
    let queries = host.queries();
    let mut seen = HashSet::new();
    for (number, kind) in kinds {
        let object = format!("public.t{number}");
        let of_table: Vec<&Query> = queries
            .iter()
            .filter(|query| {
                let touched = query.touched.as_deref();
                touched
                    .is_some_and(|touched| touched.subjects.iter().any(|subject| subject.of.object == object))
            })
            .collect();
        assert!(
            of_table.len() >= BESIDE_LITERALS + 2,
            "{kind}: {}",
            of_table.len()
        );
        let (other, named) = of_table.split_last().expect("requests");
        let token = only(named[0]);
        assert!(seen.insert(token), "{kind}: a token of another value");
        for query in named {
            assert_eq!(only(query), token, "{kind}: {:?}", query.text);
            let subject = &query.touched.as_deref().expect("subjects").subjects[0];
            assert!(subject.complete, "{kind}: {:?}", query.text);
        }
        assert_ne!(only(other), token, "{kind}: another value");
        let told: Vec<_> = named
            .iter()
            .flat_map(|query| &query.touched.as_deref().expect("subjects").params)
            .collect();
        assert_eq!(told.len(), 4, "{kind}");
        assert!(
            told.iter()
                .all(|told| told.token == Some(token) && told.shown == Shown::Hidden),
            "{kind}"
        );
        assert!(
            named
                .iter()
                .all(|query| query.params.iter().all(|param| param.kept.is_empty())),
            "{kind}"
        );
    }
}

/// The one token of a query.
fn only(query: &Query) -> Token {
    let touched = query.touched.as_deref().expect("something touched");
    let [subject] = touched.subjects.as_slice() else {
        panic!("{} subjects: {:?}", touched.subjects.len(), query.text);
    };
    let [token] = subject.told.tokens.as_slice() else {
        panic!("{} tokens: {:?}", subject.told.tokens.len(), query.text);
    };
    *token
}

fn bytes(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
