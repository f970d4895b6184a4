//! From measurements to figures.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    Arm, Measured,
    kernel::{self, Kernel, nanos_per_call},
};
use crate::figures::{confidence, median, rounded};

/// All measurements of one workload.
#[derive(Default)]
pub(super) struct Results {
    pub(super) rounds: Vec<BTreeMap<Arm, Measured>>,
    pub(super) kernel: Kernel,
    /// Processor time of the collector, over all its turns.
    pub(super) collector: Duration,
    /// Execution requests that the collector holds, of all its turns.
    pub(super) recorded: u64,
}

impl Results {
    pub(super) fn figures(&self) -> Value {
        let ratio = |arm| self.ratios(arm, |measured| Some(measured.told.per_second));
        let own = ratio(Arm::Pgwitness);
        let again: Vec<f64> = self
            .values(Arm::NoneAgain, |measured| Some(measured.told.per_second))
            .iter()
            .zip(self.values(Arm::None, |measured| Some(measured.told.per_second)))
            .map(|(again, none)| again / none)
            .collect();
        let agent = |value: fn(&super::Agent) -> Option<f64>| {
            median(&self.values(Arm::Pgwitness, |measured| measured.agent.as_ref().and_then(value)))
        };
        let statements: u64 = self.statements();
        let collector_us = self.collector.as_secs_f64() * 1e6 / (statements + self.kernel.statements) as f64;
        let lost: u64 = self.lost().values().sum();
        let interval = |values: &[f64]| confidence(values).map(|end| rounded(end, 3));
        json!({
            "ratio": rounded(median(&own), 3),
            "ci95": interval(&own),
            "aa_ratio": rounded(median(&again), 3),
            "aa_ci95": interval(&again),
            "p99_ratio": rounded(median(&self.ratios(Arm::Pgwitness, |measured| measured.told.p99_us)), 3),
            "rounds": self.rounds.len(),
            "pgaudit_ratio": rounded(median(&ratio(Arm::Pgaudit)), 3),
            "pgaudit_ci95": interval(&ratio(Arm::Pgaudit)),
            "log_statement_ratio": rounded(median(&ratio(Arm::LogStatement)), 3),
            "log_statement_ci95": interval(&ratio(Arm::LogStatement)),
            "pgbouncer_ratio": rounded(median(&ratio(Arm::Pgbouncer)), 3),
            "pgbouncer_ci95": interval(&ratio(Arm::Pgbouncer)),
            "agent_cpu_us": rounded(agent(|agent| Some(agent.cpu_us)), 2),
            "collector_cpu_us": rounded(collector_us, 2),
            "kernel_ns_per_call": rounded(nanos_per_call(&self.kernel.programs), 0),
            "kernel_ns_per_captured_call": rounded(self.kernel.nanos_per_captured_call(), 0),
            "kernel_ns_per_other_call": rounded(nanos_per_call(&self.kernel.elsewhere), 0),
            "kernel_ns_per_idle_call": rounded(nanos_per_call(&self.kernel.idle), 0),
            "agent_rss_mib": rounded(agent(|agent| agent.resident_mib), 0),
            "lost": lost,
            "lost_by_reason": self.lost(),
            "cpu_us_by_part": self.parts(),
            "kernel_programs": kernel::by_program(&self.kernel.programs, self.kernel.statements),
            "per_second": self.speeds(),
            "statements": statements + self.kernel.statements,
            "recorded": self.recorded,
        })
    }

    /// Whether all that the clients sent was recorded.
    pub(super) fn complete(&self) -> bool {
        self.lost().is_empty() && self.recorded >= self.statements() + self.kernel.statements
    }

    /// Transactions a second of each arm in the newest round.
    pub(super) fn last_round(&self) -> String {
        let round = self.rounds.last().into_iter().flatten();
        let words = round.map(|(arm, measured)| format!("{arm:?} {:.0}", measured.told.per_second));
        words.collect::<Vec<_>>().join(", ")
    }

