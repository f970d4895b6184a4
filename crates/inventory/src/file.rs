//! The file: TOML, one table for each principal.

use std::collections::HashSet;

use ipnet::IpNet;
use jiff::civil::Date;
use serde::{Deserialize, Deserializer, de::Error as _};
use wildmatch::WildMatch;

/// Why an inventory cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InventoryError {
    /// No TOML, a key that does not exist, or a value of the wrong form; with the line.
    #[error("{0}")]
    Malformed(String),
    /// Two tables for one principal: which of them would count?
    #[error("principal {0:?} stands there twice")]
    Twice(String),
    /// A pattern that would take what has no name for a principal.
    #[error("principal {0:?} is not of the form spiffe://…; `*` and `?` may stand for what varies")]
    NoPrincipal(String),
}

/// All entries of a file.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// In the order of the file.
    pub(crate) entries: Vec<Entry>,
}

/// A principal and what is expected of it. A list that is absent allows anything; an empty one allows nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The principal's identifier; `*` stands for any text, `?` for one character.
    #[serde(rename = "id")]
    pub principal: String,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    #[serde(default)]
    pub purpose: Option<String>,
    /// Who allowed it.
    #[serde(default)]
    pub approved_by: Option<String>,
    /// When.
    #[serde(default, deserialize_with = "date")]
    pub approved_on: Option<Date>,
    /// Roles that it is to log in as.
    #[serde(default)]
    pub roles: Option<Vec<String>>,
    /// Databases that it is to use.
    #[serde(default)]
    pub databases: Option<Vec<String>>,
    /// Networks that it is to come from. Sessions over Unix sockets come from none and are not judged by it.
    #[serde(default)]
    pub from: Option<Vec<IpNet>>,
    /// The credential that it uses.
    #[serde(default)]
    pub credential: Option<Credential>,
    /// `principal`, ready to be matched.
    #[serde(skip)]
    pub(crate) pattern: WildMatch,
}

/// A password, key or certificate, by its dates alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// When it was last changed.
    #[serde(default, deserialize_with = "date")]
    pub rotated: Option<Date>,
    /// The last day on which it is to be used.
    #[serde(default, deserialize_with = "date")]
    pub expires: Option<Date>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    principal: Vec<Entry>,
}

impl Inventory {
    /// Reads a file's text.
    ///
    /// # Errors
    ///
    /// What is wrong, and in which line. A file with a mistake is refused as a whole: a half-read one would call things
    /// unexpected that are not.
    pub fn parse(text: &str) -> Result<Self, InventoryError> {
        let file: File = toml::from_str(text)
            .map_err(|error| InventoryError::Malformed(in_one_line(&error.to_string())))?;
        let mut entries: Vec<Entry> = Vec::with_capacity(file.principal.len());
        let mut listed = HashSet::new();
        for mut entry in file.principal {
            if !entry.principal.starts_with("spiffe://") {
                return Err(InventoryError::NoPrincipal(entry.principal));
            }
            if !listed.insert(entry.principal.clone()) {
                return Err(InventoryError::Twice(entry.principal));
            }
            entry.pattern = WildMatch::new(&entry.principal);
            entries.push(entry);
        }
        Ok(Self { entries })
    }

    /// What it lists, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many principals it lists.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it lists none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Entry {
    /// Whether it says what is expected of this principal.
    #[must_use]
    pub fn is_about(&self, principal: &str) -> bool {
        self.pattern.matches(principal)
    }
}

/// The parser draws the place of a mistake over several lines; the first says where it is, the last what.
fn in_one_line(drawn: &str) -> String {
    let lines: Vec<&str> = drawn
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match lines.as_slice() {
        [first, .., last] => format!("{first}: {last}"),
        _ => drawn.trim().to_owned(),
    }
}

/// A date as TOML has it (`2026-10-01`), quoted or not.
fn date<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Date>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Bare(toml::value::Datetime),
        Quoted(String),
    }
    let text = match Written::deserialize(from)? {
        Written::Bare(date) => date.to_string(),
        Written::Quoted(text) => text,
    };
    text.parse()
        .map(Some)
        .map_err(|_| D::Error::custom(format!("{text:?} is no date such as 2026-10-01")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_with_their_line() {
        let refused = |text: &str| {
            let said = Inventory::parse(text).expect_err("a mistake").to_string();
            assert!(!said.contains('\n'), "one line: {said}");
            said
        };
        let unknown = refused("[[principal]]\nid = \"spiffe://x/a\"\nowner = \"t\"\nrolles = [\"r\"]\n");
        assert!(
            unknown.contains("line 4") && unknown.contains("rolles"),
            "{unknown}"
        );
        assert!(refused("[[principal]]\nid = \"spiffe://x/a\"\n").contains("owner"));
        assert!(refused("[[principal]]\nid = \"*\"\nowner = \"t\"\n").contains("not of the form"));
        let twice = "[[principal]]\nid = \"spiffe://x/a\"\nowner = \"t\"\n".repeat(2);
        assert!(refused(&twice).contains("twice"));
        let date = refused(
            "[[principal]]\nid = \"spiffe://x/a\"\nowner = \"t\"\ncredential = { expires = \"soon\" }\n",
        );
        assert!(date.contains("no date"), "{date}");
        let network =
            refused("[[principal]]\nid = \"spiffe://x/a\"\nowner = \"t\"\nfrom = [\"10.0.0.0/40\"]\n");
        assert!(network.contains("line 4"), "{network}");
    }

    #[test]
    fn an_empty_file_lists_nobody() {
        assert!(Inventory::parse("").expect("an inventory").is_empty());
    }

    #[test]
    fn dates_may_be_quoted_or_not() {
        let text = "[[principal]]\nid = \"spiffe://x/a\"\nowner = \"t\"\napproved_on = 2026-01-02\ncredential = { rotated = \"2026-01-03\" }\n";
        let inventory = Inventory::parse(text).expect("an inventory");
        let entry = &inventory.entries[0];
        assert_eq!(entry.approved_on, Some(jiff::civil::date(2026, 1, 2)));
        let rotated = entry
            .credential
            .as_ref()
            .and_then(|credential| credential.rotated);
        assert_eq!(rotated, Some(jiff::civil::date(2026, 1, 3)));
    }
}
