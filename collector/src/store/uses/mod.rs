//! Uses: the statements of a day put together, so that a question over months need not read each of them.
//!
//! A day's file has a row for each principal, object, command and way in which its records are told, and how often, first and last that was;
//! `make` writes it, `table` is its form. Owns which of these files hold: one that says whom it is of is made of what the store's
//! files and amendments said at that moment, and counts only as long as all of these files do and none of its sessions is called
//! something else. Refuses to be needed: what no such file covers is read as it is, with the same answer.

mod make;
pub(super) mod table;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use sha2::{Digest, Sha256};

use super::{
    Snapshot,
    manifest::{Manifest, SealedFile, UsesFile},
    question::Span,
    seal::hours_in,
};

/// What is known of the files of uses, beside what the manifest says.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// By path.
    known: HashMap<String, Known>,
    /// While a file is being made, what was named since.
    named_meanwhile: Option<Vec<Named>>,
    /// When rows were last added to a day.
    changed: BTreeMap<String, Instant>,
    /// Days of which no file could be made, until something is added to them.
    failed: BTreeSet<String>,
}

/// Of one file.
#[derive(Debug)]
struct Known {
    nameable: Nameable,
    /// Amendments of the log's entries before this one are in it.
    built_to: u64,
    stale: bool,
}

/// That an amendment names something anew: a session, or some of its statements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    agent: u64,
    session: u64,
    /// The first and the last number of these statements; all of the session's where there are none.
    seqs: Option<(u64, u64)>,
}

impl Named {
    pub(super) fn new(agent: &str, session: &str, events: &[u64]) -> Self {
        let first = proto::json::summed(events).min();
        Self {
            agent: digest(&[agent]),
            session: digest(&[agent, session]),
            seqs: first.zip(proto::json::summed(events).max()),
        }
    }
}

/// What of a day could be called something else, by digests: two that are the same make a file be made anew for nothing.
#[derive(Debug, Default)]
struct Nameable {
    /// Sessions, in order.
    sessions: Vec<u64>,
    /// By agent, the first and the last number of its events.
    seqs: BTreeMap<u64, (u64, u64)>,
}

impl Nameable {
    fn has(&self, named: &Named) -> bool {
        match named.seqs {
            // A statement is looked up by its number alone.
            Some((first, last)) => {
                let own = self.seqs.get(&named.agent);
                own.is_some_and(|(own_first, own_last)| first <= *own_last && *own_first <= last)
            }
            None => self.sessions.binary_search(&named.session).is_ok(),
        }
    }

