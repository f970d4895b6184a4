//! `cargo xtask`: everything that people and CI run, one subcommand a file. `main` only wires.

mod apt;
mod bench;
mod build;
mod demo;
mod fuzz;
mod image;
mod kernels;
mod kubernetes;
mod oracle;
mod page;
mod poolers;
mod proto;
mod regress;
mod servers;
mod setup;
mod step;
mod test;
mod truth;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, shows and checks pgwitness.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing (Debian or Ubuntu, as root), or print what to install; every other command calls it
    Setup(setup::Args),
    /// Show the main job on a throwaway PostgreSQL with several programs that share one role
    Demo(demo::Args),
    /// Check everything that must pass: formatting, lints, licences, unit tests, short truth suites
    Test,
    /// Run the real thing and compare with a record that pgwitness did not make
    Truth(truth::Args),
    /// Measure, as figures that can be compared from one day to the next
    Bench(bench::Args),
    /// Boot other kernels and hold the tap against a server's own log on each
    Kernels(kernels::Args),
    /// Look for inputs that break parsers and protocol, for a while
    Fuzz(fuzz::Args),
    /// Hold fingerprints of the statements in SQL files against the server's own grammar
    Oracle(oracle::Args),
    /// Make the container images of agent and collector, reproducibly, with their bills of materials
    Image(image::Args),
    /// Generate the protobuf code anew, behind a change of proto/pgwitness/v1
    Proto,
    /// Build the collector's page anew, behind a change of collector/page (takes Node)
    Page(page::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Test => test::run(),
        Command::Truth(args) => truth::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Oracle(args) => oracle::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Proto => proto::run(),
        Command::Page(args) => page::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("xtask: {problem:#}");
            ExitCode::FAILURE
        }
    }
}
