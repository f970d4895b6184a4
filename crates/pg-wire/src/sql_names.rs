//! The names that SQL itself gives to prepared statements and cursors, which share one name space with those of the
//! protocol (manual, `PREPARE` and "Extended Query"). Reads the few statements that define, use or drop such a name,
//! and nothing else of SQL; a name that is not plain to read is none.

use bytes::Bytes;

/// What a statement does with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Prepare(Bytes),
    Execute(Bytes),
    Deallocate(Bytes),
    Declare(Bytes),
    /// FETCH and MOVE.
    Fetch(Bytes),
    Close(Bytes),
}

/// Longest name that the server keeps (`NAMEDATALEN` - 1).
const NAME_BYTES: usize = 63;

/// Reads the first statement of a text.
pub(crate) fn read(sql: &[u8]) -> Option<Named> {
    let mut words = Words { rest: sql };
    // Nearly every statement ends here.
    let verb: fn(Bytes) -> Named = match words.keyword()? {
        Keyword::Prepare => Named::Prepare,
        Keyword::Execute => Named::Execute,
        Keyword::Declare => Named::Declare,
        Keyword::Close => Named::Close,
        Keyword::Deallocate => {
            let before = words.rest;
            if !matches!(words.keyword(), Some(Keyword::Prepare)) {
                words.rest = before;
            }
            Named::Deallocate
        }
        // The name comes last, behind a direction and FROM or IN.
        Keyword::Fetch => {
            let mut last = None;
            while let Some(token) = words.token() {
                last = Some(token);
            }
            return last?.name().map(Named::Fetch);
        }
    };
    words.token()?.name().map(verb)
}

/// Whether a text may hold a statement that names something: a cheap look, which errs on the side of yes.
pub(crate) fn may_name(sql: &[u8]) -> bool {
    const BEGINNINGS: [&[u8; 4]; 8] = [
        b"prep", b"exec", b"deal", b"disc", b"decl", b"fetc", b"move", b"clos",
    ];
    sql.windows(4).any(|four| {
        BEGINNINGS
            .iter()
            .any(|beginning| beginning.eq_ignore_ascii_case(four))
    })
}

/// Whether a `DECLARE` says `WITH HOLD`, which stands before `FOR`.
pub(crate) fn is_held(sql: &[u8]) -> bool {
    let mut words = Words { rest: sql };
    let mut with = false;
    while let Some(token) = words.token() {
        let Token::Word(word) = token else {
            with = false;
            continue;
        };
        if word.eq_ignore_ascii_case(b"for") {
            return false;
        }
        if with && word.eq_ignore_ascii_case(b"hold") {
            return true;
        }
        with = word.eq_ignore_ascii_case(b"with");
    }
    false
}

/// Whether a text is one statement for sure (or none): without `;`, but for those at its end.
#[must_use]
pub fn is_single(sql: &[u8]) -> bool {
    let end = sql
        .iter()
        .rposition(|byte| !matches!(byte, b';' | b' ' | b'\t' | b'\r' | b'\n'))
        .map_or(0, |last| last + 1);
    sql.get(..end)
        .is_some_and(|text| memchr::memchr(b';', text).is_none())
}

enum Keyword {
    Prepare,
    Execute,
    Deallocate,
    Declare,
    Fetch,
    Close,
}

enum Token<'a> {
    Word(&'a [u8]),
    Quoted(Vec<u8>),
    Other,
}

impl Token<'_> {
    fn name(self) -> Option<Bytes> {
        let name = match self {
            // How other letters are folded depends on the server's encoding and locale.
            Token::Word(word) if word.is_ascii() => word.to_ascii_lowercase(),
            Token::Quoted(name) => name,
            _ => return None,
        };
        if name.len() <= NAME_BYTES {
            return Some(name.into());
        }
        // The server cuts between characters, not bytes.
        name.is_ascii()
            .then(|| Bytes::copy_from_slice(name.get(..NAME_BYTES).unwrap_or_default()))
    }
}

struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    fn keyword(&mut self) -> Option<Keyword> {
        self.skip_space();
        if !matches!(
            self.rest.first()?.to_ascii_lowercase(),
            b'p' | b'e' | b'd' | b'f' | b'm' | b'c'
        ) {
            return None;
        }
        let Some(Token::Word(word)) = self.token() else {
            return None;
        };
        let is = |keyword: &[u8]| word.eq_ignore_ascii_case(keyword);
        Some(match word.len() {
            7 if is(b"prepare") => Keyword::Prepare,
            7 if is(b"execute") => Keyword::Execute,
            7 if is(b"declare") => Keyword::Declare,
            10 if is(b"deallocate") => Keyword::Deallocate,
            5 if is(b"fetch") => Keyword::Fetch,
            4 if is(b"move") => Keyword::Fetch,
            5 if is(b"close") => Keyword::Close,
            _ => return None,
        })
    }

    /// The next token of this statement.
    fn token(&mut self) -> Option<Token<'a>> {
        self.skip_space();
        let (&first, behind) = self.rest.split_first()?;
        match first {
            b';' => None,
            b'"' => {
                self.rest = behind;
                Some(self.quoted())
            }
            _ if is_word(first) => {
                let end = self
                    .rest
                    .iter()
                    .position(|&byte| !is_word(byte))
                    .unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at_checked(end)?;
                self.rest = rest;
                // A name with Unicode escapes: `U&"…"`.
                Some(if rest.first() == Some(&b'&') {
                    Token::Other
                } else {
                    Token::Word(word)
                })
            }
            _ => {
                self.rest = behind;
                Some(Token::Other)
            }
        }
    }

    fn quoted(&mut self) -> Token<'a> {
        let mut name = Vec::new();
        while let Some((&byte, behind)) = self.rest.split_first() {
            self.rest = behind;
            if byte != b'"' {
                name.push(byte);
            } else if behind.first() == Some(&b'"') {
                name.push(byte);
                self.rest = behind.get(1..).unwrap_or_default();
            } else {
                return Token::Quoted(name);
            }
        }
        Token::Other
    }

    /// White space and comments, which nest.
    fn skip_space(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            let end = if self.rest.starts_with(b"--") {
                memchr::memchr2(b'\n', b'\r', self.rest)
            } else if self.rest.starts_with(b"/*") {
                comment_end(self.rest)
            } else {
                return;
            };
            self.rest = end.and_then(|end| self.rest.get(end..)).unwrap_or_default();
        }
    }
}

fn comment_end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        match text.get(at..at + 2)? {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::{Named, is_held, is_single, read};

    #[test]
    fn names_are_read_as_the_server_reads_them() {
        let long = "x".repeat(70);
        let table = [
            (
                "PREPARE Fast (int) AS SELECT $1",
                Some(Named::Prepare("fast".into())),
            ),
            (
                " /* a /* b */ */ prepare\n\"Fa\"\"st\" as select 1",
                Some(Named::Prepare("Fa\"st".into())),
            ),
            ("-- x\nEXECUTE fast(1)", Some(Named::Execute("fast".into()))),
            ("execute/**/fast;", Some(Named::Execute("fast".into()))),
            ("DEALLOCATE PREPARE a$1", Some(Named::Deallocate("a$1".into()))),
            ("DEALLOCATE a", Some(Named::Deallocate("a".into()))),
            ("DECLARE c CURSOR FOR SELECT 1", Some(Named::Declare("c".into()))),
            ("FETCH FORWARD 10 FROM \"C\" ;", Some(Named::Fetch("C".into()))),
            ("fetch c", Some(Named::Fetch("c".into()))),
            ("MOVE ALL IN c", Some(Named::Fetch("c".into()))),
            ("CLOSE c", Some(Named::Close("c".into()))),
            ("PREPARE U&\"d\\0061t\" AS SELECT 1", None),
            ("PREPARE \"open", None),
            ("PREPARE é AS SELECT 1", None),
            ("SELECT 1", None),
            ("prepared", None),
            ("/* no end PREPARE a", None),
            ("", None),
        ];
        for (sql, expected) in table {
            assert_eq!(read(sql.as_bytes()), expected, "{sql}");
        }
        assert_eq!(
            read(format!("DEALLOCATE {long}").as_bytes()),
            Some(Named::Deallocate("x".repeat(63).into()))
        );
    }

    #[test]
    fn held_cursors_say_so() {
        assert!(is_held(
            b"DECLARE c NO SCROLL CURSOR /* */ with  HOLD FOR SELECT 1"
        ));
        for sql in [
            "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
            "DECLARE c CURSOR FOR SELECT 1 /* WITH HOLD */ WITH HOLD",
        ] {
            assert!(!is_held(sql.as_bytes()), "{sql}");
        }
    }

    #[test]
    fn one_statement_is_known_from_several() {
        for single in ["SELECT 1", "SELECT 1;", "SELECT 1 ; \n;", "", ";"] {
            assert!(is_single(single.as_bytes()), "{single}");
        }
        for several in ["SELECT 1; SELECT 2", "SELECT ';'"] {
            assert!(!is_single(several.as_bytes()), "{several}");
        }
    }
}