    /// As it is kept: how many sessions, these, and three numbers for each agent.
    fn to_bytes(&self) -> Vec<u8> {
        let agents = self
            .seqs
            .iter()
            .flat_map(|(agent, (first, last))| [agent, first, last]);
        let count = self.sessions.len() as u64;
        let numbers = std::iter::once(&count).chain(&self.sessions).chain(agents);
        numbers.flat_map(|number| number.to_le_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let numbers = bytes
            .chunks(8)
            .map(|bytes| Some(u64::from_le_bytes(*bytes.first_chunk()?)));
        let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
        let (count, rest) = numbers.split_first()?;
        let (sessions, agents) = rest.split_at_checked(usize::try_from(*count).ok()?)?;
        let mut seqs = BTreeMap::new();
        for agent in agents.chunks(3) {
            let [agent, first, last] = agent else { return None };
            seqs.insert(*agent, (*first, *last));
        }
        Some(Self {
            sessions: sessions.to_vec(),
            seqs,
        })
    }
}

fn digest(parts: &[&str]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
        digest.update([0]);
    }
    digest
        .finalize()
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Uses {
    /// Reads what belongs to the files that the manifest names; what cannot be read counts for nothing.
    pub(super) async fn open(store: &dyn ObjectStore, manifest: &Manifest) -> Self {
        let mut uses = Self::default();
        for file in &manifest.uses {
            let Ok(found) = store.get(&Path::from(file.nameable.path.as_str())).await else {
                continue;
            };
            let bytes = found.bytes().await;
            if let Some(nameable) = bytes.ok().and_then(|bytes| Nameable::from_bytes(&bytes)) {
                uses.add(file, nameable);
            }
        }
        uses
    }

    fn add(&mut self, file: &UsesFile, nameable: Nameable) {
        self.known.insert(
            file.file.path.clone(),
            Known {
                nameable,
                built_to: file.built_to,
                stale: false,
            },
        );
    }

    /// This entry of the log names these anew.
    pub(super) fn named(&mut self, entry: u64, named: &[Named]) {
        for known in self.known.values_mut().filter(|known| known.built_to <= entry) {
            known.stale |= named.iter().any(|named| known.nameable.has(named));
        }
        if let Some(meanwhile) = &mut self.named_meanwhile {
            meanwhile.extend(named);
        }
    }

    /// Rows were added to these files.
    pub(super) fn changed(&mut self, files: &[SealedFile]) {
        for date in files.iter().filter_map(|file| date_of(&file.path)) {
            self.wait(date);
            self.failed.remove(date);
        }
    }

    /// From now on, a day is left alone for a while.
    fn wait(&mut self, date: &str) {
        self.changed.insert(date.to_owned(), Instant::now());
    }

    /// Forgets those that the manifest names no more.
    pub(super) fn retain(&mut self, manifest: &Manifest) {
        let named: BTreeSet<&str> = manifest.uses.iter().map(|uses| uses.file.path.as_str()).collect();
        self.known.retain(|path, _| named.contains(path.as_str()));
    }

    fn hold(&self, file: &UsesFile) -> bool {
        self.known.get(&file.file.path).is_some_and(|known| !known.stale)
    }

    /// Those of the manifest that hold.
    pub(super) fn holding(&self, manifest: &Manifest) -> Vec<UsesFile> {
        if manifest.uses.is_empty() {
            return Vec::new();
        }
        let files: BTreeSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
        let holds =
            |uses: &&UsesFile| self.hold(uses) && uses.of.iter().all(|of| files.contains(of.as_str()));
        manifest.uses.iter().filter(holds).cloned().collect()
    }

    /// The day of which a file should be made next, and of which files: those of hours that are over.
    fn due(&self, manifest: &Manifest, open_from: &str, quiet: Duration) -> Option<Due> {
        let mut days: BTreeMap<&str, Vec<&SealedFile>> = BTreeMap::new();
        for file in &manifest.files {
            if let Some(date) = date_of(&file.path)
                && hour_of(&file.path).is_some_and(|hour| hour < open_from)
            {
                days.entry(date).or_default().push(file);
            }
        }
        let holding = self.holding(manifest);
        let is_due = |(date, files): &(&str, Vec<&SealedFile>)| {
            let waits = |since: &Instant| since.elapsed() < quiet;
            if self.changed.get(*date).is_some_and(waits) || self.failed.contains(*date) {
                return false;
            }
            let Some(uses) = holding.iter().find(|uses| uses.date == **date) else {
                return true;
            };
            let (mut left, mut left_rows, mut rows) = (0, 0, 0);
            for file in files {
                rows += file.rows;
                if !uses.of.contains(&file.path) {
                    left += 1;
                    left_rows += file.rows;
                }
            }
            left >= MANY_LEFT || left_rows * FEW_LEFT > rows
        };
        let (date, files) = days.into_iter().find(is_due)?;
        Some(Due {
            date: date.to_owned(),
            of: files.iter().map(|file| file.path.clone()).collect(),
        })
    }
}

/// A day, and the files whose rows are to be put together.
#[derive(Debug, PartialEq)]
struct Due {
    date: String,
    of: Vec<String>,
}

impl Snapshot {
    /// The files of uses that are all of this time.
    pub(super) fn uses_in(&self, span: Span) -> Vec<&UsesFile> {
        let in_it = |uses: &&UsesFile| {
            let mut hours = uses.of.iter().map(|of| hours_in(of));
            hours.all(|hours| hours.is_some_and(|hours| span.has_all_of(&hours)))
        };
        self.uses.iter().filter(in_it).collect()
    }

