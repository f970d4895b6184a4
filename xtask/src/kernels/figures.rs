//! What all kernels said: a row each, sums, and the exit code.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::suite::{self, Said, Suite};

/// One kernel.
#[derive(Debug)]
pub(crate) struct Row {
    name: &'static str,
    release: String,
    /// By the suite's name.
    suites: Map<String, Value>,
    /// In words.
    problems: Vec<String>,
    unavailable: Vec<Value>,
    tier: Option<String>,
    /// A machine that does not come up, or a suite that ends without figures, is a failure on any kernel.
    has_broken: bool,
    seconds: u64,
}

impl Row {
    pub(crate) fn new(name: &'static str, release: &str) -> Self {
        Self {
            name,
            release: release.to_owned(),
            suites: Map::new(),
            problems: Vec::new(),
            unavailable: Vec::new(),
            tier: None,
            has_broken: false,
            seconds: 0,
        }
    }

    /// Takes a suite's figures, and answers whether it passed.
    pub(crate) fn add(&mut self, suite: Suite, said: Said, seconds: u64) -> bool {
        self.seconds += seconds;
        let (passed, figures) = match said {
            Ok((passed, figures)) => (passed, figures),
            Err(problem) => {
                self.has_broken = true;
                (false, json!({ "problem": format!("{problem:#}") }))
            }
        };
        if !passed {
            let mut problems = suite::problems(&figures);
            let broken = figures.get("problem").and_then(Value::as_str).map(str::to_owned);
            problems.extend(broken);
            if problems.is_empty() {
                problems.push("it failed, see its figures".to_owned());
            }
            let problems = problems
                .into_iter()
                .map(|problem| format!("{}: {problem}", suite.name()));
            self.problems.extend(problems);
        }
        self.unavailable
            .extend(suite::unavailable(self.name, suite, &figures));
        let tier = figures.pointer("/results/0/tier").and_then(Value::as_str);
        self.tier = self.tier.take().or_else(|| tier.map(str::to_owned));
        let verdict = if passed { PASSED } else { FAILED };
        self.suites.insert(
            suite.name().to_owned(),
            json!({ "verdict": verdict, "seconds": seconds, "figures": figures }),
        );
        passed
    }

    /// A kernel on which nothing ran has shown nothing.
    fn passed(&self) -> bool {
        self.problems.is_empty() && !self.suites.is_empty()
    }

    fn value(&self, verdict: &str) -> Value {
        json!({
            "kernel": self.release,
            "suite": self.name,
            "tier": self.tier,
            "verdict": verdict,
            "suites": self.suites,
            "problem": (!self.problems.is_empty()).then(|| self.problems.join("\n")),
            "seconds": self.seconds,
        })
    }
}

/// All kernels.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    passed: u64,
    failed: u64,
    not_supported: Vec<Value>,
    results: Vec<Value>,
    unavailable: Vec<Value>,
}

impl Figures {
    /// Takes a kernel's row. `limit` is why the tap is known not to be whole there.
    pub(crate) fn add(&mut self, row: Row, limit: Option<&str>) {
        let verdict = match (row.passed(), limit) {
            (true, _) => {
                self.passed += 1;
                PASSED
            }
            (false, Some(reason)) if !row.has_broken => {
                self.not_supported
                    .push(json!({ "name": row.name, "kernel": row.release, "reason": reason }));
                NOT_SUPPORTED
            }
            (false, _) => {
                self.failed += 1;
                FAILED
            }
        };
        self.results.push(row.value(verdict));
        self.unavailable.extend(row.unavailable);
    }

    /// A kernel that could not be had.
    pub(crate) fn unavailable(&mut self, name: &str, reason: &anyhow::Error) {
        eprintln!("xtask: kernels: {name}: unavailable: {reason:#}");
        self.unavailable
            .push(json!({ "name": name, "reason": format!("{reason:#}") }));
    }

