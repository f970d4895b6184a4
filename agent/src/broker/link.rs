//! The end of the process that parses: questions to the broker, each with a limit to how long its answer is waited for.
//!
//! Bytes are not held up by it: what waits is a fact, and only for as long as a look at `/proc` may take. Once an answer
//! did not come in time, nothing is waited for any more until it came: names are missing then, and whether a program is a
//! server is decided later ([`Broker::late`]).

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    os::fd::AsFd as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::warn;

use super::{
    channel::{Channel, Received},
    protocol::{Answer, Container, QUESTION_BYTES, Question, Reply, Request, Running},
};
use crate::{
    capture::{KernelCounters, gauge::Skipped},
    facts::{
        old_sockets::{Connection, Held, NotHeld},
        poolers::Pooler,
        servers::Server,
    },
};

/// For what can be done without: a look at `/proc` takes microseconds, and then the broker has to get a processor.
const SHORT: Duration = Duration::from_millis(50);

/// For what takes the broker a walk through all of `/proc` or an attachment. It is about servers that start, and sessions
/// that are older than the agent.
const LONG: Duration = Duration::from_secs(2);

/// For everything that runs: at the start, and after facts were lost.
const ALL: Duration = Duration::from_secs(30);

/// The broker, as it can be asked.
#[derive(Clone, Debug)]
pub struct Broker(Arc<Mutex<Link>>);

#[derive(Debug)]
struct Link {
    channel: Channel,
    /// Number of the newest question.
    asked: u64,
    /// Number of the newest question that was answered in full.
    answered: u64,
    /// Parts of the answer that comes.
    parts: Vec<Answer>,
    /// Processes that may be servers, by the question about them that is open.
    undecided: HashMap<u64, u32>,
    /// What came too late of these.
    late: Vec<(u32, Option<Server>)>,
    /// Why it cannot be gone on.
    lost: Option<String>,
}

/// No answer came in time, or none can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

impl Broker {
    /// At the other end of this channel.
    pub fn new(channel: Channel) -> Self {
        Self(Arc::new(Mutex::new(Link {
            channel,
            asked: 0,
            answered: 0,
            parts: Vec::new(),
            undecided: HashMap::new(),
            late: Vec::new(),
            lost: None,
        })))
    }

    /// Why the agent cannot go on, if it cannot: the broker is gone.
    pub fn lost(&self) -> Option<String> {
        self.link().lost.clone()
    }

    /// Whether an answer is owed for longer than it was waited for.
    pub fn is_late(&self) -> bool {
        let link = self.link();
        link.asked != link.answered
    }

    /// Has all servers tapped that run.
    ///
    /// # Errors
    ///
    /// If the map of tapped processes is full, or no answer came.
    pub fn servers(&self) -> anyhow::Result<Vec<Server>> {
        let answers = self.ask(Request::Servers, ALL);
        let answers = answers.map_err(|NoAnswer| anyhow::anyhow!("the broker does not answer"))?;
        let mut servers = Vec::new();
        for answer in answers {
            match answer {
                Answer::Server(server) => servers.push(server.into()),
                Answer::Problem(problem) => anyhow::bail!("{problem}"),
                _ => {}
            }
        }
        Ok(servers)
    }

    /// Has the processes of tapped servers marked that are not.
    ///
    /// # Errors
    ///
    /// If there is no room for all, or no answer came.
    pub fn mark_all(&self) -> anyhow::Result<()> {
        match self.one(Request::MarkAll, LONG) {
            Ok(Answer::Nothing) => Ok(()),
            Ok(Answer::Problem(problem)) => anyhow::bail!("{problem}"),
            _ => anyhow::bail!("the broker does not answer"),
        }
    }

    /// Has a process tapped if it is a server, and wanted.
    ///
    /// # Errors
    ///
    /// If that is not known yet: [`Self::late`] will tell.
    pub fn server(&self, pid: u32) -> Result<Option<Server>, NoAnswer> {
        let mut link = self.link();
        let patience = if link.asked == link.answered {
            LONG
        } else {
            Duration::ZERO
        };
        let number = link.put(Request::Server { pid })?;
        link.undecided.insert(number, pid);
        let parts = link.collect(number, Instant::now() + patience)?;
        link.undecided.remove(&number);
        Ok(server_in(parts))
    }

    /// Has all poolers followed that run; each with its process id.
    ///
    /// # Errors
    ///
    /// If a map is full, or no answer came.
    pub fn poolers(&self) -> anyhow::Result<Vec<(u32, Pooler)>> {
        let answers = self.ask(Request::Poolers, ALL);
        let answers = answers.map_err(|NoAnswer| anyhow::anyhow!("the broker does not answer"))?;
        let mut poolers = Vec::new();
        for answer in answers {
            match answer {
                Answer::Pooler { pid, program, tls } => poolers.push((pid, Pooler { program, tls })),
                Answer::Problem(problem) => anyhow::bail!("{problem}"),
                _ => {}
            }
        }
        Ok(poolers)
    }

