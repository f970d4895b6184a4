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

/// Suites of Debian, by their kernels' age: 5.10 has neither tier A's tracepoints nor socket storage in tracing
/// programs, 6.1 has only the latter, the others have both.
const SUITES: [&str; 6] = [
    "bullseye",
    "bullseye-backports",
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
];

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
    if let Some(unknown) = args.kernel.iter().find(|name| !SUITES.contains(&name.as_str())) {
        bail!("there is no kernel `{unknown}`; there are {}", SUITES.join(", "));
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
    for suite in SUITES {
        if args.kernel.is_empty() || args.kernel.iter().any(|name| name == suite) {
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
    results: Vec<Value>,
    unavailable: Vec<Value>,
}

impl Figures {
    fn add(&mut self, suite: &str, initramfs: &Path, folder: &Path) {
        let kernel = match kernel::fetch(suite) {
            Ok(kernel) => kernel,
            Err(reason) => {
                eprintln!("xtask: kernels: {suite}: unavailable: {reason:#}");
                self.unavailable
                    .push(json!({ "name": suite, "reason": format!("{reason:#}") }));
                return;
            }
        };
        eprintln!("xtask: kernels: {suite}: booting Linux {}", kernel.release);
        let began = Instant::now();
        let log = folder.join(format!("{suite}.log"));
        let said = machine::boot(&kernel.image, initramfs, &log);
        let (passed, mut results) = match said {
            Ok(said) => said,
            Err(problem) => {
                let problem = format!("{problem:#}");
                let result = json!({ "kernel": kernel.release, "tier": null, "problem": problem });
                (false, vec![result])
            }
        };
        for result in results.iter_mut().filter_map(Value::as_object_mut) {
            result.insert("suite".to_owned(), suite.into());
        }
        match passed {
            true => self.passed += 1,
            false => self.failed += 1,
        }
        let verdict = if passed { "passed" } else { "FAILED" };
        let seconds = began.elapsed().as_secs();
        eprintln!(
            "xtask: kernels: {suite}: {verdict} in {seconds} s; its console is in {}",
            log.display()
        );
        self.results.append(&mut results);
    }

    fn print(self, json: bool) -> ExitCode {
        let kernels = self.passed + self.failed;
        if json {
            let figures = json!({
                "kernels": kernels,
                "passed": self.passed,
                "failed": self.failed,
                "results": self.results,
                "unavailable": self.unavailable,
            });
            println!("{figures}");
        } else {
            for result in &self.results {
                println!("  {}", line(result));
            }
            println!(
                "kernels: {} passed, {} failed, {} unavailable",
                self.passed,
                self.failed,
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
