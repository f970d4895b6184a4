//! `pgwitness-collector inventory`: a first inventory from what was seen, and a look at one that is there.
//!
//! Owns the command line and what is asked for both. The file's form and the judgement are the crate `inventory`'s; the
//! inventory that a running collector goes by is `expectations`'.

mod check;
mod suggest;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Subcommand;
use serde_json::Value;

use crate::source::Source;

/// Writes a first inventory from what was seen, or looks one through.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Suggest(suggest::Args),
    Check(check::Args),
}

/// Does either.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Suggest(args) => suggest::run(args).await,
        Command::Check(args) => check::run(args).await,
    }
}

/// What is known of every principal that has a name, as the rows of `SELECT principal, {columns} …`, in the order of their names.
async fn principals(source: &Source, columns: &str, since_ns: i64) -> anyhow::Result<Vec<Vec<Value>>> {
    let mut all: Vec<Vec<Value>> = Vec::new();
    loop {
        let last = match all.last() {
            Some(row) => row
                .first()
                .and_then(Value::as_str)
                .context("a principal without a name")?,
            None => "",
        };
        // An answer has a limit, principals have none. Only who was let in has used anything.
        let page = source
            .ask(&format!(
                "SELECT principal, {columns} FROM events WHERE session_id IS NOT NULL AND kind IN ('session_open', 'query', 'rollup') \
                 AND principal LIKE 'spiffe://%' AND principal > '{}' AND ts_start >= to_timestamp_nanos({since_ns}) \
                 GROUP BY principal ORDER BY principal LIMIT {PRINCIPALS}",
                last.replace('\'', "''")
            ))
            .await?;
        let is_last = page.rows.len() < PRINCIPALS && !page.truncated;
        ensure!(
            is_last || !page.rows.is_empty(),
            "a principal's row is larger than an answer may be"
        );
        all.extend(page.rows);
        if is_last {
            return Ok(all);
        }
    }
}

/// Principals that are asked for at a time.
const PRINCIPALS: usize = 500;