    /// Has a process followed that is named like a pooler, if it is one.
    ///
    /// # Errors
    ///
    /// If no answer came.
    pub fn pooler(&self, pid: u32) -> Result<Option<Pooler>, NoAnswer> {
        match self.one(Request::Pooler { pid }, LONG)? {
            Answer::Pooler { program, tls, .. } => Ok(Some(Pooler { program, tls })),
            _ => Ok(None),
        }
    }

    /// What was not known in time, and is now.
    pub fn late(&self) -> Vec<(u32, Option<Server>)> {
        let mut link = self.link();
        // What is not there yet comes later.
        let _ = link.catch_up(Instant::now());
        std::mem::take(&mut link.late)
    }

    /// A server ended.
    pub fn ended(&self, pid: u32) {
        // Unheard it costs a probe in a file that nobody runs.
        let _ = self.ask(Request::Ended { pid }, SHORT);
    }

    /// What was counted until now; `None` if it is not to be had now.
    pub fn counters(&self) -> Option<(KernelCounters, Skipped)> {
        match self.one(Request::Counters, SHORT) {
            Ok(Answer::Counters {
                values,
                skipped_payload,
                skipped_facts,
            }) => {
                let skipped = Skipped {
                    payload: skipped_payload,
                    facts: skipped_facts,
                };
                Some((KernelCounters::of(&values), skipped))
            }
            _ => None,
        }
    }

    /// Inode number and path of what a process runs.
    pub fn executable(&self, pid: u32) -> Option<(u64, String)> {
        match self.one(Request::Executable { pid }, SHORT) {
            Ok(Answer::Executable { inode, path }) => Some((inode, path)),
            _ => None,
        }
    }

    /// When a process began, in clock ticks since boot, the digest of what it runs, and whether that is a server.
    pub fn program(&self, pid: u32) -> Option<(u64, Option<[u8; 32]>, bool)> {
        match self.one(Request::Program { pid }, SHORT) {
            Ok(Answer::Program {
                start,
                sha256,
                is_server,
            }) => Some((start, sha256, is_server)),
            _ => None,
        }
    }

    /// What a runtime keeps of a container.
    ///
    /// # Errors
    ///
    /// If no answer came.
    pub fn container(&self, id: &str) -> Result<Option<Container>, NoAnswer> {
        match self.one(Request::Container { id: id.to_owned() }, SHORT)? {
            Answer::Container(container) => Ok(Some(container)),
            _ => Ok(None),
        }
    }

    /// All about a process.
    pub fn process(&self, pid: u32) -> Option<Running> {
        match self.one(Request::Process { pid }, SHORT) {
            Ok(Answer::Process(process)) => Some(*process),
            _ => None,
        }
    }

    /// Everything that runs; `None` if that is not to be had.
    pub fn processes(&self) -> Option<Vec<Running>> {
        let answers = self.ask(Request::Processes, ALL).ok()?;
        let processes = answers.into_iter().filter_map(|answer| match answer {
            Answer::Process(process) => Some(*process),
            _ => None,
        });
        Some(processes.collect())
    }

    /// When a process began, in clock ticks since boot, and its title.
    pub fn title(&self, pid: u32) -> Option<(u64, Vec<u8>)> {
        match self.one(Request::Title { pid }, LONG) {
            Ok(Answer::Title { start, title }) => Some((start, title)),
            _ => None,
        }
    }

    /// The titles of a process' children.
    pub fn titles(&self, pid: u32) -> Vec<Vec<u8>> {
        let answers = self.ask(Request::Titles { pid }, LONG).unwrap_or_default();
        let titles = answers.into_iter().filter_map(|answer| match answer {
            Answer::Title { title, .. } => Some(title),
            _ => None,
        });
        titles.collect()
    }

    /// Ports on which somebody listens where a process is.
    pub fn ports(&self, pid: u32) -> Vec<u16> {
        match self.one(Request::Ports { pid }, LONG) {
            Ok(Answer::Ports(ports)) => ports,
            _ => Vec::new(),
        }
    }

    /// Who holds the client's end of a connection.
    ///
    /// # Errors
    ///
    /// Says why there is nobody that can be named.
    pub fn holder(&self, connection: &Connection) -> Result<Held, NotHeld> {
        let request = Request::Holder {
            backend: connection.backend,
            server: connection.server,
            client: connection.client,
        };
        match self.one(request, LONG) {
            Ok(Answer::Holder(holder)) => holder,
            _ => Err(NotHeld::Unclear(
                "who holds its other end was not found out in time".to_owned(),
            )),
        }
    }

