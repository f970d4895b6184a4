//! Statements that differ in names alone: what one of them means, said of another.
//!
//! Owns the proof that names may be exchanged: which words the parser and our own readers tell apart (keywords, what comes
//! with the server, a few more) and so stay as they are, and that all others stand for nothing but themselves: they are
//! compared with each other, and with nothing else. Two texts with the same tokens but for a one-to-one exchange of such
//! names mean the same, with the names exchanged. Refuses every text with a name that is not plain.
//!
//! Applications make texts with names that were never seen (temporary tables, partitions, one schema for each customer);
//! parsing each anew takes ten times as long.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use sqlparser::keywords::ALL_KEYWORDS;

use crate::columns::RESERVED;
use crate::functions::servers_own;
use crate::lexer::{Kind, Token};
use crate::phrase::Phrase;
use crate::values::CUSTOM;
use crate::{ObjectRef, Statement, ValueUse};

/// Most names of one text: each is looked for among those before it.
const MAX_NAMES: usize = 64;

/// Commands whose readers were looked through for what they do with names: those that are sent in great numbers.
const COMMANDS: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH"];

/// The names of a text, in the order in which they appear, each once.
pub(crate) struct Names<'a>(Vec<Name<'a>>);

/// The shape of a text: its tokens, with a number in the place of each name and nothing in that of a value. `None` if it may
/// not be told from its shape what it means.
pub(crate) fn shape<'a>(phrase: Phrase<'a>) -> Option<(Vec<u8>, Names<'a>)> {
    if !phrase.any(0, &COMMANDS) {
        return None;
    }
    let mut names = Names(Vec::new());
    let mut shape = Vec::with_capacity(phrase.len() * 4);
    for (at, token) in phrase.tokens.iter().enumerate() {
        let text = phrase.text(at);
        // White space decides which signs are one operator.
        shape.push(sign(token));
        match token.kind {
            Kind::Word | Kind::Quoted => {
                let name = Name::of(token.kind, text)?;
                if is_fixed(name.text) {
                    // To the parser `TABLE Foo` is not what `TABLE foo` is.
                    if name.text.eq_ignore_ascii_case("TABLE") {
                        return None;
                    }
                    shape.extend(name.folded());
                    shape.push(0);
                } else {
                    shape.extend([1, names.number(name)?]);
                }
            }
            Kind::Symbol | Kind::Parameter => {
                shape.extend(text.bytes());
                shape.push(0);
            }
            Kind::Literal | Kind::Number => {}
            Kind::Doubt | Kind::Comment => return None,
        }
    }
    Some((shape, names))
}

fn sign(token: &Token) -> u8 {
    let kind = match token.kind {
        Kind::Word => 2,
        Kind::Quoted => 4,
        Kind::Symbol => 6,
        Kind::Parameter => 8,
        Kind::Literal => 10,
        Kind::Number => 12,
        Kind::Doubt | Kind::Comment => 14,
    };
    kind + u8::from(token.spaced)
}

/// What all texts of one shape mean.
pub(crate) struct Template {
    /// What one of them means.
    meaning: Arc<Statement>,
    /// For each name in it, in order: the number of the name; `None` for what all have.
    places: Box<[Option<u8>]>,
}

impl Template {
    /// `None` if a name in the meaning is none of the text's.
    pub(crate) fn new(meaning: &Arc<Statement>, names: &Names<'_>) -> Option<Self> {
        let objects = meaning.objects.iter().flat_map(|object| {
            let lists = [&object.columns, &object.filtered, &object.bound];
            object
                .schema
                .iter()
                .chain([&object.name])
                .chain(lists.into_iter().flatten())
        });
        let all = objects.chain(meaning.values.iter().map(|value| &value.column));
        let places: Option<Box<[Option<u8>]>> = all.map(|name| names.place(name)).collect();
        Some(Self {
            meaning: Arc::clone(meaning),
            places: places?,
        })
    }

