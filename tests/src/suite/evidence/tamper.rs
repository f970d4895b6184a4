//! Somebody changes the record: bits, files, records, signatures, the whole folder. Each change has to be found and named.
//!
//! Owns the tries. The log that is changed is one that a real collector wrote; what finds the change is `verify`, with public keys alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use ed25519_dalek::{Signer as _, SigningKey};
use prost::Message as _;
use proto::v1::{BatchHeader, SignedBatch};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::agent::{Agent, Manners};
use super::erase::erase;
use super::scene::Collector;
use super::{Sums, deliver};

/// A log to change, and what was kept of it elsewhere.
pub(super) struct Victim {
    folder: tempfile::TempDir,
    collector: Collector,
    agents: Vec<Agent>,
    /// The same log, some batches earlier.
    earlier: PathBuf,
    /// Its newest checkpoint, kept elsewhere.
    checkpoint: PathBuf,
}

impl Victim {
    /// A collector's folder with several agents and segments, stopped in order.
    pub(super) async fn make(seed: u64, sums: &mut Sums) -> Result<Self> {
        let folder = super::folder("tamper")?;
        let mut collector = Collector::new(folder.path())?;
        let mut agents: Vec<Agent> = (0..3)
            .map(|number| Agent::new(&format!("truth-{number:03}"), seed * 1000 + number))
            .collect();
        let earlier = folder.path().join("earlier");
        for round in 0..2 {
            for agent in &mut agents {
                for number in 0..12 {
                    agent.make(6, if number % 4 == 0 { 20_000 } else { 60 });
                }
            }
            collector.start(&[]).await?;
            let socket = collector.socket();
            _ = futures::future::join_all(
                agents
                    .iter_mut()
                    .map(|agent| agent.converse(0, &socket, Manners::GOOD)),
            )
            .await;
            deliver(&mut collector, &mut agents, sums).await?;
            // A log that has lost something by its own word is to be changed no more unseen than any other.
            erase(&collector, &["truth-000-3", "truth-001-80", "truth-002-5"]).await?;
            collector.stop().await?;
            if round == 0 {
                copy(&collector.data().join("evidence"), &earlier.join("evidence"))?;
            }
        }
        let checkpoint = folder.path().join("kept");
        fs::copy(collector.data().join("evidence/checkpoint"), &checkpoint)?;
        let victim = Self {
            folder,
            collector,
            agents,
            earlier,
            checkpoint,
        };
        ensure!(
            victim.finds(&victim.collector.data())?.is_none(),
            "what nobody changed does not verify"
        );
        Ok(victim)
    }

