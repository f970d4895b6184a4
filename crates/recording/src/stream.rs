//! One direction of a captured connection: where it stands, what came too early, what the other end has acknowledged.
//!
//! Turns sequence numbers, which wrap, into offsets, which do not. Of bytes that come twice the first copy counts, as
//! with the receiver; a second copy that differs is counted.

use std::{collections::BTreeMap, ops::Bound};

use crate::summary::Summary;

/// How far ahead a sequence number can be: the largest window that TCP has (RFC 7323, 2.3).
const WINDOW: u32 = 1 << 30;

/// Bytes kept of what was handed on, to compare a second copy with.
const RECENT: usize = 2048;

/// What a held piece takes beside its bytes.
pub(crate) const PIECE_OVERHEAD: usize = 128;

/// Bytes that wait.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) at: u64,
    /// The sender had the other stream up to here: that goes first.
    pub(crate) needs: u64,
    pub(crate) bytes: Vec<u8>,
    /// Bytes behind these that the capture cut off.
    pub(crate) cut: u32,
}

/// Since when the stream has stood at one place, although the other end has more of it.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: u64,
    packets: u32,
    next: u64,
    /// What the other end had by then.
    until: u64,
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Sequence number of offset 0.
    pub(crate) base: Option<u32>,
    /// Everything before was handed on or told as missing.
    pub(crate) next: u64,
    /// How far the other end has it.
    pub(crate) acknowledged: u64,
    /// Where it ends, if that is known.
    pub(crate) end: Option<u64>,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    waiting: Option<Waiting>,
    /// What was handed on last: ends at `next`.
    recent: Vec<u8>,
}

impl Stream {
    pub(crate) fn starting_at(base: impl Into<Option<u32>>) -> Self {
        Self {
            base: base.into(),
            ..Self::default()
        }
    }

    /// The offset of a sequence number, negative if it is older than the stream; `None` if it cannot be of this stream.
    pub(crate) fn place(&self, sequence: u32) -> Option<i64> {
        let next = self.next as u32;
        let expected = self.base?.wrapping_add(next);
        let ahead = sequence.wrapping_sub(expected);
        if ahead > WINDOW && ahead < WINDOW.wrapping_neg() {
            return None;
        }
        i64::try_from(self.next)
            .ok()?
            .checked_add(i64::from(ahead.cast_signed()))
    }

    /// Takes note of an acknowledgement, and says up to where the stream must be handed on first.
    pub(crate) fn acknowledge(&mut self, number: u32) -> Option<u64> {
        self.base.get_or_insert(number);
        let place = self.place(number)?;
        let to = u64::try_from(place)
            .unwrap_or(0)
            .min(self.end.unwrap_or(u64::MAX));
        self.acknowledged = self.acknowledged.max(to);
        Some(to)
    }

    /// The stream ends here.
    pub(crate) fn ends(&mut self, end: u64) {
        if end >= self.next {
            let end = *self.end.get_or_insert(end);
            self.acknowledged = self.acknowledged.min(end.max(self.next));
        }
    }

    /// Whether all of it was handed on.
    pub(crate) fn is_complete(&self) -> bool {
        self.end.is_some_and(|end| end <= self.next)
    }

    /// Bytes that the other end has and that were not handed on. A single one with nothing behind it is taken for the
    /// sequence number of an end that was not seen.
    pub(crate) fn overdue(&self) -> u64 {
        match self.acknowledged.saturating_sub(self.next) {
            1 if self.end.is_none() && self.held.is_empty() => 0,
            overdue => overdue,
        }
    }

    /// Where the first hole ends that the other end's acknowledgements show; `None` if what comes next is there.
    pub(crate) fn hole(&self) -> Option<u64> {
        let overdue = self.overdue();
        let until = self.next + overdue;
        match self.first_held() {
            Some((offset, _)) if offset <= self.next => None,
            Some((offset, _)) => Some(offset.min(until)),
            None => Some(until),
        }
        .filter(|_| overdue > 0)
    }

