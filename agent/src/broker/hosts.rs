//! Addresses of the collector's host, looked up in a thread of its own: a name server can take long, and what parses may ask nobody.
//!
//! Only the name that is in the configuration is looked up: whoever asks cannot choose one. The thread holds no capability.

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
    ask: Sender<()>,
    found: Arc<Mutex<Vec<IpAddr>>>,
    asked: Option<Instant>,
}

impl Hosts {
    /// Starts the thread for this name; none is needed without one.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(super) fn start(name: Option<String>) -> anyhow::Result<Option<Self>> {
        let Some(name) = name else { return Ok(None) };
        let (ask, asked) = mpsc::channel();
        let found = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&found);
        thread::Builder::new()
            .name("hosts".to_owned())
            .spawn(move || {
                if let Err(problem) = confine::capabilities() {
                    return tracing::warn!("the collector's name is not looked up: {problem:#}");
                }
                for () in asked {
                    // What was found before is better than nothing.
                    if let Ok(addresses) = (name.as_str(), 1).to_socket_addrs() {
                        let mut addresses: Vec<IpAddr> = addresses.map(|address| address.ip()).collect();
                        addresses.truncate(ADDRESSES);
                        *kept.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
                    }
                }
            })
            .context("cannot start a thread")?;
        let mut hosts = Self {
            ask,
            found,
            asked: None,
        };
        hosts.addresses();
        Ok(Some(hosts))
    }

    /// What is known by now; it is looked up again, for the next time.
    pub(super) fn addresses(&mut self) -> Vec<IpAddr> {
        if self.asked.is_none_or(|asked| asked.elapsed() >= FRESH) {
            self.asked = Some(Instant::now());
            // Without the thread nothing more is found.
            let _ = self.ask.send(());
        }
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_this_host_is_found() {
        let mut hosts = Hosts::start(Some("localhost".to_owned()))
            .expect("started")
            .expect("there");
        let until = Instant::now() + Duration::from_secs(10);
        while hosts.addresses().is_empty() {
            assert!(Instant::now() < until, "a file is read in less");
            thread::sleep(Duration::from_millis(10));
        }
        assert!(hosts.addresses().iter().all(IpAddr::is_loopback));
    }
}
