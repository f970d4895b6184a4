//! Clients of poolers over a restart of the agent: who connected was seen once, and is kept like the owners of sessions.

use attribution::Peer;
use ebpf_abi::{SOCKET_MID_STREAM, SocketFact};
use tap_core::SessionFacts;

use super::{
    super::Witness,
    is_running,
    kept::{address, kept_owner, owner_fact, port},
};
use crate::progress::{Kept, KeptSession, Note};

/// Clients of poolers that are kept: sessions need the room more.
const CLIENTS: usize = 16_384;

impl Witness {
    /// What a former run kept of poolers' clients.
    pub(super) fn go_on_with_clients(&mut self) {
        let left = self.old.left.extract_if(|_, kept| {
            let session = kept.session.as_ref();
            session.is_some_and(|session| session.of_pooler)
        });
        for (cookie, kept) in left {
            match kept.session {
                Some(session) if is_running(&self.processes, &session) => {
                    self.old.clients.insert(cookie, session);
                }
                _ => self.old.closed.push(cookie),
            }
        }
    }

    /// Says who connected, if a former run saw that. Returns whether it did.
    pub(in crate::witness) fn find_client(&mut self, fact: &SocketFact) -> bool {
        let kept = self.old.clients.remove(&fact.cookie);
        let owner = kept.and_then(|kept| kept.owner);
        let owner = owner.filter(|_| fact.flags & SOCKET_MID_STREAM != 0);
        if let Some(owner) = &owner {
            self.connections.opened(&owner_fact(owner, fact));
        }
        owner.is_some()
    }

    /// Who connected is kept for the next run.
    pub(in crate::witness) fn keep_client(&mut self, fact: &SocketFact, facts: &SessionFacts, peer: &Peer) {
        let Some((owner, backend_start)) = kept_owner(peer).zip(self.processes.start_of(fact.tgid)) else {
            return;
        };
        if self.old.new_clients.len() >= CLIENTS {
            return;
        }
        let session = KeptSession {
            backend_pid: fact.tgid,
            backend_start,
            server_pid: fact.tgid,
            netns: facts.netns,
            client: address(&facts.client),
            client_port: port(&facts.client),
            server: address(&facts.server),
            server_port: port(&facts.server),
            owner: Some(owner),
            of_pooler: true,
            ..KeptSession::default()
        };
        self.old.new_clients.push(Note::Open(Box::new(Kept {
            cookie: fact.cookie,
            at: fact.at,
            session: Some(session),
            ..Kept::default()
        })));
    }

    /// A pooler ended, and all its connections with it.
    pub(super) fn clients_ended(&mut self, tgid: u32) {
        let ended = self
            .old
            .clients
            .extract_if(|_, session| session.backend_pid == tgid);
        self.old.closed.extend(ended.map(|(cookie, _)| cookie));
    }
}
