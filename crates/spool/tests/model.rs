//! The spool against a model of it, on a disk that fails, fills up and loses power after any call.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails by panicking"
)]

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::RngSeed};
use spool::{
    AppendError, Frame, Limits, ReadError, Spool,
    disk::{Disk, Faults, Faulty},
};

/// Small, so that files turn over and the bound is met.
const LIMITS: Limits = Limits {
    bytes: 6000,
    file_bytes: 700,
};

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Sync,
    /// Of what is not acknowledged, this share in 8.
    Acknowledge(u64),
    /// Of what is there, the frame at this share in 8.
    Read(u64),
    ReadAll,
    Kill,
    PowerLoss,
    PowerOffAfter(u64),
    Room(Option<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (1_usize..400).prop_map(Step::Append),
        5 => Just(Step::Sync),
        4 => (0_u64..=8).prop_map(Step::Acknowledge),
        4 => (0_u64..=8).prop_map(Step::Read),
        1 => Just(Step::ReadAll),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerLoss),
        2 => (0_u64..12).prop_map(Step::PowerOffAfter),
        1 => prop_oneof![Just(None), (0_u64..4000).prop_map(Some)].prop_map(Step::Room),
    ]
}

fn faults() -> impl Strategy<Value = Faults> {
    let rate = || prop_oneof![Just(0_u32), 1_u32..150];
    (rate(), rate(), rate(), rate()).prop_map(|(short_write, write, sync, other)| Faults {
        short_write,
        write,
        sync,
        other,
        ..Faults::default()
    })
}

struct Model {
    disk: Faulty,
    faults: Faults,
    spool: Option<Spool<Faulty>>,
    bodies: BTreeMap<u64, Vec<u8>>,
    newest: u64,
    synced: u64,
    acknowledged: u64,
    /// Refused, to be appended again.
    owed: Option<Frame>,
    /// Every body is another one.
    made: u64,
}

impl Model {
    fn new(seed: u64, faults: Faults) -> Self {
        let disk = Faulty::new(seed, faults);
        let mut model = Self {
            disk,
            faults,
            spool: None,
            bodies: BTreeMap::new(),
            newest: 0,
            synced: 0,
            acknowledged: 0,
            owed: None,
            made: 0,
        };
        model.open(false);
        model
    }