    /// A packet of the connection came. Up to where nothing is waited for any longer, because it has been overdue for
    /// this many packets or nanoseconds.
    pub(crate) fn lost_patience(&mut self, now: u64, packets: u32, nanoseconds: u64) -> Option<u64> {
        if self.overdue() == 0 {
            self.waiting = None;
            return None;
        }
        let waiting = self
            .waiting
            .filter(|waiting| waiting.next == self.next)
            .unwrap_or(Waiting {
                since: now,
                packets: 0,
                next: self.next,
                until: self.acknowledged,
            });
        self.waiting = Some(Waiting {
            packets: waiting.packets + 1,
            ..waiting
        });
        let is_lost = waiting.packets >= packets || now.saturating_sub(waiting.since) > nanoseconds;
        is_lost.then_some(waiting.until)
    }

    /// Since when something is overdue.
    pub(crate) fn waiting_since(&self) -> Option<u64> {
        self.waiting.map(|waiting| waiting.since)
    }

    /// Nothing is waited for.
    pub(crate) fn stop_waiting(&mut self) {
        self.waiting = None;
    }

    /// Memory that is held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The first of what is held: its offset, and up to where the other stream must be first.
    pub(crate) fn first_held(&self) -> Option<(u64, u64)> {
        self.held
            .first_key_value()
            .map(|(offset, held)| (*offset, held.needs))
    }

    /// Takes the first of what is held, without the bytes that were handed on before.
    pub(crate) fn take_held(&mut self) -> Option<Held> {
        let (offset, mut held) = self.held.pop_first()?;
        self.held_bytes -= held.bytes.len() + PIECE_OVERHEAD;
        let known = usize::try_from(self.next.saturating_sub(offset)).unwrap_or(usize::MAX);
        held.bytes.drain(..known.min(held.bytes.len()));
        Some(held)
    }

    /// Takes the front of what is held that follows on from `from`, up to `most` bytes, as a copy.
    pub(crate) fn front(&self, from: u64, most: usize) -> Vec<u8> {
        let mut front = Vec::new();
        let mut at = from;
        for (offset, held) in &self.held {
            if *offset != at || front.len() >= most {
                break;
            }
            front.extend_from_slice(&held.bytes);
            at += held.bytes.len() as u64;
        }
        front
    }

    /// Forgets what is held.
    pub(crate) fn forget(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    /// The part of a payload that is new, with its offset; the rest is compared.
    pub(crate) fn fresh<'a>(&self, offset: i64, payload: &'a [u8], summary: &mut Summary) -> (u64, &'a [u8]) {
        let next = i64::try_from(self.next).unwrap_or(i64::MAX);
        let known = usize::try_from(next.saturating_sub(offset))
            .unwrap_or(0)
            .min(payload.len());
        let (old, new) = payload.split_at_checked(known).unwrap_or((payload, &[]));
        if !old.is_empty() {
            summary.repeated_bytes += old.len() as u64;
            // A probe that keeps a connection alive has one byte of no meaning in front of the window.
            let is_probe = payload.len() == 1 && offset + 1 == next;
            if !is_probe && !self.repeats(offset, old) {
                summary.differing_overlaps += 1;
            }
        }
        (u64::try_from(offset).unwrap_or(0).max(self.next), new)
    }

    /// Keeps bytes until they can be handed on. Where others are held already, those stay.
    pub(crate) fn hold(&mut self, offset: u64, held: Held, summary: &mut Summary) {
        let Held {
            at,
            needs,
            bytes,
            cut,
        } = held;
        let end = offset.saturating_add(bytes.len() as u64);
        let mut from = offset;
        while from < end {
            // What is held at this place stays.
            let before = self.held.range(..=from).next_back();
            let covering = before.map(|(start, there)| (*start, there, start + there.bytes.len() as u64));
            if let Some((start, there, covered)) = covering.filter(|(_, _, covered)| *covered > from) {
                let to = covered.min(end);
                let (old, new) = (
                    slice(&there.bytes, start, from, to),
                    slice(&bytes, offset, from, to),
                );
                summary.repeated_bytes += to.saturating_sub(from);
                summary.differing_overlaps += u64::from(old != new);
                from = to;
                continue;
            }
            let after = (Bound::Excluded(from), Bound::Unbounded);
            let to = self
                .held
                .range(after)
                .next()
                .map_or(end, |(start, _)| (*start).min(end));
            let piece = Held {
                at,
                needs,
                bytes: slice(&bytes, offset, from, to).to_vec(),
                cut: if to == end { cut } else { 0 },
            };
            self.held_bytes += piece.bytes.len() + PIECE_OVERHEAD;
            // Nothing of any length is held at this place: that was stepped over above.
            if let Some(empty) = self.held.insert(from, piece) {
                self.held_bytes -= empty.bytes.len() + PIECE_OVERHEAD;
            }
            from = to;
        }
    }

