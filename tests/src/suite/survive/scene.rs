//! What is done to the agent and around it while clients work.
//!
//! Owns each scene's preparation, what happens in its middle, and what must be true at its end: the agent lives (or was
//! meant to die), and still records.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::program::Program;
use crate::route::Route;
use crate::screen::progress;
use crate::suite::{recorded_count, settle};
use crate::tap::{Redaction, Settings, Tap};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scene {
    Killed,
    Asleep,
    DiskFull,
    NoCollector,
    Garbage,
}

pub(super) const SCENES: [Scene; 5] = [
    Scene::Killed,
    Scene::Asleep,
    Scene::DiskFull,
    Scene::NoCollector,
    Scene::Garbage,
];

impl Scene {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Asleep => "asleep",
            Self::DiskFull => "disk_full",
            Self::NoCollector => "no_collector",
            Self::Garbage => "garbage",
        }
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Killed => "its agent is killed (SIGKILL) and started again",
            Self::Asleep => "its agent is stopped (SIGSTOP) for a while",
            Self::DiskFull => "the agent's folder is on a disk that is full",
            Self::NoCollector => "the collector is killed",
            Self::Garbage => "1 MiB of garbage a second comes to the server's port",
        }
    }

    pub(super) fn is_short(self) -> bool {
        matches!(self, Self::Killed | Self::Asleep)
    }

    /// How long the load runs.
    pub(super) fn seconds(self, full: bool) -> u64 {
        match (self, full) {
            (Self::Asleep, true) => LONG_SLEEP.as_secs() + 6,
            _ => 10,
        }
    }

    /// Starts agent and collector as the scene needs them.
    pub(super) async fn prepare(self, cluster: &Cluster) -> Result<Played<'_>> {
        let mut settings: Settings = Redaction::Default.into();
        let disk = match self {
            Self::DiskFull => Some(Disk::small()?),
            _ => None,
        };
        settings.state = disk.as_ref().map(|disk| disk.folder.path().join("agent"));
        settings.queue_mib = (self == Self::NoCollector).then_some(1);
        Ok(Played {
            tap: Tap::start(&cluster.data(), settings).await?,
            scene: self,
            cluster,
            disk,
            recorded: 0,
        })
    }
}

/// A scene that is being played.
pub(super) struct Played<'a> {
    scene: Scene,
    cluster: &'a Cluster,
    tap: Tap,
    disk: Option<Disk>,
    recorded: u64,
}

impl Played<'_> {
    /// What happens while the clients work.
    pub(super) async fn meanwhile(&mut self, full: bool) -> Result<()> {
        tokio::time::sleep(BEFORE).await;
        match self.scene {
            Scene::Killed => {
                self.tap.agent.kill().await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.tap.agent.start().await?;
            }
            Scene::Asleep => {
                self.tap.agent.signal(Signal::SIGSTOP)?;
                tokio::time::sleep(if full { LONG_SLEEP } else { SHORT_SLEEP }).await;
                self.tap.agent.signal(Signal::SIGCONT)?;
            }
            Scene::DiskFull => self.disk.as_ref().context("a disk")?.fill()?,
            Scene::NoCollector => {
                self.tap.kill_collector().await?;
                tokio::time::sleep(AWAY).await;
                self.tap.start_collector().await?;
            }
            Scene::Garbage => {
                let sent = garbage(self.cluster.port(), AWAY).await?;
                ensure!(sent > 0, "no garbage could be sent");
                progress(&format!("  {} KiB of garbage sent", sent / 1024));
            }
        }
        Ok(())
    }

    /// The agent has to live, and to record what comes now.
    pub(super) async fn end(mut self, slice: &str) -> Result<()> {
        ensure!(self.tap.agent.lives()?, "the agent did not live");
        settle(&self.tap).await?;
        self.recorded = recorded_count(&self.tap)?;
        let program = Program::new(slice, "behind-the-scene", self.cluster, Route::Tls)?;
        let text = format!("SELECT 'behind the scene' {}", program.tag());
        program.repeat(1, |_| Ok(program.psql(&text))).await?;
        let deadline = Instant::now() + GOES_ON;
        while recorded_count(&self.tap).unwrap_or(0) <= self.recorded {
            ensure!(
                Instant::now() < deadline,
                "nothing more was recorded behind the scene"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // What was queued need not arrive in time: how it stops is not what is looked at.
        drop(self.tap.agent.end(Signal::SIGTERM).await);
        self.tap.stop().await?;
        let (verified, verdict) = self.tap.verify()?;
        ensure!(verified, "{verdict}");
        Ok(())
    }
}

/// A file system of a few hundred kilobytes.
#[derive(Debug)]
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn small() -> Result<Self> {
        let folder = TempDir::with_prefix("pgwitness-disk-")?;
        mount(
            Some("tmpfs"),
            folder.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=1m,mode=0700"),
        )
        .context("mounting a small disk (needs root)")?;
        Ok(Self { folder })
    }

    /// Until nothing more fits.
    fn fill(&self) -> Result<()> {
        let path: PathBuf = self.folder.path().join("filling");
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        for size in [65_536, 4096, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
        ensure!(is_full(self.folder.path()), "the disk is not full");
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also when the agent has files open in it.
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}

fn is_full(folder: &Path) -> bool {
    fs::write(folder.join("more"), [0; 4096]).is_err()
}

/// Bytes without meaning, about [`GARBAGE_RATE`] a second, each connection as long as the server bears it. Returns how
/// many were sent.
async fn garbage(port: u16, time: Duration) -> Result<u64> {
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let thread = {
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        tokio::task::spawn_blocking(move || throw(port, &stop, &sent))
    };
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    thread.await?;
    Ok(sent.load(Ordering::Relaxed))
}

fn throw(port: u16, stop: &AtomicBool, sent: &AtomicU64) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut turn = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        turn = turn.wrapping_add(1);
        let mut noise: Vec<u8> = std::iter::repeat_with(|| {
            // xorshift64: reproducible.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .take(CHUNK)
        .collect();
        // In turns: noise at once, noise behind the beginning of a startup packet, noise behind a request for TLS.
        let front: &[u8] = match turn % 3 {
            0 => b"",
            1 => b"\0\0\x20\0\0\x03\0\0",
            _ => b"\0\0\0\x08\x04\xd2\x16\x2f",
        };
        noise.splice(0..0, front.iter().copied());
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            drop(stream.set_write_timeout(Some(Duration::from_millis(200))));
            drop(stream.set_read_timeout(Some(Duration::from_millis(20))));
            // The server may close first.
            if stream.write_all(&noise).is_ok() {
                sent.fetch_add(noise.len() as u64, Ordering::Relaxed);
            }
            drop(stream.read(&mut [0; 256]));
        }
        std::thread::sleep(Duration::from_millis(1000 * CHUNK as u64 / GARBAGE_RATE));
    }
}

const BEFORE: Duration = Duration::from_secs(3);
const SHORT_SLEEP: Duration = Duration::from_secs(5);
const LONG_SLEEP: Duration = Duration::from_secs(20);
const AWAY: Duration = Duration::from_secs(4);
const GOES_ON: Duration = Duration::from_secs(20);
const CHUNK: usize = 16 << 10;
/// Bytes a second.
const GARBAGE_RATE: u64 = 1 << 20;
