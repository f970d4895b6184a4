//! SQL text to meaning: class, command, objects, fingerprint and redacted text.
//!
//! Owns everything that is read out of statement text. Pure: no clock, randomness, file or socket.
//! Refuses to guess: what the text does not say is absent, and `parsed` says whether a full parser agreed.
//!
//! Redaction stands on a lexer of our own, after PostgreSQL's `scan.l`, because it must be right
//! for text that no parser accepts. Class, command and the objects of utility statements come from the
//! same tokens; `sqlparser` is asked only for what needs a tree: the tables and columns of queries.
//!
//! Text that is not UTF-8 is decoded lossily first. Where that decoding, or the session's unknown
//! `standard_conforming_strings`, leaves more than one reading, the union of the readings is redacted.

use std::sync::Arc;

mod arguments;
mod changes;
mod class;
mod columns;
mod command_line;
mod comment;
mod copy;
mod defining;
mod definition;
mod every;
mod fallback;
mod familiar;
mod fingerprint;
mod functions;
mod fuzz;
mod interpreter;
mod lexer;
mod literal;
mod objects;
mod phrase;
mod recogniser;
mod redaction;
mod secrets;
mod shape;
mod split;
mod values;

pub use arguments::{Argument, arguments, declared_types};
pub use changes::{Change, Given, changes, may_configure};
pub use class::{Class, class_of_tag, rows_affected, rows_in_tag};
pub use command_line::mask_command_line;
pub use comment::{comment_pairs, has_comment_at_an_end};
pub use copy::{CopyFormat, CopyOptions, copy_options};
pub use defining::{Defines, defines};
pub use every::gives_every_row;
#[doc(hidden)]
pub use fuzz::fuzz_sql;
pub use interpreter::{DEFAULT_CAPACITY, Interpreter, MAX_CACHED_BYTES};
pub use lexer::{MAX_TEXT_BYTES, MAX_TOKENS};
pub use literal::Backslash;
pub use objects::{MAX_OBJECTS, MAX_PARSED_BYTES, MAX_PARSED_JOINTS};
pub use redaction::redact;
pub use secrets::{mask_secrets, mask_value};
pub use split::split;
pub use values::{Literal, literals};

/// What a statement does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// Rows are read, `SELECT … FOR UPDATE` included: pgAudit counts only true changes as writes.
    Read,
    /// Rows are inserted, updated, deleted, merged, truncated or copied in.
    Write,
    /// The object, its privileges or its storage are defined, changed or dropped.
    Ddl,
    /// The object is run: `CALL`, `EXECUTE`.
    Execute,
}

impl Access {
    /// The name in events: `read`, `write`, `ddl`, `execute`.
    pub fn as_str(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Ddl => "ddl",
            Access::Execute => "execute",
        }
    }
}

/// One object that the text names. Names are as the server folds them: unquoted ones in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// The schema, where the text gives one. `search_path` is not applied.
    pub schema: Option<String>,
    /// The object's own name.
    pub name: String,
    /// `table`, `function`, `role`, or another object type in lower case; `""` where the text does not say.
    /// A view read in a query is a `table` here: the text cannot tell.
    pub kind: &'static str,
    /// What the statement does to it.
    pub access: Access,
    /// Columns selected, returned, inserted, assigned or copied, as far as names say so; `*` gives none.
    pub columns: Vec<String>,
    /// Columns that decide which rows, or in which order: in `WHERE`, `ON`, `USING`, `HAVING`, `GROUP BY`, `ORDER BY`.
    pub filtered: Vec<String>,
    /// All of its columns are read: `*` stands for them.
    pub star: bool,
    /// `columns` and `filtered` are all that the text names of it, each surely its own.
    pub exact: bool,
    /// Columns whose values in all rows that the statement touches of it are among [`Statement::values`]: each row that it
    /// gives is restricted to them, each that it writes gets one of them. What triggers and views do is in no text.
    pub bound: Vec<String>,
}

/// A value that the text compares a column with, or puts into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueUse {
    /// Place of the column's object in [`Statement::objects`].
    pub object: usize,
    /// The column.
    pub column: String,
    /// What is done with the value.
    pub role: ValueRole,
    /// Where the value stands.
    pub operand: Operand,
    /// The type that the text casts it to, by the server's own name (`int4`, `uuid`, `timestamptz`): where it is not the
    /// column's, the value may have changed on the way. Casts with a length, or to other types, give no value at all.
    pub cast: Option<&'static str>,
    /// The operand is an array, and each of its elements is a value: `= ANY ($1)`.
    pub each: bool,
}

/// What a statement does with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueRole {
    /// It, or another one of the same list, has to equal the column of every row that the object gives: `WHERE id = 42 AND …`,
    /// `id IN (1, 2)`.
    Restricts,
    /// It is compared for equality, but other rows may be touched, too: under `OR`, in an outer join's `ON`, in `CASE`.
    Compared,
    /// It is inserted or assigned.
    Written,
}

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The parameter `$n`; n counts from 1.
    Param(u16),
    /// The literal with this number in the text, from 0: place among its tokens that [`redact`] replaces. [`literals`] gives
    /// their values.
    Literal(u32),
    /// The same with a minus before it, which is no part of the literal.
    Negative(u32),
}

/// What a column of a statement's result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A column as it is, whatever the result calls it: place of its object in [`Statement::objects`], and its own in
    /// [`ObjectRef::columns`].
    Column {
        /// The object.
        object: u16,
        /// The column.
        column: u16,
    },
    /// All columns of an object, in the order of their numbers, but for those that a join made one with others: these
    /// stand before. One or more columns of the result.
    Star {
        /// The object.
        object: u16,
    },
    /// One computed column, or one that is not told by itself.
    Other,
}

/// The meaning of one statement. Holds no literal, so it may be kept, shipped and shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// See [`redact`].
    pub redacted: Arc<str>,
    /// First 8 bytes of SHA-256 over the normalised tokens; equal for statements that differ in literal
    /// values, letter case, white space, comments, the length of value lists, or names of savepoints and cursors.
    pub fingerprint: [u8; 8],
    /// pgAudit's class.
    pub class: Class,
    /// The server's name of the command, as in its command tag (`SELECT`, `CREATE TABLE`, `GRANT ROLE`);
    /// empty where no word was recognised.
    pub command: String,
    /// Whether all of the text was read: it has no more than [`MAX_TOKENS`].
    pub whole: bool,
    /// Whether `sqlparser` accepted the text. If not, objects are best effort.
    pub parsed: bool,
    /// What the text names, in order of appearance, each (schema, name, kind, access) once.
    pub objects: Vec<ObjectRef>,
    /// Values that it compares columns with for equality, or writes to them; in order of appearance.
    pub values: Vec<ValueUse>,
    /// What the columns of its result are, in order (of PREPARE and DECLARE: of what they prepare); empty if that is not
    /// known, or if there are none.
    pub outputs: Vec<Output>,
    /// What running it may do to the settings of its session.
    pub effect: Effect,
}

/// What a statement may do to the settings of its session, and to the savepoints that they are undone to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// It changes some, and [`changes`] reads from its text which.
    pub settings: bool,
    /// It runs code that nobody sees, which may change any: `DO`, `CALL`, functions that are not the server's own. What
    /// triggers, policies, defaults and views run is not counted, because no text tells of it.
    pub unseen: bool,
}

#[cfg(test)]
mod tests;
