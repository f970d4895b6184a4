//! Facts and segments in, attributed events out: the pipeline of one host, with the join of who is behind each
//! connection. Single-threaded; knows neither rings nor the network.
//!
//! Order matters in two places. A connection's facts are in the fact ring before its first segment is in the other, so
//! facts are taken whenever a segment of an unknown connection comes. The end of a process is told at once, while its
//! last segments may still wait: ends are held back until the segment ring has been seen empty once more.

mod catalogs;
mod flows;
mod old_sessions;
mod pooled;
mod recognised;
mod volume;

use std::{collections::HashMap, mem, sync::Arc};

use attribution::Host;
use ebpf_abi::{
    CgroupFact, CloseFact, EnvironmentFact, ExecFact, FactKind, OwnerFact, Record as _, SOCKET_MID_STREAM,
    SOCKET_POOLER, SegmentHeader, SocketFact, SocketRole, TaskFact,
};
use proto::v1;
use recording::Record;
use tap_core::{ByCookie, Settings, Tap};

use self::old_sessions::OldSessions;
use crate::{
    broker::{Broker, NoAnswer},
    catalog::looks::Looks,
    clock::{self, Clock},
    facts::{
        cgroups::Cgroups, connections::Connections, flows::Flows, poolers::Pooler, processes::Processes,
        servers::Server, tapped::Tapped,
    },
    record::{self, Encoded, Encoder},
    segment_file::SegmentFile,
};

/// The state of the agent's main loop.
pub struct Witness {
    host: Host,
    boot: String,
    tap: Tap,
    processes: Processes,
    cgroups: Cgroups,
    connections: Connections,
    servers: Tapped,
    /// Processes that pass statements on.
    poolers: HashMap<u32, Pooler>,
    /// Those that load their libraries: when they have, and which.
    loading: Vec<(u64, u32)>,
    broker: Broker,
    /// Processes of which it is not known yet whether they are servers, and the sockets that theirs used meanwhile.
    undecided: HashMap<u32, Vec<SocketFact>>,
    attributions: ByCookie<Arc<v1::Attribution>>,
    encoder: Encoder,
    sessions: u64,
    ends: Vec<End>,
    ends_of_round: Vec<End>,
    clock: Clock,
    malformed: u64,
    recording: Option<SegmentFile>,
    discard: Option<Discard>,
    discarded: [u64; 2],
    /// Segments, and payload bytes in them.
    taken: (u64, u64),
    old: OldSessions,
    flows: Flows,
    flows_skipped: flows::Skipped,
    pooled: pooled::Pooled,
    /// What becomes of events by the policy; `None`: all are told.
    volume: Option<::volume::Volume>,
    /// Who looks at catalogs, if anybody does.
    looks: Option<Looks>,
}

/// Why payload is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// Somebody paused the agent.
    Paused,
    /// The agent is at its limit of memory.
    Memory,
}

impl Discard {
    /// As in the gaps that tell of it.
    fn reason(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Memory => "memory_limit",
        }
    }
}

/// Sockets that are kept for a server that is not known to be one yet: those of some seconds. What is beyond is lost, and
/// its segments are counted as orphans.
const UNDECIDED: usize = 4096;

/// Something is over.
enum End {
    Process { tgid: u32, at: u64 },
    Connection(CloseFact),
}

impl Witness {
    /// Takes down what runs on the host now, and has the processes of its servers marked. `boot` names this boot of it.
    ///
    /// # Errors
    ///
    /// If the map of tapped processes is full.
    pub fn new(
        host: Host,
        boot: &str,
        settings: Settings,
        cgroups: Cgroups,
        run_variables: Vec<String>,
        broker: Broker,
    ) -> anyhow::Result<Self> {
        let mut witness = Self {
            host,
            boot: boot.chars().take(8).collect(),
            tap: Tap::new(settings),
            processes: Processes::new(broker.clone(), run_variables),
            cgroups,
            connections: Connections::new(broker.clone()),
            servers: Tapped::default(),
            poolers: HashMap::new(),
            loading: Vec::new(),
            attributions: ByCookie::default(),
            encoder: Encoder::default(),
            sessions: 0,
            ends: Vec::new(),
            ends_of_round: Vec::new(),
            clock: Clock::now(),
            malformed: 0,
            recording: None,
            discard: None,
            discarded: [0; 2],
            taken: (0, 0),
            undecided: HashMap::new(),
            old: OldSessions::new(broker.clone()),
            flows: Flows::default(),
            flows_skipped: flows::Skipped::default(),
            pooled: pooled::Pooled::new(),
            volume: None,
            looks: None,
            broker,
        };
        witness.processes.inventory(&mut witness.cgroups);
        witness.find_servers()?;
        witness.find_poolers()?;
        Ok(witness)
    }

