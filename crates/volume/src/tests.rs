//! Every execution is told exactly once: by itself, in a roll-up, or as a number.

use std::{collections::HashMap, sync::Arc};

use proto::v1;
use sql_meaning::Interpreter;
use subjects::{Classification, LISTED_TOKENS, Token, Told as ToldTokens};
use tap_core::{
    Body, EffectiveRole, Endpoint, Event, ExchangeKind, Final, Outcome, Phase, Query, SessionFacts, Sources,
    Subject, Times, Touched, TransactionEnd, Transport,
};

use super::*;

mod policies;

const PRINCIPAL: &str = "spiffe://x/host/h/unit/shop.service";

fn facts(cookie: u64) -> Arc<SessionFacts> {
    Arc::new(SessionFacts {
        cookie,
        backend_pid: 7,
        server_pid: 1,
        transport: Transport::Unix,
        is_counted: false,
        client: Endpoint::Unix(String::new()),
        server: Endpoint::Unix("/s".to_owned()),
        netns: 1,
        opened_before_attach: false,
        fingerprint: None,
        login_role: Some("app_user".to_owned()),
        database: Some("shop".to_owned()),
        application_name: Some("pgbench".to_owned()),
        server_version: None,
        auth_method: None,
        encryption: None,
        tls_version: None,
        tls_cipher: None,
    })
}

fn who(confidence: v1::Confidence) -> Arc<v1::Attribution> {
    Arc::new(v1::Attribution {
        principal: PRINCIPAL.to_owned(),
        confidence: confidence.into(),
        ..v1::Attribution::default()
    })
}

fn query(text: &str, tag: &str) -> Query {
    let statement = Interpreter::new(1).interpret(text.as_bytes());
    Query {
        number: 1,
        asserted: None,
        effective_role: None,
        kind: ExchangeKind::Simple,
        text: Some(Arc::clone(&statement.redacted)),
        objects: None,
        statement: Some(statement),
        source: None,
        source_statement: None,
        replication: false,
        function_oid: None,
        original_bytes: text.len() as u64,
        digest: None,
        truncated: false,
        text_is_shared: false,
        statement_name: Default::default(),
        portal: Default::default(),
        index: 0,
        param_count: 0,
        params: Arc::default(),
        touched: None,
        phase: Phase::Complete,
        outcome: Outcome::Ok,
        tag: Some(tag.into()),
        rows: 2,
        rows_affected: sql_meaning::rows_affected(tag),
        bytes_in: 10,
        bytes_out: 20,
        copy_bytes: None,
        error: None,
        columns: Arc::default(),
        transaction_status: Some(b'I'),
        transaction: 1,
        transaction_final: Some(Final::Committed),
        continues: None,
        request: 0..10,
        response_to: 20,
        client: None,
    }
}

fn event(facts: &Arc<SessionFacts>, at: u64, body: Body) -> Event {
    Event {
        times: Times {
            start: at,
            first_response: Some(at + 1),
            end: at + 4,
        },
        session: Arc::clone(facts),
        body,
    }
}

fn volume(policy: &str) -> Volume {
    Volume::new(
        Policy::parse(policy, &Classification::default()).expect("a policy"),
        1_000,
    )
}

const ROLL: &str = "[[rule]]\nkeep = \"rollup\"\nname = \"all\"\n";

fn told(volume: &mut Volume) -> Vec<Told> {
    std::iter::from_fn(|| volume.poll()).collect()
}

fn rolled(told: Told) -> Rolled {
    match told {
        Told::Rollup(roll) => *roll,
        Told::Single(..) => panic!("several"),
    }
}

