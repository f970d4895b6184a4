//! What of a connection is handed on, in which order, and what is given up as missing.

use ebpf_abi::{Direction, SegmentHeader};

use super::{Around, Connection, HELD_EACH, Side};
use crate::{link::Packet, record::Record, stream::Held};

/// Packets of a connection that may be captured between one that tells that something was received and the one that
/// brought it.
const PATIENCE: u32 = 64;

/// The same in capture time: 2 s.
pub(super) const PATIENCE_NS: u64 = 2_000_000_000;

impl Connection {
    /// Takes what a packet brings and says.
    pub(super) fn take(&mut self, packet: &Packet<'_>, around: &mut Around<'_>) {
        let side = self.side(packet);
        let first = packet.sequence.wrapping_add(u32::from(packet.syn));
        if packet.rst || (packet.syn && side == Side::Client && self.syn != Some(packet.sequence)) {
            return;
        }
        let follows = self.cookie().is_some();
        let (own, other) = self.both_mut(side);
        own.base.get_or_insert(first);
        let Some(offset) = own.place(first) else {
            around.summary.implausible += 1;
            return;
        };
        let needs = match packet.acknowledges.map(|number| other.acknowledge(number)) {
            Some(None) => {
                around.summary.implausible += 1;
                0
            }
            Some(Some(needs)) => needs,
            None => 0,
        };
        let length = packet.payload.len() as u64 + u64::from(packet.cut);
        if packet.fin
            && let Ok(end) = u64::try_from(offset.saturating_add_unsigned(length))
        {
            own.ends(end);
        }
        let (offset, payload) = own.fresh(offset, packet.payload, around.summary);
        let in_order = offset == own.next && needs <= other.next && own.first_held().is_none();
        if !payload.is_empty() || (packet.cut > 0 && offset >= own.next) {
            if in_order && follows {
                self.pass(side, packet.at, payload, packet.cut, around);
            } else {
                let held = Held {
                    at: packet.at,
                    needs,
                    bytes: payload.to_vec(),
                    cut: packet.cut,
                };
                own.hold(offset, held, around.summary);
            }
        }
        if follows {
            self.drain(around);
            self.be_patient(around);
            while self.held_bytes() > HELD_EACH && (self.give_up_overdue(around) || self.give_up_hole(around))
            {
                self.drain(around);
            }
            self.close_if_complete(around);
        }
    }

    pub(super) fn close_if_complete(&mut self, around: &mut Around<'_>) {
        if self.from_client.is_complete() && self.from_server.is_complete() {
            self.close(around);
        }
    }

    /// Gives up what is overdue for too long.
    pub(super) fn be_patient(&mut self, around: &mut Around<'_>) {
        let now = self.newest;
        for side in [Side::Client, Side::Server] {
            let Some(until) = self.stream_mut(side).lost_patience(now, PATIENCE, PATIENCE_NS) else {
                continue;
            };
            while self.stream(side).next < until && self.give_up_overdue(around) {
                self.drain(around);
            }
        }
    }

    /// Hands on whatever is in order.
    pub(super) fn drain(&mut self, around: &mut Around<'_>) {
        let mut progress = true;
        while progress {
            progress = false;
            for side in [Side::Client, Side::Server] {
                while self.is_in_order(side) {
                    self.pass_held(side, around);
                    progress = true;
                }
            }
        }
    }

    fn is_in_order(&self, side: Side) -> bool {
        let stream = self.stream(side);
        stream
            .first_held()
            .is_some_and(|(offset, needs)| offset <= stream.next && needs <= self.stream(side.other()).next)
    }

    /// Gives up the next thing that one end has acknowledged and no packet brought; false if there is none.
    pub(super) fn give_up_overdue(&mut self, around: &mut Around<'_>) -> bool {
        for side in [Side::Client, Side::Server] {
            if let Some(until) = self.stream(side).hole() {
                self.gap(side, until, around);
                return true;
            }
        }
        // It is all there, and each waits for the other: one was sent again by somebody who knew more by then.
        for side in [Side::Client, Side::Server] {
            if self.stream(side).overdue() > 0 {
                self.pass_held(side, around);
                return true;
            }
        }
        false
    }

    /// Gives up the next hole that nobody acknowledged; false if nothing is held.
    pub(super) fn give_up_hole(&mut self, around: &mut Around<'_>) -> bool {
        for side in [Side::Client, Side::Server] {
            let stream = self.stream(side);
            match stream.first_held() {
                Some((offset, _)) if offset > stream.next => self.gap(side, offset, around),
                Some(_) => self.pass_held(side, around),
                None => continue,
            }
            return true;
        }
        false
    }

    fn pass_held(&mut self, side: Side, around: &mut Around<'_>) {
        if let Some(held) = self.stream_mut(side).take_held() {
            self.pass(side, held.at, &held.bytes, held.cut, around);
        }
    }

    /// Hands on bytes that follow on, and tells what was cut off behind them, if nothing else brings that.
    fn pass(&mut self, side: Side, at: u64, bytes: &[u8], cut: u32, around: &mut Around<'_>) {
        if !bytes.is_empty() {
            self.emit(side, at, bytes, around);
            self.stream_mut(side).pass(bytes);
            around.summary.bytes += bytes.len() as u64;
        }
        if cut > 0 {
            let stream = self.stream(side);
            let behind = stream.next.saturating_add(u64::from(cut));
            let until = stream
                .first_held()
                .map_or(behind, |(offset, _)| offset.min(behind));
            self.gap(side, until, around);
        }
    }

    /// Tells that bytes up to this offset are missing.
    fn gap(&mut self, side: Side, until: u64, around: &mut Around<'_>) {
        let stream = self.stream_mut(side);
        let missing = until.saturating_sub(stream.next);
        if missing == 0 {
            return;
        }
        stream.skip_to(until);
        around.summary.gaps += 1;
        around.summary.missing_bytes += missing;
        // Nothing, behind the gap: the jump of the offset is what tells it.
        self.emit(side, self.newest, &[], around);
    }

    /// Hands on a segment at the place where the stream stands.
    pub(super) fn emit(&self, side: Side, at: u64, bytes: &[u8], around: &mut Around<'_>) {
        let Some(cookie) = self.cookie() else { return };
        let direction = match side {
            Side::Client => Direction::Received,
            Side::Server => Direction::Sent,
        };
        let header = SegmentHeader {
            at,
            cookie,
            offset: self.stream(side).next,
            tgid: 0,
            length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            missing: 0,
            direction: direction as u8,
            reason: 0,
            channel: 0,
            flags: 0,
        };
        (around.sink)(Record::Segment(header, bytes));
    }
}
