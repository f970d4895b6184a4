//! What goes into a batch, gathered as it comes.
//!
//! Owns the bytes of a payload while it grows: events and definitions are written where they will be compressed from, so
//! that sealing copies nothing. Refuses to know what they say.

use std::ops::Range;

use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};

// Numbers of the fields in delivery.proto.
const SALT_SEED: u32 = 1;
const EVENTS: u32 = 2;
const DEFINITIONS: u32 = 3;

/// Encoded events, and the definitions that they name.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    events: Fields,
    definitions: Fields,
}

/// Fields of a payload, as they are encoded, and where the message of each lies.
#[derive(Clone, Debug, Default)]
struct Fields {
    bytes: Vec<u8>,
    messages: Vec<Range<usize>>,
}

impl Contents {
    /// Adds an encoded event, which may come in pieces.
    pub fn event(&mut self, pieces: &[&[u8]]) {
        self.events.add(EVENTS, pieces);
    }

    /// Adds an encoded definition; its place among the batch's definitions is what events name it by.
    pub fn definition(&mut self, definition: &[u8]) -> u32 {
        self.definitions.add(DEFINITIONS, &[definition]);
        self.counts().1.saturating_sub(1)
    }

    /// Events in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.messages.len()
    }

    /// Whether no event is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.messages.is_empty()
    }

    /// Bytes in memory, about.
    #[must_use]
    pub fn size(&self) -> usize {
        self.events.size() + self.definitions.size()
    }

    /// Events and definitions.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let count = |fields: &Fields| u32::try_from(fields.messages.len()).unwrap_or(u32::MAX);
        (count(&self.events), count(&self.definitions))
    }

    /// The encoded events.
    pub fn events(&self) -> impl Iterator<Item = &[u8]> {
        self.events.messages()
    }

    /// The encoded definitions.
    pub fn definitions(&self) -> impl Iterator<Item = &[u8]> {
        self.definitions.messages()
    }

    /// The messages in the order of their leaves.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &[u8]> {
        self.events().chain(self.definitions())
    }

    /// An encoded `BatchPayload`.
    pub(crate) fn payload(&self, salt_seed: &[u8]) -> Vec<u8> {
        let mut seed = Fields::default();
        seed.add(SALT_SEED, &[salt_seed]);
        [seed.bytes.as_slice(), &self.events.bytes, &self.definitions.bytes].concat()
    }
}

impl Fields {
    fn add(&mut self, field: u32, pieces: &[&[u8]]) {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        encode_key(field, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(length as u64, &mut self.bytes);
        let start = self.bytes.len();
        for piece in pieces {
            self.bytes.extend_from_slice(piece);
        }
        self.messages.push(start..start + length);
    }

    fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.messages
            .iter()
            .map(|range| self.bytes.get(range.clone()).unwrap_or_default())
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.messages.len() * size_of::<Range<usize>>()
    }
}

/// Events that are whole by themselves.
impl From<Vec<Bytes>> for Contents {
    fn from(events: Vec<Bytes>) -> Self {
        let mut contents = Self::default();
        for event in &events {
            contents.event(&[event]);
        }
        contents
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::v1::BatchPayload;

    use super::*;

    #[test]
    fn the_payload_is_the_message_that_the_schema_says() {
        let mut contents = Contents::default();
        contents.event(&[b"one", b"", b" piece"]);
        assert_eq!(contents.definition(&[7; 300]), 0);
        contents.event(&[]);
        assert_eq!(contents.definition(b"two"), 1);
        let payload = BatchPayload {
            salt_seed: Bytes::from_static(&[9; 32]),
            events: vec![Bytes::from_static(b"one piece"), Bytes::new()],
            definitions: vec![Bytes::from_static(&[7; 300]), Bytes::from_static(b"two")],
            remains: None,
        };
        assert_eq!(contents.payload(&[9; 32]), payload.encode_to_vec());
        assert_eq!((contents.len(), contents.counts()), (2, (2, 2)));
        let leaves: Vec<&[u8]> = contents.leaves().collect();
        assert_eq!(leaves, [b"one piece".as_slice(), b"", &[7; 300], b"two"]);
    }
}
