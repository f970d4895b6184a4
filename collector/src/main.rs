//! The program `pgwitness-collector`: reads the command line and hands over.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pgwitness_collector::{
    access, ask, backup, custody, explain, export, inventory, new_edges, prove, query, rebuild, report,
    serve, tail, timeline, trust, unattributed, verify, what, who,
};

/// Keeps the record of what PostgreSQL was asked, by whom, and answers from it.
#[derive(Parser)]
#[command(name = "pgwitness-collector", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Args),
    Agent(trust::AgentArgs),
    Ca(trust::CaArgs),
    User(access::UserArgs),
    Query(query::Args),
    Ask(ask::Args),
    Explain(explain::Args),
    Tail(tail::Args),
    Inventory(inventory::Args),
    Verify(verify::Args),
    Prove(prove::Args),
    Erase(custody::EraseArgs),
    Hold(custody::HoldArgs),
    Retain(custody::RetainArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Rebuild(rebuild::Args),
    Who(who::Args),
    What(what::Args),
    Timeline(timeline::Args),
    NewEdges(new_edges::Args),
    Unattributed(unattributed::Args),
    Export(export::Args),
    Report(report::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    // The record is for this user alone, whatever the caller's mask is.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("PGWITNESS_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(args).await,
        Command::Agent(args) => trust::agent(args),
        Command::Ca(args) => trust::ca(args),
        Command::User(args) => access::user(args),
        Command::Query(args) => query::run(args).await,
        Command::Ask(args) => ask::run(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Tail(args) => tail::run(args).await,
        Command::Inventory(args) => inventory::run(args).await,
        Command::Verify(args) => verify::run(&args),
        Command::Prove(args) => prove::run(&args),
        Command::Erase(args) => custody::erase(args).await,
        Command::Hold(args) => custody::hold(args).await,
        Command::Retain(args) => custody::retain(args).await,
        Command::Backup(args) => backup::run_backup(&args),
        Command::Restore(args) => backup::run_restore(args).await,
        Command::Rebuild(args) => rebuild::run(args).await,
        Command::Who(args) => who::run(args).await,
        Command::What(args) => what::run(args).await,
        Command::Timeline(args) => timeline::run(args).await,
        Command::NewEdges(args) => new_edges::run(args).await,
        Command::Unattributed(args) => unattributed::run(args).await,
        Command::Export(args) => export::run(args).await,
        Command::Report(args) => report::run(args).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("pgwitness-collector: {error:#}");
        ExitCode::FAILURE
    })
}
