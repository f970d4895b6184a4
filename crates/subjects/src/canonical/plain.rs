//! Truth values, UUIDs, bytes. Source: `parse_bool_with_len`, `string_to_uuid`, `byteain`.

use super::trimmed;

/// `t` or `f`; any unique beginning of a word counts.
pub(super) fn boolean(text: &str) -> Option<String> {
    let text = trimmed(text).to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || text == "1" {
        Some("t".to_owned())
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        Some("f".to_owned())
    } else {
        None
    }
}

/// 32 lower-case digits. Read with braces or without, and with a hyphen behind any group of four digits.
pub(super) fn uuid(text: &str) -> Option<String> {
    let bare = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut digits = String::with_capacity(32);
    let mut letters = bare.chars().peekable();
    while digits.len() < 32 {
        digits.push(
            letters
                .next()
                .filter(char::is_ascii_hexdigit)?
                .to_ascii_lowercase(),
        );
        if digits.len().is_multiple_of(4) && digits.len() < 32 {
            letters.next_if_eq(&'-');
        }
    }
    letters.next().is_none().then_some(digits)
}

/// The bytes themselves, of either form.
pub(super) fn bytea(text: &str) -> Option<Vec<u8>> {
    let Some(digits) = text.strip_prefix("\\x") else {
        return escaped(text.as_bytes());
    };
    // White space may stand between bytes, not within one.
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    let mut letters = digits.chars().filter(char::is_ascii_hexdigit);
    for part in digits.split([' ', '\n', '\t', '\r']) {
        if !part.len().is_multiple_of(2) || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
    }
    while let (Some(high), Some(low)) = (letters.next(), letters.next()) {
        let value = high.to_digit(16)? << 4 | low.to_digit(16)?;
        bytes.push(u8::try_from(value).ok()?);
    }
    Some(bytes)
}

/// `\\` is a backslash, `\ooo` a byte in octal digits, everything else is itself.
fn escaped(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match *rest {
            [b'\\', ref behind @ ..] => {
                bytes.push(b'\\');
                rest = behind;
            }
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ref behind @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = behind;
            }
            _ => return None,
        }
    }
    Some(bytes)
}
