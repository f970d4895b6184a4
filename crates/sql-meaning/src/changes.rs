//! What a statement changes of its session's settings, read from its text: `SET`, `RESET`, `DISCARD ALL`, `set_config`
//! in a select list, and the savepoints that such changes are undone to.
//!
//! Owns the grammar of these (gram.y: `VariableSetStmt`, `VariableResetStmt`, `TransactionStmt`). Refuses to know
//! which settings matter and what becomes of them: the session's state is followed elsewhere. Separate from
//! `Statement`, which is kept and shipped and must hold no value.

use crate::Effect;
use crate::lexer::{Kind, lex};
use crate::literal::{self, Backslash};
use crate::phrase::Phrase;

/// One change, in the order in which the server makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `SET` or `RESET` of one setting; `SET ROLE` and `SET SESSION AUTHORIZATION` by the names of their settings.
    Set {
        /// In lower case.
        name: String,
        /// The new value.
        to: Given,
        /// Until the end of the transaction.
        local: bool,
    },
    /// One call of `set_config`.
    Config {
        /// Name of the setting.
        name: Given,
        /// The new value.
        to: Given,
        /// Until the end of the transaction, if it is true.
        local: Given,
    },
    /// `RESET ALL`.
    ResetAll,
    /// `DISCARD ALL`.
    DiscardAll,
    /// `SAVEPOINT`.
    Savepoint(String),
    /// `RELEASE`.
    Release(String),
    /// `ROLLBACK TO`.
    RollbackTo(String),
}

/// A value as the text gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// This one.
    Text(String),
    /// A list of them, as `SET search_path = a, b` gives it.
    List(Vec<String>),
    /// That of a parameter, by its number from 1.
    Parameter(u16),
    /// The default: `DEFAULT`, or NULL for `set_config`.
    Default,
    /// The one that it has (`FROM CURRENT`).
    Current,
    /// An expression, or a literal that is not read here.
    Unread,
}

/// The changes that a statement makes; `None` if it may make some that cannot be read. For statements whose
/// [`Effect::settings`] is true; `sql` is as it was sent.
pub fn changes(sql: &str, backslash: Backslash) -> Option<Vec<Change>> {
    let tokens = lex(sql);
    let phrase = Phrase { sql, tokens: &tokens };
    let mut end = phrase.len();
    while end > 0 && phrase.symbol(end - 1, ";") {
        end -= 1;
    }
    let tokens = tokens.get(..end)?;
    Reader {
        phrase: Phrase { sql, tokens },
        backslash,
    }
    .statement()
}

/// What running a statement may do to settings: by the shape of its text alone, so that it holds for all statements
/// that differ in literals only.
pub(crate) fn effect(phrase: Phrase<'_>, command: &str, calls_unknown: bool) -> Effect {
    let settings = match phrase.word(0).to_ascii_uppercase().as_str() {
        "SET" | "RESET" | "SAVEPOINT" | "RELEASE" => true,
        "ROLLBACK" | "ABORT" => (1..4).any(|at| phrase.is(at, "TO")),
        "DISCARD" => phrase.is(1, "ALL"),
        _ => false,
    };
    if settings {
        return Effect {
            settings,
            unseen: false,
        };
    }
    let unseen = match command {
        "DO" | "CALL" | "CREATE EXTENSION" | "ALTER EXTENSION" | "" => true,
        "SELECT"
        | "SELECT INTO"
        | "INSERT"
        | "UPDATE"
        | "DELETE"
        | "MERGE"
        | "COPY"
        | "EXPLAIN"
        | "CREATE TABLE AS"
        | "CREATE MATERIALIZED VIEW"
        | "ALTER TABLE" => calls_unknown,
        _ => false,
    };
    let runs_prepared = matches!(command, "EXPLAIN" | "CREATE TABLE AS")
        && (1..phrase.len()).any(|at| phrase.is(at, "EXECUTE"));
    let configures = (0..phrase.len()).any(|at| is_set_config(phrase, at));
    let reader = Reader {
        phrase,
        backslash: Backslash::Plain,
    };
    let readable = configures && command == "SELECT" && reader.select().is_some();
    let runs = !matches!(command, "PREPARE" | "DECLARE CURSOR") && !command.starts_with("CREATE ");
    Effect {
        settings: readable,
        unseen: unseen || runs_prepared || (configures && !readable && runs),
    }
}

