//! The servers that are tapped, as the broker named them.

use std::collections::HashMap;

use super::servers::Server;

/// Servers by the process id of their postmaster.
#[derive(Debug, Default)]
pub struct Tapped(HashMap<u32, Server>);

impl Tapped {
    /// A server is tapped from here on.
    pub fn insert(&mut self, server: Server) {
        self.0.insert(server.pid, server);
    }

    /// A process ended, or runs something else. Returns whether it was one.
    pub fn remove(&mut self, pid: u32) -> bool {
        self.0.remove(&pid).is_some()
    }

    /// Whether bytes of this server's processes count.
    pub fn contains(&self, pid: u32) -> bool {
        self.0.contains_key(&pid)
    }

    /// One of them.
    pub fn get(&self, pid: u32) -> Option<&Server> {
        self.0.get(&pid)
    }

    /// All.
    pub fn iter(&self) -> impl Iterator<Item = &Server> {
        self.0.values()
    }
}