    fn spool(&mut self) -> &mut Spool<Faulty> {
        self.spool.as_mut().expect("open")
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append(length) => self.append(*length),
            Step::Sync => {
                let synced = self.spool().sync().is_ok();
                assert!(!synced || self.spool().synced() == self.spool().newest());
            }
            Step::Acknowledge(share) => {
                let sequence =
                    self.acknowledged + (self.newest.saturating_sub(self.acknowledged)) * share / 8;
                self.acknowledged = self.acknowledged.max(sequence);
                self.spool().acknowledge(sequence);
            }
            Step::Read(share) => {
                if let Some(oldest) = self.spool().oldest() {
                    let sequence = oldest + (self.newest - oldest) * share / 8;
                    self.read(sequence);
                }
            }
            Step::ReadAll => self.read_all(),
            Step::Kill => self.open(false),
            Step::PowerLoss => {
                self.disk.power_on();
                self.open(true);
            }
            Step::PowerOffAfter(calls) => self.disk.set(Faults {
                power_off_after: Some(*calls),
                ..self.faults
            }),
            Step::Room(room) => {
                self.faults.room = *room;
                self.disk.set(self.faults);
            }
        }
        let synced = self.spool().synced();
        self.synced = self.synced.max(synced);
        if self.disk.is_off() {
            self.disk.power_on();
            self.open(true);
        }
    }

    fn append(&mut self, length: usize) {
        let next = self.spool().next();
        // What was acknowledged meanwhile is no longer owed.
        let frame = self.owed.take().filter(|frame| frame.sequence() == next);
        let frame = frame.unwrap_or_else(|| {
            self.made += 1;
            let made = self.made;
            Frame::new(next, length, |body| {
                body.extend((0..length as u64).map(|n| (made.wrapping_mul(n + 7) >> 3) as u8));
            })
        });
        match self.spool().append(&frame) {
            Ok(()) => {
                self.newest = next;
                self.bodies.insert(next, frame.body().to_vec());
            }
            Err(AppendError::Full { .. } | AppendError::Io(_)) => self.owed = Some(frame),
            Err(other) => panic!("{other}"),
        }
        let used = self.spool().bytes();
        assert!(
            self.faults.sync > 0 || self.faults.other > 0 || used <= LIMITS.bytes + 500,
            "{used}"
        );
    }

    /// Opens it again: after a loss of power, or after the end of the process alone.
    fn open(&mut self, mut power: bool) {
        let in_doubt = self.faults.sync > 0 || self.faults.other > 0;
        let before = self.spool.take().map_or(0, |spool| spool.newest());
        let mut tries = 0;
        let recovered = loop {
            tries += 1;
            assert!(tries < 50, "it is never opened");
            if tries == 20 {
                // So many calls that one of them fails each time.
                self.disk.set(Faults::default());
            }
            match Spool::open(self.disk.clone(), LIMITS) {
                Ok((spool, recovered)) => {
                    self.spool = Some(spool);
                    break recovered;
                }
                Err(_) if self.disk.is_off() => {
                    self.disk.power_on();
                    power = true;
                }
                Err(_) => {}
            }
        };
        if tries >= 20 {
            self.disk.set(self.faults);
        }
        let newest = self.spool().newest();
        assert_eq!(recovered.newest, newest);
        let owed = self.owed.take();
        assert!(
            newest >= self.synced,
            "synced {} of which {newest} are left",
            self.synced
        );
        if !power && !in_doubt {
            assert!(newest >= before, "a killed process lost {newest}..{before}");
        }
        if let Some(owed) = owed {
            if newest >= owed.sequence() {
                self.bodies.insert(owed.sequence(), owed.body().to_vec());
                self.newest = self.newest.max(owed.sequence());
            } else if !power && newest + 1 == owed.sequence() {
                self.owed = Some(owed);
            }
        }
        assert!(newest <= self.newest, "{newest} of {}", self.newest);
        self.bodies.split_off(&(newest + 1));
        if newest > 0 && newest > self.acknowledged {
            assert_eq!(
                recovered.newest_body.as_deref(),
                self.bodies.get(&newest).map(Vec::as_slice)
            );
        }
        let acknowledged = self.acknowledged;
        self.spool().acknowledge(acknowledged);
        self.newest = newest.max(acknowledged);
        for missing in recovered.missing {
            assert!(
                *missing.end() <= acknowledged,
                "{missing:?}, acknowledged {acknowledged}"
            );
        }
        self.read_all();
    }

    fn read_all(&mut self) {
        let Some(oldest) = self.spool().oldest() else {
            return;
        };
        let newest = self.spool().newest();
        assert!(
            oldest == self.acknowledged + 1,
            "{oldest}, acknowledged {}",
            self.acknowledged
        );
        for sequence in oldest..=newest {
            self.read(sequence);
        }
    }

    fn read(&mut self, sequence: u64) {
        for _ in 0..1000 {
            match self.spool().read(sequence) {
                Ok(body) => return assert_eq!(body, self.bodies[&sequence], "frame {sequence}"),
                Err(ReadError::Io(_)) if self.disk.is_off() => return,
                Err(ReadError::Io(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        panic!("frame {sequence} is never read");
    }

    /// The disk is well again: it all goes on.
    fn end(mut self) {
        self.faults = Faults::default();
        self.disk.set(self.faults);
        let newest = self.newest;
        self.acknowledged = newest;
        self.spool().acknowledge(newest);
        self.spool().sync().expect("synced");
        self.append(100);
        assert!(self.owed.is_none(), "there is room");
        let spool = self.spool();
        spool.sync().expect("synced");
        spool.acknowledge(newest + 1);
        assert_eq!(
            spool.bytes(),
            self.disk.used(),
            "what is counted is what is there"
        );
        assert!(
            self.disk.used() <= LIMITS.file_bytes + 400,
            "{}",
            self.disk.used()
        );
        self.disk.power_on();
        self.synced = newest + 1;
        self.open(true);
        assert_eq!(self.spool().newest(), newest + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 6000,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_the_disk_does_the_spool_is_the_model(
        seed in any::<u64>(),
        faults in faults(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut model = Model::new(seed, faults);
        for step in &steps {
            model.run(step);
        }
        model.end();
    }

    #[test]
    fn any_changed_byte_is_found(seed in any::<u64>(), place in any::<prop::sample::Index>(), open in any::<bool>()) {
        let disk = Faulty::new(seed, Faults::default());
        let (mut spool, _) = Spool::open(disk.clone(), LIMITS).unwrap();
        let body = |n: u64| vec![n as u8; 90 + n as usize];
        for n in 1..=20_u64 {
            spool.append(&Frame::new(n, 100, |bytes| bytes.extend(body(n)))).unwrap();
        }
        spool.sync().unwrap();
        let names = disk.list().unwrap();
        let name = &names[place.index(names.len())];
        prop_assert!(disk.flip(name, place.index(140)));
        let mut damaged = 0;
        if open {
            let Ok((again, recovered)) = Spool::open(disk, LIMITS) else {
                // The version of the format may be another one.
                return Ok(());
            };
            spool = again;
            prop_assert!(recovered.cuts.len() == 1 && recovered.cuts[0].file == *name);
        }
        for n in 1..=20 {
            match spool.read(n) {
                Ok(read) => prop_assert_eq!(read, body(n)),
                Err(ReadError::Damaged { .. } | ReadError::Missing(_)) => damaged += 1,
                Err(other) => panic!("{other}"),
            }
        }
        // What a file begins with is looked at when it is opened only.
        prop_assert!(damaged > 0 || (!open && place.index(140) < 16));
    }
}

#[test]
fn a_real_folder_behaves_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let disk = spool::disk::Real::folder(&folder.path().join("spool")).unwrap();
    let limits = Limits::of(1 << 20);
    let (mut spool, recovered) = Spool::open(disk.clone(), limits).unwrap();
    assert_eq!((recovered.newest, spool.next(), spool.oldest()), (0, 1, None));
    let frame = |n: u64| Frame::new(n, 40_000, |body| body.extend(vec![n as u8; 40_000]));
    let mut taken = 0;
    let full = loop {
        match spool.append(&frame(taken + 1)) {
            Ok(()) => taken += 1,
            Err(full) => break full.to_string(),
        }
    };
    assert_eq!(
        (taken, full.as_str()),
        (26, "the spool is full: 1040528 of 1048576 bytes")
    );
    assert!(matches!(
        spool.append(&frame(5)),
        Err(AppendError::Sequence {
            expected: 27,
            found: 5
        })
    ));
    drop(spool);
    // What a killed process leaves.
    let (mut spool, recovered) = Spool::open(disk.clone(), limits).unwrap();
    assert_eq!(
        (recovered.frames, recovered.newest, recovered.cuts.len()),
        (26, 26, 0)
    );
    assert_eq!(recovered.newest_body.unwrap(), frame(26).body());
    spool.acknowledge(20);
    assert_eq!((spool.oldest(), spool.next()), (Some(21), 27));
    assert!(spool.bytes() < 500_000, "{}", spool.bytes());
    for n in 21..=26 {
        assert_eq!(spool.read(n).unwrap(), frame(n).body());
    }
    assert!(matches!(spool.read(27), Err(ReadError::Missing(27))));
    spool.append(&frame(27)).unwrap();
    spool.acknowledge(27);
    assert!(spool.wants_sync(), "older files wait for a durable one");
    spool.sync().unwrap();
    assert_eq!(disk.list().unwrap().len(), 1, "the newest frame stays");
    drop(spool);
    let (spool, recovered) = Spool::open(disk, limits).unwrap();
    assert_eq!((recovered.newest, spool.next()), (27, 28));
}

/// Lost power at every call of a short run, without any other fault: what was synced is there.
#[test]
fn the_power_may_go_at_any_call() {
    let mut lost = 0;
    for calls in 0..120 {
        for seed in 0..20 {
            let disk = Faulty::new(
                seed,
                Faults {
                    power_off_after: Some(calls),
                    ..Faults::default()
                },
            );
            let (mut synced, mut appended, mut acknowledged) = (0, 0, 0);
            if let Ok((mut spool, _)) = Spool::open(disk.clone(), LIMITS) {
                for n in 1..=30_u64 {
                    if spool
                        .append(&Frame::new(n, 200, |body| body.extend([n as u8; 200])))
                        .is_err()
                    {
                        break;
                    }
                    appended = n;
                    if n % 4 == 0 && spool.sync().is_ok() {
                        synced = n;
                    }
                    if n % 9 == 0 {
                        acknowledged = n - 5;
                        spool.acknowledge(acknowledged);
                    }
                }
            }
            disk.power_on();
            let (mut spool, recovered) = Spool::open(disk, LIMITS).unwrap();
            assert!(
                recovered.newest >= synced && recovered.newest <= appended + 1,
                "{recovered:?}"
            );
            spool.acknowledge(acknowledged);
            lost += u64::from(recovered.newest < appended);
            for n in spool.oldest().unwrap_or(1)..=recovered.newest {
                assert_eq!(spool.read(n).unwrap(), [n as u8; 200].as_slice());
            }
        }
    }
    assert!(lost > 100, "the simulation takes something away: {lost}");
}
