//! `cargo xtask proto`: generates the committed protobuf code.

use std::process::ExitCode;

use crate::step::{self, cargo};

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let arguments = ["test", "--package", "pgwitness-proto", "--test", "drift"];
    step::run(cargo().args(arguments).env("PGWITNESS_BLESS", "1"))?;
    Ok(ExitCode::SUCCESS)
}
