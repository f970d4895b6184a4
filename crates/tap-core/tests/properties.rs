//! What must hold for every conversation, however its bytes are cut, lost or invented.

mod host;

use std::collections::HashMap;

use ebpf_abi::{CloseFact, SegmentHeader, SocketFact, UNIX_PATH_MAX};
use host::{wire::*, *};
use proptest::prelude::*;
use tap_core::{Body, Direction, Event, Outcome, Redaction, Settings, Tap};

/// Plays turns cut at the given places, of which those that `lost` names never arrive. Gives the events and the bytes
/// lost in each direction.
fn play(
    turns: &[Turn],
    mut cut_at: impl FnMut() -> bool,
    mut lost: impl FnMut() -> bool,
) -> (Vec<Event>, [u64; 2]) {
    let mut host = Host::connected();
    let [mut from_client, mut from_server] = [0, 0];
    for (direction, bytes) in turns {
        let mut start = 0;
        for end in 1..=bytes.len() {
            if end < bytes.len() && !cut_at() {
                continue;
            }
            let piece = bytes.get(start..end).unwrap_or_default();
            start = end;
            if lost() {
                host.unseen(COOKIE, *direction, piece.len() as u64);
                match direction {
                    Direction::Frontend => from_client += piece.len() as u64,
                    Direction::Backend => from_server += piece.len() as u64,
                }
            } else {
                host.segment(COOKIE, *direction, piece);
            }
        }
    }
    host.close(COOKIE);
    (host.events(), [from_client, from_server])
}

/// Yes once in `density` times; xorshift, because where is all that is asked of it.
fn dice(seed: u64, density: u64) -> impl FnMut() -> bool {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.is_multiple_of(density)
    }
}

/// One request and its answer. Number `n` has `n` in its text and `n` rows in its tag.
fn exchange(n: usize, kind: u8) -> [Vec<u8>; 2] {
    let sql = format!("SELECT {n} FROM t");
    let tag = complete(&format!("SELECT {n}"));
    let status = ready(if n.is_multiple_of(3) { b'T' } else { b'I' });
    match kind {
        0 => [query(&sql), [row("Z"), tag, status].concat()],
        1 => [
            [parse("", &sql), bind("", "", &["v"]), execute("", 0), sync()].concat(),
            [parsed(), bound(), row("1"), tag, status].concat(),
        ],
        // The same name for another text each time.
        2 => [
            [
                close('S', "s"),
                parse("s", &sql),
                describe('S', "s"),
                bind("p", "s", &[]),
                execute("p", 0),
                sync(),
            ]
            .concat(),
            [
                closed(),
                parsed(),
                parameter_description(),
                no_data(),
                bound(),
                tag,
                status,
            ]
            .concat(),
        ],
        _ => [query(&sql), [error("ERROR", "22012"), status].concat()],
    }
}

/// A session of such exchanges; where `pipelined`, two requests go out before their answers.
fn session(exchanges: &[(u8, bool)]) -> Vec<Turn> {
    let mut turns = Conversation::logged_in().turns;
    let mut owed = Vec::new();
    for (n, (kind, pipelined)) in exchanges.iter().enumerate() {
        let [request, answer] = exchange(n, *kind);
        turns.push((Direction::Frontend, request));
        owed.push(answer);
        if !pipelined {
            turns.push((Direction::Backend, owed.concat()));
            owed.clear();
        }
    }
    turns.push((Direction::Backend, owed.concat()));
    turns.push((Direction::Frontend, terminate()));
    turns.retain(|(_, bytes)| !bytes.is_empty());
    turns
}

