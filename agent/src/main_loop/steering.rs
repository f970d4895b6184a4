//! What the control socket asks of the main loop: how it stands, pause, resume.
//!
//! Owns the pause, and when payload is discarded. Separate from the loop itself, which has an order of things to keep and
//! asks here once a round.

use std::sync::atomic::{AtomicU64, Ordering};

use proto::v1::{self, event::Body};
use tracing::{info, warn};

use super::Running;
use crate::{
    capture::{Ring, plaintext::Readable},
    clock::{Clock, boot_ns},
    control::{
        Answer, CollectorStatus, Fill, Paused, PoolerStatus, ProcessStatus, Request, Resumed, ServerStatus,
        Status, Who,
    },
    limits,
    witness::Discard,
};

/// Somebody paused the agent.
pub(super) struct Pause {
    since_boot_ns: u64,
    who: Who,
    reason: String,
    /// Payload bytes that had been discarded before.
    discarded_before: u64,
}

impl Running {
    pub(super) fn obey(&mut self, request: Request, who: Who, segments: &Ring) -> Answer {
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
    pub(super) fn discard(&mut self) {
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
            .iter()
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
        let is_server = !servers.is_empty() || self.witness.sessions() > 0;
        Status {
            role: role(is_server, self.witness.flows_told() > 0).to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: self.processes.first().map_or(0, |main| main.pid),
            processes: self.processes_now(),
            agent_id: self.agent_id.clone(),
            uptime_s: self.started.elapsed().as_secs(),
            tier: self.tier.clone(),
            paused: self.pause.as_ref().map(|pause| self.paused(pause)),
            servers,
            poolers: self.poolers(),
            sessions_open: self.witness.open_connections() as u64,
            ring: Fill {
                used: segments.used().unwrap_or(0),
                limit: self.ring_bytes,
            },
            queue: self.sink.outbox.fill(),
            queue_events: self.sink.outbox.len() as u64,
            spool: Fill {
                used: load(&self.metrics.spool_bytes),
                limit: self.spool_bytes,
            },
            batches_unspooled: load(&self.metrics.batches_unspooled),
            oldest_waiting_s: self.metrics.oldest_waiting_s(),
            memory: Fill {
                used: limits::anonymous_bytes(),
                limit: self.memory_bytes,
            },
            memory_sheds: self.sheds,
            cpu_ms: u64::try_from(self.cpu.taken().as_millis()).unwrap_or(u64::MAX),
            cpu_percent_limit: self.cpu_percent,
            counters: match counters {
                serde_json::Value::Object(counters) => counters,
                _ => serde_json::Map::new(),
            },
            collector: self.collector(),
        }
    }

    /// The one in use, or the first as long as none was.
    fn collector(&self) -> Option<CollectorStatus> {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let place = load(&self.metrics.collector_in_use).max(1);
        let nth = usize::try_from(place - 1).unwrap_or(usize::MAX);
        Some(CollectorStatus {
            url: self.collectors.get(nth)?.clone(),
            place,
            of: self.collectors.len() as u64,
            connected: load(&self.metrics.connected) == 1,
            connected_s: self.metrics.connected_s(),
            changes: load(&self.metrics.collector_changes),
            batches_waiting: load(&self.metrics.batches_waiting),
            batches_acknowledged: load(&self.metrics.batches_acknowledged),
        })
    }

    fn poolers(&self) -> Vec<PoolerStatus> {
        let poolers = self.witness.poolers().map(|(pid, pooler)| PoolerStatus {
            pid,
            program: pooler.program.clone(),
            encryption: pooler.encryption(),
        });
        let mut poolers: Vec<PoolerStatus> = poolers.collect();
        poolers.sort_by_key(|pooler| pooler.pid);
        poolers
    }

    fn processes_now(&self) -> Vec<ProcessStatus> {
        let mut processes = self.processes.clone();
        if let Some(broker) = processes.first_mut().filter(|_| self.broker.is_late()) {
            broker.role += " (DOES NOT ANSWER: no names, no new servers)";
        }
        processes
    }

    /// Nothing more comes: a pause is over, and what was discarded is told.
    pub(super) fn wind_up(&mut self) {
        if let Some(pause) = self.pause.take() {
            let who = Who {
                uid: nix::unistd::geteuid().as_raw(),
                login: String::new(),
            };
            self.end_pause(&pause, who, "stop".to_owned());
        }
        self.sheds = false;
        self.discard();
        let Self { witness, sink, .. } = self;
        witness.flush_pooled(&mut |event| sink.take(event));
        witness.tell_flows(true, &mut |event| sink.take(event));
        let owes_numbers = witness.flush_volume(&mut |event| sink.take(event));
        let reduced = witness.reduced();
        self.metrics.rolled_up.store(reduced.rolled_up, Ordering::Relaxed);
        if owes_numbers {
            self.beat();
        }
    }
}

/// What this host was found to be, by what was seen of it.
fn role(is_server: bool, is_client: bool) -> &'static str {
    match (is_server, is_client) {
        (true, true) => "server and client",
        (true, false) => "server",
        (false, true) => "client",
        (false, false) => "neither server nor client yet",
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
