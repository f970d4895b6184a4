//! What one statement that was answered did to the settings of its session.

use pg_wire::ExchangeKind;
use sql_meaning::{Backslash, Change, Effect, changes};

use super::{
    super::{
        SetBy, Source,
        given::{self, Value},
        names::{ROLE, SESSION_AUTHORIZATION, Tracked},
    },
    Assertions, NO_ROLE, TEXT, Words,
    slot::{Held, Slot, held, name_of},
};
use crate::event::Query;

/// Oid from which on objects are made by users (`FirstNormalObjectId`), and that of `set_config` (pg_proc.dat).
const FIRST_NORMAL_OID: u32 = 16_384;
const SET_CONFIG_OID: u32 = 2_078;

impl Assertions {
    pub(super) fn ran(&mut self, query: &Query, words: Option<&Words>, alone: Option<u8>, names: &Tracked) {
        let by = SetBy::of(query);
        if query.kind == ExchangeKind::FunctionCall {
            let own = |oid| oid < FIRST_NORMAL_OID && oid != SET_CONFIG_OID;
            if !query.function_oid.is_some_and(own) {
                self.run_unseen();
            }
            return;
        }
        let statement = query.statement.as_deref().filter(|_| query.text_is_whole());
        let effect = statement.map(|statement| statement.effect);
        let settings = effect.is_some_and(|effect| effect.settings);
        match query.tag.as_deref().unwrap_or_default() {
            "BEGIN" | "START TRANSACTION" => self.in_block = true,
            "COMMIT" | "PREPARE TRANSACTION" => self.end_transaction(true),
            // With its text unknown, it may have been one to a savepoint.
            "ROLLBACK" if effect.is_none() && alone != Some(b'I') => self.lose(TEXT),
            // `PREPARE TRANSACTION` without a transaction to prepare only commits, but says this.
            "ROLLBACK" if !settings => {
                let prepares = statement.is_some_and(|statement| statement.command == "PREPARE TRANSACTION");
                self.end_transaction(prepares && !self.failed);
            }
            "ROLLBACK" | "SAVEPOINT" | "RELEASE" => match self.changes(words).as_deref() {
                Some([Change::Savepoint(name)]) => self.savepoint(name),
                Some([Change::Release(name)]) => self.end_savepoint(name, true),
                Some([Change::RollbackTo(name)]) => self.end_savepoint(name, false),
                _ => self.lose(TEXT),
            },
            "DISCARD ALL" => self.discard_all(by, names),
            "SET" | "RESET" => match self.changes(words) {
                Some(changes) => self.apply(changes, words, by, names),
                None => self.forget_all(by, names),
            },
            tag => self.ran_other(query, tag, effect, words, names),
        }
    }

    /// A statement that is neither of transactions nor of settings.
    pub(super) fn ran_other(
        &mut self,
        query: &Query,
        tag: &str,
        effect: Option<Effect>,
        words: Option<&Words>,
        names: &Tracked,
    ) {
        let by = SetBy::of(query);
        self.call(query);
        if commits_at_once(query, tag) {
            return self.end_transaction(true);
        }
        let Some(effect) = effect else {
            if !HARMLESS.contains(&tag) {
                self.run_unseen();
            }
            return;
        };
        if effect.settings {
            // One row: each expression of the list was computed once.
            let once = query.rows == 1 && query.continues.is_none();
            match self.changes(words).filter(|_| once) {
                Some(changes) => self.apply(changes, words, by, names),
                None => self.run_unseen(),
            }
        }
        let command = query
            .statement
            .as_ref()
            .map_or("", |statement| statement.command.as_str());
        let prepared = matches!(command, "EXECUTE" | "FETCH" | "MOVE");
        let source = query.source_statement.as_ref().map(|source| source.effect);
        if effect.unseen || (prepared && source.is_none_or(|source| source.settings || source.unseen)) {
            self.run_unseen();
        }
    }

    pub(super) fn changes(&self, words: Option<&Words>) -> Option<Vec<Change>> {
        let backslash = match self.new_backslash {
            None => self.backslash,
            Some(_) => Backslash::Unknown,
        };
        changes(&String::from_utf8_lossy(&words?.text), backslash)
    }

    pub(super) fn apply(&mut self, changes: Vec<Change>, words: Option<&Words>, by: SetBy, names: &Tracked) {
        let Some(words) = words else { return };
        for change in changes {
            match change {
                Change::Set { name, to, local } => {
                    let Some(place) = names.place(&name) else { continue };
                    let value = if names.path() == Some(place) {
                        given::path(&to, &words.params, words.plain)
                    } else {
                        given::value(&to, &words.params, words.plain)
                    };
                    {
                        let source = Source::Set(name_of(names, place));
                        self.set(place, local, &value, source, by, names);
                    }
                }
                Change::Config { name, to, local } => {
                    let value = given::value(&to, &words.params, words.plain);
                    let Value::Text(name) = given::value(&name, &words.params, words.plain) else {
                        self.run_unseen();
                        continue;
                    };
                    let Some(place) = names.place(&name) else { continue };
                    let source = Source::SetConfig(name_of(names, place));
                    match given::boolean(&local, &words.params) {
                        Some(local) => self.set(place, local, &value, source, by, names),
                        None => self.set(
                            place,
                            false,
                            &Value::Unknown(given::EXPRESSION),
                            source,
                            by,
                            names,
                        ),
                    }
                }
                Change::ResetAll => self.reset_all(by, names),
                _ => self.lose(TEXT),
            }
        }
    }

