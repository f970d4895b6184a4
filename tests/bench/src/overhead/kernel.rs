//! How long the agent's programs in the kernel run, by the kernel's own count.
//!
//! Counting costs two clock reads a call, so it is on only while a value of [`Counting`] lives, in a run of its own.
//! Which programs are the agent's is told by its open files: other agents may run on the machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::UdpSocket,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use serde_json::{Value, json};

use crate::figures::rounded;

/// While it lives, the kernel counts calls and time of all eBPF programs (`BPF_ENABLE_STATS`, Linux 5.8).
pub(crate) struct Counting(#[expect(dead_code, reason = "held for its drop")] OwnedFd);

impl Counting {
    pub(crate) fn begin() -> Result<Self> {
        let file = enable_stats(Stats::RunTime).context("counting the run time of eBPF programs")?;
        Ok(Self(file))
    }
}

/// Calls that move nothing, from which the program returns at its first look: what is counted of them is the counting itself, and
/// what it takes to enter a program and leave it.
pub(crate) fn nothing_to_receive() -> Result<()> {
    const LONG_ENOUGH: Duration = Duration::from_millis(300);
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    socket.set_nonblocking(true)?;
    let begun = Instant::now();
    while begun.elapsed() < LONG_ENOUGH {
        ensure!(socket.recv(&mut [0]).is_err(), "nobody sends there");
    }
    Ok(())
}

/// What programs of one name used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) nanos: u64,
    pub(crate) calls: u64,
}

/// By program, with the name that the kernel cuts to 15 characters.
pub(crate) type ByProgram = BTreeMap<String, Used>;

/// What the programs took, in runs in which they were counted.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) programs: ByProgram,
    pub(super) statements: u64,
    /// Calls whose bytes were taken (one that is cut into pieces counts as many).
    pub(super) captured: u64,
    /// In another run of the same load, against a server that is not tapped.
    pub(super) elsewhere: ByProgram,
    /// Where there was nothing to do.
    pub(super) idle: ByProgram,
}

impl Kernel {
    /// What is left when all other calls are taken for such of processes that are no target.
    pub(super) fn nanos_per_captured_call(&self) -> f64 {
        let total = total(&self.programs);
        let others = total.calls.saturating_sub(self.captured) as f64 * nanos_per_call(&self.elsewhere);
        (total.nanos as f64 - others) / self.captured as f64
    }
}

/// Of the programs that these processes hold.
pub(crate) fn programs_of(processes: &[u32]) -> Result<ByProgram> {
    let mut ids = BTreeSet::new();
    for pid in processes {
        for file in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
            ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
        }
    }
    let mut programs = ByProgram::new();
    // One that is unloaded while the list is walked is none of ours.
    for program in loaded_programs().filter_map(Result::ok) {
        if ids.contains(&program.id()) {
            let name = program.name_as_str().filter(|name| !name.is_empty());
            let name = name.unwrap_or("unnamed").to_owned();
            let used = programs.entry(name).or_default();
            used.nanos += u64::try_from(program.run_time().as_nanos()).unwrap_or(u64::MAX);
            used.calls += program.run_count();
        }
    }
    Ok(programs)
}

/// What was used between two looks.
pub(crate) fn between(before: &ByProgram, after: &ByProgram) -> ByProgram {
    let since = |(name, now): (&String, &Used)| {
        let earlier = before.get(name).copied().unwrap_or_default();
        let used = Used {
            nanos: now.nanos - earlier.nanos,
            calls: now.calls - earlier.calls,
        };
        (used.calls > 0).then(|| (name.clone(), used))
    };
    after.iter().filter_map(since).collect()
}

/// Of all of them, one call.
pub(super) fn nanos_per_call(programs: &ByProgram) -> f64 {
    let total = total(programs);
    total.nanos as f64 / total.calls as f64
}

/// Of all of them, for each of so many statements.
pub(crate) fn micros_each(programs: &ByProgram, statements: u64) -> f64 {
    total(programs).nanos as f64 / 1000.0 / statements as f64
}

/// Each with its calls.
pub(crate) fn by_program(programs: &ByProgram, statements: u64) -> Value {
    let one = |(name, used): (&String, &Used)| {
        let figures = json!({
            "ns_per_call": rounded(used.nanos as f64 / used.calls as f64, 0),
            "calls_per_statement": rounded(used.calls as f64 / statements as f64, 2),
        });
        (name.clone(), figures)
    };
    Value::Object(programs.iter().map(one).collect())
}

fn total(programs: &ByProgram) -> Used {
    programs.values().fold(Used::default(), |sum, used| Used {
        nanos: sum.nanos + used.nanos,
        calls: sum.calls + used.calls,
    })
}
