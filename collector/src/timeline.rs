//! `pgwitness-collector timeline`: what happened in a session, or by a principal, in order.
//!
//! Owns the command's flags, and how the next page is asked for; the answer is `store::timeline`'s.

use std::process::ExitCode;

use jiff::Timestamp;

use crate::{
    query::{self, Format},
    since::When,
    source::Place,
    store::timeline::Timeline,
};

/// Tells what happened in a session, or by a principal, in order: statements, errors, what takes privileges, and what was not seen meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("whose").required(true).multiple(true).args(["session", "principal"])))]
pub struct Args {
    /// The session, also one at a pooler: session_id of the table events.
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// The principal, whole or with * for any text; `unknown` is whoever has no name.
    #[arg(long, value_name = "PRINCIPAL")]
    pub principal: Option<String>,
    /// When.
    #[command(flatten)]
    pub when: When,
    /// Begins behind this event, as the page before says.
    #[arg(long, value_name = "EVENT_ID")]
    pub after: Option<String>,
    /// Rows of a page.
    #[arg(long, value_name = "N", default_value = "200", value_parser = clap::value_parser!(u16).range(1..))]
    pub limit: u16,
    /// Whom to ask.
    #[command(flatten)]
    pub place: Place,
    /// How to print the answer.
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

/// Asks and prints a page.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let question = Timeline {
        session: args.session,
        principal: args.principal,
        span: args.when.span(Timestamp::now())?,
        after: args.after,
        limit: args.limit.into(),
    };
    let page = args.place.open().await?.answer(&question).await?;
    query::print_page(&page, args.format)?;
    if let Some(next) = Timeline::next(&page) {
        eprintln!("there is more: --after {next}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  timeline --session 3f2a…-18 --limit 50
  timeline --principal '*/login/eve' --since 24h
  timeline --principal '*/login/eve' --after db1-4711      the next page";
