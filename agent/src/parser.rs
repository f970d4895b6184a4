//! The process that parses: started by the broker, it gives up all that it may do, opens what it works with, confines itself
//! to that, and only then looks at the first byte.
//!
//! Separate from `run`, which is what it does afterwards, because the order is the point here: no privilege is left when
//! the first file is opened, and no file can be opened any more when the first byte is read.

use std::{
    net::SocketAddr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::parent_id,
    },
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
};
use tracing::warn;

use crate::{
    broker::{
        Broker, Channel,
        channel::Received,
        protocol::{ANSWER_BYTES, Start},
    },
    capture::Ring,
    config::UNIX,
    confine::{self, Confined, Reach},
    control::ProcessStatus,
    facts::cgroups::Cgroups,
    limits,
    main_loop::Sources,
    run::{self, Opened},
    trust::Place,
};

/// What the kernel says when the broker has ended. Nobody else says it, so that it cannot be taken for an order to stop.
pub const BROKER_ENDED: Signal = Signal::SIGUSR2;

/// How long the broker may take to hand over.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub fn run() -> anyhow::Result<ExitCode> {
    let mut channel = Channel::new(std::io::stdin().as_fd().try_clone_to_owned()?, ANSWER_BYTES);
    let (start, [segments, facts, transfers], catalog) = receive(&mut channel)?;
    // The broker takes signals one after the other and has them blocked; a program that is started inherits that.
    SigSet::all().thread_unblock()?;
    // Whatever becomes of the broker, this process delivers what it has and ends. The kernel tells from here on; if it is
    // too late for that, the parent is another one.
    prctl::set_pdeathsig(BROKER_ENDED)?;
    if parent_id() != start.broker {
        bail!("the broker has ended");
    }
    // For those who look at a list of processes; the name is as long as one can be.
    let _ = prctl::set_name(c"pgwitness-parse");
    let bounding = confine::capabilities()?;

    let sources = Sources {
        segments,
        facts,
        transfers,
        broker: Broker::new(channel),
        cgroups: Cgroups::read().within(start.config.tap.within.as_deref()),
        boot: run::boot_id().chars().take(8).collect(),
    };
    let reach = reach(&start, sources.cgroups.mount());
    let mut opened = Opened::open(start, sources, catalog)?;
    let began = run::began(&opened);
    // Opens what it reads later, too.
    limits::anonymous_bytes();

    let confined = confine::parser(&reach, bounding)?;
    if confined.files.starts_with("nothing") {
        warn!(
            "the process that parses is held to its own files by {}; the systemd unit does that, too",
            confined.files
        );
    }
    opened.processes = processes(&opened.start, &confined);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run::record(opened, began))
}

/// What the broker hands over.
fn receive(channel: &mut Channel) -> anyhow::Result<(Start, [Ring; 3], Option<OwnedFd>)> {
    const NOT_BY_HAND: &str = "this command is for `pgwitness-agent run`, which starts it";
    let until = Instant::now() + PATIENCE;
    loop {
        let received = channel.receive::<Start>().context(NOT_BY_HAND)?;
        match received {
            Received::Message(start, mut descriptors) => {
                let catalog = start.catalog.and_then(|_| descriptors.pop());
                let rings = descriptors.into_iter().map(Ring::from_fd);
                let rings = rings
                    .collect::<Result<Vec<_>, _>>()
                    .context("the rings cannot be used")?;
                let Ok(rings) = <[Ring; 3]>::try_from(rings) else {
                    bail!("the rings were not handed over");
                };
                return Ok((start, rings, catalog));
            }
            Received::End => bail!("the broker has ended"),
            Received::Nothing if Instant::now() > until => bail!(NOT_BY_HAND),
            Received::Nothing => {
                let mut polled = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
                poll(
                    &mut polled,
                    PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX),
                )?;
            }
        }
    }
}

/// What it reaches by name while it works.
fn reach(start: &Start, cgroups: Option<&Path>) -> Reach {
    let config = &start.config;
    let socket = config.control_socket();
    let folder = socket.parent().filter(|folder| **folder != config.state_dir);
    let collectors = &config.delivery.collectors;
    let unix = collectors.iter().any(|place| place.starts_with(UNIX));
    let port = |url: &String| match url.strip_prefix("http://") {
        Some(address) => {
            let address = address.trim_end_matches('/').parse::<SocketAddr>();
            address.ok().map(|address| address.port())
        }
        None => Place::of(url).map(|place| place.port),
    };
    let policy = config.volume.policy.as_deref();
    let folder_of = |file: &Path| match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => Path::new(".").to_path_buf(),
    };
    Reach {
        own: vec![config.state_dir.clone()],
        // A file that replaces it is another one: only its folder stays.
        reads: policy
            .into_iter()
            .chain(config.delivery.tls.files().map(PathBuf::as_path))
            .map(folder_of)
            .collect(),
        // The socket goes with the agent.
        removes: folder.map(Path::to_path_buf).into_iter().collect(),
        lists: cgroups.map(Path::to_path_buf).into_iter().collect(),
        ports: collectors.iter().filter_map(port).collect(),
        unix,
    }
}

/// Both processes, for whoever asks.
fn processes(start: &Start, confined: &Confined) -> Vec<ProcessStatus> {
    let bounding = if confined.bounding {
        ", empty bounding set"
    } else {
        ""
    };
    let looks = start.catalog.map(|pid| ProcessStatus {
        pid,
        role: "looks at catalogs".to_owned(),
        capabilities: Vec::new(),
        confined: "no_new_privs, seccomp; reads no captured byte".to_owned(),
    });
    let mut processes = vec![
        ProcessStatus {
            pid: start.broker,
            role: "attaches and looks up".to_owned(),
            capabilities: start.broker_holds.clone(),
            confined: "no_new_privs, seccomp; reads no captured byte".to_owned(),
        },
        ProcessStatus {
            pid: std::process::id(),
            role: "parses and delivers".to_owned(),
            capabilities: confine::held(),
            confined: format!(
                "no_new_privs{bounding}, seccomp; held to its own files by {}",
                confined.files
            ),
        },
    ];
    processes.extend(looks);
    processes
}