    /// What `verify` says is wrong.
    fn finds(&self, data: &Path) -> Result<Option<(String, String)>> {
        let checkpoint = self.checkpoint.to_str().context("a path in UTF-8")?;
        let report = self.collector.verify(data, &["--checkpoint", checkpoint])?;
        if report.get("ok").and_then(serde_json::Value::as_bool) == Some(true) {
            // Bytes behind the newest record that are none yet may be a crash's as well: `verify` tells them, and nothing counts.
            let unfinished = report.get("unfinished_bytes").and_then(serde_json::Value::as_u64);
            return Ok(unfinished
                .filter(|bytes| *bytes > 0)
                .map(|_| (String::new(), String::new())));
        }
        let of = |name: &str| {
            report
                .pointer(name)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Ok(Some((of("/wrong/file"), of("/wrong/what"))))
    }

    /// So many changes, each made to the same folder and taken back.
    pub(super) fn tries(
        &self,
        seed: u64,
        count: u64,
        sums: &mut Sums,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut random = StdRng::seed_from_u64(seed);
        let work = self.folder.path().join(format!("work-{seed}"));
        let evidence = work.join("evidence");
        let whole = self.collector.data().join("evidence");
        copy(&whole, &evidence)?;
        for number in 0..count {
            if stop() {
                break;
            }
            let change = change(number);
            let Some(touched) = self.make_change(change, &evidence, &mut random)? else {
                continue;
            };
            sums.tamperings += 1;
            match self.finds(&work)? {
                None => {
                    sums.undetected += 1;
                    sums.say(&[format!(
                        "NOT FOUND: {change:?} of {touched:?} (seed {seed}, try {number})"
                    )]);
                    copy(
                        &evidence,
                        &std::env::temp_dir().join(format!("pgwitness-undetected-{seed}-{number}")),
                    )?;
                }
                Some((file, what)) => {
                    let named =
                        touched.is_empty() || touched.iter().any(|one| *one == file || says(&what, one));
                    sums.named += u64::from(named && !what.is_empty());
                    if !named || what.is_empty() {
                        sums.elsewhere
                            .push(format!("{change:?} of {touched:?} is found in {file}: {what}"));
                    }
                }
            }
            restore(&whole, &evidence)?;
        }
        fs::remove_dir_all(work)?;
        Ok(())
    }

    /// Makes one change; the files that were touched, or `None` where there was nothing to change.
    fn make_change(
        &self,
        change: Change,
        evidence: &Path,
        random: &mut StdRng,
    ) -> Result<Option<Vec<String>>> {
        let files = files(evidence)?;
        let Some(file) = files.choose(random) else {
            return Ok(None);
        };
        let name = |path: &Path| path.strip_prefix(evidence).unwrap_or(path).display().to_string();
        let mut bytes = fs::read(file)?;
        let at = if bytes.is_empty() {
            return Ok(None);
        } else {
            random.gen_range(0..bytes.len())
        };
        let touched = match change {
            Change::Bit => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.gen_range(0..8);
                }
                fs::write(file, bytes)?;
                vec![name(file)]
            }
            Change::Cut => {
                bytes.truncate(at);
                fs::write(file, bytes)?;
                vec![name(file)]
            }
            Change::Longer => {
                bytes.extend((0..random.gen_range(1..200)).map(|_| random.r#gen::<u8>()));
                fs::write(file, bytes)?;
                vec![name(file)]
            }
            Change::Hole => {
                let until = (at + random.gen_range(1..2000)).min(bytes.len());
                let hole = bytes.get_mut(at..until).unwrap_or_default();
                if hole.iter().all(|byte| *byte == 0) {
                    return Ok(None);
                }
                hole.fill(0);
                fs::write(file, bytes)?;
                vec![name(file)]
            }
            Change::Removed => {
                if !counts(&name(file), &files, evidence) {
                    return Ok(None);
                }
                fs::remove_file(file)?;
                vec![name(file)]
            }
            Change::Swapped => {
                let Some(other) = files.choose(random) else {
                    return Ok(None);
                };
                let others = fs::read(other)?;
                if others == bytes {
                    return Ok(None);
                }
                fs::write(file, others)?;
                fs::write(other, bytes)?;
                vec![name(file), name(other)]
            }
            Change::Records | Change::Signed | Change::Invented => {
                let segments: Vec<&PathBuf> = files
                    .iter()
                    .filter(|file| name(file).starts_with("payload"))
                    .collect();
                let Some(segment) = segments.choose(random) else {
                    return Ok(None);
                };
                let mut records = records(&fs::read(segment)?)?;
                match change {
                    Change::Records => reorder(&mut records, random),
                    Change::Signed => self.sign_again(&mut records, random)?,
                    _ => self.invent(&mut records, random),
                }
                fs::write(segment, records.iter().flat_map(framed).collect::<Vec<u8>>())?;
                Vec::new()
            }
            Change::Rolled => {
                fs::remove_dir_all(evidence)?;
                copy(&self.earlier.join("evidence"), evidence)?;
                Vec::new()
            }
        };
        Ok(Some(touched))
    }

    /// Other contents in a batch, signed with the agent's own key, as whoever stole it would.
    fn sign_again(&self, records: &mut [SignedBatch], random: &mut StdRng) -> Result<()> {
        let Some(batch) = records.choose_mut(random) else {
            return Ok(());
        };
        let mut header = BatchHeader::decode(batch.header.clone())?;
        let agent = self.agents.iter().find(|agent| agent.id == header.agent_id);
        let other = SigningKey::from_bytes(&[7; 32]);
        let key = match agent {
            Some(agent) if random.gen_bool(0.5) => agent.key(),
            _ => &other,
        };
        match random.gen_range(0..4) {
            0 => header.last_ns += 1,
            1 => header.event_count = header.event_count.saturating_sub(1),
            2 => header.sequence += 1,
            _ => header.previous = vec![9; 32],
        }
        batch.header = header.encode_to_vec().into();
        let signed = [evidence::BATCH_SIGNATURE_CONTEXT, &batch.header].concat();
        batch.signature = key.sign(&signed).to_bytes().to_vec().into();
        Ok(())
    }

    /// A batch more at the end, with a signature that holds: the agent's next.
    fn invent(&self, records: &mut Vec<SignedBatch>, random: &mut StdRng) {
        let Some(agent) = self.agents.choose(random) else {
            return;
        };
        let mut agent = agent.clone();
        agent.make(3, 10);
        let Some(made) = agent.made.last() else { return };
        let at = random.gen_range(0..records.len().max(1));
        records.insert(at, made.batch.clone());
    }
}

/// What somebody may do to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Bit,
    Cut,
    Longer,
    Hole,
    Removed,
    Swapped,
    /// Whole records taken out, put twice, or in another order, every checksum right.
    Records,
    /// Another header under a signature that holds, or under another key's.
    Signed,
    /// A batch that the agent never sent, in the middle.
    Invented,
    /// The whole folder as it was before.
    Rolled,
}

