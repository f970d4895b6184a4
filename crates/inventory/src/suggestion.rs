//! A first inventory from what was seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

/// Collects sightings, and writes them down as an inventory that expects exactly these.
#[derive(Clone, Debug, Default)]
pub struct Suggestion {
    principals: BTreeMap<String, Habits>,
}

#[derive(Clone, Debug, Default)]
struct Habits {
    notes: Vec<String>,
    roles: BTreeSet<String>,
    databases: BTreeSet<String>,
    from: BTreeSet<IpAddr>,
}

impl Suggestion {
    /// Takes a sighting. What has no name cannot be listed, nor what would be read as a pattern (`*`, `?`: no agent makes
    /// such names); the return value says whether it could.
    pub fn add(
        &mut self,
        principal: &str,
        role: Option<&str>,
        database: Option<&str>,
        from: Option<IpAddr>,
    ) -> bool {
        if !principal.starts_with("spiffe://") || principal.contains(['*', '?']) {
            return false;
        }
        let habits = self.principals.entry(principal.to_owned()).or_default();
        habits.roles.extend(role.map(str::to_owned));
        habits.databases.extend(database.map(str::to_owned));
        habits.from.extend(from);
        true
    }

    /// Writes a remark above what is said of a principal that was added; one line, whatever is in it.
    pub fn note(&mut self, principal: &str, remark: &str) {
        if let Some(habits) = self.principals.get_mut(principal) {
            habits.notes.push(remark.to_owned());
        }
    }

    /// The file. Owners are left to people.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::from(
            "# What was seen, as a first inventory. Nobody has approved it: go through the list, fill in owners, and remove\n\
             # what should not be there. What is not listed is marked \"not in inventory\", what is listed and does other\n\
             # things than these, \"unexpected\".\n",
        );
        let list = |values: Vec<String>| {
            let quoted: Vec<String> = values
                .into_iter()
                .map(|value| toml::Value::String(value).to_string())
                .collect();
            format!("[{}]", quoted.join(", "))
        };
        for (principal, habits) in &self.principals {
            let id = toml::Value::String(principal.clone());
            let roles = list(habits.roles.iter().cloned().collect());
            let databases = list(habits.databases.iter().cloned().collect());
            text.push('\n');
            for note in &habits.notes {
                comment(&mut text, note);
            }
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "[[principal]]\nid = {id}\nowner = \"?\"\nroles = {roles}\ndatabases = {databases}\n"
            );
            if !habits.from.is_empty() {
                let hosts = habits.from.iter().map(|address| {
                    let bits = if address.is_ipv4() { 32 } else { 128 };
                    format!("{address}/{bits}")
                });
                let _ = writeln!(text, "from = {}", list(hosts.collect()));
            }
        }
        text
    }
}

/// One line of comment. Names in it come from clients: nothing of them may end the line.
fn comment(text: &mut String, remark: &str) {
    text.push_str("# ");
    for character in remark.chars() {
        let ends_or_hides =
            character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
        if ends_or_hides {
            text.extend(character.escape_unicode());
        } else {
            text.push(character);
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inventory, Mark, Seen};

    #[test]
    fn what_was_seen_is_expected_by_what_is_suggested() {
        let mut suggestion = Suggestion::default();
        let id = "spiffe://example.org/host/db1/exe/opt/\"odd\" one";
        let from = "10.0.0.5".parse().ok();
        assert!(suggestion.add(id, Some("app\\user"), Some("shop"), from));
        assert!(suggestion.add(id, Some("other"), Some("shop"), None));
        assert!(!suggestion.add("unknown", Some("app_user"), None, None));
        let text = suggestion.to_toml();
        let inventory = Inventory::parse(&text).expect("it is one");
        assert_eq!(inventory.len(), 1);
        let seen = Seen {
            principal: id,
            role: Some("app\\user"),
            database: Some("shop"),
            from,
            on: jiff::civil::date(2026, 1, 1),
        };
        assert!(matches!(inventory.judge(&seen), Mark::Expected(_)));
        let elsewhere = Seen {
            from: "10.0.0.6".parse().ok(),
            ..seen
        };
        assert_eq!(inventory.judge(&elsewhere).name(), "unexpected");
    }
    #[test]
    fn no_text_of_a_client_becomes_an_entry_or_a_pattern() {
        let mut suggestion = Suggestion::default();
        let id = "spiffe://example.org/host/db1/unit/a.service";
        assert!(!suggestion.add("spiffe://*", None, None, None));
        assert!(!suggestion.add("spiffe://example.org/addr/?", None, None, None));
        let hostile = "x\n[[principal]]\nid = \"spiffe://*\"\nowner = \"me\"\n#";
        assert!(suggestion.add(id, Some(hostile), Some(hostile), None));
        suggestion.note(id, &format!("uses {hostile}\r\u{2028}"));
        suggestion.note("spiffe://example.org/never/seen", "nothing");
        let text = suggestion.to_toml();
        let inventory = Inventory::parse(&text).expect("an inventory");
        assert_eq!(inventory.len(), 1, "{text}");
        let entry = &inventory.entries()[0];
        assert!(entry.is_about(id) && !entry.is_about("spiffe://example.org/x"));
        assert_eq!(entry.roles.as_deref(), Some(&[hostile.to_owned()][..]));
        assert!(text.contains("\n# uses x\\u{a}[[principal]]"), "{text}");
    }
}
