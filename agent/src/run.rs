//! `pgwitness-agent run`: attach, record, deliver, until told to stop.
//!
//! The process that is started attaches and becomes the broker; the one that it starts (`parser`) confines itself, and then
//! records and delivers here.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use attribution::Host;
use ebpf_abi::Wishes;
use proto::v1;
use tap_core::{Redaction, Sensitive, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::{
    broker::{self, protocol::Start},
    capture::{AttachError, Tap, Tier},
    catalog::looks::Looks,
    clock::{Clock, boot_ns},
    config::{Config, ENVIRONMENT, RedactionConfig, TierConfig},
    control::{ProcessStatus, server::Control},
    facts::servers::Wanted,
    fleet_key::Fleet,
    identity::{self, Identity},
    limits,
    main_loop::{MainLoop, Sources},
    metrics::{self, Metrics},
    parser::BROKER_ENDED,
    progress::{Former, Progress},
    record::Encoded,
    segment_file::SegmentFile,
    sensitive,
    ship::{self, Delivery, Outbox, Sealing},
    trust::{self, Connector, Keyring},
    volume::{self, PolicyFile},
};

/// Records what PostgreSQL servers on this host are asked, and by whom.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file (TOML); every key can be overridden by PGWITNESS_AGENT__SECTION__KEY
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Validate the configuration, print what is in effect, and end
    #[arg(long)]
    check_config: bool,
    /// A collector, as in https://collector.example:7433, http://127.0.0.1:7433 or unix:/run/pgwitness/grpc.sock. Given several
    /// times: the first that answers is used, the earlier the better [default: none, nothing is kept]
    #[arg(long, value_name = "URL")]
    collector: Vec<String>,
    /// Tap only the server with this data directory (can be given several times) [default: all servers]
    #[arg(long, value_name = "PGDATA")]
    data_dir: Vec<PathBuf>,
    /// Folder for the agent's key and state [default: /var/lib/pgwitness-agent]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How sockets are tapped: behind the kernel's socket functions (a), behind every system call (b) [default: auto]
    #[arg(long, value_enum)]
    tier: Option<TierConfig>,
    /// What of a statement's text is recorded [default: literals]
    #[arg(long, value_enum)]
    redaction: Option<RedactionConfig>,
    /// Serve Prometheus metrics here, as in 127.0.0.1:7481 (loopback only) [default: not served]
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Print every event as a line of JSON to standard output, too
    #[arg(long)]
    print: bool,
    /// Forensics: keep all bytes of the tapped connections in this new file, rows and passwords included, for `replay`
    #[arg(long, value_name = "FILE")]
    record_segments: Option<PathBuf>,
    /// Bytes at which such a recording ends; the tap goes on [default: 1 GiB]
    #[arg(long, value_name = "BYTES", requires = "record_segments", hide_default_value = true, default_value_t = RECORD_LIMIT)]
    record_limit: u64,
    /// For tests: what the kernel skips of a program no other one takes, so that it is lost, and told
    #[arg(long, hide = true)]
    alone: bool,
}

/// How long the last events may take to be acknowledged when the agent stops.
const FLUSH: Duration = Duration::from_secs(5);

/// How often it is looked whether the main loop ended by itself.
const TICK: Duration = Duration::from_millis(200);

/// Bytes of the ring for facts. A fork and an exec take 1.5 KiB: room for 2,700 processes between two rounds.
const FACTS_RING: u32 = 4 << 20;

/// Bytes of a segment recording: some minutes of a busy server.
const RECORD_LIMIT: u64 = 1 << 30;

