//! `pgwitness-agent enroll`: with the operator's token to this host's first certificate.
//!
//! Both keys are made here and stay here. The token says which collector it is before anything is said to it.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
    process::ExitCode,
};

use ::trust::{COLLECTOR_NAME, Token, pinned, rustls::pki_types::ServerName};
use anyhow::{Context as _, bail, ensure};
use proto::v1::{EnrolRequest, enrolment_client::EnrolmentClient};

use super::{Files, Place, advice, connect, files::put};
use crate::{
    config::{Config, ENVIRONMENT},
    identity::{self, Identity},
    sensitive,
};

/// Enrols this host with a collector; run it as the user that the agent runs as, while the agent is stopped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The collector, as in https://collector.example:7433
    #[arg(long, value_name = "URL")]
    collector: String,
    /// The token that `pgwitness-collector agent add` printed; `-` reads it from standard input
    #[arg(
        long,
        value_name = "TOKEN",
        env = "PGWITNESS_ENROL_TOKEN",
        hide_env_values = true
    )]
    token: String,
    /// The key that agents share whose hosts' connections are to be joined (`fleet-key`): it is looked at, and kept in the state
    /// folder, where identity.fleet_key finds it
    #[arg(long, value_name = "FILE")]
    fleet_key: Option<PathBuf>,
    /// The agent's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for key and state [default: /var/lib/pgwitness-agent]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut config: Config = settings::load(Config::default(), args.config.as_deref(), ENVIRONMENT)?;
    config.state_dir = args.state_dir.unwrap_or(config.state_dir);
    let Some(place) = Place::of(&args.collector) else {
        bail!(
            "{:?} is no place to enrol at: it must be https://, the collector's name or address, and its port, as in \
             https://collector.example:7433",
            args.collector
        );
    };
    let token: Token = match args.token.as_str() {
        "-" => std::io::read_to_string(std::io::stdin())?.parse()?,
        token => token.parse()?,
    };
    if let Some(id) = config.agent.id.as_deref().filter(|id| **id != *token.agent_id) {
        bail!(
            "agent.id is {id:?}, but the token is for {:?}: leave agent.id out, or have a token made for that name",
            token.agent_id
        );
    }
    let host = config.agent.host.clone().unwrap_or_else(identity::host_name);
    // Makes the batch key, if there is none yet, and keeps any agent out meanwhile.
    let identity = Identity::open(&config.state_dir, &host, Some(token.agent_id.as_str()))?;
    let files = Files::enrolled(&config.state_dir, &place);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(enroll(&place, &token, &identity, &files))?;
    if let Some(file) = &args.fleet_key {
        sensitive::keys_of("--fleet-key", file)?;
        let kept = config.state_dir.join("fleet.key");
        put(&kept, &std::fs::read_to_string(file)?)?;
        println!("set identity.fleet_key = {:?}", kept.display().to_string());
    }
    println!("enrolled as {} with {}", token.agent_id, args.collector);
    println!("from now on: pgwitness-agent run --collector {}", args.collector);
    Ok(ExitCode::SUCCESS)
}

async fn enroll(place: &Place, token: &Token, identity: &Identity, files: &Files) -> anyhow::Result<()> {
    let addresses: Vec<SocketAddr> = (place.host.as_str(), place.port)
        .to_socket_addrs()
        .with_context(|| format!("this host does not find {}", place.host))?
        .collect();
    ensure!(!addresses.is_empty(), "this host does not find {}", place.host);
    let name = ServerName::try_from(COLLECTOR_NAME)?;
    let channel = connect(pinned(token.pin)?, name, addresses).await;
    let channel = channel.map_err(|problem| {
        let text = format!("{problem:#} {problem:?}");
        let told = if text.contains("UnknownIssuer") {
            Some("what answers there is not the collector that made the token: is the URL right? If it is, somebody is in between")
        } else {
            advice(&text)
        };
        match told {
            Some(told) => problem.context(told),
            None => problem.context("the collector cannot be reached (is it running, and is the port open?)"),
        }
    })?;
    let (key, csr) = ::trust::request()?;
    let signature = ::trust::proof(&identity.key, &token.agent_id, &token.secret, &csr);
    let request = EnrolRequest {
        agent_id: token.agent_id.clone(),
        secret: token.secret.to_vec(),
        public_key: identity.key.verifying_key().as_bytes().to_vec(),
        signature: signature.to_vec(),
        csr,
    };
    let given = EnrolmentClient::new(channel).enrol(request).await;
    let given = given.map_err(|status| match status.code() {
        tonic::Code::Unimplemented => {
            anyhow::anyhow!("the collector goes by an operator's certificates: set delivery.tls in the agent's configuration")
        }
        _ => anyhow::anyhow!("the collector refuses: {}", status.message()),
    })?;
    let given = given.into_inner();
    files.keep(&key, given.certificate, given.authorities)
}
