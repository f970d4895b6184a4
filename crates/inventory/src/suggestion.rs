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
    roles: BTreeSet<String>,
    databases: BTreeSet<String>,
    from: BTreeSet<IpAddr>,
}

impl Suggestion {
    /// Takes a sighting. What has no name cannot be listed; the return value says whether it could.
    pub fn add(
        &mut self,
        principal: &str,
        role: Option<&str>,
        database: Option<&str>,
        from: Option<IpAddr>,
    ) -> bool {
        if !principal.starts_with("spiffe://") {
            return false;
        }
        let habits = self.principals.entry(principal.to_owned()).or_default();
        habits.roles.extend(role.map(str::to_owned));
        habits.databases.extend(database.map(str::to_owned));
        habits.from.extend(from);
        true
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
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n[[principal]]\nid = {id}\nowner = \"?\"\nroles = {roles}\ndatabases = {databases}\n"
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
}
