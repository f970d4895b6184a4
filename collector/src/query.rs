//! `pgwitness-collector query`: read-only SQL from the command line.
//!
//! Owns how an answer is printed. Whom it asks, `source` knows. Text from events is shown with control characters escaped.

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use serde_json::Value;

use crate::{source::MarkedPlace, store::page::Page};

/// Asks with SQL; the tables are events, queries, sessions, principals, gaps and inventory (SHOW COLUMNS FROM events).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// One SELECT, WITH, EXPLAIN, SHOW or DESCRIBE.
    pub sql: String,
    /// Whom to ask.
    #[command(flatten)]
    pub place: MarkedPlace,
    /// How to print the answer.
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For reading.
    Table,
    /// One object a line.
    Json,
    /// RFC 4180, with a header line.
    Csv,
}

/// Asks and prints.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let page = args.place.open().await?.ask(&args.sql).await?;
    show(&page, args.format)
}

/// Prints an answer to standard output, and says on the other if it was cut off.
pub(crate) fn show(page: &Page, format: Format) -> anyhow::Result<ExitCode> {
    print_page(page, format)?;
    if page.truncated {
        eprintln!(
            "only the first {} rows are shown: add a LIMIT, or narrow the question",
            page.rows.len()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an answer to standard output.
pub(crate) fn print_page(page: &Page, format: Format) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match print(&mut out, page, format) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("cannot print the answer"),
    }
}

fn print(out: &mut impl Write, page: &Page, format: Format) -> std::io::Result<()> {
    match format {
        Format::Table => print_table(out, page),
        Format::Json => page.rows.iter().try_for_each(|row| {
            let object: serde_json::Map<String, Value> =
                page.columns.iter().cloned().zip(row.iter().cloned()).collect();
            writeln!(out, "{}", Value::Object(object))
        }),
        Format::Csv => {
            write_csv(out, page.columns.iter().cloned())?;
            page.rows
                .iter()
                .try_for_each(|row| write_csv(out, row.iter().map(plain)))
        }
    }
}

pub(crate) fn print_table(out: &mut impl Write, page: &Page) -> std::io::Result<()> {
    let shown = |value: &Value| shorten(&printable(&plain(value)));
    let rows: Vec<Vec<String>> = page
        .rows
        .iter()
        .map(|row| row.iter().map(shown).collect())
        .collect();
    let width = |column: usize, name: &String| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .chain([name])
            .map(|t| t.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = page
        .columns
        .iter()
        .enumerate()
        .map(|(n, name)| width(n, name))
        .collect();
    let mut line = |cells: &[String], numbers: &dyn Fn(usize) -> bool| -> std::io::Result<()> {
        let mut text = String::new();
        for (n, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let width = *width;
            let gap = if n == 0 { "" } else { "  " };
            text.push_str(&if numbers(n) {
                format!("{gap}{cell:>width$}")
            } else {
                format!("{gap}{cell:<width$}")
            });
        }
        writeln!(out, "{}", text.trim_end())
    };
    let number = |n: usize| {
        page.rows
            .iter()
            .all(|row| row.get(n).is_none_or(|v| v.is_number() || v.is_null()))
    };
    line(&page.columns, &number)?;
    line(
        &widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>(),
        &|_| false,
    )?;
    rows.iter().try_for_each(|row| line(row, &number))
}

/// The value as text; NULL is empty.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Statements are hostile text: no escape sequence of theirs reaches the terminal, no line break the layout.
pub(crate) fn printable(text: &str) -> String {
    let unsafe_to_show = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' | '\r' => out.push(' '),
            c if unsafe_to_show(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_CELL_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

pub(crate) fn write_csv(out: &mut impl Write, cells: impl Iterator<Item = String>) -> std::io::Result<()> {
    let quoted = cells.map(|cell| {
        if cell.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell
        }
    });
    write!(out, "{}\r\n", quoted.collect::<Vec<_>>().join(","))
}

/// Widest cell of a table: longer values are for the other formats.
const MAX_CELL_CHARS: usize = 120;

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  query \"SELECT principal, statements, roles FROM principals\"
  query \"SELECT event_id, statement FROM queries WHERE outcome = 'error' ORDER BY ts_start DESC LIMIT 20\"
  query \"SHOW COLUMNS FROM events\"";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed(format: Format) -> String {
        let page = Page {
            columns: vec!["who".into(), "n".into()],
            rows: vec![
                vec![json!("a,\"\u{1b}[31m\n"), json!(12)],
                vec![json!(["x", "y"]), Value::Null],
            ],
            truncated: false,
        };
        let mut out = Vec::new();
        print(&mut out, &page, format).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_aligns_numbers_and_shows_no_escape_sequences() {
        assert_eq!(
            printed(Format::Table),
            "who              n\n--------------  --\na,\"\\u{1b}[31m   12\nx, y\n"
        );
    }

    #[test]
    fn json_and_csv_keep_the_text_as_it_is() {
        assert_eq!(
            printed(Format::Json).lines().next().unwrap(),
            r#"{"who":"a,\"\u001b[31m\n","n":12}"#
        );
        assert_eq!(
            printed(Format::Csv),
            "who,n\r\n\"a,\"\"\u{1b}[31m\n\",12\r\n\"x, y\",\r\n"
        );
    }

    #[test]
    fn text_that_turns_the_reading_direction_is_escaped() {
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
    }
}
