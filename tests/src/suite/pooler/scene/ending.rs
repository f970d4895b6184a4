//! The end of a part: everything is delivered, the tap is stopped, and witnesses and record are compared.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::super::bouncer_log::{self, BouncerLog};
use super::super::journal::Journals;
use super::super::judge::{Expected, Findings, Record, judge};
use super::super::server_log::sessions;
use super::super::{record, truth};
use super::{PATIENCE, POOLER, Scene};
use crate::cluster::APP_ROLE;
use crate::csvlog;
use crate::screen::progress;
use crate::suite::settle;

impl Scene {
    /// Waits for everything, stops the tap and compares.
    pub(in crate::suite::pooler) async fn finish(
        mut self,
        expected: Expected,
        keep: bool,
    ) -> Result<(Findings, String)> {
        self.clients_end().await?;
        for mut pooler in self.pooler.take().into_iter().chain(self.inner.take()) {
            pooler.stop(Signal::SIGINT, PATIENCE).await?;
        }
        self.log_is_complete().await?;
        let tap = self.tap.as_mut().context("there is no tap")?;
        settle(tap).await?;
        if let Some(other) = &mut self.other {
            other.stop().await?;
        }
        tap.stop().await?;
        let (verified, verdict) = tap.verify()?;
        ensure!(verified, "the evidence does not verify: {verdict}");
        self.cluster.stop().await?;
        let outcome = self.compare(&expected);
        if keep && let Some(tap) = self.tap.take() {
            let kept = tap.keep();
            fs::copy(self.cluster.csvlog(), kept.join("server.csv"))?;
            let status = Command::new("cp")
                .arg("-r")
                .arg(self.home.path())
                .arg(kept.join("scene"))
                .status();
            status.context("keeping the witnesses")?;
            progress(&format!("  kept: {}", kept.display()));
        }
        outcome
    }

    fn compare(&self, expected: &Expected) -> Result<(Findings, String)> {
        let tap = self.tap.as_ref().context("there is no tap")?;
        let began = Instant::now();
        let journals = Journals::read(&self.home.path().join("journal"))?;
        let lines = csvlog::lines(&fs::read(self.cluster.csvlog()).context("reading the server's log")?)?;
        let mut sessions = sessions(lines);
        sessions.retain(|session| session.role == APP_ROLE);
        let log = self.pooler_log()?;
        let truth = truth::assemble(&journals, &sessions, log.as_ref());
        let recorded = record::read(tap)?;
        let (requests, of_none) = record::by_session(recorded, &sessions);
        let gaps = record::gaps(tap)?;
        let record = Record { requests, gaps };
        let mut findings = judge(&journals, &sessions, &truth, &record, expected);
        findings.extra += of_none;
        let note = format!(
            "{} clients' connections, {} server connections, {} of the pooler's log; witnesses: {} by log, {} by anchor, \
             {} by both; compared in {} s",
            journals.connections.len(),
            sessions
                .iter()
                .filter(|session| !session.statements.is_empty())
                .count(),
            log.map_or(0, |log| log.servers.len()),
            truth.by_log,
            truth.by_anchor,
            truth.confirmed,
            began.elapsed().as_secs()
        );
        Ok((findings, note))
    }

    fn pooler_log(&self) -> Result<Option<BouncerLog>> {
        if !self.setup.logged {
            return Ok(None);
        }
        let text =
            fs::read(self.home.path().join(format!("{POOLER}.log"))).context("reading the pooler's log")?;
        Ok(Some(bouncer_log::parse(&String::from_utf8_lossy(&text))))
    }

    async fn log_is_complete(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read(self.cluster.csvlog())?;
            let opened = count(&text, b"connection authorized: user=app_user");
            let closed = count(&text, b"disconnection: session time");
            if closed >= opened || Instant::now() > deadline {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn count(text: &[u8], what: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n')
        .filter(|line| line.windows(what.len()).any(|part| part == what))
        .count()
}
