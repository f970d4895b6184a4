//! One sighting, judged.

use std::{fmt, net::IpAddr};

use jiff::civil::Date;

use crate::{Entry, Inventory};

/// What was seen of a principal.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its identifier; "unknown" if nobody can say.
    pub principal: &'a str,
    /// The role that it logged in as, if that is known.
    pub role: Option<&'a str>,
    /// The database, if that is known.
    pub database: Option<&'a str>,
    /// The address that it came from; `None` over a Unix socket, or if it is not known.
    pub from: Option<IpAddr>,
    /// The day (UTC).
    pub on: Date,
}

/// The judgement.
#[derive(Clone, Debug)]
pub enum Mark<'a> {
    /// An entry expects exactly this.
    Expected(&'a Entry),
    /// The principal is listed, but this is not what is expected of it.
    Unexpected(&'a Entry, Vec<Surprise>),
    /// No entry is about this principal.
    NotListed,
}

impl Mark<'_> {
    /// As it stands in records and questions.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Expected(_) => "expected",
            Self::Unexpected(..) => "unexpected",
            Self::NotListed => "not in inventory",
        }
    }
}

/// Why something is not expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surprise {
    /// The role is none of those that are listed.
    Role(String),
    /// The database is none of those that are listed.
    Database(String),
    /// The address is in none of the networks that are listed.
    From(IpAddr),
    /// The credential was good until this day.
    Expired(Date),
}

impl fmt::Display for Surprise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => write!(f, "role {role} is not listed"),
            Self::Database(database) => write!(f, "database {database} is not listed"),
            Self::From(address) => write!(f, "{address} is in none of the listed networks"),
            Self::Expired(day) => write!(f, "the credential expired on {day}"),
        }
    }
}

impl Inventory {
    /// Judges a sighting. Of several entries whose patterns match, one that expects it suffices; otherwise the entry that
    /// names most of the principal says why not. What is not known of a sighting is not held against it.
    #[must_use]
    pub fn judge(&self, seen: &Seen<'_>) -> Mark<'_> {
        let mut nearest: Option<(&Entry, Vec<Surprise>)> = None;
        for entry in &self.entries {
            if !entry.is_about(seen.principal) {
                continue;
            }
            let surprises = entry.surprises(seen);
            if surprises.is_empty() {
                return Mark::Expected(entry);
            }
            if nearest
                .as_ref()
                .is_none_or(|(other, _)| entry.says() > other.says())
            {
                nearest = Some((entry, surprises));
            }
        }
        nearest.map_or(Mark::NotListed, |(entry, surprises)| {
            Mark::Unexpected(entry, surprises)
        })
    }
}

impl Entry {
    fn surprises(&self, seen: &Seen<'_>) -> Vec<Surprise> {
        let unlisted = |listed: &Option<Vec<String>>, value: Option<&str>| {
            let (listed, value) = (listed.as_ref()?, value?);
            (!listed.iter().any(|one| one == value)).then(|| value.to_owned())
        };
        let from = || {
            let (networks, address) = (self.from.as_ref()?, seen.from?);
            (!networks.iter().any(|network| network.contains(&address))).then_some(address)
        };
        let expired = || {
            let last = self.credential.as_ref()?.expires?;
            (seen.on > last).then_some(last)
        };
        [
            unlisted(&self.roles, seen.role).map(Surprise::Role),
            unlisted(&self.databases, seen.database).map(Surprise::Database),
            from().map(Surprise::From),
            expired().map(Surprise::Expired),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// How many characters of the principal it spells out.
    fn says(&self) -> usize {
        self.principal
            .chars()
            .filter(|character| !matches!(character, '*' | '?'))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [[principal]]
        id = "spiffe://example.org/host/*/unit/orders.service"
        owner = "team-orders"
        roles = ["app_user"]
        databases = ["shop"]
        from = ["10.1.0.0/16", "fd00::/8"]
        credential = { expires = 2026-06-30 }

        [[principal]]
        id = "spiffe://example.org/host/*"
        owner = "operations"
        roles = ["monitor"]
    "#;

    fn seen<'a>(principal: &'a str, role: &'a str) -> Seen<'a> {
        Seen {
            principal,
            role: Some(role),
            database: Some("shop"),
            from: "10.1.2.3".parse().ok(),
            on: jiff::civil::date(2026, 6, 30),
        }
    }

    const ORDERS: &str = "spiffe://example.org/host/db1/unit/orders.service";

    #[test]
    fn what_is_listed_is_expected_and_what_is_not_says_why() {
        let inventory = Inventory::parse(TEXT).expect("an inventory");
        let mark = inventory.judge(&seen(ORDERS, "app_user"));
        assert!(matches!(mark, Mark::Expected(entry) if entry.owner == "team-orders"));
        // The wider entry expects it.
        let mark = inventory.judge(&seen(ORDERS, "monitor"));
        assert!(matches!(mark, Mark::Expected(entry) if entry.owner == "operations"));
        let strange = Seen {
            database: Some("hr"),
            from: "192.0.2.1".parse().ok(),
            on: jiff::civil::date(2026, 7, 1),
            ..seen(ORDERS, "postgres")
        };
        let Mark::Unexpected(entry, surprises) = inventory.judge(&strange) else {
            panic!("nobody expects this");
        };
        assert_eq!(entry.owner, "team-orders", "the one that names most of it");
        let words: Vec<String> = surprises.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "role postgres is not listed",
                "database hr is not listed",
                "192.0.2.1 is in none of the listed networks",
                "the credential expired on 2026-06-30"
            ]
        );
    }

    #[test]
    fn who_is_not_listed_is_not_called_unexpected() {
        let inventory = Inventory::parse(TEXT).expect("an inventory");
        for principal in ["unknown", "spiffe://example.com/host/db1/unit/orders.service"] {
            assert_eq!(
                inventory.judge(&seen(principal, "app_user")).name(),
                "not in inventory"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_not_held_against_it() {
        let inventory = Inventory::parse(TEXT).expect("an inventory");
        let bare = Seen {
            role: None,
            database: None,
            from: None,
            ..seen(ORDERS, "")
        };
        assert_eq!(inventory.judge(&bare).name(), "expected");
    }
}
