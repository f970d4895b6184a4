//! Instructions a statement, by part: what a machine's noise cannot hide.
//!
//! Owns the comparison. `valgrind` counts the instructions of a whole program, on a processor that it makes up and that is always the
//! same; each part runs twice, once with more to do, and the difference is what the more took: starting, reading and ending cancel out.
//! What was counted last stands in a file beside this one. Kernel and disk are not counted, so these are no times: a change of
//! them shows work that was added or saved.

mod collector;
mod parts;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use pgwitness_tests::screen::progress;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub(crate) use parts::{Args as PartArgs, run as part};

use parts::Part;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder with the recorded conversations
    #[arg(long, value_name = "DIR")]
    recordings: PathBuf,
    /// The collector's program, built as it was when the expected counts were made
    #[arg(long, value_name = "FILE")]
    collector: PathBuf,
    /// File with the counts of the last time
    #[arg(long, value_name = "FILE")]
    expected: PathBuf,
    /// Write the file anew instead of comparing with it
    #[arg(long)]
    bless: bool,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// Fewer statements: the counts differ somewhat from those that are compared, and are not compared
    #[arg(long)]
    quick: bool,
}

/// Conversations in which a statement is worth counting; the first is the main one.
const CASES: [&str; 3] = ["pgbench-prepared", "pgbench-extended", "pgbench-simple"];

/// How far a count may be from the last one, as a share of it: hash seeds and addresses differ from run to run.
const TOLERANCE: f64 = 0.03;

/// Below this many instructions a difference is not judged: it is a few branches.
const SMALL: f64 = 20.0;

/// Instructions a statement, or whatever the part is of.
type Counts = BTreeMap<String, f64>;

/// What stands in the file.
#[derive(Deserialize, Serialize)]
struct Expected {
    /// Another compiler makes other instructions.
    compiler: String,
    instructions: Counts,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let mut counts = Counts::new();
    for case in CASES {
        let recording = args.recordings.join(format!("{case}.segments.zst"));
        let mut before = 0.0;
        // Each does what the one before does, and more.
        for (part, name) in [
            (Part::Protocol, "protocol"),
            (Part::Events, "sessions and meaning"),
            (Part::Encode, "encode"),
            (Part::Seal, "seal"),
        ] {
            let count = of_part(part, &recording)?;
            counts.insert(format!("{case}: {name}"), count - before);
            progress(&format!(
                "{case}: {name}: {:.0} instructions a statement",
                count - before
            ));
            before = count;
        }
    }
    for (part, name) in [
        (Part::Meaning, "meaning of a new text of known structure"),
        (Part::Attribution, "attribution of a connection"),
    ] {
        let count = least(|| of_part(part, &args.recordings))?;
        progress(&format!("{name}: {count:.0} instructions"));
        counts.insert(name.to_owned(), count);
    }
    counts.extend(collector::count(&args.collector, &args.recordings, args.quick).await?);
    let counts: Counts = counts
        .into_iter()
        .map(|(name, count)| (name, count.round()))
        .collect();
    if args.json {
        println!(
            "{}",
            json!({"instructions": counts, "compiler": compiler()?, "quick": args.quick})
        );
    } else {
        for (name, count) in &counts {
            println!("{count:>10.0}  {name}");
        }
    }
    if args.bless {
        let expected = Expected {
            compiler: compiler()?,
            instructions: counts,
        };
        let text = serde_json::to_string_pretty(&expected)? + "\n";
        return fs::write(&args.expected, text).with_context(|| args.expected.display().to_string());
    }
    if args.quick {
        return Ok(());
    }
    compare(args, &counts)
}

fn compare(args: &Args, counts: &Counts) -> anyhow::Result<()> {
    let text = fs::read_to_string(&args.expected).with_context(|| args.expected.display().to_string())?;
    let expected: Expected = serde_json::from_str(&text).context("the expected counts")?;
    if expected.compiler != compiler()? {
        eprintln!(
            "the expected counts are of {}: differences may be the compiler's",
            expected.compiler
        );
    }
    let differences = differences(&expected.instructions, counts);
    for (name, said) in &differences {
        eprintln!("{name}: {said}");
    }
    ensure!(
        differences.is_empty(),
        "{} counts are not what they were: find out why, and if it is meant, say so with --bless",
        differences.len()
    );
    Ok(())
}

