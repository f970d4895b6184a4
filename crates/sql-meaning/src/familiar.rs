//! Texts that were read before, and those that differ from them in numbers alone: known again without being read.
//!
//! Owns the proof that such a text has the same tokens, and so the same meaning. Most programs that put values into their
//! text send the same text again and again with other numbers in it. Refuses every text about whose reading there is any
//! doubt (a backslash, an unterminated literal): those are read anew each time.

use std::sync::Arc;

use crate::{
    Statement,
    lexer::{Kind, Token},
};

/// Texts remembered: an application has hundreds to a few thousand. With [`MAX_BYTES`] this bounds their memory.
const PLACES: usize = 1024;

/// Longer texts are not remembered here.
const MAX_BYTES: usize = 4 << 10;

/// Texts that are known again, each at the place that its shape gives.
pub(crate) struct Familiar(Vec<Option<Known>>);

struct Known {
    text: Box<[u8]>,
    /// Where numbers stand that may be others: digits alone, behind and before what cannot be part of them.
    numbers: Box<[(u32, u32)]>,
    statement: Arc<Statement>,
}

impl Familiar {
    /// Remembers up to `capacity` texts, and no more than it ever does.
    pub(crate) fn new(capacity: usize) -> Self {
        let mut places = Vec::new();
        places.resize_with(capacity.clamp(1, PLACES), || None);
        Self(places)
    }

    /// The meaning of a text that was read before, or of one that has the same tokens but for numbers.
    pub(crate) fn get(&self, sql: &[u8]) -> Option<&Arc<Statement>> {
        if sql.len() > MAX_BYTES {
            return None;
        }
        let known = self.0.get(self.place(sql))?.as_ref()?;
        known.is_like(sql).then_some(&known.statement)
    }

    /// Whether a text of this length can be remembered.
    pub(crate) fn keeps(&self, sql: &[u8]) -> bool {
        sql.len() <= MAX_BYTES
    }

    /// Remembers a text that was read; `tokens` are all that it has but comments.
    pub(crate) fn put(&mut self, sql: &[u8], tokens: &[Token], statement: &Arc<Statement>) {
        let doubtful = sql.len() > MAX_BYTES
            || sql.contains(&b'\\')
            || std::str::from_utf8(sql).is_err()
            || tokens.iter().any(|token| token.kind == Kind::Doubt);
        if doubtful {
            return;
        }
        let numbers = tokens.iter().filter(|token| is_plain_number(sql, token));
        let known = Known {
            text: sql.into(),
            numbers: numbers
                .map(|token| (small(token.start), small(token.end)))
                .collect(),
            statement: Arc::clone(statement),
        };
        let place = self.place(sql);
        if let Some(place) = self.0.get_mut(place) {
            *place = Some(known);
        }
    }

    /// The place of a text: the same for texts that differ in numbers alone. Others may share it, which costs reading
    /// them.
    fn place(&self, sql: &[u8]) -> usize {
        // FNV-1a, each number but for names' taken for one zero.
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let (mut in_name, mut in_number) = (false, false);
        for &byte in sql {
            let number = byte.is_ascii_digit() && !in_name;
            if number && in_number {
                continue;
            }
            in_number = number;
            in_name = !number && goes_on(byte);
            hash = (hash ^ u64::from(if number { b'0' } else { byte })).wrapping_mul(PRIME);
        }
        // The upper bits depend on all bytes.
        (hash >> 40) as usize % self.0.len().max(1)
    }
}

impl Known {
    /// Whether all bytes are the same, but for those numbers, in whose places there are numbers again.
    fn is_like(&self, sql: &[u8]) -> bool {
        let (mut rest, mut from) = (sql, 0);
        for &(start, end) in &self.numbers {
            let Some(between) = self.text.get(from..start as usize) else {
                return false;
            };
            let Some(behind) = rest.strip_prefix(between) else {
                return false;
            };
            let digits = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return false;
            }
            rest = behind.get(digits..).unwrap_or_default();
            from = end as usize;
        }
        self.text.get(from..) == Some(rest)
    }
}

