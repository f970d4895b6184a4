//! The agent: loads the kernel side, rebuilds queries, names who sent them, and delivers signed events.
//!
//! `run` wires the parts; each part is a module that can be read alone.

pub mod broker;
pub mod capture;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod confine;
pub mod control;
pub mod doctor;
pub mod facts;
pub mod fleet_key;
pub mod identity;
pub mod limits;
pub mod losses;
pub mod main_loop;
pub mod metrics;
pub mod parser;
pub mod privilege;
pub mod progress;
pub mod record;
pub mod replay;
mod rhythm;
pub mod run;
pub mod segment_file;
pub mod sensitive;
pub mod ship;
pub mod token_key;
pub mod trust;
pub mod volume;
pub mod witness;
