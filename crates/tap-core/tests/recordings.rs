//! Conversations of real clients with a real server, as they were recorded: however they are cut, and whatever is lost
//! of them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "outside of the test functions too, a panic is how a test fails"
)]

use std::{collections::HashMap, fs::File, io::BufReader, path::PathBuf, sync::Arc};

use ebpf_abi::{CloseFact, SegmentHeader, SocketFact};
use recording::{Input, Record, Source};
use tap_core::{Body, Event, Outcome, Query, Redaction, Settings, Tap};

/// What was captured of one recording, in order.
struct Tape {
    name: String,
    steps: Vec<Step>,
    bytes: usize,
}

#[derive(Clone)]
enum Step {
    Socket(Box<SocketFact>),
    Segment(SegmentHeader, Arc<[u8]>),
    Close(CloseFact),
    Exit(u32, u64),
}

fn tapes() -> Vec<Tape> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/recordings"));
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "zst"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 7, "{paths:?}");
    paths.into_iter().map(tape).collect()
}

fn tape(path: PathBuf) -> Tape {
    let mut steps = Vec::new();
    let mut bytes = 0;
    let file = Box::new(BufReader::new(File::open(&path).unwrap()));
    let mut input = Input::new(recording::unpacked(file).unwrap(), None).unwrap();
    let mut source = Source::new(Vec::new());
    let mut take = |record: Record<'_>| {
        steps.push(match record {
            Record::Clock { .. } => return,
            Record::Socket(fact) => Step::Socket(Box::new(fact)),
            Record::Segment(header, payload) => {
                bytes += payload.len();
                Step::Segment(header, payload.into())
            }
            Record::Close(fact) => Step::Close(fact),
            Record::Exit { tgid, at } => Step::Exit(tgid, at),
        });
    };
    while source.step(&mut input, &mut take).unwrap() {}
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    Tape { name, steps, bytes }
}

fn settings() -> Settings {
    Settings {
        redaction: Redaction::Clear,
        ..Settings::default()
    }
}

/// Plays a tape whose segments go through `cut`: it may hand on parts of a segment, or nothing.
fn play(
    tape: &Tape,
    mut cut: impl FnMut(&SegmentHeader, &[u8], &mut dyn FnMut(&SegmentHeader, &[u8])),
) -> Vec<Event> {
    let mut tap = Tap::new(settings());
    let mut events = Vec::new();
    for step in &tape.steps {
        match step {
            Step::Socket(fact) => tap.handle_socket(fact),
            Step::Segment(header, bytes) => {
                cut(header, bytes, &mut |header, bytes| {
                    tap.handle_segment(header, bytes);
                });
            }
            Step::Close(fact) => tap.handle_close(fact),
            Step::Exit(tgid, at) => tap.handle_exit(*tgid, *at),
        }
        while let Some(event) = tap.poll() {
            events.push(event);
        }
    }
    events
}

fn whole(tape: &Tape) -> Vec<Event> {
    play(tape, |header, bytes, out| out(header, bytes))
}

/// A segment in pieces of at most `length` bytes, the first one of at most `first`.
fn pieces(
    header: &SegmentHeader,
    bytes: &[u8],
    first: usize,
    length: usize,
    out: &mut dyn FnMut(&SegmentHeader, &[u8]),
) {
    let mut start = 0;
    let mut end = first.min(bytes.len());
    loop {
        let last = end == bytes.len();
        out(
            &SegmentHeader {
                offset: header.offset + start as u64,
                length: (end - start) as u32,
                missing: if last { header.missing } else { 0 },
                ..*header
            },
            &bytes[start..end],
        );
        if last {
            return;
        }
        (start, end) = (end, (end + length).min(bytes.len()));
    }
}

fn lines(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| format!("{event:?}")).collect()
}

fn assert_same(tape: &Tape, expected: &[String], events: &[Event], how: &str) {
    let seen = lines(events);
    if let Some((expected, seen)) = expected.iter().zip(&seen).find(|(a, b)| a != b) {
        panic!("{}, {how}:\n{expected}\n{seen}", tape.name);
    }
    assert_eq!(seen.len(), expected.len(), "{}, {how}", tape.name);
}

