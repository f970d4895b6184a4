//! What the agent counts, for Prometheus and for the heartbeats in the record.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use axum::{Router, routing::get};
use ebpf_abi::Counter as Reason;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use proto::v1;

use crate::{capture::KernelCounters, ship::Outbox};

/// Values that the main loop and delivery keep up to date.
#[derive(Debug, Default)]
pub struct Metrics {
    kernel: [AtomicU64; ebpf_abi::REASON_COUNTERS as usize],
    /// Sessions that are open.
    pub sessions_open: AtomicU64,
    /// Sessions opened since the start.
    pub sessions: AtomicU64,
    /// Servers that are tapped.
    pub servers: AtomicU64,
    /// Segments of connections that are not followed: of servers that are not wanted, or with their fact lost.
    pub orphans: AtomicU64,
    /// Bytes of sessions that were not the protocol, by occurrences.
    pub malformed: AtomicU64,
    /// Events recorded.
    pub events: AtomicU64,
    /// Events dropped because the queue was full.
    pub queue_dropped: AtomicU64,
    /// Events that wait for delivery.
    pub queue_events: AtomicU64,
    /// Batches that wait for their acknowledgement.
    pub batches_waiting: AtomicU64,
    /// Batches acknowledged.
    pub batches_acknowledged: AtomicU64,
    /// Batches of those that are in memory alone, because the spool did not take them.
    pub batches_unspooled: AtomicU64,
    /// Bytes of the spool's files.
    pub spool_bytes: AtomicU64,
    /// Times that the spool began to refuse batches.
    pub spool_refused: AtomicU64,
    /// When the oldest batch that waits was sealed, in seconds since the Unix epoch; 0 if none waits.
    pub oldest_waiting_unix_s: AtomicU64,
    /// Events of batches that were given up because the spool was full.
    pub spool_dropped: AtomicU64,
    /// 1 while a collector is connected.
    pub connected: AtomicU64,
    /// Place in the list, from 1, of the collector that was connected last; 0 if none was.
    pub collector_in_use: AtomicU64,
    /// Since when, in seconds since the Unix epoch.
    pub collector_since_unix_s: AtomicU64,
    /// Times that another one was connected than before.
    pub collector_changes: AtomicU64,
    /// 1 while the agent is paused.
    pub paused: AtomicU64,
    /// Segments taken from the ring.
    pub segments: AtomicU64,
    /// Payload bytes in them.
    pub bytes: AtomicU64,
    /// Poolers that are followed.
    pub poolers: AtomicU64,
    /// Calls of poolers on their sockets taken from their ring.
    pub transfers: AtomicU64,
    /// Payload bytes discarded by pauses.
    pub paused_bytes: AtomicU64,
    /// Payload bytes discarded at the limit of memory.
    pub memory_limit_bytes: AtomicU64,
    /// Anonymous memory of this process in bytes.
    pub memory_bytes: AtomicU64,
    /// Nanoseconds that the main loop rested because of the limit on processor time.
    pub rested_ns: AtomicU64,
    /// Runs of the tap's programs that the kernel skipped.
    pub program_missed: AtomicU64,
    /// Connections to servers elsewhere that were told.
    pub flows: AtomicU64,
    /// Those that were not, because too many waited.
    pub flows_full: AtomicU64,
    /// Statements that the volume policy left out.
    pub left_out: AtomicU64,
    /// Statements told in roll-ups.
    pub rolled_up: AtomicU64,
    /// Changed policy files that could not be used.
    pub policy_refused: AtomicU64,
}

impl Metrics {
    /// Takes over the kernel side's counters.
    pub fn kernel(&self, counters: &KernelCounters) {
        for (index, value) in self.kernel.iter().enumerate() {
            value.store(counters.at(index), Ordering::Relaxed);
        }
    }

    /// Takes over the queue's counters.
    pub fn queue(&self, outbox: &Outbox) {
        let (accepted, dropped) = outbox.totals();
        self.events.store(accepted, Ordering::Relaxed);
        self.queue_dropped.store(dropped, Ordering::Relaxed);
        self.queue_events.store(outbox.len() as u64, Ordering::Relaxed);
    }

    /// A collector is connected, by its place in the list from 0.
    pub fn uses(&self, nth: usize) {
        let place = nth as u64 + 1;
        let before = self.collector_in_use.swap(place, Ordering::Relaxed);
        if before != 0 && before != place {
            self.collector_changes.fetch_add(1, Ordering::Relaxed);
        }
        self.collector_since_unix_s.store(unix_s(), Ordering::Relaxed);
        self.connected.store(1, Ordering::Relaxed);
    }