proptest! {
    #[test]
    fn cuts_change_nothing(
        exchanges in prop::collection::vec((0..4_u8, any::<bool>()), 0..12),
        seed in any::<u64>(),
        density in 1..60_u64,
    ) {
        let turns = session(&exchanges);
        let (whole, _) = play(&turns, || false, || false);
        prop_assert_eq!(queries(whole.clone()).len(), exchanges.len());
        let (cut, _) = play(&turns, dice(seed, density), || false);
        prop_assert_eq!(timeless(cut), timeless(whole));
    }

    #[test]
    fn cuts_change_nothing_for_any_feature(sample in 0..8_usize, seed in any::<u64>(), density in 1..60_u64) {
        let (name, conversation) = &samples::all()[sample];
        let (whole, _) = play(&conversation.turns, || false, || false);
        prop_assert!(!whole.is_empty());
        let (cut, _) = play(&conversation.turns, dice(seed, density), || false);
        prop_assert_eq!(timeless(cut), timeless(whole), "{}", name);
    }

    #[test]
    fn loss_is_told_to_the_byte_and_invents_nothing(
        exchanges in prop::collection::vec((0..4_u8, any::<bool>()), 1..12),
        seed in any::<u64>(),
        cut_density in 1..100_u64,
        loss_density in 2..30_u64,
    ) {
        let turns = session(&exchanges);
        let (events, missing) = play(&turns, dice(seed, cut_density), dice(!seed, loss_density));
        let mut told = [0; 2];
        let mut answered = HashMap::new();
        for event in &events {
            match &event.body {
                Body::Gap(gap) => told[gap.direction as usize] += gap.bytes_missing.unwrap_or(0),
                Body::Query(query) => {
                    let known = (query.outcome == Outcome::Ok).then_some(query.tag.clone()).flatten();
                    // What was answered has the answer of its own text.
                    if let Some(text) = query.text.as_ref().filter(|_| query.truncated) {
                        // A hole in the text of a Parse: its head alone is kept.
                        let head = |n| format!("SELECT {n} FROM t").starts_with(&**text);
                        prop_assert!((0..exchanges.len()).any(head), "{} was never sent", text);
                    } else if let Some(text) = &query.text {
                        let n = (0..exchanges.len()).find(|n| **text == *format!("SELECT {n} FROM t"));
                        prop_assert!(n.is_some(), "{} was never sent", text);
                        let n = n.unwrap_or_default();
                        if let Some(tag) = &known {
                            prop_assert_eq!(tag, &format!("SELECT {n}"));
                        }
                        prop_assert_eq!(query.outcome == Outcome::Error, exchanges[n].0 == 3 && query.error.is_some());
                        *answered.entry(n).or_insert(0) += 1;
                    }
                }
                _ => {}
            }
        }
        prop_assert_eq!(told, missing);
        prop_assert!(answered.values().all(|times| *times == 1), "told twice: {:?}", answered);
        if missing == [0, 0] {
            prop_assert_eq!(answered.len(), exchanges.len());
        }
    }

    #[test]
    fn changed_conversations_break_nothing(
        sample in 0..8_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6),
        seed in any::<u64>(),
    ) {
        let mut turns = samples::all()[sample].1.turns.clone();
        for (index, byte, how) in changes {
            if turns.is_empty() {
                break;
            }
            let turn = index.index(turns.len());
            let bytes = &mut turns[turn].1;
            if bytes.is_empty() {
                continue;
            }
            let place = index.index(bytes.len());
            match how {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                2 => drop(bytes.remove(place)),
                _ => drop(turns.remove(turn)),
            }
        }
        play(&turns, dice(seed, 50), dice(!seed, 40));
    }

    #[test]
    fn no_record_breaks_the_tap(
        steps in prop::collection::vec((
            0..7_u8,
            0..3_u64,
            any::<u8>(),
            prop_oneof![0..2_000_u64, Just(u64::MAX), any::<u64>()],
            prop_oneof![Just(0), any::<u32>()],
            prop::collection::vec(any::<u8>(), 0..60),
        ), 0..60),
        redaction in prop::sample::select(vec![Redaction::Literals, Redaction::Clear]),
    ) {
        let mut tap = Tap::new(Settings { redaction, ..Settings::default() });
        for (step, cookie, byte, number, word, bytes) in steps {
            let header = SegmentHeader {
                at: number,
                cookie,
                offset: number,
                length: word,
                missing: word,
                direction: byte & 1,
                reason: byte >> 4,
                ..SegmentHeader::default()
            };
            match step {
                0 | 1 => {
                    let mut path = [0; UNIX_PATH_MAX];
                    path.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
                    tap.handle_socket(&SocketFact {
                        family: u16::from(byte & 3),
                        flags: byte >> 7,
                        path_length: word,
                        path,
                        ..tcp(cookie, u32::from(byte & 1))
                    });
                }
                2 => tap.handle_close(&CloseFact { at: number, cookie, received: number, sent: number, ..CloseFact::default() }),
                3 => tap.handle_exit(u32::from(byte & 1), number),
                _ => tap.handle_segment(&header, &bytes),
            }
            while tap.poll().is_some() {}
        }
        tap.handle_exit(0, 0);
        tap.handle_exit(1, 0);
        prop_assert_eq!(tap.open_connections(), 0);
    }
}