    /// The events' files that may have rows of this time, but for those that `uses` cover.
    pub(super) fn files_in(&self, span: Span, uses: &[&UsesFile]) -> Vec<String> {
        let covered: BTreeSet<&str> = uses
            .iter()
            .flat_map(|uses| &uses.of)
            .map(String::as_str)
            .collect();
        let wanted = |file: &&String| {
            !covered.contains(file.as_str()) && hours_in(file).is_none_or(|hours| span.has_some_of(&hours))
        };
        self.files.iter().filter(wanted).cloned().collect()
    }
}

/// `date=2026-05-10` of `events/date=2026-05-10/hour=08/…`; none where the times of a file's rows are not known.
fn date_of(path: &str) -> Option<&str> {
    hours_in(path)?;
    path.split('/').nth(1)
}

/// `date=2026-05-10/hour=08`.
fn hour_of(path: &str) -> Option<&str> {
    Some(path.split_once('/')?.1.rsplit_once('/')?.0)
}

/// So many files beside what is put together make it worth doing so anew.
const MANY_LEFT: usize = 4;

/// The same, where one of so many rows is beside it.
const FEW_LEFT: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, rows: u64) -> SealedFile {
        SealedFile {
            path: path.to_owned(),
            bytes: 1,
            rows,
        }
    }

    fn uses_of(of: &[&str]) -> UsesFile {
        UsesFile {
            date: "date=2026-05-10".into(),
            file: file("uses/one", 1),
            nameable: file("uses/one.nameable", 1),
            of: of.iter().map(|of| (*of).to_owned()).collect(),
            built_to: 10,
        }
    }

    const SEVEN: &str = "events/date=2026-05-10/hour=07/0-1.parquet";
    const EIGHT: &str = "events/date=2026-05-10/hour=08/2-3.parquet";
    const OPEN: &str = "date=2026-05-11/hour=08";

    fn manifest(files: &[(&str, u64)], uses: &[UsesFile]) -> Manifest {
        let mut manifest = Manifest::empty();
        manifest.files = files.iter().map(|(path, rows)| file(path, *rows)).collect();
        manifest.uses = uses.to_vec();
        manifest
    }

    #[test]
    fn a_day_is_put_together_once_and_again_when_much_was_added() {
        let mut uses = Uses::default();
        let due = |uses: &Uses, manifest: &Manifest| {
            let due = uses.due(manifest, OPEN, Duration::ZERO);
            due.map(|due| due.of.len())
        };
        let new = manifest(&[(SEVEN, 100)], &[]);
        assert_eq!(due(&uses, &new), Some(1));
        assert_eq!(
            uses.due(&new, "date=2026-05-10/hour=07", Duration::ZERO),
            None,
            "an hour that is not over"
        );
        uses.add(&uses_of(&[SEVEN]), Nameable::default());
        assert_eq!(due(&uses, &manifest(&[(SEVEN, 100)], &[uses_of(&[SEVEN])])), None);
        let few = manifest(&[(SEVEN, 100), (EIGHT, 5)], &[uses_of(&[SEVEN])]);
        assert_eq!(due(&uses, &few), None);
        let many = manifest(&[(SEVEN, 100), (EIGHT, 50)], &[uses_of(&[SEVEN])]);
        assert_eq!(due(&uses, &many), Some(2));
        uses.changed(&[file(EIGHT, 50)]);
        assert_eq!(
            uses.due(&many, OPEN, Duration::from_secs(60)),
            None,
            "more may come"
        );
    }

    #[test]
    fn what_is_put_together_holds_as_long_as_its_files_and_its_sessions_names_do() {
        let mut uses = Uses::default();
        let mut sessions = vec![digest(&["db1", "a"]), digest(&["db1", "b"])];
        sessions.sort_unstable();
        let seqs = BTreeMap::from([(digest(&["db1"]), (100, 200))]);
        let nameable = Nameable { sessions, seqs };
        let read = Nameable::from_bytes(&nameable.to_bytes()).unwrap();
        assert!(Nameable::from_bytes(&nameable.to_bytes()[..39]).is_none());
        uses.add(&uses_of(&[SEVEN]), read);
        let of = manifest(&[(SEVEN, 100), (EIGHT, 5)], &[uses_of(&[SEVEN])]);
        assert_eq!(uses.holding(&of).len(), 1);
        let without = manifest(&[(EIGHT, 5)], &[uses_of(&[SEVEN])]);
        assert!(uses.holding(&without).is_empty(), "a file of it went");
        for (entry, agent, session, events, why) in [
            (9, "db1", "a", &[][..], "that was known before"),
            (10, "db1", "c", &[], "it is no session of it"),
            (10, "db2", "a", &[], "nor is another host's of that name"),
            (10, "db1", "a", &[201, 5], "later statements of its session"),
        ] {
            uses.named(entry, &[Named::new(agent, session, events)]);
            assert_eq!(uses.holding(&of).len(), 1, "{why}");
        }
        uses.named(10, &[Named::new("db1", "b", &[199, 5])]);
        assert!(uses.holding(&of).is_empty());
        assert_eq!(
            uses.due(&of, OPEN, Duration::ZERO).map(|due| due.of.len()),
            Some(2)
        );
    }
}
