//! The command line of the agent.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::{Parser, Subcommand};
use pgwitness_agent::{
    capture::seccomp::{self, TRIAL},
    control::client::{self, PauseArgs, StatusArgs},
};
use tracing_subscriber::EnvFilter;

/// pgwitness-agent records what the PostgreSQL servers on this host are asked, and by which workload.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = FIRST_STEPS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tap the servers of this host and deliver events, until stopped
    Run(Box<pgwitness_agent::run::Args>),
    /// Read packet captures or recorded segments, and print the events
    Replay(pgwitness_agent::replay::Args),
    /// Check what this host can do, and say what is missing
    Doctor(pgwitness_agent::doctor::Args),
    /// Show how the running agent stands: what it taps, what it lost, and why
    Status(StatusArgs),
    /// Make the running agent discard what it captures; the record says so, and by whom
    Pause(PauseArgs),
    /// Make a paused agent record again
    Resume(PauseArgs),
    /// Make the key by which values of identifying columns become tokens, or add one to go on with
    TokenKey(pgwitness_agent::token_key::Args),
    /// Make or change the key by which the agents of several hosts tell the same connection
    FleetKey(pgwitness_agent::fleet_key::Args),
    /// Enrol this host with a collector, by the operator's token
    Enroll(pgwitness_agent::trust::Args),
    /// What a probe does to a process under seccomp is tried on this one
    #[command(hide = true, name = TRIAL)]
    SeccompTrial,
    /// The process that looks at catalogs; `run` starts it
    #[command(name = pgwitness_agent::catalog::process::CATALOG, hide = true)]
    Catalog,
    /// The process that parses; `run` starts it
    #[command(name = pgwitness_agent::broker::serve::PARSER, hide = true)]
    Parser,
}

const FIRST_STEPS: &str = "First steps, as root:
  pgwitness-agent doctor
  pgwitness-collector serve
  pgwitness-agent run --collector http://127.0.0.1:7433";

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Keys and state are for this user alone, whatever the caller's mask is.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let filter = EnvFilter::try_from_env("PGWITNESS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let result = match cli.command {
        Command::Run(args) => pgwitness_agent::run::run(*args),
        Command::Replay(args) => pgwitness_agent::replay::run(&args),
        Command::Doctor(args) => Ok(pgwitness_agent::doctor::run(&args)),
        Command::Status(args) => client::status(&args),
        Command::Pause(args) => client::pause(&args),
        Command::Resume(args) => client::resume(&args),
        Command::TokenKey(args) => pgwitness_agent::token_key::run(&args),
        Command::FleetKey(args) => pgwitness_agent::fleet_key::run(&args),
        Command::Enroll(args) => pgwitness_agent::trust::run(args),
        Command::SeccompTrial => Ok(seccomp::trial()),
        Command::Catalog => pgwitness_agent::catalog::process::run(),
        Command::Parser => pgwitness_agent::parser::run(),
    };
    result.unwrap_or_else(|problem| {
        eprintln!("pgwitness-agent: {problem:#}");
        ExitCode::FAILURE
    })
}
