//! Names of users, asked for in a thread of its own: a directory service can take seconds, and runs code that is not ours.
//!
//! The thread holds no capability, and nobody waits for it for long: a name that it does not have yet is asked for again.

use std::{
    collections::HashMap,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{confine, facts::container};

/// For a file this is plenty, and for a directory service it is too little anyway.
const PATIENCE: Duration = Duration::from_millis(20);

/// Names that are kept; beyond, they are asked for anew.
const NAMES: usize = 4096;

/// The thread, and what it said.
pub(super) struct Names {
    ask: Sender<u32>,
    said: Receiver<(u32, Option<String>)>,
    known: HashMap<u32, Option<String>>,
    /// Who is being asked for.
    awaited: Option<u32>,
}

impl Names {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(super) fn start() -> anyhow::Result<Self> {
        let (ask, asked) = mpsc::channel();
        let (say, said) = mpsc::channel();
        // In a container the system's own tables are the image's.
        let host = container::etc();
        thread::Builder::new()
            .name("names".to_owned())
            .spawn(move || {
                if let Err(problem) = confine::capabilities() {
                    return tracing::warn!("no user is named: {problem:#}");
                }
                for uid in asked {
                    let name = match &host {
                        Some(etc) => container::user(etc, uid),
                        None => user(uid),
                    };
                    if say.send((uid, name)).is_err() {
                        return;
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(Self {
            ask,
            said,
            known: HashMap::new(),
            awaited: None,
        })
    }

    /// The name of a user, if it has one; `None` if that is not known yet.
    pub(super) fn of(&mut self, uid: u32) -> Option<Option<String>> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(known) = self.known.get(&uid) {
                return Some(known.clone());
            }
            if self.awaited.is_none() {
                self.ask.send(uid).ok()?;
                self.awaited = Some(uid);
            }
            let left = until.saturating_duration_since(Instant::now());
            let (said, name) = self.said.recv_timeout(left).ok()?;
            self.awaited = None;
            if self.known.len() >= NAMES {
                self.known.clear();
            }
            self.known.insert(said, name);
        }
    }
}

fn user(uid: u32) -> Option<String> {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map(|user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_once_they_are_known() {
        let mut names = Names::start().expect("a thread");
        let until = Instant::now() + Duration::from_secs(10);
        let mut of = |uid| loop {
            if let Some(name) = names.of(uid) {
                return name;
            }
            assert!(Instant::now() < until, "a file is read in less");
        };
        assert_eq!(of(0).as_deref(), Some("root"));
        assert_eq!(of(u32::MAX - 1), None);
    }
}