#[test]
fn equal_executions_are_one_with_their_sums() {
    let (facts, who) = (facts(1), who(v1::Confidence::Observed));
    let mut volume = volume(ROLL);
    for n in 0..3 {
        let mut one = query(&format!("UPDATE t SET a = {n} WHERE b = 'x{n}'"), "UPDATE 2");
        one.transaction = n + 1;
        one.request = n * 10..n * 10 + 9;
        one.response_to = n * 20 + 20;
        let taken = volume.take(
            event(&facts, 100 + n * 10, Body::Query(Box::new(one))),
            Some(&who),
            100,
        );
        assert!(taken.is_none() && volume.poll().is_none());
    }
    assert!(volume.holds(1) && volume.oldest() == Some(100));
    assert!(!volume.handle_time(1_099));
    assert!(volume.handle_time(1_100));
    let [one] = told(&mut volume).try_into().expect("one");
    let roll = rolled(one);
    assert_eq!(
        (roll.executions, roll.transactions, roll.ends.committed),
        (3, 3, 3)
    );
    assert_eq!((roll.duration_ns, roll.durations.counts()), (12, (2, &[3][..])));
    assert_eq!((roll.event.times.start, roll.event.times.end), (100, 124));
    let Body::Query(sum) = &roll.event.body else {
        panic!("a query")
    };
    assert_eq!(
        (sum.rows, sum.rows_affected, sum.bytes_in, sum.bytes_out),
        (6, Some(6), 30, 60)
    );
    assert_eq!((sum.request.clone(), sum.response_to), (0..29, 60));
    assert_eq!(
        (sum.tag.as_deref(), sum.transaction, sum.original_bytes),
        (Some("UPDATE"), 0, 0)
    );
    assert_eq!(
        volume.totals(),
        Totals {
            rolled_up: 3,
            left_out: 0
        }
    );
    assert!(!volume.holds(1) && volume.oldest().is_none());
}

#[test]
fn what_differs_in_anything_is_not_put_together() {
    let (facts, who) = (facts(1), who(v1::Confidence::Observed));
    let changes: [fn(&mut Query); 11] = [
        |query| query.statement = Some(Interpreter::new(1).interpret(b"SELECT b FROM t")),
        |query| query.text = Some("select other".into()),
        |query| query.kind = ExchangeKind::Execute,
        |query| query.index = 1,
        |query| query.param_count = 1,
        |query| query.statement_name = "s".into(),
        |query| query.portal = "p".into(),
        |query| query.tag = Some("FETCH 1".into()),
        |query| query.copy_bytes = Some(1),
        |query| query.asserted = Some(Arc::default()),
        |query| {
            query.effective_role = Some(EffectiveRole {
                name: "other".into(),
                possibly_stale: false,
            });
        },
    ];
    let plain = || query("SELECT a FROM t", "SELECT 1");
    for (n, change) in changes.into_iter().enumerate() {
        let mut volume = volume(ROLL);
        let mut other = plain();
        change(&mut other);
        for one in [plain(), other, plain()] {
            volume.take(event(&facts, 1, Body::Query(Box::new(one))), Some(&who), 1);
        }
        volume.flush();
        assert_eq!(told(&mut volume).len(), 2, "change {n}");
    }
    // Nor what another session sent, or somebody else in it, or the same under another application name.
    let mut volume = volume(ROLL);
    let (other_session, other_name) = (self::facts(2), self::facts(1));
    let somebody = self::who(v1::Confidence::Joined);
    for (facts, who) in [
        (&facts, &who),
        (&other_session, &who),
        (&facts, &somebody),
        (&other_name, &who),
    ] {
        volume.take(event(facts, 1, Body::Query(Box::new(plain()))), Some(who), 1);
    }
    volume.flush();
    // What is known of the last session is as it was.
    assert_eq!(told(&mut volume).len(), 3);
}

/// A transaction block: its statements, and the event of its end.
fn block(facts: &Arc<SessionFacts>, number: u64, texts: &[(&str, &str)], how: Final) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for (place, (text, tag)) in texts.iter().enumerate() {
        let mut one = query(text, tag);
        one.transaction = number;
        one.transaction_final = (place + 1 == texts.len()).then_some(how);
        events.push(event(
            facts,
            number * 100 + place as u64,
            Body::Query(Box::new(one)),
        ));
    }
    let end = TransactionEnd {
        number,
        how,
        statements: texts.len() as u64,
    };
    events.push(event(facts, number * 100 + 90, Body::Transaction(end)));
    events
}

const TEXTS: [(&str, &str); 3] = [
    ("BEGIN", "BEGIN"),
    ("UPDATE t SET a = 1", "UPDATE 1"),
    ("END", "COMMIT"),
];