    /// Processor time of each part for one statement, in microseconds. What the server uses more than without audit
    /// holds the programs in the kernel, the probes' traps and what both do to its caches; `server_again` is the same
    /// difference between the two runs without audit.
    fn parts(&self) -> Value {
        let differences = |arm: Arm, value: fn(&Measured) -> f64| {
            let differences: Vec<f64> = self
                .rounds
                .iter()
                .filter_map(|round| {
                    let none = value(round.get(&Arm::None)?);
                    let again = value(round.get(&Arm::NoneAgain)?);
                    let base = if arm == Arm::NoneAgain {
                        none
                    } else {
                        (none + again) / 2.0
                    };
                    Some(value(round.get(&arm)?) - base)
                })
                .collect();
            rounded(median(&differences), 2)
        };
        let mut threads = BTreeMap::<String, Vec<f64>>::new();
        for round in &self.rounds {
            let agent = round
                .get(&Arm::Pgwitness)
                .and_then(|measured| measured.agent.as_ref());
            for (name, used) in agent.into_iter().flat_map(|agent| &agent.threads_us) {
                threads.entry(name.clone()).or_default().push(*used);
            }
        }
        let threads: Map<String, Value> = threads
            .into_iter()
            .map(|(name, used)| (name, rounded(median(&used), 2)))
            .collect();
        let none = self.values(Arm::None, |measured| Some(measured.server_us));
        let clients = self.values(Arm::None, |measured| Some(measured.clients_us));
        json!({
            "server_without": rounded(median(&none), 2),
            "clients_without": rounded(median(&clients), 2),
            "server": differences(Arm::Pgwitness, |measured| measured.server_us),
            "server_again": differences(Arm::NoneAgain, |measured| measured.server_us),
            "server_pgaudit": differences(Arm::Pgaudit, |measured| measured.server_us),
            "server_log_statement": differences(Arm::LogStatement, |measured| measured.server_us),
            "clients": differences(Arm::Pgwitness, |measured| measured.clients_us),
            "kernel_programs": rounded(kernel::micros_each(&self.kernel.programs, self.kernel.statements), 2),
            "agent_threads": threads,
            "collector": rounded(
                self.collector.as_secs_f64() * 1e6 / (self.statements() + self.kernel.statements) as f64,
                2,
            ),
        })
    }

    /// Of each arm: the median, and the slowest over the fastest round.
    fn speeds(&self) -> Value {
        let mut speeds = Map::new();
        for arm in super::ARMS {
            let values = self.values(arm, |measured| Some(measured.told.per_second));
            if values.is_empty() {
                continue;
            }
            let slowest = values.iter().copied().fold(f64::MAX, f64::min);
            let fastest = values.iter().copied().fold(f64::MIN, f64::max);
            let figures =
                json!({"median": rounded(median(&values), 0), "spread": rounded(slowest / fastest, 2)});
            speeds.insert(format!("{arm:?}").to_lowercase(), figures);
        }
        Value::Object(speeds)
    }

    fn statements(&self) -> u64 {
        let of = |round: &BTreeMap<Arm, Measured>| round.get(&Arm::Pgwitness).map(|m| m.told.statements);
        self.rounds.iter().filter_map(of).sum()
    }

    fn lost(&self) -> BTreeMap<String, u64> {
        let mut lost = BTreeMap::new();
        for round in &self.rounds {
            let agent = round
                .get(&Arm::Pgwitness)
                .and_then(|measured| measured.agent.as_ref());
            for (reason, count) in agent.into_iter().flat_map(|agent| &agent.lost) {
                *lost.entry(reason.clone()).or_default() += count;
            }
        }
        lost
    }

    /// One value of each round.
    fn values(&self, arm: Arm, value: impl Fn(&Measured) -> Option<f64>) -> Vec<f64> {
        let of = |round: &BTreeMap<Arm, Measured>| round.get(&arm).and_then(&value);
        self.rounds.iter().filter_map(of).collect()
    }

    /// Within each round, relative to the mean of the two runs without audit.
    fn ratios(&self, arm: Arm, value: impl Fn(&Measured) -> Option<f64>) -> Vec<f64> {
        let of = |round: &BTreeMap<Arm, Measured>| {
            let none = value(round.get(&Arm::None)?)?;
            let again = value(round.get(&Arm::NoneAgain)?)?;
            Some(value(round.get(&arm)?)? / ((none + again) / 2.0))
        };
        self.rounds.iter().filter_map(of).collect()
    }
}

/// For people: what matters most of each workload.
pub(super) fn print(figures: &Map<String, Value>) {
    println!("throughput relative to no audit; processor time in microseconds a statement");
    println!(
        "{:<15} {:>6} {:>15} {:>6} {:>6} {:>8} {:>8} {:>9} {:>8} {:>8} {:>9} {:>6}",
        "workload",
        "ratio",
        "95 %",
        "a/a",
        "p99",
        "pgaudit",
        "log",
        "pgbouncer",
        "server",
        "agent",
        "collector",
        "lost"
    );
    for (name, figure) in figures {
        let number = |pointer: &str| {
            figure
                .pointer(pointer)
                .and_then(Value::as_f64)
                .unwrap_or(f64::NAN)
        };
        println!(
            "{name:<15} {:>6.3} {:>15} {:>6.3} {:>6.3} {:>8.3} {:>8.3} {:>9.3} {:>8.2} {:>8.2} {:>9.2} {:>6}",
            number("/ratio"),
            format!("{:.3} to {:.3}", number("/ci95/0"), number("/ci95/1")),
            number("/aa_ratio"),
            number("/p99_ratio"),
            number("/pgaudit_ratio"),
            number("/log_statement_ratio"),
            number("/pgbouncer_ratio"),
            number("/cpu_us_by_part/server"),
            number("/agent_cpu_us"),
            number("/collector_cpu_us"),
            number("/lost"),
        );
    }
}
