//! Sealing and opening batches: what holds, and that nothing else does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use evidence::{BatchError, Chain, Contents, Limits, Tip, open, seal};
use proptest::prelude::*;
use prost::Message;
use proto::v1::{BatchHeader, BatchPayload, Counters, SignedBatch};
use sha2::{Digest, Sha256};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn sealed(events: &[&[u8]]) -> SignedBatch {
    let events: Vec<Bytes> = events.iter().map(|event| Bytes::copy_from_slice(event)).collect();
    seal(
        &mut Chain::new("host-1"),
        &key(),
        events,
        1,
        10,
        20,
        Counters::default(),
        [9; 32],
    )
}

/// Two events that name one definition, and a third one.
fn defined() -> Contents {
    let mut contents = Contents::default();
    contents.definition(b"who");
    contents.event(&[b"one", b" by 0"]);
    contents.event(&[b"two by 0"]);
    contents.event(&[b""]);
    contents
}

fn sealed_with_definitions() -> SignedBatch {
    let mut chain = Chain::new("host-1");
    seal(&mut chain, &key(), defined(), 1, 10, 20, None, [9; 32])
}

fn check(batch: &SignedBatch) -> Result<evidence::OpenedBatch, BatchError> {
    open(batch, &key().verifying_key(), &Limits::default())
}

/// Signs a header that `seal` would never make.
fn forged(batch: &SignedBatch, change: impl FnOnce(&mut BatchHeader)) -> SignedBatch {
    let mut header = BatchHeader::decode(batch.header.clone()).unwrap();
    change(&mut header);
    signed(batch, header.encode_to_vec())
}

fn signed(batch: &SignedBatch, header: Vec<u8>) -> SignedBatch {
    let signature = key()
        .sign(&[evidence::BATCH_SIGNATURE_CONTEXT, &header].concat())
        .to_bytes();
    SignedBatch {
        header: header.into(),
        signature: Bytes::copy_from_slice(&signature),
        payload: batch.payload.clone(),
    }
}

fn with_payload(batch: &SignedBatch, payload: Vec<u8>) -> SignedBatch {
    let digest = Sha256::digest(&payload).to_vec();
    SignedBatch {
        payload: payload.into(),
        ..forged(batch, |header| header.payload_digest = digest)
    }
}

#[test]
fn a_chain_of_batches_opens_and_follows() {
    let (mut chain, mut tip) = (Chain::new("host-1"), Tip::default());
    for n in 0..5_u64 {
        let events: Vec<Bytes> = (0..n).map(|i| Bytes::from(vec![7; i as usize])).collect();
        let batch = seal(
            &mut chain,
            &key(),
            events.clone(),
            tip.event_seq + 1,
            n,
            n,
            None,
            [n as u8; 32],
        );
        let opened = check(&batch).unwrap();
        assert_eq!(opened.events, events);
        tip = tip.follow(&opened.header, opened.header_hash).unwrap();
        assert_eq!((tip.sequence, tip.header_hash), (n + 1, chain.previous));
    }
    assert_eq!(chain, Chain::behind("host-1", 5, tip.header_hash));
}

#[test]
fn every_other_bit_is_found_out() {
    for batch in [sealed(&[b"one", b"", b"three"]), sealed_with_definitions()] {
        assert!(check(&batch).is_ok());
        every_other_bit(&batch);
    }
}

