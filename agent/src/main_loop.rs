//! The thread that reads the rings: facts and segments to the witness, events to the queue, orders from the control
//! socket.
//!
//! Owns the order of things within a round, and the agent's politeness: it rests when it took its share of the
//! processor, and sheds payload when its memory is full. What that costs is counted and told like any other loss. Separate
//! from `run`, which builds the parts and takes them down.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::{Duration, Instant},
};

use attribution::Host;
use proto::v1::{self, event::Body};
use tap_core::Settings;
use tracing::{info, warn};

use crate::{
    capture::{self, Ring, Tap, plaintext::Readable},
    clock::{Clock, boot_ns},
    control::{Answer, CollectorStatus, Fill, Order, Paused, Request, Resumed, ServerStatus, Status, Who},
    facts::servers::Wanted,
    limits::{self, CpuPace, MemoryWatch},
    losses::Losses,
    metrics::Metrics,
    record,
    segment_file::SegmentFile,
    ship::Outbox,
    witness::{Discard, Witness},
};

/// It looks at its stop flag, orders and counters at least this often.
const TICK: Duration = Duration::from_millis(200);

/// After the first record of a burst: gathers more, so that one wake-up serves many.
const GATHER: Duration = Duration::from_millis(1);

/// Segments taken before facts, counters and the stop flag are looked at again.
const ROUND: usize = 4096;

/// How often memory and losses are looked at: each look reads a file.
const LOOK: Duration = Duration::from_millis(250);

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
    /// Where events are delivered to; without it they are not queued.
    pub collector: Option<String>,
    /// Whether events are printed.
    pub print: bool,
    /// Bytes of the ring for payload.
    pub ring_bytes: u64,
    /// Limit of anonymous memory in bytes.
    pub memory_bytes: u64,
    /// Limit of processor time in percent of one processor.
    pub cpu_percent: Option<u32>,
}

/// Somebody paused the agent.
struct Pause {
    since_boot_ns: u64,
    who: Who,
    reason: String,
    /// Payload bytes that had been discarded before.
    discarded_before: u64,
}

/// Where events go: printed, queued, counted.
struct Sink {
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    print: Option<String>,
    keep: bool,
    printed: u64,
}

