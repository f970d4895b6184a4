//! Delivery: events wait in a bounded queue, are sealed into signed, chained batches, written to the spool, and go to a collector,
//! which acknowledges what is durable. Of several the first that answers is used. Collectors being away delays delivery and nothing else.

mod align;
mod delivery;
mod giving_up;
mod holes;
mod keeping;
mod memory;
mod orders;
mod outbox;
mod place;
mod recovery;
mod route;
mod sealer;
#[cfg(test)]
mod tests;

pub use delivery::{Delivery, deliver};
pub use memory::Memory;
pub use orders::Chained;
pub use outbox::Outbox;
pub use sealer::{Sealing, start};
