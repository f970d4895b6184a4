//! The broker at work: it starts the process that parses, gives up what it does not need itself, and then does nothing but
//! answer, hand on signals, and end with the other.
//!
//! One thread, and one for users' names. It never reads a byte of what is captured.

use std::{
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use tracing::error;

use super::{
    answers::Answers,
    channel::{Channel, Received},
    digests::Digests,
    hosts::Hosts,
    names::Names,
    protocol::{ANSWER_BYTES, Answer, QUESTION_BYTES, Question, Reply, Request, Start},
};
use crate::{
    capture::{Tap, heap},
    catalog::{
        process::CATALOG,
        protocol::{ASK_BYTES, START_BYTES, Start as CatalogStart},
    },
    confine,
    facts::{poolers::Poolers, servers::Wanted},
    privilege,
    trust::Place,
};

/// The hidden command of the process that parses.
pub const PARSER: &str = "parser";

/// How long the process that parses may take to end once nobody hears it any more.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// Starts the process that parses and serves it until it ends. `start` lacks what only is known here.
///
/// # Errors
///
/// If it cannot be started, ends by a signal, or says what it never would.
pub fn run(mut start: Start, tap: Tap, wanted: Wanted, poolers: Poolers) -> anyhow::Result<ExitCode> {
    let Tap {
        tier: _,
        segments,
        facts,
        transfers,
        targets,
        counters,
        probes,
    } = tap;
    let signals = Signals::take()?;
    let (channel, theirs) = Channel::pair(QUESTION_BYTES).context("cannot make a pair of sockets")?;
    // The very program that this is, whatever stands at its path by now. A new program rather than a fork: no memory of
    // this process is in that one.
    let child = Command::new("/proc/self/exe")
        .arg0("pgwitness-agent")
        .arg(PARSER)
        .stdin(Stdio::from(theirs))
        .spawn()
        .context("cannot start the process that parses")?;
    start.broker = std::process::id();
    let looking = catalog(&start)?;
    let (catalog, looks) = looking.unzip();
    let mut parser = Parser { child, catalog };
    let kept = privilege::kept(probes.take_admin());
    start.broker_holds = kept.iter().map(|name| (*name).to_owned()).collect();
    start.catalog = parser.catalog.as_ref().map(Child::id);
    let rings = [segments.as_fd(), facts.as_fd(), transfers.as_fd()];
    let handed: Vec<BorrowedFd<'_>> = rings.into_iter().chain(looks.as_ref().map(AsFd::as_fd)).collect();
    channel
        .send(&start, ANSWER_BYTES, &handed)
        .context("cannot hand over to the process that parses (is the configuration longer than 128 KiB?)")?;
    // From here on they are its own.
    drop((segments, facts, transfers, looks));
    confine::broker(&kept)?;
    // Reading the kernel's types took some 100 MiB for a moment.
    heap::trim();
    let mut answers = Answers::new(
        targets,
        counters,
        probes,
        wanted,
        poolers,
        Names::start()?,
        Digests::start()?,
        Hosts::start(names_of_collectors(&start))?,
    );
    let mut serving = Serving {
        channel,
        signals,
        answers: |request: &Request| answers.to(request),
    };
    let served = serving.serve(&mut parser);
    if let Err(problem) = &served {
        error!("{problem:#}");
        parser.end();
    }
    let ended = parser.wait(LAST_PATIENCE)?;
    served?;
    match ended.code() {
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        None => bail!("the process that parses {ended}: what it held is lost, and the next run tells of it"),
    }
}

/// Starts the process that looks at catalogs, if any are to be looked at, and says what. The other end of its socket is for
/// the process that parses: nothing of what it says comes here.
fn catalog(start: &Start) -> anyhow::Result<Option<(Child, Channel)>> {
    if start.config.catalog.is_empty() {
        return Ok(None);
    }
    let (channel, theirs) = Channel::pair(ASK_BYTES).context("cannot make a pair of sockets")?;
    let child = Command::new("/proc/self/exe")
        .arg0("pgwitness-agent")
        .arg(CATALOG)
        .stdin(Stdio::from(theirs))
        .spawn()
        .context("cannot start the process that looks at catalogs")?;
    let what = CatalogStart {
        catalogs: start.config.catalog.clone(),
        broker: start.broker,
    };
    channel
        .send(&what, START_BYTES, &[])
        .context("cannot hand over to the process that looks at catalogs")?;
    Ok(Some((child, channel)))
}

/// The names that are looked up for the other process, of those collectors that are given by one.
fn names_of_collectors(start: &Start) -> Vec<Option<String>> {
    let collectors = start.config.delivery.collectors.iter();
    let name = |url: &String| {
        Place::of(url)
            .filter(|place| place.address().is_none())
            .map(|place| place.host)
    };
    collectors.map(name).collect()
}

struct Serving<A> {
    channel: Channel,
    signals: Signals,
    answers: A,
}

impl<A: FnMut(&Request) -> Vec<Answer>> Serving<A> {
    /// Until the other has ended, or closed its end.
    fn serve(&mut self, parser: &mut Parser) -> anyhow::Result<()> {
        loop {
            if self.attend(parser, PollFlags::POLLIN)? {
                return Ok(());
            }
            loop {
                match self.channel.receive::<Question>() {
                    Ok(Received::Message(question, _)) => {
                        if self.answer(&question, parser)? {
                            return Ok(());
                        }
                    }
                    Ok(Received::Nothing) => break,
                    Ok(Received::End) => return Ok(()),
                    Err(problem) => {
                        bail!("the process that parses asked what is no question ({problem}): it is ended")
                    }
                }
            }
        }
    }

    /// Waits until the channel is ready; hands signals on meanwhile. Returns whether the other has ended.
    fn attend(&mut self, parser: &mut Parser, ready: PollFlags) -> anyhow::Result<bool> {
        loop {
            let mut polled = [
                PollFd::new(self.channel.as_fd(), ready),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut polled, PollTimeout::NONE)?;
            let [channel, signals] = polled.map(|fd| fd.any().unwrap_or(false));
            if signals {
                while let Some(signal) = self.signals.next()? {
                    if signal != Signal::SIGCHLD {
                        parser.signal(signal);
                    } else if parser.ended()? {
                        return Ok(true);
                    }
                }
            }
            if channel {
                return Ok(false);
            }
        }
    }

    /// Returns whether the other has ended.
    fn answer(&mut self, question: &Question, parser: &mut Parser) -> anyhow::Result<bool> {
        let mut parts = (self.answers)(&question.request);
        let last = parts.pop().unwrap_or(Answer::Nothing);
        let parts = parts.into_iter().map(|answer| (answer, false));
        for (answer, last) in parts.chain([(last, true)]) {
            let mut reply = Reply {
                number: question.number,
                last,
                answer,
            };
            while let Err(problem) = self.channel.send(&reply, ANSWER_BYTES, &[]) {
                match problem.kind() {
                    // Whoever is stopped reads later, and can be ended all the same.
                    std::io::ErrorKind::WouldBlock => {
                        if self.attend(parser, PollFlags::POLLOUT)? {
                            return Ok(true);
                        }
                    }
                    std::io::ErrorKind::FileTooLarge => reply.answer = Answer::Nothing,
                    std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => return Ok(false),
                    _ => return Err(problem).context("the process that parses cannot be answered"),
                }
            }
        }
        Ok(false)
    }
}

/// The process that parses, and the one that looks at catalogs for it.
struct Parser {
    child: Child,
    catalog: Option<Child>,
}

impl Parser {
    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended: then it is waited for.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn ended(&mut self) -> anyhow::Result<bool> {
        if let Some(catalog) = &mut self.catalog
            && catalog.try_wait()?.is_some()
        {
            self.catalog = None;
        }
        Ok(self.child.try_wait()?.is_some())
    }

    fn end(&mut self) {
        // Only fails if it has ended.
        let _ = self.child.kill();
    }

    fn wait(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.end();
        Ok(self.child.wait()?)
    }
}

/// Signals, one after the other instead of at any moment.
struct Signals(SignalFd);

impl Signals {
    fn take() -> anyhow::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.add(Signal::SIGCHLD);
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags)?))
    }

    fn next(&mut self) -> anyhow::Result<Option<Signal>> {
        let signal = self.0.read_signal()?;
        Ok(signal.and_then(|signal| Signal::try_from(i32::try_from(signal.ssi_signo).ok()?).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{MsgFlags, send};
    use std::os::fd::AsRawFd as _;

    use super::*;

    /// What the broker makes of these messages.
    fn served(messages: &[&[u8]]) -> anyhow::Result<()> {
        let (channel, theirs) = Channel::pair(QUESTION_BYTES).expect("a pair");
        for message in messages {
            send(theirs.as_raw_fd(), message, MsgFlags::empty()).expect("sent");
        }
        drop(theirs);
        let mut serving = Serving {
            channel,
            signals: Signals::take().expect("signals"),
            answers: |_: &Request| vec![Answer::Ports(vec![5432])],
        };
        let child = Command::new("sleep").arg("60").spawn().expect("started");
        let mut parser = Parser { child, catalog: None };
        let served = serving.serve(&mut parser);
        parser.end();
        parser.wait(LAST_PATIENCE).expect("ended");
        served
    }

    #[test]
    fn what_is_no_question_ends_it() {
        let question = br#"{"number":1,"request":{"ports":{"pid":1}}}"#.as_slice();
        served(&[question, question]).expect("questions");
        let long = format!(
            r#"{{"number":1,{}"request":"counters"}}"#,
            " ".repeat(QUESTION_BYTES)
        );
        for wrong in [
            b"\xff\x00".as_slice(),
            br#"{"number":2,"request":{"open":{"path":"/etc/shadow"}}}"#,
            long.as_bytes(),
        ] {
            let problem = served(&[question, wrong, question]).expect_err("no question");
            assert!(problem.to_string().contains("no question"), "{problem:#}");
        }
    }
}
