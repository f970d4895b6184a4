//! Amendments made again from what they name.
//!
//! Owns the comparison that `verify` makes: each amendment of the collector's own chain must be what the pure rules make of
//! the events that are its inputs, which lie in the same log. Refuses to say that nothing else fitted: what was known when
//! it was made is not in the log, only what it rests on.

mod leases;
mod pods;

use std::{collections::HashMap, path::Path};

use anyhow::{Context, bail, ensure};
use attribution::{
    Account, End, JOIN_VERSION, Joined, LEASE_VERSION, Match, POD_VERSION, TAKEN_BACK, amended, join,
    may_be_joined, taken_back,
};
use evidence::OpenedBatch;
use proto::{
    json,
    v1::{self, event::Body},
    whole,
};

use crate::log::{Contents, Places, Wrong};

/// What was checked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checked {
    pub(crate) amendments: u64,
    /// Of those, made by rules that this version does not have.
    pub(crate) of_other_rules: u64,
    /// Statements that were named by what a pooler's host saw.
    pub(crate) statements: u64,
    /// Amendments that cannot be made again, because something that they rest on was erased.
    pub(crate) of_erased: u64,
}

/// An event that cannot be asked any more.
#[derive(Debug, thiserror::Error)]
#[error("event {0} was erased, or removed with its payload")]
struct Erased(String);

/// Makes every amendment of a folder again; the first that does not follow is what is wrong. Payloads of entries below `begins` were
/// removed.
pub(crate) fn check(evidence: &Path, contents: &Contents, begins: u64) -> Result<Checked, Wrong> {
    let mut library = Library {
        contents,
        begins,
        places: Places::new(evidence),
        open: HashMap::new(),
    };
    let mut checked = Checked::default();
    for entry in &contents.amending {
        let wrong = |what: String| Wrong::new("payload", None, format!("entry {entry} of the log: {what}"));
        let batch = library.places.read(*entry);
        let batch = batch.map_err(|error| wrong(format!("{error:#}")))?;
        let numbers = (batch.header.first_event_seq..)
            .take(batch.events.len())
            .enumerate();
        for (_, seq) in numbers.filter(|(place, _)| !batch.is_event_erased(*place)) {
            let event = event_of(&batch, seq).map_err(|error| wrong(format!("{error:#}")))?;
            let Some(Body::Amendment(amendment)) = &event.body else {
                continue;
            };
            let of_statements = amendment.join_version == LEASE_VERSION;
            let of_pods = amendment.join_version == POD_VERSION;
            if of_statements {
                checked.statements += amendment.events.len() as u64;
            } else {
                checked.amendments += 1;
            }
            if !of_statements && !of_pods && amendment.join_version != JOIN_VERSION {
                checked.of_other_rules += 1;
                continue;
            }
            let attribution = event.attribution.clone().unwrap_or_default();
            let follows = if of_statements {
                library.statements_follow(&batch.header.agent_id, amendment, &attribution)
            } else if of_pods {
                library.pod_follows(&batch.header.agent_id, amendment, &attribution)
            } else {
                library.follows(amendment, &attribution)
            };
            if follows
                .as_ref()
                .is_err_and(|error| error.downcast_ref::<Erased>().is_some())
            {
                checked.of_erased += 1;
                continue;
            }
            follows.map_err(|error| {
                let id = json::event_id(&batch.header.agent_id, seq);
                wrong(format!(
                    "amendment {id} does not follow from its inputs: {error:#}"
                ))
            })?;
        }
    }
    Ok(checked)
}

/// Events by their ids.
struct Library<'a> {
    contents: &'a Contents,
    begins: u64,
    places: Places,
    open: HashMap<u64, OpenedBatch>,
}

