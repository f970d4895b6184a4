//! Parameter values, as the server logs them and as pgwitness records them.
//!
//! Owns the reading of `parameters: $1 = '…', $2 = NULL` and the comparison with a record's list. Where both texts
//! differ it decides nothing: it hands them on, and the server itself is asked whether they are the same value.

use std::collections::BTreeMap;

use super::events::Param;

/// Both sides have a value, and the texts are not equal: whether it is the same value is the type's business.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Doubt {
    /// 0 where it is on the wire nowhere.
    pub(super) oid: u32,
    /// From 1.
    pub(super) number: usize,
    /// Of the statement, if the oid has to be learnt from it.
    pub(super) statement: Option<String>,
    pub(super) theirs: String,
    pub(super) ours: String,
}

/// What a comparison of lists found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) compared: u64,
    /// Binary values that pgwitness does not decode, by the oid of their type.
    pub(super) raw: BTreeMap<u32, u64>,
    pub(super) doubts: Vec<Doubt>,
    /// Values of which the front alone is recorded.
    pub(super) truncated: u64,
    pub(super) wrong: Option<String>,
}

/// `DETAIL: parameters: $1 = 'it''s', $2 = NULL` (`Parameters:` in newer versions).
pub(super) fn logged(detail: &str) -> Option<Vec<Option<String>>> {
    let mut rest = detail
        .strip_prefix("parameters: ")
        .or_else(|| detail.strip_prefix("Parameters: "))?;
    let mut values = Vec::new();
    while !rest.is_empty() {
        let (_, value) = rest.split_once(" = ")?;
        let after = if let Some(quoted) = value.strip_prefix('\'') {
            let (text, after) = unquote(quoted)?;
            values.push(Some(text));
            after
        } else {
            values.push(None);
            value.strip_prefix("NULL")?
        };
        rest = after.strip_prefix(", ").unwrap_or(after);
    }
    Some(values)
}

/// Up to the closing quote; quotes inside are doubled.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('\'')?;
        text.push_str(before);
        match after.strip_prefix('\'') {
            Some(more) => {
                text.push('\'');
                rest = more;
            }
            None => return Some((text, after)),
        }
    }
}

/// Whether a value that is longer than the record keeps has this front and, where it was sent as text, this length.
/// The cut may go through a character.
pub(super) fn is_front(param: &Param, recorded: &str, value: &str) -> bool {
    let is_long = param.format != "text" || param.bytes == value.len() as u64;
    param.truncated && is_long && value.starts_with(recorded.trim_end_matches(char::REPLACEMENT_CHARACTER))
}

impl Doubt {
    pub(super) fn new(
        number: usize,
        param: &Param,
        statement: Option<&str>,
        theirs: &str,
        ours: &str,
    ) -> Self {
        Self {
            oid: param.oid,
            number,
            statement: statement.filter(|_| param.oid == 0).map(str::to_owned),
            theirs: theirs.to_owned(),
            ours: ours.to_owned(),
        }
    }
}

/// Compares the values of one request.
pub(super) fn compare(theirs: &[Option<String>], ours: &[Param], statement: Option<&str>) -> Found {
    let mut found = Found::default();
    if theirs.len() != ours.len() {
        found.wrong = Some(format!("{} in the log, {} recorded", theirs.len(), ours.len()));
        return found;
    }
    for (number, (theirs, ours)) in (1..).zip(theirs.iter().zip(ours)) {
        found.compared += 1;
        let (Some(theirs), false) = (theirs, ours.null) else {
            if theirs.is_some() || !ours.null {
                found.wrong = Some(format!("${number}: log {theirs:?}, record {ours:?}"));
            }
            continue;
        };
        match &ours.value {
            _ if ours.raw => *found.raw.entry(ours.oid).or_default() += 1,
            Some(value) if value == theirs => {}
            Some(value) if is_front(ours, value, theirs) => found.truncated += 1,
            Some(value) => found
                .doubts
                .push(Doubt::new(number, ours, statement, theirs, value)),
            None => found.wrong = Some(format!("${number}: no value recorded for {theirs:?}")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_their_quotes() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            logged("parameters: $1 = 'it''s, $2 = NULL', $2 = NULL, $3 = ''"),
            Some(vec![text("it's, $2 = NULL"), None, text("")])
        );
        assert_eq!(logged("Parameters: $1 = '1'"), Some(vec![text("1")]));
        assert_eq!(logged("prepare: PREPARE x AS SELECT 1"), None);
        assert_eq!(logged("parameters: $1 = 'cut"), None);
    }

    #[test]
    fn a_difference_is_a_doubt_and_a_missing_one_is_wrong() {
        let param = |value: Option<&str>| Param {
            oid: 23,
            null: value.is_none(),
            value: value.map(str::to_owned),
            ..Param::default()
        };
        let theirs = [Some("42".to_owned()), None, Some("7".to_owned())];
        let found = compare(
            &theirs,
            &[param(Some("42")), param(None), param(Some("07"))],
            None,
        );
        assert_eq!(
            (found.compared, found.doubts.len(), found.wrong.is_none()),
            (3, 1, true)
        );
        assert!(
            compare(
                &theirs,
                &[param(Some("42")), param(Some("")), param(Some("7"))],
                None
            )
            .wrong
            .is_some()
        );
        assert!(compare(&theirs, &[param(None)], None).wrong.is_some());
    }
}
