//! The value that a literal stands for, after `scan.l`. Refuses what its text alone does not say: text with a backslash
//! while `standard_conforming_strings` is not known, and the rarer forms (`U&'…'`, `B'…'`, strings in several parts).

use crate::lexer::Kind;

/// How the session reads a backslash in a plain string: its setting `standard_conforming_strings`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backslash {
    /// On, the default: a character like any other.
    #[default]
    Plain,
    /// Off: it escapes.
    Escape,
    /// Not known.
    Unknown,
}

/// The value of a string, or of a whole number as the server prints it.
pub(crate) fn value(kind: Option<Kind>, text: &str, backslash: Backslash) -> Option<String> {
    match kind? {
        Kind::Number => number(text),
        Kind::Literal => match text.as_bytes().first()? {
            b'\'' => string(text.get(1..)?, backslash),
            b'e' | b'E' => string(text.get(2..)?, Backslash::Escape),
            b'$' => {
                let tag = text.get(..=text.get(1..)?.find('$')? + 1)?;
                Some(text.strip_prefix(tag)?.strip_suffix(tag)?.to_owned())
            }
            _ => None,
        },
        _ => None,
    }
}

/// Digits only: what is beyond an `int`, or has a fraction, is kept as written, leading zeros of an `int` are not.
fn number(text: &str) -> Option<String> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(
        text.parse::<i32>()
            .map_or_else(|_| text.to_owned(), |number| number.to_string()),
    )
}

/// `rest` begins behind the opening quote.
fn string(rest: &str, backslash: Backslash) -> Option<String> {
    let mut value = String::new();
    let mut rest = rest.chars();
    while let Some(next) = rest.next() {
        match next {
            '\'' if rest.as_str().is_empty() => return Some(value),
            '\'' => {
                // Doubled; anything else continues on another line.
                (rest.next()? == '\'').then_some(())?;
                value.push('\'');
            }
            '\\' => match backslash {
                Backslash::Plain => value.push('\\'),
                Backslash::Escape => value.push(escaped(&mut rest)?),
                Backslash::Unknown => return None,
            },
            other => value.push(other),
        }
    }
    None
}

/// Manual, "String Constants with C-Style Escapes". Bytes above 127 and pairs of surrogates are left unread.
fn escaped(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let code = |rest: &mut std::str::Chars<'_>, radix: u32, most: usize| {
        let digits: usize = rest
            .as_str()
            .chars()
            .take(most)
            .take_while(|c| c.is_digit(radix))
            .count();
        let number = u32::from_str_radix(rest.as_str().get(..digits)?, radix).ok()?;
        rest.nth(digits.checked_sub(1)?);
        Some((number, digits))
    };
    Some(match rest.as_str().chars().next()? {
        '0'..='7' => char::from_u32(code(rest, 8, 3)?.0).filter(|c| c.is_ascii() && *c != '\0')?,
        letter @ ('x' | 'u' | 'U') => {
            rest.next();
            let most = match letter {
                'x' => 2,
                'u' => 4,
                _ => 8,
            };
            match code(rest, 16, most) {
                Some((number, digits)) if letter == 'x' || digits == most => {
                    char::from_u32(number).filter(|c| *c != '\0' && (letter != 'x' || c.is_ascii()))?
                }
                None if letter == 'x' => 'x',
                _ => return None,
            }
        }
        letter => {
            rest.next();
            match letter {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        value(Some(Kind::Literal), text, Backslash::Plain)
    }

    #[test]
    fn strings_are_read_as_the_server_reads_them() {
        for (text, expected) in [
            ("'a b'", Some("a b")),
            ("'it''s'", Some("it's")),
            ("''", Some("")),
            ("'DOMAIN\\user'", Some("DOMAIN\\user")),
            (
                "E'a\\'b\\\\c\\n\\x41\\u00e9\\U0001F600\\101\\q'",
                Some("a'b\\c\nAé😀Aq"),
            ),
            ("e'it''s'", Some("it's")),
            ("$$it's$$", Some("it's")),
            ("$a$ $$ $a$", Some(" $$ ")),
            ("$$$$", Some("")),
            ("'a'\n'b'", None),
            ("U&'a'", None),
            ("B'1'", None),
            ("N'a'", None),
            ("E'\\xe9'", None),
            ("E'\\ud83d\\ude00'", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
        let with = |backslash| value(Some(Kind::Literal), "'a\\tb'", backslash);
        assert_eq!(with(Backslash::Escape).as_deref(), Some("a\tb"));
        assert_eq!(with(Backslash::Unknown), None);
        for (text, expected) in [
            ("42", Some("42")),
            ("007", Some("7")),
            ("99999999999", Some("99999999999")),
            ("1.5", None),
            ("0x1F", None),
        ] {
            assert_eq!(
                value(Some(Kind::Number), text, Backslash::Plain).as_deref(),
                expected
            );
        }
    }
}