/// Which counts are not what they were, and how; fewer instructions are told as well, so that they stay saved.
fn differences(expected: &Counts, counts: &Counts) -> Vec<(String, String)> {
    let names: std::collections::BTreeSet<&String> = expected.keys().chain(counts.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let said = match (expected.get(name), counts.get(name)) {
            (Some(before), Some(now)) if (now - before).abs() <= SMALL.max(before.abs() * TOLERANCE) => {
                continue;
            }
            (Some(before), Some(now)) => {
                format!(
                    "{now:.0} instructions, {before:.0} before ({:+.1} %)",
                    (now / before - 1.0) * 100.0
                )
            }
            (None, now) => format!(
                "{:.0} instructions, not counted before",
                now.copied().unwrap_or_default()
            ),
            (_, None) => "not counted any more".to_owned(),
        };
        found.push((name.clone(), said));
    }
    found
}

/// How often what is not the same twice is counted: maps whose seeds are drawn, threads that wait for each other.
const AGAIN: usize = 3;

/// The least of several counts: what is added by chance is left out.
fn least(mut count: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    (0..AGAIN).try_fold(f64::INFINITY, |least, _| Ok(least.min(count()?)))
}

/// Instructions of one more of what the part does.
fn of_part(part: Part, recordings: &Path) -> anyhow::Result<f64> {
    let own = std::env::current_exe()?;
    let counted = |times: u32| -> anyhow::Result<(u64, u64)> {
        let mut command = under_valgrind(&own);
        command.args(["part", part.name(), "--times", &times.to_string()]);
        let output = command.arg("--recording").arg(recordings).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", part.name());
        let done = String::from_utf8_lossy(&output.stdout).trim().parse();
        Ok((instructions(&said)?, done.context("how many were done")?))
    };
    let ((less, few), (more, many)) = (counted(1)?, counted(3)?);
    Ok(a_piece((few, less), (many, more)))
}

/// What one more takes: pieces and instructions of the smaller run, and of the larger.
fn a_piece(less: (u64, u64), more: (u64, u64)) -> f64 {
    more.1.saturating_sub(less.1) as f64 / more.0.saturating_sub(less.0).max(1) as f64
}

/// A program whose instructions are counted and said at its end.
fn under_valgrind(program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args([
        "--tool=cachegrind",
        "--cache-sim=no",
        "--cachegrind-out-file=/dev/null",
    ]);
    command.arg(program);
    command
}

/// What `cachegrind` says at a program's end: `==123== I refs:        1,234`, in newer versions `I   refs`.
fn instructions(said: &str) -> anyhow::Result<u64> {
    let line = said.lines().rev().find(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("I") && words.next() == Some("refs:")
    });
    let Some((_, number)) = line.and_then(|line| line.rsplit_once(':')) else {
        bail!("valgrind does not say how many instructions it counted: {said}");
    };
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

/// The compiler that the programs here were made by.
fn compiler() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_counts_and_an_error_is_one() {
        let mut counts = [3.0, 1.0, 2.0].into_iter();
        assert_eq!(least(|| Ok(counts.next().unwrap())).unwrap(), 1.0);
        assert!(counts.next().is_none());
        assert!(least(|| bail!("no valgrind")).is_err());
    }

    #[test]
    fn more_and_fewer_instructions_are_told_and_noise_is_not() {
        let counts = |pairs: &[(&str, f64)]| {
            pairs
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        let expected: Counts = counts(&[("a", 1000.0), ("b", 1000.0), ("c", 100.0), ("gone", 1.0)]);
        let now: Counts = counts(&[("a", 1029.0), ("b", 960.0), ("c", 120.0), ("new", 5.0)]);
        let told = differences(&expected, &now);
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "gone", "new"]);
        assert!(
            told.first()
                .is_some_and(|(_, said)| said.contains("960") && said.contains("-4.0 %")),
            "{told:?}"
        );
        assert_eq!(differences(&expected, &expected), []);
    }

    #[test]
    fn what_valgrind_says_is_read() {
        let said =
            "==7== Cachegrind, a high-precision tracing profiler\n==7== \n==7== I refs:        1,234,567\n";
        assert_eq!(instructions(said).ok(), Some(1_234_567));
        assert!(instructions("==7== nothing").is_err());
        assert!((a_piece((10, 1000), (30, 2000)) - 50.0).abs() < f64::EPSILON);
    }
}
