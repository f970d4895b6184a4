//! PostgreSQL's lexical structure: text to tokens.
//!
//! Owns the question "where does each literal begin and end", after the rules of `scan.l` and the
//! manual's section 4.1. Refuses to interpret: no keyword is special here. Separate because redaction is
//! only as right as this file.
//!
//! Never loses a literal: an unterminated one runs to the end of the text, and where servers or
//! session settings disagree about the reading, the token covers all of them.

/// Text beyond this many bytes is not lexed but taken as one literal. Tokens cost memory that
/// the peer controls; statements that a person or a driver writes stay far below 1 MiB.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// What stands behind so many tokens, comments apart, is not lexed but taken as one literal: every reading of a text goes through all of
/// them several times, and an attacker can make one of each byte. An insert of 10,000 rows with five columns has 120,000.
pub const MAX_TOKENS: usize = 128 << 10;

/// Highest parameter number of the protocol (Bind counts parameters in 16 bits); beyond it, it is a number.
const MAX_PARAMETER: usize = 65_535;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Keyword or unquoted identifier.
    Word,
    /// `"…"` or `U&"…"`.
    Quoted,
    /// A string of any quoting, or whatever must be hidden like one.
    Literal,
    Number,
    /// A literal whose end is not certain: unterminated, read differently under other settings, or cut.
    Doubt,
    /// `$1`
    Parameter,
    /// One byte of punctuation or of an operator.
    Symbol,
    Comment,
}

/// Byte range `start..end` of the text; both lie on character boundaries, since every token
/// begins and ends next to ASCII (`scan.l` counts bytes above 127 as letters).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// White space or a comment stands before it.
    pub(crate) spaced: bool,
}

/// All tokens but comments.
pub(crate) fn lex(sql: &str) -> Vec<Token> {
    let mut after_comment = false;
    let mut tokens = lex_with_comments(sql);
    tokens.retain_mut(|token| {
        let comment = token.kind == Kind::Comment;
        token.spaced |= after_comment;
        after_comment = comment;
        !comment
    });
    tokens
}

/// All tokens, comments too.
///
/// `standard_conforming_strings` decides whether `\'` ends a plain string, and it is not known here. Both
/// readings are followed from the first string where they part until they meet again at the end of
/// a token, and all between becomes one literal. The setting cannot change inside one text: the server
/// lexes a whole message before it runs any of it.
pub(crate) fn lex_with_comments(sql: &str) -> Vec<Token> {
    let mut cut = sql.floor_char_boundary(MAX_TEXT_BYTES);
    let head = sql.get(..cut).unwrap_or(sql);
    let standard = Reading {
        sql: head,
        backslash: false,
    };
    let escaping = Reading {
        sql: head,
        backslash: true,
    };
    let mut tokens = Vec::new();
    let (mut at, mut count) = (0, 0);
    while let Some(mut token) = standard.token(at) {
        if matches!(token.kind, Kind::Literal | Kind::Doubt) && standard.has_backslash(&token) {
            let end = meet(&standard, &escaping, &token);
            if end != token.end {
                (token.kind, token.end) = (Kind::Doubt, end);
            }
        }
        at = token.end;
        count += usize::from(token.kind != Kind::Comment);
        tokens.push(token);
        if count >= MAX_TOKENS {
            cut = at;
            break;
        }
    }
    if cut < sql.len() {
        tokens.push(Token {
            kind: Kind::Doubt,
            start: cut,
            end: sql.len(),
            spaced: true,
        });
    }
    tokens
}

/// End of the region that the two readings disagree about, beginning with `first`.
fn meet(standard: &Reading<'_>, escaping: &Reading<'_>, first: &Token) -> usize {
    let end = standard.sql.len();
    let after = |reading: &Reading<'_>, at| reading.token(at).map_or(end, |token| token.end);
    let (mut a, mut b) = (first.end, after(escaping, first.start));
    while a != b {
        if a < b {
            a = after(standard, a);
        } else {
            b = after(escaping, b);
        }
    }
    a
}

/// One reading of the text; `backslash` is `standard_conforming_strings = off`.
struct Reading<'a> {
    sql: &'a str,
    backslash: bool,
}

