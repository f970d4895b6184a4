//! `pgwitness-agent status`, `pause` and `resume`.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::{Answer, Fill, REASON_CHARS, Request, Status};
use crate::config::{Config, ENVIRONMENT};

/// Where the agent is asked.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The agent's control socket [default: as in the agent's configuration]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The agent's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Shows how the running agent stands.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Makes the agent discard what it captures, or record again. Both are signed events.
#[derive(Debug, clap::Args)]
pub struct PauseArgs {
    #[command(flatten)]
    place: Place,
    /// Why; it is kept in the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// The agent answers within 5 s, or says that it cannot.
const PATIENCE: Duration = Duration::from_secs(12);

/// A status is some KiB, with hundreds of servers some tens.
const ANSWER_BYTES: u64 = 1 << 20;

/// Runs `status`.
///
/// # Errors
///
/// If no agent runs, or it does not answer.
pub fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let Answer::Status(status) = ask(&args.place, &Request::Status)? else {
        bail!("the agent gave an answer to another question")
    };
    if args.json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        print!("{}", text(&status));
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `pause`.
///
/// # Errors
///
/// If no agent runs, or it is paused already.
pub fn pause(args: &PauseArgs) -> anyhow::Result<ExitCode> {
    let reason = reason(args);
    let Answer::Paused(paused) = ask(&args.place, &Request::Pause { reason })? else {
        bail!("the agent gave an answer to another question")
    };
    println!(
        "paused at {}: nothing is recorded until `pgwitness-agent resume`, and the record says so",
        paused.since
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs `resume`.
///
/// # Errors
///
/// If no agent runs, or it is not paused.
pub fn resume(args: &PauseArgs) -> anyhow::Result<ExitCode> {
    let reason = reason(args);
    let Answer::Resumed(resumed) = ask(&args.place, &Request::Resume { reason })? else {
        bail!("the agent gave an answer to another question")
    };
    println!(
        "recording again, after a pause of {:.1} s in which {} bytes were discarded",
        Duration::from_millis(resumed.paused_ms).as_secs_f64(),
        resumed.bytes_discarded
    );
    Ok(ExitCode::SUCCESS)
}

/// As much of it as the agent keeps.
fn reason(args: &PauseArgs) -> String {
    args.reason.chars().take(REASON_CHARS).collect()
}

fn ask(place: &Place, request: &Request) -> anyhow::Result<Answer> {
    let path = match &place.socket {
        Some(path) => path.clone(),
        None => settings::load(Config::default(), place.config.as_deref(), ENVIRONMENT)?.control_socket(),
    };
    let mut stream = UnixStream::connect(&path).map_err(|error| {
        use std::io::ErrorKind;
        let what = match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => "no agent runs".to_owned(),
            ErrorKind::PermissionDenied => "only root and the agent's own user may ask".to_owned(),
            _ => error.to_string(),
        };
        anyhow::anyhow!(
            "{what} at {} (if it runs with another control.socket or state_dir, give --socket)",
            path.display()
        )
    })?;
    let problem = || format!("the agent at {} does not answer", path.display());
    stream.set_read_timeout(Some(PATIENCE)).with_context(problem)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).with_context(problem)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(ANSWER_BYTES))
        .read_until(b'\n', &mut answer)
        .with_context(problem)?;
    match serde_json::from_slice(&answer).context("the agent's answer is of another version")? {
        Answer::Error(problem) => bail!(problem),
        answer => Ok(answer),
    }
}

