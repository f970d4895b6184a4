//! Work that nobody waits for, in a thread that gives way to everything else.
//!
//! Owns how far it gives way. On a machine whose processors are all at work, a thread of this priority gets a seventieth of what another
//! one gets, and on one that has time all that it can use: what is long and only makes answers shorter may go on while events come
//! as fast as they can.

use std::thread;

use anyhow::Context;
use tokio::{runtime, sync::oneshot};

/// Of the kernel's -20 to 19 ("sched(7), The nice value"): a weight of 15, where other threads have 1,024. With 10, which is a weight of
/// 110, it still took a fifth of two processors from threads that often wait for each other.
const NICE: i32 = 19;

/// Runs it to its end; it ends early if nobody waits for it any more.
///
/// # Errors
///
/// If there can be no such thread, or it panics.
pub(super) async fn run<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> anyhow::Result<T> {
    let (mut done, awaited) = oneshot::channel();
    let give_way = move || {
        // Where that is refused it is a thread like the others.
        _ = rustix::process::setpriority_process(None, NICE);
    };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(give_way)
        .build()?;
    let thread = thread::Builder::new().name("background".to_owned());
    thread.spawn(move || {
        give_way();
        runtime.block_on(async move {
            tokio::select! {
                made = work => {
                    _ = done.send(made);
                }
                () = done.closed() => {}
            }
        });
    })?;
    awaited.await.context("the thread for it panicked")
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use super::*;

    /// Of the calling thread.
    fn nice() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[tokio::test]
    async fn what_runs_there_gives_way_and_its_blocking_calls_too() {
        let own = nice();
        let both = run(async { (nice(), tokio::task::spawn_blocking(nice).await.unwrap()) });
        assert_eq!(both.await.unwrap(), (NICE, NICE));
        assert_eq!(nice(), own, "whoever waits is as it was");
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let failed = run(async { assert_eq!(1, 2, "on purpose") });
        assert!(failed.await.is_err());
    }

    #[tokio::test]
    async fn nobody_waits_and_it_ends() {
        let held = Arc::new(());
        let holds = Arc::clone(&held);
        let work = run(async move {
            std::future::pending::<()>().await;
            drop(holds);
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(50), work)
                .await
                .is_err()
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        while Arc::strong_count(&held) > 1 {
            assert!(Instant::now() < deadline, "it goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
