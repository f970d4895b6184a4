//! The asserted state of one server connection, statement by statement: what each one changes, and what transactions,
//! savepoints and errors change back.
//!
//! It follows the answers, not the requests: a statement counts once the server said that it ran, in the order of the
//! answers. What it cannot follow is unknown from there on, with a reason, until it is set anew. Source: the server's
//! utils/misc/guc.c, access/transam/xact.c and commands/variable.c; manual, "Pipelining", "Multiple Statements in a
//! Simple Query", `SET`, `SET ROLE`, `SET SESSION AUTHORIZATION`, `DISCARD`.

mod levels;
mod shown;
mod slot;
mod statement;

use std::sync::Arc;

use bytes::Bytes;
use pg_wire::{Outcome, Params};
use sql_meaning::{Backslash, Effect, has_comment_at_an_end};

use self::{
    shown::comment,
    slot::{Held, Slot, held, name_of},
};
use super::{
    Asserted, EffectiveRole, Source,
    given::{self, Value},
    names::{SESSION_AUTHORIZATION, Tracked},
    stacked::Stacked,
    startup,
};
use crate::{catalog::Path, event::Query};

/// What a statement says that is not in its event: its text as it was sent, and its parameters.
#[derive(Debug)]
pub(crate) struct Words {
    text: Bytes,
    params: Params,
    /// Nothing of it needs conversion from the client's encoding.
    plain: bool,
}

/// The asserted state of one session.
pub(crate) struct Assertions {
    /// Settings that were changed, by their place in [`Tracked`].
    changed: Vec<(usize, Stacked<Slot>)>,
    /// Counts changes, and runs of code that nobody sees.
    tick: u64,
    /// When such code ran last.
    unseen: Stacked<u64>,
    /// When the requests began that are being followed.
    unit_began: u64,
    /// Names, outermost first.
    savepoints: Vec<Box<str>>,
    /// There may be savepoints that were not seen, outside of those that were.
    bottomless: bool,
    /// A statement of the transaction failed.
    failed: bool,
    /// Within a block that began with `BEGIN`, for sure.
    in_block: bool,
    /// A procedure ran outside of a block: what it committed stays, whatever becomes of the transaction.
    procedure: bool,
    /// Why settings that were not changed since are not known.
    unknown: Option<&'static str>,
    /// What `RESET` goes back to; `None` if the startup packet was not seen.
    startup: Option<Vec<(usize, Slot)>>,
    login_role: Option<Arc<str>>,
    /// What the server reported of settings within the requests that are being answered.
    reported: Vec<(usize, String)>,
    backslash: Backslash,
    new_backslash: Option<Backslash>,
    /// What events show, until something changes.
    shown: Option<Shown>,
    /// Counts what is shown.
    version: u64,
    /// The server reports each change of `search_path` (PostgreSQL 18).
    path_is_reported: bool,
}

#[derive(Clone)]
struct Shown {
    asserted: Option<Arc<Asserted>>,
    role: Option<EffectiveRole>,
}

/// Reasons why something is not known.
const BEFORE: &str = "opened_before_attach";
pub(crate) const GAP: &str = "gap";
const TEXT: &str = "text";
const SAVEPOINTS: &str = "savepoints";

/// What `role` is while no `SET ROLE` counts.
const NO_ROLE: &str = "none";

impl Words {
    /// The words of a statement, if any of them can matter.
    pub(crate) fn of(text: &Bytes, effect: Effect, params: &Params, plain: bool) -> Option<Self> {
        (effect.settings || has_comment_at_an_end(text)).then(|| Self {
            text: text.clone(),
            params: Arc::clone(params),
            plain,
        })
    }
}

impl Assertions {
    /// Of a session whose startup packet is still to come, or was never seen.
    pub(crate) fn new(opened_before_attach: bool) -> Self {
        Self {
            changed: Vec::new(),
            tick: 0,
            unseen: Stacked::new(0),
            unit_began: 0,
            savepoints: Vec::new(),
            bottomless: opened_before_attach,
            failed: false,
            in_block: false,
            procedure: false,
            unknown: opened_before_attach.then_some(BEFORE),
            startup: (!opened_before_attach).then(Vec::new),
            login_role: None,
            reported: Vec::new(),
            backslash: if opened_before_attach {
                Backslash::Unknown
            } else {
                Backslash::Plain
            },
            new_backslash: None,
            shown: None,
            version: 0,
            path_is_reported: false,
        }
    }

    /// The client's startup packet.
    pub(crate) fn start(&mut self, parameters: &[(Bytes, Bytes)], names: &Tracked) {
        *self = Self::new(false);
        let user = parameters.iter().find(|(name, _)| name.as_ref() == b"user");
        self.login_role = user.map(|(_, user)| Arc::from(String::from_utf8_lossy(user)));
        let mut slots: Vec<(usize, Slot)> = Vec::new();
        for (name, value) in startup::settings(parameters) {
            let Some(place) = names.place(&name) else { continue };
            let value = if value.contains(char::REPLACEMENT_CHARACTER) {
                Value::Unknown(given::ENCODING)
            } else {
                Value::Text(value)
            };
            let slot = Slot {
                value: held(names, place, &value),
                at: 0,
                source: Source::Startup(name_of(names, place)),
                set_by: None,
                by_session: false,
            };
            slots.retain(|(other, _)| *other != place);
            slots.push((place, slot));
        }
        self.startup = Some(slots);
    }