    /// From here on everything that the pipeline takes is recorded there; what was recorded so far is finished.
    pub fn record_segments(&mut self, to: Option<SegmentFile>) {
        if let Some(mut finished) = mem::replace(&mut self.recording, to) {
            finished.finish();
        }
    }

    /// The servers that are tapped.
    pub fn servers(&self) -> &Tapped {
        &self.servers
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> usize {
        self.tap.open_connections()
    }

    /// Clients that were let in since the start.
    pub fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Segments taken since the start, and payload bytes in them.
    pub fn taken(&self) -> (u64, u64) {
        self.taken
    }

    /// Segments of connections that are not followed.
    pub fn orphans(&self) -> u64 {
        self.tap.orphans()
    }

    /// Sessions' bytes that were not the protocol.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Discards payload from here on, or no longer. Facts are taken all the time. What was discarded is told when it ends.
    pub fn discard(&mut self, why: Option<Discard>, out: &mut impl FnMut(&Encoded)) {
        if self.discard != why {
            self.discard = why;
            self.tap.tell_discarded();
            self.emit(out);
            // What was captured before is told before.
            self.flush_pooled(out);
            self.flush_volume(out);
            self.tell_skipped_flows(out);
        }
    }

    /// Memory is short: what can be made anew is forgotten.
    pub fn forget(&mut self) {
        self.tap.forget();
        self.encoder.forget_statements();
        self.pooled.forget();
    }

    /// Payload bytes discarded since the start.
    pub fn discarded(&self, why: Discard) -> u64 {
        self.discarded.get(why as usize).copied().unwrap_or(0)
    }

    /// The kernel skipped some between these times: what it does not count itself is in doubt.
    pub fn doubt(&mut self, since: u64, at: u64, out: &mut impl FnMut(&Encoded)) {
        self.tap.handle_doubt(since, at);
        self.emit(out);
    }

    /// Whether a segment belongs to a connection that was announced.
    pub fn knows(&self, segment: &[u8]) -> bool {
        SegmentHeader::read(segment).is_some_and(|header| self.tap.session(header.cookie).is_some())
    }

    /// Takes a fact.
    pub fn fact(&mut self, bytes: &[u8]) {
        // A record that is too short or of no known kind cannot be: both sides are built from one crate.
        let _ = self.try_fact(bytes);
    }

    fn try_fact(&mut self, bytes: &[u8]) -> Option<()> {
        match FactKind::of(bytes)? {
            FactKind::Fork => self.processes.forked(&TaskFact::read(bytes)?, &mut self.cgroups),
            FactKind::Exec => {
                let exec = ExecFact::read(bytes)?;
                self.processes.executed(&exec, &mut self.cgroups);
                self.consider(exec.task.tgid, &exec.task.comm);
                self.no_pooler(exec.task.tgid);
                if exec.is_pooler != 0 {
                    self.pooler_began(exec.task.tgid, exec.task.at);
                }
            }
            FactKind::Exit => {
                let task = TaskFact::read(bytes)?;
                self.processes.exited(&task);
                self.ends_of_round.push(End::Process {
                    tgid: task.tgid,
                    at: task.at,
                });
            }
            FactKind::Owner => {
                let owner = OwnerFact::read(bytes)?;
                let process = self.processes.find(owner.tgid, owner.start);
                self.connections.opened_by(&owner, process);
            }
            FactKind::Socket => self.socket(&SocketFact::read(bytes)?),
            FactKind::Close => self.ends_of_round.push(End::Connection(CloseFact::read(bytes)?)),
            FactKind::Cgroup => {
                let cgroup = CgroupFact::read(bytes)?;
                let path = cgroup.path.get(..cgroup.path_length as usize)?;
                self.cgroups
                    .made(cgroup.id, String::from_utf8_lossy(path).into_owned());
            }
            FactKind::Environment => {
                let fact = EnvironmentFact::read(bytes)?;
                let variables = bytes.get(size_of::<EnvironmentFact>()..)?;
                let variables = variables.get(..fact.length as usize)?;
                self.processes.started_with(&fact, variables);
            }
            FactKind::Flow => self.flow(&OwnerFact::read(bytes)?),
        }
        Some(())
    }

    /// Takes a segment; events come out.
    pub fn segment(&mut self, bytes: &[u8], out: &mut impl FnMut(&Encoded)) {
        let Some(header) = SegmentHeader::read(bytes) else {
            return;
        };
        let payload = bytes.get(size_of::<SegmentHeader>()..).unwrap_or_default();
        let payload = payload.get(..header.length as usize).unwrap_or(payload);
        self.taken.0 += 1;
        self.taken.1 += payload.len() as u64;
        if let Some(why) = self.discard {
            if let Some(sum) = self.discarded.get_mut(why as usize) {
                *sum += payload.len() as u64;
            }
            return self
                .tap
                .handle_discarded(&header, payload.len() as u64, why.reason());
        }
        if let Some(recording) = &mut self.recording
            && self.tap.session(header.cookie).is_some()
        {
            recording.write(&Record::Segment(header, payload));
        }
        self.tap.handle_segment(&header, payload);
        self.emit(out);
    }

    /// A round begins: whatever ends were told in the last one may take effect at the end of this one.
    pub fn begin_round(&mut self) {
        self.ends.append(&mut self.ends_of_round);
        if !self.undecided.is_empty() {
            for (pid, server) in self.broker.late() {
                self.decided(pid, server);
            }
        }
        self.clock = Clock::now();
        if let Some(recording) = &mut self.recording {
            recording.begin_round(&self.boot, self.clock);
        }
        let now = clock::boot_ns();
        self.old.round_began = now;
        self.tap.handle_time(now);
        self.look_at_loaded(now);
    }

    /// The segment ring was seen empty in this round: what ended before it began is over.
    pub fn end_round(&mut self, out: &mut impl FnMut(&Encoded)) {
        for end in mem::take(&mut self.ends) {
            match end {
                End::Process { tgid, at } => {
                    self.write(&Record::Exit { tgid, at });
                    self.tap.handle_exit(tgid, at);
                    self.emit(out);
                    self.process_ended(tgid, at, out);
                    self.pooled.exited(tgid);
                    self.catalog_process_ended(tgid);
                    self.server_ended(tgid);
                    self.no_pooler(tgid);
                }
                End::Connection(close) => {
                    if self.tap.session(close.cookie).is_some() {
                        self.write(&Record::Close(close));
                    }
                    self.tap.handle_close(&close);
                    self.pooled.closed(close.cookie);
                }
            }
            self.emit(out);
        }
    }

    fn emit(&mut self, out: &mut impl FnMut(&Encoded)) {
        while let Some(event) = self.tap.poll() {
            if self.looks.as_mut().is_some_and(|looks| looks.leaves_out(&event)) {
                continue;
            }
            if matches!(&event.body, tap_core::Body::Gap(gap) if gap.reason == "malformed") {
                self.malformed += 1;
            }
            if matches!(event.body, tap_core::Body::SessionOpen) {
                self.sessions += 1;
            }
            self.take(event, out);
        }
        for cookie in self.tap.take_closed() {
            if self.pooled.holds(cookie) {
                self.pooled.over_later(cookie);
            } else {
                self.session_over(cookie, out);
            }
        }
    }

    /// Tells an event of a session, and who is behind it.
    fn tell_now(
        &mut self,
        event: &tap_core::Event,
        attribution: Option<&Arc<v1::Attribution>>,
        out: &mut impl FnMut(&Encoded),
    ) {
        match self.why_opaque(event) {
            None => out(self.encoder.encode(event, attribution, self.clock, &self.boot)),
            Some(why) => {
                let attribution = attribution.map(AsRef::as_ref);
                let mut told = record::event(event, attribution, self.clock, &self.boot);
                if let Some(v1::event::Body::OpaqueSession(opaque)) = &mut told.body {
                    opaque.reason = format!("{}: {why}", opaque.reason);
                }
                out(&Encoded::of(&told));
            }
        }
    }

    /// A connection is over, and all of it is told.
    fn session_over(&mut self, cookie: u64, out: &mut impl FnMut(&Encoded)) {
        self.reduced_session_over(cookie, out);
        self.attributions.remove(&cookie);
        if let Some(looks) = &mut self.looks {
            looks.closed(cookie);
        }
        self.encoder.forget(cookie);
        self.pooled.session_over(cookie);
        self.connection_ended(cookie);
    }

    /// Why the server of a session that cannot be read is not probed, where that is the reason.
    fn why_opaque(&self, event: &tap_core::Event) -> Option<&str> {
        let tap_core::Body::Opaque { kind, .. } = &event.body else {
            return None;
        };
        let server = self.servers.get(event.session.server_pid)?;
        server.readable.why_not((*kind).into()).as_deref()
    }

    fn write(&mut self, record: &Record<'_>) {
        if let Some(recording) = &mut self.recording {
            recording.write(record);
        }
    }

    /// Has the servers tapped that run already.
    fn find_servers(&mut self) -> anyhow::Result<()> {
        for server in self.broker.servers()? {
            self.decided(server.pid, Some(server));
        }
        Ok(())
    }

    fn server_ended(&mut self, pid: u32) {
        self.undecided.remove(&pid);
        if self.servers.remove(pid) {
            self.tap.drop_server(pid);
            self.broker.ended(pid);
        }
    }

    /// The kernel side marks by name; the broker looks at the executable itself.
    fn consider(&mut self, pid: u32, comm: &[u8]) {
        let named_like_one = comm.starts_with(b"postgres\0") || comm.starts_with(b"postmaster\0");
        if !named_like_one {
            return self.server_ended(pid);
        }
        match self.broker.server(pid) {
            Ok(server) => self.decided(pid, server),
            Err(NoAnswer) => {
                self.undecided.entry(pid).or_default();
            }
        }
    }

    /// It is known now whether a process is a server.
    fn decided(&mut self, pid: u32, server: Option<Server>) {
        match server {
            Some(server) => self.servers.insert(server),
            None => {
                self.servers.remove(pid);
            }
        }
        for fact in self.undecided.remove(&pid).unwrap_or_default() {
            self.socket(&fact);
        }
    }

    fn socket(&mut self, fact: &SocketFact) {
        if fact.flags & SOCKET_POOLER != 0 {
            if self.is_pooler(fact) {
                self.pooler_socket(fact);
            }
            return;
        }
        if !self.servers.contains(fact.server) {
            let waiting: usize = self.undecided.values().map(Vec::len).sum();
            if let Some(kept) = self.undecided.get_mut(&fact.server)
                && waiting < UNDECIDED
            {
                kept.push(*fact);
            }
            return;
        }
        // The role belongs to the socket, never to the process: a backend can be a client of another server.
        let accepted = match fact.role {
            role if role == SocketRole::Accepted as u8 => true,
            role if role == SocketRole::Unknown as u8 => self.was_accepted(fact),
            _ => false,
        };
        if !accepted {
            return;
        }
        self.write(&Record::Socket(*fact));
        let is_new = self.tap.session(fact.cookie).is_none();
        self.tap.handle_socket(fact);
        let named_before = is_new && fact.flags & SOCKET_MID_STREAM != 0 && self.find_older(fact);
        let Some(session) = self.tap.session(fact.cookie) else {
            return;
        };
        let session = session.clone();
        let peer = self.peer_of(fact, &session);
        if let Some(fingerprint) = fact.fingerprint() {
            self.flows.met(fingerprint, fact.at);
        }
        self.keep_owner(fact.cookie, &peer);
        if let Some(looks) = &mut self.looks {
            looks.accepted(fact.cookie, &peer);
        }
        let mut answer = attribution::attribute(&self.host, &peer);
        if named_before {
            answer.evidence.push(attribution::Fact::FormerRun);
        }
        self.pooled.accepted(fact, &answer, self.old.round_began);
        self.attributions
            .insert(fact.cookie, Arc::new(record::attribution(&answer)));
    }
}
