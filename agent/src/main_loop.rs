//! The thread that reads the rings: facts and segments to the witness, events to the queue, orders from the control
//! socket.
//!
//! Owns the order of things within a round, and the agent's politeness: it rests when it took its share of the
//! processor, and sheds payload when its memory is full. What that costs is counted and told like any other loss. Separate
//! from `run`, which builds the parts and takes them down.

mod steering;

use std::{
    io::Write as _,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use attribution::Host;
use ebpf_abi::{Record as _, Transfer};
use proto::v1::{self, event::Body};
use tap_core::Settings;
use tracing::{info, warn};
use volume::Volume;

use crate::{
    broker::Broker,
    capture::{self, Ring, gauge::Skipped, wake::Wake},
    catalog::looks::Looks,
    clock::{Clock, boot_ns},
    control::{Order, ProcessStatus},
    facts::cgroups::Cgroups,
    limits::{self, CpuPace, CpuTime, MemoryWatch},
    losses::{FACTS_LOST, Losses, PROGRAM_MISSED, TARGETS_FULL, TRANSFERS_LOST, Unmarked},
    metrics::Metrics,
    progress::{Former, Progress},
    record::Encoded,
    rhythm::Rhythm,
    segment_file::SegmentFile,
    ship::Outbox,
    volume::PolicyFile,
    witness::{Discard, Witness},
};

/// After a wake-up by a fact: gathers more, so that one serves many.
const GATHER: Duration = Duration::from_millis(1);

/// Segments taken before facts, counters and the stop flag are looked at again.
const ROUND: usize = 4096;

/// Calls of poolers taken at once: more than their ring holds, so that it is emptied, and yet not without end.
const PASSED: u64 = 65_536;

/// How often memory and losses are looked at: each look reads a file.
const LOOK: Duration = Duration::from_millis(250);

/// What the main loop reads, and whom it asks.
pub struct Sources {
    /// Payload.
    pub segments: Ring,
    /// Processes and sockets.
    pub facts: Ring,
    /// What poolers did with their sockets.
    pub transfers: Ring,
    /// Attaches, and sees what only the privileged may.
    pub broker: Broker,
    /// The cgroups of this host.
    pub cgroups: Cgroups,
    /// Names this boot of it.
    pub boot: String,
}

/// What the main loop needs to know.
pub struct MainLoop {
    /// Where events go.
    pub outbox: Arc<Outbox>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Set: empty the rings and end.
    pub stop: Arc<AtomicBool>,
    /// What the control socket is asked.
    pub orders: Receiver<Order>,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// The agent's id.
    pub agent_id: String,
    /// How the tap is attached.
    pub tier: String,
    /// The two processes of the agent, and what each may do.
    pub processes: Vec<ProcessStatus>,
    /// Where events are delivered to; without any they are not queued.
    pub collectors: Vec<String>,
    /// Bytes of the spool at the most.
    pub spool_bytes: u64,
    /// Whether events are printed.
    pub print: bool,
    /// Bytes of the ring for payload.
    pub ring_bytes: u64,
    /// Limit of anonymous memory in bytes.
    pub memory_bytes: u64,
    /// Limit of processor time in percent of one processor.
    pub cpu_percent: Option<u32>,
    /// Keeps how far sessions were delivered.
    pub progress: Arc<Progress>,
    /// What the run before this one kept.
    pub former: Former,
    /// Variables of the environment that tell which run a process belongs to.
    pub run_variables: Vec<String>,
    /// How much is recorded, and where that is written.
    pub volume: Option<(PolicyFile, Volume)>,
    /// Who looks at catalogs.
    pub looks: Option<Looks>,
}

/// Where events go: printed, queued.
struct Sink {
    outbox: Arc<Outbox>,
    print: Option<String>,
    keep: bool,
    printed: u64,
}

impl Sink {
    fn take(&mut self, event: &Encoded) {
        if let Some(agent) = &self.print {
            self.printed += 1;
            // What was encoded here can be decoded; a reader that went away is no reason to stop recording.
            if let Some(event) = event.whole(self.printed) {
                let _ = writeln!(std::io::stdout(), "{}", proto::json::event(agent, &event));
            }
        }
        if self.keep {
            self.outbox.push(event);
        }
    }

    /// An event of the agent itself, of now.
    fn own(&mut self, body: Body) {
        self.take(&Encoded::own(boot_ns(), Clock::now(), body));
    }
}

/// The loop at work.
struct Running {
    witness: Witness,
    broker: Broker,
    sink: Sink,
    metrics: Arc<Metrics>,
    started: Instant,
    agent_id: String,
    collectors: Vec<String>,
    spool_bytes: u64,
    tier: String,
    processes: Vec<ProcessStatus>,
    ring_bytes: u64,
    memory: MemoryWatch,
    memory_bytes: u64,
    sheds: bool,
    pause: Option<steering::Pause>,
    cpu: CpuTime,
    pace: Option<CpuPace>,
    cpu_percent: Option<u32>,
    losses: Losses,
    unmarked: Unmarked,
    /// When the counters were looked at last: what they count since was lost since.
    counted_ns: u64,
    /// In the last round.
    /// As of the last answer.
    skipped: Skipped,
    /// Payload was skipped since it was told.
    payload_was_skipped: bool,
    policy: Option<PolicyFile>,
    last_heartbeat: Instant,
    /// Statements were left out, and nothing else waits to be told.
    owes_numbers: bool,
}

impl MainLoop {
    /// Runs until it is told to stop and the rings are empty.
    ///
    /// # Errors
    ///
    /// If the map of tapped processes is full at the start, or the broker is lost.
    pub fn run(
        self,
        host: Host,
        settings: Settings,
        sources: Sources,
        recording: Option<SegmentFile>,
    ) -> anyhow::Result<()> {
        let Sources {
            mut segments,
            mut facts,
            mut transfers,
            broker,
            cgroups,
            boot,
        } = sources;
        let began_ns = boot_ns();
        let mut witness = Witness::new(host, &boot, settings, cgroups, self.run_variables, broker.clone())?;
        witness.record_segments(recording);
        witness.look_at_catalogs(self.looks);
        announce(&witness);
        let started = Instant::now();
        let cpu = CpuTime::with(self.processes.first().map_or(0, |broker| broker.pid));
        let mut running = Running {
            witness,
            broker,
            sink: Sink {
                outbox: Arc::clone(&self.outbox),
                keep: !self.collectors.is_empty(),
                print: self.print.then(|| self.agent_id.clone()),
                printed: 0,
            },
            metrics: Arc::clone(&self.metrics),
            started,
            agent_id: self.agent_id,
            collectors: self.collectors,
            spool_bytes: self.spool_bytes,
            tier: self.tier,
            processes: self.processes,
            ring_bytes: self.ring_bytes,
            memory: MemoryWatch::new(self.memory_bytes),
            memory_bytes: self.memory_bytes,
            sheds: false,
            pause: None,
            pace: self
                .cpu_percent
                .map(|percent| CpuPace::new(percent, Duration::ZERO, cpu.taken())),
            cpu,
            cpu_percent: self.cpu_percent,
            losses: Losses::default(),
            unmarked: Unmarked::default(),
            counted_ns: began_ns,
            skipped: Skipped::default(),
            payload_was_skipped: false,
            policy: None,
            last_heartbeat: started,
            owes_numbers: false,
        };
        running.go_on(self.former);
        if let Some((file, volume)) = self.volume {
            running.sink.own(Body::ConfigChange(file.at_start()));
            running.policy = Some(file);
            running.witness.reduce(Some(volume));
        }
        let mut last_look = started;
        let mut rhythm = Rhythm::of(running.ring_bytes);
        let wake = Wake::by([&segments, &facts]).context("waiting for the kernel side")?;
        loop {
            // Read before the rings: what a stop finds in them is still recorded.
            let lost = running.broker.lost();
            let stopping = self.stop.load(Ordering::Relaxed) || lost.is_some();
            let emptied = running.round(&mut segments, &mut facts, &mut transfers);
            while let Ok(order) = self.orders.try_recv() {
                running.count();
                self.metrics.queue(&self.outbox);
                let answer = running.obey(order.request, order.who, &segments);
                // Whoever asked may have gone.
                let _ = order.answer.send(answer);
            }
            if last_look.elapsed() >= LOOK || stopping {
                last_look = Instant::now();
                self.metrics.queue(&self.outbox);
                running.look(stopping);
            }
            if running.owes_numbers || running.last_heartbeat.elapsed() >= self.heartbeat {
                running.beat();
            }
            if stopping && emptied {
                running.wind_up();
            }
            running.note(&self.progress, emptied, stopping);
            if stopping && emptied {
                running.witness.record_segments(None);
                return lost.map_or(Ok(()), |why| Err(anyhow::anyhow!(why)));
            }
            if emptied && !stopping {
                let pause = rhythm.pause(running.witness.taken());
                let since = Instant::now();
                wake.wait(pause);
                // Whoever was not woken has gathered already.
                if since.elapsed() < pause {
                    thread::sleep(GATHER);
                }
            }
            if !stopping {
                running.rest();
            }
        }
    }
}

impl Running {
    /// Takes what is in the rings; returns whether they were seen empty.
    fn round(&mut self, segments: &mut Ring, facts: &mut Ring, transfers: &mut Ring) -> bool {
        let Self { witness, sink, .. } = self;
        let mut out = |event: &Encoded| sink.take(event);
        witness.begin_round();
        while facts.next(|fact| witness.fact(fact)) {}
        let mut passed = take_transfers(witness, transfers, facts);
        let mut taken = 0;
        let mut emptied = false;
        while taken < ROUND && !emptied {
            emptied = !segments.next(|segment| {
                if !witness.knows(segment) {
                    while facts.next(|fact| witness.fact(fact)) {}
                }
                witness.segment(segment, &mut out);
                taken += 1;
            });
        }
        // What was read meanwhile was passed on meanwhile; and what ended has done all that it did.
        passed += take_transfers(witness, transfers, facts);
        if emptied {
            witness.end_round(&mut out);
        }
        witness.tell_pooled(emptied, &mut out);
        witness.tell_flows(false, &mut out);
        witness.go_on_looking();
        self.owes_numbers |= witness.tell_window(&mut out);
        self.metrics.transfers.fetch_add(passed, Ordering::Relaxed);
        let set = |metric: &AtomicU64, value: u64| metric.store(value, Ordering::Relaxed);
        let (segments, bytes) = witness.taken();
        set(&self.metrics.segments, segments);
        set(&self.metrics.bytes, bytes);
        set(&self.metrics.sessions, witness.sessions());
        set(&self.metrics.orphans, witness.orphans());
        set(&self.metrics.malformed, witness.malformed());
        set(&self.metrics.flows, witness.flows_told());
        set(&self.metrics.flows_full, witness.flows_full());
        set(&self.metrics.sessions_open, witness.open_connections() as u64);
        set(&self.metrics.servers, witness.servers().iter().count() as u64);
        set(&self.metrics.poolers, witness.poolers().count() as u64);
        let reduced = witness.reduced();
        set(&self.metrics.left_out, reduced.left_out);
        set(&self.metrics.rolled_up, reduced.rolled_up);
        set(&self.metrics.paused_bytes, witness.discarded(Discard::Paused));
        set(
            &self.metrics.memory_limit_bytes,
            witness.discarded(Discard::Memory),
        );
        emptied
    }

    /// Takes over what the kernel side counted until now; false if it is not to be had now.
    fn count(&mut self) -> bool {
        let Some((counters, skipped)) = self.broker.counters() else {
            return false;
        };
        self.metrics.kernel(&counters);
        self.payload_was_skipped |= skipped.payload > self.skipped.payload;
        self.skipped = skipped;
        // What was taken by another program is counted a moment later than what was skipped, and read later.
        self.metrics
            .program_missed
            .fetch_max(skipped.payload + skipped.facts, Ordering::Relaxed);
        true
    }

    /// Memory, and losses that no session can tell of.
    fn look(&mut self, stopping: bool) {
        let mut used = limits::anonymous_bytes();
        if self.memory.is_over(used) {
            // Meanings cost time to make anew, not truth; and what was freed may not have been given back yet.
            self.witness.forget();
            let Self { witness, sink, .. } = &mut *self;
            self.owes_numbers |= witness.flush_volume(&mut |event| sink.take(event));
            capture::heap::trim();
            used = limits::anonymous_bytes();
        }
        let sheds = self.memory.sheds(used);
        self.metrics.memory_bytes.store(used, Ordering::Relaxed);
        if sheds != self.sheds {
            self.sheds = sheds;
            if sheds {
                warn!(
                    "at the limit of memory (limits.memory_mib): what is captured is discarded, counted and told"
                );
            } else {
                info!("below the limit of memory again: recording");
            }
            self.discard();
        }
        self.look_at_policy();
        // What is counted is as of later than that.
        let now = boot_ns();
        let Self {
            unmarked, witness, ..
        } = &mut *self;
        let untold = unmarked.look(now, stopping, || witness.mark_all().is_ok());
        if let Some(since) = untold {
            let gap = Body::Gap(Unmarked::gap());
            self.sink.take(&Encoded::own_since(since, now, Clock::now(), gap));
        }
        if !self.count() {
            // What was lost meanwhile is told with what is lost until the next answer.
            return;
        }
        let payload_was_skipped = mem::take(&mut self.payload_was_skipped);
        let since = self.counted_ns;
        for gap in self.losses.since(&self.metrics.counters()) {
            let skipped_a_fact = gap.reason == PROGRAM_MISSED && !payload_was_skipped;
            if (gap.reason == FACTS_LOST || skipped_a_fact)
                && let Err(problem) = self.witness.reconcile()
            {
                warn!("processes that were not noticed cannot be tapped: {problem:#}");
            }
            if gap.reason == TRANSFERS_LOST {
                self.witness.transfers_lost();
            }
            if gap.reason == TARGETS_FULL {
                self.unmarked.begin(now);
            }
            if gap.reason == PROGRAM_MISSED && payload_was_skipped {
                let Self { witness, sink, .. } = &mut *self;
                witness.doubt(since, now, &mut |event| sink.take(event));
            }
            self.sink
                .take(&Encoded::own_since(since, now, Clock::now(), Body::Gap(gap)));
        }
        self.counted_ns = now;
    }

    /// Takes another policy, if there is one.
    fn look_at_policy(&mut self) {
        let Some(file) = &mut self.policy else { return };
        let Some(change) = file.look() else { return };
        self.metrics
            .policy_refused
            .store(file.refused(), Ordering::Relaxed);
        let Self { witness, sink, .. } = self;
        if let Some(policy) = change.policy {
            witness.change_policy(policy, &mut |event| sink.take(event));
        }
        sink.own(Body::ConfigChange(change.event));
    }

    /// Tells the counters.
    fn beat(&mut self) {
        let beat = v1::Heartbeat {
            interval_ns: u64::try_from(self.last_heartbeat.elapsed().as_nanos()).unwrap_or(u64::MAX),
            counters: Some(self.metrics.counters()),
            left_out: self.witness.left_out(),
        };
        self.last_heartbeat = Instant::now();
        self.sink.own(Body::Heartbeat(beat));
        self.witness.numbers_told();
        self.owes_numbers = false;
    }

    /// What a former run left is told, or awaited.
    fn go_on(&mut self, former: Former) {
        let Self { witness, sink, .. } = self;
        witness.go_on(former, &mut |event| sink.take(event));
    }

    /// Notes how far all sessions have come: it holds for the next run once the events until here are delivered.
    fn note(&mut self, progress: &Progress, emptied: bool, last: bool) {
        let Self { witness, sink, .. } = self;
        if sink.keep {
            witness.note_progress(progress, sink.outbox.pushed(), emptied, last);
        } else if sink.print.is_some() {
            witness.note_progress(progress, sink.printed, emptied, last);
            progress.delivered(sink.printed);
        }
    }

    /// Rests if the agent took more than its share of the processor. What comes meanwhile waits in the rings.
    fn rest(&mut self) {
        let Some(pace) = &mut self.pace else { return };
        if let Some(rest) = pace.rest(self.started.elapsed(), self.cpu.taken()) {
            self.metrics.rested_ns.fetch_add(
                u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX),
                Ordering::Relaxed,
            );
            thread::sleep(rest);
        }
    }
}

/// Takes what poolers did, up to [`PASSED`] of it; returns how much.
fn take_transfers(witness: &mut Witness, transfers: &mut Ring, facts: &mut Ring) -> u64 {
    let mut taken = 0;
    while taken < PASSED
        && transfers.next(|transfer| {
            if let Some(transfer) = Transfer::read(transfer) {
                if !witness.knows_pooler_socket(transfer.cookie) {
                    while facts.next(|fact| witness.fact(fact)) {}
                }
                witness.transfer(&transfer);
            }
        })
    {
        taken += 1;
    }
    taken
}

fn announce(witness: &Witness) {
    let mut servers: Vec<String> = witness
        .servers()
        .iter()
        .map(|server| match &server.data_directory {
            Some(folder) => format!("{} ({})", server.pid, folder.display()),
            None => server.pid.to_string(),
        })
        .collect();
    servers.sort();
    if servers.is_empty() {
        info!("ready: no server to tap is running yet; new ones are tapped as they start");
    } else {
        info!(
            "ready: tapping {} server(s): {}",
            servers.len(),
            servers.join(", ")
        );
    }
}
