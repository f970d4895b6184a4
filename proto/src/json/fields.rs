//! A JSON object under construction, where unknown is absent.
//!
//! Owns which value of a field counts as "unknown"; refuses to know any message. It is separate so that the mapping reads
//! as a list of fields.

use serde_json::{Map, Value};

use super::{enum_name, time};

/// An object under construction; its methods differ in what they take for "unknown".
#[derive(Default)]
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    pub(super) fn always(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    pub(super) fn optional(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.always(key, value);
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

    pub(super) fn list(&mut self, key: &str, values: impl Iterator<Item = Value>) {
        let values: Vec<Value> = values.collect();
        self.optional(key, (!values.is_empty()).then_some(values));
    }

    pub(super) fn node(&mut self, key: &str, fields: Option<Fields>) {
        self.optional(
            key,
            fields.filter(|f| !f.0.is_empty()).map(|f| Value::Object(f.0)),
        );
    }
}