    /// The name of a user.
    ///
    /// # Errors
    ///
    /// If no answer came.
    pub fn user(&self, uid: u32) -> Result<Option<String>, NoAnswer> {
        match self.one(Request::User { uid }, SHORT)? {
            Answer::Name(name) => Ok(name),
            _ => Err(NoAnswer),
        }
    }

    /// The audit login that a process goes back to.
    pub fn login(&self, pid: u32) -> Option<u32> {
        match self.one(Request::Login { pid }, SHORT) {
            Ok(Answer::Login(login)) => login,
            _ => None,
        }
    }

    /// The addresses of this host.
    ///
    /// # Errors
    ///
    /// If no answer came.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, NoAnswer> {
        match self.one(Request::Addresses, SHORT)? {
            Answer::Addresses(addresses) => Ok(addresses),
            _ => Err(NoAnswer),
        }
    }

    /// The addresses of the host of the collector at this place in the configuration, from 0, as far as they are known by now.
    ///
    /// # Errors
    ///
    /// If no answer came.
    pub fn collector(&self, nth: usize) -> Result<Vec<IpAddr>, NoAnswer> {
        match self.one(Request::Collector { nth }, SHORT)? {
            Answer::Addresses(addresses) => Ok(addresses),
            _ => Err(NoAnswer),
        }
    }

    fn one(&self, request: Request, patience: Duration) -> Result<Answer, NoAnswer> {
        let parts = self.ask(request, patience)?;
        Ok(parts.into_iter().next().unwrap_or(Answer::Nothing))
    }

    fn ask(&self, request: Request, patience: Duration) -> Result<Vec<Answer>, NoAnswer> {
        self.link().ask(request, patience)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        // Numbers and what came are whole between any two statements that change them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn ask(&mut self, request: Request, patience: Duration) -> Result<Vec<Answer>, NoAnswer> {
        let now = Instant::now();
        let until = now + patience;
        // What the agent cannot go on without is worth waiting for, also behind what was given up.
        self.catch_up(if patience >= ALL { until } else { now })?;
        let number = self.put(request)?;
        self.collect(number, until)
    }

    fn put(&mut self, request: Request) -> Result<u64, NoAnswer> {
        let number = self.asked + 1;
        match self
            .channel
            .send(&Question { number, request }, QUESTION_BYTES, &[])
        {
            Ok(()) => {
                self.asked = number;
                Ok(number)
            }
            // It stands still, and has hundreds of questions before it.
            Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => Err(NoAnswer),
            Err(problem) => Err(self.lose(&format!("the broker cannot be asked: {problem}"))),
        }
    }

    /// Takes what comes until this question is answered.
    fn collect(&mut self, number: u64, until: Instant) -> Result<Vec<Answer>, NoAnswer> {
        while self.answered < number {
            self.receive(Some(number), until)?;
        }
        Ok(std::mem::take(&mut self.parts))
    }

    /// Takes what was given up and has come by then.
    fn catch_up(&mut self, until: Instant) -> Result<(), NoAnswer> {
        while self.answered < self.asked {
            self.receive(None, until)?;
        }
        Ok(())
    }

    fn receive(&mut self, awaited: Option<u64>, until: Instant) -> Result<(), NoAnswer> {
        match self.channel.receive::<Reply>() {
            Ok(Received::Message(reply, _)) => self.take(reply, awaited),
            Ok(Received::Nothing) => return self.wait(until),
            Ok(Received::End) => return Err(self.lose("the broker has ended")),
            Err(problem) => return Err(self.lose(&format!("the broker is not understood: {problem}"))),
        }
        Ok(())
    }

    /// Takes a part of an answer. Of what was given up, only whether a program is a server is kept.
    fn take(&mut self, reply: Reply, awaited: Option<u64>) {
        if reply.answer != Answer::Nothing {
            self.parts.push(reply.answer);
        }
        if !reply.last {
            return;
        }
        self.answered = reply.number;
        if Some(reply.number) != awaited {
            let parts = std::mem::take(&mut self.parts);
            if let Some(pid) = self.undecided.remove(&reply.number) {
                self.late.push((pid, server_in(parts)));
            }
        }
    }

    fn wait(&mut self, until: Instant) -> Result<(), NoAnswer> {
        let left = until.saturating_duration_since(Instant::now());
        if self.lost.is_some() || left.is_zero() {
            return Err(NoAnswer);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(problem) => Err(self.lose(&io::Error::from(problem).to_string())),
        }
    }

    fn lose(&mut self, why: &str) -> NoAnswer {
        if self.lost.is_none() {
            warn!("{why}");
            self.lost = Some(why.to_owned());
        }
        NoAnswer
    }
}

fn server_in(parts: Vec<Answer>) -> Option<Server> {
    parts.into_iter().find_map(|answer| match answer {
        Answer::Server(server) => Some(server.into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
