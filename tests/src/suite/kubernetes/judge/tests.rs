//! Made-up connections: each kind of difference is counted as what it is.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::super::record::Amendment;
use super::*;

const SECOND: i64 = 1_000_000_000;

fn truth() -> Truth {
    let pod = json!({"kind": "Pod", "metadata": {"uid": "u", "name": "web-1", "namespace": "shop", "ownerReferences": [
            {"kind": "ReplicaSet", "name": "web", "uid": "r", "controller": true}]},
        "spec": {"serviceAccountName": "web", "nodeName": "node-1"}});
    let set = json!({"kind": "ReplicaSet", "metadata": {"uid": "r", "ownerReferences": [
        {"kind": "Deployment", "name": "web", "uid": "d", "controller": true}]}});
    let mut truth = Truth::default();
    truth.list(&json!({"items": [pod, set]}).to_string()).unwrap();
    truth
}

fn said(kind: &str) -> Said {
    Said {
        mark: "m".to_owned(),
        kind: kind.to_owned(),
        uid: "u".to_owned(),
        way: "direct".to_owned(),
        claims: "shop/web-1/web/node-1".to_owned(),
    }
}

fn right() -> Value {
    json!({"principal": "spiffe://td/ns/shop/sa/web", "kind": "kubernetes", "confidence": "observed",
        "method": "tcp-owner", "amended_by": "c-1", "put_in": true, "pod": {"uid": "u", "name": "web-1", "namespace": "shop",
        "service_account": "web", "node": "node-1", "owners": [{"kind": "ReplicaSet", "name": "web"},
        {"kind": "Deployment", "name": "web"}]}})
}

fn recorded(attribution: &Value) -> Record {
    let attribution: Attribution = serde_json::from_value(attribution.clone()).unwrap();
    let name = (130 * SECOND, attribution.principal.clone());
    let amendment = Amendment {
        of: "s".to_owned(),
        at_ns: 140 * SECOND,
    };
    let statement = Statement {
        at_ns: 100 * SECOND,
        attribution,
    };
    Record {
        statements: HashMap::from([("m".to_owned(), vec![statement])]),
        amendments: HashMap::from([("c-1".to_owned(), amendment)]),
        names: HashMap::from([("s".to_owned(), vec![name])]),
    }
}

fn found(said: &Said, record: &Record, away: &[(i64, i64)], held: &[(i64, i64)]) -> Findings {
    let truth = truth();
    let known = Known {
        truth: &truth,
        trust_domain: "td",
        away,
        held: &Held::from([("u".to_owned(), held.to_vec())]),
    };
    judge(std::slice::from_ref(said), record, &known)
}

#[test]
fn what_is_right_is_right_and_as_late_as_it_was() {
    let record = recorded(&right());
    let away = [(90 * SECOND, 110 * SECOND), (105 * SECOND, 112 * SECOND)];
    let findings = found(&said("exec"), &record, &away, &[(111 * SECOND, 125 * SECOND)]);
    assert!(findings.none(), "{findings:?}");
    assert!((findings.amended_seconds_max - 5.0).abs() < 0.01, "{findings:?}");
    assert!((findings.amended_seconds_max_in_all - 30.0).abs() < 0.01);
    let late = found(&said("exec"), &record, &away, &[]);
    assert!(!late.none() && late.amended_seconds_max > 17.0, "{late:?}");
}

#[test]
fn every_difference_is_counted() {
    let with = |pointer: &str, value: Value| {
        let mut changed = right();
        *changed.pointer_mut(pointer).unwrap() = value;
        let away = [(0, 200 * SECOND)];
        found(&said("web"), &recorded(&changed), &away, &[])
    };
    assert_eq!(
        with("/principal", json!("spiffe://td/ns/shop/sa/other")).wrong_principal,
        1
    );
    assert_eq!(with("/pod/owners", json!([])).owner_right, 0);
    assert_eq!(with("/pod/name", json!("web-2")).pod_right, 0);
    assert_eq!(with("/pod/service_account", json!("x")).account_right, 0);
    let mut container = right();
    container["principal"] = json!("spiffe://td/host/n/container/c");
    container["kind"] = json!("container");
    let own = found(&said("web"), &recorded(&container), &[], &[]);
    assert_eq!((own.wrong_principal, own.named), (0, 0));
    container["pod"]["uid"] = json!("another");
    assert_eq!(
        found(&said("web"), &recorded(&container), &[], &[]).wrong_principal,
        1
    );

    assert_eq!(found(&said("web"), &Record::default(), &[], &[]).missing, 1);
    let mut corrected = recorded(&right());
    let before = (120 * SECOND, "spiffe://td/ns/shop/sa/other".to_owned());
    corrected.names.entry("s".to_owned()).or_default().push(before);
    let findings = found(&said("web"), &corrected, &[], &[]);
    assert_eq!((findings.wrong_principal, findings.wrong_meanwhile), (0, 1));
    let mut twice = recorded(&right());
    let again = twice.statements["m"][0].clone();
    twice.statements.insert("n".to_owned(), vec![again.clone()]);
    if let Some(all) = twice.statements.get_mut("m") {
        all.push(again);
    }
    let findings = found(&said("web"), &twice, &[], &[]);
    assert_eq!((findings.twice, findings.extra), (1, 1));
    let mut liar = said("web");
    liar.claims = "shop/web-2/web/node-1".to_owned();
    assert_eq!(found(&liar, &recorded(&right()), &[], &[]).witnesses_differ, 1);
}
