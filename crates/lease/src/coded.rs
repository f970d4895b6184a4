//! A portion as numbers: most pieces begin where the one before ended, and a client's next bytes where its last ones did.

use std::collections::HashMap;

use crate::{PIECES, Passed, Piece, Portion, Source};

/// A [`Portion`]'s pieces as small numbers, for a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coded {
    /// The clients that it names; all else says places in this list.
    pub clients: Vec<u64>,
    /// Places of those of whom nothing more comes.
    pub ended: Vec<u64>,
    /// For each piece: its length and what it is (its lower six bits), then what that asks for.
    pub written: Vec<u64>,
    /// For each piece: how far it is behind the one before (zigzag), its length and what it is, then the client.
    pub passed: Vec<u64>,
}

/// What the lower bits of a written piece's first number say: its source, whether the turn was the source's or another
/// client's (which follows), that this one was logging in, and that the process had one client only (which follows).
mod written {
    /// Bits of the source: 0 a client's, 1 the pooler's own, 2 unsure, 3 not seen.
    pub(super) const SOURCE: u64 = 3;
    /// The turn was the source's.
    pub(super) const TURN_OF_SOURCE: u64 = 4;
    /// The turn was another's.
    pub(super) const TURN: u64 = 8;
    /// Logging in.
    pub(super) const LOGS_IN: u64 = 16;
    /// The only client.
    pub(super) const SOLE: u64 = 32;
    /// Of these bits.
    pub(super) const BITS: u32 = 6;
}

impl Coded {
    /// A portion's pieces.
    #[must_use]
    pub fn of(portion: &Portion) -> Self {
        let clients = portion.clients();
        let places: HashMap<u64, u64> = clients.iter().copied().zip(0..).collect();
        let place = |client: u64| places.get(&client).copied().unwrap_or_default();
        let mut coded = Self {
            ended: portion.ended.iter().map(|client| place(*client)).collect(),
            ..Self::default()
        };
        let mut next = HashMap::new();
        for piece in &portion.written {
            let of_source =
                matches!(piece.source, Source::Client { client, .. } if piece.turn == Some(client));
            let other = piece.turn.filter(|_| !of_source);
            let length = piece.range.end - piece.range.start;
            let kind = match piece.source {
                Source::Client { .. } => 0,
                Source::Own => 1,
                Source::Unsure => 2,
                Source::Unknown => 3,
            };
            let flags = [
                (of_source, written::TURN_OF_SOURCE),
                (other.is_some(), written::TURN),
                (piece.logs_in, written::LOGS_IN),
                (piece.sole.is_some(), written::SOLE),
            ];
            let flags = flags.into_iter().filter(|(is, _)| *is).map(|(_, flag)| flag);
            coded
                .written
                .push(flags.fold(length << written::BITS | kind, |sum, flag| sum | flag));
            if let Source::Client { client, offset } = piece.source {
                let goes_on = next.insert(client, offset + length).unwrap_or_default() == offset;
                coded.written.push(place(client) << 1 | u64::from(goes_on));
                coded.written.extend((!goes_on).then_some(offset));
            }
            coded
                .written
                .extend([other, piece.sole].into_iter().flatten().map(place));
        }
        let mut end = portion.passed_from;
        for passed in &portion.passed {
            let behind = passed.range.start.wrapping_sub(end).cast_signed();
            let length = passed.range.end - passed.range.start;
            let flags = u64::from(passed.by_memory) << 1 | u64::from(passed.client.is_some());
            coded.passed.extend([
                ((behind << 1) ^ (behind >> 63)).cast_unsigned(),
                length << 2 | flags,
            ]);
            coded.passed.extend(passed.client.map(place));
            end = passed.range.end;
        }
        Self { clients, ..coded }
    }

