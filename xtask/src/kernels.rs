//! `cargo xtask kernels`: does the tap work on the kernels that people run? Real kernels of Debian are booted, one
//! virtual machine each, and in each one the tap is held against a server's own log.
//!
//! Owns which kernels, and the figures. Separate are where a kernel comes from (`kernel`), what the machine finds when it
//! is up (`root`), and the machine itself (`machine`); what runs in there is `pgwitness-truth kernels`.

mod kernel;
mod machine;
mod root;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::bail;
use serde_json::{Value, json};

use crate::{build, setup};

/// A kernel, by the suite of Debian that it comes from.
struct Suite {
    name: &'static str,
    /// Why the tap is known not to be whole there: what goes wrong is shown, and is no failure.
    limit: Option<&'static str>,
}

/// By their kernels' age: 5.10 has neither tier A's tracepoints nor socket storage in tracing programs, 6.1 has only the
/// latter, the others have both.
const SUITES: [Suite; 6] = [
    supported("bullseye"),
    supported("bullseye-backports"),
    supported("bookworm"),
    supported("bookworm-backports"),
    supported("trixie"),
    Suite {
        name: "trixie-backports",
        limit: Some(
            "from Linux 7.0 on, programs on tracepoints can be preempted, and the kernel skips calls meanwhile; docs/kernels.md",
        ),
    },
];

const fn supported(name: &'static str) -> Suite {
    Suite { name, limit: None }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the kernel of this suite of Debian (can be given several times)
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Print one JSON object of counts as the last line
    #[arg(long)]
    json: bool,
    /// Take the programs of this folder instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let names = SUITES.each_ref().map(|suite| suite.name);
    if let Some(unknown) = args.kernel.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no kernel `{unknown}`; there are {}", names.join(", "));
    }
    setup::ensure()?;
    setup::virtual_machine()?;
    let programs = match &args.programs {
        Some(folder) => folder.clone(),
        None => build::programs()?,
    };
    let folder = build::target().join("kernels");
    let initramfs = root::initramfs(&programs, &folder)?;

    let mut figures = Figures::default();
    for suite in &SUITES {
        if args.kernel.is_empty() || args.kernel.iter().any(|name| name == suite.name) {
            figures.add(suite, &initramfs, &folder);
        }
    }
    Ok(figures.print(args.json))
}

/// What all machines said.
#[derive(Debug, Default)]
struct Figures {
    passed: u64,
    failed: u64,
    not_supported: Vec<Value>,
    results: Vec<Value>,
    unavailable: Vec<Value>,
}

impl Figures {
    fn add(&mut self, suite: &Suite, initramfs: &Path, folder: &Path) {
        let &Suite { name, limit } = suite;
        let kernel = match kernel::fetch(name) {
            Ok(kernel) => kernel,
            Err(reason) => {
                eprintln!("xtask: kernels: {name}: unavailable: {reason:#}");
                self.unavailable
                    .push(json!({ "name": name, "reason": format!("{reason:#}") }));
                return;
            }
        };
        eprintln!("xtask: kernels: {name}: booting Linux {}", kernel.release);
        let began = Instant::now();
        let log = folder.join(format!("{name}.log"));
        let said = machine::boot(&kernel.image, initramfs, &log);
        // A machine that does not come up is a failure on any kernel.
        let limit = limit.filter(|_| said.is_ok());
        let (passed, mut results) = match said {
            Ok(said) => said,
            Err(problem) => {
                let problem = format!("{problem:#}");
                let result = json!({ "kernel": kernel.release, "tier": null, "problem": problem });
                (false, vec![result])
            }
        };
        for result in results.iter_mut().filter_map(Value::as_object_mut) {
            result.insert("suite".to_owned(), name.into());
            if !passed && limit.is_some() {
                result.insert("verdict".to_owned(), NOT_SUPPORTED.into());
            }
        }
        let verdict = match (passed, limit) {
            (true, _) => {
                self.passed += 1;
                "passed"
            }
            (false, None) => {
                self.failed += 1;
                "FAILED"
            }
            (false, Some(reason)) => {
                self.not_supported
                    .push(json!({ "name": name, "kernel": kernel.release, "reason": reason }));
                NOT_SUPPORTED
            }
        };
        let seconds = began.elapsed().as_secs();
        eprintln!(
            "xtask: kernels: {name}: {verdict} in {seconds} s; its console is in {}",
            log.display()
        );
        self.results.append(&mut results);
    }

    fn print(self, json: bool) -> ExitCode {
        let kernels = self.passed + self.failed + self.not_supported.len() as u64;
        if json {
            let figures = json!({
                "kernels": kernels,
                "passed": self.passed,
                "failed": self.failed,
                "not_supported": self.not_supported,
                "results": self.results,
                "unavailable": self.unavailable,
            });
            println!("{figures}");
        } else {
            for result in &self.results {
                println!("  {}", line(result));
            }
            println!(
                "kernels: {} passed, {} failed, {} not supported, {} unavailable",
                self.passed,
                self.failed,
                self.not_supported.len(),
                self.unavailable.len()
            );
        }
        // A run that could boot nothing has shown nothing.
        match kernels > 0 && self.failed == 0 {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }
}

/// One result in one line.
fn line(result: &Value) -> String {
    let text = |name: &str| match result.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let mut line = format!(
        "{:<22} {:<18} tier {:<4} statements {:<5} missing {:<4} {}",
        text("kernel"),
        text("suite"),
        text("tier"),
        text("statements"),
        text("missing"),
        text("verdict"),
    );
    if let Some(problem) = result.get("problem").and_then(Value::as_str) {
        line.push_str("\n      ");
        line.push_str(&problem.replace('\n', "\n      "));
    }
    line
}

const NOT_SUPPORTED: &str = "not supported";