    pub(super) fn set(
        &mut self,
        place: usize,
        local: bool,
        value: &Value,
        source: Source,
        by: SetBy,
        names: &Tracked,
    ) {
        let mut slot = match value {
            Value::Default => self.reset_slot(place),
            Value::Current => self.slot(place),
            value => Slot {
                value: held(names, place, value),
                at: 0,
                source,
                set_by: Some(by),
                by_session: true,
            },
        };
        slot.by_session = *value != Value::Default;
        let (level, now) = (self.level(), self.now());
        // `FROM CURRENT` of what is doubtful stays so.
        if *value != Value::Current {
            slot.at = now;
        }
        self.setting(place).set(level, local, slot);
        if place == SESSION_AUTHORIZATION {
            // The server makes this a `SET ROLE NONE`, or a `RESET ROLE`, of the same life (`set_config_with_handle`).
            let role = match value {
                Value::Default => Value::Default,
                Value::Current | Value::Text(_) => Value::Text(NO_ROLE.to_owned()),
                Value::Unknown(reason) => Value::Unknown(reason),
            };
            let source = Source::Set(name_of(names, ROLE));
            self.set(ROLE, local, &role, source, by, names);
        }
    }

    pub(super) fn reset_all(&mut self, by: SetBy, names: &Tracked) {
        for place in
            (0..names.settings().len()).filter(|place| !matches!(*place, SESSION_AUTHORIZATION | ROLE))
        {
            // What is as the session began is left alone (`ResetAllOptions`), a `SET LOCAL x TO DEFAULT` too.
            let slot = self.slot(place);
            if !slot.by_session
                && !matches!(slot.value, Held::Unknown(_))
                && *self.unseen.current() <= slot.at
            {
                continue;
            }
            let source = Source::Set(name_of(names, place));
            self.set(place, false, &Value::Default, source, by, names);
        }
    }

    /// Not possible within a transaction, so nothing reverts it.
    pub(super) fn discard_all(&mut self, by: SetBy, names: &Tracked) {
        let source = Source::Set(name_of(names, SESSION_AUTHORIZATION));
        self.set(SESSION_AUTHORIZATION, false, &Value::Default, source, by, names);
        self.reset_all(by, names);
        self.end_transaction(true);
    }

    /// A `SET` or `RESET` of one knows not what.
    pub(super) fn forget_all(&mut self, by: SetBy, names: &Tracked) {
        for place in 0..names.settings().len() {
            let source = Source::Set(name_of(names, place));
            self.set(place, false, &Value::Unknown(TEXT), source, by, names);
        }
    }

    pub(super) fn run_unseen(&mut self) {
        let (level, now) = (self.level(), self.now());
        self.unseen.set(level, false, now);
    }

    /// An error undoes the innermost level; the rest of the transaction only if it ends with it.
    pub(super) fn fail(&mut self, query: &Query) {
        self.call(query);
        self.end_level(self.level(), false);
        self.failed = true;
    }

    /// A procedure or block of code ran, or failed.
    pub(super) fn call(&mut self, query: &Query) {
        let command = query
            .statement
            .as_ref()
            .map(|statement| statement.command.as_str());
        // With its text unknown, the tag says it; of a failure nothing does.
        let calls = command.map_or_else(
            || matches!(query.tag.as_deref(), Some("CALL" | "DO") | None),
            |command| matches!(command, "CALL" | "DO"),
        );
        let runs = matches!(query.kind, ExchangeKind::Simple | ExchangeKind::Execute);
        self.procedure |= calls && runs && !self.in_block;
    }
}

/// Tags of commands that change no setting, and run nothing of users.
const HARMLESS: [&str; 6] = [
    "DEALLOCATE",
    "DEALLOCATE ALL",
    "CLOSE CURSOR",
    "CLOSE CURSOR ALL",
    "LISTEN",
    "UNLISTEN",
];

/// Whether a command runs outside of transaction blocks only: in a pipeline it commits itself and what went before it
/// (`PreventInTransactionBlock` in the server's access/transam/xact.c, and its callers).
fn commits_at_once(query: &Query, tag: &str) -> bool {
    const ALWAYS: [&str; 8] = [
        "VACUUM",
        "COMMIT PREPARED",
        "ROLLBACK PREPARED",
        "CREATE DATABASE",
        "DROP DATABASE",
        "CREATE TABLESPACE",
        "DROP TABLESPACE",
        "ALTER SYSTEM",
    ];
    const CONCURRENTLY: [&str; 4] = ["CREATE INDEX", "DROP INDEX", "REINDEX", "ALTER TABLE"];
    let says = |word: &str| {
        let text = query
            .statement
            .as_ref()
            .map_or("", |statement| &statement.redacted);
        text.split_ascii_whitespace()
            .any(|found| found.eq_ignore_ascii_case(word))
    };
    ALWAYS.contains(&tag)
        || (CONCURRENTLY.contains(&tag) && says("CONCURRENTLY"))
        || (tag == "REINDEX" && (says("SCHEMA") || says("DATABASE") || says("SYSTEM")))
}

impl SetBy {
    fn of(query: &Query) -> Self {
        Self {
            statement: query.number,
            request_from: query.request.start,
            index: query.index,
            lease: None,
        }
    }
}