impl Library<'_> {
    fn event(&mut self, id: &str) -> anyhow::Result<(String, v1::Event)> {
        let parts = id.rsplit_once('-');
        let parts = parts.and_then(|(agent, seq)| Some((agent, seq.parse().ok()?)));
        let (agent, seq): (&str, u64) = parts.with_context(|| format!("{id:?} is no event's id"))?;
        let entry = self.contents.entry(agent, seq);
        let entry = entry.with_context(|| format!("event {id} is not in the log"))?;
        if entry < self.begins {
            return Err(Erased(id.to_owned()).into());
        }
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&entry) {
            self.open.clear();
        }
        let batch = match self.open.entry(entry) {
            std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => place.insert(self.places.read(entry)?),
        };
        Ok((agent.to_owned(), event_of(batch, seq)?))
    }

    /// Whether the rules make this attribution of the inputs.
    fn follows(&mut self, amendment: &v1::Amendment, attribution: &v1::Attribution) -> anyhow::Result<()> {
        let Some((session_id, flow_ids)) = amendment.inputs.split_first() else {
            bail!("it names none");
        };
        let (agent, told) = self.event(session_id)?;
        let session = told.session.unwrap_or_default();
        let recorded = told.attribution.unwrap_or_default();
        ensure!(
            agent == amendment.agent_id && session.id == amendment.session,
            "event {session_id} is of another session"
        );
        ensure!(
            may_be_joined(&session, &recorded),
            "the session of event {session_id} is not to be joined"
        );
        let end = End::of(
            session.client.as_ref(),
            session.server.as_ref(),
            session.fingerprint,
            told.ts_start_ns,
        );
        let end = end.with_context(|| format!("event {session_id} tells of no end"))?;
        let at_server = Account {
            agent: &agent,
            event_id: session_id,
            end,
            attribution: &recorded,
        };
        let mut found = Vec::new();
        for flow_id in flow_ids {
            found.push(self.joined(&at_server, flow_id)?);
        }
        if amendment.r#match == TAKEN_BACK {
            // How many there were is in words alone.
            let mut shown = attribution.clone();
            ensure!(
                shown.evidence.pop().is_some() && !found.is_empty(),
                "it does not say why"
            );
            let mut expected = taken_back(&at_server, 0);
            expected.evidence.pop();
            ensure!(shown == expected, "it is not what was recorded");
            return Ok(());
        }
        let [(how, expected)] = found.as_slice() else {
            bail!("it names {} connections, expected one", found.len());
        };
        ensure!(
            amendment.r#match == how.name(),
            "the ends fit by {}, it says {:?}",
            how.name(),
            amendment.r#match
        );
        ensure!(
            expected.as_ref() == Some(attribution),
            "the rules make another attribution of them"
        );
        Ok(())
    }

    /// How a connection fits a session, and what follows.
    fn joined(
        &mut self,
        at_server: &Account<'_>,
        flow_id: &str,
    ) -> anyhow::Result<(Match, Option<v1::Attribution>)> {
        let (agent, told) = self.event(flow_id)?;
        let Some(Body::FlowOwner(flow)) = &told.body else {
            bail!("event {flow_id} tells of no connection");
        };
        let end = End::of(
            flow.client.as_ref(),
            flow.server.as_ref(),
            flow.fingerprint,
            told.ts_start_ns,
        );
        let end = end.with_context(|| format!("event {flow_id} tells of no end"))?;
        let recorded = told.attribution.clone().unwrap_or_default();
        let at_client = Account {
            agent: &agent,
            event_id: flow_id,
            end,
            attribution: &recorded,
        };
        match join(&at_server.end, [((), end)], |(), ()| true) {
            Joined::One((), how) => Ok((how, amended(at_server, &at_client, how))),
            _ => bail!("the connection of event {flow_id} is another one"),
        }
    }
}

fn event_of(batch: &OpenedBatch, seq: u64) -> anyhow::Result<v1::Event> {
    let nth = seq.checked_sub(batch.header.first_event_seq).map(usize::try_from);
    let nth = nth.and_then(Result::ok);
    if nth.is_some_and(|nth| batch.is_event_erased(nth)) {
        return Err(Erased(json::event_id(&batch.header.agent_id, seq)).into());
    }
    let encoded = nth.and_then(|nth| batch.events.get(nth));
    let encoded = encoded.with_context(|| format!("there is no event {seq}"))?;
    Ok(whole::event(seq, encoded, &batch.definitions)?)
}

/// Batches unpacked at a time.
const MAX_OPEN: usize = 16;
