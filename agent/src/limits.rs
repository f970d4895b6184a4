//! What the agent may take of the host: memory, processor time, and the size of the ring.
//!
//! Owns the arithmetic and the two figures that it needs of this process. Refuses to act: the main loop sleeps and sheds.
//! Separate so that the rules can be tested without a kernel.

use std::{fs::File, os::unix::fs::FileExt as _, sync::LazyLock, time::Duration};

use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use procfs::Current as _;

/// Whether the agent is at its limit of memory.
///
/// What counts is anonymous memory: sessions, queue, caches, stacks. The rings are the kernel's, and have their own size.
#[derive(Debug)]
pub struct MemoryWatch {
    limit: u64,
    over: bool,
}

impl MemoryWatch {
    /// With this limit in bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, over: false }
    }

    /// Whether so much is too much. Once it was, it is until a tenth of the limit is free again: each change makes gaps, and
    /// should be worth them.
    pub fn is_over(&self, used: u64) -> bool {
        let limit = if self.over {
            self.limit - self.limit / 10
        } else {
            self.limit
        };
        used > limit
    }

    /// Takes the present use in bytes; returns whether payload has to be shed.
    pub fn sheds(&mut self, used: u64) -> bool {
        self.over = self.is_over(used);
        self.over
    }
}

/// Keeps the agent's processor time below a share, by telling for how long the main loop should rest.
#[derive(Debug)]
pub struct CpuPace {
    percent: u32,
    /// Both clocks when the window began.
    began: (Duration, Duration),
}

/// Over how long the share is averaged: an idle agent may spend that much at once.
const WINDOW: Duration = Duration::from_secs(1);

/// A longer rest is taken in parts, so that the agent can be stopped and asked meanwhile.
const REST: Duration = Duration::from_millis(100);

impl CpuPace {
    /// At most this share, in percent of one processor.
    pub fn new(percent: u32, wall: Duration, cpu: Duration) -> Self {
        Self {
            percent: percent.max(1),
            began: (wall, cpu),
        }
    }

    /// For how long to rest now, given a clock that never goes back and the processor time taken.
    pub fn rest(&mut self, wall: Duration, cpu: Duration) -> Option<Duration> {
        let elapsed = wall.saturating_sub(self.began.0);
        let spent = cpu.saturating_sub(self.began.1);
        let due = spent.saturating_mul(100) / self.percent;
        if due > elapsed {
            return Some((due - elapsed).min(REST));
        }
        if elapsed > WINDOW {
            self.began = (wall, cpu);
        }
        None
    }
}

/// Processor time of the agent: of all threads of this process, and of its broker.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    broker: Option<ClockId>,
}

impl CpuTime {
    /// With the broker that has this process id.
    pub fn with(broker: u32) -> Self {
        let pid = i32::try_from(broker).ok().map(Pid::from_raw);
        Self {
            broker: pid.and_then(|pid| ClockId::pid_cpu_clock_id(pid).ok()),
        }
    }

    /// Taken until now; that of the broker since it was started.
    pub fn taken(self) -> Duration {
        let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
        read(ClockId::CLOCK_PROCESS_CPUTIME_ID) + self.broker.map(read).unwrap_or_default()
    }
}

/// Anonymous memory of this process in bytes (proc(5), `statm`: resident less shared pages). The file stays open from the
/// first look on: later ones may be by a process that opens nothing any more.
pub fn anonymous_bytes() -> u64 {
    static STATM: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/statm").ok());
    let mut text = [0; 128];
    let length = STATM
        .as_ref()
        .and_then(|file| file.read_at(&mut text, 0).ok())
        .unwrap_or(0);
    let text = str::from_utf8(text.get(..length).unwrap_or_default()).unwrap_or_default();
    let mut pages = text
        .split_ascii_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0));
    let (resident, shared): (u64, u64) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(shared) * procfs::page_size()
}

/// Mebibytes of the payload ring for a host: 8 for each processor, because each can fill it on its own; at most a 64th
/// of its memory; 8 to 512. The tap comes by at least every 20 ms, and statements of pgbench at full speed take most of a second to fill
/// that; the kernel gives a ring all of its memory at once, so a larger one would be paid for on every host.
pub fn ring_mib(processors: u64, memory_bytes: u64) -> u32 {
    let wanted = processors.saturating_mul(8).min((memory_bytes >> 20) / 64);
    let wanted = wanted.clamp(8, 512);
    // A ring is a power of two; the next smaller one, so that the bounds hold.
    1 << wanted.ilog2()
}

/// [`ring_mib`] for this host.
pub fn ring_mib_here() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let memory = procfs::Meminfo::current().map_or(0, |info| info.mem_total);
    ring_mib(processors, memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shedding_begins_at_the_limit_and_ends_with_room() {
        let mut watch = MemoryWatch::new(1000);
        assert!(!watch.sheds(1000));
        assert!(watch.sheds(1001));
        assert!(watch.sheds(950), "no flapping around the limit");
        assert!(!watch.sheds(900));
        assert!(!watch.sheds(950));
    }

    #[test]
    fn the_share_holds_over_time_and_rests_are_short() {
        let ms = Duration::from_millis;
        let mut pace = CpuPace::new(25, ms(0), ms(0));
        let (mut wall, mut cpu) = (ms(0), ms(0));
        for _ in 0..1000 {
            // A busy loop: every round takes 3 ms of processor time.
            wall += ms(3);
            cpu += ms(3);
            while let Some(rest) = pace.rest(wall, cpu) {
                assert!(rest <= REST);
                wall += rest;
            }
        }
        let share = 100.0 * cpu.as_secs_f64() / wall.as_secs_f64();
        assert!((24.0..=26.0).contains(&share), "{share}");
    }

    #[test]
    fn idleness_is_not_saved_up() {
        let ms = Duration::from_millis;
        let mut pace = CpuPace::new(50, ms(0), ms(0));
        assert_eq!(pace.rest(ms(60_000), ms(0)), None);
        // The window began anew: half a second may be spent in its first second, and no more.
        assert_eq!(pace.rest(ms(60_500), ms(200)), None);
        assert_eq!(pace.rest(ms(60_700), ms(600)), Some(REST));
    }

    #[test]
    fn the_ring_fits_the_host() {
        let gib = 1 << 30;
        assert_eq!(ring_mib(2, 8 * gib), 16);
        assert_eq!(ring_mib(16, 2 * gib), 32);
        assert_eq!(ring_mib(1, gib / 4), 8);
        assert_eq!(ring_mib(96, 512 * gib), 512);
        assert_eq!(ring_mib(3, 64 * gib), 16);
        assert!(ring_mib_here().is_power_of_two());
    }

    #[test]
    fn this_process_has_memory_and_took_time() {
        assert!(anonymous_bytes() > 100_000);
        let before = CpuTime::default().taken();
        let sum = (0..5_000_000_u64).fold(0_u64, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
        assert!(std::hint::black_box(sum) != 1 && CpuTime::default().taken() > before);
        let twice = CpuTime::with(std::process::id()).taken();
        assert!(
            twice > CpuTime::default().taken(),
            "another process' time can be read"
        );
    }
}
