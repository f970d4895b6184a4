//! What is counted of the collector: events taken in, indexed and verified.

use std::path::Path;

use anyhow::Context as _;
use pgwitness_tests::screen::progress;

use super::{AGAIN, Counts, a_piece, instructions, under_valgrind};
use crate::ingest::{Agent, Collector, deliver, tape};

/// Events of the smaller run and of the larger: both more than the store has in memory at once.
const EVENTS: [u64; 2] = [100_000, 300_000];

/// Instructions an event: of all that a collector does from the stream to the sealed file, of the store alone, and of `verify`.
pub(super) async fn count(program: &Path, recordings: &Path, quick: bool) -> anyhow::Result<Counts> {
    let tape = tape(recordings)?;
    let (mut serve, mut rebuild, mut verify) = (Vec::new(), Vec::new(), Vec::new());
    for events in EVENTS {
        let events = if quick { events / 5 } else { events };
        let mut least = (0, u64::MAX);
        let mut last = None;
        for _ in 0..AGAIN {
            let mut agents = vec![Agent::new("bench", &tape, events)?];
            let sent: u64 = agents.iter().map(|agent| agent.events).sum();
            let mut collector = Collector::start_as(under_valgrind(program), program).await?;
            deliver(&collector.socket(), &mut agents, None)
                .await
                .with_context(|| collector.said())?;
            collector.stop().await?;
            least = (sent, least.1.min(instructions(&collector.said())?));
            last = Some(collector);
        }
        let (sent, collector) = (least.0, last.context("nothing was delivered")?);
        serve.push(least);
        for (name, counted) in [("rebuild", &mut rebuild), ("verify", &mut verify)] {
            let output = under_valgrind(program)
                .arg(name)
                .arg("--data")
                .arg(collector.data())
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            anyhow::ensure!(output.status.success(), "{name}: {said}");
            counted.push((sent, instructions(&said)?));
        }
    }
    let mut counts = Counts::new();
    for (name, counted) in [
        ("collector: an event from the stream into log and store", serve),
        (
            "collector: rebuild, an event from the log into the store",
            rebuild,
        ),
        ("collector: verify, an event", verify),
    ] {
        let [less, more] = counted.as_slice() else {
            continue;
        };
        let count = a_piece(*less, *more);
        progress(&format!("{name}: {count:.0} instructions"));
        counts.insert(name.to_owned(), count);
    }
    Ok(counts)
}
