//! Connections that are older than the tap: what a former run of it left, and what is left for the next one.

mod host;

use ebpf_abi::Channel;
use host::{line, wire::*, *};
use tap_core::{
    AGENT_RESTART, Body, Direction, Earlier, Event, Places, Redaction, Settings, Tap, Title, Told,
};

/// The agent is gone: nothing that it knew is left, but the connections and their places are.
fn restart(host: &mut Host) {
    host.tap = Tap::new(Settings {
        redaction: Redaction::Clear,
        ..Settings::default()
    });
    host.events();
}

/// The next run finds the connection that this one left at `told`.
fn find(host: &mut Host, places: Option<Places>, since: u64) {
    host.accept(&mid_stream(tcp(COOKIE, BACKEND)));
    let at = host.at;
    let earlier = Earlier {
        places,
        between_requests: true,
        since,
        reason: AGENT_RESTART,
    };
    host.tap.handle_earlier(COOKIE, at, earlier);
}

fn told(host: &Host) -> Option<Told> {
    host.tap.told(COOKIE)
}

fn ask(host: &mut Host, sql: &str) {
    host.client(&[query(sql)]);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
}

#[test]
fn what_passed_between_two_runs_is_a_gap_of_its_exact_size() {
    let mut host = Host::logged_in();
    ask(&mut host, "SELECT 1");
    let left = told(&host).unwrap();
    assert!(left.settled);
    assert_eq!(left.places.channel, Channel::Socket as u8);
    restart(&mut host);
    host.unseen(COOKIE, Direction::Frontend, 31);
    host.unseen(COOKIE, Direction::Backend, 64);
    find(&mut host, Some(left.places), left.at);
    assert!(
        host.events().is_empty(),
        "nothing was heard of the connection yet"
    );
    ask(&mut host, "SELECT 2");
    let events = host.events();
    assert_eq!(
        events.iter().map(line).collect::<Vec<_>>(),
        ["gap agent_restart Frontend 31", "gap agent_restart Backend 64",]
    );
    for event in &events {
        assert_eq!(event.times.start, left.at);
        assert!(event.times.end > left.at);
    }
    ask(&mut host, "SELECT 3");
    let lines = host.lines();
    assert!(
        lines.iter().any(|line| line.contains("SELECT 3")),
        "in step again: {lines:?}"
    );
}

#[test]
fn who_said_nothing_goes_on_as_if_nothing_had_been() {
    let mut host = Host::logged_in();
    let left = told(&host).unwrap();
    assert!(left.settled && left.between_requests);
    restart(&mut host);
    find(&mut host, Some(left.places), left.at);
    ask(&mut host, "SELECT 1");
    ask(&mut host, "SELECT 2");
    assert_eq!(
        host.lines(),
        [
            "Simple SELECT 1 Ok@Complete \"SELECT 1\" I1",
            "Simple SELECT 2 Ok@Complete \"SELECT 1\" I2"
        ]
    );
    assert!(told(&host).unwrap().settled);
}

#[test]
fn who_is_heard_too_late_gets_into_step_later() {
    // The server speaks first: the request went by unseen, or it speaks of itself.
    let mut host = Host::logged_in();
    let left = told(&host).unwrap();
    restart(&mut host);
    host.unseen(COOKIE, Direction::Frontend, query("SELECT 0").len() as u64);
    find(&mut host, Some(left.places), left.at);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    ask(&mut host, "SELECT 1");
    ask(&mut host, "SELECT 2");
    let lines = host.lines();
    assert_eq!(lines[0], "gap agent_restart Frontend 14");
    assert!(!lines.iter().any(|line| line.contains("malformed")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("SELECT 1 Ok")), "{lines:?}");
    // The client is where it was, but the server said something meanwhile.
    let mut host = Host::logged_in();
    let left = told(&host).unwrap();
    restart(&mut host);
    host.unseen(COOKIE, Direction::Backend, notice().len() as u64);
    find(&mut host, Some(left.places), left.at);
    ask(&mut host, "SELECT 1");
    ask(&mut host, "SELECT 2");
    let lines = host.lines();
    let missed = format!("gap agent_restart Backend {}", notice().len());
    assert!(lines.contains(&missed), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.contains("SELECT 1 Unknown")),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line.contains("SELECT 2 Ok")), "{lines:?}");
}

#[test]
fn a_request_without_its_answer_is_not_told() {
    let mut host = Host::logged_in();
    let before = told(&host).unwrap();
    host.client(&[query("SELECT 1")]);
    assert_eq!(host.tap.told(COOKIE), None, "and no unit before it was");
    ask(&mut host, "SELECT 2");
    assert!(told(&host).unwrap().places.frontend > before.places.frontend);
    // Requests in a pipeline: told is what a ReadyForQuery ended.
    let mut host = Host::logged_in();
    let unit = || [parse("", "SELECT 1"), bind("", "", &[]), execute("", 0), sync()].concat();
    host.client(&[unit(), unit()]);
    host.server(&[parsed(), bound(), complete("SELECT 1"), ready(b'I')]);
    let half = told(&host).unwrap();
    assert!(!half.settled);
    assert_eq!(
        half.places.frontend - before.places.frontend,
        unit().len() as u64 - sync().len() as u64
    );
    host.server(&[parsed(), bound(), complete("SELECT 1"), ready(b'I')]);
    let whole = told(&host).unwrap();
    assert!(whole.settled);
    assert_eq!(
        whole.places.frontend - before.places.frontend,
        2 * unit().len() as u64
    );
}