/// Whether a number is nothing but digits, and what stands behind it could not go on as part of it, whatever the digits
/// are. What stands before it is a token of its own.
fn is_plain_number(sql: &[u8], token: &Token) -> bool {
    let digits = sql.get(token.start..token.end).unwrap_or_default();
    token.kind == Kind::Number
        && digits.iter().all(u8::is_ascii_digit)
        && sql.get(token.end).is_none_or(|next| !goes_on(*next))
}

/// What can be part of a number or name that has begun.
fn goes_on(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$') || byte >= 0x80
}

/// Texts are shorter than [`MAX_BYTES`].
fn small(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Interpreter, lexer::lex, redact};

    fn put(familiar: &mut Familiar, sql: &str) {
        let statement = Interpreter::new(1).interpret(sql.as_bytes());
        familiar.put(sql.as_bytes(), &lex(sql), &statement);
    }

    #[test]
    fn other_numbers_are_known_again_and_nothing_else_is() {
        let mut familiar = Familiar::new(1);
        let sql = "SELECT a1 FROM t WHERE id = 42 AND b IN (7,8) -- 9\n LIMIT 10;";
        put(&mut familiar, sql);
        let knows = |sql: &str| familiar.get(sql.as_bytes()).is_some();
        assert!(knows(sql));
        assert!(knows(
            "SELECT a1 FROM t WHERE id = 1 AND b IN (123456,0) -- 9\n LIMIT 999;"
        ));
        for other in [
            "SELECT a2 FROM t WHERE id = 42 AND b IN (7,8) -- 9\n LIMIT 10;",
            "SELECT a1 FROM t WHERE id = 42 AND b IN (7,8) -- 8\n LIMIT 10;",
            "SELECT a1 FROM t WHERE id = 42 AND b IN (7,8) -- 9\n LIMIT 10",
            "SELECT a1 FROM t WHERE id = 42 AND b IN (7,8) -- 9\n LIMIT 10;;",
            "SELECT a1 FROM t WHERE id = 4a AND b IN (7,8) -- 9\n LIMIT 10;",
            "SELECT a1 FROM t WHERE id = 4.2 AND b IN (7,8) -- 9\n LIMIT 10;",
            "SELECT a1 FROM t WHERE id =  AND b IN (7,8) -- 9\n LIMIT 10;",
            "",
        ] {
            assert!(!knows(other), "{other}");
        }
    }

    /// Whatever is taken for familiar has the redacted text and the fingerprint that reading it would give.
    #[test]
    fn what_is_known_again_would_be_read_the_same() {
        let pieces = [
            "SELECT ",
            "1",
            "23",
            "0",
            " ",
            ",",
            "-",
            "--",
            "\n",
            "/*",
            "*/",
            "'",
            "''",
            "a",
            "e'",
            "$1",
            "$",
            "$$",
            ".",
            "1.5",
            "0x1",
            "1e5",
            "1_0",
            "t",
            "(",
            ")",
            "=",
            "\\",
            ";",
            "\"",
            "U&'",
            "é",
            "SET a = ",
            "PASSWORD ",
        ];
        let mut seed = 7_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        let mut known = 0;
        for _ in 0..60_000 {
            let text: String = (0..1 + next(9)).map(|_| pieces[next(pieces.len())]).collect();
            let mut familiar = Familiar::new(1);
            put(&mut familiar, &text);
            // The same with other digits, and with one piece exchanged.
            let digit = char::from(b'0' + u8::try_from(next(10)).unwrap());
            let other: String = text
                .chars()
                .map(|c| {
                    if c.is_ascii_digit() && next(2) == 0 {
                        digit
                    } else {
                        c
                    }
                })
                .collect();
            let longer = other.replace('1', "10").replace('2', "3");
            for other in [other, longer] {
                let Some(statement) = familiar.get(other.as_bytes()) else {
                    continue;
                };
                known += 1;
                let read = Interpreter::new(1).interpret(other.as_bytes());
                assert_eq!(**statement, *read, "{text:?} and {other:?}");
                assert_eq!(*statement.redacted, *redact(&other));
            }
        }
        assert!(known > 10_000, "{known}");
    }
}