#[test]
fn segments_cut_at_every_byte_give_the_same_events() {
    for tape in tapes() {
        let events = whole(&tape);
        let statements = events.iter().filter(|e| matches!(e.body, Body::Query(_))).count();
        assert!(statements >= 4, "{}: {statements} statements", tape.name);
        assert!(
            !events.iter().any(|e| matches!(e.body, Body::Gap(_))),
            "{}",
            tape.name
        );
        let expected = lines(&events);
        // Cut everywhere at once, then once in each segment, at each of its bytes.
        let longest = |step: &Step| match step {
            Step::Segment(_, bytes) => bytes.len(),
            _ => 0,
        };
        let longest = tape.steps.iter().map(longest).max().unwrap_or(0);
        let again = play(&tape, |header, bytes, out| pieces(header, bytes, 1, 1, out));
        assert_same(&tape, &expected, &again, "byte by byte");
        // As many places as may be tried in some seconds.
        let step = (longest * tape.bytes / BUDGET_BYTES).max(1);
        for first in (1..longest).step_by(step) {
            let again = play(&tape, |header, bytes, out| {
                pieces(header, bytes, first, usize::MAX / 2, out);
            });
            assert_same(&tape, &expected, &again, &format!("cut behind {first} bytes"));
        }
    }
}

/// Bytes played for the single cuts of one recording.
const BUDGET_BYTES: usize = 40_000_000;
/// Runs of each recording with losses.
const SEEDS: u64 = 400;

/// Names a request: its connection, where it ends, and which of its statements.
type Place = (u64, u64, u32, String);

fn place(event: &Event, query: &Query) -> Place {
    let kind = format!("{:?}", query.kind);
    (event.session.cookie, query.request.end, query.index, kind)
}

#[test]
fn losing_one_segment_in_a_hundred_never_makes_a_statement_wrong() {
    let (mut lost, mut known, mut unknown, mut gaps) = (0_u64, 0_u64, 0_u64, 0_u64);
    for tape in tapes() {
        let events = whole(&tape);
        let mut truth: HashMap<Place, &Query> = HashMap::new();
        for event in &events {
            if let Body::Query(query) = &event.body {
                assert!(
                    truth.insert(place(event, query), query).is_none(),
                    "two requests in one place"
                );
            }
        }
        // The long ones take their time, and hold few statements.
        let seeds = if tape.bytes > 1_000_000 { SEEDS / 10 } else { SEEDS };
        for seed in 0..seeds {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let seen = play(&tape, |header, bytes, out| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                if random % 100 == 0 {
                    lost += 1;
                } else {
                    out(header, bytes);
                }
            });
            for event in &seen {
                match &event.body {
                    Body::Query(query) => {
                        if compare(&tape, seed, event, query, &truth) {
                            known += 1;
                        } else {
                            unknown += 1;
                        }
                    }
                    Body::Gap(_) => gaps += 1,
                    _ => {}
                }
            }
        }
    }
    println!(
        "{lost} segments lost: {known} statements right, {unknown} with something unknown, {gaps} gaps told"
    );
    assert!(lost > 0 && gaps > 0 && known > unknown);
}

/// Whether all is known of a statement. Panics if what is said to be known is wrong.
fn compare(tape: &Tape, seed: u64, event: &Event, query: &Query, truth: &HashMap<Place, &Query>) -> bool {
    let here = || format!("{}, seed {seed}, {:?}", tape.name, place(event, query));
    let Some(truth) = truth.get(&place(event, query)) else {
        // A Parse whose Execute was hidden is told by itself, and a string that could not be taken apart as a whole.
        let partial = query.outcome == Outcome::Unknown || query.text_is_shared;
        assert!(partial, "{}: no such request: {query:?}", here());
        return false;
    };
    let mut all = true;
    if query.text_is_whole() {
        assert_eq!(query.text, truth.text, "{}", here());
    } else {
        all &= truth.text.is_none() || truth.truncated;
        if let (true, Some(head), Some(text)) = (query.truncated, &query.text, &truth.text) {
            assert!(text.starts_with(&**head), "{}: {head}", here());
        }
    }
    for (param, truth) in query.params.iter().zip(truth.params.iter()) {
        assert_eq!(param.bytes, truth.bytes, "{}", here());
        assert!(truth.kept.starts_with(&param.kept), "{}", here());
    }
    match query.outcome {
        Outcome::Unknown | Outcome::Unanswered => all = false,
        outcome => {
            assert_eq!(outcome, truth.outcome, "{}", here());
            assert_eq!((&query.tag, query.rows), (&truth.tag, truth.rows), "{}", here());
            assert!(
                query.rows_affected.is_none_or(|n| Some(n) == truth.rows_affected),
                "{}",
                here()
            );
            assert_eq!(query.error, truth.error, "{}", here());
        }
    }
    if query
        .transaction_final
        .is_some_and(|how| how != tap_core::Final::Unknown)
        && truth.transaction_final.is_some()
    {
        assert_eq!(query.transaction_final, truth.transaction_final, "{}", here());
    }
    all
}
