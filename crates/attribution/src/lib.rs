//! The pure join of recorded facts into an [`Attribution`]: which workload is behind a connection, how that is known,
//! and how sure it is. The same facts always give the same answer, so that anybody can recompute it.
//!
//! Owns the form of principals and the order in which facts decide. Refuses look-ups: facts come in as values.

mod amendment;
mod cgroup;
mod descent;
mod evidence;
mod flow;
mod leased;
mod peer;
mod pod;
mod pooled;
mod principal;
mod process;
mod relay;
mod run;
mod traffic;

pub use amendment::{
    Account, JOIN_VERSION, METHOD, TAKEN_BACK, amended, client_session, may_be_joined, passed_on, says_more,
    taken_back, through,
};
pub use cgroup::{CgroupPath, Placement, placement};
pub use descent::{Ancestor, Descent, First};
pub use evidence::{Ends, Fact, Pair, Translated};
pub use flow::{End, Joined, Match, WINDOW_NS, join};
pub use leased::{LEASE, LEASE_VERSION, OWN, POOLERS, UNDECIDED, Whose, leased};
pub use peer::{Peer, attribute};
pub use pod::{
    OWN_METHODS, POD_ADDRESS, POD_UID, POD_VERSION, by_address, client_pod_uid, in_pod, is_by_pod_uid,
    is_same_container, own_pod_uid, pod_uid, remote_address,
};
pub use pooled::{Lease, POOLER, Shown, pooler, through_pooler};
pub use principal::{Attribution, Confidence, Hop, HopClient, Host, Principal, PrincipalKind};
pub use process::{CommandLine, Container, Namespaces, Process};
pub use relay::{Relay, pooler_programs};
pub use run::{DEFAULT_VARIABLES, VALUE_MAX, Variable, run_identity};
pub use traffic::{pooler_traffic, portion};
