use serde_json::json;

use super::*;

fn line(mark: &str) -> Line {
    let facts = json!({"pid": 7, "ticks": 12, "exe": "/bin/a", "uid": 5, "login_uid": u32::MAX, "cgroup": "/x/a.service"});
    let line =
        json!({"case": "a", "mark": mark, "backend": 70, "said": 1, "client": facts, "speaker": facts});
    serde_json::from_value(line).unwrap()
}

fn event(principal: &str, confidence: &str, reason: &str) -> Recorded {
    let process =
        json!({"pid": 7, "start_ns": 123_456_789, "exe": "/bin/a", "uid": 5, "cgroup_path": "/x/a.service"});
    let event = json!({
        "session": {"backend_pid": 70},
        "statement": {"text": "SELECT 1 /* mark=a.1 */"},
        "attribution": {"principal": principal, "confidence": confidence, "reason": reason, "process": process},
    });
    serde_json::from_value(event).unwrap()
}

fn judged(who: Who, line: &Line, event: Recorded) -> Findings {
    let expected = BTreeMap::from([("a".to_owned(), Expected::of(who))]);
    judge(
        &expected,
        std::slice::from_ref(line),
        &HashMap::from([("a.1".to_owned(), vec![event])]),
    )
}

#[test]
fn the_right_name_and_the_right_facts_are_right() {
    let who = Who::Named("/unit/a.service".to_owned());
    let found = judged(
        who,
        &line("a.1"),
        event("spiffe://t/host/h/unit/a.service", "observed", ""),
    );
    assert!(found.none(), "{found:?}");
    assert_eq!((found.connections, found.observed), (1, 1));
}

#[test]
fn each_kind_of_difference_is_counted() {
    let named = || Who::Named("/unit/a.service".to_owned());
    let right = || event("spiffe://t/host/h/unit/a.service", "observed", "");
    let other = judged(
        named(),
        &line("a.1"),
        event("spiffe://t/host/h/unit/b.service", "observed", ""),
    );
    assert_eq!((other.wrong_principal, other.none()), (1, false));
    let silent = judged(named(), &line("a.1"), event("unknown", "none", ""));
    assert_eq!((silent.unknown_without_reason, silent.none()), (1, false));
    let unsure = judged(named(), &line("a.1"), event("unknown", "none", "gone"));
    assert_eq!(
        (unsure.unknown_with_reason, unsure.none()),
        (1, false),
        "none of one is observed"
    );
    let weak = judged(
        named(),
        &line("a.1"),
        event("spiffe://t/host/h/unit/a.service", "inferred", ""),
    );
    assert_eq!(weak.wrong_confidence, 1);
    let journal = Line {
        client: Facts {
            uid: 6,
            ..line("a.1").client
        },
        ..line("a.1")
    };
    assert_eq!(judged(named(), &journal, right()).wrong_process, 1);
    let journal = Line {
        backend: 71,
        ..line("a.1")
    };
    assert_eq!(judged(named(), &journal, right()).wrong_session, 1);
    let journal = Line {
        said: 2,
        ..line("a.1")
    };
    assert_eq!(judged(named(), &journal, right()).missing, 1);
    let swapped = judged(named(), &line("a.2"), right());
    assert_eq!((swapped.missing, swapped.extra), (1, 1));
}

#[test]
fn a_relay_is_unknown_and_its_kind_is_said() {
    let proxy = |event| judged(Who::BehindRelay("proxy"), &line("a.1"), event);
    let found = proxy(event(
        "unknown",
        "none",
        "passed on by a proxy (/usr/sbin/haproxy, x)",
    ));
    assert_eq!((found.relayed, found.none()), (1, true));
    assert_eq!(
        proxy(event("spiffe://t/host/h/unit/haproxy.service", "observed", "")).wrong_principal,
        1
    );
    assert_eq!(
        proxy(event(
            "unknown",
            "none",
            "passed on by a tunnel (/usr/bin/socat, x)"
        ))
        .unknown_without_reason,
        1
    );
}