/// Runs the command.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let usable = configure(&args).map_err(anyhow::Error::from).and_then(|config| {
        // The other process reads them again, with the rights that it has; a mistake is to be read before anything is attached.
        let sensitive = sensitive::read(&config.subjects)?;
        volume::open(&config.volume, sensitive.as_deref())?;
        Fleet::read(&config.identity)?;
        Ok(config)
    });
    let config = match usable {
        Ok(config) => config,
        Err(problem) => {
            eprintln!("pgwitness-agent: {problem:#}");
            return Ok(ExitCode::from(2));
        }
    };
    if args.check_config {
        print!("{}", toml::to_string(&config)?);
        return Ok(ExitCode::SUCCESS);
    }
    let host = config.agent.host.clone().unwrap_or_else(identity::host_name);
    let mut poolers = config.poolers();
    // First of all: whoever may not load programs should read that, and not that a folder cannot be made.
    let tap = Tap::attach(
        config.sizes(FACTS_RING),
        config.tap.tier.wished(),
        config.tap.uretprobes,
        Wishes {
            environments: u32::from(!config.identity.run_variables.is_empty()),
            flows: u32::from(config.tap.flows),
            poolers: u32::from(config.tap.poolers),
            alone: u32::from(args.alone),
        },
        poolers.comms(),
    )
    .map_err(one_line)?;
    if tap.tier == Tier::B {
        poolers.programs.clear();
    }
    let wanted = Wanted {
        data_directories: config.tap.data_directories.clone(),
        within: config.tap.within.clone(),
    };
    let mut hooks: Vec<String> = tap.tier.hooks().map(|hook| hook.name.to_owned()).collect();
    hooks.dedup();
    let start = Start {
        config,
        host,
        tier: tap.tier.to_string(),
        hooks,
        print: args.print,
        recording: args.record_segments.map(|path| (path, args.record_limit)),
        broker: 0,
        broker_holds: Vec::new(),
        catalog: None,
    };
    broker::serve::run(start, tap, wanted, poolers)
}

/// The kernel's verifier explains itself over many lines: those are for `doctor`.
fn one_line(error: AttachError) -> anyhow::Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    match error {
        AttachError::NotPermitted => anyhow!("{first}"),
        _ => anyhow!("{first}; `pgwitness-agent doctor` shows everything that this host lacks"),
    }
}

fn configure(args: &Args) -> Result<Config, settings::SettingsError> {
    let mut config = settings::load(Config::default(), args.config.as_deref(), ENVIRONMENT)?;
    config.state_dir = args.state_dir.clone().unwrap_or(config.state_dir);
    if !args.collector.is_empty() {
        config.delivery.collectors.clone_from(&args.collector);
    }
    config.metrics.listen = args.metrics.or(config.metrics.listen);
    config.events.redaction = args.redaction.unwrap_or(config.events.redaction);
    config.tap.tier = args.tier.unwrap_or(config.tap.tier);
    if !args.data_dir.is_empty() {
        config.tap.data_directories.clone_from(&args.data_dir);
    }
    config.check()?;
    // Said here, so that --check-config prints it.
    config.tap.ring_mib.get_or_insert_with(limits::ring_mib_here);
    config.limits.memory_mib = Some(config.memory_mib());
    Ok(config)
}

/// Everything that is opened before the process confines itself.
pub struct Opened {
    /// What the broker handed over.
    pub start: Start,
    /// Who this agent is.
    pub identity: Identity,
    /// The keys that batches are signed by.
    pub keyring: Keyring,
    /// The ways to the collectors.
    pub ways: Vec<Connector>,
    /// Names this boot of the host.
    pub boot: String,
    /// How far sessions were delivered.
    pub progress: Progress,
    /// What the run before this one left.
    pub former: Former,
    /// Where the agent is asked.
    pub control: Control,
    /// Where metrics are served.
    pub metrics: Option<std::net::TcpListener>,
    /// What is sensitive.
    pub sensitive: Option<Arc<Sensitive>>,
    /// The recording for forensics.
    pub recording: Option<SegmentFile>,
    /// How much is recorded, and where that is written.
    pub volume: Option<(PolicyFile, ::volume::Volume)>,
    /// Who looks at catalogs.
    pub looks: Option<Looks>,
    /// What is read, and who is asked.
    pub sources: Sources,
    /// The two processes of the agent, and what each may do.
    pub processes: Vec<ProcessStatus>,
}

impl Opened {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// One line that says what is wrong and what to do.
    pub fn open(start: Start, sources: Sources, catalog: Option<OwnedFd>) -> anyhow::Result<Self> {
        let config = &start.config;
        let sensitive = sensitive::read(&config.subjects)?;
        Fleet::read(&config.identity)?.announce();
        let ways = Connector::open(config, &Some(sources.broker.clone()))?;
        // One name, whoever is asked.
        let mut agent_id = config.agent.id.clone();
        for way in &ways {
            agent_id = way.agent_id(agent_id.as_deref())?;
        }
        let identity = Identity::open(&config.state_dir, &start.host, agent_id.as_deref())?;
        let keyring = Keyring::open(identity.key_file.clone(), identity.key.clone())?;
        let recording = start
            .recording
            .as_ref()
            .map(|(path, limit)| SegmentFile::create(path, *limit))
            .transpose()?;
        let metrics = config.metrics.listen.map(metrics::listen).transpose()?;
        let volume = volume::open(&config.volume, sensitive.as_deref())?;
        let looks = match (catalog, start.catalog) {
            (Some(socket), Some(pid)) => Some(Looks::start(&config.catalog, socket, pid)?),
            _ => None,
        };
        let control = Control::open(&config.control_socket())?;
        identity.began()?;
        // Where it stands is out of reach later.
        let boot = boot_id();
        let (progress, former) = Progress::open(&config.state_dir, &boot, boot_ns());
        Ok(Self {
            identity,
            keyring,
            ways,
            boot,
            progress,
            former,
            control,
            metrics,
            sensitive,
            recording,
            volume,
            looks,
            sources,
            processes: Vec::new(),
            start,
        })
    }
}