impl Sink {
    fn take(&mut self, event: v1::Event) {
        if matches!(event.body, Some(Body::SessionOpen(_))) {
            self.metrics.sessions.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(agent) = &self.print {
            self.printed += 1;
            let event = v1::Event {
                seq: self.printed,
                ..event.clone()
            };
            // A reader that went away is no reason to stop recording.
            let _ = writeln!(std::io::stdout(), "{}", proto::json::event(agent, &event));
        }
        if self.keep {
            self.outbox.push(event);
        }
    }

    /// An event of the agent itself, of now.
    fn own(&mut self, body: Body) {
        self.take(record::own_event(boot_ns(), Clock::now(), body));
    }
}

/// The loop at work.
struct Running {
    witness: Witness,
    sink: Sink,
    metrics: Arc<Metrics>,
    started: Instant,
    agent_id: String,
    collector: Option<String>,
    tier: String,
    ring_bytes: u64,
    memory: MemoryWatch,
    memory_bytes: u64,
    sheds: bool,
    pause: Option<Pause>,
    pace: Option<CpuPace>,
    cpu_percent: Option<u32>,
    losses: Losses,
}

impl MainLoop {
    /// Runs until it is told to stop and the rings are empty.
    ///
    /// # Errors
    ///
    /// If the map of tapped processes is full at the start.
    pub fn run(
        self,
        host: Host,
        settings: Settings,
        wanted: Wanted,
        tap: Tap,
        recording: Option<SegmentFile>,
    ) -> anyhow::Result<()> {
        let Tap {
            tier,
            mut segments,
            mut facts,
            targets,
            counters,
            probes,
        } = tap;
        let mut witness = Witness::new(host, settings, wanted, targets, probes)?;
        witness.record_segments(recording);
        announce(&witness);
        let started = Instant::now();
        let mut running = Running {
            witness,
            sink: Sink {
                outbox: Arc::clone(&self.outbox),
                metrics: Arc::clone(&self.metrics),
                keep: self.collector.is_some(),
                print: self.print.then(|| self.agent_id.clone()),
                printed: 0,
            },
            metrics: Arc::clone(&self.metrics),
            started,
            agent_id: self.agent_id,
            collector: self.collector,
            tier: tier.to_string(),
            ring_bytes: self.ring_bytes,
            memory: MemoryWatch::new(self.memory_bytes),
            memory_bytes: self.memory_bytes,
            sheds: false,
            pause: None,
            pace: self
                .cpu_percent
                .map(|percent| CpuPace::new(percent, Duration::ZERO, limits::cpu_time())),
            cpu_percent: self.cpu_percent,
            losses: Losses::default(),
        };
        let (mut last_heartbeat, mut last_look) = (started, started);
        loop {
            // Read before the rings: what a stop finds in them is still recorded.
            let stopping = self.stop.load(Ordering::Relaxed);
            while let Ok(order) = self.orders.try_recv() {
                let answer = running.obey(order.request, order.who, &segments);
                // Whoever asked may have gone.
                let _ = order.answer.send(answer);
            }
            let emptied = running.round(&mut segments, &mut facts);
            self.metrics.kernel(&counters.read());
            self.metrics.queue(&self.outbox);
            if last_look.elapsed() >= LOOK || stopping {
                last_look = Instant::now();
                running.look();
            }
            if last_heartbeat.elapsed() >= self.heartbeat {
                let beat = v1::Heartbeat {
                    interval_ns: u64::try_from(last_heartbeat.elapsed().as_nanos()).unwrap_or(u64::MAX),
                    counters: Some(self.metrics.counters()),
                };
                last_heartbeat = Instant::now();
                running.sink.own(Body::Heartbeat(beat));
            }
            if stopping && emptied {
                break;
            }
            if emptied && !stopping {
                capture::wait([&segments, &facts], TICK);
                thread::sleep(GATHER);
            }
            if !stopping {
                running.rest();
            }
        }
        running.end();
        Ok(())
    }
}

impl Running {
    /// Takes what is in the rings; returns whether both were seen empty.
    fn round(&mut self, segments: &mut Ring, facts: &mut Ring) -> bool {
        let Self { witness, sink, .. } = self;
        let mut out = |event: v1::Event| sink.take(event);
        witness.begin_round();
        while facts.next(|fact| witness.fact(fact)) {}
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
        if emptied {
            witness.end_round(&mut out);
        }
        let set = |metric: &AtomicU64, value: u64| metric.store(value, Ordering::Relaxed);
        set(&self.metrics.orphans, witness.orphans());
        set(&self.metrics.malformed, witness.malformed());
        set(&self.metrics.sessions_open, witness.open_connections() as u64);
        set(&self.metrics.servers, witness.servers().tapped().count() as u64);
        set(&self.metrics.paused_bytes, witness.discarded(Discard::Paused));
        set(&self.metrics.memory_limit_bytes, witness.discarded(Discard::Memory));
        emptied
    }

    /// Memory, and losses that no session can tell of.
    fn look(&mut self) {
        let used = limits::anonymous_bytes();
        self.metrics.memory_bytes.store(used, Ordering::Relaxed);
        let mut sheds = self.memory.sheds(used);
        if sheds && !self.sheds {
            // What was freed may not have been given back yet.
            capture::heap::trim();
            sheds = self.memory.sheds(limits::anonymous_bytes());
        }
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
        self.metrics
            .program_missed
            .store(self.witness.skipped(), Ordering::Relaxed);
        for gap in self.losses.since(&self.metrics.counters()) {
            self.sink.own(Body::Gap(gap));
        }
    }

    /// Rests if the agent took more than its share of the processor. What comes meanwhile waits in the rings.
    fn rest(&mut self) {
        let Some(pace) = &mut self.pace else { return };
        if let Some(rest) = pace.rest(self.started.elapsed(), limits::cpu_time()) {
            self.metrics.rested_ns.fetch_add(
                u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX),
                Ordering::Relaxed,
            );
            thread::sleep(rest);
        }
    }

