//! The messages between agent and collector, generated from `proto/pgwitness/v1`, their JSON form, and how a batch holds
//! events.
//!
//! Owns the wire schema. Refuses meaning: what an event says is decided where it is made.

pub mod json;
pub mod whole;

/// The version of the delivery protocol that this program speaks. Raised when a message changes its meaning; what is only added is a name
/// in `supports`.
pub const PROTOCOL: u32 = 1;

/// Version 1 of the schema.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; the schema files carry the documentation"
)]
pub mod v1 {
    include!("generated/pgwitness.v1.rs");
}
