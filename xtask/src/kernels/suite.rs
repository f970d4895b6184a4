//! What runs on each kernel: the check that is made for it, and truth suites as they are.
//!
//! Owns their command lines, and what their figures say of a failure. A suite does not know whether it runs in a machine
//! or here.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::machine::tail;
use crate::truth;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// In small, by each way into the kernel that there is
    Check,
    /// Every statement of a dozen programs; sessions older than the agent; an agent that ends and begins again
    Local,
    /// Clients of many kinds: every statement, its parameters, rows and outcome
    Wire,
    /// Clients of every kind, each of which gets its own name
    Identity,
    /// Statements through a pooler go back to the client that sent them
    Pooler,
}

pub(crate) const SUITES: [Suite; 5] = [
    Suite::Check,
    Suite::Local,
    Suite::Wire,
    Suite::Identity,
    Suite::Pooler,
];

/// How a suite went: whether it passed, and its figures.
pub(crate) type Said = anyhow::Result<(bool, Value)>;

impl Suite {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Local => "local",
            Self::Wire => "wire",
            Self::Identity => "identity",
            Self::Pooler => "pooler",
        }
    }

    /// The program, and its arguments. `state` is a folder for what the suite keeps.
    pub(crate) fn command(self, programs: &Path, full: bool, state: &Path) -> Command {
        let mut command = Command::new(programs.join("pgwitness-truth"));
        match self {
            Self::Check => {
                command.arg("kernels");
            }
            Self::Local => {
                command.arg("local").args(full.then_some("--full"));
            }
            Self::Wire => truth::wire_folders(state, &mut command),
            Self::Identity => {
                command.arg("identity");
            }
            Self::Pooler => {
                command.arg("pooler");
                truth::pooler_folders(&mut command);
            }
        }
        command.arg("--json");
        command
    }

    /// Many times what it takes in a machine on two idle cores.
    pub(crate) const fn patience(self, full: bool) -> Duration {
        let minutes = match (self, full) {
            (Self::Check, _) => 60,
            (Self::Local, true) => 24 * 60,
            _ => 6 * 60,
        };
        Duration::from_secs(minutes * 60)
    }
}

/// Runs a suite's command on this machine's own kernel.
///
/// # Errors
/// When it does not start, or ends without figures; the message carries its last lines.
pub(crate) fn here(command: &mut Command, log: &Path) -> Said {
    let said = File::create(log).with_context(|| format!("writing {}", log.display()))?;
    let output = command
        .stdin(Stdio::null())
        .stderr(said)
        .output()
        .context("cannot start pgwitness-truth")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().next_back().unwrap_or_default();
    match serde_json::from_str(last) {
        Ok(figures) => Ok((output.status.success(), figures)),
        Err(_) => bail!(
            "it ended without figures ({}):\n{}",
            output.status,
            tail(&fs::read_to_string(log).unwrap_or_default())
        ),
    }
}

/// What a suite's figures say went wrong, in words: its parts that failed, or its results' problems.
pub(crate) fn problems(figures: &Value) -> Vec<String> {
    let of = |list: &str, name: &str, reason: &str| -> Vec<String> {
        let entries = figures.get(list).and_then(Value::as_array);
        let words = |entry: &Value| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str);
            Some(format!("{}: {}", text(name)?, text(reason)?))
        };
        entries.into_iter().flatten().filter_map(words).collect()
    };
    [
        of("failed", "part", "reason"),
        of("results", "asked_tier", "problem"),
    ]
    .concat()
}

/// What a suite could not run, by name, with the reason.
pub(crate) fn unavailable(kernel: &str, suite: Suite, figures: &Value) -> Vec<Value> {
    let entries = figures.get("unavailable").and_then(Value::as_array);
    let named = |entry: &Value| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let what = text("part").or_else(|| text("version")).unwrap_or("?");
        json!({ "name": format!("{kernel}/{}/{what}", suite.name()), "reason": text("reason") })
    };
    entries.into_iter().flatten().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_what_could_not_run_are_told_by_name() {
        let figures = json!({
            "failed": [{"part": "relays", "reason": "something is wrong"}],
            "unavailable": [{"part": "transaction", "reason": "no tier A"}],
        });
        assert_eq!(problems(&figures), ["relays: something is wrong"]);
        assert_eq!(
            unavailable("bookworm", Suite::Pooler, &figures),
            [json!({"name": "bookworm/pooler/transaction", "reason": "no tier A"})]
        );
        let check = json!({ "results": [{"asked_tier": "b", "problem": "2 gaps"}, {"asked_tier": "auto", "problem": null}] });
        assert_eq!(problems(&check), ["b: 2 gaps"]);
    }
}
