//! Captures of one psql session with a real server (`captures/script.sql`), taken by tcpdump and dumpcap on the loopback
//! interface, through the whole pipeline. What must come out lies beside them; `PGWITNESS_BLESS=1` writes it anew.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{fs, io::Cursor, path::PathBuf};

use recording::{Format, Input, Record, Source, Summary};
use tap_core::{Body, Event, Settings, Tap};

fn capture(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).expect("a capture")
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

/// Every event as a line.
fn replay(files: &[&[u8]], ports: &[u16]) -> (Vec<String>, Summary) {
    let mut source = Source::new(ports.to_vec());
    let mut tap = Tap::new(Settings::default());
    let mut lines = Vec::new();
    let mut take = |record: Record<'_>| {
        match record {
            Record::Socket(fact) => tap.handle_socket(&fact),
            Record::Segment(header, bytes) => tap.handle_segment(&header, bytes),
            Record::Close(fact) => tap.handle_close(&fact),
            Record::Exit { tgid, at } => tap.handle_exit(tgid, at),
            Record::Clock { .. } => {}
        }
        while let Some(event) = tap.poll() {
            lines.push(line(&event));
        }
    };
    for file in files {
        let file = recording::unpacked(Cursor::new(file.to_vec())).expect("memory");
        let mut input = Input::new(file, None).expect("a format that is known");
        assert_eq!(input.format(), Format::Packets);
        while source.step(&mut input, &mut take).expect("not damaged") {}
    }
    source.finish(&mut take);
    (lines, *source.summary())
}

fn line(event: &Event) -> String {
    match &event.body {
        Body::SessionOpen => format!(
            "open {} {}",
            event.session.login_role.as_deref().unwrap_or("?"),
            event.session.database.as_deref().unwrap_or("?")
        ),
        Body::Query(query) => format!(
            "query {:?} {:?} rows {} bytes {} {}",
            query.text.as_deref().unwrap_or("?"),
            query.outcome,
            query.rows,
            query.bytes_in,
            query.bytes_out
        ),
        Body::Gap(gap) => format!("gap {} {:?} {:?}", gap.reason, gap.direction, gap.bytes_missing),
        Body::SessionClose {
            reason,
            bytes_in,
            bytes_out,
            ..
        } => format!("close {reason} {bytes_in} {bytes_out}"),
        other => {
            let text = format!("{other:?}");
            text.split(|c: char| !c.is_alphanumeric())
                .next()
                .unwrap_or_default()
                .to_lowercase()
        }
    }
}

fn expect(name: &str, lines: &[String]) {
    let path = folder().join(name);
    let text = lines.join("\n") + "\n";
    if std::env::var_os("PGWITNESS_BLESS").is_some() {
        fs::write(&path, &text).expect("written");
    }
    assert_eq!(fs::read_to_string(&path).expect("what is expected"), text);
}

#[test]
fn every_kind_of_capture_gives_the_same_events() {
    for name in [
        "ethernet.pcap",
        "ethernet-v6.pcap",
        "cooked1.pcap",
        "cooked2.pcap",
        "nanoseconds.pcap",
        "dumpcap.pcapng",
    ] {
        for ports in [&[][..], &[54329]] {
            let (lines, summary) = replay(&[&capture(name)], ports);
            expect("script.expected", &lines);
            assert_eq!((summary.packets, summary.connections), (33, 1), "{name}");
            assert_eq!(
                (summary.gaps, summary.torn_bytes, summary.unrecognised),
                (0, 0, 0),
                "{name}"
            );
        }
        let packed = zstd::encode_all(capture(name).as_slice(), 0).expect("memory");
        expect("script.expected", &replay(&[&packed], &[]).0);
    }
}

#[test]
fn packets_that_were_cut_short_are_gaps() {
    let (lines, summary) = replay(&[&capture("short.pcap")], &[]);
    expect("short.expected", &lines);
    assert_eq!((summary.cut, summary.gaps, summary.missing_bytes), (3, 3, 483));
}

/// A capture of Ethernet with microseconds, little-endian, as tcpdump writes it: its packets.
fn packets(file: &[u8]) -> Vec<([u8; 16], Vec<u8>)> {
    let mut packets = Vec::new();
    let mut rest = &file[24..];
    while let Some((head, behind)) = rest.split_first_chunk::<16>() {
        let length = u32::from_le_bytes(head[8..12].try_into().expect("four")) as usize;
        packets.push((*head, behind[..length].to_vec()));
        rest = &behind[length..];
    }
    packets
}

/// Such a capture, with frames that were changed.
fn rewritten(file: &[u8], link: u8, change: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut made = file[..20].to_vec();
    made.extend_from_slice(&[link, 0, 0, 0]);
    for (mut head, frame) in packets(file) {
        let frame = change(&frame);
        let length = u32::try_from(frame.len()).expect("short").to_le_bytes();
        head[8..12].copy_from_slice(&length);
        head[12..16].copy_from_slice(&length);
        made.extend_from_slice(&head);
        made.extend_from_slice(&frame);
    }
    made
}

#[test]
fn tags_raw_packets_and_the_other_byte_order_change_nothing() {
    let file = capture("ethernet.pcap");
    let tagged = rewritten(&file, 1, |frame| {
        [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat()
    });
    let raw = rewritten(&file, 101, |frame| frame[14..].to_vec());
    let loopback = rewritten(&file, 0, |frame| [&[2, 0, 0, 0], &frame[14..]].concat());
    let swap = |bytes: &[u8]| -> Vec<u8> {
        bytes
            .chunks(4)
            .flat_map(|word| word.iter().rev().copied())
            .collect()
    };
    let mut big = swap(&file[..4]);
    big.extend_from_slice(&[0, 2, 0, 4]);
    big.extend(swap(&file[8..24]));
    for (head, frame) in packets(&file) {
        big.extend(swap(&head));
        big.extend(frame);
    }
    for made in [tagged, raw, loopback, big] {
        expect("script.expected", &replay(&[&made], &[]).0);
    }
}

#[test]
fn a_capture_in_several_files_is_one_capture() {
    let file = capture("ethernet.pcap");
    let heads = packets(&file);
    let cut = 24
        + heads
            .iter()
            .take(15)
            .map(|(_, frame)| 16 + frame.len())
            .sum::<usize>();
    let second = [&file[..24], &file[cut..]].concat();
    expect("script.expected", &replay(&[&file[..cut], &second], &[]).0);
    // Every cut is a torn tail at the most.
    for end in 24..file.len() {
        let (lines, summary) = replay(&[&file[..end]], &[]);
        assert!(lines.len() <= 12 && summary.packets <= 33);
    }
}

#[test]
fn a_connection_from_before_the_capture_is_followed_from_its_next_request() {
    let file = capture("ethernet.pcap");
    let skip: usize = packets(&file)
        .iter()
        .take(9)
        .map(|(_, frame)| 16 + frame.len())
        .sum();
    let (lines, summary) = replay(&[&[&file[..24], &file[24 + skip..]].concat()], &[]);
    expect("later.expected", &lines);
    assert_eq!(
        (summary.connections, summary.mid_stream, summary.missing_bytes),
        (1, 1, 0)
    );
}
