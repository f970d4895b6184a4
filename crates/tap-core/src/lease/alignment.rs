//! Offsets of a connection that is older than the tap and whose bytes nobody counts (Unix sockets, TLS): pooler and backend
//! each count from when they were first seen, and what lies between has to be found.
//!
//! A cycle is what the pooler wrote and what it then read. The backend reads a request behind the pooler's last read of the
//! cycle before, because it was written behind that, and before the last read of its own cycle, because that is its
//! answer: so the time at which it read names the cycle, on whichever processors the two ran. Two cycles in a row, whose
//! requests and answers are as far apart at both ends, give the difference.

use std::collections::VecDeque;

/// Cycles that are kept until a statement is asked about.
const CYCLES: usize = 1_024;

/// Bytes of a Sync: it follows an Execute and is no part of it ("Message Formats").
const SYNC: u64 = 5;

/// Something written, and then something read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cycle {
    /// The last read of the one before returned then; `None` if that was not seen.
    since: Option<u64>,
    wrote: (u64, u64),
    read_to: u64,
    /// The last read returned then.
    until: u64,
}

/// A statement, as the backend's end has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statement {
    /// Where its request begins and ends, and its answer ends.
    pub(super) request: (u64, u64),
    pub(super) response_to: u64,
    /// When the backend read the first byte.
    pub(super) began: u64,
}

/// How far the pooler's offsets are ahead of the backend's, modulo 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift {
    pub(super) request: u64,
    pub(super) response: u64,
}

/// What a statement says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// That is it.
    Shift(Shift),
    /// Its cycle is not over.
    NotYet,
    /// Nothing yet.
    Nothing,
}

/// The cycles of a connection until the difference is found.
#[derive(Debug, Default)]
pub(super) struct Alignment {
    cycles: VecDeque<Cycle>,
    now: Option<Cycle>,
    /// The last read of the newest cycle that is over.
    last_read: Option<u64>,
    /// What the statement before gave, and its cycle.
    before: Option<(Shift, Cycle)>,
    found: Option<Shift>,
}

impl Alignment {
    /// The pooler wrote these bytes.
    pub(super) fn wrote(&mut self, from: u64, to: u64) {
        if self.found.is_some() {
            return;
        }
        if let Some(cycle) = &mut self.now
            && cycle.read_to == 0
        {
            cycle.wrote.1 = to;
            return;
        }
        self.close();
        self.now = Some(Cycle {
            since: self.last_read,
            wrote: (from, to),
            read_to: 0,
            until: 0,
        });
    }

    /// It read up to there; the call returned then.
    pub(super) fn read(&mut self, to: u64, at: u64) {
        if self.found.is_some() {
            return;
        }
        if let Some(cycle) = &mut self.now {
            (cycle.read_to, cycle.until) = (to, at);
        } else {
            self.last_read = Some(at);
        }
    }

    /// Calls were not seen.
    pub(super) fn lost(&mut self) {
        let found = self.found;
        *self = Self {
            found,
            ..Self::default()
        };
    }

    fn close(&mut self) {
        let Some(cycle) = self.now.take() else { return };
        self.last_read = Some(cycle.until);
        if self.cycles.len() >= CYCLES {
            self.cycles.pop_front();
        }
        self.cycles.push_back(cycle);
    }