    /// Bytes were handed on.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        self.next = self.next.saturating_add(bytes.len() as u64);
        let tail = bytes
            .get(bytes.len().saturating_sub(RECENT)..)
            .unwrap_or_default();
        let keep = self.recent.len().min(RECENT - tail.len());
        self.recent.drain(..self.recent.len() - keep);
        self.recent.extend_from_slice(tail);
    }

    /// Bytes up to here are missing.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        self.next = self.next.max(offset);
        self.recent.clear();
    }

    /// Whether bytes that end at or before `next` are those that were handed on, as far as that is still known.
    fn repeats(&self, offset: i64, bytes: &[u8]) -> bool {
        let first_known = i64::try_from(self.next).unwrap_or(i64::MAX) - self.recent.len() as i64;
        let (ours, theirs) = (offset - first_known, first_known - offset);
        let known = self
            .recent
            .get(usize::try_from(ours).unwrap_or(0)..)
            .unwrap_or_default();
        let told = bytes
            .get(usize::try_from(theirs).unwrap_or(0)..)
            .unwrap_or_default();
        known.iter().zip(told).all(|(known, told)| known == told)
    }
}

/// The bytes from `from` to `to` of what starts at `start`.
fn slice(bytes: &[u8], start: u64, from: u64, to: u64) -> &[u8] {
    let index = |offset: u64| usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
    bytes.get(index(from)..index(to)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(bytes: &[u8]) -> Held {
        Held {
            at: 0,
            needs: 0,
            bytes: bytes.to_vec(),
            cut: 0,
        }
    }

    #[test]
    fn numbers_wrap_and_offsets_do_not() {
        let mut stream = Stream::starting_at(u32::MAX - 1);
        assert_eq!(stream.place(0), Some(2));
        assert_eq!(stream.place(u32::MAX - 3), Some(-2));
        stream.skip_to((1 << 32) + 5);
        assert_eq!(stream.place(3), Some((1 << 32) + 5));
        assert_eq!(stream.place(2), Some((1 << 32) + 4));
        assert_eq!(stream.place(3_u32.wrapping_add(1 << 31)), None);
        assert_eq!(stream.acknowledge(7), Some((1 << 32) + 9));
        assert_eq!(stream.overdue(), 4);
        stream.ends((1 << 32) + 8);
        assert_eq!(stream.overdue(), 3);
    }

    #[test]
    fn the_first_copy_counts_and_another_one_is_told() {
        let mut summary = Summary::default();
        let mut stream = Stream::starting_at(0);
        stream.hold(10, held(b"klm"), &mut summary);
        stream.hold(14, held(b"op"), &mut summary);
        stream.hold(8, held(b"ijKlmnopq"), &mut summary);
        assert_eq!((summary.differing_overlaps, summary.repeated_bytes), (1, 5));
        assert_eq!(stream.front(8, 100), b"ijklmnopq");
        let mut taken = Vec::new();
        while let Some(piece) = stream.take_held() {
            taken.extend(piece.bytes);
        }
        assert_eq!(
            (taken.as_slice(), stream.held_bytes()),
            (b"ijklmnopq".as_slice(), 0)
        );
    }

    #[test]
    fn a_second_copy_of_what_was_handed_on_is_compared_and_dropped() {
        let mut summary = Summary::default();
        let mut stream = Stream::starting_at(0);
        stream.pass(b"abcdef");
        assert_eq!(stream.fresh(3, b"defgh", &mut summary), (6, b"gh".as_slice()));
        assert_eq!(stream.fresh(-2, b"..abcdef", &mut summary), (6, b"".as_slice()));
        assert_eq!(stream.fresh(5, b"\0", &mut summary), (6, b"".as_slice()));
        assert_eq!(summary.differing_overlaps, 0);
        assert_eq!(stream.fresh(3, b"dEfgh", &mut summary), (6, b"gh".as_slice()));
        assert_eq!(summary.differing_overlaps, 1);
    }
}
