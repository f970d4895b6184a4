//! Agents deliver while everything goes wrong that can: the collector is killed or stopped, its disk is full, slow or fails, the
//! connections are cut.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::agent::{Agent, Manners};
use super::judge::judge;
use super::scene::Collector;
use super::{Sums, deliver};

/// What goes wrong in a schedule, besides the agents' own manners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Killed,
    Halted,
    Cut,
    Full,
    Slow,
    Failing,
    /// Very many agents at once, and the collector killed among them.
    Crowd,
}

const TROUBLES: [Trouble; 7] = [
    Trouble::Killed,
    Trouble::Halted,
    Trouble::Cut,
    Trouble::Full,
    Trouble::Slow,
    Trouble::Failing,
    Trouble::Crowd,
];

/// One schedule, all of it by its seed but for the timing of the machine.
///
/// # Errors
/// When it cannot be made.
pub(super) async fn run(seed: u64, sums: &mut Sums) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let trouble = *TROUBLES
        .get(usize::try_from(seed)? % TROUBLES.len())
        .unwrap_or(&Trouble::Killed);
    let folder = super::folder("live")?;
    let mut collector = Collector::new(folder.path())?;
    let small = (trouble == Trouble::Full)
        .then(|| Small::mount(&collector.data()))
        .transpose()?;
    let injected = injected(trouble, &mut random);
    let under: Vec<&str> = injected.iter().map(String::as_str).collect();
    if let Err(refused) = collector.start(&under).await {
        // A disk that fails so early is told, and it starts when the disk works.
        if trouble != Trouble::Failing {
            return Err(refused);
        }
        start(&mut collector, sums).await?;
    }
    let crowd = if trouble == Trouble::Crowd {
        150
    } else {
        random.gen_range(1..=3_u64)
    };
    let mut agents: Vec<Agent> = (0..crowd)
        .map(|number| Agent::new(&format!("truth-{number:03}"), seed * 1000 + number))
        .collect();
    let front = folder.path().join("front");
    let cutter = (trouble == Trouble::Cut)
        .then(|| cut(&front, &collector.socket(), seed))
        .transpose()?;
    let socket = if cutter.is_some() {
        front
    } else {
        collector.socket()
    };
    for _ in 0..random.gen_range(2..6) {
        for agent in &mut agents {
            for _ in 0..random.gen_range(1..8) {
                agent.make(
                    random.gen_range(1..20),
                    *[0, 50, 2000].get(random.gen_range(0..3)).unwrap_or(&0),
                );
            }
        }
        if let (Some(small), true) = (&small, random.gen_bool(0.5)) {
            small.fill(random.gen_range(0..60_000))?;
        }
        let talks = agents
            .iter_mut()
            .map(|agent| agent.converse(0, &socket, Manners::BAD));
        let talks = futures::future::join_all(talks);
        let moment = Duration::from_micros(random.gen_range(0..60_000));
        let upset = upset(&mut collector, trouble, moment);
        let (_, upset) = tokio::join!(talks, upset);
        upset?;
        if let Some(small) = &small {
            small.empty()?;
        }
        if !collector.runs() {
            collector.kill().await?;
            start(&mut collector, sums).await?;
        }
    }
    // From here on all is well, but for a log that has ended because its disk failed: it says so, and is started anew.
    if !matches!(trouble, Trouble::Killed | Trouble::Halted | Trouble::Crowd) {
        collector.kill().await?;
        start(&mut collector, sums).await?;
    }
    let before = sums.said.len();
    sums.schedules += 1;
    deliver(&mut collector, &mut agents, sums).await?;
    collector.stop().await?;
    judge(&collector, &agents, None, sums)?;
    drop(small);
    if sums.said.len() > before {
        sums.say(&[format!("  (live, seed {seed}, {trouble:?})")]);
        super::keep(folder);
    }
    Ok(())
}

