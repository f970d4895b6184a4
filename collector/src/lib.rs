//! The collector: takes signed events from agents, keeps them in a tamper-evident log, and answers from a store that
//! can be rebuilt from it.
//!
//! Data goes one way: `ingest` (one agent's stream) → `log` (durable, signed, the truth) → `store` (Parquet) →
//! `query`, `explain`, `tail`, `http`, `sql` (answers). What two hosts saw `join` puts together, and says in the log; what pods are called, `cluster` hears. What may go from both, and what must stay, `custody` decides; who may ask, `access`. `serve` wires them; `verify`, `prove` and `rebuild` need only the log.

pub mod access;
pub mod accesses;
pub mod alarms;
pub mod ask;
pub mod backup;
pub mod cluster;
pub mod config;
pub mod custody;
pub mod expectations;
pub mod explain;
pub mod export;
pub mod http;
pub mod ingest;
pub mod inventory;
pub mod join;
pub mod live;
pub mod log;
pub mod metrics;
pub mod new_edges;
pub mod place;
mod progress;
pub mod prove;
pub mod publish;
pub mod query;
pub mod rebuild;
pub mod report;
pub mod serve;
pub mod since;
pub mod source;
mod sql;
pub mod store;
pub mod tail;
pub mod timeline;
pub mod trust;
pub mod unattributed;
pub mod verify;
pub mod what;
pub mod who;
