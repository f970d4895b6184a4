//! `pgwitness-collector what`: what a principal touched.
//!
//! Owns the command's flags; the answer is `store::what`'s.

use std::process::ExitCode;

use jiff::Timestamp;

use crate::{
    query::{self, Format},
    since::When,
    source::Place,
    store::what::What,
};

/// Tells what a principal touched: objects and columns, how, how often, and when first and last. A statement counts with each object
/// that it names; what it may have touched beyond that has a row with the reason.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The principal, whole or with * for any text; `unknown` is whoever has no name.
    #[arg(long, value_name = "PRINCIPAL")]
    pub principal: String,
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
    let question = What {
        principal: Some(args.principal),
        object: None,
        span: args.when.span(Timestamp::now())?,
    };
    let page = args.place.open().await?.answer(&question).await?;
    query::show(&page, args.format)
}

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  what --principal spiffe://example.org/host/db1/unit/shop.service
  what --principal '*/unit/shop.service' --since 7d
  what --principal unknown --format csv";
