//! Whether a text may change what names mean to a server: a look at the words that begin its statements.
//!
//! Errs on the side of yes, because whoever asks wants to know when a name that was looked up is not sure any more. Refuses to
//! know what became of the statement. Source: the commands of the manual's part VI; `GetCommandLogLevel` in the server's
//! tcop/utility.c has those that it calls `ddl`.

/// What a text may define. The greater one includes the lesser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defines {
    /// No name gets another meaning.
    #[default]
    Nothing,
    /// Names of its own session only: temporary tables.
    Temporary,
    /// Names of its database.
    Names,
    /// Of all databases: roles, what they may do, and settings that sessions begin with. Code that nobody sees, too.
    Shared,
}

/// What running a text may define.
#[must_use]
pub fn defines(sql: &[u8]) -> Defines {
    let mut found = Defines::Nothing;
    let mut words = Words { sql, at: 0 };
    let mut begins = true;
    while let Some(token) = words.next() {
        match token {
            Token::End => begins = true,
            Token::Word(word) if begins => {
                begins = false;
                found = found.max(of(word, words.clone()));
            }
            // `(SELECT …) INTO` is none.
            Token::Word(_) | Token::Other => {}
        }
    }
    found
}

/// What the statement that begins with this word may define; `rest` is what follows.
fn of(word: &[u8], rest: Words<'_>) -> Defines {
    let is = |one: &str| word.eq_ignore_ascii_case(one.as_bytes());
    if is("CREATE") {
        created(rest)
    } else if is("ALTER") || is("DROP") {
        if rest.clone().word_is(&SHARED) {
            Defines::Shared
        } else {
            Defines::Names
        }
    } else if ["GRANT", "REVOKE", "REASSIGN", "DO", "CALL"]
        .iter()
        .any(|one| is(one))
    {
        Defines::Shared
    } else if is("IMPORT") || (is("COMMIT") && rest.clone().word_is(&["PREPARED"])) {
        Defines::Names
    } else if is("EXPLAIN") {
        // Of what it runs.
        if rest.has(|word, _| word.eq_ignore_ascii_case(b"CREATE") || is_into(word)) {
            Defines::Names
        } else {
            Defines::Nothing
        }
    } else if is("SELECT") || is("WITH") {
        let writes =
            |before: &[u8]| before.eq_ignore_ascii_case(b"INSERT") || before.eq_ignore_ascii_case(b"MERGE");
        if rest.has(|word, before| is_into(word) && !writes(before)) {
            Defines::Names
        } else {
            Defines::Nothing
        }
    } else {
        Defines::Nothing
    }
}

fn created(mut rest: Words<'_>) -> Defines {
    let scoped = rest.clone();
    if rest.clone().word_is(&["LOCAL", "GLOBAL"]) {
        rest.word();
    }
    if rest.word_is(&["TEMP", "TEMPORARY"]) {
        return Defines::Temporary;
    }
    let mut what = scoped;
    if what.clone().word_is(&["UNIQUE"]) {
        what.word();
    }
    // Found by the name of an index is nothing that is read.
    if what.clone().word_is(&["INDEX"]) {
        return Defines::Nothing;
    }
    if what.word_is(&SHARED) {
        return Defines::Shared;
    }
    Defines::Names
}

/// What is of all databases. An extension's script is code that nobody sees.
const SHARED: [&str; 8] = [
    "ROLE",
    "USER",
    "GROUP",
    "DATABASE",
    "SYSTEM",
    "DEFAULT",
    "OWNED",
    "EXTENSION",
];

fn is_into(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"INTO")
}

enum Token<'a> {
    Word(&'a [u8]),
    /// A semicolon; in a literal, too.
    End,
    Other,
}

/// The words of a text. Comments are passed over; what stands in quotes is read as words, which may find more than there is.
#[derive(Clone)]
struct Words<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = self.sql.get(self.at..)?;
            let first = *rest.first()?;
            if first.is_ascii_whitespace() || matches!(first, b'(' | b')') {
                self.at += 1;
            } else if rest.starts_with(b"--") {
                let line = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                self.at += line.unwrap_or(rest.len());
            } else if rest.starts_with(b"/*") {
                self.at += comment(rest);
            } else if first == b';' {
                self.at += 1;
                return Some(Token::End);
            } else if is_letter(first) {
                let length = rest.iter().position(|byte| !is_letter(*byte));
                let length = length.unwrap_or(rest.len());
                self.at += length;
                return Some(Token::Word(rest.get(..length).unwrap_or_default()));
            } else {
                self.at += 1;
                return Some(Token::Other);
            }
        }
    }

    /// The next word, if one follows.
    fn word(&mut self) -> Option<&'a [u8]> {
        match self.next()? {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn word_is(&mut self, words: &[&str]) -> bool {
        let word = self.word().unwrap_or_default();
        words.iter().any(|one| word.eq_ignore_ascii_case(one.as_bytes()))
    }

    /// Whether a word follows in this statement that `is` wanted, given with the word before it.
    fn has(mut self, is: impl Fn(&[u8], &[u8]) -> bool) -> bool {
        let mut before: &[u8] = b"";
        while let Some(token) = self.next() {
            match token {
                Token::End => return false,
                Token::Word(word) if is(word, before) => return true,
                Token::Word(word) => before = word,
                Token::Other => {}
            }
        }
        false
    }
}

/// Length of the comment at the front; they nest.
fn comment(text: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest.starts_with(b"*/") {
            (at, depth) = (at + 2, depth.saturating_sub(1));
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::{Defines, defines};

    #[test]
    fn what_may_give_names_another_meaning() {
        use Defines::{Names, Nothing, Shared, Temporary};
        for (sql, expected) in [
            ("", Nothing),
            ("SELECT created FROM t WHERE a = 1 -- DROP TABLE t", Nothing),
            ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", Nothing),
            (
                "WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM x",
                Nothing,
            ),
            (
                "with x as (merge into t using u on true when matched then delete returning 1) select 1",
                Nothing,
            ),
            ("SELECT a INTO u FROM t", Names),
            ("/* a /* b */ */ select a into temp u from t", Names),
            ("WITH x AS (SELECT 1 AS a) SELECT a INTO u FROM x", Names),
            ("create table t (a int)", Names),
            ("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)", Nothing),
            ("CREATE INDEX ON t (a)", Nothing),
            ("CREATE TEMP TABLE t (a int)", Temporary),
            ("CREATE /**/ LOCAL TEMPORARY VIEW t AS SELECT 1", Temporary),
            ("CREATE TEMP TABLE t (a int); DROP TABLE u", Names),
            ("BEGIN; ALTER TABLE t RENAME TO u; COMMIT", Names),
            ("ALTER ROLE r SET search_path = a", Shared),
            ("ALTER DATABASE d SET search_path = a", Shared),
            ("ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO r", Shared),
            ("GRANT USAGE ON SCHEMA s TO r", Shared),
            ("DO $$ BEGIN DROP TABLE t; END $$", Shared),
            ("call p()", Shared),
            ("CREATE EXTENSION x", Shared),
            ("COMMIT", Nothing),
            ("COMMIT PREPARED 'x'", Names),
            ("EXPLAIN ANALYZE CREATE TABLE u AS SELECT 1", Names),
            ("EXPLAIN SELECT 1", Nothing),
            ("IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c", Names),
            ("TRUNCATE t", Nothing),
            // What stands in a literal may look like it.
            ("SELECT 'a; drop it'", Names),
            ("SELECT 1 /* open", Nothing),
        ] {
            assert_eq!(defines(sql.as_bytes()), expected, "{sql}");
        }
    }
}