/// `set_config (`, of the server's own schema.
pub(crate) fn is_set_config(p: Phrase<'_>, at: usize) -> bool {
    let named = p.identifier(at).is_some_and(|name| name == SET_CONFIG);
    let foreign =
        at >= 2 && p.symbol(at - 1, ".") && p.identifier(at - 2).is_none_or(|schema| schema != PG_CATALOG);
    named && p.symbol(at + 1, "(") && !foreign
}

/// Whether a text may call `set_config`: a cheap look, which errs on the side of yes.
#[must_use]
pub fn may_configure(sql: &[u8]) -> bool {
    let name = SET_CONFIG.as_bytes();
    // The underscore is rare; what stands around it decides.
    sql.iter().enumerate().any(|(at, byte)| {
        *byte == b'_'
            && at
                .checked_sub(3)
                .and_then(|from| sql.get(from..from + name.len()))
                .is_some_and(|word| word.eq_ignore_ascii_case(name))
    })
}

const SET_CONFIG: &str = "set_config";
/// The setting whose value is a list of names.
const SEARCH_PATH: &str = "search_path";
const PG_CATALOG: &str = "pg_catalog";
/// Longest identifier that the server keeps (`NAMEDATALEN` - 1).
const NAME_BYTES: usize = 63;
/// Calls of `set_config` in one list: the frameworks that do this make some ten.
const MAX_CHANGES: usize = 256;

struct Reader<'a> {
    phrase: Phrase<'a>,
    backslash: Backslash,
}

