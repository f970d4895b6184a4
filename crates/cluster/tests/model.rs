//! The directory against a cluster of which everything is known: whatever it says of an address is so.
//!
//! Words on pods come late, in order; the watch is cut, and pods are listed anew or all that was missed is said afterwards; addresses
//! are used again as soon as they are free, before the word on their former pod comes.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails by panicking"
)]

use std::net::IpAddr;

use cluster::{Controller, Directory, Holder, LATE_NS, Middle, SLACK_NS, Seen, Sighting, Uid};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const KEEP: u64 = 60 * SECOND;
/// Milliseconds.
const LONGEST_END: u16 = 3000;

/// A pod as it is.
#[derive(Clone, Debug)]
struct Real {
    sighting: Sighting,
    address: IpAddr,
    /// It has its address from then on, and to then.
    from: u64,
    to: Option<u64>,
    deleted: Option<u64>,
}

#[derive(Clone, Debug)]
enum Word {
    See(Box<Sighting>),
    Gone(Uid),
}

#[derive(Clone, Debug)]
enum Step {
    /// A pod begins with this address, if nobody has it.
    Begin(u8),
    /// The pod with this address ends, and stays in the API server.
    End(u8),
    /// It ends and is deleted so many milliseconds later ([`LONGEST_END`] at most).
    Delete(u8, u16),
    /// What ended is deleted.
    Clean,
    /// Words do not come any longer.
    Cut,
    /// All is listed anew.
    List,
    /// What was missed is said, so many milliseconds between two words.
    Resume(u16),
    /// Everything that is, is said again.
    Repeat,
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..3).prop_map(Step::Begin),
        3 => (0_u8..3).prop_map(Step::End),
        4 => (0_u8..3, 0..LONGEST_END).prop_map(|(address, later)| Step::Delete(address, later)),
        1 => Just(Step::Clean),
        1 => Just(Step::Cut),
        2 => Just(Step::List),
        2 => (0_u16..2000).prop_map(Step::Resume),
        1 => Just(Step::Repeat),
        9 => (1_u16..6000).prop_map(Step::Pass),
    ]
}

struct World {
    directory: Directory,
    pods: Vec<Real>,
    now: u64,
    /// What happens later by itself.
    later: Vec<(u64, usize)>,
    words: Vec<(u64, Word)>,
    /// What was not said since the watch was cut.
    missed: Vec<Word>,
    connected: bool,
    lag: u64,
}

