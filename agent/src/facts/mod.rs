//! What the agent knows of this host: processes, cgroups, who opened a connection, which servers run.
//!
//! Owns look-ups and their caches. Facts are taken early and joined late: what is recorded here at the moment of an
//! event is handed to `attribution`, which decides. What looks with privileges (`servers`, `poolers`, `old_sockets`) is the broker's;
//! the rest belongs to the process that parses, and asks.

pub mod cgroups;
pub mod connections;
pub mod container;
pub mod flows;
pub mod old_sockets;
pub mod poolers;
pub mod processes;
pub mod servers;
pub mod shared;
pub mod tapped;
pub mod titles;
mod users;
