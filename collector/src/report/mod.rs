//! `pgwitness-collector report`: answers put together for people who were not there.
//!
//! Owns which reports there are and what they are asked with. Each is one file: what it asks of the record, and how it says it. Refuses
//! to judge: a report tells what is held, how sure that is, and what is not.

mod access_review;
mod coverage;
mod dsar;
pub(crate) mod evidence_pack;
mod page;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use page::{Report, Section};

use crate::{
    export,
    since::When,
    source::{Place, Source},
    store::{
        Store,
        page::Page,
        question::{self, Question, Span, in_words},
    },
    who,
};

/// Makes a report: what is covered, who touched a record, who has access, or what auditors ask for.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which report.
    #[command(subcommand)]
    pub report: Kind,
}

/// The reports.
#[derive(Debug, clap::Subcommand)]
pub enum Kind {
    /// What was seen and what was not: names, gaps, agents.
    Coverage(Common),
    /// Who touched a record (of one person, say), and which scans may have included it. Actors have numbers in place of names.
    Dsar(Dsar),
    /// Who uses which role and touches what, what takes privileges, and what nobody expects.
    AccessReview(Common),
    /// What is held of what SOC 2 (CC6, CC7), PCI DSS (10) and GDPR (5(2), 15, 32) ask for, and what is not.
    EvidencePack(Common),
}

/// What all reports are made with.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// When.
    #[command(flatten)]
    pub when: When,
    /// The form.
    #[arg(long, value_enum, default_value = "markdown")]
    pub format: Format,
    /// The file; it gets its name when it is whole. Without one, standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replaces the file, if it is there.
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub place: Place,
}

/// Of which record.
#[derive(Debug, clap::Args)]
pub struct Dsar {
    /// The record.
    #[command(flatten)]
    pub record: who::Record,
    /// Names the actors.
    #[arg(long)]
    pub name_actors: bool,
    /// As all reports.
    #[command(flatten)]
    pub common: Common,
}

/// What a report is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// CommonMark, with tables as GitHub has them.
    Markdown,
    /// One file, without scripts.
    Html,
    /// As the API answers.
    Json,
}

/// Which report, as the API is asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Asked {
    /// What was seen and what was not.
    Coverage(Span),
    /// Who touched a record.
    Dsar {
        /// The question, in tokens.
        asking: who::Asking,
        /// Whether actors have their names.
        #[serde(default)]
        name_actors: bool,
    },
    /// Who uses what.
    AccessReview(Span),
    /// What auditors ask for.
    EvidencePack(Span),
}

impl question::Answer for Report {
    fn rows(&self) -> usize {
        let tables = self.sections.iter().filter_map(|section| section.table.as_ref());
        tables.map(|table| table.rows.len()).sum()
    }
}

impl Question for Asked {
    const PATH: &'static str = "/api/v1/report";
    const KIND: &'static str = "report";
    type Answer = Report;
    /// It is made of several answers.
    const LONGEST: Duration = Duration::from_secs(120);

    fn words(&self) -> String {
        match self {
            Self::Coverage(span) => format!("coverage {}", in_words(span)),
            Self::AccessReview(span) => format!("access-review {}", in_words(span)),
            Self::EvidencePack(span) => format!("evidence-pack {}", in_words(span)),
            Self::Dsar { asking, name_actors } => {
                let actors = if *name_actors { "named" } else { "numbered" };
                format!("dsar {}, actors {actors}", asking.asked.words())
            }
        }
    }

    async fn answer(&self, store: &Store) -> anyhow::Result<Report> {
        match self {
            Self::Coverage(span) => coverage::report(store, *span).await,
            Self::Dsar { asking, name_actors } => dsar::report(store, asking, *name_actors).await,
            Self::AccessReview(span) => access_review::report(store, *span).await,
            Self::EvidencePack(span) => evidence_pack::report(store, *span).await,
        }
    }
}

/// Asks, and writes.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let common = args.report.common();
    let span = common.when.span(now)?;
    let source = common.place.open().await?;
    let asked = match &args.report {
        Kind::Coverage(_) => Asked::Coverage(span),
        Kind::AccessReview(_) => Asked::AccessReview(span),
        Kind::EvidencePack(_) => Asked::EvidencePack(span),
        Kind::Dsar(dsar) => Asked::Dsar {
            asking: dsar.record.asking(&source, span).await?,
            name_actors: dsar.name_actors,
        },
    };
    let mut report = source.answer(&asked).await?;
    report.facts.insert(
        0,
        (
            "made".to_owned(),
            now.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        ),
    );
    report.facts.extend(source.evidence().await?);
    let text = match common.format {
        Format::Markdown => page::markdown(&report)?,
        Format::Html => page::html(&report)?,
        Format::Json => serde_json::to_string(&report)? + "\n",
    };
    export::deliver(text.into_bytes(), common.output.as_deref(), common.force).await?;
    Ok(ExitCode::SUCCESS)
}

impl Kind {
    const fn common(&self) -> &Common {
        match self {
            Self::Coverage(common) | Self::AccessReview(common) | Self::EvidencePack(common) => common,
            Self::Dsar(dsar) => &dsar.common,
        }
    }
}

/// The time that a report is about, for its head.
fn period(span: Span) -> (String, String) {
    let time = |ns: Option<i64>, otherwise: &str| {
        let at = ns.and_then(|ns| Timestamp::from_nanosecond(ns.into()).ok());
        at.map_or_else(|| otherwise.to_owned(), |at| at.to_string())
    };
    let text = format!(
        "{} to {}",
        time(span.since_ns, "the beginning of the record"),
        time(span.until_ns, "now")
    );
    ("period".to_owned(), text)
}

/// The cell of the first row in this column, as a number; 0 where there is none.
fn number(page: &Page, column: &str) -> u64 {
    cell(page, column)
        .and_then(serde_json::Value::as_u64)
        .unwrap_or_default()
}

/// The same as text; a dash where there is none.
fn text(page: &Page, column: &str) -> String {
    let text = cell(page, column).and_then(serde_json::Value::as_str);
    text.unwrap_or("–").to_owned()
}

fn cell<'a>(page: &'a Page, column: &str) -> Option<&'a serde_json::Value> {
    let place = page.columns.iter().position(|name| name == column)?;
    page.rows.first()?.get(place)
}

impl Source {
    /// Where the record stands: origin, entries and newest checkpoint, for the head of a report.
    async fn evidence(&self) -> anyhow::Result<Vec<(String, String)>> {
        let evidence = self.checkpoint().await?;
        Ok(evidence.map_or_else(Vec::new, |known| {
            vec![
                ("evidence log".to_owned(), known.origin),
                (
                    "newest checkpoint".to_owned(),
                    format!("{} entries, root {}", known.entries, known.root),
                ),
            ]
        }))
    }
}

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  report coverage --since 30d
  report access-review --since 90d --format html -o review.html
  report dsar --object public.customers --key - --token-key keys --purpose 'request 93' --format html -o request-93.html
  report evidence-pack --since 365d --format html -o evidence.html";

#[cfg(test)]
mod tests;