/// Half of all tries change single bits; a rollback of the whole is always the same.
fn change(number: u64) -> Change {
    use Change::{Bit, Cut, Hole, Invented, Longer, Records, Removed, Rolled, Signed, Swapped};
    const ROUND: [Change; 16] = [
        Bit, Cut, Bit, Longer, Bit, Hole, Bit, Removed, Bit, Swapped, Bit, Records, Bit, Signed, Bit,
        Invented,
    ];
    if number == 0 {
        return Rolled;
    }
    ROUND
        .get(usize::try_from(number).unwrap_or(0) % ROUND.len())
        .copied()
        .unwrap_or(Bit)
}

/// Whether words tell of a file that is not there: by its name without folder and ending, or the number that it is.
fn says(what: &str, file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let stem = name.split('.').next().unwrap_or(name);
    let number = stem.parse::<u64>().map(|number| number.to_string());
    what.contains(stem) || number.is_ok_and(|number| what.split(' ').any(|word| word == number))
}

/// Whether the record is less without a file. A partial tile may go when a larger one is there (C2SP tlog-tiles: nothing is proved
/// by it any more), and so may the key of an agent of which nothing is recorded.
fn counts(name: &str, files: &[PathBuf], evidence: &Path) -> bool {
    if let Some((folder, width)) = name.rsplit_once('/').filter(|(folder, _)| folder.ends_with(".p")) {
        let width: u64 = width.parse().unwrap_or(0);
        let of = |file: &PathBuf| -> Option<u64> {
            file.strip_prefix(evidence.join(folder))
                .ok()?
                .to_str()?
                .parse()
                .ok()
        };
        return !files.iter().filter_map(of).any(|other| other > width);
    }
    !name.starts_with("agents/collector-")
}

fn reorder(records: &mut Vec<SignedBatch>, random: &mut StdRng) {
    if records.is_empty() {
        return;
    }
    let (one, other) = (
        random.gen_range(0..records.len()),
        random.gen_range(0..records.len()),
    );
    match random.gen_range(0..3) {
        0 => _ = records.remove(one),
        1 => {
            let again = records.get(one).cloned();
            records.extend(again);
        }
        _ if one != other => records.swap(one, other),
        _ => _ = records.remove(one),
    }
}

/// The records of a segment: length, two checksums, body.
pub(super) fn records(mut bytes: &[u8]) -> Result<Vec<SignedBatch>> {
    let mut all = Vec::new();
    while let Some((frame, rest)) = bytes.split_first_chunk::<12>() {
        let [a, b, c, d, ..] = *frame;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
        let (body, rest) = rest.split_at_checked(length).context("a record without an end")?;
        all.push(SignedBatch::decode(body)?);
        bytes = rest;
    }
    Ok(all)
}

fn framed(batch: &SignedBatch) -> Vec<u8> {
    let body = batch.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let checks = [
        crc32fast::hash(&length).to_be_bytes(),
        crc32fast::hash(&body).to_be_bytes(),
    ]
    .concat();
    [&length[..], &checks, &body].concat()
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                all.push(path);
            }
        }
    }
    all.sort();
    Ok(all)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        let target = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(target.parent().context("no folder")?)?;
        fs::copy(&file, &target)?;
    }
    Ok(())
}

/// Makes a changed folder what it was.
fn restore(whole: &Path, changed: &Path) -> Result<()> {
    for file in files(changed)? {
        if !whole.join(file.strip_prefix(changed)?).exists() {
            fs::remove_file(file)?;
        }
    }
    for file in files(whole)? {
        let target = changed.join(file.strip_prefix(whole)?);
        if fs::read(&target).ok() != Some(fs::read(&file)?) {
            fs::create_dir_all(target.parent().context("no folder")?)?;
            fs::copy(&file, &target)?;
        }
    }
    Ok(())
}