fn every_other_bit(batch: &SignedBatch) {
    type Part = fn(&mut SignedBatch) -> &mut Bytes;
    let parts: [Part; 3] = [|b| &mut b.header, |b| &mut b.signature, |b| &mut b.payload];
    for part in parts {
        for bit in 0..part(&mut batch.clone()).len() * 8 {
            let mut other = batch.clone();
            let mut bytes = part(&mut other).to_vec();
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            *part(&mut other) = bytes.into();
            assert!(check(&other).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn a_signer_s_own_lies_are_found_out() {
    let batch = sealed(&[b"one", b"two"]);
    let count = forged(&batch, |header| header.event_count = 3);
    assert_eq!(
        check(&count),
        Err(BatchError::EventCount {
            expected: 3,
            found: 2
        })
    );
    assert_eq!(
        check(&forged(&batch, |header| header.events_root = vec![0; 32])),
        Err(BatchError::Root)
    );
    assert_eq!(
        check(&forged(&batch, |header| header.payload_digest = vec![0; 32])),
        Err(BatchError::Digest)
    );
    let many = forged(&batch, |header| header.event_count = u32::MAX);
    assert!(matches!(
        check(&many),
        Err(BatchError::TooLarge {
            what: "the event count",
            ..
        })
    ));
    let id = forged(&batch, |header| header.agent_id = "../x".to_owned());
    assert!(matches!(check(&id), Err(BatchError::Header(_))));
    assert_eq!(
        check(&with_payload(&batch, b"no frame".to_vec())),
        Err(BatchError::Payload("not a zstd frame"))
    );
}

/// The payload of a batch, changed, under a header that names the new one and is otherwise the same.
fn repacked(batch: &SignedBatch, change: impl FnOnce(&mut BatchPayload)) -> SignedBatch {
    let payload = zstd::bulk::decompress(&batch.payload, 1 << 20).unwrap();
    let mut payload = BatchPayload::decode(payload.as_slice()).unwrap();
    change(&mut payload);
    with_payload(batch, zstd::bulk::compress(&payload.encode_to_vec(), 1).unwrap())
}

#[test]
fn definitions_are_part_of_what_is_signed() {
    let batch = sealed_with_definitions();
    let opened = check(&batch).unwrap();
    assert_eq!(opened.events, [b"one by 0".as_slice(), b"two by 0", b""]);
    assert_eq!(opened.definitions, [b"who".as_slice()]);
    assert_eq!(
        (opened.header.event_count, opened.header.definition_count),
        (3, 1)
    );
    // Another one in its place, none, one more, and one that is passed off as an event.
    let other = repacked(&batch, |payload| {
        payload.definitions = vec![Bytes::from_static(b"wHo")];
    });
    assert_eq!(check(&other), Err(BatchError::Root));
    let none = repacked(&batch, |payload| payload.definitions.clear());
    let (expected, found) = (1, 0);
    assert_eq!(check(&none), Err(BatchError::DefinitionCount { expected, found }));
    let more = repacked(&batch, |payload| payload.definitions.push(Bytes::new()));
    let (expected, found) = (1, 2);
    assert_eq!(check(&more), Err(BatchError::DefinitionCount { expected, found }));
    let moved = repacked(&batch, |payload| payload.events.append(&mut payload.definitions));
    assert!(matches!(check(&moved), Err(BatchError::EventCount { .. })));
    let many = forged(&batch, |header| header.definition_count = u32::MAX);
    assert!(matches!(
        check(&many),
        Err(BatchError::TooLarge {
            what: "the definition count",
            ..
        })
    ));
}

/// What a proof of one event holds is enough to recompute the root: the event, its definition, their salts, and the
/// other leaves' hashes.
#[test]
fn an_event_is_proved_with_the_definition_that_it_names() {
    let batch = sealed_with_definitions();
    let header = BatchHeader::decode(batch.header).unwrap();
    let leaf = |index, message: &[u8]| evidence::leaf(&evidence::salt(&[9; 32], index), message);
    let hidden = [leaf(0, b"one by 0"), leaf(2, b"")];
    let prove = |event: &[u8], definition: &[u8]| {
        let mut tree = evidence::Frontier::default();
        for hash in [hidden[0], leaf(1, event), hidden[1], leaf(3, definition)] {
            tree.push(hash);
        }
        tree.root() == header.events_root.as_slice()
    };
    assert!(prove(b"two by 0", b"who"));
    assert!(!prove(b"two by 1", b"who") && !prove(b"two by 0", b"who?"));
}

#[test]
fn a_header_in_another_encoding_is_refused() {
    let batch = sealed(&[b"one"]);
    // A field repeated, and one that is not in its shortest form: both parse, neither is what `seal` writes.
    let repeated = [batch.header.as_ref(), &[0x10, 1]].concat();
    let long = [batch.header.as_ref(), &[0xf8, 0x07, 0x81, 0]].concat();
    for header in [repeated, long] {
        assert_eq!(
            check(&signed(&batch, header)),
            Err(BatchError::Header("not in canonical encoding"))
        );
    }
}

#[test]
fn a_header_of_a_later_version_is_taken_as_it_is() {
    let batch = sealed(&[b"one"]);
    let header = [batch.header.as_ref(), &[0xf8, 0x07, 1]].concat();
    let later = signed(&batch, header.clone());
    let opened = check(&later).expect("what is not known is kept");
    assert_eq!(opened.header_hash, evidence::header_hash(&header), "and hashed");
}

#[test]
fn a_payload_that_claims_gigabytes_stops_at_the_cap() {
    let batch = sealed(&[]);
    let zeros = zstd::bulk::compress(&vec![0; 65 << 20], 1).unwrap();
    assert!(zeros.len() < 16 << 10);
    let bomb = with_payload(&batch, zeros);
    assert!(matches!(
        check(&bomb),
        Err(BatchError::TooLarge {
            what: "the unpacked payload",
            ..
        })
    ));
}

#[test]
fn salts_hide_equal_events_from_each_other() {
    let seed = [9; 32];
    let leaves = [0, 1].map(|index| evidence::leaf(&evidence::salt(&seed, index), b"same"));
    assert_ne!(leaves[0], leaves[1]);
    // Fixed by hand from the definition, so that a change of it shows.
    let digest = |pair| Sha256::digest([b"pgwitness salt v1".as_slice(), &seed, &[0, 0, 0, pair]].concat());
    assert_eq!(evidence::salt(&seed, 0), digest(0)[..16]);
    assert_eq!(evidence::salt(&seed, 1), digest(0)[16..]);
    assert_eq!(evidence::salt(&seed, 6), digest(3)[..16]);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(header in any::<Vec<u8>>(), payload in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
        let batch = sealed(&[]);
        let raw = SignedBatch { header: header.clone().into(), signature: signature.into(), payload: payload.clone().into() };
        prop_assert!(check(&raw).is_err());
        prop_assert!(check(&signed(&batch, header)).is_err());
        let inner = BatchPayload { salt_seed: payload.clone().into(), events: vec![payload.clone().into()], definitions: vec![payload.clone().into()], remains: None };
        let framed = zstd::bulk::compress(&inner.encode_to_vec(), 1).unwrap();
        prop_assert!(check(&with_payload(&batch, framed)).is_err());
        prop_assert!(check(&with_payload(&batch, payload)).is_err());
    }
}
