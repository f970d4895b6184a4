//! `inventory check`: what a file says, what a person should look at, and what of it was ever seen.

use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf, process::ExitCode};

use inventory::{Entry, Inventory};
use jiff::civil::Date;
use serde_json::Value;

use crate::{
    expectations,
    http::client::DEFAULT_URL,
    query::printable,
    since::since,
    source::{Credentials, Place},
};

/// Says whether a file is an inventory, what it lists, and with --data or --url what of that was never seen.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The inventory.
    file: PathBuf,
    /// Compares with what this data folder holds.
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    data: Option<PathBuf>,
    /// Compares with what this collector holds.
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = DEFAULT_URL)]
    url: Option<String>,
    #[command(flatten)]
    credentials: Credentials,
    /// With --data or --url: what was seen since then.
    #[arg(long, value_name = "TIME", default_value = "30d")]
    since: String,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let inventory = expectations::read(&args.file)?;
    let now = jiff::Timestamp::now();
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let mut text = told(&inventory, today);
    if args.data.is_some() || args.url.is_some() {
        let place = Place {
            purpose: None,
            data: args.data,
            credentials: args.credentials,
            url: args.url.unwrap_or_else(|| DEFAULT_URL.to_owned()),
        };
        let since_ns = since(&args.since, now)?;
        let rows = super::principals(&place.open().await?, "max(ts_start)", since_ns).await?;
        let seen: BTreeSet<&str> = rows
            .iter()
            .filter_map(|row| row.first().and_then(Value::as_str))
            .collect();
        text.push_str(&compared(&inventory, &seen, &args.since));
    }
    print!("OK: {} is an inventory\n{text}", args.file.display());
    Ok(ExitCode::SUCCESS)
}

/// What it lists, and what is wrong with that at first sight.
fn told(inventory: &Inventory, today: Date) -> String {
    let owners: BTreeSet<&str> = inventory
        .entries()
        .iter()
        .map(|entry| entry.owner.as_str())
        .collect();
    let mut out = format!(
        "  lists      {} principals of {} owners\n",
        inventory.len(),
        owners.len()
    );
    for entry in inventory.entries() {
        line(&mut out, "entry", &one(entry));
    }
    for entry in inventory.entries() {
        for fault in faults(entry, today) {
            line(&mut out, "look at", &format!("{}: {fault}", entry.principal));
        }
    }
    out
}

fn one(entry: &Entry) -> String {
    let mut said = format!("{} ({})", entry.principal, entry.owner);
    let mut list = |name: &str, values: Option<Vec<String>>| {
        let _ = match values {
            Some(values) if values.is_empty() => write!(said, "; no {name}"),
            Some(values) => write!(said, "; {name} {}", values.join(" ")),
            None => write!(said, "; any {name}"),
        };
    };
    list("roles", entry.roles.clone());
    list("databases", entry.databases.clone());
    let networks = entry.from.as_ref();
    list(
        "networks",
        networks.map(|networks| networks.iter().map(ToString::to_string).collect()),
    );
    said
}

fn faults(entry: &Entry, today: Date) -> Vec<String> {
    let mut faults = Vec::new();
    if entry.owner.trim().is_empty() || entry.owner == "?" {
        faults.push("nobody owns it".to_owned());
    }
    if entry.approved_by.is_none() {
        faults.push("nobody approved it".to_owned());
    }
    let expires = entry
        .credential
        .as_ref()
        .and_then(|credential| credential.expires);
    if let Some(day) = expires.filter(|day| *day < today) {
        faults.push(format!("its credential expired on {day}"));
    }
    faults
}

/// What is listed and was not seen, and the other way round.
fn compared(inventory: &Inventory, seen: &BTreeSet<&str>, since: &str) -> String {
    let mut out = String::new();
    for entry in inventory.entries() {
        if !seen.iter().any(|principal| entry.is_about(principal)) {
            line(
                &mut out,
                "not seen",
                &format!("{} (--since {since})", entry.principal),
            );
        }
    }
    let listed = |principal: &&&str| inventory.entries().iter().any(|entry| entry.is_about(principal));
    for principal in seen.iter().filter(|principal| !listed(principal)) {
        line(&mut out, "not listed", principal);
    }
    out
}

fn line(out: &mut String, name: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "  {name:<10} {}", printable(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_missing_and_never_seen_is_told() {
        let text = "[[principal]]\nid = \"spiffe://x/host/*/unit/a.service\"\nowner = \"?\"\nroles = [\"app\"]\ndatabases = []\n\
            credential = { expires = 2026-01-01 }\n\
            [[principal]]\nid = \"spiffe://x/b\"\nowner = \"team\"\napproved_by = \"eve\"\n";
        let inventory = Inventory::parse(text).unwrap();
        assert_eq!(
            told(&inventory, jiff::civil::date(2026, 1, 2)),
            "  lists      2 principals of 2 owners\n  \
             entry      spiffe://x/host/*/unit/a.service (?); roles app; no databases; any networks\n  \
             entry      spiffe://x/b (team); any roles; any databases; any networks\n  \
             look at    spiffe://x/host/*/unit/a.service: nobody owns it\n  \
             look at    spiffe://x/host/*/unit/a.service: nobody approved it\n  \
             look at    spiffe://x/host/*/unit/a.service: its credential expired on 2026-01-01\n"
        );
        assert!(!told(&inventory, jiff::civil::date(2026, 1, 1)).contains("expired"));
        let seen = ["spiffe://x/host/db1/unit/a.service", "spiffe://x/c\u{1b}"].into();
        assert_eq!(
            compared(&inventory, &seen, "30d"),
            "  not seen   spiffe://x/b (--since 30d)\n  not listed spiffe://x/c\\u{1b}\n"
        );
    }
}
