//! Statement bytes to meaning, remembered.
//!
//! Owns the order of work (lex, veil, recognise, parse) and what is remembered: texts that are the same or differ in
//! numbers alone (`familiar`), by the hash of the text, by the text with its literals' numbers in their place (`values`),
//! so that one with literals in it costs lexing but no parse, and by the text with its names' numbers in their place, too
//! (`shape`). Everything in a [`Statement`] that was parsed follows from that.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::Statement;
use crate::changes::effect;
use crate::class::Class;
use crate::columns::fill;
use crate::fallback::{calls, query_tables, table_commands};
use crate::familiar::Familiar;
use crate::fingerprint::fingerprint;
use crate::lexer::{MAX_TOKENS, lex};
use crate::objects::{Found, walk, within_limits};
use crate::phrase::Phrase;
use crate::recogniser::{Recognised, recognise};
use crate::redaction::{render, veil};
use crate::shape::{Template, shape};
use crate::values::{is_certain, numbered};

/// Statements remembered unless the caller says otherwise: applications have hundreds to a few thousand.
pub const DEFAULT_CAPACITY: usize = 4_096;

/// Longer texts are interpreted anew each time: together with the capacity this bounds the cache's memory.
pub const MAX_CACHED_BYTES: usize = 16 << 10;

/// Statements with more values are read anew each time: each value costs as much memory as some ten bytes of text.
const MAX_CACHED_VALUES: usize = 256;

/// Tokens in which names are looked for where no parser accepted the text: behind them are the rows of a bulk insert. Some
/// of the search looks back from each token, so that this bounds its time.
const MAX_SEARCHED_TOKENS: usize = 16_384;

/// One shape is remembered for so many texts: shapes are fewer, as most texts differ from another in names or values alone.
const TEXTS_OF_A_SHAPE: usize = 4;

/// Turns statement text into [`Statement`]s and remembers them.
pub struct Interpreter {
    familiar: Familiar,
    raw: Generations<Arc<Statement>>,
    redacted: Generations<Arc<Statement>>,
    shapes: Generations<Arc<Template>>,
}

impl Interpreter {
    /// Remembers up to `capacity` texts, as many redacted ones, and some of their shapes.
    pub fn new(capacity: usize) -> Self {
        Self {
            familiar: Familiar::new(capacity),
            raw: Generations::new(capacity),
            redacted: Generations::new(capacity),
            shapes: Generations::new(capacity.div_ceil(TEXTS_OF_A_SHAPE)),
        }
    }

    /// The meaning of one statement (see [`crate::split`]). Bytes that are not UTF-8 are decoded lossily.
    pub fn interpret(&mut self, sql: &[u8]) -> Arc<Statement> {
        if let Some(known) = self.familiar.get(sql) {
            return known.clone();
        }
        let key = Key::of(sql);
        if let Some(known) = self.raw.get(&key) {
            return known;
        }
        let text = String::from_utf8_lossy(sql);
        let written = lex(&text);
        let whole = written.len() <= MAX_TOKENS;
        let kept = self.familiar.keeps(sql).then(|| written.clone());
        let tokens = veil(&text, written);
        let phrase = Phrase {
            sql: &text,
            tokens: &tokens,
        };
        // What a doubtful literal hides may name objects, so there the text without it is no key.
        let numbered = (is_certain(&tokens) && within_limits(phrase)).then(|| numbered(phrase));
        let numbered_key = numbered.as_ref().map(|numbered| Key::of(numbered.as_bytes()));
        let known = numbered_key.as_ref().and_then(|key| self.redacted.get(key));
        let statement = known.unwrap_or_else(|| {
            let statement = match numbered.as_deref() {
                Some(numbered) => self.parsed(phrase, numbered),
                None => Arc::new(Statement {
                    whole,
                    ..read(phrase, None)
                }),
            };
            let small =
                statement.redacted.len() <= MAX_CACHED_BYTES && statement.values.len() <= MAX_CACHED_VALUES;
            if let Some(key) = numbered_key.filter(|_| statement.parsed && small) {
                self.redacted.put(key, &statement);
            }
            statement
        });
        if statement.values.len() <= MAX_CACHED_VALUES {
            if sql.len() <= MAX_CACHED_BYTES {
                self.raw.put(key, &statement);
            }
            if let Some(written) = kept {
                self.familiar.put(sql, &written, &statement);
            }
        }
        statement
    }

