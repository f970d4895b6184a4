//! Being woken by the kernel side.
//!
//! It wakes nobody for a statement's bytes: only for a fact (a process, a socket), and when bulk data have filled a part of
//! their ring. So what counts is that somebody was woken, and not that a ring holds something, as it does all the time under load.

use std::time::Duration;

use nix::{
    Result,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use super::Ring;

/// Whoever waits for the kernel side.
pub struct Wake(Epoll);

impl Wake {
    /// By one of these.
    ///
    /// # Errors
    ///
    /// If the kernel has no room for it.
    pub fn by(rings: [&Ring; 2]) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (number, ring) in (0..).zip(rings) {
            // Edges are wake-ups (man epoll, "Level-triggered and edge-triggered").
            let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            epoll.add(ring, EpollEvent::new(edges, number))?;
        }
        Ok(Self(epoll))
    }

    /// Waits for it, but not longer than that.
    pub fn wait(&self, at_most: Duration) {
        let at_most = EpollTimeout::try_from(at_most).unwrap_or(EpollTimeout::MAX);
        // An interruption by a signal is a wake-up like any other.
        let _ = self.0.wait(&mut [EpollEvent::empty(); 2], at_most);
    }
}
