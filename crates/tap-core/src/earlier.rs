//! Connections that are older than the tap on them: what is learnt of them elsewhere (the process title, a former run of
//! the agent), and how far a connection has been told, so that the next run can say exactly what it missed.
//!
//! A connection is *told* up to a place if everything before it is in events, or needs none. Places that are too low only
//! make the next run tell of a larger gap; one that is too high would hide a loss, so that in doubt none is given.

use ebpf_abi::{Channel, SegmentHeader};
use pg_wire::{Direction, Nanos};

use crate::{
    event::{Body, Gap, SessionFacts},
    tap::Tap,
};

/// Reason of the gap between two runs of the agent.
pub const AGENT_RESTART: &str = "agent_restart";

/// Reason of the gap where bytes went by unseen in this run.
pub const MISSED: &str = "missed";

/// What a backend's process title says of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title {
    /// Role that logged in.
    pub login_role: String,
    /// Database; `None` if the title has none (a walsender's may not).
    pub database: Option<String>,
}

/// A place in each stream of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Offset in the frontend stream.
    pub frontend: u64,
    /// Offset in the backend stream.
    pub backend: u64,
    /// The [`Channel`] that these offsets count.
    pub channel: u8,
}

/// How far a connection has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Everything before these places is in events.
    pub places: Places,
    /// Nothing was seen behind them.
    pub settled: bool,
    /// So that the next byte of each direction begins a message, and nothing is under way.
    pub between_requests: bool,
    /// When the connection was last heard of.
    pub at: Nanos,
}

/// What is known of the past of a connection that is announced in the middle of its streams: a former run of the agent
/// knew it, or its beginning was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// How far it was told, in offsets that still count; `None`: how much was missed cannot be known.
    pub places: Option<Places>,
    /// It was left at these places with nothing under way ([`Told::between_requests`]).
    pub between_requests: bool,
    /// From when on something may have been missed.
    pub since: Nanos,
    /// Why: [`AGENT_RESTART`] or [`MISSED`].
    pub reason: &'static str,
}

impl Tap {
    /// The process title of a connection's backend was read: it counts where the connection itself has not said more.
    pub fn handle_title(&mut self, cookie: u64, title: Title) {
        let Some(connection) = self.connections.get_mut(&cookie) else {
            return;
        };
        let facts = connection.facts_mut();
        if facts.login_role.is_none() {
            facts.login_role = Some(title.login_role);
            facts.database = title.database;
        }
    }

    /// A connection was there before it was announced. To be said before its first segment: what passed until then is told
    /// as a gap in each direction; where offsets count, as soon as the connection is heard of in that direction.
    pub fn handle_earlier(&mut self, cookie: u64, at: Nanos, earlier: Earlier) {
        let Some(connection) = self.connections.get_mut(&cookie) else {
            return;
        };
        connection.past.earlier = Some(Box::new([Some(earlier); 2]));
        if earlier.places.is_none() {
            connection.miss_the_rest(at, &mut self.recorder);
        }
    }

    /// Connections of which something was heard since this was last asked.
    pub fn take_touched(&mut self) -> Vec<u64> {
        let touched = std::mem::take(&mut self.touched);
        for cookie in &touched {
            if let Some(connection) = self.connections.get_mut(cookie) {
                connection.past.touched = false;
            }
        }
        touched
    }

    /// Whether there are any.
    #[must_use]
    pub fn was_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// How far a connection has been told, once all events were taken by [`Self::poll`]; `None` if that is not sure.
    #[must_use]
    pub fn told(&self, cookie: u64) -> Option<Told> {
        self.connections.get(&cookie)?.told()
    }
}

/// What a connection keeps for the runs of the agent before and after this one.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Until that direction is heard of: what the former run knew. Boxed, because few connections have it.
    earlier: Option<Box<[Option<Earlier>; 2]>>,
    /// Where the last unit of requests and answers ended.
    unit: Option<Places>,
    /// It is in the list of touched connections.
    touched: bool,
    /// When the last segment came.
    at: Nanos,
}

/// A connection that was there before is heard of.
pub(crate) struct Met {
    /// What is known of its past.
    pub(crate) earlier: Earlier,
    /// How much was; `None`: nobody knows.
    pub(crate) missing: Option<u64>,
    /// Nothing was, and here begins a request: both streams go on from these places.
    pub(crate) next_request: Option<Places>,
}

impl Past {
    /// A segment came. Whether the connection was not in the list of touched ones.
    pub(crate) fn touch(&mut self, header: &SegmentHeader) -> bool {
        self.at = header.at;
        !std::mem::replace(&mut self.touched, true)
    }

    /// One direction is heard of again at `offset`; `None` if that was not awaited.
    pub(crate) fn meet(&mut self, direction: Direction, channel: u8, offset: u64) -> Option<Met> {
        let earlier = self.take_earlier(direction)?;
        let places = earlier.places.filter(|places| places.channel == channel);
        let missing = places.map(|places| offset.saturating_sub(place(&places, direction)));
        // Whoever is answered without having asked was heard of too late.
        let asks = direction == Direction::Frontend && self.earlier.is_some();
        Some(Met {
            earlier,
            missing,
            next_request: places.filter(|_| asks && earlier.between_requests && missing == Some(0)),
        })
    }

    /// What is known of the past of a direction that was not heard of yet.
    pub(crate) fn take_earlier(&mut self, direction: Direction) -> Option<Earlier> {
        let both = self.earlier.as_mut()?;
        let taken = both.get_mut(direction as usize)?.take();
        if both.iter().all(Option::is_none) {
            self.earlier = None;
        }
        taken
    }

    /// A unit of requests and answers that ended at these offsets was told; 0: not seen.
    pub(crate) fn unit_told(&mut self, frontend: u64, backend: u64, channel: u8) {
        if frontend > 0 && backend > 0 {
            self.unit = Some(Places {
                frontend,
                backend,
                channel,
            });
        }
    }

    /// How far a connection was told that is settled at these places, or at none.
    pub(crate) fn told(&self, settled: Option<Places>, readable: bool, channel: u8) -> Option<Told> {
        if self.earlier.is_some() {
            return None;
        }
        // A unit of another channel was told, too; but its offsets say nothing of this one.
        let places = settled.or(self.unit.filter(|unit| unit.channel == channel))?;
        Some(Told {
            places,
            settled: settled.is_some(),
            between_requests: settled.is_some() && readable,
            at: self.at,
        })
    }
}

impl Earlier {
    /// Whether offsets of this kind of connection count from one run of the agent to the next: the kernel keeps those of
    /// TCP; all others are counted by the tap itself.
    #[must_use]
    pub fn counts(facts: &SessionFacts, channel: u8) -> bool {
        facts.is_counted && channel == Channel::Socket as u8
    }
}

/// What passed before a connection was heard of.
pub(crate) fn gap(earlier: &Earlier, direction: Direction, bytes_missing: Option<u64>) -> Body {
    Body::Gap(Gap {
        reason: earlier.reason,
        direction,
        bytes_missing,
        detail: String::new(),
    })
}

fn place(places: &Places, direction: Direction) -> u64 {
    match direction {
        Direction::Frontend => places.frontend,
        Direction::Backend => places.backend,
    }
}
