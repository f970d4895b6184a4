//! Delivery: events wait in a bounded queue, are sealed into signed, chained batches, and go to the collector, which
//! acknowledges what is durable. The collector being away delays delivery and nothing else.

mod delivery;
mod outbox;

pub use delivery::{Delivery, deliver};
pub use outbox::Outbox;
