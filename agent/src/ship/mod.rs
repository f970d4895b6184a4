//! Delivery: events wait in a bounded queue, are sealed into signed, chained batches, and go to the collector, which
//! acknowledges what is durable. The collector being away delays delivery and nothing else.

mod delivery;
mod memory;
mod outbox;

pub use delivery::{Delivery, deliver};
pub use memory::Memory;
pub use outbox::Outbox;
