//! Every value of `values.tsv`, which a PostgreSQL server made (see `values.sql`), reads as the server prints it.

#![expect(clippy::expect_used, clippy::panic, reason = "the file is our own")]

use pg_wire::{Format, ValueText, text_of};

#[test]
fn every_value_reads_as_the_server_prints_it() {
    let mut wrong = Vec::new();
    let mut values = 0;
    for line in include_str!("values.tsv").lines() {
        let [oid, bytes, printed, made] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not four columns: {line}");
        };
        let bytes = unhex(bytes);
        let expected = ValueText::Text(unescaped(printed));
        let read = text_of(oid.parse().expect("an oid"), Format::Binary, &bytes);
        if read != expected {
            wrong.push(format!("{made}: {read:?}, not {expected:?}"));
        }
        values += 1;
        // No cut panics.
        for length in 0..bytes.len() {
            let _ = text_of(oid.parse().expect("an oid"), Format::Binary, &bytes[..length]);
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(values > 400, "{values} values");
}

fn unhex(digits: &str) -> Vec<u8> {
    let pairs = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).expect("ascii"));
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal"))
        .collect()
}

/// What COPY escapes in its text format.
fn unescaped(column: &str) -> String {
    let mut text = String::new();
    let mut characters = column.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => match characters.next().expect("an escape") {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                'v' => '\u{b}',
                'f' => '\u{c}',
                '\\' => '\\',
                other => panic!("escape {other}"),
            },
            other => other,
        });
    }
    text
}
