//! Builds every program of the workspace, and says where they are.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::step::{cargo, root, run};

/// Compiler and lints in one pass: with this wrapper a build of the workspace's own crates is also their lint, and
/// everything is compiled once only.
const LINTER: &str = "clippy-driver";

/// Builds all programs with the lints on, and returns the folder that they are in.
pub(crate) fn programs() -> anyhow::Result<PathBuf> {
    eprintln!("xtask: building (the first time takes a while: the collector carries a query engine)");
    run(linting().args(["build", "--workspace", "--locked"]))?;
    Ok(target().join("debug"))
}

/// `cargo`, with the lints on.
pub(crate) fn linting() -> Command {
    let mut command = cargo();
    if Command::new(LINTER)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
    {
        command.env("RUSTC_WORKSPACE_WRAPPER", LINTER);
    }
    command
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").map(PathBuf::from) {
        Some(folder) if folder.is_absolute() => folder,
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}