    /// Seconds for which the collector that is connected has been; 0 if none is.
    pub fn connected_s(&self) -> u64 {
        match self.connected.load(Ordering::Relaxed) {
            0 => 0,
            _ => unix_s().saturating_sub(self.collector_since_unix_s.load(Ordering::Relaxed)),
        }
    }

    /// Seconds that the oldest batch waits for its acknowledgement, by the host's clock.
    pub fn oldest_waiting_s(&self) -> u64 {
        match self.oldest_waiting_unix_s.load(Ordering::Relaxed) {
            0 => 0,
            since => unix_s().saturating_sub(since),
        }
    }

    /// The counters that go into heartbeats and batch headers.
    pub fn counters(&self) -> v1::Counters {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let kernel = |reason: Reason| self.kernel.get(reason as usize).map_or(0, load);
        v1::Counters {
            segments: load(&self.segments),
            bytes: load(&self.bytes),
            events: load(&self.events),
            sessions: load(&self.sessions),
            ring_full: kernel(Reason::RingFull),
            copy_fault: kernel(Reason::CopyFault),
            unsupported_call: kernel(Reason::UnsupportedCall),
            facts_lost: kernel(Reason::FactsLost),
            malformed: load(&self.malformed),
            queue_dropped: load(&self.queue_dropped),
            targets_full: kernel(Reason::TargetsFull),
            program_missed: load(&self.program_missed),
            probe_missed: kernel(Reason::ProbeMissed),
            call_cap: kernel(Reason::CallCap),
            paused_bytes: load(&self.paused_bytes),
            memory_limit_bytes: load(&self.memory_limit_bytes),
            owners_full: kernel(Reason::OwnersFull),
            flows_full: load(&self.flows_full),
            ring_full_bytes: kernel(Reason::RingFullBytes),
            plaintext_unplaced: kernel(Reason::PlaintextUnplaced),
            transfers_lost: kernel(Reason::TransfersLost),
            left_out: load(&self.left_out),
            rolled_up: load(&self.rolled_up),
            policy_refused: load(&self.policy_refused),
            spool_dropped: load(&self.spool_dropped),
        }
    }