    /// Puts the pieces into a portion of which all else is there; `None` where that is not what [`Self::of`] makes.
    #[must_use]
    pub fn pieces(&self, portion: Portion) -> Option<Portion> {
        let client = |place: u64| self.clients.get(usize::try_from(place).ok()?).copied();
        let mut next = HashMap::new();
        let (mut all, mut from) = (Vec::new(), portion.written_from.unwrap_or_default());
        let mut numbers = self.written.iter().copied();
        while let Some(first) = numbers.next() {
            let length = first >> written::BITS;
            let mut source_client = None;
            let source = match first & written::SOURCE {
                0 => {
                    let which = numbers.next()?;
                    let client = client(which >> 1)?;
                    let known: u64 = next.get(&client).copied().unwrap_or_default();
                    let offset = if which & 1 == 1 { known } else { numbers.next()? };
                    next.insert(client, offset.checked_add(length)?);
                    source_client = Some(client);
                    Source::Client { client, offset }
                }
                1 => Source::Own,
                2 => Source::Unsure,
                _ => Source::Unknown,
            };
            let turn = match (first & written::TURN_OF_SOURCE, first & written::TURN) {
                (0, 0) => None,
                (_, 0) => Some(source_client?),
                (0, _) => Some(client(numbers.next()?)?),
                _ => return None,
            };
            let sole = match first & written::SOLE {
                0 => None,
                _ => Some(client(numbers.next()?)?),
            };
            let to = from.checked_add(length)?;
            all.push(Piece {
                range: from..to,
                source,
                turn,
                sole,
                logs_in: first & written::LOGS_IN != 0,
            });
            from = to;
        }
        if all.len() > PIECES || !all.is_empty() && portion.written_from.is_none() {
            return None;
        }
        let (mut passed, mut end) = (Vec::new(), portion.passed_from);
        let mut numbers = self.passed.iter().copied();
        while let Some(behind) = numbers.next() {
            let behind = (behind >> 1).cast_signed() ^ -(behind & 1).cast_signed();
            let length = numbers.next()?;
            let start = end.checked_add_signed(behind)?;
            end = start.checked_add(length >> 2)?;
            passed.push(Passed {
                range: start..end,
                client: match length & 1 {
                    0 => None,
                    _ => Some(client(numbers.next()?)?),
                },
                by_memory: length & 2 != 0,
            });
        }
        let ended = self.ended.iter().map(|place| client(*place));
        Some(Portion {
            written: all,
            passed: (passed.len() <= PIECES).then_some(passed)?,
            ended: ended.collect::<Option<_>>()?,
            ..portion
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces() -> impl Strategy<Value = Vec<(u64, u8, u64, bool)>> {
        prop::collection::vec((0_u64..5_000, any::<u8>(), 0_u64..6, any::<bool>()), 0..40)
    }

    fn portion(from: u64, written: &[(u64, u8, u64, bool)], passed: &[(u64, u8, u64, bool)]) -> Portion {
        let mut portion = Portion {
            written_from: Some(from),
            passed_from: 7,
            ..Portion::default()
        };
        let mut at = from;
        for (length, what, client, flag) in written {
            portion.written.push(Piece {
                range: at..at + length,
                source: match what % 6 {
                    0 => Source::Own,
                    1 => Source::Unsure,
                    2 => Source::Unknown,
                    _ => Source::Client {
                        client: *client,
                        offset: at / 2,
                    },
                },
                turn: (what & 8 != 0).then_some(client + u64::from(what & 16 != 0)),
                sole: (what & 32 != 0).then_some(*client),
                logs_in: *flag,
            });
            at += length;
        }
        let mut at = 100_u64;
        for (length, what, client, by_memory) in passed {
            let start = at.saturating_sub(u64::from(*what % 3));
            at = start + length;
            portion.passed.push(Passed {
                range: start..at,
                client: (what & 4 != 0).then_some(*client),
                by_memory: *by_memory,
            });
        }
        portion.ended = portion.clients().into_iter().step_by(2).collect();
        portion
    }

    proptest! {
        #[test]
        fn what_is_coded_comes_back(from in 0_u64..100_000, written in pieces(), passed in pieces()) {
            let portion = portion(from, &written, &passed);
            let bare = Portion {
                written: Vec::new(),
                passed: Vec::new(),
                ended: Vec::new(),
                ..portion.clone()
            };
            prop_assert_eq!(Coded::of(&portion).pieces(bare), Some(portion));
        }

        #[test]
        fn whatever_comes_is_refused_or_taken(
            clients in prop::collection::vec(any::<u64>(), 0..4),
            ended in prop::collection::vec(0_u64..5, 0..4),
            written in prop::collection::vec(prop_oneof![any::<u64>(), 0_u64..200], 0..60),
            passed in prop::collection::vec(prop_oneof![any::<u64>(), 0_u64..200], 0..60),
            from: Option<u64>,
        ) {
            let coded = Coded { clients, ended, written, passed };
            let bare = Portion { written_from: from, ..Portion::default() };
            if let Some(portion) = coded.pieces(bare) {
                let mut traffic = crate::Traffic::default();
                traffic.absorb(&portion);
                traffic.absorb(&portion);
                let asked = crate::Asked { request: 0..10, response_to: Some(5), began: 0, simple: true, last: true };
                let _ = crate::decide(crate::Kind::PgBouncer, &traffic, |_| true, &asked);
            }
        }
    }
}
