//! What events show of a session's state, and of a statement's own comment.

use std::sync::Arc;

use sql_meaning::{comment_pairs, has_comment_at_an_end};

use super::{
    super::{
        Asserted, Claim, EffectiveRole, Source,
        names::{END_USER, MAX_VALUE_BYTES, ROLE, SESSION_AUTHORIZATION, Tracked},
    },
    Assertions, NO_ROLE, Shown, Words,
    slot::Held,
};
use crate::event::Query;

impl Assertions {
    pub(super) fn shown(&mut self, names: &Tracked) -> Shown {
        if self.shown.is_none() {
            self.version += 1;
            self.shown = Some(Shown {
                asserted: self.asserted(names).map(Arc::new),
                role: self.role(),
            });
        }
        self.shown.clone().unwrap_or(Shown {
            asserted: None,
            role: None,
        })
    }

    pub(super) fn asserted(&self, names: &Tracked) -> Option<Asserted> {
        let mut asserted = Asserted::default();
        let mut unknown = None;
        for (place, setting) in names.settings().iter().enumerate() {
            if setting.entries.is_empty() {
                continue;
            }
            let slot = self.slot(place);
            match &slot.value {
                Held::Default => {}
                Held::Unknown(reason) => {
                    if setting.entries.iter().any(|entry| &*entry.says == END_USER) {
                        unknown = unknown.or(Some(*reason));
                    }
                }
                Held::Said(said) => {
                    for (entry, value) in setting.entries.iter().zip(said.iter()) {
                        asserted.claims.extend(value.as_ref().map(|value| Claim {
                            says: Arc::clone(&entry.says),
                            value: Arc::clone(value),
                            source: slot.source.clone(),
                            set_by: slot.set_by,
                            possibly_stale: *self.unseen.current() > slot.at,
                        }));
                    }
                }
            }
        }
        if asserted.end_user().is_none() {
            asserted.unknown = unknown;
        }
        (asserted != Asserted::default()).then_some(asserted)
    }

    pub(super) fn role(&self) -> Option<EffectiveRole> {
        let role = self.slot(ROLE);
        let session = self.slot(SESSION_AUTHORIZATION);
        let (at, name) = match (named(&role.value)?, named(&session.value)) {
            (Some(name), _) if *name != *NO_ROLE => (role.at, name),
            (_, Some(Some(name))) => (role.at.min(session.at), name),
            (_, Some(None)) => (role.at.min(session.at), self.login_role.clone()?),
            (_, None) => return None,
        };
        Some(EffectiveRole {
            name,
            possibly_stale: *self.unseen.current() > at,
        })
    }
}

/// The role that a value names; inside, `None` for the default. Outside, if it is not known.
fn named(value: &Held) -> Option<Option<Arc<str>>> {
    match value {
        Held::Default => Some(None),
        Held::Said(said) => Some(said.first().cloned().flatten()),
        Held::Unknown(_) => None,
    }
}

/// Adds what a statement's own comment says.
pub(super) fn comment(words: &Words, query: &mut Query, names: &Tracked) {
    if !has_comment_at_an_end(&words.text) {
        return;
    }
    let Ok(text) = std::str::from_utf8(&words.text) else {
        return;
    };
    let pairs = comment_pairs(text).into_iter();
    let mut claims: Vec<Claim> = pairs
        .filter(|(_, value)| value.len() <= MAX_VALUE_BYTES)
        .filter_map(|(key, value)| {
            Some(Claim {
                says: Arc::clone(names.comment(&key)?),
                value: value.into(),
                source: Source::Comment,
                set_by: None,
                possibly_stale: false,
            })
        })
        .collect();
    if claims.is_empty() {
        return;
    }
    let session = query.asserted.take();
    claims.extend(session.iter().flat_map(|session| session.claims.iter().cloned()));
    let unknown = session.and_then(|session| session.unknown);
    let named = claims.iter().any(|claim| &*claim.says == END_USER);
    query.asserted = Some(Arc::new(Asserted {
        claims,
        unknown: unknown.filter(|_| !named),
        foreign: Vec::new(),
    }));
}