impl Reader<'_> {
    fn statement(&self) -> Option<Vec<Change>> {
        let p = self.phrase;
        Some(match p.word(0).to_ascii_uppercase().as_str() {
            "SET" => self.set()?.into_iter().collect(),
            "RESET" if p.is(1, "ALL") => vec![Change::ResetAll],
            "RESET" => self.reset()?.into_iter().collect(),
            "DISCARD" => vec![Change::DiscardAll],
            "SAVEPOINT" => vec![Change::Savepoint(self.savepoint(1)?)],
            "RELEASE" => {
                let at = 1 + usize::from(p.is(1, "SAVEPOINT") && p.len() > 2);
                vec![Change::Release(self.savepoint(at)?)]
            }
            "ROLLBACK" | "ABORT" => {
                let to = (1..3).find(|&at| p.is(at, "TO"))?;
                let at = to + 1 + usize::from(p.is(to + 1, "SAVEPOINT") && p.len() > to + 2);
                vec![Change::RollbackTo(self.savepoint(at)?)]
            }
            _ => return self.select(),
        })
    }

    fn set(&self) -> Option<Option<Change>> {
        let p = self.phrase;
        let assigned = |at| p.symbol(at, "=") || p.is(at, "TO");
        let mut at = 1;
        let scoped = p.any(1, &["SESSION", "LOCAL"]) && !assigned(2);
        let local = scoped && p.is(1, "LOCAL");
        // `SET SESSION AUTHORIZATION` has one word less than `SET SESSION SESSION AUTHORIZATION`.
        if scoped && !p.is(2, "AUTHORIZATION") {
            at = 2;
        }
        let set = |name: &str, to| {
            Some(Some(Change::Set {
                name: name.to_owned(),
                to,
                local,
            }))
        };
        if p.all(at, &["SESSION", "AUTHORIZATION"]) {
            return set("session_authorization", self.assigned(at + 2));
        }
        if p.is(at, "ROLE") && !assigned(at + 1) {
            return set("role", self.assigned(at + 1));
        }
        // Forms of their own, of settings that nobody follows.
        let other = ["TRANSACTION", "CONSTRAINTS", "TIME", "XML", "NAMES", "CATALOG"];
        if (p.any(at, &other) && !assigned(at + 1)) || p.all(1, &["SESSION", "CHARACTERISTICS"]) {
            return Some(None);
        }
        if p.is(at, "SCHEMA") && !assigned(at + 1) {
            return set(SEARCH_PATH, self.assigned(at + 1));
        }
        let (name, next) = self.name(at)?;
        if p.all(next, &["FROM", "CURRENT"]) {
            return set(&name, Given::Current);
        }
        if !assigned(next) {
            return None;
        }
        match self.listed(next + 1).filter(|_| name == SEARCH_PATH) {
            Some(list) => set(&name, Given::List(list)),
            None => set(&name, self.assigned(next + 1)),
        }
    }

    /// Several names or literals with commas between them, which end the statement.
    fn listed(&self, at: usize) -> Option<Vec<String>> {
        let p = self.phrase;
        let count = p
            .len()
            .checked_sub(at)
            .filter(|count| count % 2 == 1 && *count > 1)?;
        let element = |place: usize| match p.kind(place) {
            Some(Kind::Word | Kind::Quoted) => self.identifier(place),
            kind => literal::value(kind, p.text(place), self.backslash),
        };
        let commas = (at + 1..at + count).step_by(2).all(|place| p.symbol(place, ","));
        let elements = (at..at + count).step_by(2).map(element);
        commas.then(|| elements.collect())?
    }

    fn reset(&self) -> Option<Option<Change>> {
        let p = self.phrase;
        let reset = |name: String| {
            Some(Some(Change::Set {
                name,
                to: Given::Default,
                local: false,
            }))
        };
        if p.all(1, &["SESSION", "AUTHORIZATION"]) {
            return reset("session_authorization".to_owned());
        }
        if p.all(1, &["TIME", "ZONE"]) || p.all(1, &["TRANSACTION", "ISOLATION"]) {
            return Some(None);
        }
        reset(self.name(1)?.0)
    }

    /// The value behind `=` or `TO`, which ends the statement.
    fn assigned(&self, at: usize) -> Given {
        let p = self.phrase;
        if p.is(at, "DEFAULT") && p.len() == at + 1 {
            return Given::Default;
        }
        let sign = if p.symbol(at, "-") { "-" } else { "" };
        let from = at + usize::from(!sign.is_empty() || p.symbol(at, "+"));
        if p.len() != from + 1 || (from > at && p.kind(from) != Some(Kind::Number)) {
            return Given::Unread;
        }
        let value = match p.kind(from) {
            Some(Kind::Word | Kind::Quoted) => self.identifier(from),
            kind => literal::value(kind, p.text(from), self.backslash).map(|value| format!("{sign}{value}")),
        };
        value.map_or(Given::Unread, Given::Text)
    }

    /// A list of expressions without anything behind it, and every call of `set_config` in it a whole one of them.
    fn select(&self) -> Option<Vec<Change>> {
        let p = self.phrase;
        let mut changes = Vec::new();
        if !p.is(0, "SELECT") || p.find(1, &BEHIND_LIST).is_some() {
            return None;
        }
        let mut at = 1;
        while at < p.len() {
            let end = self.item_end(at);
            match self.call(at) {
                Some((change, next)) if next == end || self.is_alias(next, end) => {
                    changes.push(change);
                }
                _ if (at..end).any(|at| is_set_config(p, at)) => return None,
                _ => {}
            }
            if changes.len() > MAX_CHANGES {
                return None;
            }
            at = end + 1;
        }
        Some(changes)
    }

    /// Index of the comma behind an item of a list, or the list's end.
    fn item_end(&self, from: usize) -> usize {
        let p = self.phrase;
        let mut depth = 0_usize;
        for at in from..p.len() {
            match p.text(at) {
                "(" | "[" => depth += 1,
                ")" | "]" if depth == 0 => return at,
                ")" | "]" => depth -= 1,
                "," if depth == 0 => return at,
                _ => {}
            }
        }
        p.len()
    }

    fn is_alias(&self, at: usize, end: usize) -> bool {
        let at = at + usize::from(self.phrase.is(at, "AS"));
        at + 1 == end && self.phrase.identifier(at).is_some()
    }

    /// A call of `set_config` at this place, and the index behind it.
    fn call(&self, at: usize) -> Option<(Change, usize)> {
        let p = self.phrase;
        let qualified = p.identifier(at).is_some_and(|name| name == PG_CATALOG) && p.symbol(at + 1, ".");
        let name = at + if qualified { 2 } else { 0 };
        if !is_set_config(p, name) {
            return None;
        }
        let mut given = Vec::new();
        let mut from = name + 2;
        loop {
            let end = self.item_end(from);
            // A call within the arguments would be another change.
            if (from..end).any(|at| is_set_config(p, at)) {
                return None;
            }
            given.push(self.argument(from, end));
            match p.text(end) {
                "," => from = end + 1,
                ")" => {
                    let [name, to, local] = <[Given; 3]>::try_from(given).ok()?;
                    return Some((Change::Config { name, to, local }, end + 1));
                }
                _ => return None,
            }
        }
    }

    /// A literal, a parameter or NULL, perhaps with a cast that leaves it as it is.
    fn argument(&self, from: usize, end: usize) -> Given {
        let p = self.phrase;
        let mut next = from + 1;
        while next < end {
            let casts = p.symbol(next, ":") && p.symbol(next + 1, ":");
            let varying = p.all(next + 2, &["CHARACTER", "VARYING"]);
            if !casts || !(varying || p.any(next + 2, &["TEXT", "VARCHAR", "BOOLEAN", "BOOL"])) {
                return Given::Unread;
            }
            next += 3 + usize::from(varying);
        }
        if next != end {
            return Given::Unread;
        }
        let text = p.text(from);
        match p.kind(from) {
            Some(Kind::Parameter) => {
                let number = text.get(1..).and_then(|number| number.parse().ok());
                number.map_or(Given::Unread, Given::Parameter)
            }
            Some(Kind::Word) if p.is(from, "NULL") => Given::Default,
            Some(Kind::Word) if p.any(from, &["TRUE", "FALSE"]) => Given::Text(text.to_ascii_lowercase()),
            Some(kind @ Kind::Literal) => {
                literal::value(Some(kind), text, self.backslash).map_or(Given::Unread, Given::Text)
            }
            _ => Given::Unread,
        }
    }

    /// The dotted name of a setting, in lower case: the server compares names of settings so.
    fn name(&self, at: usize) -> Option<(String, usize)> {
        let (parts, next) = self.phrase.name(at)?;
        if (at..next).any(|at| self.is_escaped(at)) {
            return None;
        }
        Some((parts.join(".").to_ascii_lowercase(), next))
    }

    fn savepoint(&self, at: usize) -> Option<String> {
        (self.phrase.len() == at + 1).then_some(())?;
        self.identifier(at)
    }

    /// An identifier, cut as the server cuts it.
    fn identifier(&self, at: usize) -> Option<String> {
        let mut name = self.phrase.identifier(at).filter(|_| !self.is_escaped(at))?;
        name.truncate(name.floor_char_boundary(NAME_BYTES));
        Some(name)
    }

    /// `U&"…"`, which may spell any name.
    fn is_escaped(&self, at: usize) -> bool {
        self.phrase.kind(at) == Some(Kind::Quoted) && !self.phrase.text(at).starts_with('"')
    }
}

/// What can stand behind a select list.
const BEHIND_LIST: [&str; 14] = [
    "FROM",
    "WHERE",
    "INTO",
    "GROUP",
    "HAVING",
    "WINDOW",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "FETCH",
    "FOR",
];

#[cfg(test)]
mod tests;