    /// What a text with these names means.
    pub(crate) fn with(&self, names: &Names<'_>, redacted: Arc<str>, fingerprint: [u8; 8]) -> Statement {
        let mut places = self.places.iter().copied();
        let mut name = |before: &String| match places.next().flatten() {
            Some(number) => names.get(number),
            None => before.clone(),
        };
        let meaning = &self.meaning;
        let objects = meaning.objects.iter().map(|object| {
            let schema = object.schema.as_ref().map(&mut name);
            let own = name(&object.name);
            let mut list = |list: &Vec<String>| list.iter().map(&mut name).collect::<Vec<String>>();
            let (columns, filtered) = (list(&object.columns), list(&object.filtered));
            let mut bound = list(&object.bound);
            bound.sort_unstable();
            ObjectRef {
                schema,
                name: own,
                columns,
                filtered,
                bound,
                ..*object
            }
        });
        let objects = objects.collect();
        let values = meaning.values.iter().map(|value| ValueUse {
            column: name(&value.column),
            ..*value
        });
        Statement {
            redacted,
            fingerprint,
            objects,
            values: values.collect(),
            command: meaning.command.clone(),
            outputs: meaning.outputs.clone(),
            ..**meaning
        }
    }
}

impl<'a> Names<'a> {
    /// The number of a name; it gets the next one if it is new.
    fn number(&mut self, name: Name<'a>) -> Option<u8> {
        let known = self.0.iter().position(|other| other.is(name));
        let number = known.unwrap_or_else(|| {
            self.0.push(name);
            self.0.len() - 1
        });
        u8::try_from(number).ok().filter(|_| self.0.len() <= MAX_NAMES)
    }

    fn get(&self, number: u8) -> String {
        let name = self.0.get(usize::from(number));
        name.map(|name| name.folded().map(char::from).collect())
            .unwrap_or_default()
    }

    /// The number of a name as the server folds it, nothing for one that all have. `None` if it is neither.
    fn place(&self, name: &str) -> Option<Option<u8>> {
        if is_fixed(name) {
            return Some(None);
        }
        let quoted = Name {
            text: name,
            quoted: true,
        };
        let number = self.0.iter().position(|other| other.is(quoted))?;
        u8::try_from(number).ok().map(Some)
    }
}

/// A name as it is written, without quotes.
#[derive(Clone, Copy)]
struct Name<'a> {
    text: &'a str,
    quoted: bool,
}

impl<'a> Name<'a> {
    /// A plain name: the parser looks at an underscore at the beginning, and at what no letter or digit is.
    fn of(kind: Kind, text: &'a str) -> Option<Self> {
        let quoted = kind == Kind::Quoted;
        let text = if quoted {
            text.strip_prefix('"')?.strip_suffix('"')?
        } else {
            text
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins = text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic());
        (begins && text.bytes().all(plain)).then_some(Self { text, quoted })
    }

    /// As the server folds it.
    fn folded(self) -> impl Iterator<Item = u8> {
        let bytes = self.text.bytes();
        bytes.map(move |byte| {
            if self.quoted {
                byte
            } else {
                byte.to_ascii_lowercase()
            }
        })
    }

    fn is(self, other: Name<'_>) -> bool {
        self.text.len() == other.text.len() && self.folded().eq(other.folded())
    }
}

/// Whether somebody tells this word, in any case, from others.
fn is_fixed(word: &str) -> bool {
    static WORDS: LazyLock<HashSet<Caseless<'_>, BuildHasherDefault<Fnv>>> = LazyLock::new(|| {
        let lists = [ALL_KEYWORDS, &RESERVED, &CUSTOM, &OTHERS];
        let words = lists.into_iter().flatten().copied();
        words.chain(servers_own()).map(Caseless).collect()
    });
    // The server calls columns of VALUES so, and so do we.
    let numbered = word.get(..COLUMN.len()).filter(|_| word.len() > COLUMN.len());
    WORDS.contains(&Caseless(word)) || numbered.is_some_and(|front| front.eq_ignore_ascii_case(COLUMN))
}

const COLUMN: &str = "column";

/// What our own readers look for, beside keywords.
const OTHERS: [&str; 3] = ["excluded", "pg_catalog", "set_config"];

#[derive(Clone, Copy)]
struct Caseless<'a>(&'a str);

impl PartialEq for Caseless<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for Caseless<'_> {}

impl Hash for Caseless<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0
            .bytes()
            .for_each(|byte| state.write_u8(byte.to_ascii_lowercase()));
    }
}

/// FNV-1a: what is in the table is ours, so that nobody can choose words which are slow to look for.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests;
