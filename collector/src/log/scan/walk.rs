//! The way through a log: one pass over its records, in their order.
//!
//! Owns what needs the order: chains, tree, tiles, checkpoints. Batches are handed to `workers` as they are read and taken
//! back in the same order.

mod backups;
mod gone;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fs,
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    thread::Scope,
};

use evidence::{Seal, log_entry};
use prost::Message;
use proto::v1::{BatchHeader, SignedBatch};

use super::{
    Ask, Depth, Elsewhere, Known, Progress, Restored, Scanned, State, Torn, Wrong,
    removed::Finds,
    workers::{Answer, Checked, How, Workers},
};
use crate::log::{
    folder,
    frame::{Next, SegmentReader},
    originator::may_be_own,
    tiles::TileFiles,
};

/// Batches that are with the workers, for each of them. More cost memory alone.
const AHEAD: usize = 3;

pub(super) struct Walk<'a> {
    ask: Ask<'a>,
    /// The collector's own chain.
    own: Option<String>,
    tiles: TileFiles,
    /// Checkpoints that the log must contain, by what to call them.
    known: Vec<Known>,
    /// How many of `done.unwritten` were compared with their files.
    compared: usize,
    /// From which batches on keys count that batches announced, by agent.
    announced: HashMap<String, BTreeSet<u64>>,
    workers: Workers,
    /// Handed out and not taken back, in log order.
    ahead: VecDeque<Ahead>,
    /// Payloads that lost something, and what was said of that.
    finds: Finds,
    /// As it was found at the end.
    said_to_begin: u64,
    progress: Progress,
    done: Scanned,
}

/// A batch that is being checked.
struct Ahead {
    segment: Arc<str>,
    offset: u64,
    /// Where the record ends.
    end: u64,
    /// What the tree has of it.
    entry: Vec<u8>,
    answer: Answer,
}

