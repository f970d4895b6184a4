//! Outputs must not depend on how the bytes are cut, and no bytes may break a session.

mod conversation;

use conversation::*;
use pg_wire::{Limits, Output, Session, fuzz_session};
use proptest::prelude::*;

/// Plays turns of which each is cut at the given places.
fn play_cut(turns: &[Turn], mut cut_at: impl FnMut(usize) -> bool) -> Vec<Output> {
    let mut player = Player::new(Session::new(Limits::default()));
    let mut place = 0;
    for (direction, bytes) in turns {
        let mut start = 0;
        for end in 1..=bytes.len() {
            place += 1;
            if end == bytes.len() || cut_at(place) {
                player.bytes(*direction, bytes.get(start..end).unwrap_or_default());
                start = end;
            }
        }
    }
    player.close()
}

fn length(turns: &[Turn]) -> usize {
    turns.iter().map(|(_, bytes)| bytes.len()).sum()
}

#[test]
fn every_single_cut_gives_the_same() {
    for (name, conversation) in samples::all() {
        let whole = conversation.play();
        assert!(!whole.is_empty());
        for cut in 0..length(&conversation.turns) {
            assert_eq!(
                play_cut(&conversation.turns, |place| place == cut),
                whole,
                "{name}, cut at {cut}"
            );
        }
        assert_eq!(
            play_cut(&conversation.turns, |_| true),
            whole,
            "{name}, byte by byte"
        );
    }
}

#[test]
fn every_truncation_gives_a_beginning_and_the_unanswered() {
    for (name, conversation) in samples::all() {
        let whole = conversation.play();
        for end in 0..length(&conversation.turns) {
            let mut left = end;
            let turns: Vec<Turn> = conversation
                .turns
                .iter()
                .map(|(direction, bytes)| {
                    let take = left.min(bytes.len());
                    left -= take;
                    (*direction, bytes[..take].to_vec())
                })
                .collect();
            let some = Conversation { turns }.play();
            // What was closed by a ReadyForQuery is what the whole gives; the rest is told as not seen to its end.
            let equal = some.iter().zip(&whole).take_while(|(a, b)| a == b).count();
            for output in &some[equal..] {
                let Output::Exchange(exchange) = output else {
                    panic!("{name}, end {end}: {output:?} is not in the whole");
                };
                assert_eq!(exchange.transaction_status, None, "{name}, end {end}");
            }
        }
    }
}

proptest! {
    #[test]
    fn random_cuts_give_the_same(sample in 0..8_usize, seed in any::<u64>(), density in 1..40_u64) {
        let (name, conversation) = &samples::all()[sample];
        let mut state = seed | 1;
        let cut = play_cut(&conversation.turns, |_| {
            // xorshift: where to cut is all that is asked of it.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.is_multiple_of(density)
        });
        prop_assert_eq!(cut, conversation.play(), "{}", name);
    }

    #[test]
    fn random_bytes_break_nothing(data in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        fuzz_session(&data);
    }

    #[test]
    fn mutated_conversations_break_nothing(
        sample in 0..8_usize,
        mid_stream in any::<bool>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6),
    ) {
        let mut turns = samples::all()[sample].1.turns.clone();
        for (index, byte, how) in changes {
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
            if turns.is_empty() {
                break;
            }
        }
        let limits = Limits::default();
        let session = if mid_stream { Session::mid_stream(limits.clone()) } else { Session::new(limits.clone()) };
        let mut player = Player::new(session);
        for (direction, bytes) in &turns {
            player.bytes(*direction, bytes);
            prop_assert!(player.session.retained_bytes() < 1 << 20);
        }
        player.close();
    }
}

/// With bounds that a few messages reach, what is kept stays under what the limits promise, whatever the client sends.
#[test]
fn memory_stays_under_the_promised_bound() {
    let limits = Limits {
        statement_bytes: 2_000,
        prepared: 20,
        prepared_bytes: 20_000,
        pipeline: 50,
        pipeline_bytes: 10_000,
        results: 20,
        columns: 100,
        ..Limits::default()
    };
    let promised = limits.retained_bound();
    let mut player = Player::new(Session::new(limits));
    player.turns(&Conversation::logged_in().turns);
    let long = "x".repeat(3_000);
    let wide: Vec<_> = (0..40).map(|_| ("column", 1, 1)).collect();
    for round in 0..500 {
        let name = format!("{round}{}", "n".repeat(100));
        let ask = [
            parse(&name, &long),
            describe('S', &name),
            bind(&name, &name, &[]),
            execute(&name, 0),
            flush(),
        ]
        .concat();
        player.bytes(pg_wire::Direction::Frontend, &ask);
        let answer = [
            parsed(),
            parameter_description(),
            row_description(&wide),
            bound(),
            complete("SELECT 0"),
        ]
        .concat();
        player.bytes(pg_wire::Direction::Backend, &answer);
        assert!(player.session.retained_bytes() <= promised, "round {round}");
        player.outputs.clear();
    }
    player.bytes(pg_wire::Direction::Frontend, &[sync(), query(&long)].concat());
    player.bytes(pg_wire::Direction::Backend, &ready(b'T'));
    for _ in 0..500 {
        player.bytes(
            pg_wire::Direction::Backend,
            &[row_description(&wide), row("1"), complete("SELECT 1")].concat(),
        );
        assert!(player.session.retained_bytes() <= promised);
    }
    for _ in 0..500 {
        player.bytes(pg_wire::Direction::Frontend, &query(&long));
        assert!(player.session.retained_bytes() <= promised);
    }
}
