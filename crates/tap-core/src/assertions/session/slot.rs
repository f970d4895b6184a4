//! The value of one setting, and what is known of how it came about.

use std::sync::Arc;

use super::{
    super::{
        SetBy, Source,
        given::{TOO_LONG, Value},
        names::{MAX_VALUE_BYTES, Tracked},
        stacked::Stacked,
    },
    Assertions, BEFORE,
};

/// A setting's value, and what is known of how it came about.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) value: Held,
    /// When it was sure last.
    pub(super) at: u64,
    pub(super) source: Source,
    pub(super) set_by: Option<SetBy>,
    /// The session set it, and not back to what it began with.
    pub(super) by_session: bool,
}

#[derive(Clone)]
pub(super) enum Held {
    /// The server's own default, which says nothing of the client.
    Default,
    /// What it says, one for each entry of the setting.
    Said(Arc<[Option<Arc<str>>]>),
    Unknown(&'static str),
}

impl Assertions {
    pub(super) fn setting(&mut self, place: usize) -> &mut Stacked<Slot> {
        let index = match self.changed.iter().position(|(other, _)| *other == place) {
            Some(index) => index,
            None => {
                let slot = self.slot(place);
                self.changed.push((place, Stacked::new(slot)));
                self.changed.len() - 1
            }
        };
        #[expect(clippy::indexing_slicing, reason = "it was found, or pushed")]
        let (_, setting) = &mut self.changed[index];
        setting
    }

    pub(super) fn slot(&self, place: usize) -> Slot {
        let changed = self.changed.iter().find(|(other, _)| *other == place);
        match (changed, self.unknown) {
            (Some((_, setting)), _) => setting.current().clone(),
            (None, Some(reason)) => Slot::unset(Held::Unknown(reason)),
            (None, None) => self.reset_slot(place),
        }
    }

    pub(super) fn reset_slot(&self, place: usize) -> Slot {
        match &self.startup {
            None => Slot::unset(Held::Unknown(BEFORE)),
            Some(slots) => slots
                .iter()
                .find(|(other, _)| *other == place)
                .map_or_else(|| Slot::unset(Held::Default), |(_, slot)| slot.clone()),
        }
    }
}

impl Slot {
    /// Of which nobody set it.
    fn unset(value: Held) -> Self {
        Self {
            value,
            at: 0,
            source: Source::Comment,
            set_by: None,
            by_session: false,
        }
    }
}

pub(super) fn name_of(names: &Tracked, place: usize) -> Arc<str> {
    names
        .settings()
        .get(place)
        .map_or_else(|| Arc::from(""), |setting| Arc::clone(&setting.name))
}

pub(super) fn held(names: &Tracked, place: usize, value: &Value) -> Held {
    match (value, names.settings().get(place)) {
        (Value::Text(text), Some(setting)) => {
            let said = setting.said(text);
            if said.iter().flatten().any(|value| value.len() > MAX_VALUE_BYTES) {
                return Held::Unknown(TOO_LONG);
            }
            Held::Said(said.into())
        }
        (Value::Unknown(reason), _) => Held::Unknown(reason),
        _ => Held::Default,
    }
}
