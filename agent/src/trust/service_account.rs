//! `pgwitness-agent enroll --service-account`: a node's agent enrols itself, by the account that its pod has in Kubernetes.
//!
//! It waits for whatever is not there yet, because pods start in any order. The collector is believed by its authorities, which it wrote
//! into a `ConfigMap`; the token is said to nobody else, and read anew for each attempt, because kubelet replaces it.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::trust::{COLLECTOR_NAME, agent_of, client, from_pem, is_agent_of, rustls::pki_types::ServerName};
use anyhow::Context as _;
use proto::v1::EnrolRequest;

use super::{
    Files, Place, advice, connect,
    enroll::{addresses, ask},
};
use crate::{config::Config, identity::Identity};

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(5);

/// What a pod has.
#[derive(Debug)]
pub(super) struct Account {
    /// The file with its token.
    pub(super) token: PathBuf,
    /// The file with the collector's authorities.
    pub(super) authorities: PathBuf,
    /// The node that it is on.
    pub(super) node: String,
}

/// Enrols, however long it takes, unless there is a certificate to go on with: then one attempt is enough. The agent's name.
///
/// # Errors
///
/// If what is needed to wait cannot be had.
pub(super) fn enroll(config: &Config, place: &Place, account: &Account) -> anyhow::Result<String> {
    let files = Files::enrolled(&config.state_dir, place);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut told = String::new();
    loop {
        let problem = match runtime.block_on(once(config, place, account, &files)) {
            Ok(id) => return Ok(id),
            Err(problem) => format!("{problem:#}"),
        };
        if let Some(id) = usable(&files) {
            tracing::warn!("not enrolled anew ({problem}): going on with the certificate that is there");
            return Ok(id);
        }
        if problem != told {
            tracing::warn!("not enrolled yet: {problem}");
            told = problem;
        }
        std::thread::sleep(PAUSE);
    }
}

async fn once(config: &Config, place: &Place, account: &Account, files: &Files) -> anyhow::Result<String> {
    let text = fs::read_to_string(&account.authorities).with_context(|| {
        format!(
            "the collector has not said by what it is known (no {})",
            account.authorities.display()
        )
    })?;
    let authorities = from_pem(&text)?;
    let token = fs::read_to_string(&account.token)
        .with_context(|| format!("cannot read the token {}", account.token.display()))?;
    // Makes the batch key, if there is none yet, and keeps any agent out meanwhile: the one before may not have ended.
    let identity = Identity::open(&config.state_dir, &account.node, None)?;
    let former = files.agents().ok().and_then(|names| names.into_iter().next());
    let agent_id = former
        .filter(|id| is_agent_of(id, &account.node))
        .unwrap_or_else(|| agent_of(&account.node, identity.key.verifying_key().as_bytes()));
    let name = ServerName::try_from(COLLECTOR_NAME)?;
    let channel = connect(client(&authorities, None)?, name, addresses(place)?).await;
    let channel = channel.map_err(|problem| match advice(&format!("{problem:#} {problem:?}")) {
        Some(told) => problem.context(told),
        None => problem.context("the collector cannot be reached"),
    })?;
    let by = EnrolRequest {
        agent_id: agent_id.clone(),
        service_account_token: token.trim().to_owned(),
        ..EnrolRequest::default()
    };
    ask(channel, &identity, by, files).await?;
    Ok(agent_id)
}

/// The agent's name, if it has a certificate that is good for now.
fn usable(files: &Files) -> Option<String> {
    files.client().ok()?;
    let facts = files.facts().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (facts.not_after > now.as_secs())
        .then(|| facts.agents.into_iter().next())
        .flatten()
}