    fn obey(&mut self, request: Request, who: Who, segments: &Ring) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(self.status(segments))),
            Request::Pause { reason } => match &self.pause {
                Some(pause) => Answer::Error(format!(
                    "it is paused already, since {} by {}",
                    self.paused(pause).since,
                    pause.who.login
                )),
                None => Answer::Paused(self.begin_pause(who, reason)),
            },
            Request::Resume { reason } => match self.pause.take() {
                Some(pause) => Answer::Resumed(self.end_pause(&pause, who, reason)),
                None => Answer::Error("it is not paused".to_owned()),
            },
        }
    }

    fn begin_pause(&mut self, who: Who, reason: String) -> Paused {
        warn!("paused by {} (uid {}): nothing is recorded", who.login, who.uid);
        self.sink.own(Body::AgentPause(v1::AgentPause {
            uid: who.uid,
            login: who.login.clone(),
            reason: reason.clone(),
        }));
        let pause = Pause {
            since_boot_ns: boot_ns(),
            who,
            reason,
            discarded_before: self.witness.discarded(Discard::Paused),
        };
        let paused = self.paused(&pause);
        self.pause = Some(pause);
        self.discard();
        paused
    }

    fn end_pause(&mut self, pause: &Pause, who: Who, reason: String) -> Resumed {
        // First the gaps that it made, then its end.
        self.discard();
        let paused_ns = boot_ns().saturating_sub(pause.since_boot_ns);
        let bytes_discarded = self.witness.discarded(Discard::Paused) - pause.discarded_before;
        info!("resumed by {} (uid {})", who.login, who.uid);
        self.sink.own(Body::AgentResume(v1::AgentResume {
            uid: who.uid,
            paused_ns,
            reason,
            login: who.login,
            bytes_discarded,
        }));
        Resumed {
            paused_ms: paused_ns / 1_000_000,
            bytes_discarded,
        }
    }

    /// Discards payload from here on, or no longer, as pause and memory say.
    fn discard(&mut self) {
        let why = match (&self.pause, self.sheds) {
            (Some(_), _) => Some(Discard::Paused),
            (None, true) => Some(Discard::Memory),
            (None, false) => None,
        };
        let Self { witness, sink, .. } = self;
        witness.discard(why, &mut |event| sink.take(event));
        self.metrics
            .paused
            .store(u64::from(self.pause.is_some()), Ordering::Relaxed);
    }

    fn paused(&self, pause: &Pause) -> Paused {
        Paused {
            since: proto::json::time(Clock::now().utc(pause.since_boot_ns)).unwrap_or_default(),
            uid: pause.who.uid,
            login: pause.who.login.clone(),
            reason: pause.reason.clone(),
            bytes_discarded: self.witness.discarded(Discard::Paused) - pause.discarded_before,
        }
    }

    fn status(&self, segments: &Ring) -> Status {
        let mut servers: Vec<ServerStatus> = self
            .witness
            .servers()
            .tapped()
            .map(|server| ServerStatus {
                pid: server.pid,
                exe: server.exe.display().to_string(),
                data_directory: server
                    .data_directory
                    .as_ref()
                    .map(|path| path.display().to_string()),
                encryption: readable(&server.readable),
            })
            .collect();
        servers.sort_by_key(|server| server.pid);
        let counters = proto::json::counters_value(&self.metrics.counters());
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            agent_id: self.agent_id.clone(),
            uptime_s: self.started.elapsed().as_secs(),
            tier: self.tier.clone(),
            paused: self.pause.as_ref().map(|pause| self.paused(pause)),
            servers,
            sessions_open: self.witness.open_connections() as u64,
            ring: Fill {
                used: segments.used().unwrap_or(0),
                limit: self.ring_bytes,
            },
            queue: self.sink.outbox.fill(),
            queue_events: self.sink.outbox.len() as u64,
            memory: Fill {
                used: limits::anonymous_bytes(),
                limit: self.memory_bytes,
            },
            memory_sheds: self.sheds,
            cpu_ms: u64::try_from(limits::cpu_time().as_millis()).unwrap_or(u64::MAX),
            cpu_percent_limit: self.cpu_percent,
            counters: match counters {
                serde_json::Value::Object(counters) => counters,
                _ => serde_json::Map::new(),
            },
            collector: self.collector.clone().map(|url| CollectorStatus {
                url,
                connected: load(&self.metrics.connected) == 1,
                batches_waiting: load(&self.metrics.batches_waiting),
                batches_acknowledged: load(&self.metrics.batches_acknowledged),
            }),
        }
    }

    /// Nothing more comes: a pause is over, and what was discarded is told.
    fn end(mut self) {
        if let Some(pause) = self.pause.take() {
            let who = Who {
                uid: nix::unistd::geteuid().as_raw(),
                login: String::new(),
            };
            self.end_pause(&pause, who, "stop".to_owned());
        }
        self.sheds = false;
        self.discard();
        self.witness.record_segments(None);
    }
}

/// How a server's encrypted sessions are read, in words.
fn readable(readable: &Readable) -> String {
    let one = |name: &str, why: &Option<String>| match why {
        None => format!("{name} read"),
        Some(why) => format!("{name} not read ({why})"),
    };
    format!("{}, {}", one("TLS", &readable.tls), one("GSS", &readable.gss))
}

fn announce(witness: &Witness) {
    let mut servers: Vec<String> = witness
        .servers()
        .tapped()
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
