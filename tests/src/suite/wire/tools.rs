//! The programs that come with PostgreSQL: dump and restore, backup, replication.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::site::{Ended, Ran, Site};
use crate::program::Route;

/// pg_dump in two formats, pg_restore, and the small maintenance programs.
pub(super) async fn dump(site: &Site<'_>) -> Result<Ran> {
    let mut tables = site.client("pgbench", Route::Tcp);
    tables.args(["-i", "-q", "-s", "1", "--foreign-keys"]);
    site.succeed(tables).await?;
    let mut dump = site.client("pg_dump", Route::Tcp);
    dump.args(["-Fc", "-f"]).arg(site.path("dump"));
    let ended = site.run(dump).await?;
    if let Some(reason) = refused(&ended) {
        return Ok(Ran::Unavailable(reason));
    }
    let mut plain = site.client("pg_dump", Route::Unix);
    plain.args(["--inserts", "-t", "pgbench_branches", "-f"]);
    plain.arg(site.path("plain"));
    site.succeed(plain).await?;
    let mut parallel = site.client("pg_dump", Route::Unix);
    parallel.args(["-Fd", "-j", "2", "-f"]).arg(site.path("parallel"));
    site.succeed(parallel).await?;
    let mut create = site.client("createdb", Route::Tcp);
    create.arg("w_restored");
    site.succeed(create).await?;
    let mut restore = site.client("pg_restore", Route::Tcp);
    restore
        .args(["-d", "w_restored", "-j", "2"])
        .arg(site.path("dump"));
    site.succeed(restore).await?;
    for (program, arguments) in [
        ("vacuumdb", ["-z", "w_restored"].as_slice()),
        ("reindexdb", &["w_restored"]),
        ("clusterdb", &["w_restored"]),
        ("pg_isready", &[]),
        ("dropdb", &["w_restored"]),
    ] {
        let mut command = site.client(program, Route::Unix);
        command.args(arguments);
        site.succeed(command).await?;
    }
    let mut globals = site.client("pg_dumpall", Route::Tcp);
    globals.args(["--globals-only", "-f"]).arg(site.path("globals"));
    site.succeed(globals).await?;
    Ok(Ran::Done)
}

/// pg_basebackup, its data and its WAL over two connections.
pub(super) async fn basebackup(site: &Site<'_>) -> Result<Ran> {
    for (name, arguments) in [
        ("plain", ["-X", "stream", "-c", "fast"]),
        ("tar", ["-X", "fetch", "-c", "fast"]),
    ] {
        let mut backup = site.client("pg_basebackup", Route::Tcp);
        backup
            .args(arguments)
            .args(["-F", if name == "tar" { "t" } else { "p" }, "-D"]);
        backup.arg(site.path(name));
        let ended = site.run(backup).await?;
        if let Some(reason) = refused(&ended) {
            return Ok(Ran::Unavailable(reason));
        }
    }
    Ok(Ran::Done)
}

/// pg_recvlogical with test_decoding, while rows are written.
pub(super) async fn logical(site: &Site<'_>) -> Result<Ran> {
    let receive = |arguments: &[&str]| {
        let mut command = site.client("pg_recvlogical", Route::Tcp);
        command.args(["-d", &site.role, "--slot", "wire_recvlogical"]);
        command.args(arguments);
        command
    };
    let ended = site
        .run(receive(&["--create-slot", "-P", "test_decoding"]))
        .await?;
    if let Some(reason) = refused(&ended) {
        return Ok(Ran::Unavailable(reason));
    }
    let changes = site.path("changes");
    let mut start = receive(&["--start", "-o", "include-xids=0", "-F", "0"]);
    start.arg("-f").arg(&changes);
    let mut stream = site.start(start)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut write = site.client("psql", Route::Unix);
    write.args([
        "-X",
        "-q",
        "-c",
        "CREATE TABLE wire_l (id int PRIMARY KEY, v text)",
    ]);
    write.args([
        "-c",
        "INSERT INTO wire_l SELECT g, repeat('v', 200) FROM generate_series(1, 2000) g",
    ]);
    write.args(["-c", "DELETE FROM wire_l WHERE id < 100"]);
    site.succeed(write).await?;
    let deadline = std::time::Instant::now() + Duration::from_secs(15);
    while !fs::read_to_string(&changes).is_ok_and(|text| text.contains("DELETE: id[integer]:99")) {
        anyhow::ensure!(
            std::time::Instant::now() < deadline,
            "pg_recvlogical did not get the changes"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stream.process.signal(Signal::SIGINT)?;
    site.finish(stream).await?;
    site.succeed(receive(&["--drop-slot"])).await?;
    Ok(Ran::Done)
}

/// pg_receivewal, over a physical slot.
pub(super) async fn physical(site: &Site<'_>) -> Result<Ran> {
    let folder = site.path("wal");
    fs::create_dir(&folder).context("a folder for WAL")?;
    let receive = |arguments: &[&str]| {
        let mut command = site.client("pg_receivewal", Route::Unix);
        command.args(["--slot", "wire_receivewal", "--no-loop"]);
        command.args(arguments);
        command
    };
    let ended = site.run(receive(&["--create-slot"])).await?;
    if let Some(reason) = refused(&ended) {
        return Ok(Ran::Unavailable(reason));
    }
    let mut start = receive(&["-D"]);
    start.arg(&folder);
    let mut stream = site.start(start)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut write = site.client("psql", Route::Tcp);
    write.args(["-X", "-q", "-c"]);
    write.arg("CREATE TABLE wire_w AS SELECT g, repeat('w', 500) AS w FROM generate_series(1, 3000) g");
    write.args(["-c", "SELECT pg_switch_wal()"]);
    site.succeed(write).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    if stream.process.ended()?.is_some() {
        let ended = site.finish(stream).await?;
        return Ok(Ran::Unavailable(ended.stderr.trim().to_owned()));
    }
    stream.process.signal(Signal::SIGINT)?;
    site.finish(stream).await?;
    site.succeed(receive(&["--drop-slot"])).await?;
    Ok(Ran::Done)
}

/// Why a program of this distribution refuses a server, if it does.
fn refused(ended: &Ended) -> Option<String> {
    (!ended.status.success()).then(|| {
        let lines: Vec<_> = ended.stderr.trim().lines().collect();
        lines.join("; ")
    })
}