async fn start(collector: &mut Collector, sums: &mut Sums) -> Result<()> {
    let started = collector.start(&[]).await;
    if started.is_err() {
        sums.refused += 1;
    }
    started
}

/// What happens to the collector at a moment of the round.
async fn upset(collector: &mut Collector, trouble: Trouble, moment: Duration) -> Result<()> {
    tokio::time::sleep(moment).await;
    match trouble {
        Trouble::Killed | Trouble::Crowd => collector.kill().await,
        Trouble::Halted => {
            collector.signal(Signal::SIGSTOP)?;
            tokio::time::sleep(moment * 3).await;
            collector.signal(Signal::SIGCONT)
        }
        Trouble::Cut | Trouble::Full | Trouble::Slow | Trouble::Failing => Ok(()),
    }
}

/// A disk that is slow, or fails at some call: strace does that to the collector's system calls.
fn injected(trouble: Trouble, random: &mut StdRng) -> Vec<String> {
    let call = [
        "fdatasync",
        "fsync",
        "write",
        "pwrite64",
        "renameat,rename,renameat2",
    ];
    let call = call.get(random.gen_range(0..call.len())).unwrap_or(&"fdatasync");
    let inject = match trouble {
        Trouble::Slow => format!(
            "inject=fdatasync,fsync:delay_enter={}",
            random.gen_range(1000..20_000)
        ),
        Trouble::Failing => {
            let error = if random.gen_bool(0.5) { "EIO" } else { "ENOSPC" };
            format!("inject={call}:error={error}:when={}", random.gen_range(3..40))
        }
        _ => return Vec::new(),
    };
    let strace = [
        "strace",
        "-D",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync,fsync,write,pwrite64,rename,renameat,renameat2",
    ];
    let mut words: Vec<String> = strace.iter().map(|&word| word.to_owned()).collect();
    words.extend(["-e".to_owned(), inject]);
    words
}

/// A file system of few bytes, gone with the value.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Result<Self> {
        fs::create_dir_all(at)?;
        mount(
            Some("tmpfs"),
            at,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=24m"),
        )
        .context("mounting a tmpfs (as root)")?;
        Ok(Self(at.to_owned()))
    }

    /// Leaves room for so many bytes.
    fn fill(&self, room: usize) -> Result<()> {
        let ballast = self.0.join("ballast");
        let mut file = fs::File::create(&ballast)?;
        let block = vec![1; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        let length = file.metadata()?.len();
        file.set_len(length.saturating_sub(room as u64))?;
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        match fs::remove_file(self.0.join("ballast")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Stands in front of the collector and cuts every connection after some bytes of either direction.
pub(super) fn cut(front: &Path, behind: &Path, seed: u64) -> Result<Cutter> {
    let listener = UnixListener::bind(front)?;
    let behind = behind.to_owned();
    let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
    Ok(Cutter(tokio::spawn(async move {
        while let Ok((agent, _)) = listener.accept().await {
            let (up, down) = (random.gen_range(0..120_000), random.gen_range(0..4000));
            let Ok(collector) = UnixStream::connect(&behind).await else {
                continue;
            };
            tokio::spawn(async move {
                let (from_agent, to_agent) = agent.into_split();
                let (from_collector, to_collector) = collector.into_split();
                // The first that has had enough ends both.
                tokio::select! {
                    () = pass(from_agent, to_collector, up) => {}
                    () = pass(from_collector, to_agent, down) => {}
                }
            });
        }
    })))
}

/// The task in front; it ends with the value.
pub(super) struct Cutter(tokio::task::JoinHandle<()>);

impl Drop for Cutter {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn pass(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    budget: u64,
) {
    let mut left = budget;
    let mut buffer = vec![0; 1500];
    while left > 0 {
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        if to
            .write_all(buffer.get(..count).unwrap_or_default())
            .await
            .is_err()
        {
            return;
        }
        left -= count as u64;
    }
}
