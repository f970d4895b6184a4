//! The messages between agent and collector, generated from `proto/pgwitness/v1`, their JSON form, and how a batch holds
//! events.
//!
//! Owns the wire schema. Refuses meaning: what an event says is decided where it is made.

pub mod json;
pub mod whole;

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
