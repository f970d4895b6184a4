//! The broker's answers: what only the privileged can do or see, done for the one question that was asked.
//!
//! Owns the maps, the probes and the list of servers. Whatever is asked, servers are found, believed and chosen here, by
//! their executables and by the settings, so that a question can have nothing tapped that would not be tapped anyway.

use ebpf_abi::{Counter, TARGET_PROBED_TLS};

use super::{
    containers,
    digests::Digests,
    hosts::Hosts,
    look,
    names::Names,
    protocol::{Answer, Request, Server},
};
use crate::{
    capture::{Counters, Probes, Targets},
    facts::{
        container,
        old_sockets::{Connection, OldSockets, sockets_of},
        poolers::Poolers,
        servers::{Servers, Wanted},
    },
};

/// What the broker answers with.
pub(super) struct Answers {
    targets: Targets,
    counters: Counters,
    probes: Probes,
    servers: Servers,
    poolers: Poolers,
    old_sockets: OldSockets,
    names: Names,
    digests: Digests,
    hosts: Option<Hosts>,
    /// Whether servers were looked for before.
    looked: bool,
}

impl Answers {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, with what each answer takes"
    )]
    pub(super) fn new(
        targets: Targets,
        counters: Counters,
        probes: Probes,
        wanted: Wanted,
        poolers: Poolers,
        names: Names,
        digests: Digests,
        hosts: Option<Hosts>,
    ) -> Self {
        Self {
            targets,
            counters,
            probes,
            servers: Servers::new(wanted),
            poolers,
            old_sockets: OldSockets::default(),
            names,
            digests,
            hosts,
            looked: false,
        }
    }

    /// The parts of an answer.
    pub(super) fn to(&mut self, request: &Request) -> Vec<Answer> {
        if let Some(seen) = seen(request) {
            return seen;
        }
        match *request {
            Request::Servers => match self.find_servers() {
                Ok(()) => self.tapped(),
                Err(problem) => vec![Answer::Problem(problem.to_string())],
            },
            Request::MarkAll => match self.mark_all() {
                Ok(()) => Vec::new(),
                Err(problem) => vec![Answer::Problem(problem.to_string())],
            },
            Request::Server { pid } => self.server(pid).into_iter().collect(),
            Request::Poolers => match self.find_poolers() {
                Ok(followed) => followed,
                Err(problem) => vec![Answer::Problem(problem.to_string())],
            },
            Request::Pooler { pid } => self.pooler(pid).into_iter().collect(),
            Request::Counters => vec![self.counters()],
            Request::Holder {
                backend,
                server,
                client,
            } => {
                let connection = Connection {
                    backend,
                    server,
                    client,
                };
                vec![Answer::Holder(self.old_sockets.holder(&connection))]
            }
            Request::Ended { pid } => {
                self.ended(pid);
                Vec::new()
            }
            Request::Collector { nth } => {
                let found = self.hosts.as_mut().map(|hosts| hosts.addresses(nth));
                vec![Answer::Addresses(found.unwrap_or_default())]
            }
            Request::Program { pid } => self.program(pid).into_iter().collect(),
            Request::User { uid } => self.names.of(uid).map(Answer::Name).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn tapped(&self) -> Vec<Answer> {
        let servers = self.servers.tapped();
        servers
            .map(|server| Answer::Server(Server::from(server)))
            .collect()
    }

    /// Marks the processes of servers that run already.
    fn find_servers(&mut self) -> Result<(), aya::maps::MapError> {
        let again = std::mem::replace(&mut self.looked, true);
        if !again {
            // Before the servers: what a backend is seen to read, its pooler has to be seen to send.
            self.mark_poolers()?;
        }
        for (server, family) in self.servers.running() {
            if self.servers.is_tapped(server.pid) || !self.servers.consider(server.pid) {
                continue;
            }
            let probed = self.probe(server.pid);
            // The postmaster first: what it forks from here on the kernel side marks by itself.
            self.targets.mark(server.pid, server.pid, probed)?;
            self.targets.probed(server.pid, probed);
            // One that was not noticed when it started may have sessions whose first bytes went by.
            let of_family = if again { 0 } else { probed };
            for pid in family {
                self.targets.mark(pid, server.pid, of_family)?;
            }
        }
        // Whoever was forked in between is found by looking again until nothing is new; marks are never overwritten.
        for (server, family) in self.servers.running() {
            if self.servers.is_tapped(server.pid) {
                for pid in family {
                    self.targets.mark(pid, server.pid, 0)?;
                }
            }
        }
        Ok(())
    }

    /// Marks the processes of tapped servers that are not.
    fn mark_all(&mut self) -> Result<(), aya::maps::MapError> {
        self.mark_poolers()?;
        // Twice, for what an unmarked postmaster forks meanwhile.
        for _ in 0..2 {
            for (server, family) in self.servers.running() {
                let Some(tapped) = self.servers.get(server.pid) else {
                    continue;
                };
                let probed = tapped.readable.flags();
                self.targets.mark(server.pid, server.pid, probed)?;
                for pid in family {
                    self.targets.mark(pid, server.pid, probed)?;
                }
            }
        }
        Ok(())
    }

    /// The kernel side marks by name; here the executable itself is looked at.
    fn server(&mut self, pid: u32) -> Option<Answer> {
        if !self.servers.consider(pid) {
            self.targets.unmark_server(pid);
            return None;
        }
        let probed = self.probe(pid);
        self.targets.probed(pid, probed);
        self.servers
            .get(pid)
            .map(|server| Answer::Server(Server::from(server)))
    }

    /// Marks the processes of poolers that run already.
    fn find_poolers(&mut self) -> Result<Vec<Answer>, aya::maps::MapError> {
        self.mark_poolers()?;
        let running = self.poolers.running().into_iter();
        Ok(running.filter_map(|pid| self.pooler(pid)).collect())
    }

    fn mark_poolers(&mut self) -> Result<(), aya::maps::MapError> {
        // Twice, for what an unmarked one forks meanwhile; marks are never overwritten.
        for _ in 0..2 {
            for pid in self.poolers.running() {
                self.targets.mark_pooler(pid, || sockets_of(pid))?;
            }
        }
        Ok(())
    }

    /// As with servers: marked by the kernel side, looked at here.
    fn pooler(&mut self, pid: u32) -> Option<Answer> {
        let Some(program) = self.poolers.program(pid) else {
            self.targets.unmark_server(pid);
            return None;
        };
        let tls = self.probes.attach_pooler(pid);
        if tls.is_none() {
            self.targets.probed(pid, TARGET_PROBED_TLS);
        }
        Some(Answer::Pooler { pid, program, tls })
    }

    /// Puts the probes into a server's executable. Returns the flags of what of its encryption is read from now on.
    fn probe(&mut self, server: u32) -> u32 {
        let readable = self.probes.attach(server);
        let flags = readable.flags();
        self.servers.readable(server, readable);
        flags
    }

    fn program(&mut self, pid: u32) -> Option<Answer> {
        let start = look::start(pid)?;
        // Before the digest, which is waited for: of a process that ends meanwhile nobody can say any more that it is a server, and with a
        // digest it would be taken for a program that only has a server's name.
        let is_server = self.servers.runs(pid);
        let sha256 = self.digests.of(pid);
        // Unchanged, so it was this process all the time; also if it has ended and its parent has not noticed yet.
        (look::start(pid)? == start).then_some(Answer::Program {
            start,
            sha256,
            is_server,
        })
    }

    /// Only if it is true.
    fn ended(&mut self, pid: u32) {
        if self.servers.is_tapped(pid) && !self.servers.runs(pid) {
            self.probes.ended(pid);
            self.servers.ended(pid);
        }
        if self.poolers.program(pid).is_none() {
            self.probes.pooler_ended(pid);
        }
    }

    fn counters(&self) -> Answer {
        // In this order: what was taken in place of a skipped run is counted behind it.
        let skipped = self.probes.skipped();
        let counted = self.counters.read();
        let taken = counted.at(Counter::TakenByOther as usize);
        Answer::Counters {
            values: counted.values().to_vec(),
            skipped_payload: skipped.payload,
            skipped_facts: skipped.facts.saturating_sub(taken),
        }
    }
}

/// The parts of an answer that only takes a look; `None` if it takes more.
pub(super) fn seen(request: &Request) -> Option<Vec<Answer>> {
    let some = |answer: Option<Answer>| answer.into_iter().collect();
    Some(match *request {
        Request::Executable { pid } => {
            some(look::executable(pid).map(|(inode, path)| Answer::Executable { inode, path }))
        }
        Request::Container { ref id } => {
            some(containers::container(container::root(), id).map(Answer::Container))
        }
        Request::Process { pid } => some(look::process(pid).map(Box::new).map(Answer::Process)),
        Request::Processes => look::processes()
            .map(|process| Answer::Process(Box::new(process)))
            .collect(),
        Request::Title { pid } => some(look::title(pid)),
        Request::Titles { pid } => look::titles(pid),
        Request::Ports { pid } => vec![Answer::Ports(look::listening_ports(pid))],
        Request::Login { pid } => vec![Answer::Login(look::login(pid))],
        Request::Addresses => vec![Answer::Addresses(look::addresses().unwrap_or_default())],
        Request::Program { .. }
        | Request::Servers
        | Request::MarkAll
        | Request::Server { .. }
        | Request::Poolers
        | Request::Pooler { .. }
        | Request::Ended { .. }
        | Request::Counters
        | Request::Collector { .. }
        | Request::User { .. }
        | Request::Holder { .. } => return None,
    })
}
