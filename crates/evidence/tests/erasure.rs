//! Payloads that lose leaves: what is gone is gone, what is left still holds, and nothing else passes for either.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use evidence::{
    BatchError, Chain, Contents, Hash, Limits, OpenedBatch, disclose, erase, open, open_kept, root_by, seal,
};
use proptest::prelude::*;
use prost::Message;
use proto::v1::{BatchPayload, SignedBatch};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

const SEED: [u8; 32] = [9; 32];

/// A batch of these events and definitions.
fn sealed(events: &[Vec<u8>], definitions: &[Vec<u8>]) -> SignedBatch {
    let mut contents = Contents::default();
    events.iter().for_each(|event| contents.event(&[event]));
    for definition in definitions {
        contents.definition(definition);
    }
    seal(&mut Chain::new("host-1"), &key(), contents, 1, 10, 20, None, SEED)
}

fn named(count: usize, what: &str) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| format!("the {what} with the number {n}").into_bytes())
        .collect()
}

fn without(batch: &SignedBatch, places: &[u32]) -> SignedBatch {
    SignedBatch {
        payload: erase(&batch.payload, places, &Limits::default()).unwrap().into(),
        ..batch.clone()
    }
}

fn kept(batch: &SignedBatch) -> Result<OpenedBatch, BatchError> {
    open_kept(batch, &key().verifying_key(), &Limits::default())
}

fn unpacked(batch: &SignedBatch) -> Vec<u8> {
    zstd::bulk::decompress(&batch.payload, 1 << 20).unwrap()
}

fn holds(bytes: &[u8], value: &[u8]) -> bool {
    bytes.windows(value.len()).any(|window| window == value)
}

/// The batch with another payload, which was changed.
fn repacked(batch: &SignedBatch, change: impl FnOnce(&mut BatchPayload)) -> SignedBatch {
    let mut payload = BatchPayload::decode(unpacked(batch).as_slice()).unwrap();
    change(&mut payload);
    raw(batch, &payload.encode_to_vec())
}

fn raw(batch: &SignedBatch, payload: &[u8]) -> SignedBatch {
    SignedBatch {
        payload: zstd::bulk::compress(payload, 1).unwrap().into(),
        ..batch.clone()
    }
}

#[test]
fn what_is_erased_is_gone_and_all_the_rest_is_proven_as_before() {
    let batch = sealed(&named(5, "event"), &named(3, "definition"));
    let before = disclose(&batch, &[0, 1, 2, 3, 4, 5, 6, 7], &Limits::default()).unwrap();
    let rest = without(&batch, &[1, 4, 6]);
    let opened = kept(&rest).unwrap();
    assert_eq!(opened.erased, [1, 4, 6]);
    assert!(opened.is_event_erased(1) && opened.is_event_erased(4) && !opened.is_event_erased(0));
    assert!(opened.is_definition_erased(1) && !opened.is_definition_erased(0) && !opened.is_event_erased(6));
    let bytes = unpacked(&rest);
    assert!(!holds(&bytes, &SEED), "the seed would give the salts away");
    for (place, leaf) in (0_u32..).zip(&before) {
        let now = disclose(&rest, &[place], &Limits::default());
        if [1, 4, 6].contains(&place) {
            assert_eq!(now, Err(BatchError::Erased));
            assert!(
                !holds(&bytes, &leaf.message) && !holds(&bytes, &leaf.salt),
                "place {place}"
            );
            continue;
        }
        let now = now.unwrap();
        assert_eq!(now, vec![leaf.clone()], "place {place}");
        let hash = evidence::leaf(&now[0].salt, &now[0].message);
        let root = root_by(&hash, u64::from(place), 8, &now[0].path).unwrap();
        assert_eq!(root.as_slice(), opened.header.events_root);
    }
    // Not what an agent may send.
    let sent = open(&rest, &key().verifying_key(), &Limits::default());
    assert_eq!(sent, Err(BatchError::Digest));
}

#[test]
fn an_agent_cannot_keep_leaves_back() {
    let batch = sealed(&named(3, "event"), &[]);
    let rest = without(&batch, &[1]);
    // It signs a header over the payload that has lost a leaf.
    let mut header = proto::v1::BatchHeader::decode(batch.header.clone()).unwrap();
    header.payload_digest = <sha2::Sha256 as sha2::Digest>::digest(&rest.payload).to_vec();
    let header = header.encode_to_vec();
    let signed = [evidence::BATCH_SIGNATURE_CONTEXT, &header].concat();
    let signature = ed25519_dalek::Signer::sign(&key(), &signed).to_bytes().to_vec();
    let sent = SignedBatch {
        header: header.into(),
        signature: signature.into(),
        payload: rest.payload,
    };
    let refused = Err(BatchError::Payload("its agent kept leaves back"));
    assert_eq!(open(&sent, &key().verifying_key(), &Limits::default()), refused);
    assert_eq!(kept(&sent), refused);
}

