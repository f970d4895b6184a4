//! `pgwitness-collector agent …` and `ca …`: what an operator says. They write `<data>/trust`; a collector that runs sees it within
//! a second, one that does not when it starts.

use std::{fs, path::PathBuf, process::ExitCode};

use ::trust::Token;
use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use evidence::ORIGIN_PREFIX;

use super::{
    Own,
    registry::{Enrolled, Registry, Revoked},
    unix_s,
};
use crate::{
    config::{Config, Overrides},
    log,
    place::Place,
};

/// Which collector.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The collector's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The collector's data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Which {
    /// Its configuration.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let overrides = Overrides {
            data: self.data.clone(),
            ..Overrides::default()
        };
        Ok(Config::load(self.config.as_deref(), overrides)?)
    }
}

/// Lets agents in, shows them, and turns them out.
#[derive(Debug, clap::Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Prints a token by which one host enrols, once
    Add {
        /// The agent's name: 1 to 64 characters of [a-z0-9.-]
        name: String,
        /// How long the token is good: 90s, 30m, 1h, 2d
        #[arg(long, default_value = "1h", value_parser = duration)]
        expires: u64,
        /// The URL under which the host reaches this collector [default: by grpc.listen and this host's name]
        #[arg(long, value_name = "URL")]
        collector: Option<String>,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Shows the agents that were enrolled
    List {
        /// Prints a JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Turns an agent out, for good: its stream ends at once, and its name is not given again
    Revoke {
        /// The agent
        name: String,
        /// Why, for those who read the list
        #[arg(long, default_value = "no reason was given")]
        reason: String,
        #[command(flatten)]
        which: Which,
    },
    /// Asks an agent to go on with another batch key, which it makes on its host and announces under the present one
    RotateKey {
        /// The agent
        name: String,
        #[command(flatten)]
        which: Which,
    },
}

/// The collector's own certificate authority.
#[derive(Debug, clap::Args)]
pub struct CaArgs {
    #[command(subcommand)]
    what: CaWhat,
}

#[derive(Debug, Subcommand)]
enum CaWhat {
    /// Shows which authorities are trusted, and which agents have a certificate of the newest
    Show(#[command(flatten)] Which),
    /// Makes another authority: it issues from now on, agents that are connected renew at once, and the former stays trusted
    Rotate(#[command(flatten)] Which),
    /// Ends the trust in all authorities but the newest; whoever has no certificate of that must enrol again
    DropFormer {
        /// Also if agents are still without
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        which: Which,
    },
}

/// Runs `agent`.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub fn agent(args: AgentArgs) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Add {
            name,
            expires,
            collector,
            json,
            which,
        } => add(&which, &name, expires, collector, json)?,
        What::List { json, which } => list(&which, json)?,
        What::Revoke { name, reason, which } => revoke(&which, &name, reason)?,
        What::RotateKey { name, which } => rotate_key(&which, &name)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `ca`.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub fn ca(args: CaArgs) -> anyhow::Result<ExitCode> {
    match args.what {
        CaWhat::Show(which) => {
            let (config, registry) = open(&which)?;
            let own = Own::open(&registry, &log_name(&config))?;
            for certificate in own.certificates() {
                let facts = ::trust::facts(&certificate)?;
                println!(
                    "{}  {}  until {}",
                    hex::encode(::trust::digest(&certificate)),
                    facts.common_name.unwrap_or_default(),
                    date(facts.not_after)
                );
            }
            let late = late(&registry)?;
            if !late.is_empty() {
                println!("without a certificate of the newest: {}", late.join(", "));
            }
        }
        CaWhat::Rotate(which) => {
            let (config, registry) = open(&which)?;
            Own::open(&registry, &log_name(&config))?;
            Own::rotate(&registry, &log_name(&config))?;
            println!(
                "there is another authority; `ca show` says who has no certificate of it yet, `ca drop-former` ends the change"
            );
        }
        CaWhat::DropFormer { force, which } => {
            let (_, registry) = open(&which)?;
            let late = late(&registry)?;
            ensure!(
                force || late.is_empty(),
                "these agents have no certificate of the newest authority and would have to enrol again: {}. Wait until they were \
                 connected, or say --force",
                late.join(", ")
            );
            let dropped = Own::drop_former(&registry)?;
            println!("{dropped} authorities are not trusted any more");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add(
    which: &Which,
    name: &str,
    expires_s: u64,
    collector: Option<String>,
    json: bool,
) -> anyhow::Result<()> {
    ensure!(
        evidence::is_agent_id(name),
        "{name:?} cannot be an agent's name: 1 to 64 characters of [a-z0-9.-]"
    );
    let (config, registry) = open(which)?;
    ensure!(
        config.trust.certificate.is_none(),
        "this collector goes by an operator's certificates (trust.certificate): that authority lets agents in"
    );
    let known = registry.agent(name)?;
    if let Some(revoked) = known.as_ref().and_then(|known| known.revoked.as_ref()) {
        bail!(
            "the agent {name:?} was revoked ({}): take another name",
            revoked.reason
        );
    }
    let own = Own::open(&registry, &log_name(&config))?;
    let token = Token::new(name, own.newest()?.pin());
    let expires = unix_s().saturating_add(expires_s);
    registry.hand_out(&token, expires)?;
    let url = collector.unwrap_or_else(|| url(&config));
    let command = format!("pgwitness-agent enroll --collector {url} --token {token}");
    if json {
        let said = serde_json::json!({"agent": name, "token": token.to_string(), "collector": url,
            "expires": date(expires), "command": command});
        println!("{said}");
        return Ok(());
    }
    println!("{command}");
    eprintln!(
        "Run this on the host of {name}, as root, until {}. It is good for one enrolment.",
        date(expires)
    );
    if !config.tls() {
        eprintln!(
            "This collector does not speak TLS at {}: set trust.tls = true, or another address in grpc.listen.",
            config.grpc.listen
        );
    }
    Ok(())
}

fn list(which: &Which, json: bool) -> anyhow::Result<()> {
    let (_, registry) = open(which)?;
    for agent in registry.all()? {
        if json {
            println!("{}", serde_json::to_string(&agent)?);
            continue;
        }
        let state = match &agent.revoked {
            Some(revoked) => format!("revoked {} ({})", date(revoked.at_unix_s), revoked.reason),
            None if agent.not_after_unix_s < unix_s() => {
                format!("its certificate has expired {}", date(agent.not_after_unix_s))
            }
            None => format!("certificate until {}", date(agent.not_after_unix_s)),
        };
        let asked = if agent.rotate_key.is_some() {
            ", asked for another batch key"
        } else {
            ""
        };
        println!(
            "{}  enrolled {}  {state}{asked}",
            agent.agent_id,
            date(agent.enrolled_unix_s)
        );
    }
    Ok(())
}

fn revoke(which: &Which, name: &str, reason: String) -> anyhow::Result<()> {
    let (config, registry) = open(which)?;
    registry.create()?;
    let known = registry.agent(name)?;
    // One that came without a token is in the record alone.
    let delivered = config
        .data
        .join("evidence/agents")
        .join(format!("{name}.json"))
        .exists();
    ensure!(
        known.is_some() || delivered,
        "no agent {name:?} is known: `pgwitness-collector agent list` names them"
    );
    let agent = Enrolled {
        agent_id: name.to_owned(),
        revoked: Some(Revoked {
            at_unix_s: unix_s(),
            reason,
        }),
        certificates: Vec::new(),
        ..known.unwrap_or_default()
    };
    registry.write(&agent)?;
    println!("{name} is revoked");
    Ok(())
}

fn rotate_key(which: &Which, name: &str) -> anyhow::Result<()> {
    let (config, registry) = open(which)?;
    registry.create()?;
    let key = log::key_of(&config.data, name)?;
    let agent = Enrolled {
        agent_id: name.to_owned(),
        rotate_key: Some(hex::encode(key.as_bytes())),
        ..registry.agent(name)?.unwrap_or_default()
    };
    registry.write(&agent)?;
    println!("{name} is asked for another batch key; it goes on with it when it is connected");
    Ok(())
}

/// Agents that are in and have no certificate of the newest authority.
fn late(registry: &Registry) -> anyhow::Result<Vec<String>> {
    let newest = registry.newest_authority().map(hex::encode);
    let all = registry.all()?.into_iter();
    let late =
        all.filter(|agent| agent.revoked.is_none() && agent.enrolled_unix_s > 0 && agent.authority != newest);
    Ok(late.map(|agent| agent.agent_id).collect())
}

fn open(which: &Which) -> anyhow::Result<(Config, Registry)> {
    let config = which.config()?;
    let data = fs::metadata(&config.data);
    data.with_context(|| {
        format!(
            "there is no data folder of a collector at {}: start it first, or name another one with --data",
            config.data.display()
        )
    })?;
    let registry = Registry::in_data(&config.data);
    Ok((config, registry))
}

/// Name of the log, for the names of authorities.
fn log_name(config: &Config) -> String {
    let origin = log::origin_of(&config.data).unwrap_or_default();
    let name = origin.strip_prefix(ORIGIN_PREFIX).map(str::to_owned);
    name.or_else(|| config.log.name.clone())
        .unwrap_or_else(|| "collector".to_owned())
}

/// Where hosts reach the collector, as far as that can be told from here.
fn url(config: &Config) -> String {
    match &config.grpc.listen {
        Place::Tcp(address) if !address.ip().is_unspecified() => format!("https://{address}"),
        Place::Tcp(address) => {
            let name = nix::unistd::gethostname().unwrap_or_default();
            format!("https://{}:{}", name.to_string_lossy(), address.port())
        }
        Place::Unix(_) => "https://COLLECTOR:7433".to_owned(),
    }
}

/// RFC 3339.
pub(crate) fn date(unix_s: u64) -> String {
    let at = i64::try_from(unix_s)
        .ok()
        .and_then(|unix_s| jiff::Timestamp::from_second(unix_s).ok());
    at.map_or_else(|| unix_s.to_string(), |at| at.to_string())
}

/// Longest that a token may be good for: a month.
const MAX_EXPIRES_S: u64 = 31 * 86_400;

/// Seconds of a text such as `90s`, `30m`, `1h`, `2d`.
fn duration(text: &str) -> Result<u64, String> {
    let unit = text.char_indices().next_back();
    let parsed = unit.and_then(|(at, unit)| {
        let number: u64 = text.get(..at)?.parse().ok()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        number.checked_mul(seconds)
    });
    parsed
        .filter(|seconds| (1..=MAX_EXPIRES_S).contains(seconds))
        .ok_or_else(|| "it must be a number and s, m, h or d, and 31 days at the most".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let read: Vec<_> = ["90s", "30m", "1h", "2d"]
            .iter()
            .map(|text| duration(text))
            .collect();
        assert_eq!(read, [Ok(90), Ok(1800), Ok(3600), Ok(172_800)]);
        for wrong in [
            "",
            "h",
            "1",
            "1w",
            "-1h",
            "0s",
            "99999999999999999999d",
            "32d",
            "1é",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