impl<'a> Walk<'a> {
    pub(super) fn new<'scope>(
        ask: Ask<'a>,
        own: Option<String>,
        tiles: TileFiles,
        known: Vec<Known>,
        done: Scanned,
        scope: &'scope Scope<'scope, '_>,
    ) -> Self {
        Self {
            workers: Workers::start(ask.threads, scope),
            ask,
            own,
            tiles,
            known,
            compared: 0,
            announced: HashMap::new(),
            ahead: VecDeque::new(),
            finds: Finds::default(),
            said_to_begin: 0,
            progress: Progress::begin(Path::new("")),
            done,
        }
    }

    pub(super) fn run(mut self, evidence: &Path) -> Result<Scanned, Wrong> {
        self.progress = Progress::begin(evidence);
        let of_another = |state: &State| state.verifier_key != self.done.origin.verifier_key;
        if self.ask.state.as_ref().is_some_and(of_another) {
            return Err(Wrong::new(
                "origin",
                None,
                "the state of the earlier run is of another log",
            ));
        }
        if let Some(state) = &self.ask.state {
            self.done.restored.clone_from(&state.restored);
        }
        self.at_size()?;
        self.segments(evidence)?;
        self.finish()
    }

    fn segments(&mut self, evidence: &Path) -> Result<(), Wrong> {
        let segments =
            folder::segments(evidence).map_err(|error| Wrong::new("payload", None, format!("{error:#}")))?;
        let count = segments.len();
        if let Some((begins, _)) = segments.first().filter(|(begins, _)| *begins > 0) {
            self.without_payload(evidence, *begins)?;
        }
        for (nth, (first, path)) in segments.into_iter().enumerate() {
            let name = format!("payload/{}", folder::segment_name(first));
            let next = self.next_entry();
            if first != next {
                self.settle_all()?;
                let what = format!("expected the segment that begins at entry {next}");
                return Err(Wrong::new(name, None, what));
            }
            self.segment(&name, &path, nth + 1 == count)?;
        }
        self.settle_all()
    }

    fn segment(&mut self, name: &str, path: &Path, newest: bool) -> Result<(), Wrong> {
        let segment: Arc<str> = name.into();
        let broken = |offset, what: String| Wrong::new(name, offset, what);
        let mut reader = SegmentReader::open(path).map_err(|error| broken(None, error.to_string()))?;
        loop {
            let (at, entry) = (reader.offset, self.next_entry());
            let earlier = self.ask.state.as_ref().is_some_and(|state| entry < state.size);
            let next = match earlier {
                true => reader.read_head(),
                false => reader.read(),
            };
            let next = next.map_err(|error| broken(Some(at), error.to_string()).of_entry(entry));
            match next {
                Ok(Next::Record { batch }) => {
                    let ahead = Ahead {
                        segment: Arc::clone(&segment),
                        offset: at,
                        end: reader.offset,
                        entry: log_entry(&batch),
                        answer: self.hand_out(batch, entry, earlier, true),
                    };
                    self.ahead.push_back(ahead);
                    while self.ahead.len() > AHEAD * self.ask.threads {
                        self.settle()?;
                    }
                }
                Ok(Next::End) => break,
                Ok(Next::Torn) if newest && entry >= self.done.checkpoint.size => {
                    let length = fs::metadata(path).map_err(|error| broken(Some(at), error.to_string()))?;
                    self.done.torn = Some(Torn {
                        path: path.to_owned(),
                        offset: at,
                        bytes: length.len().saturating_sub(at),
                    });
                    break;
                }
                // What stands before it may be wrong as well.
                Ok(Next::Torn) => {
                    self.settle_all()?;
                    let what = "expected a whole record, the file ends inside it".to_owned();
                    return Err(broken(Some(at), what).of_entry(entry));
                }
                Ok(Next::Damaged(what)) => {
                    self.settle_all()?;
                    return Err(broken(Some(at), what).of_entry(entry));
                }
                Err(wrong) => {
                    self.settle_all()?;
                    return Err(wrong);
                }
            }
        }
        self.done.newest_segment = Some((path.to_owned(), reader.offset));
        Ok(())
    }

    /// The entry that is read next.
    fn next_entry(&self) -> u64 {
        self.done.tiling.size() + self.ahead.len() as u64
    }

    /// Has a batch checked as far as it has to be, and can.
    fn hand_out(&mut self, batch: SignedBatch, entry: u64, earlier: bool, payload: bool) -> Answer {
        let Ok(claimed) = BatchHeader::decode(batch.header.clone()) else {
            return Answer::now(Err("the header is malformed".to_owned()));
        };
        let Some(keys) = self.done.keys.get_mut(&claimed.agent_id) else {
            let what = format!("no key of agent {:?} is in agents/", claimed.agent_id);
            return Answer::now(Err(what));
        };
        let key = *keys.of(claimed.sequence);
        if !claimed.next_key.is_empty() {
            // Believed before it is checked: if it does not hold, nothing behind it counts.
            if let Err(what) = keys.follow(&claimed) {
                return Answer::now(Err(what));
            }
            let announced = self.announced.entry(claimed.agent_id.clone()).or_default();
            announced.insert(claimed.sequence.saturating_add(1));
        }
        if earlier {
            self.done.checked_earlier += 1;
            let amending = self.ask.state.as_ref().map(|state| state.amending.as_slice());
            let amends = amending.is_some_and(|amending| amending.binary_search(&entry).is_ok());
            let seal = Seal {
                header_hash: evidence::header_hash(&batch.header),
                header: claimed,
            };
            return Answer::now(Ok(Checked::sealed(seal, amends)));
        }
        let below = self.ask.depth == Depth::Digests && entry < self.done.checkpoint.size;
        let how = How {
            signed: !below,
            payload,
            said: may_be_own(&claimed.agent_id),
        };
        self.workers.check(batch, key, claimed, how)
    }

    fn settle_all(&mut self) -> Result<(), Wrong> {
        while !self.ahead.is_empty() {
            self.settle()?;
        }
        Ok(())
    }

    /// Takes the first batch back, and adds it to chain and tree.
    fn settle(&mut self) -> Result<(), Wrong> {
        let Some(ahead) = self.ahead.pop_front() else {
            return Ok(());
        };
        let entry = self.done.tiling.size();
        let segment = Arc::clone(&ahead.segment);
        let wrong = |what: String| Wrong::new(&*segment, Some(ahead.offset), what).of_entry(entry);
        let mut checked = ahead.answer.wait().map_err(wrong)?;
        let header = &checked.seal.header;
        if let Some(reduced) = checked.reduced.take() {
            self.finds
                .reduced(entry, reduced, header, (&segment, ahead.offset));
        }
        self.finds
            .say(&header.agent_id, entry, std::mem::take(&mut checked.words));
        self.follow(checked, entry).map_err(wrong)?;
        let Scanned {
            tiling, unwritten, ..
        } = &mut self.done;
        tiling
            .push(&ahead.entry, unwritten)
            .map_err(|error| wrong(error.to_string()))?;
        self.progress.batches += 1;
        self.progress.bytes += ahead.end - ahead.offset;
        self.completed_tiles()?;
        self.at_size()?;
        match self.progress.is_due() {
            true => self.tell(),
            false => Ok(()),
        }
    }

    /// Checks that a batch follows in its agent's chain.
    fn follow(&mut self, checked: Checked, entry: u64) -> Result<(), String> {
        if let Some(restored) = &checked.restored
            && checked.seal.header.first_event_seq == 1
        {
            self.restored(&checked.seal.header.agent_id, restored, entry)?;
        }
        let Seal { header, header_hash } = checked.seal;
        let agent = self.done.agents.entry(header.agent_id.clone()).or_default();
        let next = agent.tip.sequence.saturating_add(1);
        let tip = agent.tip.follow_or_leap(&header, header_hash);
        let tip = tip.map_err(|broken| broken.to_string())?;
        if header.sequence > next {
            self.done.elsewhere.push(Elsewhere {
                agent_id: header.agent_id.clone(),
                from: next,
                to: header.sequence - 1,
                entry,
                given_up: false,
            });
        }
        self.done.events += u64::from(header.event_count);
        self.progress.events += u64::from(header.event_count);
        if self.ask.depth == Depth::Events {
            self.done.contents.add(entry, &header, checked.amends);
        }
        if self.ask.links
            && let Some(keys) = self.done.keys.get(&header.agent_id)
        {
            let key = *keys.of(header.sequence);
            self.done.contents.link(entry, &header, header_hash, key);
        }
        agent.advance(tip, header);
        Ok(())
    }

    /// Compares the tiles that the newest record completed with their files.
    fn completed_tiles(&mut self) -> Result<(), Wrong> {
        let below = self.done.tiling.size() <= self.done.checkpoint.size;
        let completed = self.done.unwritten.len() - self.compared;
        for tile in self.done.unwritten.iter().rev().take(completed) {
            self.tiles.full(tile, below)?;
        }
        if below {
            self.done.unwritten.clear();
        }
        self.compared = self.done.unwritten.len();
        Ok(())
    }

    /// Compares the tree with the checkpoints that are of its size.
    fn at_size(&mut self) -> Result<(), Wrong> {
        let (tiling, checkpoint) = (&self.done.tiling, &self.done.checkpoint);
        let size = tiling.size();
        let known = self.known.iter().any(|known| known.checkpoint.size == size);
        let earlier = self.ask.state.as_ref().filter(|state| state.size == size);
        if size != checkpoint.size && !known && earlier.is_none() {
            return Ok(());
        }
        let root = tiling.root();
        if size == checkpoint.size {
            if root != checkpoint.root {
                let what = "its root is not the one of the batches in payload/";
                return Err(Wrong::new("checkpoint", None, what));
            }
            self.tiles.require(&tiling.partial())?;
        }
        for known in self
            .known
            .iter_mut()
            .filter(|known| known.checkpoint.size == size)
        {
            known.found = Some(root);
            // Of one that says to be of another log, it is to be seen first whether that matters here.
            if known.foreign.is_none() && known.checkpoint.root != root {
                return Err(known.another_history());
            }
        }
        if earlier.is_some_and(|state| !state.is_root(&root)) {
            let what = format!("the log's first {size} entries are not those that the earlier run checked");
            return Err(Wrong::new("payload", None, what));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Scanned, Wrong> {
        let (size, expected) = (self.done.tiling.size(), self.done.checkpoint.size);
        if size < expected {
            let what = format!("{size} batches are there, the checkpoint has {expected}");
            return Err(Wrong::new("payload", None, what));
        }
        let state = self
            .ask
            .state
            .as_ref()
            .map(|state| ("the earlier run", state.size));
        let own = self.predecessors();
        self.removals(&own)?;
        for known in &self.known {
            known.is_of_backup(&self.done.origin, &self.done.restored)?;
        }
        let known = self
            .known
            .iter()
            .map(|known| (known.name.as_str(), known.checkpoint.size));
        if let Some((name, more)) = known.chain(state).find(|(_, known)| *known > size) {
            let of = match name {
                "cosigned" => "the cosigned checkpoint has".to_owned(),
                "the earlier run" => "the earlier run saw".to_owned(),
                name => format!("the checkpoint kept elsewhere ({name}) has"),
            };
            let what = format!("rolled back: {size} batches are there, {of} {more}");
            return Err(Wrong::new("payload", None, what));
        }
        for (agent, keys) in &self.done.keys {
            let mut announced = self.announced.remove(agent).unwrap_or_default();
            announced.extend(keys.shown().map(|(from, _)| from));
            if keys.rotations() != announced.len() {
                let file = format!("agents/{agent}.json");
                return Err(Wrong::new(file, None, "it has a key that no batch announced"));
            }
        }
        self.tiles.finish(&self.done.tiling.partial())?;
        self.done.contents.believe(&own);
        for hole in &mut self.done.elsewhere {
            hole.given_up = self.done.contents.gave_up(&hole.agent_id, hole.from, hole.to);
        }
        self.tell()?;
        Ok(self.done)
    }

    fn tell(&mut self) -> Result<(), Wrong> {
        let tiling = &self.done.tiling;
        let state = State::new(
            &self.done.origin.verifier_key,
            tiling.size(),
            &tiling.root(),
            self.done
                .contents
                .may_amend
                .iter()
                .map(|(entry, _)| *entry)
                .collect(),
            self.done.restored.clone(),
            self.said_to_begin(),
        );
        match (self.ask.told)(&self.progress, &state) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Wrong::new(".", None, "the check was given up")),
        }
    }
}
