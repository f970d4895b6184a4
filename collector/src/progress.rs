//! What is said while something takes its time: a line each second on a terminal, and nothing where it takes less.
//!
//! Owns where it is said: on standard error, and only if somebody is looking, so that programs read of it what went wrong alone.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

/// Tells how far something came, once a second at most.
#[derive(Debug)]
pub(crate) struct Progress {
    said: Instant,
    is_seen: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            said: Instant::now(),
            is_seen: std::io::stderr().is_terminal(),
        }
    }
}

impl Progress {
    /// Says it, if it is time to.
    pub(crate) fn tell(&mut self, so_far: impl FnOnce() -> String) {
        if self.is_seen && self.said.elapsed() >= EACH {
            self.said = Instant::now();
            eprintln!("{}", so_far());
        }
    }
}

/// Waits for `work`, and says so each second: `what`, and for how long.
pub(crate) async fn told<T>(what: &str, work: impl Future<Output = T>) -> T {
    let (began, mut progress) = (Instant::now(), Progress::default());
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(EACH, &mut work).await {
            Ok(done) => return done,
            Err(_) => progress.tell(|| format!("{what}: {} s", began.elapsed().as_secs())),
        }
    }
}

const EACH: Duration = Duration::from_secs(1);