impl Reading<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.sql.as_bytes().get(at).copied()
    }

    fn has_backslash(&self, token: &Token) -> bool {
        self.sql
            .as_bytes()
            .get(token.start..token.end)
            .is_some_and(|bytes| bytes.contains(&b'\\'))
    }

    /// The token at or after `from`, white space skipped.
    fn token(&self, from: usize) -> Option<Token> {
        let start = self.skip(from, is_space);
        let first = self.byte(start)?;
        let next = self.byte(start + 1);
        let (kind, end) = match first {
            b'-' if next == Some(b'-') => (Kind::Comment, self.skip(start, |b| b != b'\n' && b != b'\r')),
            b'/' if next == Some(b'*') => (Kind::Comment, self.block_comment(start)),
            b'\'' => self.string(start, self.backslash),
            b'"' => self.quoted(start),
            b'$' => self.dollar(start),
            b'0'..=b'9' => self.number(start),
            b'.' if next.is_some_and(|b| b.is_ascii_digit()) => self.number(start),
            b if is_letter(b) => self.word(start, first, next),
            _ => (Kind::Symbol, start + 1),
        };
        Some(Token {
            kind,
            start,
            end: end.min(self.sql.len()),
            spaced: start > from,
        })
    }

    fn skip(&self, from: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = self.sql.as_bytes().get(from..).unwrap_or_default();
        from + rest.iter().take_while(|&&b| wanted(b)).count()
    }

    fn block_comment(&self, start: usize) -> usize {
        let (mut at, mut depth) = (start + 2, 1_usize);
        while depth > 0 {
            match (self.byte(at), self.byte(at + 1)) {
                (None, _) => break,
                (Some(b'/'), Some(b'*')) => (at, depth) = (at + 2, depth + 1),
                (Some(b'*'), Some(b'/')) => (at, depth) = (at + 2, depth - 1),
                _ => at += 1,
            }
        }
        at
    }

    /// End of the string whose opening quote is at `open`, continuation lines included (section 4.1.2.1).
    fn string(&self, open: usize, escapes: bool) -> (Kind, usize) {
        let mut at = open + 1;
        loop {
            match self.byte(at) {
                None => return (Kind::Doubt, self.sql.len()),
                // In some client encodings a backslash is the second half of a character. What the
                // lossy decoding left does not say, so nothing after it is safe to show.
                Some(b'\\') if escapes && self.follows_lossy(at) => return (Kind::Doubt, self.sql.len()),
                Some(b'\\') if escapes => at += 2,
                Some(b'\'') if self.byte(at + 1) == Some(b'\'') => at += 2,
                Some(b'\'') => match self.continuation(at + 1) {
                    Some(reopened) => at = reopened + 1,
                    None => return (Kind::Literal, at + 1),
                },
                _ => at += 1,
            }
        }
    }

    /// The quote that continues a string closed before `at`: only white space with at least one newline,
    /// and `--` comments, may stand between.
    fn continuation(&self, mut at: usize) -> Option<usize> {
        let mut newline = false;
        loop {
            match self.byte(at)? {
                b'\'' => return newline.then_some(at),
                b'-' if self.byte(at + 1) == Some(b'-') => at = self.skip(at, |b| b != b'\n' && b != b'\r'),
                b if is_space(b) => {
                    newline |= b == b'\n' || b == b'\r';
                    at += 1;
                }
                _ => return None,
            }
        }
    }

    fn quoted(&self, open: usize) -> (Kind, usize) {
        let mut at = open + 1;
        loop {
            match self.byte(at) {
                None => return (Kind::Doubt, self.sql.len()),
                Some(b'"') if self.byte(at + 1) == Some(b'"') => at += 2,
                Some(b'"') => return (Kind::Quoted, at + 1),
                _ => at += 1,
            }
        }
    }

    /// Parameter or dollar-quoted string. A `$` that opens neither is in no valid statement, and may be
    /// a quote whose tag the decoding damaged: all after it is hidden.
    fn dollar(&self, start: usize) -> (Kind, usize) {
        let everything = (Kind::Doubt, self.sql.len());
        if self.byte(start + 1).is_some_and(|b| b.is_ascii_digit()) {
            let end = self.skip(start + 1, |b| b.is_ascii_digit());
            let number = self
                .sql
                .get(start + 1..end)
                .and_then(|digits| digits.parse::<usize>().ok());
            let kind = if number.is_some_and(|n| n <= MAX_PARAMETER) {
                Kind::Parameter
            } else {
                Kind::Number
            };
            return (kind, end);
        }
        let body = self.skip(start + 1, |b| is_letter(b) || b.is_ascii_digit()) + 1;
        let Some(tag) = self.sql.get(start..body).filter(|tag| tag.ends_with('$')) else {
            return everything;
        };
        if tag.contains(char::REPLACEMENT_CHARACTER) {
            return everything;
        }
        match self.sql.get(body..).and_then(|rest| rest.find(tag)) {
            Some(length) => (Kind::Literal, body + length + tag.len()),
            None => everything,
        }
    }

    /// A number with its underscores, radix prefix, fraction and exponent, and letters run into it: before
    /// version 15 `1abc` was a number and a name, since then it is an error.
    fn number(&self, start: usize) -> (Kind, usize) {
        let digits = |at| self.skip(at, |b| b.is_ascii_digit() || b == b'_');
        let mut at = digits(start);
        if self.byte(at) == Some(b'.') && self.byte(at + 1) != Some(b'.') {
            at = digits(at + 1);
        }
        let mantissa = at;
        at = self.skip(at, |b| is_letter(b) || b.is_ascii_digit());
        let exponent = at == mantissa + 1 && matches!(self.byte(mantissa), Some(b'e' | b'E'));
        if exponent
            && matches!(self.byte(at), Some(b'+' | b'-'))
            && self.byte(at + 1).is_some_and(|b| b.is_ascii_digit())
        {
            at = self.skip(at + 1, |b| is_letter(b) || b.is_ascii_digit());
        }
        // `0x1$$` opens a string since version 16 and continued a name before.
        if self.byte(at) == Some(b'$') {
            (Kind::Doubt, self.sql.len())
        } else {
            (Kind::Number, at)
        }
    }

    fn word(&self, start: usize, first: u8, next: Option<u8>) -> (Kind, usize) {
        match (first.to_ascii_lowercase(), next, self.byte(start + 2)) {
            (b'e', Some(b'\''), _) => self.string(start + 1, true),
            (b'n', Some(b'\''), _) => self.string(start + 1, self.backslash),
            (b'b' | b'x', Some(b'\''), _) => self.string(start + 1, false),
            (b'u', Some(b'&'), Some(b'\'')) => self.string(start + 2, false),
            (b'u', Some(b'&'), Some(b'"')) => self.quoted(start + 2),
            _ => (
                Kind::Word,
                self.skip(start, |b| is_letter(b) || b.is_ascii_digit() || b == b'$'),
            ),
        }
    }

    fn follows_lossy(&self, at: usize) -> bool {
        self.sql
            .get(..at)
            .is_some_and(|head| head.ends_with(char::REPLACEMENT_CHARACTER))
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}
