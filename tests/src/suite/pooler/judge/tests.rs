//! Every kind of fault, with made-up records.

use super::super::journal::{Connection, Group};
use super::*;

const A: &str = "spiffe://t/host/h/unit/a.service";
const B: &str = "spiffe://t/host/h/unit/b.service";
const P: &str = "spiffe://t/host/h/unit/pooler.service";
const SECOND: u64 = 1_000_000_000;

/// Two programs that sent `S` once each and a marked text once each; the pooler said `SET` in between.
struct Scene {
    journals: Journals,
    sessions: Vec<Session>,
    truth: Truth,
    record: Record,
}

fn scene() -> Scene {
    let connection = |program: &str, pid| Connection {
        key: format!("{program}.{pid}.0"),
        program: program.to_owned(),
        pid,
        groups: vec![Group {
            texts: vec!["S".to_owned()],
            sent_ns: SECOND,
            answered_ns: Some(2 * SECOND),
            ..Group::default()
        }],
        ..Connection::default()
    };
    let texts = ["S /* m=a.1.0.1; */", "SET x", "S", "S /* m=b.2.0.1; */", "S"];
    let said = |text: &&str| Said {
        text: (*text).to_owned(),
        at_ns: i64::try_from(SECOND).unwrap(),
        ..Said::default()
    };
    let owners = vec![
        Owner::Client(0),
        Owner::Pooler,
        Owner::Unsure,
        Owner::Client(1),
        Owner::Client(0),
    ];
    let names = [(A, 1), (P, 9), (B, 2), (B, 2), (A, 1)];
    let request = |(text, (name, pid)): (&&str, (&str, u32))| Request {
        statements: vec![Recorded {
            start_ns: SECOND,
            end_ns: SECOND,
            pid: Some(pid),
            ..Recorded::made_up(text, name, "joined")
        }],
    };
    Scene {
        journals: Journals::of(vec![connection("a", 1), connection("b", 2)]),
        sessions: vec![Session {
            statements: texts.iter().map(said).collect(),
            ..Session::default()
        }],
        truth: Truth {
            owners: vec![owners],
            ..Truth::default()
        },
        record: Record {
            requests: vec![texts.iter().zip(names).map(request).collect()],
            gaps: vec![],
        },
    }
}

fn expected() -> Expected {
    Expected {
        poolers: vec!["/unit/pooler.service".to_owned()],
        share: Some(0.999),
        ..Expected::default()
    }
}

impl Scene {
    fn judge(&self) -> Findings {
        judge(
            &self.journals,
            &self.sessions,
            &self.truth,
            &self.record,
            &expected(),
        )
    }

    fn recorded(&mut self, index: usize) -> &mut Recorded {
        &mut self.record.requests[0][index].statements[0]
    }
}

#[test]
fn the_truth_passes() {
    let found = scene().judge();
    assert!(found.none(&expected()), "{found:?}");
    assert_eq!(
        (found.statements, found.joined, found.own, found.own_named),
        (4, 4, 1, 1)
    );
    assert_eq!(
        (found.identical_statements, found.by_time, found.witnessed),
        (2, 1, 3)
    );
}

#[test]
fn two_names_that_were_exchanged_are_two_wrong_ones() {
    let mut scene = scene();
    for (index, name, pid) in [(0, B, 2), (3, A, 1)] {
        let one = scene.recorded(index);
        (one.principal, one.pid) = (Some(name.to_owned()), Some(pid));
    }
    let found = scene.judge();
    assert_eq!((found.wrong_principal, found.joined), (2, 2));
    assert!(!found.none(&expected()));
}

#[test]
fn another_process_of_the_same_unit_is_wrong() {
    let mut scene = scene();
    scene.recorded(0).pid = Some(77);
    assert_eq!(scene.judge().wrong_process, 1);
}

#[test]
fn the_poolers_own_is_no_clients_and_the_other_way_round() {
    let mut scene = scene();
    scene.recorded(1).principal = Some(A.to_owned());
    scene.recorded(2).principal = Some(P.to_owned());
    scene.recorded(3).principal = Some(P.to_owned());
    let found = scene.judge();
    assert_eq!((found.wrong_principal, found.own_named), (3, 0));
}

