//! How much of it is recorded: each statement in full, equal ones together as one roll-up, or their number alone.
//!
//! Owns the form of the policy file, what is recorded in full whatever a policy says ([`Policy`]), and the roll-ups in the
//! making ([`Volume`]). Refuses files, clocks and the wire: text and times come in as values. An event that is held back here is
//! not told: whoever keeps progress asks [`Volume::holds`].

mod always;
mod durations;
mod policy;
mod records;
mod rule;
mod session;
mod verdict;
mod window;

pub use durations::Durations;
pub use policy::{MAX_FILE_BYTES, MAX_RULES, Policy, PolicyError};
pub use session::Rolled;
pub use verdict::Verdict;
pub use window::{MAX_BYTES, MAX_ROLLS, Told, Totals, Volume};

#[cfg(test)]
mod tests;