#[test]
fn ends_of_transactions_are_counted_and_not_told() {
    let (facts, who) = (facts(1), who(v1::Confidence::Observed));
    let mut volume = volume(ROLL);
    for number in 1..=5 {
        let how = if number == 4 {
            Final::RolledBack
        } else {
            Final::Committed
        };
        for event in block(&facts, number, &TEXTS, how) {
            assert!(volume.take(event, Some(&who), 1).is_none());
        }
    }
    volume.flush();
    let rolls: Vec<Rolled> = told(&mut volume).into_iter().map(rolled).collect();
    assert_eq!(rolls.len(), 3);
    for roll in rolls {
        assert_eq!((roll.executions, roll.transactions, roll.open), (5, 5, 0));
        assert_eq!((roll.ends.committed, roll.ends.rolled_back), (4, 1));
    }
}

#[test]
fn the_end_of_a_transaction_is_told_where_a_statement_needs_it() {
    let (facts, who) = (facts(1), who(v1::Confidence::Observed));
    // A statement of it is told in full.
    let mut volume = volume("[[rule]]\nkeep = \"full\"\nclass = \"WRITE\"\n[[rule]]\nkeep = \"rollup\"\n");
    let given: Vec<bool> = block(&facts, 1, &TEXTS, Final::Committed)
        .into_iter()
        .map(|event| volume.take(event, Some(&who), 1).is_some())
        .collect();
    assert_eq!(given, [false, true, false, true]);
    // It is open when its window is over.
    let mut volume = self::volume(ROLL);
    let mut events = block(&facts, 1, &TEXTS, Final::Committed);
    events.extend(block(&facts, 2, &TEXTS, Final::Committed));
    let rest = events.split_off(6);
    for event in events {
        assert!(volume.take(event, Some(&who), 1).is_none());
    }
    volume.flush();
    let open: Vec<(u64, u64, u64, u64)> = told(&mut volume)
        .into_iter()
        .filter_map(|told| match told {
            Told::Rollup(roll) => Some((
                roll.executions,
                roll.ends.committed,
                roll.open,
                roll.open_transaction,
            )),
            Told::Single(event, _) => {
                let Body::Query(query) = &event.body else {
                    panic!("a query")
                };
                assert_eq!(query.transaction_final, Some(Final::Committed), "the first END");
                None
            }
        })
        .collect();
    assert_eq!(open, [(2, 1, 1, 2), (2, 1, 1, 2)]);
    let given: Vec<bool> = rest
        .into_iter()
        .map(|event| volume.take(event, Some(&who), 1).is_some())
        .collect();
    assert_eq!(
        given,
        [false, true],
        "END waits, the end of the transaction is told"
    );
}

#[test]
fn one_alone_is_told_as_it_was() {
    let (facts, who) = (facts(1), who(v1::Confidence::Observed));
    let mut volume = volume(ROLL);
    for event in block(&facts, 1, &TEXTS, Final::RolledBack) {
        assert!(volume.take(event, Some(&who), 1).is_none());
    }
    volume
        .take(
            event(
                &facts,
                900,
                Body::SessionClose {
                    reason: "terminate",
                    bytes_in: 1,
                    bytes_out: 1,
                    statements: 3,
                },
            ),
            Some(&who),
            1,
        )
        .expect("told, behind what waited");
    let told = told(&mut volume);
    assert_eq!(told.len(), 3);
    for one in told {
        let Told::Single(event, Some(_)) = one else {
            panic!("one alone")
        };
        let Body::Query(query) = event.body else {
            panic!("a query")
        };
        assert_eq!(query.transaction_final, Some(Final::RolledBack));
        assert_eq!((query.transaction, query.original_bytes > 0), (1, true));
    }
    assert!(!volume.holds(1));
}