#[test]
fn unknown_needs_a_reason_and_counts_against_the_share() {
    let mut scene = scene();
    let one = scene.recorded(0);
    (one.principal, one.confidence) = (Some("unknown".to_owned()), Some("none".to_owned()));
    let found = scene.judge();
    assert_eq!((found.unknown_without_reason, found.unknown), (1, 0));
    scene.recorded(0).reason =
        Some("passed on by a pooler (pgbouncer, unit/p 1): several clients may have sent it".to_owned());
    let found = scene.judge();
    assert_eq!(
        (
            found.unknown_without_reason,
            found.unknown,
            found.ambiguous,
            found.joined
        ),
        (0, 1, 1, 3)
    );
    assert!(!found.none(&expected()), "three of four are not 0.999");
    let lenient = Expected {
        share: Some(0.7),
        ..expected()
    };
    assert!(found.none(&lenient));
}

#[test]
fn less_sure_is_not_joined() {
    let mut scene = scene();
    scene.recorded(0).confidence = Some("inferred".to_owned());
    let found = scene.judge();
    assert_eq!((found.joined, found.inferred, found.linked), (3, 1, 4));
    assert!(found.none(&expected()), "the links are as sure");
    scene.recorded(0).method = Some("pooler".to_owned());
    assert_eq!(scene.judge().linked, 3);
}

#[test]
fn what_nobody_names_must_have_been_open_and_no_oftener() {
    let mut scene = scene();
    scene.recorded(2).start_ns = 3 * SECOND - APART_NS / 4;
    scene.recorded(2).end_ns = 3 * SECOND - APART_NS / 4;
    assert_eq!(scene.judge().impossible, 1, "it was answered a second before");
    let mut scene = self::scene();
    scene.truth.owners[0][4] = Owner::Unsure;
    let one = scene.recorded(4);
    (one.principal, one.pid) = (Some(B.to_owned()), Some(2));
    assert_eq!(scene.judge().impossible, 1, "b sent S once");
}

#[test]
fn a_person_is_shown_for_the_client_that_named_it_only() {
    let mut scene = scene();
    scene.recorded(0).end_user = Some("a".to_owned());
    scene.recorded(3).end_user = Some("a".to_owned());
    scene.recorded(1).end_user = Some("a".to_owned());
    let found = scene.judge();
    assert_eq!((found.end_users, found.foreign_shown), (1, 2));
}

#[test]
fn missing_and_extra_shift_nothing() {
    let mut scene = scene();
    scene.record.requests[0].remove(1);
    let found = scene.judge();
    assert_eq!((found.missing, found.extra, found.wrong_principal), (1, 0, 0));
    assert!(!found.none(&expected()));
    let lossy = Expected {
        lossy: true,
        ..expected()
    };
    assert_eq!(found.untold, 1);
    assert!(!found.none(&lossy), "nobody told that it is missing");
    let second = i64::try_from(SECOND).unwrap();
    let gap = |pid, from_ns| Gap {
        backend_pid: Some(pid),
        from_ns,
        to_ns: Some(from_ns + second / 4),
    };
    scene.record.gaps = vec![gap(7, second - 1), gap(0, 2 * second)];
    assert_eq!(scene.judge().untold, 1, "another session's, and another time");
    scene.record.gaps.push(gap(0, second - 1));
    assert!(scene.judge().none(&lossy));
    let mut scene = self::scene();
    let again = scene.record.requests[0][3].clone();
    scene.record.requests[0].insert(3, again);
    let found = scene.judge();
    assert_eq!((found.missing, found.extra, found.wrong_principal), (0, 1, 0));
}

#[test]
fn witnesses_that_disagree_fail_the_suite() {
    let mut scene = scene();
    scene.truth.disagreements.push("x".to_owned());
    assert!(!scene.judge().none(&expected()));
}