    pub(crate) fn print(&self, json: bool) -> ExitCode {
        if json {
            println!("{}", self.value());
        } else {
            for result in &self.results {
                println!("  {}", line(result));
            }
            println!(
                "kernels: {} passed, {} failed, {} not supported; {} things unavailable",
                self.passed,
                self.failed,
                self.not_supported.len(),
                self.unavailable.len()
            );
        }
        match self.has_passed() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    /// A run that could boot nothing has shown nothing.
    fn has_passed(&self) -> bool {
        !self.results.is_empty() && self.failed == 0
    }

    fn value(&self) -> Value {
        json!({
            "kernels": self.results.len(),
            "passed": self.passed,
            "failed": self.failed,
            "not_supported": self.not_supported,
            "results": self.results,
            "unavailable": self.unavailable,
        })
    }
}

/// One result: a line, and one for each of its problems.
fn line(result: &Value) -> String {
    let text = |name: &str| result.get(name).and_then(Value::as_str).unwrap_or("-");
    let mut line = format!(
        "{:<24} {:<18} tier {:<3} {:<14}",
        text("kernel"),
        text("suite"),
        text("tier"),
        text("verdict")
    );
    let suites = result.get("suites").and_then(Value::as_object);
    for (name, suite) in suites.into_iter().flatten() {
        let verdict = suite.get("verdict").and_then(Value::as_str).unwrap_or("-");
        let statements = |key: &str| suite.pointer(&format!("/figures/{key}")).and_then(Value::as_u64);
        let count = statements("statements").or_else(|| statements("connections"));
        line.push_str(&format!(" {name} {verdict}"));
        if let Some(count) = count {
            line.push_str(&format!(" ({count})"));
        }
        line.push(';');
    }
    if let Some(problem) = result.get("problem").and_then(Value::as_str) {
        line.push_str("\n      ");
        line.push_str(&problem.replace('\n', "\n      "));
    }
    line
}

pub(crate) const PASSED: &str = "passed";
pub(crate) const FAILED: &str = "FAILED";
const NOT_SUPPORTED: &str = "not supported";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(passed: bool) -> Row {
        let mut row = Row::new("bookworm", "6.1.0-50-amd64");
        let check = json!({ "results": [{"asked_tier": "auto", "tier": "b", "problem": null}] });
        assert!(row.add(Suite::Check, Ok((true, check)), 60));
        let figures =
            json!({ "statements": 100, "missing": 1, "failed": [{"part": "psql", "reason": "no rows"}] });
        assert_eq!(row.add(Suite::Wire, Ok((passed, figures)), 600), passed);
        row
    }

    #[test]
    fn one_suite_that_fails_fails_its_kernel() {
        let mut figures = Figures::default();
        figures.add(row(true), None);
        assert!(figures.has_passed());
        figures.add(row(false), None);
        let value = figures.value();
        assert_eq!(
            (&value["kernels"], &value["passed"], &value["failed"]),
            (&json!(2), &json!(1), &json!(1))
        );
        assert!(!figures.has_passed());
        let failed = &value["results"][1];
        assert_eq!(failed["suites"]["check"]["verdict"], PASSED);
        assert_eq!(failed["suites"]["wire"]["verdict"], FAILED);
        assert_eq!(failed["problem"], "wire: psql: no rows");
        assert!(line(failed).contains("wire FAILED (100)"), "{}", line(failed));
        assert_eq!(failed["tier"], "b");
    }

    #[test]
    fn a_known_limit_excuses_differences_and_no_machine_that_breaks() {
        let mut figures = Figures::default();
        figures.add(row(false), Some("a limit"));
        assert_eq!(figures.value()["not_supported"][0]["reason"], "a limit");
        assert!(figures.has_passed());
        let mut broken = Row::new("trixie-backports", "7.3");
        assert!(!broken.add(Suite::Check, Err(anyhow::anyhow!("it ended without figures")), 1));
        figures.add(broken, Some("a limit"));
        assert!(!figures.has_passed());
    }

    #[test]
    fn nothing_that_ran_is_no_success() {
        let mut figures = Figures::default();
        assert!(!figures.has_passed());
        figures.add(Row::new("own", "6.1"), None);
        assert!(!figures.has_passed());
    }
}
