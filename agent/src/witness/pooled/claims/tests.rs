//! Whose word a setting is, turn by turn.

use tap_core::Claim;

use super::*;

const ANN: Whose = Whose::Client(1);
const BOB: Whose = Whose::Client(2);

fn claim(says: &str, source: Source, set_by: Option<u64>) -> Claim {
    Claim {
        says: says.into(),
        value: "ann".into(),
        source,
        set_by: set_by.map(|statement| SetBy {
            statement,
            request_from: statement * 100,
            index: 0,
            lease: None,
        }),
        possibly_stale: false,
    }
}

fn end_user(set_by: Option<u64>) -> Claim {
    claim(END_USER, Source::Set("app.end_user".into()), set_by)
}

fn asserted(claims: Vec<Claim>) -> Arc<Asserted> {
    Arc::new(Asserted {
        claims,
        ..Asserted::default()
    })
}

/// Turns that begin with these statements.
fn turns(of: &[(u64, Whose)]) -> Turns {
    let mut turns = Turns::default();
    for (statement, whose) in of {
        turns.add(*statement, *whose);
    }
    turns
}

fn own(turns: &Turns, claims: Vec<Claim>, whose: Whose) -> Asserted {
    let own = turns.own(&asserted(claims), whose).expect("what is asserted");
    Asserted::clone(&own)
}

#[test]
fn what_a_client_set_is_its_own_in_every_later_turn_of_it() {
    let turns = turns(&[(1, ANN), (4, BOB), (7, ANN)]);
    let shown = own(&turns, vec![end_user(Some(2))], ANN);
    assert_eq!(shown.end_user().map(|claim| &*claim.value), Some("ann"));
    assert_eq!((shown.unknown, shown.foreign.len()), (None, 0));
}

#[test]
fn what_another_client_left_behind_is_foreign_and_its_value_is_kept_back() {
    let turns = turns(&[(1, ANN), (4, BOB)]);
    let shown = own(&turns, vec![end_user(Some(2))], BOB);
    assert_eq!(shown.claims, [], "nothing is Bob's that Bob did not set");
    assert_eq!(shown.unknown, Some(FOREIGN));
    assert_eq!(shown.foreign, [Arc::from(END_USER)]);
}

#[test]
fn a_setting_that_a_rollback_brings_back_is_its_setters() {
    // Ann set it, Bob set another in a transaction that he took back: Ann's counts again.
    let turns = turns(&[(1, ANN), (4, BOB), (8, ANN), (9, BOB)]);
    let claims = || vec![end_user(Some(2))];
    assert!(own(&turns, claims(), ANN).end_user().is_some());
    assert!(own(&turns, claims(), BOB).end_user().is_none());
}

#[test]
fn whose_statement_is_not_known_asserts_nothing_but_its_comment() {
    let turns = turns(&[(1, Whose::Unknown), (4, ANN), (7, Whose::Unknown)]);
    let comment = claim(END_USER, Source::Comment, None);
    for (setter, whose) in [(2, Whose::Unknown), (5, Whose::Unknown), (2, ANN), (8, ANN)] {
        let shown = own(&turns, vec![end_user(Some(setter))], whose);
        assert_eq!(shown.claims, [], "{setter} {whose:?}");
        let shown = own(&turns, vec![comment.clone(), end_user(Some(setter))], whose);
        assert_eq!(shown.claims, std::slice::from_ref(&comment));
        assert_eq!(shown.unknown, None, "its own comment names somebody");
        assert_eq!(shown.foreign, [Arc::from(END_USER)]);
    }
}

#[test]
fn what_the_pooler_repeats_for_its_next_client_is_that_clients() {
    let turns = turns(&[
        (1, ANN),
        (4, Whose::Own),
        (5, BOB),
        (8, Whose::Own),
        (9, Whose::Unknown),
    ]);
    let name = |by| claim(END_USER, Source::Set("application_name".into()), Some(by));
    assert!(own(&turns, vec![name(4)], BOB).end_user().is_some());
    assert!(own(&turns, vec![name(4)], ANN).end_user().is_none());
    assert!(
        own(&turns, vec![name(8)], BOB).end_user().is_none(),
        "for whom is not known"
    );
    // A setting that poolers do not carry over: nobody's but the pooler's.
    for whose in [ANN, BOB] {
        assert!(own(&turns, vec![end_user(Some(4))], whose).end_user().is_none());
    }
    assert!(
        own(&turns, vec![end_user(Some(4))], Whose::Own)
            .end_user()
            .is_some()
    );
}

#[test]
fn the_startup_packet_is_the_poolers() {
    let turns = turns(&[(1, ANN)]);
    let startup = || vec![claim("tenant", Source::Startup("app.tenant".into()), None)];
    let shown = own(&turns, startup(), ANN);
    assert_eq!(shown.claims, []);
    assert_eq!(shown.foreign, [Arc::from("tenant")]);
    assert_eq!(shown.unknown, None, "it names no person");
    assert_eq!(own(&turns, startup(), Whose::Own).claims, startup());
    let reported = vec![claim(END_USER, Source::Reported("application_name".into()), None)];
    assert_eq!(own(&turns, reported, ANN).claims, []);
}

#[test]
fn turns_are_bounded_and_what_is_forgotten_is_nobodys() {
    let mut turns = Turns::default();
    turns.add(1, ANN);
    for statement in 2..100_000 {
        turns.add(statement, if statement % 2 == 0 { BOB } else { ANN });
    }
    assert_eq!(turns.turns.len(), TURNS);
    assert!(own(&turns, vec![end_user(Some(1))], ANN).end_user().is_none());
    assert!(
        own(&turns, vec![end_user(Some(99_999))], ANN)
            .end_user()
            .is_some()
    );
    assert!(
        own(&turns, vec![end_user(Some(99_998))], ANN)
            .end_user()
            .is_none()
    );
}

#[test]
fn what_says_nothing_foreign_is_not_copied() {
    let turns = turns(&[(1, ANN)]);
    let all = asserted(vec![end_user(Some(1))]);
    assert!(
        turns
            .own(&all, ANN)
            .is_some_and(|shown| Arc::ptr_eq(&shown, &all))
    );
}
