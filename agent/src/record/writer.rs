//! Protobuf, written in one go and without a tree of messages between.
//!
//! Owns the form of a field. Refuses to know which fields there are.

use prost::encoding::WireType;

/// Appends fields in the canonical form: in the order of their numbers, defaults left out.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.present(field, value);
        }
    }

    /// Of an optional field: zero is a value, too.
    pub(super) fn present(&mut self, field: u32, value: u64) {
        self.key(field, WireType::Varint);
        self.varint(value);
    }

    fn key(&mut self, field: u32, kind: WireType) {
        self.varint(u64::from(field) << 3 | kind as u64);
    }

    /// Of a packed field, within its message.
    pub(super) fn packed(&mut self, value: u64) {
        self.varint(value);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(super) fn flag(&mut self, field: u32, value: bool) {
        self.number(field, u64::from(value));
    }

    /// Enumerations of this schema have no negative numbers.
    pub(super) fn choice(&mut self, field: u32, value: impl Into<i32>) {
        self.number(field, u64::try_from(value.into()).unwrap_or(0));
    }

    pub(super) fn text(&mut self, field: u32, text: &str) {
        self.blob(field, text.as_bytes());
    }

    /// Text of a peer, which need not be UTF-8.
    pub(super) fn foreign(&mut self, field: u32, text: &[u8]) {
        match std::str::from_utf8(text) {
            Ok(text) => self.text(field, text),
            Err(_) => self.text(field, &String::from_utf8_lossy(text)),
        }
    }

    pub(super) fn blob(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.element(field, bytes);
        }
    }

    /// Of a repeated field: empty is a value, too.
    pub(super) fn element(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, WireType::LengthDelimited);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        self.key(field, WireType::LengthDelimited);
        let place = self.bytes.len();
        // Most are shorter than 128 bytes: one byte of length.
        self.bytes.push(0);
        fill(self);
        let length = (self.bytes.len() - place).saturating_sub(1) as u64;
        if let (Ok(short @ 0..128), Some(byte)) = (u8::try_from(length), self.bytes.get_mut(place)) {
            *byte = short;
            return;
        }
        let mut varint = Self::default();
        varint.varint(length);
        self.bytes.splice(place..=place, varint.bytes);
    }
}
