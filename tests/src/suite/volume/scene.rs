//! A server with pgbench's tables, a tap with a volume policy, and pgbench's own word for what it did.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;
use crate::cluster::{Cluster, DATABASE, Witness};
use crate::process::Process;
use crate::program::Program;
use crate::record::query_folder;
use crate::route::Route;
use crate::tap::{Redaction, Settings, Tap};

/// A tapped server.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    pub(super) tap: Tap,
    slice: String,
    folder: TempDir,
}

/// A running pgbench.
pub(super) struct Bench {
    program: Program,
    process: Process,
}

impl Scene {
    /// Starts both; `window_s` is how long equal statements are put together.
    pub(super) async fn open(policy: &str, window_s: u64) -> Result<Self> {
        let mut cluster = Cluster::init(Witness::Silent)?;
        cluster.start().await?;
        cluster.prepare().await?;
        let slice = format!("pgwitness-volume-{}.slice", std::process::id());
        // Before the tap: what it does is not counted.
        let program = Program::new(&slice, "init", &cluster, Route::Unix)?;
        let mut command = program.other(&cluster.client_binary("pgbench"));
        command.args(["-i", "-q", "-s", "1", DATABASE]);
        program.finish(program.start(command)?, PATIENCE).await?;
        let folder = TempDir::with_prefix("pgwitness-volume-")?;
        let path = folder.path().join("volume.toml");
        fs::write(&path, policy)?;
        let mut settings = Settings::from(Redaction::Default);
        settings.keys = vec![
            ("VOLUME__POLICY", path.display().to_string()),
            ("VOLUME__WINDOW_S", window_s.to_string()),
        ];
        let tap = Tap::start(&cluster.data(), settings).await?;
        Ok(Self {
            cluster,
            tap,
            slice,
            folder,
        })
    }

    /// Another policy, in place of the one before.
    pub(super) fn replace_policy(&self, text: &str) -> Result<()> {
        let next = self.folder.path().join("next");
        fs::write(&next, text)?;
        fs::rename(next, self.folder.path().join("volume.toml"))?;
        Ok(())
    }

    /// Starts one of pgbench's own scripts, or another file, by the arguments.
    pub(super) fn bench(&self, name: &str, arguments: &[&str]) -> Result<Bench> {
        let program = Program::new(&self.slice, name, &self.cluster, Route::Unix)?;
        let mut command = program.other(&self.cluster.client_binary("pgbench"));
        command.arg("-n").args(arguments);
        let process = program.start(command)?;
        Ok(Bench { program, process })
    }

    /// A file for pgbench.
    pub(super) fn script(&self, text: &str) -> Result<PathBuf> {
        let path = self.folder.path().join("script.sql");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Rows of a table.
    pub(super) async fn rows(&self, table: &str) -> Result<u64> {
        let client = self.cluster.superuser(DATABASE).await?;
        let row = client
            .query_one(&format!("SELECT count(*) FROM {table}"), &[])
            .await?;
        Ok(u64::try_from(row.get::<_, i64>(0))?)
    }

    /// One number of the stopped collector; `sql` gives one row.
    pub(super) fn stored(&self, sql: &str) -> Result<u64> {
        number(self.answer(sql)?)
    }

    /// Rows of the stopped collector.
    pub(super) fn answer(&self, sql: &str) -> Result<Vec<Value>> {
        query_folder(self.tap.collector_binary(), &self.tap.collector_data(), sql)
    }

    /// Leaves what was written in place, if that is wished for.
    pub(super) fn close(self, keep: bool) {
        if keep {
            let folder = self.tap.keep();
            crate::screen::progress(&format!("  kept: {}", folder.display()));
        }
    }
}

/// The whole event of a row.
pub(super) fn event(row: &Value) -> Result<Value> {
    let text = row.get("event").and_then(Value::as_str).context("no event")?;
    serde_json::from_str(text).context("an event")
}

/// A number in an event; 0 where it is absent.
pub(super) fn of(event: &Value, pointer: &str) -> u64 {
    event.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

impl Bench {
    /// Waits for its end; the transactions that it counted.
    pub(super) async fn finish(self, patience: std::time::Duration) -> Result<u64> {
        let said = self.program.finish(self.process, patience).await?;
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("number of transactions actually processed: "))
            .with_context(|| format!("pgbench did not count: {said}"))?;
        let count = line.split('/').next().unwrap_or_default().trim();
        count.parse().with_context(|| format!("pgbench's count: {line}"))
    }
}

fn number(rows: Vec<Value>) -> Result<u64> {
    let row = rows.into_iter().next().context("no row")?;
    let values = match &row {
        Value::Object(row) => row.values().next().cloned(),
        Value::Array(row) => row.first().cloned(),
        _ => None,
    };
    let value = values.context("no column")?;
    Ok(value.as_u64().unwrap_or(0))
}

/// Bytes of all files below a folder.
pub(super) fn bytes_below(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry?;
        let found = entry.metadata()?;
        sum += if found.is_dir() {
            bytes_below(&entry.path())?
        } else {
            found.len()
        };
    }
    Ok(sum)
}
