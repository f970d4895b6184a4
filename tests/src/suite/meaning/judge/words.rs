//! The names in a statement's text: everything that could be one.

use std::collections::BTreeSet;

/// How often a name stands in the text.
pub(super) fn count(text: &str, name: &str) -> usize {
    names(text).iter().filter(|one| *one == name).count()
}

pub(super) fn words(text: &str) -> BTreeSet<String> {
    names(text).into_iter().collect()
}

/// Everything in the text that could be a name: words as the server folds them, and what stands in double quotes. Not
/// what stands in strings and comments.
pub(super) fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '\'' => quoted(rest, '\''),
            '"' => {
                let length = quoted(rest, '"');
                names.push(rest.get(1..length - 1).unwrap_or_default().replace("\"\"", "\""));
                length
            }
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '$' => {
                let tag = rest
                    .get(1..)
                    .and_then(|after| after.find('$'))
                    .and_then(|end| rest.get(..end + 2));
                let is_tag = |tag: &&str| tag.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$');
                match tag
                    .filter(is_tag)
                    .filter(|tag| !tag[1..].starts_with(|c: char| c.is_ascii_digit()))
                {
                    Some(tag) => rest[tag.len()..]
                        .find(tag)
                        .map_or(rest.len(), |end| end + 2 * tag.len()),
                    None => 1,
                }
            }
            c if c.is_alphanumeric() || c == '_' => {
                let length = rest
                    .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
                    .unwrap_or(rest.len());
                names.push(rest.get(..length).unwrap_or_default().to_ascii_lowercase());
                length
            }
            other => other.len_utf8(),
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    names
}

/// Length of what is quoted at the front; the quote is doubled inside.
fn quoted(text: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(end) = text.get(at..).and_then(|rest| rest.find(quote)) {
        at += end + 1;
        if !text.get(at..).is_some_and(|rest| rest.starts_with(quote)) {
            return at;
        }
        at += 1;
    }
    text.len()
}
