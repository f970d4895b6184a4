//! `cargo xtask test`: everything that must pass. CI runs this and nothing else.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};

use crate::{
    build::{linting, target},
    setup,
    step::{self, cargo, root},
    truth,
};

/// One thing that must pass.
struct Check {
    name: &'static str,
    run: fn() -> anyhow::Result<()>,
}

const CHECKS: [Check; 15] = [
    Check {
        name: "formatting",
        run: formatting,
    },
    Check {
        name: "licences and sources of dependencies",
        run: dependencies,
    },
    Check {
        name: "lints of the kernel side",
        run: kernel_lints,
    },
    Check {
        name: "lints and build",
        run: lints,
    },
    Check {
        name: "unit and property tests",
        run: tests,
    },
    Check {
        name: "demo --once",
        run: || suite(&["demo", "--once", "--json"]),
    },
    Check {
        name: "truth --suite local",
        run: || suite(&["local", "--json"]),
    },
    Check {
        name: "truth --suite survive",
        run: || suite(&["survive", "--json"]),
    },
    Check {
        name: "truth --suite loss",
        run: || suite(&["loss", "--json"]),
    },
    Check {
        name: "truth --suite identity",
        run: || suite(&["identity", "--json"]),
    },
    Check {
        name: "truth --suite evidence",
        run: || suite(&["evidence", "--json"]),
    },
    Check {
        name: "truth --suite meaning",
        run: meaning,
    },
    Check {
        name: "truth --suite volume",
        run: || suite(&["volume", "--json"]),
    },
    Check {
        name: "truth --suite pooler",
        run: pooler,
    },
    Check {
        name: "truth --suite wire",
        run: wire,
    },
];

fn run_all() -> (usize, usize) {
    let (mut passed, mut failed) = (0, 0);
    for check in &CHECKS {
        eprintln!("\nxtask: {}", check.name);
        let began = Instant::now();
        match (check.run)() {
            Ok(()) => {
                passed += 1;
                eprintln!("xtask: {}: passed in {} s", check.name, began.elapsed().as_secs());
            }
            Err(problem) => {
                failed += 1;
                eprintln!("xtask: {}: FAILED: {problem:#}", check.name);
            }
        }
    }
    (passed, failed)
}

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    setup::clients()?;
    let (passed, failed) = run_all();
    println!("checks: {passed} passed, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn formatting() -> anyhow::Result<()> {
    step::run(cargo().args(["fmt", "--all", "--check"]))?;
    step::run(cargo().args(["fmt", "--check"]).current_dir(root().join("ebpf")))
}

/// Not the advisories: they need a database from the network, which a check of one commit should not depend on.
fn dependencies() -> anyhow::Result<()> {
    let tool = setup::cargo_deny().context("cargo-deny is not installed: run `cargo xtask setup`")?;
    step::run(
        Command::new(tool)
            .current_dir(root())
            .args(["check", "bans", "licenses", "sources"]),
    )
}

fn kernel_lints() -> anyhow::Result<()> {
    ebpf_build::lint(
        &root().join("ebpf"),
        &target().join("ebpf-lint"),
        std::env::consts::ARCH,
    )
    .map_err(anyhow::Error::msg)
}

/// A warning is a failure here, and only here: nobody's build breaks because a newer compiler has a new lint. Cargo
/// repeats the warnings of what it has built before, so that reading along is enough.
fn lints() -> anyhow::Result<()> {
    let mut warnings = 0;
    for what in [["test", "--no-run"].as_slice(), &["build"]] {
        let mut command = linting();
        command
            .args(what)
            .args(["--workspace", "--locked"])
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start cargo")?;
        for line in BufReader::new(child.stderr.take().context("cargo has no stderr")?).lines() {
            let line = line?;
            warnings += usize::from(line.starts_with("warning"));
            eprintln!("{line}");
        }
        if !child.wait()?.success() {
            bail!("cargo {} failed", what.join(" "));
        }
    }
    if warnings > 0 {
        bail!("{warnings} lines of warnings, see above");
    }
    Ok(())
}

fn tests() -> anyhow::Result<()> {
    step::run(linting().args(["test", "--workspace", "--locked"]))
}

fn meaning() -> anyhow::Result<()> {
    let mut command = Command::new(target().join("debug").join("pgwitness-truth"));
    command.args(["meaning", "--json"]);
    truth::meaning_folders(false, &mut command);
    step::run(&mut command)
}

fn pooler() -> anyhow::Result<()> {
    let mut command = Command::new(target().join("debug").join("pgwitness-truth"));
    command.args(["pooler", "--json"]);
    truth::pooler_folders(&mut command);
    step::run(&mut command)
}

fn wire() -> anyhow::Result<()> {
    let mut command = Command::new(target().join("debug").join("pgwitness-truth"));
    truth::wire_folders(&truth::wire_state(), &mut command);
    step::run(command.arg("--json"))
}

fn suite(arguments: &[&str]) -> anyhow::Result<()> {
    step::run(Command::new(target().join("debug").join("pgwitness-truth")).args(arguments))
}
