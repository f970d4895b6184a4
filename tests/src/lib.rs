//! The truth suites: real servers, real programs, and an independent record of what happened, held against what
//! pgwitness recorded.
//!
//! Owns: throwaway servers, the programs that use them, the reading of the server's own log, and the comparison. It
//! refuses to share code with agent or collector: both are started as programs and read through their public
//! commands, so that a mistake in a shared library cannot make both sides of the comparison wrong together.

mod alignment;
pub mod certificates;
pub mod channel;
pub mod cluster;
pub mod compare;
pub mod csvlog;
mod doctor;
pub mod kerberos;
pub mod kubernetes;
pub mod ledger;
mod odd_server;
pub mod process;
pub mod program;
pub mod record;
pub mod route;
pub mod screen;
pub mod session;
pub mod suite;
pub mod tap;
pub mod unit;
