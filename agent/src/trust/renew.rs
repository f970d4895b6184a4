//! Another certificate before the one that the agent has expires, over the connection that this one opens.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use proto::v1::{RenewRequest, enrolment_client::EnrolmentClient};
use tracing::{info, warn};

use super::{Connector, Files};

/// The longest time without a look at the clock: clocks are set, and hosts sleep.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The longest pause behind a failure.
const PAUSE: u64 = 300;

/// Renews for as long as it is let: at two thirds of a certificate's life, and when the collector asks for it.
pub async fn renew(connector: Arc<Connector>) {
    let Some((_, files @ Files::Enrolled { .. })) = &connector.tls else {
        return;
    };
    let mut told = false;
    loop {
        let (due, life_s) = match files.facts() {
            Ok(facts) => {
                let life = facts.not_after.saturating_sub(facts.not_before);
                (facts.not_before + life / 3 * 2, life)
            }
            // Whatever is wrong with it, connecting says it, too.
            Err(_) => (u64::MAX, LOOK_EVERY.as_secs()),
        };
        let asked = tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(due.saturating_sub(now())).min(LOOK_EVERY)) => false,
            () = connector.renewal.notified() => true,
        };
        if !asked && now() < due {
            continue;
        }
        match once(&connector, files).await {
            Ok(()) => {
                told = false;
                info!("the certificate for the collector was renewed");
            }
            Err(problem) => {
                if !std::mem::replace(&mut told, true) {
                    let advice = connector.advice(&problem).map(|advice| format!(" ({advice})"));
                    warn!(
                        "the certificate for the collector cannot be renewed yet{}: {problem:#}",
                        advice.unwrap_or_default()
                    );
                }
                if asked {
                    connector.renewal.notify_one();
                }
                tokio::time::sleep(Duration::from_secs((life_s / 20).clamp(1, PAUSE))).await;
            }
        }
    }
}

async fn once(connector: &Connector, files: &Files) -> anyhow::Result<()> {
    let mut client = EnrolmentClient::new(connector.connect().await?);
    let (key, csr) = ::trust::request()?;
    let given = client
        .renew(RenewRequest { csr })
        .await
        .context("the collector refuses")?;
    let given = given.into_inner();
    files.keep(&key, given.certificate, given.authorities)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
