//! Names of users, asked of the broker once each and shared by their processes.

use std::{collections::HashMap, sync::Arc};

use crate::broker::Broker;

/// Names of users, asked for once each.
pub(super) struct Users {
    broker: Broker,
    names: HashMap<u32, Option<Arc<str>>>,
}

impl Users {
    /// None yet.
    pub(super) fn new(broker: Broker) -> Self {
        Self {
            broker,
            names: HashMap::new(),
        }
    }

    /// The name of a user, if the host knows one.
    pub(super) fn name(&mut self, uid: u32) -> Option<Arc<str>> {
        // Directory services can hold very many; a name that was asked for before is rarely needed again then.
        const NAMES: usize = 4096;
        if let Some(known) = self.names.get(&uid) {
            return known.clone();
        }
        if self.names.len() >= NAMES {
            self.names.clear();
        }
        // One that did not come in time is asked for again.
        let name: Option<Arc<str>> = self.broker.user(uid).ok()?.map(Into::into);
        self.names.insert(uid, name.clone());
        name
    }
}