/// The status for people.
fn text(status: &Status) -> String {
    let mut lines = vec![
        format!(
            "agent       {} version {}, pid {}, tier {}, up {}",
            status.agent_id,
            status.version,
            status.pid,
            status.tier,
            duration(status.uptime_s)
        ),
        match &status.paused {
            Some(paused) => format!(
                "recording   PAUSED since {} by {} (uid {}){}: {} bytes discarded",
                paused.since,
                paused.login,
                paused.uid,
                if paused.reason.is_empty() {
                    String::new()
                } else {
                    format!(", {:?}", paused.reason)
                },
                paused.bytes_discarded
            ),
            None if status.memory_sheds => "recording   NO: at the limit of memory".to_owned(),
            None => "recording   yes".to_owned(),
        },
        match &status.collector {
            Some(collector) => format!(
                "collector   {}{} {}, {} batches acknowledged, {} waiting",
                collector.url,
                match collector.of {
                    0 | 1 => String::new(),
                    of => format!(" ({} of {of})", collector.place),
                },
                match collector.connected {
                    true => format!("connected for {}", duration(collector.connected_s)),
                    false => "NOT CONNECTED".to_owned(),
                },
                collector.batches_acknowledged,
                collector.batches_waiting
            ),
            None => "collector   none: nothing is kept".to_owned(),
        },
        format!("host        {}", status.role),
        format!("sessions    {} open", status.sessions_open),
        format!("ring        {}", fill(status.ring)),
        format!(
            "queue       {}, {} events",
            fill(status.queue),
            status.queue_events
        ),
        format!(
            "spool       {}, oldest batch waits {}{}",
            fill(status.spool),
            duration(status.oldest_waiting_s),
            match status.batches_unspooled {
                0 => String::new(),
                batches => format!(", {batches} NOT ON DISK"),
            }
        ),
        format!("memory      {}", fill(status.memory)),
        format!(
            "processor   {:.1} s taken, limit {}",
            Duration::from_millis(status.cpu_ms).as_secs_f64(),
            status
                .cpu_percent_limit
                .map_or_else(|| "none".to_owned(), |limit| format!("{limit} %"))
        ),
    ];
    for process in &status.processes {
        let holds = match process.capabilities.as_slice() {
            [] => "no capability".to_owned(),
            held => held.join(" "),
        };
        lines.push(format!(
            "process     {:<8} {}: holds {holds}; {}",
            process.pid, process.role, process.confined
        ));
    }
    lines.push("servers".to_owned());
    for server in &status.servers {
        lines.push(format!(
            "  {:<8} {}  data {}  encryption: {}",
            server.pid,
            server.exe,
            server.data_directory.as_deref().unwrap_or("?"),
            server.encryption
        ));
    }
    if status.servers.is_empty() {
        lines.push("  none".to_owned());
    }
    lines.push("poolers".to_owned());
    for pooler in &status.poolers {
        lines.push(format!(
            "  {:<8} {}  encryption: {}",
            pooler.pid, pooler.program, pooler.encryption
        ));
    }
    if status.poolers.is_empty() {
        let none = match status.tier.as_str() {
            "B" => "  not followed: that takes tier A",
            _ => "  none",
        };
        lines.push(none.to_owned());
    }
    lines.push("counters".to_owned());
    for (name, value) in &status.counters {
        lines.push(format!("  {name:<20} {value}"));
    }
    lines.join("\n") + "\n"
}

fn fill(fill: Fill) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!("{:.1} of {:.0} MiB", mib(fill.used), mib(fill.limit))
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CollectorStatus, Paused, PoolerStatus, ProcessStatus, ServerStatus};
    use super::*;

    #[test]
    fn people_read_what_matters() {
        let mut status = Status {
            agent_id: "db1-0011".to_owned(),
            tier: "A".to_owned(),
            uptime_s: 7_300,
            role: "server".to_owned(),
            spool: Fill {
                used: 3 << 20,
                limit: 1 << 30,
            },
            batches_unspooled: 4,
            oldest_waiting_s: 130,
            ring: Fill {
                used: 1 << 19,
                limit: 64 << 20,
            },
            servers: vec![ServerStatus {
                pid: 7,
                exe: "/usr/bin/postgres".to_owned(),
                data_directory: None,
                encryption: "not read".to_owned(),
            }],
            poolers: vec![PoolerStatus {
                pid: 8,
                program: "pgbouncer".to_owned(),
                encryption: "TLS read".to_owned(),
            }],
            processes: vec![ProcessStatus {
                pid: 9,
                role: "parses".to_owned(),
                ..ProcessStatus::default()
            }],
            ..Status::default()
        };
        status.counters.insert("ring_full".to_owned(), 5.into());
        let said = text(&status);
        for expected in [
            "tier A, up 2 h 1 min",
            "recording   yes",
            "collector   none: nothing is kept",
            "host        server",
            "spool       3.0 of 1024 MiB, oldest batch waits 2 min, 4 NOT ON DISK",
            "ring        0.5 of 64 MiB",
            "  7        /usr/bin/postgres  data ?  encryption: not read",
            "  8        pgbouncer  encryption: TLS read",
            "  ring_full            5",
            "process     9        parses: holds no capability",
        ] {
            assert!(said.contains(expected), "{said}");
        }
        status.paused = Some(Paused {
            since: "2026-11-21T08:00:00Z".to_owned(),
            uid: 0,
            login: "eve".to_owned(),
            reason: "a\n\u{1b}[31m".to_owned(),
            bytes_discarded: 12,
        });
        status.collector = Some(CollectorStatus::default());
        let said = text(&status);
        assert!(
            said.contains("PAUSED since 2026-11-21T08:00:00Z by eve (uid 0), \"a\\n\\u{1b}[31m\": 12 bytes")
        );
        assert!(said.contains("NOT CONNECTED"), "{said}");
        status.collector = Some(CollectorStatus {
            url: "https://b:7433".to_owned(),
            place: 2,
            of: 2,
            connected: true,
            connected_s: 130,
            ..CollectorStatus::default()
        });
        let said = text(&status);
        assert!(
            said.contains("collector   https://b:7433 (2 of 2) connected for 2 min, 0 batches"),
            "{said}"
        );
        status.poolers.clear();
        assert!(text(&status).contains("poolers\n  none\n"));
        status.tier = "B".to_owned();
        assert!(text(&status).contains("poolers\n  not followed"));
    }

    #[test]
    fn nobody_there_is_said_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place {
            socket: Some(folder.path().join("control.sock")),
            config: None,
        };
        let said = ask(&place, &Request::Status)
            .map(|_| ())
            .expect_err("nobody")
            .to_string();
        assert!(
            said.starts_with("no agent runs at ") && said.contains("--socket"),
            "{said}"
        );
    }
}
