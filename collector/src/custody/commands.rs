//! `pgwitness-collector erase` and `hold`: what an operator tells a running collector.
//!
//! Owns the flags and what is printed. A record's value becomes tokens here, as for `who`: the collector is told those alone. Refuses
//! to write anything: one program writes a log, and that is the collector.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use jiff::Timestamp;

use super::{
    Erased, Removed,
    control::{HoldShown, NewHold, Request, What, ask},
};
use crate::{
    config::Config,
    since::since,
    store::{question::Span, who::Made},
    who::{Asking, Value, read_keys},
};

/// Erases events from the record: from the evidence, the store and memory. The hashes of their leaves stay, and with them the proof of
/// everything else; that they were erased, and why, is in the record for good. Asks the collector that runs over --data.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct EraseArgs {
    /// The collector's data folder.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// These events, by their ids.
    #[arg(long, value_name = "ID", group = "what", num_args = 1..)]
    pub event: Vec<String>,
    /// All that touched a record of this object, as the agents' classification names it; with --key and --token-key.
    #[arg(long, value_name = "SCHEMA.NAME", group = "what", requires_all = ["key", "token_key"])]
    pub object: Option<String>,
    /// The record's value in the identifying column; with -, it is read from standard input.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true, requires = "object")]
    pub key: Option<Value>,
    /// The identifying column, where the object has several.
    #[arg(long, value_name = "NAME", requires = "object")]
    pub column: Option<String>,
    /// The agents' token keys. They are used here, and not sent to the collector.
    #[arg(long, value_name = "FILE", requires = "object")]
    pub token_key: Option<PathBuf>,
    /// Also statements that touched so many records that only a filter of them was kept, if it may hold this one.
    #[arg(long, requires = "object")]
    pub possible: bool,
    /// All events of a principal, as answers show it.
    #[arg(long, value_name = "NAME", group = "what")]
    pub principal: Option<String>,
    /// All events that began before: RFC 3339, or a span before now like 90d.
    #[arg(long, value_name = "TIME", group = "what")]
    pub before: Option<String>,
    /// Why; kept in the record for good, so it must not name what is erased.
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    pub reason: Option<String>,
    /// Says what would go, and leaves it.
    #[arg(long)]
    pub dry_run: bool,
    /// Prints one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Holds events: what a hold fits is neither erased nor removed until it is released.
#[derive(Debug, clap::Args)]
pub struct HoldArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: HoldCommand,
}

/// What can be done with holds.
#[derive(Debug, clap::Subcommand)]
pub enum HoldCommand {
    /// Holds all events that fit everything that is given.
    Add(AddArgs),
    /// Shows the holds in force.
    List(ListArgs),
    /// Takes a hold back; what it held can be erased again.
    Release(ReleaseArgs),
}

/// What is to be held.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// The collector's data folder.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Statements that touched this object, or of which it is not known what they touched.
    #[arg(long, value_name = "SCHEMA.NAME")]
    pub object: Option<String>,
    /// Events of this principal, as recorded or as answers show it.
    #[arg(long, value_name = "NAME")]
    pub principal: Option<String>,
    /// What began then or later: RFC 3339, or a span before now like 90d.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// What began before.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Why; kept in the record.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Which collector.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// The collector's data folder.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Prints one JSON array.
    #[arg(long)]
    pub json: bool,
}

