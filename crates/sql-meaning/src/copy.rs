//! How `COPY … FROM STDIN` and `COPY … TO STDOUT` write their data, from the statement's options (manual, "COPY"; gram.y,
//! `CopyStmt`, old forms too). Refuses options that change which rows or values there are, and those that it does not know.

use crate::lexer::{Kind, lex};
use crate::literal::{self, Backslash};
use crate::phrase::Phrase;

/// How copied data is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// It is the result of a query that is copied, no table.
    pub of_query: bool,
    /// The form.
    pub format: CopyFormat,
    /// Stands between fields.
    pub delimiter: u8,
    /// A field that is written so is NULL.
    pub null: String,
    /// Stands around fields of CSV.
    pub quote: u8,
    /// Stands before a quote within quotes.
    pub escape: u8,
    /// The first line has names.
    pub header: bool,
}

/// The form of copied data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyFormat {
    /// Lines of fields with escapes.
    #[default]
    Text,
    /// Lines of fields that may be quoted.
    Csv,
    /// Fields behind their lengths.
    Binary,
}

/// How the data of a COPY over the connection is written. `None`: it is no such statement, or not surely read.
#[must_use]
pub fn copy_options(sql: &str, backslash: Backslash) -> Option<CopyOptions> {
    let tokens = lex(sql);
    let phrase = Phrase { sql, tokens: &tokens };
    let direction = phrase.find(1, &["FROM", "TO"]).filter(|_| phrase.is(0, "COPY"))?;
    if !phrase.any(direction + 1, &["STDIN", "STDOUT"]) {
        return None;
    }
    let mut reader = Reader {
        phrase,
        backslash,
        at: direction + 2,
        given: Given::default(),
    };
    if phrase.is(1, "BINARY") && !phrase.any(2, &["FROM", "TO"]) {
        reader.given.format = CopyFormat::Binary;
    }
    reader.skip("WITH");
    match reader.symbol("(") {
        true => reader.list()?,
        false => reader.words()?,
    }
    while reader.symbol(";") {}
    if reader.at < phrase.len() {
        return None;
    }
    let of_query = phrase.symbol(1, "(");
    Some(CopyOptions {
        of_query,
        ..reader.given.options()?
    })
}

/// Options as far as they are given.
#[derive(Default)]
struct Given {
    format: CopyFormat,
    delimiter: Option<u8>,
    null: Option<String>,
    quote: Option<u8>,
    escape: Option<u8>,
    header: bool,
}

impl Given {
    fn options(self) -> Option<CopyOptions> {
        let csv = self.format == CopyFormat::Csv;
        let quote = self.quote.unwrap_or(b'"');
        let options = CopyOptions {
            of_query: false,
            format: self.format,
            delimiter: self.delimiter.unwrap_or(if csv { b',' } else { b'\t' }),
            null: self
                .null
                .unwrap_or_else(|| if csv { "" } else { "\\N" }.to_owned()),
            quote,
            escape: self.escape.unwrap_or(quote),
            header: self.header,
        };
        // The server refuses these.
        let special = |byte| matches!(byte, b'\n' | b'\r');
        let unfit = special(options.delimiter)
            || options.null.contains(['\n', '\r'])
            || (csv && options.delimiter == quote)
            || (!csv && (options.delimiter == b'\\' || options.delimiter.is_ascii_alphanumeric()));
        (!unfit).then_some(options)
    }
}

struct Reader<'a> {
    phrase: Phrase<'a>,
    backslash: Backslash,
    at: usize,
    given: Given,
}

