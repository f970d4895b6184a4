//! gRPC `pgwitness.v1.Enrolment`: an agent's first certificate for a token, and the next one for the one that it has.

use std::sync::Arc;

use ::trust::{check_proof, requested};
use anyhow::Context as _;
use proto::v1::{
    Certificates, EnrolRequest, RenewRequest,
    enrolment_server::{Enrolment, EnrolmentServer},
};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

use super::{
    Admission, Own, Peer,
    registry::{Enrolled, Registry, Unusable},
    unix_s,
};
use crate::{alarms::Alarm, log::Log, metrics::Metrics};

/// Longest message: a request for a certificate takes some 300 bytes.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// Gives certificates out.
#[derive(Clone)]
pub(crate) struct EnrolmentService {
    pub(crate) registry: Registry,
    pub(crate) admission: Admission,
    pub(crate) log: Arc<Log>,
    pub(crate) metrics: Arc<Metrics>,
    /// Seconds for which a certificate is good.
    pub(crate) lifetime_s: u64,
    /// One at a time: an agent's file is read and written.
    pub(crate) turn: Arc<Mutex<()>>,
}

impl EnrolmentService {
    /// As a server's service.
    pub(crate) fn into_service(self) -> EnrolmentServer<Self> {
        EnrolmentServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn refuse(&self, alarm: Alarm, agent_id: &str, reason: String) -> Status {
        self.metrics.alarm(alarm, agent_id, reason.clone());
        Status::permission_denied(reason)
    }

    fn unusable(&self, why: &Unusable, claimed: &str) -> Status {
        let agent_id = match why {
            Unusable::Used { agent_id } | Unusable::Expired { agent_id } => agent_id,
            Unusable::Unknown => claimed,
        };
        self.refuse(Alarm::BadToken, agent_id, why.to_string())
    }

    fn issue(&self, mut agent: Enrolled, csr: &[u8], alone: bool) -> anyhow::Result<Certificates> {
        let own = Own::open(&self.registry, "")?;
        let authority = own.newest()?;
        let now = unix_s();
        let certificate = authority.agent(&agent.agent_id, &requested(csr)?, now, self.lifetime_s)?;
        if alone {
            agent.certificates.clear();
        }
        let not_after = ::trust::facts(&certificate)?.not_after;
        agent.issued(&certificate, &authority.pin(), not_after);
        self.registry.write(&agent)?;
        Ok(Certificates {
            certificate: certificate.to_vec(),
            authorities: own
                .certificates()
                .iter()
                .map(|authority| authority.to_vec())
                .collect(),
        })
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<Certificates>, Status> {
        let asked = request.into_inner();
        let _turn = self.turn.lock().await;
        let handed = self.registry.token(&asked.secret).map_err(internal)?;
        let handed = handed.map_err(|why| self.unusable(&why, &asked.agent_id))?;
        let id = handed.agent_id;
        if asked.agent_id != id {
            let reason = format!("the token is for another agent than {:?}", asked.agent_id);
            return Err(self.refuse(Alarm::BadToken, &id, reason));
        }
        let known = self.registry.agent(&id).map_err(internal)?;
        if let Some(revoked) = known.as_ref().and_then(|known| known.revoked.as_ref()) {
            let reason = format!(
                "the agent {id:?} is revoked ({}): take another name",
                revoked.reason
            );
            return Err(self.refuse(Alarm::RevokedAgent, &id, reason));
        }
        requested(&asked.csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let key = check_proof(
            &asked.public_key,
            &asked.signature,
            &id,
            &asked.secret,
            &asked.csr,
        )
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !self.registry.use_up(&asked.secret).map_err(internal)? {
            let why = Unusable::Used { agent_id: id.clone() };
            return Err(self.unusable(&why, &id));
        }
        // From here on the batch key is this agent's, in the record, too.
        let met = self.log.hello(id.clone(), key).await.map_err(internal)?;
        met.map_err(|reason| {
            Status::permission_denied(format!(
                "{reason}: if this host lost its key, take another name for it (pgwitness-collector agent add)"
            ))
        })?;
        let agent = Enrolled {
            agent_id: id.clone(),
            enrolled_unix_s: unix_s(),
            ..known.unwrap_or_default()
        };
        let issued = self.issue(agent, &asked.csr, true).map_err(internal)?;
        tracing::info!(agent = id, "enrolled");
        Ok(Response::new(issued))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Certificates>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let asked = request.into_inner();
        let shown = peer.as_ref().and_then(|peer| peer.0.as_ref());
        let Some(shown) = shown else {
            return Err(Status::unauthenticated(
                "renewing takes the certificate that is to be renewed",
            ));
        };
        let Some(id) = shown.agents.first() else {
            return Err(Status::permission_denied("the certificate names no agent"));
        };
        let _turn = self.turn.lock().await;
        self.admission
            .admit(peer.as_ref(), id)
            .map_err(|refusal| self.refuse(refusal.alarm, id, refusal.reason))?;
        requested(&asked.csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let known = self.registry.agent(id).map_err(internal)?;
        let known = known.with_context(|| format!("no agent {id:?} was enrolled here"));
        let mut agent = known.map_err(|error| Status::permission_denied(error.to_string()))?;
        // Only the one that is shown stays beside the new one.
        agent
            .certificates
            .retain(|kept| *kept == hex::encode(shown.digest));
        let issued = self.issue(agent, &asked.csr, false).map_err(internal)?;
        tracing::info!(agent = id, "has a new certificate");
        Ok(Response::new(issued))
    }
}

fn internal(error: anyhow::Error) -> Status {
    tracing::error!(error = format!("{error:#}"), "no certificate could be given out");
    Status::unavailable(format!("{error:#}"))
}