#[test]
fn what_is_left_out_is_held_until_its_number_is_told() {
    let (facts, who) = (facts(1), who(v1::Confidence::Observed));
    let mut volume = volume("[[rule]]\nkeep = \"off\"\nname = \"noise\"\nclass = \"READ\"\n");
    for n in 0..4 {
        let one = Body::Query(Box::new(query("SELECT a FROM t", "SELECT 1")));
        assert!(volume.take(event(&facts, 50 + n, one), Some(&who), 1).is_none());
    }
    volume.flush();
    assert!(told(&mut volume).is_empty());
    assert!(volume.holds(1) && volume.owes_numbers() && volume.oldest() == Some(50));
    assert_eq!(volume.left_out().collect::<Vec<_>>(), [("noise", 4)]);
    volume.session_over(1);
    assert!(
        volume.holds(1),
        "the connection is over, and nothing of it was told"
    );
    volume.numbers_told(|_| false);
    assert!(!volume.holds(1) && !volume.owes_numbers() && volume.oldest().is_none());
    assert_eq!(volume.totals().left_out, 4);
}

#[test]
fn what_finds_no_room_is_told_early() {
    let (facts, who) = (facts(1), who(v1::Confidence::Observed));
    let mut volume = volume(ROLL);
    let mut count = 0;
    for n in 0..600 {
        let one = Body::Query(Box::new(query(&format!("SELECT a{n} FROM t"), "SELECT 1")));
        assert!(volume.take(event(&facts, 1, one), Some(&who), 1).is_none());
        count += told(&mut volume).len();
    }
    assert!(
        count > 0 && volume.rolls <= 256,
        "{count} told, {} wait",
        volume.rolls
    );
    volume.flush();
    assert_eq!(count + told(&mut volume).len(), 600);
    assert_eq!((volume.rolls, volume.bytes), (0, 0));
}