impl Reader<'_> {
    /// `(FORMAT csv, HEADER, …)`, behind the bracket.
    fn list(&mut self) -> Option<()> {
        loop {
            let name = self.phrase.word(self.at).to_ascii_uppercase();
            self.at += 1;
            match name.as_str() {
                "FORMAT" => {
                    let format = match self.phrase.kind(self.at)? {
                        Kind::Literal => self.string()?,
                        _ => {
                            self.at += 1;
                            self.phrase.identifier(self.at - 1)?
                        }
                    };
                    self.given.format = match format.as_str() {
                        "text" => CopyFormat::Text,
                        "csv" => CopyFormat::Csv,
                        "binary" => CopyFormat::Binary,
                        _ => return None,
                    };
                }
                "HEADER" => self.given.header = self.flag(&["TRUE", "ON", "MATCH"])?,
                "FREEZE" => {
                    self.flag(&["TRUE", "ON"])?;
                }
                name => self.value(name)?,
            }
            match (self.symbol(","), self.symbol(")")) {
                (true, _) => {}
                (false, true) => return Some(()),
                (false, false) => return None,
            }
        }
    }

    /// `CSV HEADER DELIMITER AS ';'`: the form before 9.0.
    fn words(&mut self) -> Option<()> {
        loop {
            let name = self.phrase.word(self.at).to_ascii_uppercase();
            if name.is_empty() {
                return Some(());
            }
            self.at += 1;
            match name.as_str() {
                "BINARY" => self.given.format = CopyFormat::Binary,
                "CSV" => self.given.format = CopyFormat::Csv,
                "HEADER" => self.given.header = true,
                "FREEZE" => {}
                name => {
                    self.skip("AS");
                    self.value(name)?;
                }
            }
        }
    }

    fn value(&mut self, name: &str) -> Option<()> {
        match name {
            "DELIMITER" => self.given.delimiter = Some(self.byte()?),
            "QUOTE" => self.given.quote = Some(self.byte()?),
            "ESCAPE" => self.given.escape = Some(self.byte()?),
            "NULL" => self.given.null = Some(self.string()?),
            _ => return None,
        }
        Some(())
    }

    /// Without a value it is on.
    fn flag(&mut self, on: &[&str]) -> Option<bool> {
        let phrase = self.phrase;
        if phrase.symbol(self.at, ",") || phrase.symbol(self.at, ")") {
            return Some(true);
        }
        self.at += 1;
        let is_on = phrase.any(self.at - 1, on);
        (is_on || phrase.any(self.at - 1, &["FALSE", "OFF"])).then_some(is_on)
    }

    fn string(&mut self) -> Option<String> {
        let kind = self.phrase.kind(self.at).filter(|kind| *kind == Kind::Literal);
        let value = literal::value(kind, self.phrase.text(self.at), self.backslash);
        self.at += 1;
        value
    }

    fn byte(&mut self) -> Option<u8> {
        match self.string()?.as_bytes() {
            [byte] => Some(*byte),
            _ => None,
        }
    }

    fn skip(&mut self, word: &str) {
        self.at += usize::from(self.phrase.is(self.at, word));
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let is = self.phrase.symbol(self.at, symbol);
        self.at += usize::from(is);
        is
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_every_form_are_read_or_refused() {
        let read = |sql: &str| {
            copy_options(sql, Backslash::Unknown).map(|options| {
                let CopyOptions {
                    of_query,
                    format,
                    delimiter,
                    null,
                    quote,
                    escape,
                    header,
                } = options;
                assert_eq!(of_query, sql.starts_with("COPY ("));
                let signs: String = [delimiter, quote, escape].map(char::from).iter().collect();
                format!("{format:?} {signs:?} {null:?} {header}")
            })
        };
        for (sql, expected) in [
            ("COPY t FROM STDIN", r#"Text "\t\"\"" "\\N" false"#),
            ("COPY s.t (a, b) TO STDOUT;", r#"Text "\t\"\"" "\\N" false"#),
            (
                "COPY (SELECT a FROM t) TO stdout WITH CSV",
                r#"Csv ",\"\"" "" false"#,
            ),
            (
                "COPY t FROM STDIN (FORMAT csv, HEADER, DELIMITER ';', NULL 'x', QUOTE '$', ESCAPE '!')",
                r#"Csv ";$!" "x" true"#,
            ),
            (
                "COPY t FROM STDIN WITH (FORMAT 'csv', HEADER match, FREEZE)",
                r#"Csv ",\"\"" "" true"#,
            ),
            (
                "COPY t FROM STDIN WITH (HEADER false, DELIMITER E'\\t')",
                r#"Text "\t\"\"" "\\N" false"#,
            ),
            (
                "COPY t FROM STDIN DELIMITER AS '|' NULL AS '' CSV HEADER QUOTE '''' ",
                r#"Csv "|''" "" true"#,
            ),
            ("COPY BINARY t TO STDOUT", r#"Binary "\t\"\"" "\\N" false"#),
            (
                "COPY t FROM STDIN (FORMAT binary)",
                r#"Binary "\t\"\"" "\\N" false"#,
            ),
        ] {
            assert_eq!(read(sql).as_deref(), Some(expected), "{sql}");
        }
        for sql in [
            "COPY t FROM '/tmp/x'",
            "COPY t FROM PROGRAM 'x'",
            "COPY t FROM STDIN WHERE a > 1",
            "COPY t FROM STDIN (FORMAT csv, FORCE_NULL (a))",
            "COPY t FROM STDIN CSV FORCE NOT NULL a",
            "COPY t FROM STDIN (ON_ERROR ignore)",
            "COPY t FROM STDIN (DEFAULT 'd')",
            "COPY t FROM STDIN (ENCODING 'LATIN1')",
            "COPY t FROM STDIN (NULL '\\N')",
            "COPY t FROM STDIN (DELIMITER '\\t')",
            "COPY t FROM STDIN (DELIMITER 'xx')",
            "COPY t FROM STDIN (HEADER",
            "COPY t FROM STDIN (FORMAT csv) x",
            "SELECT a FROM t",
            "",
        ] {
            assert_eq!(read(sql), None, "{sql}");
        }
    }
}
