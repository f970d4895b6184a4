//! Calls that the kernel skipped without saying whose they were: what the kernel does not count itself cannot be
//! trusted to be whole.

use ebpf_abi::Channel;
use pg_wire::{Direction, Nanos};

use crate::{
    connection::{Connection, Recorder},
    event::{Body, Gap},
    tap::Tap,
};

/// Reason of the gaps.
const PROGRAM_MISSED: &str = "program_missed";

impl Tap {
    /// Somewhere on this host calls went by unseen between these times. TCP connections tell by themselves whether they
    /// were hit, because the kernel counts their bytes; any other that was in use then may have been, and is read again
    /// from its next sure boundary on.
    pub fn handle_doubt(&mut self, since: Nanos, at: Nanos) {
        for connection in self.connections.values_mut() {
            connection.doubt(since, at, &mut self.recorder);
        }
    }
}

impl Connection {
    fn doubt(&mut self, since: Nanos, at: Nanos, recorder: &mut Recorder) {
        let counted = self.facts.is_counted && self.encrypted.channel == Channel::Socket as u8;
        if counted || self.session.is_opaque() || !self.was_heard(since) {
            return;
        }
        for direction in [Direction::Frontend, Direction::Backend] {
            let gap = Gap {
                reason: PROGRAM_MISSED,
                direction,
                bytes_missing: None,
                detail: "the kernel skipped calls of the tap while this connection was in use".to_owned(),
            };
            let told = self.event_since(since, at, Body::Gap(gap));
            recorder.events.push_back(told);
            let offset = self.stream(direction).position();
            self.session.handle_gap(direction, at, offset, None);
            self.poll(recorder);
        }
    }
}