#[test]
fn where_nothing_counts_the_gap_is_told_at_once_and_has_no_size() {
    let mut host = Host::logged_in();
    restart(&mut host);
    find(&mut host, None, 500);
    host.accept(&mid_stream(tcp(COOKIE, BACKEND)));
    assert_eq!(host.tap.told(COOKIE), None);
    ask(&mut host, "SELECT 1");
    assert_eq!(
        host.lines(),
        ["gap agent_restart Frontend ?", "gap agent_restart Backend ?"]
    );
    // Offsets of another channel do not count either.
    let mut host = Host::logged_in();
    let left = told(&host).unwrap();
    restart(&mut host);
    let plain = Places {
        channel: Channel::Tls as u8,
        ..left.places
    };
    find(&mut host, Some(plain), left.at);
    ask(&mut host, "SELECT 1");
    assert_eq!(
        host.lines(),
        ["gap agent_restart Frontend ?", "gap agent_restart Backend ?"]
    );
}

#[test]
fn an_end_tells_the_rest() {
    // By the kernel's count.
    let mut host = Host::logged_in();
    let left = told(&host).unwrap();
    restart(&mut host);
    host.unseen(COOKIE, Direction::Frontend, 5);
    find(&mut host, Some(left.places), left.at);
    host.close(COOKIE);
    assert_eq!(
        host.lines(),
        ["gap agent_restart Frontend 5", "close closed statements=0"]
    );
    // Without one.
    let mut host = Host::logged_in();
    let left = told(&host).unwrap();
    restart(&mut host);
    find(&mut host, Some(left.places), left.at);
    host.exit(BACKEND);
    assert_eq!(
        host.lines(),
        [
            "gap agent_restart Frontend ?",
            "gap agent_restart Backend ?",
            "close backend-exit statements=0"
        ]
    );
}

#[test]
fn a_title_names_a_session_that_has_not_named_itself() {
    let title = || Title {
        login_role: "ann".to_owned(),
        database: Some("shop".to_owned()),
    };
    let mut host = Host::new(Redaction::Clear);
    host.accept(&mid_stream(tcp(COOKIE, BACKEND)));
    host.tap.handle_title(COOKIE, title());
    let facts = host.tap.session(COOKIE).expect("the session").clone();
    assert_eq!(
        (facts.login_role.as_deref(), facts.database.as_deref()),
        (Some("ann"), Some("shop"))
    );
    let mut host = Host::connected();
    host.client(&[startup(&[("user", "bob")])]);
    host.tap.handle_title(COOKIE, title());
    let facts = host.tap.session(COOKIE).expect("the session").clone();
    assert_eq!(
        (facts.login_role.as_deref(), facts.database.as_deref()),
        (Some("bob"), Some("bob"))
    );
}

#[test]
fn touched_is_who_was_heard_of() {
    let mut host = Host::logged_in();
    assert_eq!(host.tap.take_touched(), [COOKIE]);
    assert!(host.tap.take_touched().is_empty());
    ask(&mut host, "SELECT 1");
    ask(&mut host, "SELECT 2");
    assert_eq!(host.tap.take_touched(), [COOKIE]);
}

/// Whenever the agent is killed: a query that it has not told of ends behind the place up to which all was told.
#[test]
fn told_is_never_too_far() {
    for (name, conversation) in samples::all() {
        let whole = whole(&conversation);
        for step in [1, 7, 1000] {
            let mut host = Host::connected();
            let mut told = 0;
            for (direction, bytes) in &conversation.turns {
                for piece in bytes.chunks(step) {
                    host.segment(COOKIE, *direction, piece);
                    told += queries(host.events()).len();
                    let Some(left) = host.tap.told(COOKIE) else {
                        continue;
                    };
                    for (request, response_to) in whole.iter().skip(told) {
                        assert!(
                            *request > left.places.frontend || *response_to > left.places.backend,
                            "{name}: {request} of {left:?}"
                        );
                    }
                }
            }
        }
    }
}

/// Ends of all requests and answers, in the order in which they are told.
fn whole(conversation: &Conversation) -> Vec<(u64, u64)> {
    let mut host = Host::connected();
    host.play(COOKIE, conversation);
    let events: Vec<Event> = host.events();
    events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Query(query) => Some((query.request.end, query.response_to)),
            _ => None,
        })
        .collect()
}