/// The reference model: all that happened, told again from what came out.
#[test]
fn nothing_is_lost_and_nothing_told_twice() {
    let who = who(v1::Confidence::Observed);
    let sessions = [facts(1), facts(2), facts(3)];
    let policy =
        "[[rule]]\nkeep = \"off\"\ncommand = \"SELECT\"\nobject = \"noise\"\n[[rule]]\nkeep = \"rollup\"\n";
    let mut volume = volume(policy);
    // A linear congruential generator: the same each time.
    let mut state = 7_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let texts = [
        ("SELECT a FROM t", "SELECT 1"),
        ("SELECT a FROM noise", "SELECT 1"),
        ("INSERT INTO t VALUES (1)", "INSERT 0 3"),
        ("GRANT x TO y", "GRANT ROLE"),
    ];
    let (mut rows, mut sent, mut left_out, mut ends) = (0, 0, 0, HashMap::<Final2, u64>::new());
    let mut numbers = [0_u64; 3];
    let mut out = Sums::default();
    for now in 0..20_000 {
        let place = random(3) as usize;
        let facts = &sessions[place];
        numbers[place] += 1;
        let how = if random(5) == 0 {
            Final::RolledBack
        } else {
            Final::Committed
        };
        let picked: Vec<(&str, &str)> = (0..1 + random(4)).map(|_| texts[random(4) as usize]).collect();
        for (text, _) in &picked {
            sent += 1;
            if text.contains("noise") {
                left_out += 1;
            } else {
                rows += 2;
                *ends.entry(how.into()).or_default() += 1;
            }
        }
        for event in block(facts, numbers[place], &picked, how) {
            if let Some(event) = volume.take(event, Some(&who), now) {
                for told in told(&mut volume) {
                    out.take(told);
                }
                out.take(Told::Single(event, None));
            }
            if random(50) == 0 {
                volume.handle_time(now);
            }
            for told in told(&mut volume) {
                out.take(told);
            }
        }
    }
    volume.flush();
    for told in told(&mut volume) {
        out.take(told);
    }
    assert_eq!(out.executions + left_out, sent);
    assert_eq!((out.rows, volume.totals().left_out), (rows, left_out));
    assert!(out.open.is_empty(), "every end was told: {:?}", out.open.len());
    assert_eq!(out.ends, ends);
    assert!(out.events < sent / 2, "{} events of {sent}", out.events);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Final2 {
    Committed,
    Other,
}

impl From<Final> for Final2 {
    fn from(how: Final) -> Self {
        match how {
            Final::Committed => Self::Committed,
            _ => Self::Other,
        }
    }
}

/// What came out.
#[derive(Default)]
struct Sums {
    events: u64,
    executions: u64,
    rows: u64,
    ends: HashMap<Final2, u64>,
    /// Executions of transactions whose end is still to be told.
    open: HashMap<(u64, u64), u64>,
}

impl Sums {
    fn take(&mut self, told: Told) {
        self.events += 1;
        let (event, executions, roll) = match told {
            Told::Single(event, _) => (event, 1, None),
            Told::Rollup(roll) => (roll.event.clone(), roll.executions, Some(roll)),
        };
        let cookie = event.session.cookie;
        match &event.body {
            Body::Query(query) => {
                self.executions += executions;
                self.rows += query.rows;
                let ends = roll.as_ref().map(|roll| roll.ends).unwrap_or_default();
                *self.ends.entry(Final2::Committed).or_default() += ends.committed;
                *self.ends.entry(Final2::Other).or_default() += ends.rolled_back;
                let open = match (&roll, query.transaction_final) {
                    (Some(roll), _) => Some((roll.open_transaction, roll.open)).filter(|(_, open)| *open > 0),
                    (None, Some(how)) => {
                        *self.ends.entry(how.into()).or_default() += 1;
                        None
                    }
                    (None, None) => Some((query.transaction, 1)),
                };
                if let Some((number, count)) = open {
                    *self.open.entry((cookie, number)).or_default() += count;
                }
                if let Some(roll) = &roll {
                    assert_eq!(ends.committed + ends.rolled_back + roll.open, executions);
                }
            }
            Body::Transaction(end) => {
                let count = self.open.remove(&(cookie, end.number)).unwrap_or(0);
                *self.ends.entry(end.how.into()).or_default() += count;
            }
            _ => {}
        }
    }
}

const CLASSIFICATION: &str =
    "[[column]]\nobject = \"public.customers\"\ncolumn = \"id\"\ntype = \"bigint\"\nsubject = true\n";

#[test]
fn a_roll_up_has_the_records_of_all_its_executions() {
    let (facts, who) = (facts(1), who(v1::Confidence::Observed));
    let classification = Classification::parse(CLASSIFICATION).expect("a classification");
    let of = Arc::new(classification.all_subjects().next().expect("one").clone());
    let touching = |numbers: std::ops::Range<usize>, complete| {
        let mut tokens: Vec<Token> = numbers
            .map(|number| Token((number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()))
            .collect();
        tokens.sort_unstable();
        let mut query = query("SELECT a FROM customers WHERE id = 5", "SELECT 1");
        query.touched = Some(Box::new(Touched {
            subjects: vec![Subject {
                of: Arc::clone(&of),
                key: "k1".into(),
                told: ToldTokens {
                    tokens,
                    ..ToldTokens::default()
                },
                complete,
                sources: Sources::default(),
            }],
            params: Vec::new(),
        }));
        event(&facts, 1, Body::Query(Box::new(query)))
    };
    let policy = format!("classified = \"rollup\"\n{ROLL}");
    let parsed = |text: &str| Policy::parse(text, &classification).expect("a policy");
    // Unless the policy says so, a classified object is sensitive.
    let mut volume = Volume::new(parsed(ROLL), 1);
    assert!(volume.take(touching(0..1, true), Some(&who), 1).is_some());
    volume.change(parsed(&policy));
    for one in [0..3, 2..5, 4..6] {
        assert!(volume.take(touching(one, true), Some(&who), 1).is_none());
    }
    // Not as sure as the others; and more than one event lists, twice.
    volume.take(touching(7..8, false), Some(&who), 1);
    for n in 1..=2 {
        volume.take(
            touching(n * 10_000..n * 10_000 + LISTED_TOKENS, true),
            Some(&who),
            1,
        );
    }
    volume.flush();
    let tokens: Vec<(u64, usize)> = told(&mut volume)
        .into_iter()
        .map(|told| {
            let (event, executions) = match told {
                Told::Single(event, _) => (event, 1),
                Told::Rollup(roll) => (roll.event.clone(), roll.executions),
            };
            let Body::Query(query) = event.body else {
                panic!("a query")
            };
            let subject = query.touched.expect("something").subjects.remove(0);
            assert!(subject.told.tokens.is_sorted());
            (executions, subject.told.tokens.len())
        })
        .collect();
    assert_eq!(tokens, [(3, 6), (1, 1), (1, LISTED_TOKENS), (1, LISTED_TOKENS)]);
}
