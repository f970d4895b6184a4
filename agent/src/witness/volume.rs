//! What the volume policy makes of events: they pass here on their way out, with the name that they have for good.
//!
//! Owns when what waits is told. What waits for its equals is not told: progress is noted behind it only.

use std::sync::Arc;

use proto::v1;
use volume::{Policy, Told, Totals, Volume};

use super::{Witness, catalogs::OWN};
use crate::record::Encoded;

impl Witness {
    /// From here on, equal executions are put together as a policy says.
    pub fn reduce(&mut self, volume: Option<Volume>) {
        self.volume = volume;
    }

    /// Another policy is in effect from here on; what waits is told, by the former one.
    pub fn change_policy(&mut self, policy: Policy, out: &mut impl FnMut(&Encoded)) {
        // Before the change: roll-ups name their rules, and those are the former one's.
        self.flush_volume(out);
        if let Some(volume) = &mut self.volume {
            volume.change(policy);
        }
    }

    /// Tells an event of a session, and who is behind it: now, or with its equals.
    pub(super) fn tell(
        &mut self,
        event: tap_core::Event,
        attribution: Option<&Arc<v1::Attribution>>,
        out: &mut impl FnMut(&Encoded),
    ) {
        let Some(volume) = &mut self.volume else {
            return self.tell_now(&event, attribution, out);
        };
        let event = volume.take(event, attribution, self.old.round_began);
        self.tell_reduced(out);
        if let Some(event) = event {
            self.tell_now(&event, attribution, out);
        }
    }

    /// Tells those whose window is over. True if statements were left out whose number is to be told now, because nothing
    /// else waits.
    pub fn tell_window(&mut self, out: &mut impl FnMut(&Encoded)) -> bool {
        let now = self.old.round_began;
        let Some(volume) = &mut self.volume else {
            return false;
        };
        if !volume.handle_time(now) {
            return false;
        }
        let owes = volume.owes_numbers();
        self.tell_reduced(out);
        self.old.note_now();
        owes
    }

    /// Nothing waits for its equals any longer. True if statements were left out whose number is not told.
    pub fn flush_volume(&mut self, out: &mut impl FnMut(&Encoded)) -> bool {
        let Some(volume) = &mut self.volume else {
            return false;
        };
        volume.flush();
        let owes = volume.owes_numbers();
        self.tell_reduced(out);
        owes
    }

    /// A connection is over: nothing equal comes any more.
    pub(super) fn reduced_session_over(&mut self, cookie: u64, out: &mut impl FnMut(&Encoded)) {
        if let Some(volume) = &mut self.volume {
            volume.session_over(cookie);
        }
        self.tell_reduced(out);
    }

    /// The numbers of what was left out are told.
    pub fn numbers_told(&mut self) {
        if let Some(volume) = &mut self.volume {
            let tap = &self.tap;
            volume.numbers_told(|cookie| tap.session(cookie).is_some());
        }
    }

    /// What the policy did since the start, and what the agent asked itself.
    pub fn reduced(&self) -> Totals {
        let mut totals = self.volume.as_ref().map(Volume::totals).unwrap_or_default();
        totals.left_out += self.own_left_out();
        totals
    }

    /// What was left out since the start, by the rule; of the agent's own connections, too.
    pub fn left_out(&self) -> Vec<v1::LeftOut> {
        let rules = self.volume.iter().flat_map(Volume::left_out);
        let own = (OWN, self.own_left_out());
        rules
            .chain([own].into_iter().filter(|(_, statements)| *statements > 0))
            .map(|(rule, statements)| v1::LeftOut {
                rule: rule.to_owned(),
                statements,
            })
            .collect()
    }

    /// Whether something of a session waits for its equals, or for its number to be told.
    pub(super) fn is_reduced(&self, cookie: u64) -> bool {
        self.volume.as_ref().is_some_and(|volume| volume.holds(cookie))
    }

    fn tell_reduced(&mut self, out: &mut impl FnMut(&Encoded)) {
        while let Some(told) = self.volume.as_mut().and_then(Volume::poll) {
            match told {
                Told::Single(event, who) => self.tell_now(&event, who.as_ref(), out),
                Told::Rollup(roll) => {
                    let rule = self
                        .volume
                        .as_ref()
                        .map_or("", |volume| volume.policy().name(roll.rule));
                    out(self.encoder.encode_rollup(&roll, rule, self.clock, &self.boot));
                }
            }
        }
    }
}
