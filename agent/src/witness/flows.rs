//! Whose connections lead from this host to PostgreSQL servers elsewhere: the client's end of sessions that another agent
//! witnesses.

use ebpf_abi::OwnerFact;
use proto::v1;

use super::{Discard, Witness};
use crate::{
    clock::boot_ns,
    facts::flows::Flow,
    record::{self, Encoded},
};

/// Connections that were not told because the agent was paused.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    since: u64,
    count: u64,
}

impl Witness {
    /// Connections to servers elsewhere that were told since the start.
    pub fn flows_told(&self) -> u64 {
        self.flows.told()
    }

    /// Those that were not, because too many waited.
    pub fn flows_full(&self) -> u64 {
        self.flows.full()
    }

    /// A client of this host began to speak to a server, wherever that is. It is what it was when it connected.
    pub(super) fn flow(&mut self, fact: &OwnerFact) {
        if self.cgroups.is_outside(fact.cgroup_id) {
            return;
        }
        let (peer, opened) = self
            .connections
            .client(fact, &mut self.processes, &mut self.cgroups);
        let flow = Flow {
            fact: *fact,
            opened,
            peer,
        };
        self.flows.began(flow);
    }

    /// Tells of the connections that nobody here was seen to serve: all of them, if it is the `last` time.
    pub fn tell_flows(&mut self, last: bool, out: &mut impl FnMut(&Encoded)) {
        let now = if last { u64::MAX } else { self.old.round_began };
        let is_paused = self.discard == Some(Discard::Paused);
        while let Some(flow) = self.flows.due(now) {
            if is_paused {
                if self.flows_skipped.count == 0 {
                    self.flows_skipped.since = flow.opened;
                }
                self.flows_skipped.count += 1;
                continue;
            }
            let answer = attribution::attribute(&self.host, &flow.peer);
            let event = record::flow_owner(&flow, &answer, self.clock);
            out(&Encoded::of(&event));
        }
    }

    /// What a pause made nobody tell.
    pub(super) fn tell_skipped_flows(&mut self, out: &mut impl FnMut(&Encoded)) {
        let skipped = std::mem::take(&mut self.flows_skipped);
        if skipped.count == 0 {
            return;
        }
        let gap = v1::Gap {
            reason: Discard::Paused.reason().to_owned(),
            events_missing: Some(skipped.count),
            detail: "connections of this host's clients to servers elsewhere".to_owned(),
            ..v1::Gap::default()
        };
        let body = v1::event::Body::Gap(gap);
        out(&Encoded::own_since(skipped.since, boot_ns(), self.clock, body));
    }
}