    /// The meaning of a text that is certain and may be parsed: by its shape, if that was seen.
    fn parsed(&mut self, phrase: Phrase<'_>, numbered: &str) -> Arc<Statement> {
        let shape = shape(phrase).filter(|_| phrase.sql.len() <= MAX_CACHED_BYTES);
        let Some((shape, names)) = shape else {
            return Arc::new(read(phrase, Some(numbered)));
        };
        let key = Key::of(&shape);
        if let Some(template) = self.shapes.get(&key) {
            let redacted = render(phrase.sql, phrase.tokens).into();
            return Arc::new(template.with(&names, redacted, fingerprint(phrase)));
        }
        let statement = Arc::new(read(phrase, Some(numbered)));
        let small = statement.parsed && statement.values.len() <= MAX_CACHED_VALUES;
        if let Some(template) = small.then(|| Template::new(&statement, &names)).flatten() {
            self.shapes.put(key, &Arc::new(template));
        }
        statement
    }
}

impl Default for Interpreter {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

fn read(phrase: Phrase<'_>, numbered: Option<&str>) -> Statement {
    let redacted = render(phrase.sql, phrase.tokens);
    let mut found = Found::default();
    let recognised = recognise(phrase, &mut found);
    let statements = walk(phrase, numbered, &mut found);
    let parsed = !statements.is_empty();
    let queries = holds_query(&recognised.command, phrase);
    let front = phrase.head(MAX_SEARCHED_TOKENS);
    if queries {
        table_commands(front, &mut found);
    }
    if !parsed {
        if queries {
            query_tables(front, &mut found);
        }
        calls(front, &mut found);
        found.calls_unknown |= front.len() < phrase.len();
    }
    match recognised.command.as_str() {
        // Their arguments are expressions.
        "EXECUTE" | "CALL" => {
            if parsed {
                found.functions.clear();
            }
            let name = phrase.name(1).map_or(phrase.len(), |(_, next)| next);
            calls(front.from(name), &mut found);
            found.calls_unknown |= front.len() < phrase.len();
            found.executes();
        }
        _ if queries && runs_query(&recognised) => found.executes(),
        _ => {}
    }
    let effect = effect(phrase, &recognised.command, found.calls_unknown);
    let (mut values, mut outputs) = fill(&statements, &mut found.objects);
    // Which literal is which is not known, and a doubtful one may hide half of the text.
    if numbered.is_none() {
        (values, outputs) = Default::default();
        for object in &mut found.objects {
            (object.exact, object.bound) = (false, Vec::new());
        }
    }
    Statement {
        redacted: redacted.into(),
        fingerprint: fingerprint(phrase),
        class: recognised.class,
        command: recognised.command,
        whole: true,
        parsed,
        objects: found.objects,
        values,
        outputs,
        effect,
    }
}

/// Whether the query in it is run: a view's is not when the view is made.
fn runs_query(recognised: &Recognised) -> bool {
    let filled = [
        "SELECT INTO",
        "CREATE TABLE AS",
        "CREATE MATERIALIZED VIEW",
        "EXPLAIN",
    ];
    recognised.class != Class::Ddl || filled.contains(&recognised.command.as_str())
}

/// Whether `FROM` in a statement of this command introduces tables: in `REVOKE`, `FETCH` or plain `COPY` it does not.
fn holds_query(command: &str, phrase: Phrase<'_>) -> bool {
    match command {
        "SELECT"
        | "SELECT INTO"
        | "INSERT"
        | "UPDATE"
        | "DELETE"
        | "MERGE"
        | "EXPLAIN"
        | "PREPARE"
        | "DECLARE CURSOR"
        | "CREATE VIEW"
        | "CREATE MATERIALIZED VIEW"
        | "CREATE TABLE AS" => true,
        "COPY" => phrase.symbol(1, "("),
        _ => false,
    }
}

/// Truncated SHA-256: a peer chooses the texts, and two with one key would share a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key([u8; 16]);

impl Key {
    fn of(bytes: &[u8]) -> Self {
        let mut key = [0; 16];
        key.iter_mut()
            .zip(Sha256::digest(bytes))
            .for_each(|(to, from)| *to = from);
        Self(key)
    }
}

/// A cache in two generations: when the young one is full it becomes the old one and the old one
/// is forgotten. What is used at least once a generation stays.
struct Generations<T> {
    half: usize,
    young: HashMap<Key, T>,
    old: HashMap<Key, T>,
}

impl<T: Clone> Generations<T> {
    fn new(capacity: usize) -> Self {
        Self {
            half: capacity.div_ceil(2).max(1),
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    fn get(&mut self, key: &Key) -> Option<T> {
        if let Some(known) = self.young.get(key) {
            return Some(known.clone());
        }
        let known = self.old.remove(key)?;
        self.put(*key, &known);
        Some(known)
    }

    fn put(&mut self, key: Key, value: &T) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value.clone());
    }
}
