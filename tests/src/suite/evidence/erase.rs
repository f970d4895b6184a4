//! Values that are to be erased: afterwards they are in no byte of the collector's folder, and everything else still holds.
//!
//! Owns the search, which unpacks what is packed (payloads, pages of Parquet files) and looks for every value of every agent: those that
//! were erased must not be found, all others must. In half of the schedules the collector is killed while it erases.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use prost::Message as _;
use proto::v1::SignedBatch;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::agent::{Agent, Manners};
use super::scene::Collector;
use super::{Sums, deliver};
use crate::record::query_folder;

/// Random bytes of each value.
const VALUE_BYTES: usize = 12;

/// An agent's event.
type Named = (String, u64);

/// One schedule.
///
/// # Errors
/// When it cannot be made.
pub(super) async fn run(seed: u64, sums: &mut Sums) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let folder = super::folder("erase")?;
    let mut collector = Collector::new(folder.path())?;
    let mut agents: Vec<Agent> = (0..2)
        .map(|number| Agent::new(&format!("truth-{number:03}"), seed * 1000 + number))
        .collect();
    // In files, and in memory alone.
    for round in 0..2 {
        collector.start(&[]).await?;
        for agent in &mut agents {
            for number in 0..random.gen_range(4..12) {
                agent.make(random.gen_range(1..30), VALUE_BYTES);
                // Some batches that fill a segment.
                if number % 4 == 0 {
                    agent.make(20, 12_000);
                }
            }
        }
        for agent in &mut agents {
            agent.converse(0, &collector.socket(), Manners::GOOD).await?;
        }
        deliver(&mut collector, &mut agents, sums).await?;
        if round == 0 {
            collector.stop().await?;
        }
    }
    let evidence = collector.data().join("evidence");
    let kept = folder.path().join("kept");
    tokio::time::sleep(Duration::from_millis(60)).await;
    fs::copy(evidence.join("checkpoint"), &kept)?;
    let all: Vec<Named> = agents
        .iter()
        .flat_map(|agent| (1..=agent.events()).map(|seq| (agent.id.clone(), seq)))
        .collect();
    let mut gone = BTreeSet::new();
    let before = prove(&collector, &all, &gone, &mut random, folder.path(), "before")?;
    for _ in 0..random.gen_range(1..4) {
        let count = random.gen_range(1..20);
        let some: Vec<Named> = all.choose_multiple(&mut random, count).cloned().collect();
        let ids: Vec<String> = some.iter().map(|(agent, seq)| format!("{agent}-{seq}")).collect();
        if random.gen_bool(0.5) {
            let moment = Duration::from_micros(random.gen_range(0..40_000));
            killed_while(&mut collector, &ids, moment).await?;
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        erase(&collector, &ids).await?;
        gone.extend(some);
    }
    let removed = match random.gen_bool(0.25) {
        true => retain(&collector, &mut random).await?,
        false => 0,
    };
    // Whoever asks a running collector finds nothing, either.
    let after = prove(&collector, &all, &gone, &mut random, folder.path(), "after")?;
    collector.stop().await?;
    judge(&collector, &agents, (gone, removed), &kept, seed, sums)?;
    for proof in before.iter().chain(&after) {
        sums.proofs += 1;
        let output = Command::new(collector.program())
            .args(["verify", "--proof"])
            .arg(proof)
            .output()?;
        if !output.status.success() {
            sums.unverified += 1;
            sums.say(&[format!(
                "seed {seed}: {} does not hold: {}",
                proof.display(),
                said(&output)
            )]);
        }
    }
    sums.schedules += 1;
    if !sums.is_good() {
        super::keep(folder);
    }
    Ok(())
}

/// Erases events by the command.
///
/// # Errors
/// When it refuses.
pub(super) async fn erase(collector: &Collector, ids: &[&str]) -> Result<()> {
    let output = command(collector, ids).output().await?;
    ensure!(output.status.success(), "erase: {}", said(&output));
    Ok(())
}