    /// Statements have to come in the order of the stream.
    pub(super) fn look(&mut self, statement: &Statement) -> Found {
        if let Some(shift) = self.found {
            return Found::Shift(shift);
        }
        let began = statement.began;
        let behind = |cycle: &Cycle| cycle.until <= began;
        while self.cycles.pop_front_if(|cycle| behind(cycle)).is_some() {}
        let Some(cycle) = self.cycles.front().copied() else {
            // Whatever is written from now on is written behind what this one was.
            let is_over = self.now.is_none_or(|cycle| cycle.read_to != 0 && behind(&cycle));
            return if is_over && self.now.is_some() {
                self.before = None;
                Found::Nothing
            } else {
                Found::NotYet
            };
        };
        if let Some((_, last)) = &self.before
            && began < last.until
        {
            // Another statement of the cycle before.
            return Found::Nothing;
        }
        if cycle.since.is_none_or(|since| since >= began) {
            self.before = None;
            return Found::Nothing;
        }
        self.cycles.pop_front();
        let (from, to) = statement.request;
        let behind = (cycle.wrote.1 - cycle.wrote.0).wrapping_sub(to.wrapping_sub(from));
        if behind != 0 && behind != SYNC {
            self.before = None;
            return Found::Nothing;
        }
        let shift = Shift {
            request: cycle.wrote.0.wrapping_sub(from),
            response: cycle.read_to.wrapping_sub(statement.response_to),
        };
        let before = self.before.replace((shift, cycle));
        match before {
            Some((same, last)) if same == shift && cycle.since == Some(last.until) => {
                self.cycles = VecDeque::new();
                self.now = None;
                self.found = Some(shift);
                Found::Shift(shift)
            }
            _ => Found::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pooler counts from 0, the backend from 1,000 and 5,000; each request takes 15 bytes, each answer 66.
    fn statement(number: u64, began: u64) -> Statement {
        Statement {
            request: (1_000 + number * 15, 1_015 + number * 15),
            response_to: 5_066 + number * 66,
            began,
        }
    }

    fn cycle(alignment: &mut Alignment, number: u64, at: u64) {
        alignment.wrote(number * 15, number * 15 + 15);
        alignment.read(number * 66 + 40, at - 1);
        alignment.read(number * 66 + 66, at);
    }

    #[test]
    fn two_cycles_in_a_row_give_the_difference() {
        let mut alignment = Alignment::default();
        for number in 0..4 {
            cycle(&mut alignment, number, 100 + number * 100);
        }
        // The first one's beginning was not seen.
        assert_eq!(alignment.look(&statement(0, 50)), Found::Nothing);
        assert_eq!(alignment.look(&statement(1, 150)), Found::Nothing);
        let shift = Shift {
            request: 1_000_u64.wrapping_neg(),
            response: 5_000_u64.wrapping_neg(),
        };
        assert_eq!(alignment.look(&statement(2, 250)), Found::Shift(shift));
        assert_eq!(alignment.look(&statement(9, 999)), Found::Shift(shift));
    }

    #[test]
    fn a_cycle_that_is_not_over_is_awaited() {
        let mut alignment = Alignment::default();
        assert_eq!(alignment.look(&statement(0, 50)), Found::NotYet);
        cycle(&mut alignment, 0, 100);
        assert_eq!(
            alignment.look(&statement(0, 50)),
            Found::NotYet,
            "more may be read"
        );
        cycle(&mut alignment, 1, 200);
        assert_eq!(alignment.look(&statement(0, 50)), Found::Nothing);
    }

    #[test]
    fn what_does_not_fit_gives_nothing() {
        let mut alignment = Alignment::default();
        for number in 0..8 {
            cycle(&mut alignment, number, 100 + number * 100);
        }
        assert_eq!(alignment.look(&statement(1, 150)), Found::Nothing);
        let longer = Statement {
            request: (1_030, 1_046),
            ..statement(2, 250)
        };
        assert_eq!(alignment.look(&longer), Found::Nothing, "another length");
        assert_eq!(alignment.look(&statement(3, 350)), Found::Nothing);
        // A cycle of which no statement is known lies between: they are not in a row.
        assert_eq!(alignment.look(&statement(5, 550)), Found::Nothing);
        assert_eq!(
            alignment.look(&statement(7, 650)),
            Found::Nothing,
            "another distance"
        );
    }

    #[test]
    fn an_execute_is_followed_by_a_sync_and_its_answer_by_word_that_the_server_is_ready() {
        let mut alignment = Alignment::default();
        for number in 0..4 {
            cycle(&mut alignment, number, 100 + number * 100);
        }
        let execute = |number, began| {
            let whole = statement(number, began);
            Statement {
                request: (whole.request.0, whole.request.1 - SYNC),
                response_to: whole.response_to - 6,
                began,
            }
        };
        assert_eq!(alignment.look(&execute(1, 150)), Found::Nothing);
        // Of the same string, or the same pipeline.
        assert_eq!(alignment.look(&statement(1, 150)), Found::Nothing);
        assert!(matches!(alignment.look(&execute(2, 250)), Found::Shift(_)));
    }

    #[test]
    fn losses_begin_it_anew() {
        let mut alignment = Alignment::default();
        for number in 0..3 {
            cycle(&mut alignment, number, 100 + number * 100);
        }
        assert_eq!(alignment.look(&statement(1, 150)), Found::Nothing);
        alignment.lost();
        cycle(&mut alignment, 3, 400);
        cycle(&mut alignment, 4, 500);
        assert_eq!(alignment.look(&statement(3, 350)), Found::Nothing);
    }
}
