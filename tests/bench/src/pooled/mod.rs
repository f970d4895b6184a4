//! What it costs to follow the statements of a pooler: to the agent, for each statement, and to the pooler's throughput.
//!
//! Two figures. `tracking_ns_per_statement` is pure: socket calls like those of PgBouncer through `tap_core::lease`, in the
//! thread's own processor time. `pgbouncer_ratio` is the throughput of pgbench through PgBouncer while both of its sides and the
//! server are tapped, against the same untapped, in turns within one run, everything on the same processors.

mod ratio;
mod tracking;

use anyhow::Result;
use pgwitness_tests::screen::progress;
use serde_json::{Map, json};

use crate::{
    figures::{confidence, machine, median, rounded},
    overhead::Programs,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    programs: Programs,
    /// How they were built; stands in the output
    #[arg(long, default_value = "not said")]
    build: String,
    /// How often everything is measured
    #[arg(long)]
    rounds: Option<usize>,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// A smoke run: the figures mean little
    #[arg(long)]
    quick: bool,
}

const ROUNDS: usize = 11;
const SECONDS: u64 = 4;

pub(crate) async fn run(args: &Args) -> Result<()> {
    let (rounds, seconds) = if args.quick { (2, 1) } else { (ROUNDS, SECONDS) };
    let rounds = args.rounds.unwrap_or(rounds).max(1);
    progress(&machine());
    let tracking = tracking::measure(rounds, args.quick)?;
    progress(&format!(
        "tracking: {:.0} ns a statement, {:?}",
        median(&tracking.nanoseconds),
        confidence(&tracking.nanoseconds)
    ));
    let ratio = ratio::measure(&args.programs, rounds, seconds).await?;
    let mut figures = Map::new();
    let spread = |values: &[f64], places| json!(confidence(values).map(|value| rounded(value, places)));
    figures.insert(
        "tracking_ns_per_statement".to_owned(),
        rounded(median(&tracking.nanoseconds), 0),
    );
    figures.insert("tracking_ci95".to_owned(), spread(&tracking.nanoseconds, 0));
    figures.insert("tracking_statements".to_owned(), json!(tracking.statements));
    figures.insert("tracking_transfers".to_owned(), json!(tracking.transfers));
    match &ratio {
        Ok(ratio) => {
            figures.insert("pgbouncer_ratio".to_owned(), rounded(median(&ratio.tapped), 3));
            figures.insert("pgbouncer_ci95".to_owned(), spread(&ratio.tapped, 3));
            figures.insert("aa_ratio".to_owned(), rounded(median(&ratio.again), 3));
            figures.insert(
                "untapped_per_second".to_owned(),
                rounded(median(&ratio.untapped), 0),
            );
            figures.insert("lost".to_owned(), json!(ratio.lost));
            figures.insert("cpu_us_by_part".to_owned(), ratio.parts());
            figures.insert("kernel_programs".to_owned(), ratio.programs());
            figures.insert("unavailable".to_owned(), json!([]));
        }
        Err(reason) => {
            figures.insert(
                "unavailable".to_owned(),
                json!([format!("pgbouncer_ratio: {reason}")]),
            );
        }
    }
    figures.insert("rounds".to_owned(), json!(rounds));
    figures.insert("seconds".to_owned(), json!(seconds));
    figures.insert("machine".to_owned(), json!(machine()));
    figures.insert("build".to_owned(), json!(args.build));
    figures.insert("quick".to_owned(), json!(args.quick));
    if args.json {
        println!("{}", serde_json::Value::Object(figures));
    } else {
        for (name, value) in &figures {
            println!("  {name:<28} {value}");
        }
    }
    Ok(())
}
