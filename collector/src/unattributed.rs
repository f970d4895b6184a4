//! `pgwitness-collector unattributed`: what has no name, and why.
//!
//! Owns the command's flags; the answer is `store::unattributed`'s.

use std::process::ExitCode;

use jiff::Timestamp;

use crate::{
    query::{self, Format},
    since::When,
    source::Place,
    store::unattributed::Unattributed,
};

/// Tells which statements and sessions nobody is named for, by reason, role and database, with the first and the last event of each.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// When.
    #[command(flatten)]
    pub when: When,
    /// Whom to ask.
    #[command(flatten)]
    pub place: Place,
    /// How to print the answer.
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

/// Asks and prints.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let question = Unattributed {
        span: args.when.span(Timestamp::now())?,
    };
    let page = args.place.open().await?.answer(&question).await?;
    query::show(&page, args.format)
}

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  unattributed
  unattributed --since 24h --format csv";
