//! `pgwitness-agent run`: attach, record, deliver, until told to stop.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use attribution::Host;
use proto::v1;
use tap_core::{Redaction, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::{
    capture::{AttachError, Tap, Tier},
    clock::{Clock, boot_ns},
    config::{Config, ENVIRONMENT, RedactionConfig, TierConfig},
    control::server::Control,
    facts::servers::Wanted,
    identity::{self, Identity},
    limits,
    main_loop::MainLoop,
    metrics::{self, Metrics},
    progress::Progress,
    record::Encoded,
    segment_file::SegmentFile,
    ship::{self, Delivery, Memory, Outbox},
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
    /// The collector's URL, as in http://127.0.0.1:7433 [default: none, nothing is kept]
    #[arg(long, value_name = "URL")]
    collector: Option<String>,
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
    let config = match configure(&args) {
        Ok(config) => config,
        Err(problem) => {
            eprintln!("pgwitness-agent: {problem}");
            return Ok(ExitCode::from(2));
        }
    };
    if args.check_config {
        print!("{}", toml::to_string(&config)?);
        return Ok(ExitCode::SUCCESS);
    }
    let host = config.agent.host.clone().unwrap_or_else(identity::host_name);
    // First of all: whoever may not load programs should read that, and not that a folder cannot be made.
    let tap = Tap::attach(
        config.sizes(FACTS_RING),
        config.tap.tier.wished(),
        config.tap.uretprobes,
    )
    .map_err(one_line)?;
    let identity = Identity::open(&config.state_dir, &host, config.agent.id.as_deref())?;
    let recording = args
        .record_segments
        .as_deref()
        .map(|path| SegmentFile::create(path, args.record_limit))
        .transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(record(
        config,
        args.print,
        recording,
        Host {
            trust_domain: String::new(),
            name: host,
        },
        identity,
        tap,
    ))
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
    config.delivery.collector = args.collector.clone().or(config.delivery.collector);
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

async fn record(
    config: Config,
    print: bool,
    recording: Option<SegmentFile>,
    host: Host,
    identity: Identity,
    tap: Tap,
) -> anyhow::Result<ExitCode> {
    let host = Host {
        trust_domain: config.agent.trust_domain.clone(),
        ..host
    };
    let metrics = Arc::new(Metrics::default());
    if let Some(address) = config.metrics.listen {
        metrics::serve(address, Arc::clone(&metrics)).await?;
    }
    let control = Control::open(&config.control_socket())?;
    identity.began()?;
    let (progress, former) = Progress::open(&config.state_dir, &boot_id(), boot_ns());
    let progress = Arc::new(progress);
    let outbox = Arc::new(Outbox::new(config.delivery.queue_mib << 20));
    outbox.push(&Encoded::own(
        boot_ns(),
        Clock::now(),
        started(&host, &identity, tap.tier, recording.is_some()),
    ));
    let delivery = config.delivery.collector.clone().map(|collector| {
        let memory = Memory::read(&config.state_dir);
        let delivery = Delivery {
            collector,
            agent_id: identity.agent_id.clone(),
            key: identity.key.clone(),
            outbox: Arc::clone(&outbox),
            metrics: Arc::clone(&metrics),
            progress: Arc::clone(&progress),
        };
        tokio::spawn(ship::deliver(delivery, memory))
    });

    let stop = Arc::new(AtomicBool::new(false));
    let settings = Settings {
        redaction: config.events.redaction.into(),
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
    let (orders, received) = mpsc::channel();
    tokio::spawn(control.serve(orders));
    let main_loop = MainLoop {
        outbox: Arc::clone(&outbox),
        metrics: Arc::clone(&metrics),
        stop: Arc::clone(&stop),
        heartbeat: Duration::from_secs(config.events.heartbeat_s),
        orders: received,
        agent_id: identity.agent_id.clone(),
        collector: config.delivery.collector.clone(),
        print,
        ring_bytes: config.ring_bytes().into(),
        memory_bytes: config.memory_mib() << 20,
        cpu_percent: config.limits.cpu_percent,
        progress,
        former,
    };
    let wanted = Wanted {
        data_directories: config.tap.data_directories.clone(),
    };
    let thread = thread::Builder::new()
        .name("witness".to_owned())
        .spawn(move || main_loop.run(host, settings, wanted, tap, recording))
        .context("cannot start a thread")?;

    let reason = stop_signal(&thread).await?;
    stop.store(true, Ordering::Relaxed);
    let ended = tokio::task::spawn_blocking(move || thread.join()).await?;
    if !matches!(ended, Ok(Ok(()))) {
        if let Ok(Err(problem)) = ended {
            error!("{problem:#}");
        }
        return Ok(ExitCode::FAILURE);
    }
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
    let mut all_delivered = true;
    if let Some(delivery) = delivery {
        all_delivered = flush(&outbox, &metrics).await;
        delivery.abort();
    }
    // What was not delivered is lost: the next run says that this one ended badly.
    if all_delivered {
        identity.ended();
    }
    info!("stopped ({reason})");
    Ok(ExitCode::SUCCESS)
}

/// Waits for a signal, or for the main loop to end by itself.
async fn stop_signal(thread: &thread::JoinHandle<anyhow::Result<()>>) -> anyhow::Result<&'static str> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok("SIGTERM"),
            _ = interrupt.recv() => return Ok("SIGINT"),
            () = tokio::time::sleep(TICK) => if thread.is_finished() { return Ok("failure") },
        }
    }
}

/// Waits until everything is acknowledged; false if that takes too long.
async fn flush(outbox: &Outbox, metrics: &Metrics) -> bool {
    let until = Instant::now() + FLUSH;
    // Behind the take from the queue comes the sealing: both must have been seen empty.
    let mut quiet = 0;
    while quiet < 3 && Instant::now() < until {
        let empty = outbox.is_empty() && metrics.batches_waiting.load(Ordering::Relaxed) == 0;
        quiet = if empty { quiet + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    if quiet < 3 {
        warn!("{} events could not be delivered before stopping", outbox.len());
    }
    quiet == 3
}

/// Names this boot of the host.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.unwrap_or_default().trim().to_owned()
}

fn started(host: &Host, identity: &Identity, tier: Tier, recording_segments: bool) -> v1::event::Body {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    v1::event::Body::AgentStart(v1::AgentStart {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host.name.clone(),
        kernel: read("/proc/sys/kernel/osrelease"),
        boot_id: boot_id(),
        hooks: tier.hooks().map(|hook| hook.name.to_owned()).collect(),
        previous_run_unclean: identity.previous_run_unclean,
        recording_segments,
        tier: tier.to_string(),
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
