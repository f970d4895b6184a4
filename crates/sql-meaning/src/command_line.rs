//! Process arguments without secrets and without values.
//!
//! Owns what may be shown of a command line. Arguments are not SQL, but carry it, connection strings and
//! passwords; where an argument could be either, the stricter treatment applies.

use crate::lexer::{Kind, lex};
use crate::phrase::Phrase;
use crate::redaction::{render, veil};
use crate::secrets::{MASK, mask_embedded};

/// The arguments with passwords as `***` and with SQL redacted as by [`crate::redact`].
///
/// Masked: values of names that speak of a secret (`PGPASSWORD=…`, `--password=…`, the argument after a bare
/// `--password`), `password=` in connection strings, passwords in URLs. Redacted: what follows `-c` or
/// `--command`, also joined, and whatever looks like SQL. There, quoted names that are no plain
/// identifiers become `?` too: in a shell's argument they may quote a whole statement.
pub fn mask_command_line(args: &[String]) -> Vec<String> {
    let mut expected = Expected::Anything;
    let mask = |arg: &String| {
        let (masked, next) = match expected {
            Expected::Secret if !arg.starts_with('-') => (MASK.to_owned(), Expected::Anything),
            Expected::Sql => (sql(arg), Expected::Anything),
            _ => argument(arg),
        };
        expected = next;
        masked
    };
    args.iter().map(mask).collect()
}

/// What the argument before says of the next one.
#[derive(Clone, Copy)]
enum Expected {
    Anything,
    Sql,
    Secret,
}

fn argument(arg: &str) -> (String, Expected) {
    if let Some((name, value)) = arg.split_once('=').filter(|(name, _)| is_name(name)) {
        let conninfo = !name.starts_with('-') && name.chars().all(|c| c.is_ascii_lowercase());
        let masked = if speaks_of_secret(name) && !conninfo {
            format!("{name}={MASK}")
        } else if is_command(name) || (name.starts_with("--") && looks_like_sql(value)) {
            format!("{name}={}", sql(value))
        } else {
            text(arg)
        };
        return (masked, Expected::Anything);
    }
    if arg.starts_with("--") && is_name(arg) {
        let next = if speaks_of_secret(arg) {
            Expected::Secret
        } else if is_command(arg) {
            Expected::Sql
        } else {
            Expected::Anything
        };
        return (arg.to_owned(), next);
    }
    let letters = arg.strip_prefix('-').unwrap_or_default();
    if letters.ends_with('c') && letters.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return (arg.to_owned(), Expected::Sql);
    }
    // `-cSELECT…` is redacted whether or not it looks like SQL: `-cTABLE"t"` does not.
    let masked = if letters.starts_with('c') {
        sql(arg)
    } else {
        text(arg)
    };
    (masked, Expected::Anything)
}

/// An option's or a variable's name.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// `--command` and what `getopt_long` takes for it.
fn is_command(name: &str) -> bool {
    name.len() > "--".len() && "--command".starts_with(name)
}

fn speaks_of_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "passw",
        "passphrase",
        "secret",
        "token",
        "pwd",
        "api_key",
        "api-key",
    ]
    .iter()
    .any(|key| name.contains(key))
}

fn text(arg: &str) -> String {
    if looks_like_sql(arg) {
        sql(arg)
    } else {
        mask_embedded(arg).into_owned()
    }
}

/// White space and either a quote or a word that begins a statement.
fn looks_like_sql(arg: &str) -> bool {
    let begins = |word: &str| BEGINNINGS.iter().any(|verb| word.eq_ignore_ascii_case(verb));
    arg.contains(char::is_whitespace)
        && (arg.contains(['\'', '"', '$'])
            || arg
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .any(begins))
}

const BEGINNINGS: [&str; 26] = [
    "ALTER", "CALL", "COMMENT", "COPY", "CREATE", "DECLARE", "DELETE", "DO", "DROP", "EXECUTE", "EXPLAIN",
    "FROM", "GRANT", "INSERT", "MERGE", "NOTIFY", "PREPARE", "REVOKE", "SELECT", "SET", "TABLE", "TRUNCATE",
    "UPDATE", "VALUES", "WHERE", "WITH",
];

fn sql(arg: &str) -> String {
    let masked = mask_embedded(arg);
    // An option's dashes would begin a comment.
    let dashes = masked.len() - masked.trim_start_matches('-').len();
    let (option, text) = masked.split_at(dashes);
    let mut tokens = veil(text, lex(text));
    let phrase = Phrase {
        sql: text,
        tokens: &tokens,
    };
    let plain = |at: usize| {
        let name = phrase.text(at).trim_matches('"');
        name.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.' | b'-'))
    };
    let hide: Vec<_> = (0..tokens.len())
        .filter(|&at| phrase.kind(at) == Some(Kind::Quoted) && !plain(at))
        .collect();
    for at in hide {
        if let Some(token) = tokens.get_mut(at) {
            token.kind = Kind::Literal;
        }
    }
    format!("{option}{}", render(text, &tokens))
}
