//! What waits for the name of a pod, and what is said of it.

use std::{net::IpAddr, sync::Arc};

use attribution::POD_VERSION;
use compact_str::CompactString;
use prost::Message;
use proto::v1::{self, event};

/// What waits for a name.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Whose words it is of, and of which session or statements.
    pub(super) agent: Arc<str>,
    pub(super) session: CompactString,
    pub(super) events: Box<[u64]>,
    /// The event that gets the name; it is an amendment of this collector's.
    pub(super) input: String,
    pub(super) amended: bool,
    /// Its attribution, encoded.
    pub(super) attribution: Box<[u8]>,
    pub(super) of: Of,
    pub(super) since: u64,
}

/// By what it may be named.
#[derive(Debug)]
pub(super) enum Of {
    Uid(CompactString),
    /// Where the session came from, and when.
    Address {
        address: IpAddr,
        at: u64,
    },
}

/// What goes into one batch.
#[derive(Default)]
pub(super) struct Saying {
    pub(super) events: Vec<v1::Event>,
    bytes: usize,
}

impl Saying {
    pub(super) fn push(&mut self, event: v1::Event) {
        self.bytes += event.encoded_len();
        self.events.push(event);
    }

    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= crate::join::BATCH_EVENTS || self.bytes >= crate::join::BATCH_BYTES
    }
}

impl Waiting {
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.session.len()
            + self.attribution.len()
            + size_of_val(&*self.events)
            + self.input.len()
    }

    pub(super) fn event(&self, named: v1::Attribution, how: &str, pod_event: String, now: u64) -> v1::Event {
        v1::Event {
            ts_start_ns: now,
            ts_end_ns: now,
            attribution: Some(named),
            body: Some(event::Body::Amendment(v1::Amendment {
                agent_id: self.agent.to_string(),
                session: self.session.to_string(),
                inputs: vec![self.input.clone(), pod_event],
                join_version: POD_VERSION,
                r#match: how.to_owned(),
                events: self.events.to_vec(),
            })),
            ..v1::Event::default()
        }
    }
}
