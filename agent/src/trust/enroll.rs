//! `pgwitness-agent enroll`: with the operator's token to this host's first certificate, or by a service account of Kubernetes.
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
use tonic::transport::Channel;

use super::{
    Files, Place, advice, connect,
    files::put,
    service_account::{self, Account},
};
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
        hide_env_values = true,
        required_unless_present = "service_account"
    )]
    token: Option<String>,
    /// In a pod of Kubernetes, in place of a token: the file with the token of its service account. It waits for what is not there yet
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "token",
        requires = "authorities",
        requires = "node"
    )]
    service_account: Option<PathBuf>,
    /// With it: the file with the certificates of the collector's authorities
    #[arg(long, value_name = "FILE", requires = "service_account")]
    authorities: Option<PathBuf>,
    /// With it: the node that the pod is on
    #[arg(long, value_name = "NAME", requires = "service_account")]
    node: Option<String>,
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
    if let (Some(token), Some(authorities), Some(node)) = (args.service_account, args.authorities, args.node)
    {
        let account = Account {
            token,
            authorities,
            node,
        };
        let id = service_account::enroll(&config, &place, &account)?;
        println!("enrolled as {id} with {}", args.collector);
        return Ok(ExitCode::SUCCESS);
    }
    let token: Token = match args.token.as_deref() {
        Some("-") | None => std::io::read_to_string(std::io::stdin())?.parse()?,
        Some(token) => token.parse()?,
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
    let name = ServerName::try_from(COLLECTOR_NAME)?;
    let channel = connect(pinned(token.pin)?, name, addresses(place)?).await;
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
    let by = EnrolRequest {
        agent_id: token.agent_id.clone(),
        secret: token.secret.to_vec(),
        ..EnrolRequest::default()
    };
    ask(channel, identity, by, files).await
}

/// The addresses of a collector's place.
pub(super) fn addresses(place: &Place) -> anyhow::Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = (place.host.as_str(), place.port)
        .to_socket_addrs()
        .with_context(|| format!("this host does not find {}", place.host))?
        .collect();
    ensure!(!addresses.is_empty(), "this host does not find {}", place.host);
    Ok(addresses)
}

/// Asks for a certificate for a new TLS key, in a name and by what opens the way to it, and keeps what is given.
pub(super) async fn ask(
    channel: Channel,
    identity: &Identity,
    by: EnrolRequest,
    files: &Files,
) -> anyhow::Result<()> {
    let (key, csr) = ::trust::request()?;
    let secret = match by.service_account_token.as_bytes() {
        [] => by.secret.as_slice(),
        token => token,
    };
    let signature = ::trust::proof(&identity.key, &by.agent_id, secret, &csr);
    let request = EnrolRequest {
        public_key: identity.key.verifying_key().as_bytes().to_vec(),
        signature: signature.to_vec(),
        csr,
        ..by
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
