//! What a Kubernetes cluster says of its pods: which uid is which pod, and whose an address was at a moment.
//!
//! Owns what may be concluded from lists and from what changed since. A uid names one pod for good; an address is one pod's
//! for a time, and nobody's name where two could have had it. Refuses to ask anybody and to read a clock: what was seen
//! comes in as values, with the time at which it was seen, so that the same words always give the same answers.
//!
//! **What can be relied on.** Uids are unique over the whole life of a cluster; a pod's namespace, name, service account and
//! whether it uses its node's network never change. In one watch the last word on an object counts, and a list that is read
//! anew replaces all that was known: what it does not name has ended, at an unknown moment since it was heard of last. Versions of
//! objects are opaque, and none is compared here: of what could come late, all is of the kind that only grows (a pod that has
//! ended does not live again), or is taken as it was said last. Words can be late: a watch that was cut says afterwards what came
//! meanwhile, and a server that falls silent is noticed late ([`LATE_NS`]).

mod directory;
mod held;
mod owners;
mod pod;
mod texts;
mod uid;

pub use directory::{Directory, Holder, MAX_PODS, Seen};
pub use held::{LATE_NS, SLACK_NS};
pub use owners::{MAX_OWNERS, Middle, Owners};
pub use pod::{Chain, Controller, MAX_ADDRESSES, MAX_CHOSEN, MAX_TEXT, Owner, Pod, Sighting};
pub use uid::{NotAUid, Uid};
