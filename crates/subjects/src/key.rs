//! Keys, and the tokens that are made with them. Without its key a token tells nothing but that two values are equal; with
//! it, whoever guesses a value can look for it.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::family::Family;

/// Why a key file cannot be used. Never says a key.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// A line of another form.
    #[error(
        "line {line}: expected an id of letters, digits, `.`, `_` or `-` (at most {ID_BYTES}), a space and 64 hexadecimal digits"
    )]
    Form {
        /// Counted from 1.
        line: usize,
    },
    /// One id for two keys: nobody could say which of them made a token.
    #[error("line {line}: the id {id:?} stands there twice; give each key an id of its own")]
    Twice {
        /// Counted from 1.
        line: usize,
        /// The id.
        id: String,
    },
    /// No random bytes.
    #[error("line {line}: the key {id:?} is not random: make one with `pgwitness-agent token-key`")]
    Weak {
        /// Counted from 1.
        line: usize,
        /// The id.
        id: String,
    },
    /// Nothing but comments.
    #[error("there is no key in it: make one with `pgwitness-agent token-key`")]
    Empty,
}

/// Longest id of a key: it stands in every event.
const ID_BYTES: usize = 32;
/// Bytes of a key: as many as of the hash.
pub(crate) const KEY_BYTES: usize = 32;
/// Different bytes among the 32 of a key, at least. Random ones have fewer in one of 10^16 keys.
const DIFFERENT_BYTES: usize = 16;

/// What stands for a value: 16 bytes, equal for equal values of a family under the same key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub [u8; 16]);

/// A key and its id.
#[derive(Clone)]
pub struct Key {
    id: String,
    /// The hash, with the key taken in already.
    keyed: Hmac<Sha256>,
}

/// The keys of a file: the last one makes tokens, all of them find.
#[derive(Clone, Debug)]
pub struct Keys {
    /// In the order of the file, never empty.
    keys: Vec<Key>,
}

impl Keys {
    /// Reads a key file: a line for each key, `id` and 64 hexadecimal digits; `#` begins a comment. The last key is the
    /// one in use; those before it were in use, and are kept so that what they made can be found.
    ///
    /// # Errors
    ///
    /// What is wrong, and in which line.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys: Vec<Key> = Vec::new();
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.split('#').next().unwrap_or_default();
            let mut words = content.split_whitespace();
            let (id, digits) = match (words.next(), words.next(), words.next()) {
                (None, ..) => continue,
                (Some(id), Some(digits), None) => (id, digits),
                _ => return Err(KeyError::Form { line }),
            };
            let mut bytes = [0; KEY_BYTES];
            if !is_id(id) || hex::decode_to_slice(digits, &mut bytes).is_err() {
                return Err(KeyError::Form { line });
            }
            let id = id.to_owned();
            if keys.iter().any(|key| key.id == id) {
                return Err(KeyError::Twice { line, id });
            }
            keys.push(Key::new(&id, &bytes).ok_or(KeyError::Weak { line, id })?);
        }
        if keys.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Self { keys })
    }

    /// The key that makes tokens.
    #[must_use]
    pub fn active(&self) -> &Key {
        #[expect(clippy::expect_used, reason = "`parse` refuses a file without one")]
        self.keys.last().expect("a key")
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

impl Key {
    /// A key of 32 random bytes. `None`: they are not random, or the id is no id.
    #[must_use]
    pub fn new(id: &str, bytes: &[u8; KEY_BYTES]) -> Option<Self> {
        let mut sorted = *bytes;
        sorted.sort_unstable();
        let different = sorted.chunk_by(|a, b| a == b).count();
        if different < DIFFERENT_BYTES || !is_id(id) {
            return None;
        }
        let keyed = Hmac::new_from_slice(bytes).ok()?;
        Some(Self {
            id: id.to_owned(),
            keyed,
        })
    }

    /// Its id, as it stands in events.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The token of a value in its canonical form: the first 16 bytes of HMAC-SHA-256 over the family's name, a zero byte
    /// and the form.
    #[must_use]
    pub fn token(&self, family: Family, canonical: &[u8]) -> Token {
        let mut keyed = self.keyed.clone();
        keyed.update(family.name().as_bytes());
        keyed.update(&[0]);
        keyed.update(canonical);
        let digest = keyed.finalize().into_bytes();
        let mut token = [0; 16];
        token.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Token(token)
    }
}

impl Token {
    /// From the bytes of an event.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

fn is_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=ID_BYTES).contains(&id.len()) && id.bytes().all(allowed)
}

/// Without the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn parse(text: &str) -> Result<Keys, KeyError> {
        Keys::parse(text)
    }

    #[test]
    fn the_last_key_is_the_one_in_use() {
        let second = FIRST.replace("00", "ff");
        let keys = parse(&format!(
            "# made in May\n\n2026-05 {FIRST}\n  2026-11\t{second} # now\n"
        ))
        .expect("two keys");
        assert_eq!(keys.active().id(), "2026-11");
        assert_eq!(
            keys.iter().map(Key::id).collect::<Vec<_>>(),
            ["2026-05", "2026-11"]
        );
        let tokens: Vec<Token> = keys.iter().map(|key| key.token(Family::Integer, b"42")).collect();
        assert_ne!(tokens[0], tokens[1]);
    }

    /// As Python's `hmac` says: `hmac.new(bytes(range(32)), b'integer\0' b'42', 'sha256').hexdigest()[:32]`.
    #[test]
    fn a_token_is_the_beginning_of_hmac_sha256() {
        let keys = parse(&format!("k {FIRST}")).expect("a key");
        assert_eq!(
            keys.active().token(Family::Integer, b"42").to_string(),
            "7aad287ccdff0cb4ef22914494adda78"
        );
        assert_ne!(
            keys.active().token(Family::Integer, b"42"),
            keys.active().token(Family::Text, b"42")
        );
    }

    #[test]
    fn faults_are_told_by_their_line_and_without_the_key() {
        let weak = "ab".repeat(32);
        for (text, expected) in [
            (String::new(), KeyError::Empty),
            ("# none\n".to_owned(), KeyError::Empty),
            (format!("\nk {}", &FIRST[..62]), KeyError::Form { line: 2 }),
            (FIRST.to_owned(), KeyError::Form { line: 1 }),
            (format!("k {FIRST} x"), KeyError::Form { line: 1 }),
            (format!("a/b {FIRST}"), KeyError::Form { line: 1 }),
            (
                format!("k {FIRST}\nk {FIRST}"),
                KeyError::Twice {
                    line: 2,
                    id: "k".to_owned(),
                },
            ),
            (
                format!("k {weak}"),
                KeyError::Weak {
                    line: 1,
                    id: "k".to_owned(),
                },
            ),
        ] {
            let error = parse(&text).expect_err(&text);
            assert_eq!(error, expected);
            assert!(!error.to_string().contains(&FIRST[..8]) && !error.to_string().contains(&weak));
        }
        let keys = parse(&format!("k {FIRST}")).expect("a key");
        assert_eq!(format!("{keys:?}"), "Keys { keys: [Key { id: \"k\", .. }] }");
    }
}
