//! A JSON object under construction, where unknown is absent.
//!
//! Owns which value of a field counts as "unknown", and the text; refuses to know any message. It is separate so that
//! the mapping reads as a list of fields.

use serde::Serialize;

use super::{enum_name, time};

/// An object under construction, written as it grows; its methods differ in what they take for "unknown".
pub(super) struct Fields<'a> {
    out: &'a mut Vec<u8>,
    /// Nothing was written yet.
    empty: bool,
}

/// The text of an object with the fields that `fill` gives it, in one line.
pub(super) fn in_one_line(fill: impl FnOnce(&mut Fields<'_>)) -> String {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    out.push(b'{');
    fill(&mut Fields {
        out: &mut out,
        empty: true,
    });
    out.push(b'}');
    // All of it was text when it was written.
    String::from_utf8(out).unwrap_or_default()
}

impl Fields<'_> {
    pub(super) fn always(&mut self, key: &str, value: &(impl Serialize + ?Sized)) {
        self.key(key);
        self.value(value);
    }

    pub(super) fn optional(&mut self, key: &str, value: Option<impl Serialize>) {
        if let Some(value) = value {
            self.always(key, &value);
        }
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.optional(key, (!value.is_empty()).then_some(value));
    }

    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.optional(key, (value != 0).then_some(value));
    }

    pub(super) fn time(&mut self, key: &str, unix_ns: u64) {
        self.optional(key, time(unix_ns));
    }

    pub(super) fn name<E>(&mut self, key: &str, number: i32, full: Result<&'static str, E>, prefix: &str) {
        self.optional(key, enum_name(number, full.ok(), prefix));
    }

    pub(super) fn texts(&mut self, key: &str, values: &[String]) {
        self.optional(key, (!values.is_empty()).then_some(values));
    }

    pub(super) fn list<T>(&mut self, key: &str, items: &[T], fill: fn(&mut Fields<'_>, &T)) {
        if items.is_empty() {
            return;
        }
        self.key(key);
        let mut before = b'[';
        for item in items {
            self.out.push(before);
            self.nested(item, fill);
            before = b',';
        }
        self.out.push(b']');
    }

    /// An object of its own; one without a field says nothing and is left out.
    pub(super) fn node<T>(&mut self, key: &str, of: Option<&T>, fill: impl FnOnce(&mut Fields<'_>, &T)) {
        let Some(of) = of else { return };
        let (length, empty) = (self.out.len(), self.empty);
        self.key(key);
        if self.nested(of, fill) {
            self.out.truncate(length);
            self.empty = empty;
        }
    }

    /// Whether it stayed empty.
    fn nested<T>(&mut self, of: &T, fill: impl FnOnce(&mut Fields<'_>, &T)) -> bool {
        self.out.push(b'{');
        let mut fields = Fields {
            out: self.out,
            empty: true,
        };
        fill(&mut fields, of);
        let empty = fields.empty;
        self.out.push(b'}');
        empty
    }

    fn key(&mut self, key: &str) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.value(key);
        self.out.push(b':');
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) {
        // Memory takes everything, and text and numbers are always JSON.
        _ = serde_json::to_writer(&mut *self.out, value);
    }
}

/// A query event takes about that much.
const USUAL_BYTES: usize = 2048;
