//! Amendments of statements made again.
//!
//! Each statement is decided from what the pooler's host told of its connection, as far as the amendment names that, by the same
//! pure function that made it; and what follows from that has to be what the amendment says.

use std::collections::HashMap;

use ::lease::{Asked, Decision, Kind};
use anyhow::{Context, bail, ensure};
use attribution::{POOLERS, may_be_joined, portion};
use proto::{
    json,
    v1::{self, event::Body},
};

use super::Library;
use crate::join::leases::{Said, Told, taken_back};

/// What an amendment of statements rests on.
#[derive(Default)]
struct Inputs {
    /// The agent on the pooler's host.
    agent: String,
    /// The client, and its attribution as that host or a third one told it.
    client: Option<(String, v1::Attribution)>,
    connections: HashMap<u64, Connection>,
}

/// A pooler's end.
#[derive(Default)]
struct Connection {
    id: String,
    /// The pooler's own attribution.
    pooler: v1::Attribution,
    told: Told,
    names: Vec<String>,
}

impl Library<'_> {
    /// Whether the rules make this attribution of the inputs, for each statement.
    pub(super) fn statements_follow(
        &mut self,
        own: &str,
        amendment: &v1::Amendment,
        attribution: &v1::Attribution,
    ) -> anyhow::Result<()> {
        if amendment.r#match == POOLERS {
            let [id] = amendment.inputs.as_slice() else {
                bail!("it names {} events, expected one", amendment.inputs.len());
            };
            let (agent, told) = self.event(id)?;
            let session = told.session.unwrap_or_default();
            ensure!(
                agent == amendment.agent_id && session.id == amendment.session,
                "event {id} is of another session"
            );
            let recorded = told.attribution.unwrap_or_default();
            ensure!(
                *attribution == taken_back(&recorded),
                "it is not what was recorded"
            );
            return Ok(());
        }
        let mut inputs = self.inputs(own, amendment)?;
        for seq in json::summed(&amendment.events) {
            let id = json::event_id(&amendment.agent_id, seq);
            let (_, told) = self.event(&id)?;
            inputs
                .makes(&amendment.agent_id, &told, amendment, attribution)
                .with_context(|| format!("statement {id}"))?;
        }
        Ok(())
    }

    fn inputs(&mut self, own: &str, amendment: &v1::Amendment) -> anyhow::Result<Inputs> {
        let mut inputs = Inputs::default();
        for id in &amendment.inputs {
            let (agent, told) = self.event(id)?;
            let recorded = told.attribution.unwrap_or_default();
            match told.body {
                // It amends the client that was named before it.
                Some(Body::Amendment(of)) => match &mut inputs.client {
                    Some((session, attribution))
                        if agent == own && of.agent_id == inputs.agent && of.session == *session =>
                    {
                        *attribution = recorded;
                        continue;
                    }
                    _ => bail!("event {id} amends something else"),
                },
                Some(Body::PoolerClient(_)) if inputs.client.is_none() => {
                    inputs.client = Some((told.session.unwrap_or_default().id, recorded));
                }
                Some(Body::PoolerTraffic(of)) => inputs
                    .push(&of, recorded)
                    .with_context(|| format!("event {id}"))?,
                _ => bail!("event {id} tells nothing of a pooler"),
            }
            if inputs.agent.is_empty() {
                inputs.agent.clone_from(&agent);
            }
            ensure!(inputs.agent == agent, "event {id} is of another host");
        }
        Ok(inputs)
    }
}

impl Inputs {
    fn push(&mut self, of: &v1::PoolerTraffic, pooler: v1::Attribution) -> anyhow::Result<()> {
        let fingerprint = of.fingerprint.context("its connection is not known")?;
        let connection = self.connections.entry(fingerprint).or_default();
        if connection.id.is_empty() {
            connection.id.clone_from(&of.connection);
        }
        ensure!(connection.id == of.connection, "it is of another connection");
        let names = &mut connection.names;
        let number = |session: &str| {
            let known = names.iter().position(|name| name == session);
            known.unwrap_or_else(|| {
                names.push(session.to_owned());
                names.len() - 1
            }) as u64
        };
        let portion = portion(of, number).context("its pieces make no sense")?;
        connection.told.push(0, Kind::named(&of.program), portion);
        connection.pooler = pooler;
        Ok(())
    }

    /// Whether a statement's attribution is this one.
    fn makes(
        &mut self,
        at_server: &str,
        told: &v1::Event,
        amendment: &v1::Amendment,
        attribution: &v1::Attribution,
    ) -> anyhow::Result<()> {
        let (session, recorded) = (told.session.as_ref(), told.attribution.as_ref());
        let (Some(session), Some(recorded), Some(Body::Query(query))) = (session, recorded, &told.body)
        else {
            bail!("is none");
        };
        ensure!(may_be_joined(session, recorded), "is not to be joined");
        let connection = session
            .fingerprint
            .and_then(|fingerprint| self.connections.get_mut(&fingerprint));
        let connection = connection.context("came over another connection")?;
        let stream = query.stream.context("stands nowhere")?;
        let mut asked = Asked {
            request: stream.request_from..stream.request_to,
            response_to: (stream.response_to != 0).then_some(stream.response_to),
            began: 0,
            simple: query.protocol == i32::from(v1::Protocol::Simple),
            last: false,
        };
        let mut decision = connection.told.decide(&asked);
        if decision == Decision::NotYet {
            asked.last = true;
            decision = connection.told.decide(&asked);
        }
        let names = &connection.names;
        let name = |client: u64| names.get(client as usize).map_or("", String::as_str);
        let said = Said::of(decision, name).context("is not decided")?;
        let client = match (&said, &self.client) {
            (Said::Client(session, _), Some((known, attribution))) => {
                ensure!(session == known, "is another client's");
                Some(attribution)
            }
            (Said::Client(..), None) => None,
            (_, Some(_)) => bail!("is no client's"),
            (_, None) => None,
        };
        let (expected, how) = said.attribution((&self.agent, at_server), &connection.pooler, client);
        ensure!(
            how == amendment.r#match,
            "is told by {how}, it says {:?}",
            amendment.r#match
        );
        ensure!(expected == *attribution, "has another attribution by the rules");
        Ok(())
    }
}
