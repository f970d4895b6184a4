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

/// Of the programs that these processes hold, by name (which the kernel cuts to 15 characters).
pub(crate) fn programs_of(processes: &[u32]) -> Result<BTreeMap<String, Used>> {
    let mut ids = BTreeSet::new();
    for pid in processes {
        for file in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
            ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
        }
    }
    let mut programs = BTreeMap::<String, Used>::new();
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
