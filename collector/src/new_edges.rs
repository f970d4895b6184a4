//! `pgwitness-collector new-edges`: who touched what for the first time.
//!
//! Owns the command's flags; the answer is `store::edges`'.

use std::process::ExitCode;

use jiff::Timestamp;

use crate::{
    ask,
    query::{self, Format},
    since::since,
    source::Place,
    store::edges::NewEdges,
};

/// Tells which principals touched an object, or used it in a way, that they never did before; reading and writing are two. The newest come
/// first, each with the event that was the first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// New is what was not seen before then: RFC 3339, or a span before now like 24h or 30d.
    #[arg(long, value_name = "TIME")]
    pub since: String,
    /// Of what began before then.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Whom to ask.
    #[command(flatten)]
    pub place: Place,
    /// How to print the answer.
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

/// Asks and prints.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let until = args.until.as_deref().map(|until| since(until, now));
    let question = NewEdges {
        since_ns: since(&args.since, now)?,
        until_ns: until.transpose()?,
    };
    let source = args.place.open().await?;
    ask::tell_beginning(&source, question.since_ns).await?;
    query::show(&source.answer(&question).await?, args.format)
}

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  new-edges --since 7d
  new-edges --since 2026-09-01T00:00:00Z --until 2026-10-01T00:00:00Z
  new-edges --since 2026-11-01T00:00:00Z --format json";