    /// The text form of Prometheus.
    pub fn encode(&self) -> String {
        let counters = self.counters();
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let mut registry = Registry::with_prefix("pgwitness_agent");
        let rising = [
            ("segments", "Segments taken from the kernel", counters.segments),
            ("captured_bytes", "Plaintext bytes captured", counters.bytes),
            ("events", "Events recorded", counters.events),
            ("sessions", "Sessions opened", counters.sessions),
            (
                "left_out",
                "Statements that the volume policy left out",
                counters.left_out,
            ),
            ("rolled_up", "Statements told in roll-ups", counters.rolled_up),
            (
                "policy_refused",
                "Changed volume policies that could not be used",
                counters.policy_refused,
            ),
            (
                "ring_full",
                "Segments lost because the ring was full",
                counters.ring_full,
            ),
            (
                "copy_fault",
                "Payloads that could not be copied",
                counters.copy_fault,
            ),
            (
                "unsupported_call",
                "Calls whose buffer could not be proven",
                counters.unsupported_call,
            ),
            (
                "call_cap",
                "Calls that moved more than one call may hand over",
                counters.call_cap,
            ),
            (
                "ring_full_bytes",
                "Payload bytes lost because the ring was full",
                counters.ring_full_bytes,
            ),
            (
                "targets_full",
                "Processes of servers that could not be marked",
                counters.targets_full,
            ),
            (
                "owners_full",
                "Connecting sockets whose owner could not be kept",
                counters.owners_full,
            ),
            (
                "flows",
                "Connections to servers elsewhere told",
                load(&self.flows),
            ),
            (
                "flows_full",
                "Connections to servers elsewhere not told because too many waited",
                counters.flows_full,
            ),
            (
                "program_missed",
                "Runs of the tap's programs that the kernel skipped",
                counters.program_missed,
            ),
            (
                "probe_missed",
                "Times that encrypted bytes passed and no plaintext was seen",
                counters.probe_missed,
            ),
            (
                "plaintext_unplaced",
                "Calls of encryption functions whose connection is not known",
                counters.plaintext_unplaced,
            ),
            (
                "transfers",
                "Calls of poolers on their sockets",
                load(&self.transfers),
            ),
            (
                "transfers_lost",
                "Calls of poolers on their sockets that could not be told",
                counters.transfers_lost,
            ),
            (
                "paused_bytes",
                "Payload bytes discarded because the agent was paused",
                counters.paused_bytes,
            ),
            (
                "memory_limit_bytes",
                "Payload bytes discarded at the limit of memory",
                counters.memory_limit_bytes,
            ),
            (
                "rested_nanoseconds",
                "Time that the main loop rested because of limits.cpu_percent",
                load(&self.rested_ns),
            ),
            (
                "facts_lost",
                "Facts about processes and sockets that were lost",
                counters.facts_lost,
            ),
            (
                "malformed",
                "Places where a session was not the protocol",
                counters.malformed,
            ),
            (
                "segments_not_followed",
                "Segments of servers that are not wanted, or of connections whose fact was lost",
                load(&self.orphans),
            ),
            (
                "queue_dropped",
                "Events dropped because the collector was away too long",
                counters.queue_dropped,
            ),
            (
                "batches_acknowledged",
                "Batches that the collector made durable",
                load(&self.batches_acknowledged),
            ),
            (
                "spool_refused",
                "Times that the spool began to refuse batches: it or the disk is full",
                load(&self.spool_refused),
            ),
            (
                "spool_dropped",
                "Events of batches that were given up because the spool was full",
                counters.spool_dropped,
            ),
            (
                "collector_changes",
                "Times that another collector was connected than before",
                load(&self.collector_changes),
            ),
        ];
        for (name, help, value) in rising {
            registry.register(name, help, ConstCounter::new(value));
        }
        let oldest_waiting = AtomicU64::new(self.oldest_waiting_s());
        let connected_for = AtomicU64::new(self.connected_s());
        let standing = [
            ("sessions_open", "Sessions open now", &self.sessions_open),
            ("servers", "PostgreSQL servers tapped", &self.servers),
            ("poolers", "Processes of poolers followed", &self.poolers),
            (
                "queue_events",
                "Events that wait for delivery",
                &self.queue_events,
            ),
            (
                "batches_waiting",
                "Batches without acknowledgement",
                &self.batches_waiting,
            ),
            (
                "batches_unspooled",
                "Batches without acknowledgement that are in memory alone",
                &self.batches_unspooled,
            ),
            (
                "spool_bytes",
                "Bytes of batches on disk, acknowledged ones that are not removed yet included",
                &self.spool_bytes,
            ),
            (
                "oldest_waiting_seconds",
                "Seconds since the oldest batch without acknowledgement was sealed",
                &oldest_waiting,
            ),
            (
                "collector_connected",
                "1 while a collector is connected",
                &self.connected,
            ),
            (
                "collector_in_use",
                "Place in delivery.collectors, from 1, of the collector that was connected last",
                &self.collector_in_use,
            ),
            (
                "collector_connected_seconds",
                "Seconds for which the collector has been connected",
                &connected_for,
            ),
            ("paused", "1 while the agent is paused", &self.paused),
            (
                "memory_bytes",
                "Anonymous memory of the agent",
                &self.memory_bytes,
            ),
        ];
        for (name, help, value) in standing {
            registry.register(
                name,
                help,
                ConstGauge::new(i64::try_from(load(value)).unwrap_or(i64::MAX)),
            );
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

/// The host's clock, in seconds since the Unix epoch: for people.
pub fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Opens the place where metrics are served.
///
/// # Errors
///
/// If the address is taken.
pub fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot serve metrics on {address}: give another address with --metrics, or none")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves `/metrics`.
///
/// # Errors
///
/// If the runtime cannot take the socket.
pub fn serve(listener: TcpListener, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tracing::info!("metrics at http://{}/metrics", listener.local_addr()?);
    let router = Router::new().route("/metrics", get(move || async move { metrics.encode() }));
    tokio::spawn(async move {
        if let Err(problem) = axum::serve(listener, router).await {
            tracing::error!("metrics are no longer served: {problem}");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_names_every_counter() {
        let metrics = Metrics::default();
        metrics.sessions.store(7, Ordering::Relaxed);
        let text = metrics.encode();
        assert!(text.contains("pgwitness_agent_sessions_total 7"), "{text}");
        assert!(text.contains("pgwitness_agent_ring_full_total 0"), "{text}");
    }
}