/// Which hold.
#[derive(Debug, clap::Args)]
pub struct ReleaseArgs {
    /// The hold's id, as `hold list` shows it.
    pub id: String,
    /// The collector's data folder.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Why; kept in the record.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Removes the oldest payloads: whole segments in which everything is older. Headers, signatures and the tree stay, so that the log still
/// verifies; that payloads were removed is in the record.
#[derive(Debug, clap::Args)]
pub struct RetainArgs {
    /// The collector's data folder.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What ended before is old enough: RFC 3339, or a span before now like 400d.
    #[arg(long, value_name = "TIME")]
    pub before: String,
    /// Why; kept in the record.
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    pub reason: Option<String>,
    /// Says what would go, and leaves it.
    #[arg(long)]
    pub dry_run: bool,
    /// Prints one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs `retain`.
pub async fn retain(args: RetainArgs) -> anyhow::Result<ExitCode> {
    let before = since(&args.before, Timestamp::now())?;
    let request = Request::Retain {
        before_ns: u64::try_from(before).context("a time before 1970")?,
        reason: args.reason.unwrap_or_else(|| DRY_RUN.to_owned()),
        dry_run: args.dry_run,
    };
    let removed: Removed = ask(&or_default(args.data), &request).await?;
    if args.json {
        println!("{}", serde_json::to_string(&removed)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "the payloads of {} entries with {} events {} removed, in {} segments",
        removed.entries,
        removed.events,
        if args.dry_run { "would be" } else { "were" },
        removed.segments
    );
    if let Some(held) = &removed.held {
        println!(
            "{}",
            crate::query::printable(&format!("no more than that: {held}"))
        );
    }
    if let Some(id) = &removed.said {
        println!("said by event {id}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `erase`.
pub async fn erase(args: EraseArgs) -> anyhow::Result<ExitCode> {
    let data = or_default(args.data.clone());
    let what = args.what(&data).await?;
    let request = Request::Erase {
        what,
        reason: args.reason.clone().unwrap_or_else(|| DRY_RUN.to_owned()),
        dry_run: args.dry_run,
    };
    let erased: Erased = ask(&data, &request).await?;
    if args.json {
        println!("{}", serde_json::to_string(&erased)?);
    } else {
        print!("{}", told(&erased, args.dry_run));
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `hold`.
pub async fn hold(args: HoldArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        HoldCommand::Add(args) => {
            let data = or_default(args.data.clone());
            let id: String = ask(&data, &Request::Hold(args.hold()?)).await?;
            println!("{id}: what it fits is neither erased nor removed until it is released");
        }
        HoldCommand::List(args) => {
            let holds: Vec<HoldShown> = ask(&or_default(args.data), &Request::Holds).await?;
            if args.json {
                println!("{}", serde_json::to_string(&holds)?);
            } else {
                holds.iter().for_each(|hold| println!("{}", hold.line()));
            }
        }
        HoldCommand::Release(args) => {
            let request = Request::Release {
                id: args.id,
                reason: args.reason,
            };
            let id: String = ask(&or_default(args.data), &request).await?;
            println!("{id}: released");
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl EraseArgs {
    async fn what(&self, data: &std::path::Path) -> anyhow::Result<What> {
        if let Some(object) = &self.object {
            let (Some(value), Some(file)) = (self.key.clone(), &self.token_key) else {
                anyhow::bail!("--object needs --key and --token-key");
            };
            let keys = read_keys(file)?;
            let request = Request::Made {
                object: object.clone(),
            };
            let made: Vec<Made> = ask(data, &request).await?;
            let asking = Asking::new(
                object.clone(),
                self.column.clone(),
                &made,
                &keys,
                &value.read()?,
                Span::default(),
            )?;
            for key in &asking.missing_keys {
                eprintln!("tokens under the key {key}, which is not in the file, are not looked for");
            }
            for rule in &asking.unread {
                eprintln!(
                    "the value is none by the rule {rule}, so that tokens made by it are not looked for"
                );
            }
            ensure!(
                !asking.asked.tokens.is_empty(),
                "the value gives no token that could be looked for"
            );
            return Ok(What::Record {
                asked: asking.asked,
                possible: self.possible,
            });
        }
        if let Some(principal) = &self.principal {
            return Ok(What::Principal(principal.clone()));
        }
        if let Some(before) = &self.before {
            return Ok(What::BeforeNs(since(before, Timestamp::now())?));
        }
        Ok(What::Events(self.event.clone()))
    }
}

impl AddArgs {
    fn hold(&self) -> anyhow::Result<NewHold> {
        let given = [&self.object, &self.principal, &self.since, &self.until];
        ensure!(
            given.iter().any(|one| one.is_some()),
            "say what is to be held: --object, --principal, --since or --until"
        );
        let now = Timestamp::now();
        let time = |text: &Option<String>| -> anyhow::Result<u64> {
            let ns = text.as_deref().map(|text| since(text, now)).transpose()?;
            ns.map_or(Ok(0), |ns| u64::try_from(ns).context("a time before 1970"))
        };
        Ok(NewHold {
            object: self.object.clone().unwrap_or_default(),
            principal: self.principal.clone().unwrap_or_default(),
            since_ns: time(&self.since)?,
            until_ns: time(&self.until)?,
            reason: self.reason.clone(),
        })
    }
}

impl HoldShown {
    fn line(&self) -> String {
        let time = |ns: u64| proto::json::time(ns).unwrap_or_default();
        let parts = [
            ("object", self.hold.object.clone()),
            ("principal", self.hold.principal.clone()),
            ("since", time(self.hold.since_ns)),
            ("until", time(self.hold.until_ns)),
        ];
        let fits = parts.iter().filter(|(_, value)| !value.is_empty());
        let fits: Vec<String> = fits.map(|(name, value)| format!("{name} {value}")).collect();
        crate::query::printable(&format!(
            "{}  {}  by {}: {}",
            self.id,
            fits.join(", "),
            self.by,
            self.hold.reason
        ))
    }
}

fn told(erased: &Erased, dry_run: bool) -> String {
    let (was, would) = match dry_run {
        true => ("would be", "would be"),
        false => ("were", "are"),
    };
    let mut text = format!(
        "{} events {was} erased, with {} definitions that nothing else named, from {} batches in {} payload segments\n",
        erased.events, erased.definitions, erased.batches, erased.segments
    );
    if erased.kept > 0 {
        text += &format!(
            "{} events that were meant stay: what the collector said of removals, and names that it took back\n",
            erased.kept
        );
    }
    if erased.more {
        text += &format!(
            "more events {would} meant than go at once: the same command again takes the next ones\n"
        );
    }
    if erased.aside > 0 {
        text += &format!(
            "{} batches that were refused lie in aside/, which nothing is erased from: look at them, and remove them by hand\n",
            erased.aside
        );
    }
    for id in &erased.said {
        text += &format!("said by event {id}\n");
    }
    text
}

/// Stands for the reason that such a question does not need.
const DRY_RUN: &str = "dry run";

fn or_default(data: Option<PathBuf>) -> PathBuf {
    data.unwrap_or_else(|| Config::default().data)
}
