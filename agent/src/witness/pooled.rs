//! Poolers of this host: what their sockets did, so that each pooled statement can be given back to the client that sent
//! it.

use ebpf_abi::{SocketFact, Transfer};

use super::Witness;

impl Witness {
    /// A pooler used a socket for the first time ([`ebpf_abi::SOCKET_POOLER`]).
    pub fn pooler_socket(&mut self, fact: &SocketFact) {
        let _ = (fact, self);
    }

    /// A pooler's thread received or sent, or found nothing.
    pub fn transfer(&mut self, transfer: &Transfer) {
        let _ = (transfer, self);
    }

    /// Transfers found no room in their ring, whichever pooler's they were.
    pub fn transfers_lost(&mut self) {
        let _ = self;
    }
}