    /// The server reported a setting. `login` if no request was made yet: then it is what the session began with.
    pub(crate) fn report(&mut self, name: &[u8], value: &[u8], login: bool, names: &Tracked) {
        if name == b"standard_conforming_strings" {
            let new = if value == b"off" {
                Backslash::Escape
            } else {
                Backslash::Plain
            };
            if login {
                self.backslash = new;
            } else {
                self.new_backslash = Some(new);
            }
            return;
        }
        let Some(place) = std::str::from_utf8(name).ok().and_then(|name| names.place(name)) else {
            return;
        };
        if login {
            // What the client asked for, in the server's spelling.
            let value = held(
                names,
                place,
                &Value::Text(String::from_utf8_lossy(value).into_owned()),
            );
            let mut slots = self.startup.iter_mut().flatten();
            if let Some((_, slot)) = slots.find(|(other, _)| *other == place) {
                slot.value = value;
            } else if names.path() == Some(place)
                && let Some(slots) = &mut self.startup
            {
                let source = Source::Reported(name_of(names, place));
                let slot = Slot {
                    value,
                    at: 0,
                    source,
                    set_by: None,
                    by_session: false,
                };
                slots.push((place, slot));
            }
            self.path_is_reported |= names.path() == Some(place);
        } else {
            self.reported.retain(|(other, _)| *other != place);
            self.reported
                .push((place, String::from_utf8_lossy(value).into_owned()));
        }
    }

    /// A number that changes whenever it may have changed where names are looked for, or as which role.
    pub(crate) fn version(&mut self, names: &Tracked) -> u64 {
        self.shown(names);
        self.version
    }

    /// Where names are looked for.
    pub(crate) fn path(&self, names: &Tracked) -> Path {
        let Some(place) = names.path() else {
            return Path::Unknown;
        };
        let slot = self.slot(place);
        if !self.path_is_reported && *self.unseen.current() > slot.at {
            return Path::Unknown;
        }
        match &slot.value {
            Held::Default => Path::Default,
            Held::Said(said) => {
                let said = said.first().cloned().flatten();
                Path::Set(said.unwrap_or_else(|| Arc::from("")))
            }
            Held::Unknown(_) => Path::Unknown,
        }
    }

    /// The role as which names are looked for, if it is known.
    pub(crate) fn sure_role(&self) -> Option<Arc<str>> {
        self.role()
            .filter(|role| !role.possibly_stale)
            .map(|role| role.name)
    }

    /// How plain strings of the requests that are being answered are read.
    pub(crate) fn backslash(&self) -> Backslash {
        match self.new_backslash {
            Some(_) => Backslash::Unknown,
            None => self.backslash,
        }
    }

    /// Something was not seen: anything may have changed.
    pub(crate) fn lose(&mut self, reason: &'static str) {
        self.changed.clear();
        self.savepoints.clear();
        self.unseen = Stacked::new(0);
        (self.failed, self.in_block, self.bottomless) = (false, false, true);
        self.unknown = Some(if self.startup.is_none() { BEFORE } else { reason });
        self.shown = None;
    }

    /// Fills in what held when a statement began, and then follows what it did. `number` is the statement's, `alone` the
    /// status behind it, where that is its own.
    pub(crate) fn follow(
        &mut self,
        query: &mut Query,
        words: Option<Words>,
        number: u64,
        alone: Option<u8>,
        names: &Tracked,
    ) {
        query.number = number;
        let shown = self.shown(names);
        query.asserted = shown.asserted;
        query.effective_role = shown.role;
        if let Some(words) = &words {
            comment(words, query, names);
        }
        if query.replication {
            return;
        }
        match query.outcome {
            Outcome::Ok | Outcome::Suspended => self.ran(query, words.as_ref(), alone, names),
            Outcome::Error => self.fail(query),
            Outcome::Unknown => self.lose(GAP),
            Outcome::EmptyQuery | Outcome::Unanswered => {}
        }
    }

    /// All that one ReadyForQuery ended was followed.
    pub(crate) fn end_unit(&mut self, status: Option<u8>, names: &Tracked) {
        if status == Some(b'I') {
            self.end_transaction(!self.failed);
        }
        if let Some(status) = status {
            self.in_block = status != b'I';
        }
        if let Some(new) = self.new_backslash.take() {
            self.backslash = new;
        }
        for (place, value) in std::mem::take(&mut self.reported) {
            self.compare(place, &value, names);
        }
        self.unit_began = self.tick;
    }

    /// The server's own word on the value that a setting has now.
    pub(super) fn compare(&mut self, place: usize, value: &str, names: &Tracked) {
        let Held::Said(expected) = held(names, place, &Value::Text(value.to_owned())) else {
            return;
        };
        let mut slot = self.slot(place);
        let same = match &slot.value {
            Held::Said(said) => *said == expected,
            Held::Default if place == SESSION_AUTHORIZATION => self.login_role.as_deref() == Some(value),
            Held::Default => expected.iter().all(Option::is_none),
            Held::Unknown(_) => false,
        };
        if same {
            let now = self.now();
            self.setting(place).correct().at = now;
            return;
        }
        // The server may keep another spelling of what was set just now. All else was changed by something that nobody saw.
        let set_now = slot.set_by.is_some() && slot.at > self.unit_began;
        if !set_now {
            let expected = matches!(slot.value, Held::Unknown(_)) || *self.unseen.current() > self.unit_began;
            if !expected {
                self.run_unseen();
            }
            slot.source = Source::Reported(name_of(names, place));
            slot.set_by = None;
        }
        (slot.value, slot.at, slot.by_session) = (Held::Said(expected), self.now(), true);
        let level = self.level();
        self.setting(place).set(level, false, slot);
    }

    /// A moment of its own; whatever events show is to be made anew.
    pub(super) fn now(&mut self) -> u64 {
        self.shown = None;
        self.tick += 1;
        self.tick
    }
}
