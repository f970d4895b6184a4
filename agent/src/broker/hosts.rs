//! Addresses of the collectors' hosts, looked up in a thread of its own: a name server can take long, and what parses may ask nobody.
//!
//! Only the names that are in the configuration are looked up: whoever asks cannot choose another. The thread holds no capability.

use std::{
    net::{IpAddr, ToSocketAddrs as _},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::confine;

/// How long an answer is good for. It is asked for when a connection is made.
const FRESH: Duration = Duration::from_secs(10);

/// Addresses that are handed on.
const ADDRESSES: usize = 16;

/// The thread, and what it found.
pub(super) struct Hosts {
    ask: Sender<usize>,
    found: Arc<Mutex<Vec<Vec<IpAddr>>>>,
    asked: Vec<Option<Instant>>,
}

impl Hosts {
    /// Starts the thread for these names, by the places of their collectors; none is needed without any.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(super) fn start(names: Vec<Option<String>>) -> anyhow::Result<Option<Self>> {
        if names.iter().flatten().next().is_none() {
            return Ok(None);
        }
        let count = names.len();
        let (ask, asked) = mpsc::channel::<usize>();
        let found = Arc::new(Mutex::new(vec![Vec::new(); count]));
        let kept = Arc::clone(&found);
        thread::Builder::new()
            .name("hosts".to_owned())
            .spawn(move || {
                if let Err(problem) = confine::capabilities() {
                    return tracing::warn!("collectors' names are not looked up: {problem:#}");
                }
                for nth in asked {
                    let Some(Some(name)) = names.get(nth) else {
                        continue;
                    };
                    // What was found before is better than nothing.
                    if let Ok(addresses) = (name.as_str(), 1).to_socket_addrs() {
                        let mut addresses: Vec<IpAddr> = addresses.map(|address| address.ip()).collect();
                        addresses.truncate(ADDRESSES);
                        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(kept) = kept.get_mut(nth) {
                            *kept = addresses;
                        }
                    }
                }
            })
            .context("cannot start a thread")?;
        let mut hosts = Self {
            ask,
            found,
            asked: vec![None; count],
        };
        for nth in 0..count {
            hosts.addresses(nth);
        }
        Ok(Some(hosts))
    }

    /// What is known by now of the one at this place; it is looked up again, for the next time.
    pub(super) fn addresses(&mut self, nth: usize) -> Vec<IpAddr> {
        let Some(asked) = self.asked.get_mut(nth) else {
            return Vec::new();
        };
        if asked.is_none_or(|asked| asked.elapsed() >= FRESH) {
            *asked = Some(Instant::now());
            // Without the thread nothing more is found.
            let _ = self.ask.send(nth);
        }
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(nth).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_this_host_is_found() {
        assert!(Hosts::start(vec![None]).expect("nothing to do").is_none());
        let mut hosts = Hosts::start(vec![None, Some("localhost".to_owned())])
            .expect("started")
            .expect("there");
        let until = Instant::now() + Duration::from_secs(10);
        while hosts.addresses(1).is_empty() {
            assert!(Instant::now() < until, "a file is read in less");
            thread::sleep(Duration::from_millis(10));
        }
        assert!(hosts.addresses(1).iter().all(IpAddr::is_loopback));
        assert!(hosts.addresses(0).is_empty() && hosts.addresses(2).is_empty());
    }
}
