//! Connections of this host's clients to PostgreSQL servers, held until it is sure that this agent does not witness their
//! server's end itself.
//!
//! Owns which of them are told. Both ends of a local connection are seen within moments, in either order; what nobody met
//! after [`HOLD_NS`] leads elsewhere. Refuses names: those come with what is held.

use std::collections::{HashMap, VecDeque};

use attribution::Peer;
use ebpf_abi::OwnerFact;

/// How long the server's end may take to be seen, in nanoseconds. A server reads what its client said within
/// milliseconds, unless it is out of processor time.
pub const HOLD_NS: u64 = 2_000_000_000;

/// Connections held at once, of some 300 bytes each: beyond, they are counted and not told.
const HELD: usize = 16_384;

/// Connections awaited at once, those that were met meanwhile included; 16 bytes each.
const AWAITED: usize = 131_072;

/// A connection over which a client began to speak.
#[derive(Clone, Debug)]
pub struct Flow {
    /// As the kernel side told it.
    pub fact: OwnerFact,
    /// When the connection was opened, in nanoseconds since boot.
    pub opened: u64,
    /// Who opened it.
    pub peer: Peer,
}

/// Connections whose server's end was not met yet.
#[derive(Debug, Default)]
pub struct Flows {
    held: HashMap<u64, Flow>,
    /// When to tell, and which; the earliest first.
    due: VecDeque<(u64, u64)>,
    /// Server's ends that were seen before their client's.
    met: HashMap<u64, u64>,
    met_order: VecDeque<(u64, u64)>,
    full: u64,
    told: u64,
}

impl Flows {
    /// A client began to speak.
    pub fn began(&mut self, flow: Flow) {
        let key = u64::from(flow.fact.sequence) << 32 | u64::from(flow.fact.answer);
        if self.met.remove(&key).is_some() || self.held.contains_key(&key) {
            return;
        }
        if self.held.len() >= HELD || self.due.len() >= AWAITED {
            self.full += 1;
            return;
        }
        self.due.push_back((flow.fact.at.saturating_add(HOLD_NS), key));
        self.held.insert(key, flow);
    }

    /// This agent witnesses the server's end of a connection, since `at`.
    pub fn met(&mut self, fingerprint: u64, at: u64) {
        if self.held.remove(&fingerprint).is_some() {
            return;
        }
        // One that is told for want of room here is a client's end too many, and no wrong one.
        let is_over = |met: u64| met.saturating_add(2 * HOLD_NS) < at;
        while let Some((since, key)) = self.met_order.front().copied()
            && (is_over(since) || self.met_order.len() >= AWAITED)
        {
            self.met_order.pop_front();
            if self.met.get(&key) == Some(&since) {
                self.met.remove(&key);
            }
        }
        self.met.insert(fingerprint, at);
        self.met_order.push_back((at, fingerprint));
    }

    /// The next connection that leads elsewhere; at `u64::MAX` all that are held.
    pub fn due(&mut self, now: u64) -> Option<Flow> {
        while let Some((_, key)) = self.due.pop_front_if(|(due, _)| *due <= now) {
            if let Some(flow) = self.held.remove(&key) {
                self.told += 1;
                return Some(flow);
            }
        }
        None
    }

    /// Connections told since the start.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// Connections that were not, because too many waited.
    pub fn full(&self) -> u64 {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(number: u32, at: u64) -> Flow {
        Flow {
            fact: OwnerFact {
                at,
                sequence: number,
                answer: 7,
                ..OwnerFact::default()
            },
            opened: at,
            peer: Peer::Unknown {
                reason: String::new(),
            },
        }
    }

    fn key(number: u32) -> u64 {
        flow(number, 0).fact.fingerprint().expect("both are known")
    }

    fn told(flows: &mut Flows, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| flows.due(now))
            .map(|flow| flow.fact.sequence)
            .collect()
    }

    #[test]
    fn what_nobody_met_is_told_when_its_time_has_come() {
        let mut flows = Flows::default();
        // The server's end is seen behind the client's, or before it.
        flows.began(flow(1, 10));
        flows.met(key(1), 20);
        flows.met(key(2), 20);
        flows.began(flow(2, 30));
        // Another connection's number of the same client end.
        flows.began(flow(3, 40));
        flows.met(key(3) + 1, 50);
        assert!(told(&mut flows, 39 + HOLD_NS).is_empty());
        assert_eq!(told(&mut flows, 40 + HOLD_NS), [3]);
        assert!(told(&mut flows, u64::MAX).is_empty());
        assert_eq!((flows.told(), flows.full()), (1, 0));
    }

    #[test]
    fn at_the_end_all_that_wait_are_told() {
        let mut flows = Flows::default();
        flows.began(flow(1, 10));
        flows.began(flow(1, 11));
        flows.began(flow(2, 12));
        assert_eq!(told(&mut flows, u64::MAX), [1, 2]);
    }

    #[test]
    fn too_many_are_counted() {
        let mut flows = Flows::default();
        for number in 1..=20_000 {
            flows.began(flow(number, 10));
        }
        assert_eq!(flows.full(), 20_000 - HELD as u64);
        assert_eq!(told(&mut flows, u64::MAX).len(), HELD);
        flows.began(flow(30_000, 20));
        assert_eq!(told(&mut flows, u64::MAX), [30_000], "there is room again");
    }

    #[test]
    fn ends_that_were_met_do_not_pile_up() {
        let mut flows = Flows::default();
        for number in 1..=AWAITED as u32 + 500 {
            flows.met(key(number), 10);
        }
        assert!(flows.met.len() <= AWAITED && flows.met_order.len() <= AWAITED);
        flows.met(key(1), 11 + 2 * HOLD_NS);
        assert_eq!((flows.met.len(), flows.met_order.len()), (1, 1));
    }
}
