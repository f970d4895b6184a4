//! What is expected of each principal: who owns it, with which roles, on which databases and from where it comes, who
//! approved that, and until when its credential is good.
//!
//! Owns the form of the inventory file and the judgement of one sighting by it. Refuses IO and clocks: text and times
//! come in as values, so that everybody who has the file can make the same judgement again.

mod file;
mod judgement;
mod suggestion;

pub use file::{Credential, Entry, Inventory, InventoryError};
pub use judgement::{Mark, Seen, Surprise};
pub use suggestion::Suggestion;
