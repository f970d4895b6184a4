//! gRPC `pgwitness.v1.Enrolment`: an agent's first certificate for a token, and the next one for the one that it has.
//!
//! A token is the operator's, once; or a service account's, which the API server vouches for each time.

use std::sync::Arc;

use ::trust::{check_proof, is_agent_of, requested};
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
    service_account::{AgentPod, Reviewer, Unvouched},
    unix_s,
};
use crate::{alarms::Alarm, log::Log, metrics::Metrics};

/// Longest message: a request for a certificate takes some 300 bytes.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// New agents of one node within a day. Each takes a place in the log for good, of 10,000 that all nodes share; a node that is set up
/// anew takes one.
const NEW_AGENTS: usize = 8;
const DAY_S: u64 = 86_400;

/// Gives certificates out.
#[derive(Clone)]
pub(crate) struct EnrolmentService {
    pub(crate) registry: Registry,
    pub(crate) admission: Admission,
    pub(crate) log: Arc<Log>,
    pub(crate) metrics: Arc<Metrics>,
    /// Seconds for which a certificate is good.
    pub(crate) lifetime_s: u64,
    /// Asks about tokens of service accounts, where these open anything.
    pub(crate) reviewer: Option<Reviewer>,
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

    /// What is known of an agent, unless it was turned out.
    fn not_revoked(&self, id: &str) -> Result<Option<Enrolled>, Status> {
        let known = self.registry.agent(id).map_err(internal)?;
        if let Some(revoked) = known.as_ref().and_then(|known| known.revoked.as_ref()) {
            let reason = format!(
                "the agent {id:?} is revoked ({}): take another name",
                revoked.reason
            );
            return Err(self.refuse(Alarm::RevokedAgent, id, reason));
        }
        Ok(known)
    }

    /// Enrols the agent of a node, by the token of its pod. It may come again, as often as a pod starts.
    async fn enrol_pod(&self, asked: &EnrolRequest) -> Result<Certificates, Status> {
        let id = &asked.agent_id;
        let bad = |reason: String| self.refuse(Alarm::BadToken, id, reason);
        let Some(reviewer) = &self.reviewer else {
            return Err(bad(
                "this collector takes no tokens of service accounts (trust.service_account)".to_owned(),
            ));
        };
        let key = check_proof(
            &asked.public_key,
            &asked.signature,
            id,
            asked.service_account_token.as_bytes(),
            &asked.csr,
        )
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
        requested(&asked.csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        // Before it is this one's turn: the API server can be slow, and others do not need it.
        let pod = reviewer.review(&asked.service_account_token).await;
        let pod = pod.map_err(|why| match why {
            Unvouched::Refused(why) => bad(why),
            Unvouched::Unanswered(error) => internal(error),
        })?;
        let _turn = self.turn.lock().await;
        let known = self.not_revoked(id)?;
        match known.as_ref().and_then(|known| known.node.as_deref()) {
            Some(node) if node == pod.node => {}
            // Also if an operator enrolled one of this name: a pod does not become that.
            _ if known.is_some() || !is_agent_of(id, &pod.node) => {
                let reason = format!("the agent of the node {:?} cannot be {id:?}", pod.node);
                return Err(bad(reason));
            }
            _ => {}
        }
        let others = self.registry.all().map_err(internal)?.into_iter();
        let others: Vec<Enrolled> = others
            .filter(|other| other.node.as_ref() == Some(&pod.node) && other.agent_id != *id)
            .collect();
        // Whoever is turned out does not come again by throwing its key away.
        for other in &others {
            self.not_revoked(&other.agent_id)?;
        }
        let now = unix_s();
        let recent = |other: &&Enrolled| now.saturating_sub(other.enrolled_unix_s) < DAY_S;
        if known.is_none() && others.iter().filter(recent).count() >= NEW_AGENTS {
            return Err(bad(format!(
                "the node {:?} has had {NEW_AGENTS} agents within a day: no further one is let in as yet",
                pod.node
            )));
        }
        let met = self.log.hello(id.clone(), key).await.map_err(internal)?;
        met.map_err(Status::permission_denied)?;
        self.replace(others, id, &pod).map_err(internal)?;
        let agent = Enrolled {
            agent_id: id.clone(),
            enrolled_unix_s: now,
            node: Some(pod.node.clone()),
            ..known.unwrap_or_default()
        };
        let issued = self.issue(agent, &asked.csr, true).map_err(internal)?;
        tracing::info!(agent = id, node = pod.node, pod = pod.uid, "enrolled");
        Ok(issued)
    }

    /// A node has one agent: if it was set up anew, with another key, the former agent's certificates end.
    fn replace(&self, others: Vec<Enrolled>, id: &str, pod: &AgentPod) -> anyhow::Result<()> {
        for mut other in others {
            if !other.certificates.is_empty() {
                tracing::warn!(
                    agent = id,
                    node = pod.node,
                    former = other.agent_id,
                    "another agent has enrolled for this node; the former one is not let in any more"
                );
                other.certificates.clear();
                self.registry.write(&other)?;
            }
        }
        Ok(())
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
        if !asked.service_account_token.is_empty() {
            return self.enrol_pod(&asked).await.map(Response::new);
        }
        let _turn = self.turn.lock().await;
        let handed = self.registry.token(&asked.secret).map_err(internal)?;
        let handed = handed.map_err(|why| self.unusable(&why, &asked.agent_id))?;
        let id = handed.agent_id;
        if asked.agent_id != id {
            let reason = format!("the token is for another agent than {:?}", asked.agent_id);
            return Err(self.refuse(Alarm::BadToken, &id, reason));
        }
        let known = self.not_revoked(&id)?;
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