fn address(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

fn uid(number: usize) -> Uid {
    format!("{number:08x}-0000-4000-8000-000000000000")
        .parse()
        .expect("a uid")
}

impl World {
    fn new(lag: u64) -> Self {
        let mut directory = Directory::new(KEEP);
        directory.begin();
        directory.finish(1000 * SECOND);
        Self {
            directory,
            pods: Vec::new(),
            now: 1000 * SECOND,
            later: Vec::new(),
            words: Vec::new(),
            missed: Vec::new(),
            connected: true,
            lag,
        }
    }

    fn holding(&self, number: u8) -> Option<usize> {
        let has = |pod: &Real| pod.address == address(number) && pod.to.is_none();
        self.pods.iter().position(has)
    }

    fn say(&mut self, word: Word) {
        if self.connected {
            let last = self.words.last().map_or(0, |(at, _)| *at);
            self.words.push((last.max(self.now + self.lag), word));
        } else {
            self.missed.push(word);
        }
    }

    fn say_pod(&mut self, place: usize) {
        let sighting = self.pods[place].sighting.clone();
        self.say(Word::See(Box::new(sighting)));
    }

    fn begin(&mut self, number: u8) {
        if self.holding(number).is_some() {
            return;
        }
        let place = self.pods.len();
        let sighting = Sighting {
            uid: uid(place),
            namespace: "shop".to_owned(),
            // Names are used again, too.
            name: format!("orders-{}", place % 3),
            service_account: "orders".to_owned(),
            controller: None,
            node: "n1".to_owned(),
            labels: Vec::new(),
            annotations: Vec::new(),
            addresses: Vec::new(),
            host_network: false,
            started: Some(self.now / SECOND * SECOND),
            // It has its address by then.
            running: Some((self.now + SECOND) / SECOND * SECOND),
            ended: None,
        };
        self.pods.push(Real {
            sighting,
            address: address(number),
            from: self.now,
            to: None,
            deleted: None,
        });
        self.say_pod(place);
        self.pods[place].sighting.addresses.push(address(number));
        self.say_pod(place);
    }

    fn end(&mut self, number: u8) {
        if let Some(place) = self.holding(number) {
            let pod = &mut self.pods[place];
            pod.to = Some(self.now);
            pod.sighting.ended = Some(self.now / SECOND * SECOND);
            self.say_pod(place);
        }
    }

    fn delete(&mut self, place: usize) {
        if self.pods[place].deleted.is_none() {
            self.pods[place].deleted = Some(self.now);
            self.say(Word::Gone(uid(place)));
        }
    }

    fn pass(&mut self, to: u64) {
        while self.now < to {
            let next = self.later.iter().map(|(at, _)| *at).min().unwrap_or(to);
            self.now = next.clamp(self.now, to);
            let due: Vec<usize> = self
                .later
                .extract_if(.., |(at, _)| *at <= self.now)
                .map(|(_, place)| place)
                .collect();
            for place in due {
                self.delete(place);
            }
        }
        self.hear();
    }

    fn hear(&mut self) {
        let due: Vec<(u64, Word)> = self.words.extract_if(.., |(at, _)| *at <= self.now).collect();
        for (at, word) in due {
            match word {
                Word::See(sighting) => {
                    assert_eq!(self.directory.see(&sighting, false, at), Seen::Known);
                }
                Word::Gone(uid) => self.directory.gone(uid, at),
            }
        }
        if self.connected {
            self.directory.settle(self.now);
        } else {
            self.directory.interrupted(self.now);
        }
    }

    fn list(&mut self) {
        self.words.clear();
        self.missed.clear();
        self.connected = true;
        self.directory.begin();
        for pod in self.pods.iter().filter(|pod| pod.deleted.is_none()) {
            assert_eq!(self.directory.see(&pod.sighting, true, self.now), Seen::Known);
        }
        self.directory.finish(self.now);
    }

    fn cut(&mut self) {
        self.connected = false;
        let unheard: Vec<Word> = self.words.drain(..).map(|(_, word)| word).collect();
        self.missed.splice(..0, unheard);
        self.directory.interrupted(self.now);
    }

    fn resume(&mut self, between: u64) {
        if self.connected {
            return;
        }
        self.connected = true;
        // Until now it was tried in vain.
        self.directory.interrupted(self.now);
        for (place, word) in std::mem::take(&mut self.missed).into_iter().enumerate() {
            let after = (place as u64 * between).min(LATE_NS - SLACK_NS);
            self.words.push((self.now + self.lag + after, word));
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Begin(number) => self.begin(number),
            Step::End(number) => self.end(number),
            Step::Delete(number, later) => {
                if let Some(place) = self.holding(number) {
                    self.pods[place].to = Some(self.now);
                    self.later.push((self.now + u64::from(later) * 1_000_000, place));
                }
            }
            Step::Clean => {
                for place in 0..self.pods.len() {
                    if self.pods[place].sighting.ended.is_some() {
                        self.delete(place);
                    }
                }
            }
            Step::Cut => self.cut(),
            Step::List => self.list(),
            Step::Resume(milliseconds) => self.resume(u64::from(milliseconds) * 1_000_000),
            Step::Repeat => {
                for place in 0..self.pods.len() {
                    if self.pods[place].deleted.is_none() {
                        self.say_pod(place);
                    }
                }
            }
            Step::Pass(milliseconds) => {
                let to = self.now + u64::from(milliseconds) * 1_000_000;
                self.pass(to);
            }
        }
        self.hear();
    }

    /// Whatever the directory says of moments of which it has heard all is so; whoever asks waits for longer than that.
    fn check(&self) -> usize {
        let mut named = 0;
        for real in &self.pods {
            let to = real.to.unwrap_or(self.now);
            let moments = [real.from, u64::midpoint(real.from, to), to.saturating_sub(1)];
            for at in moments {
                let held = real.from <= at && real.to.is_none_or(|to| at < to);
                if !held || at + u64::from(LONGEST_END) * 1_000_000 + self.lag > self.now {
                    continue;
                }
                if let Holder::One(pod) = self.directory.holder(real.address, at) {
                    assert_eq!(pod.uid(), real.sighting.uid, "{} at {at}", real.address);
                    assert_eq!(pod.name(), real.sighting.name);
                    named += 1;
                }
            }
        }
        for real in &self.pods {
            if let Some(pod) = self.directory.by_uid(&real.sighting.uid) {
                assert_eq!(pod.name(), real.sighting.name);
            }
        }
        named
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn no_address_gets_a_wrong_name(
        steps in prop::collection::vec(step(), 1..80),
        lag in 0_u64..SLACK_NS / 2,
    ) {
        let mut world = World::new(lag);
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.list();
        world.pass(world.now + 10 * SECOND);
        world.check();
    }

    #[test]
    fn a_list_says_what_all_changes_said(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(0);
        for step in steps.iter().filter(|step| !matches!(step, Step::Cut)) {
            world.step(step);
        }
        world.pass(world.now + 10 * SECOND);
        let said = |world: &World| -> Vec<(String, bool)> {
            let pods = world.pods.iter().map(|real| &real.sighting);
            let found = pods.filter_map(|sighting| world.directory.by_uid(&sighting.uid));
            found.map(|pod| (pod.name().to_owned(), pod.gone().is_some())).collect()
        };
        let before = said(&world);
        world.list();
        prop_assert_eq!(&said(&world), &before);
        world.list();
        prop_assert_eq!(said(&world), before);
    }
}

#[test]
fn in_quiet_times_addresses_have_names() {
    let mut world = World::new(SECOND / 2);
    for number in [0, 1, 2] {
        world.begin(number);
    }
    world.pass(1010 * SECOND);
    world.end(0);
    world.pass(1020 * SECOND);
    world.begin(0);
    world.pass(1030 * SECOND);
    // Of each its middle, and the end of the one that is over; beginnings are as uncertain as words are late.
    assert_eq!(world.check(), 5);
    assert!(matches!(
        world.directory.holder(address(9), 1020 * SECOND),
        Holder::Nobody
    ));
}

#[test]
fn a_pod_that_is_gone_stays_known_for_a_while() {
    let mut world = World::new(0);
    world.begin(1);
    world.pass(1010 * SECOND);
    world.pods[0].to = Some(world.now);
    world.delete(0);
    world.pass(1011 * SECOND);
    world.directory.forget(world.now + KEEP - 2 * SECOND);
    let pod = world.directory.by_uid(&uid(0)).expect("still known");
    assert_eq!((pod.name(), pod.gone()), ("orders-0", Some(1010 * SECOND)));
    assert!(matches!(
        world.directory.holder(address(1), 1005 * SECOND),
        Holder::One(_)
    ));
    world.directory.forget(world.now + KEEP);
    assert!(world.directory.by_uid(&uid(0)).is_none());
    assert!(matches!(
        world.directory.holder(address(1), 1005 * SECOND),
        Holder::Nobody
    ));
    assert!(world.directory.is_empty());
}

#[test]
fn one_uid_never_names_two() {
    let mut world = World::new(0);
    world.begin(1);
    world.pass(1010 * SECOND);
    let mut other = world.pods[0].sighting.clone();
    other.name = "victim-0".to_owned();
    assert_eq!(world.directory.see(&other, false, world.now), Seen::Contested);
    assert!(world.directory.by_uid(&uid(0)).is_none());
    assert!(!matches!(
        world.directory.holder(address(1), 1005 * SECOND),
        Holder::One(_)
    ));
    let first = world.pods[0].sighting.clone();
    assert_eq!(
        world.directory.see(&first, false, world.now),
        Seen::Contested,
        "it stays so"
    );
}

#[test]
fn a_nodes_address_is_no_pods() {
    let mut world = World::new(0);
    world.begin(1);
    let mut proxy = world.pods[0].sighting.clone();
    proxy.uid = uid(99);
    proxy.name = "kube-proxy-x".to_owned();
    proxy.host_network = true;
    proxy.addresses = vec![address(7)];
    world.directory.see(&proxy, false, world.now);
    assert!(matches!(
        world.directory.holder(address(7), world.now),
        Holder::Nobody
    ));
    assert_eq!(
        world.directory.by_uid(&uid(99)).expect("by its uid").name(),
        "kube-proxy-x"
    );
}

#[test]
fn the_chain_grows_as_owners_are_told_of() {
    let mut directory = Directory::new(KEEP);
    let mut world = World::new(0);
    world.begin(1);
    let mut sighting = world.pods[0].sighting.clone();
    sighting.controller = Some(Controller {
        kind: "Job".to_owned(),
        name: "report-29".to_owned(),
        uid: Some(uid(50)),
    });
    directory.see(&sighting, true, 5);
    let words = |directory: &Directory| {
        let pod = directory.by_uid(&uid(0)).expect("a pod");
        let chain = directory.chain(pod);
        let words: Vec<String> = chain
            .owners
            .iter()
            .map(|owner| format!("{}/{}", owner.kind, owner.name))
            .collect();
        (words.join(" "), chain.is_whole)
    };
    assert_eq!(words(&directory), ("Job/report-29".to_owned(), false));
    assert!(directory.see_owner(Middle::Job, uid(50), Some(("CronJob", "report"))));
    assert_eq!(
        words(&directory),
        ("Job/report-29 CronJob/report".to_owned(), true)
    );
    directory.owners(Middle::Job).gone(uid(50), 10);
    directory.forget(11 + KEEP);
    assert_eq!(words(&directory), ("Job/report-29".to_owned(), false));
    assert!(directory.owners(Middle::Job).is_empty());
}

#[test]
fn what_was_on_its_way_when_the_watch_was_cut_counts() {
    let mut world = World::new(SECOND / 2);
    let at = |milliseconds: u64| 1000 * SECOND + milliseconds * 1_000_000;
    world.begin(1);
    world.pass(at(10_000));
    world.begin(0);
    world.pass(at(10_100));
    world.pods[0].to = Some(world.now);
    world.delete(0);
    world.pass(at(10_200));
    world.begin(1);
    // The word on the other address came, those on this one do not any more.
    world.pass(at(10_550));
    world.step(&Step::Cut);
    world.pods[2].to = Some(at(15_000));
    world.delete(2);
    world.pass(at(20_000));
    world.list();
    assert!(world.directory.by_uid(&uid(2)).is_none());
    let holder = world.directory.holder(address(1), at(10_300));
    assert!(!matches!(holder, Holder::One(_)), "{holder:?}");
    world.check();
}

#[test]
fn what_a_resumed_watch_repeats_gives_nobodys_time_to_another() {
    let mut world = World::new(SECOND / 2);
    let at = |seconds: u64| (1000 + seconds) * SECOND;
    world.begin(1);
    world.pass(at(100));
    world.step(&Step::Cut);
    world.pass(at(110));
    world.pods[0].to = Some(world.now);
    world.delete(0);
    world.pass(at(120));
    world.begin(1);
    world.pass(at(160));
    // The end of the one comes ten seconds before the beginning of the other.
    world.step(&Step::Resume(10_000));
    let mut named = Vec::new();
    for after in 161..200 {
        world.pass(at(after));
        world.check();
        let holder = world.directory.holder(address(1), at(130));
        if let Holder::One(pod) = holder {
            named.push(pod.name().to_owned());
        }
        if after < 190 {
            assert!(matches!(holder, Holder::NotKnown), "{after}: {holder:?}");
        }
    }
    assert!(!named.contains(&"orders-0".to_owned()), "{named:?}");
    // It goes on.
    let holder = world.directory.holder(address(1), at(195));
    assert!(
        matches!(holder, Holder::One(pod) if pod.name() == "orders-1"),
        "{holder:?}"
    );
}

#[test]
fn a_list_behind_a_watch_that_was_late_ends_nothing_too_late() {
    let mut world = World::new(0);
    let at = |seconds: u64| (1000 + seconds) * SECOND;
    world.begin(1);
    world.pass(at(100));
    world.step(&Step::Cut);
    world.begin(0);
    world.pass(at(110));
    world.pods[0].to = Some(world.now);
    world.delete(0);
    // Another has its address for a time of which nobody will tell.
    world.pass(at(120));
    world.begin(1);
    world.pass(at(150));
    world.pods[2].to = Some(world.now);
    world.delete(2);
    world.pass(at(160));
    world.step(&Step::Resume(20_000));
    world.pass(at(161));
    world.step(&Step::Cut);
    world.step(&Step::List);
    let holder = world.directory.holder(address(1), at(130));
    assert!(!matches!(holder, Holder::One(_)), "{holder:?}");
    world.check();
}

#[test]
fn a_pod_has_its_address_from_its_first_container_on() {
    let mut world = World::new(0);
    let at = |seconds: u64| (1000 + seconds) * SECOND;
    world.begin(1);
    let mut late = world.pods[0].sighting.clone();
    for (running, surely) in [(Some(at(120)), at(130)), (None, at(301))] {
        // It waited for a volume, and is told of first when all that is over.
        late.running = running;
        let mut directory = Directory::new(KEEP);
        directory.begin();
        directory.see(&late, true, at(300));
        directory.finish(at(300));
        let holder = directory.holder(address(1), at(50));
        assert!(matches!(holder, Holder::Several), "{holder:?}");
        let holder = directory.holder(address(1), surely);
        assert!(matches!(holder, Holder::One(_)), "{holder:?}");
    }
}

#[test]
fn a_pod_that_got_another_address_meanwhile_gave_the_former_up_at_any_time() {
    let mut world = World::new(0);
    let at = |seconds: u64| (1000 + seconds) * SECOND;
    world.begin(1);
    world.pass(at(100));
    world.step(&Step::Cut);
    world.pass(at(200));
    world.pods[0].sighting.addresses = vec![address(2)];
    world.list();
    let holder = world.directory.holder(address(1), at(150));
    assert!(!matches!(holder, Holder::One(_)), "{holder:?}");
    let holder = world.directory.holder(address(2), at(150));
    assert!(!matches!(holder, Holder::One(_)), "{holder:?}");
    let holder = world.directory.holder(address(2), at(201));
    assert!(matches!(holder, Holder::One(_)), "{holder:?}");
}