#[test]
fn only_what_a_header_s_root_is_over_passes() {
    let batch = sealed(&named(4, "event"), &named(1, "definition"));
    let rest = without(&batch, &[1, 4]);
    let is_wrong = |other: &SignedBatch| kept(other).is_err();
    // Another payload that nothing was erased from is not the one that was signed, whatever its leaves.
    let again = raw(&batch, &unpacked(&batch));
    assert_eq!(kept(&again).is_ok(), again.payload == batch.payload);
    let longer = raw(&batch, &[unpacked(&batch).as_slice(), b"\xaa\x06\x02hi"].concat());
    assert_eq!(kept(&longer), Err(BatchError::Digest));
    // Something more in it, that nobody signed.
    let hidden = raw(&rest, &[unpacked(&rest).as_slice(), b"\xaa\x06\x02hi"].concat());
    assert!(is_wrong(&hidden), "a field that nobody knows");
    type Change = fn(&mut BatchPayload);
    let changes: [(&str, Change); 9] = [
        ("the seed is back", |payload| {
            payload.salt_seed = Bytes::from_static(&SEED);
        }),
        ("words in place of what was erased", |payload| {
            payload.events[1] = Bytes::from_static(b"hi");
        }),
        ("another event", |payload| {
            payload.events[0] = Bytes::from_static(b"hi");
        }),
        ("one event less", |payload| _ = payload.events.pop()),
        ("an event for a definition", |payload| {
            payload.events.push(Bytes::new());
        }),
        ("another hash", |payload| {
            payload.remains.as_mut().unwrap().leaves[0] ^= 1;
        }),
        ("another salt", |payload| {
            payload.remains.as_mut().unwrap().salts[0] ^= 1;
        }),
        ("another place", |payload| {
            payload.remains.as_mut().unwrap().erased[0] = 2;
        }),
        ("twice the same place", |payload| {
            payload.remains.as_mut().unwrap().erased[1] = 1;
        }),
    ];
    assert!(!is_wrong(&repacked(&rest, |_| {})));
    for (what, change) in changes {
        assert!(is_wrong(&repacked(&rest, change)), "{what}");
    }
    for cut in [0, 1, 31, 32] {
        let short = |payload: &mut BatchPayload| payload.remains.as_mut().unwrap().leaves.truncate(cut);
        assert!(is_wrong(&repacked(&rest, short)), "hashes of {cut} bytes");
    }
    for place in [5, u32::MAX] {
        let none = erase(&batch.payload, &[place], &Limits::default());
        assert_eq!(none, Err(BatchError::Payload("it has no such place")));
    }
    assert!(erase(&batch.payload, &[], &Limits::default()).is_err());
}

proptest! {
    #[test]
    fn any_leaves_go_in_any_number_of_steps(
        events in prop::collection::vec(any::<Vec<u8>>(), 1..24),
        definitions in prop::collection::vec(any::<Vec<u8>>(), 0..8),
        first in any::<u32>(),
        second in any::<u32>(),
    ) {
        let batch = sealed(&events, &definitions);
        let count = (events.len() + definitions.len()) as u32;
        let some = |of: u32| (0..count).filter(|place| of >> place & 1 == 1).collect::<Vec<u32>>();
        let (first, both) = (some(first), some(first | second));
        prop_assume!(!first.is_empty() && !some(second).is_empty());
        let at_once = without(&batch, &both);
        let in_steps = without(&without(&batch, &first), &some(second));
        prop_assert_eq!(&at_once, &in_steps);
        prop_assert_eq!(&without(&at_once, &both), &at_once, "what is gone stays so");
        let opened = kept(&at_once).unwrap();
        prop_assert_eq!(&opened.erased, &both);
        let messages: Vec<&Vec<u8>> = events.iter().chain(&definitions).collect();
        let left = opened.events.iter().chain(&opened.definitions);
        for ((place, was), is) in (0_u32..).zip(messages).zip(left) {
            let gone = both.contains(&place);
            prop_assert_eq!(is.as_ref(), if gone { &[][..] } else { was });
        }
    }

    #[test]
    fn no_bit_of_what_is_left_says_something_else(bit in any::<prop::sample::Index>()) {
        let batch = sealed(&named(4, "event"), &named(2, "definition"));
        let rest = without(&batch, &[0, 5]);
        let mut bytes = unpacked(&rest);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(kept(&raw(&rest, &bytes)).is_err(), "bit {}", bit);
    }
}

#[test]
fn the_form_is_fixed() {
    let batch = sealed(&[b"one".to_vec(), b"two".to_vec()], &[]);
    let payload = BatchPayload::decode(unpacked(&without(&batch, &[0])).as_slice()).unwrap();
    let remains = payload.remains.unwrap();
    let hash: Hash = evidence::leaf(&evidence::salt(&SEED, 0), b"one");
    assert_eq!(remains.erased, [0]);
    assert_eq!(remains.leaves, hash);
    assert_eq!(remains.salts, evidence::salt(&SEED, 1));
    assert_eq!(payload.events, [Bytes::new(), Bytes::from_static(b"two")]);
    assert!(payload.salt_seed.is_empty());
}
