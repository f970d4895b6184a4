//! What the process that looks at catalogs and the one that parses say to each other: one question, and rows of fixed shape.
//!
//! Neither believes the other: messages are capped in length, and whoever takes rows counts them.

use serde::{Deserialize, Serialize};

use super::CatalogConfig;

/// Bytes of a question at the most: two numbers.
pub const ASK_BYTES: usize = 256;

/// Bytes of the first message, which has the configuration.
pub const START_BYTES: usize = 128 << 10;

/// Bytes of an answer's part at the most. It has to fit a socket's buffer (`net.core.wmem_default`, 208 KiB).
pub const SAID_BYTES: usize = 128 << 10;

/// Bytes of rows in one part: each name may be six times as long in JSON.
pub const ROWS_BYTES: usize = 64 << 10;

/// The first thing that is said, by the broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// What is looked at.
    pub catalogs: Vec<CatalogConfig>,
    /// Process id of the broker.
    pub broker: u32,
}

/// Look at one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Which entry of the configuration.
    pub entry: usize,
    /// Which of its databases.
    pub database: usize,
    /// Tell all, even if it is what was told last.
    pub whole: bool,
}

/// Oid, name, whether everybody may use it.
pub type SchemaRow = (u32, String, bool);
/// Oid, name, whether it may do everything.
pub type RoleRow = (u32, String, bool);
/// Whether of the database, role or nothing, path.
pub type PathRow = (bool, String, String);
/// Oid, schema, name, `relkind`, whether it is a partition.
pub type RelationRow = (u32, u32, String, char, bool);
/// Table, number, name.
pub type ColumnRow = (u32, i16, String);
/// Schema, name.
pub type FunctionRow = (u32, String);

/// A part of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The look begins.
    Began {
        /// In capture time.
        at: u64,
        /// By this `application_name` the tap finds its connection among those of this process.
        application: String,
        /// The server repeats what another one does.
        standby: bool,
        /// The server's own `search_path`, if it can be seen.
        path: Option<String>,
    },
    /// Rows.
    Schemas(Vec<SchemaRow>),
    /// Rows.
    Roles(Vec<RoleRow>),
    /// Schema and role.
    Grants(Vec<(u32, u32)>),
    /// Rows.
    Paths(Vec<PathRow>),
    /// Rows.
    Relations(Vec<RelationRow>),
    /// Rows.
    Columns(Vec<ColumnRow>),
    /// Rows.
    Functions(Vec<FunctionRow>),
    /// That was all; or there were no rows, because they are `same` as last time.
    Ended {
        /// Nothing has changed.
        same: bool,
    },
    /// It could not be done, and why.
    Failed(String),
}