/// Records and delivers until told to stop, in the process that parses. `began` is the event of the start.
///
/// # Errors
///
/// If a thread cannot be started.
pub async fn record(opened: Opened, began: v1::event::Body) -> anyhow::Result<ExitCode> {
    let Opened {
        start,
        identity,
        keyring,
        ways,
        boot,
        progress,
        former,
        control,
        metrics: metrics_listener,
        sensitive,
        recording,
        volume,
        looks,
        sources,
        processes,
    } = opened;
    let Start {
        config,
        host,
        tier,
        print,
        ..
    } = start;
    let host = Host {
        trust_domain: config.agent.trust_domain.clone(),
        name: host,
    };
    let metrics = Arc::new(Metrics::default());
    if let Some(listener) = metrics_listener {
        metrics::serve(listener, Arc::clone(&metrics))?;
    }
    let progress = Arc::new(progress);
    let outbox = Arc::new(Outbox::new(config.delivery.queue_mib << 20));
    outbox.push(&Encoded::own(boot_ns(), Clock::now(), began));
    let delivery = match ways.is_empty() {
        false => {
            let ways: Vec<Arc<Connector>> = ways.into_iter().map(Arc::new).collect();
            for way in &ways {
                tokio::spawn(trust::renew(Arc::clone(way)));
            }
            let chained = ship::start(Sealing {
                state: config.state_dir.clone(),
                boot,
                agent_id: identity.agent_id.clone(),
                keyring,
                new_key: identity.new_key,
                spool_bytes: config.spool.max_bytes,
                when_full: config.spool.when_full,
                collectors: config.delivery.collectors.clone(),
                outbox: Arc::clone(&outbox),
                metrics: Arc::clone(&metrics),
                progress: Arc::clone(&progress),
            })
            .context("cannot start a thread")?;
            let delivery = Delivery {
                ways,
                agent_id: identity.agent_id.clone(),
                chained: chained.clone(),
                metrics: Arc::clone(&metrics),
            };
            Some((chained, tokio::spawn(ship::deliver(delivery))))
        }
        true => None,
    };

    let stop = Arc::new(AtomicBool::new(false));
    if let Some(sensitive) = &sensitive {
        sensitive::announce(sensitive);
    }
    let settings = Settings {
        redaction: config.events.redaction.into(),
        sensitive,
        names: config.events.names(),
        catalog: looks.is_some(),
        ..Settings::default()
    };
    if settings.redaction == Redaction::Clear {
        warn!("statements are recorded with their literals: whoever reads the record reads the data");
    }
    if delivery.is_none() && !print {
        warn!(
            "no collector is set, so nothing is kept: start one (pgwitness-collector serve) and give its URL with \
             --collector, or give --print"
        );
    }
    if let Some(recording) = &recording {
        recording.announce();
    }
    if config.tap.flows && tier == Tier::B.to_string() {
        info!("whose connections lead from this host to servers elsewhere is not told: that takes tier A");
    }
    if config.tap.poolers && tier == Tier::B.to_string() {
        info!("poolers of this host are not followed: that takes tier A");
    }
    let (orders, received) = mpsc::channel();
    let broker = sources.broker.clone();
    tokio::spawn(control.serve(orders, broker.clone()));
    let main_loop = MainLoop {
        outbox: Arc::clone(&outbox),
        metrics: Arc::clone(&metrics),
        stop: Arc::clone(&stop),
        heartbeat: Duration::from_secs(config.events.heartbeat_s),
        orders: received,
        agent_id: identity.agent_id.clone(),
        tier,
        processes,
        collectors: config.delivery.collectors.clone(),
        spool_bytes: config.spool.max_bytes,
        print,
        ring_bytes: config.ring_bytes().into(),
        memory_bytes: config.memory_mib() << 20,
        cpu_percent: config.limits.cpu_percent,
        progress,
        former,
        run_variables: config.identity.run_variables.clone(),
        volume,
        looks,
    };
    let thread = thread::Builder::new()
        .name("witness".to_owned())
        .spawn(move || main_loop.run(host, settings, sources, recording))
        .context("cannot start a thread")?;

    let reason = stop_signal(&thread).await?;
    stop.store(true, Ordering::Relaxed);
    let ended = tokio::task::spawn_blocking(move || thread.join()).await?;
    let reason = match ended {
        Ok(Ok(())) => {
            if reason == ORPHANED {
                error!("{ORPHANED}: nothing more can be captured, what was is delivered");
            }
            reason
        }
        // It emptied the rings: there is no more, but what there is, is whole.
        Ok(Err(problem)) if broker.lost().is_some() => {
            error!("{problem:#}: nothing more can be captured, what was is delivered");
            ORPHANED
        }
        ended => {
            if let Ok(Err(problem)) = ended {
                error!("{problem:#}");
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    metrics.queue(&outbox);
    let stopped = v1::AgentStop {
        reason: reason.to_owned(),
        counters: Some(metrics.counters()),
    };
    outbox.push(&Encoded::own(
        boot_ns(),
        Clock::now(),
        v1::event::Body::AgentStop(stopped),
    ));
    let mut nothing_lost = true;
    if let Some((chained, delivery)) = delivery {
        flush(&outbox, &metrics).await;
        delivery.abort();
        // What is on disk is delivered by the next run.
        nothing_lost = chained.stop().await;
        if !nothing_lost {
            warn!(
                "{} events could be neither delivered nor written before stopping",
                outbox.len()
            );
        }
    }
    // What was not is lost: the next run says that this one ended badly.
    if nothing_lost {
        identity.ended();
    }
    info!("stopped ({reason})");
    if reason == ORPHANED {
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Why the agent stops when the broker has gone: nothing new can be captured, and what was is delivered.
const ORPHANED: &str = "the broker has ended";

/// Waits for a signal, or for the main loop to end by itself.
async fn stop_signal(thread: &thread::JoinHandle<anyhow::Result<()>>) -> anyhow::Result<&'static str> {
    let mut orphaned = signal(SignalKind::from_raw(BROKER_ENDED as i32))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok("SIGTERM"),
            _ = orphaned.recv() => return Ok(ORPHANED),
            _ = interrupt.recv() => return Ok("SIGINT"),
            () = tokio::time::sleep(TICK) => if thread.is_finished() { return Ok("failure") },
        }
    }
}

/// Waits until everything is acknowledged, or is on disk and no collector is there to take it; for a while.
async fn flush(outbox: &Outbox, metrics: &Metrics) {
    let until = Instant::now() + FLUSH;
    // Behind the take from the queue comes the sealing: both must have been seen empty.
    let mut quiet = 0;
    let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
    while quiet < 3 && Instant::now() < until {
        let delivered = load(&metrics.batches_waiting) == 0;
        let kept = load(&metrics.connected) == 0 && load(&metrics.batches_unspooled) == 0;
        quiet = if outbox.is_empty() && (delivered || kept) {
            quiet + 1
        } else {
            0
        };
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

/// Names this boot of the host.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.unwrap_or_default().trim().to_owned()
}

/// The event of the start. It reads what cannot be read later.
pub fn began(opened: &Opened) -> v1::event::Body {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    v1::event::Body::AgentStart(v1::AgentStart {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: opened.start.host.clone(),
        kernel: release.trim().to_owned(),
        boot_id: boot_id(),
        hooks: opened.start.hooks.clone(),
        previous_run_unclean: opened.identity.previous_run_unclean,
        recording_segments: opened.recording.is_some(),
        tier: opened.start.tier.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_verifier_says_stays_one_line() {
        let refused = AttachError::Refused {
            hook: Some("cgroup_mkdir"),
            source: "Invalid argument\n0: (85) call unknown#1\nprocessed 1 insns".into(),
        };
        let said = format!("{:#}", one_line(refused));
        assert_eq!(
            said,
            "the kernel refused the eBPF program `cgroup_mkdir`: Invalid argument; `pgwitness-agent doctor` shows \
             everything that this host lacks"
        );
        let said = format!("{:#}", one_line(AttachError::NotPermitted));
        assert!(
            said.starts_with("loading eBPF programs is not permitted: run as root"),
            "{said}"
        );
    }
}