fn command(collector: &Collector, ids: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(collector.program());
    command.args(["erase", "--reason", "truth", "--data"]);
    command.arg(collector.data()).arg("--event").args(ids);
    command
}

/// Kills the collector while it erases these, and starts it anew.
async fn killed_while(collector: &mut Collector, ids: &[String], moment: Duration) -> Result<()> {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let asked = command(collector, &ids).output();
    let killed = async {
        tokio::time::sleep(moment).await;
        collector.kill().await
    };
    let (_, killed) = tokio::join!(asked, killed);
    killed?;
    collector.start(&[]).await
}

/// Removes some of the oldest payloads; how many entries are without one now.
async fn retain(collector: &Collector, random: &mut StdRng) -> Result<u64> {
    let sql = "SELECT ts_start FROM events WHERE agent LIKE 'truth-%' ORDER BY ts_start";
    let times = query_folder(collector.program(), &collector.data(), sql)?;
    let time = times.get(random.gen_range(0..times.len().max(1)));
    let time = time.and_then(|row| row.get("ts_start")?.as_str());
    let output = tokio::process::Command::new(collector.program())
        .args([
            "retain",
            "--json",
            "--reason",
            "truth",
            "--before",
            time.context("no event")?,
            "--data",
        ])
        .arg(collector.data())
        .output()
        .await?;
    ensure!(output.status.success(), "retain: {}", said(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    report
        .get("entries")
        .and_then(serde_json::Value::as_u64)
        .context("no entries")
}

/// Proofs of some events that are not gone; of one that is, there must be none.
fn prove(
    collector: &Collector,
    all: &[Named],
    gone: &BTreeSet<Named>,
    random: &mut StdRng,
    folder: &Path,
    when: &str,
) -> Result<Vec<PathBuf>> {
    let mut proofs = Vec::new();
    for (agent, seq) in all.choose_multiple(random, 6) {
        let id = format!("{agent}-{seq}");
        let path = folder.join(format!("{when}-{id}.json"));
        let output = Command::new(collector.program())
            .args(["prove", &id, "--data"])
            .arg(collector.data())
            .arg("--out")
            .arg(&path)
            .output()?;
        let words = said(&output);
        match (output.status.success(), gone.contains(&(agent.clone(), *seq))) {
            (true, false) => proofs.push(path),
            (false, true) if words.contains("was erased") => {}
            // What says that it was erased goes with its payload.
            (false, _) if words.contains("was removed by retention") => {}
            _ => bail!(
                "prove {id}, which is {}erased: {words}",
                if gone.contains(&(agent.clone(), *seq)) {
                    ""
                } else {
                    "not "
                }
            ),
        }
    }
    Ok(proofs)
}

/// Compares the folder with the journals.
fn judge(
    collector: &Collector,
    agents: &[Agent],
    (mut gone, removed): (BTreeSet<Named>, u64),
    kept: &Path,
    seed: u64,
    sums: &mut Sums,
) -> Result<()> {
    let report = collector.verify(
        &collector.data(),
        &["--checkpoint", kept.to_str().context("a path in UTF-8")?],
    )?;
    if report.get("ok").and_then(serde_json::Value::as_bool) != Some(true) {
        sums.unverified += 1;
        sums.say(&[format!(
            "seed {seed}: verify: {}",
            report.get("wrong").unwrap_or(&report)
        )]);
    }
    if removed > 0 {
        gone.extend(removed_events(agents, &collector.data(), removed)?);
    }
    let sql = "SELECT agent, seq FROM events WHERE agent LIKE 'truth-%' ORDER BY agent, seq";
    let rows = query_folder(collector.program(), &collector.data(), sql)?;
    let mut rows: BTreeMap<Named, u64> = rows.iter().fold(BTreeMap::new(), |mut rows, row| {
        let agent = row
            .get("agent")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        let seq = row
            .get("seq")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_default();
        *rows.entry((agent.to_owned(), seq)).or_default() += 1;
        rows
    });
    let haystack = everything(&collector.data())?;
    for agent in agents {
        for (seq, value) in (1..).zip(&agent.values) {
            let named = (agent.id.clone(), seq);
            let (is_gone, shown) = (gone.contains(&named), rows.remove(&named).unwrap_or(0));
            sums.events += 1;
            sums.erased += u64::from(is_gone);
            sums.lost_events += u64::from(!is_gone && shown == 0);
            sums.duplicated += u64::from(shown > u64::from(!is_gone));
            let places = haystack.get(value.get(..2 * VALUE_BYTES).unwrap_or(value));
            match (is_gone, places) {
                (true, Some(places)) => {
                    sums.found += places.len() as u64;
                    sums.say(&[format!("seed {seed}: erased {}-{seq} is in {places:?}", agent.id)]);
                }
                (false, None) => {
                    sums.unseen += 1;
                    sums.say(&[format!("seed {seed}: {}-{seq} is nowhere", agent.id)]);
                }
                _ => {}
            }
        }
    }
    sums.duplicated += rows.len() as u64;
    Ok(())
}

/// Events of the log's first entries, by the headers in the tree's own files.
fn removed_events(agents: &[Agent], data: &Path, removed: u64) -> Result<Vec<Named>> {
    let mut events = Vec::new();
    let mut entry = 0;
    let bundles = data.join("evidence/tile/entries");
    let first = match fs::read(bundles.join("000")) {
        Ok(bytes) => bytes,
        Err(_) => {
            let widest = fs::read_dir(bundles.join("000.p"))?
                .filter_map(|file| file.ok()?.file_name().to_str()?.parse::<u32>().ok())
                .max();
            fs::read(bundles.join(format!("000.p/{}", widest.context("no bundle")?)))?
        }
    };
    let mut rest = first.as_slice();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (bytes, behind) = behind
            .split_at_checked(usize::from(u16::from_be_bytes(*length)))
            .context("an entry without an end")?;
        if entry < removed {
            let header = proto::v1::BatchHeader::decode(SignedBatch::decode(bytes)?.header)?;
            let numbers = header.first_event_seq..header.first_event_seq + u64::from(header.event_count);
            if agents.iter().any(|agent| agent.id == header.agent_id) {
                events.extend(numbers.map(|seq| (header.agent_id.clone(), seq)));
            }
        }
        entry += 1;
        rest = behind;
    }
    ensure!(entry >= removed, "more than one bundle: make fewer batches");
    Ok(events)
}

/// Every run of hexadecimal digits as long as a value, in every byte of a folder, and the files that it is in.
fn everything(data: &Path) -> Result<BTreeMap<String, BTreeSet<PathBuf>>> {
    let mut found: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if !path.is_file() {
                continue;
            }
            for bytes in unpacked(&path)? {
                for run in bytes.split(|byte| !byte.is_ascii_hexdigit()) {
                    // Whatever stands in front of a value may end in such digits: every place counts.
                    for start in 0..=run.len().saturating_sub(2 * VALUE_BYTES) {
                        if let Some(digits) = run.get(start..start + 2 * VALUE_BYTES) {
                            let digits = String::from_utf8_lossy(digits).into_owned();
                            found.entry(digits).or_default().insert(path.clone());
                        }
                        // Of the long ones the beginning is looked for.
                        if start > 64 {
                            break;
                        }
                    }
                }
            }
        }
    }
    Ok(found)
}

/// A file's bytes, and what they unpack to.
fn unpacked(path: &Path) -> Result<Vec<Vec<u8>>> {
    let bytes = fs::read(path)?;
    let mut all = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("seg") => {
            for batch in super::tamper::records(&bytes)? {
                all.push(zstd::stream::decode_all(batch.payload.as_ref())?);
            }
        }
        Some("parquet") => {
            let reader = SerializedFileReader::new(fs::File::open(path)?)?;
            for group in 0..reader.num_row_groups() {
                let group = reader.get_row_group(group)?;
                for column in 0..group.num_columns() {
                    for page in group.get_column_page_reader(column)? {
                        all.push(page?.buffer().to_vec());
                    }
                }
            }
        }
        _ => {}
    }
    all.push(bytes);
    Ok(all)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
