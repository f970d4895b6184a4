//! Settings that a client gives when it connects: by name in the startup packet, and in its `options` (manual,
//! "StartupMessage"; `pg_split_opts` and `process_postgres_switches` in the server's sources). They are what `RESET`
//! goes back to.

use std::borrow::Cow;

/// Names of settings and their values, in the order in which the server applies them.
pub(super) fn settings(parameters: &[(bytes::Bytes, bytes::Bytes)]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut settings = Vec::new();
    for (_, value) in parameters.iter().filter(|(name, _)| name.as_ref() == b"options") {
        options(&String::from_utf8_lossy(value), &mut settings);
    }
    for (name, value) in parameters {
        if !NO_SETTINGS.contains(&name.as_ref()) && !name.starts_with(b"_pq_.") {
            settings.push((text(name), text(value)));
        }
    }
    settings
}

const NO_SETTINGS: [&[u8]; 4] = [b"user", b"database", b"options", b"replication"];

fn options(options: &str, settings: &mut Vec<(String, String)>) {
    let words = words(options);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let assigned: Cow<'_, str> = match word.as_str() {
            "-c" => match words.next() {
                Some(next) => next.into(),
                None => return,
            },
            other => match other.strip_prefix("--").or_else(|| other.strip_prefix("-c")) {
                Some(assigned) => assigned.into(),
                None => continue,
            },
        };
        if let Some((name, value)) = assigned.split_once('=') {
            settings.push((name.replace('-', "_"), value.to_owned()));
        }
    }
}

/// Split at white space; a backslash makes the next character an ordinary one.
fn words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = options.chars();
    while let Some(next) = rest.next() {
        if next.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let next = if next == '\\' { rest.next() } else { Some(next) };
        word.get_or_insert_default().extend(next);
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::settings;

    #[test]
    fn options_are_read_as_the_server_splits_them() {
        let packet = [
            ("user", "u"),
            ("app.tenant", "t"),
            (
                "options",
                "-c app.end_user=bob\\ b --app.a-b=x -d 5 -capp.c=\\\\ -c",
            ),
            ("_pq_.x", "y"),
        ];
        let packet = packet.map(|(name, value)| (name.into(), value.into()));
        let expected = [
            ("app.end_user", "bob b"),
            ("app.a_b", "x"),
            ("app.c", "\\"),
            ("app.tenant", "t"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(settings(&packet), expected);
    }
}
