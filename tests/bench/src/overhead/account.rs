//! Processor time of a group of processes, as the kernel counts it.
//!
//! Owns one cgroup for each party (server, clients, agent, collector): its `cpu.stat` counts in microseconds and also
//! what processes used that ended meanwhile, which no file of a single process does.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use pgwitness_tests::unit::{Unit, cgroup2_mount};

/// All parties of a run, and where they may run.
pub(crate) struct Parties {
    run: String,
    pinned: bool,
}

impl Parties {
    /// Pinned: agent and collector have the last processor for themselves, all others share the rest.
    pub(crate) fn new(pinned: bool) -> Self {
        Self {
            run: format!("pgwitness-bench-{}", std::process::id()),
            pinned,
        }
    }

    /// Servers and clients.
    pub(crate) fn watched(&self, party: &str) -> Result<Account> {
        self.open(party, |last| {
            if last > 1 {
                format!("0-{}", last - 1)
            } else {
                "0".to_owned()
            }
        })
    }

    /// Agent and collector.
    pub(crate) fn watcher(&self, party: &str) -> Result<Account> {
        self.open(party, |last| last.to_string())
    }

    fn open(&self, party: &str, cores: impl Fn(usize) -> String) -> Result<Account> {
        let unit = Unit::create(&self.run, party)?;
        let folder = cgroup2_mount()?
            .join(format!("{}.slice", self.run))
            .join(unit.name());
        let last = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
        ensure!(
            !self.pinned || last > 0,
            "with one processor nothing can be pinned"
        );
        Ok(Account {
            unit,
            folder,
            cores: self.pinned.then(|| cores(last)),
        })
    }
}

/// A party's cgroup. Dropping it kills what still runs in it.
pub(crate) struct Account {
    unit: Unit,
    folder: PathBuf,
    /// The processors that the party may use, as taskset(1) writes them; all if there is none.
    cores: Option<String>,
}

const TASKSET: &str = "/usr/bin/taskset";

impl Account {
    /// A program that spends all its life in here.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let Some(cores) = &self.cores else {
            return self.unit.command(program);
        };
        let mut command = self.unit.command(Path::new(TASKSET));
        command.args(["-c", cores]).arg(program);
        command
    }

    /// Moves a running process and its children here; what they used before is not counted.
    pub(crate) fn adopt(&self, pid: u32) -> Result<()> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .context("reading the children of a process")?;
        let pid = pid.to_string();
        for process in std::iter::once(pid.as_str()).chain(children.split_whitespace()) {
            fs::write(self.folder.join("cgroup.procs"), process).context("moving a process to its cgroup")?;
            if let Some(cores) = &self.cores {
                let mut command = Command::new(TASKSET);
                let output = command.args(["-a", "-c", "-p", cores, process]).output()?;
                ensure!(output.status.success(), "{TASKSET} failed with {}", output.status);
            }
        }
        Ok(())
    }

    /// Time used since it was opened.
    pub(crate) fn used(&self) -> Result<Duration> {
        let text = fs::read_to_string(self.folder.join("cpu.stat")).context("reading cpu.stat")?;
        let micros = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok());
        micros
            .map(Duration::from_micros)
            .context("cpu.stat has no usage_usec")
    }

    /// The processes in it now.
    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        let text = fs::read_to_string(self.folder.join("cgroup.procs")).context("reading cgroup.procs")?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Time used by the threads that run now, by their names.
    pub(crate) fn threads(&self) -> Result<BTreeMap<String, Duration>> {
        let mut threads = BTreeMap::<String, Duration>::new();
        for pid in self.processes()? {
            for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
                let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
                // Documentation/scheduler/sched-stats.rst: the first number is the time spent on a processor, in ns.
                let used = read("schedstat");
                let used = used.split(' ').next().and_then(|used| used.parse().ok());
                let sum = threads.entry(read("comm").trim().to_owned()).or_default();
                *sum += Duration::from_nanos(used.unwrap_or_default());
            }
        }
        Ok(threads)
    }
}
