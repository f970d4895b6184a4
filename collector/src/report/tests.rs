//! Reports of a store whose contents are known.

use object_store::memory::InMemory;
use proto::v1::{self, event::Body};
use serde_json::json;

use super::*;
use crate::{
    store::{StoreOptions, tests::query},
    who::Asking,
};
use record::Records;

const SHOP: &str = "spiffe://td/host/h/unit/shop.service";

async fn filled() -> std::sync::Arc<Store> {
    let store = Store::over(std::sync::Arc::new(InMemory::new()), StoreOptions::default())
        .await
        .unwrap();
    let mut ddl = query(4, SHOP, "ALTER ROLE eve");
    if let Some(Body::Query(query)) = &mut ddl.body {
        let meaning = query.meaning.get_or_insert_default();
        (meaning.class, meaning.command) = (v1::Class::Role.into(), "ALTER ROLE".to_owned());
    }
    let refused = v1::Event {
        body: Some(Body::AuthFailure(v1::AuthFailure::default())),
        ..query(5, "spiffe://td/host/h/login/eve", "")
    };
    let gap = v1::Event {
        session: None,
        attribution: None,
        body: Some(Body::Gap(v1::Gap {
            reason: "ring_full".to_owned(),
            bytes_missing: Some(7),
            ..Default::default()
        })),
        ..query(6, SHOP, "")
    };
    let moved = v1::Event {
        body: Some(Body::CollectorChange(v1::CollectorChange::default())),
        ..gap.clone()
    };
    let events = vec![
        query(1, SHOP, "SELECT 1"),
        query(2, "unknown", "SELECT 2"),
        query(3, SHOP, "SELECT 3"),
        ddl,
        refused,
        gap,
        v1::Event { seq: 7, ..moved },
    ];
    store.append(0, Records::of("a", 1, events)).await;
    store
}

/// The rows of a part, by columns.
fn rows(report: &Report, title: &str, columns: &[&str]) -> serde_json::Value {
    let section = report
        .sections
        .iter()
        .find(|section| section.title == title)
        .unwrap_or_else(|| panic!("no {title}"));
    let table = section
        .table
        .as_ref()
        .unwrap_or_else(|| panic!("nothing in {title}"));
    let place = |name: &&str| table.columns.iter().position(|column| column == name).unwrap();
    let row = |row: &Vec<serde_json::Value>| columns.iter().map(|name| row[place(name)].clone()).collect();
    table
        .rows
        .iter()
        .map(row)
        .collect::<Vec<serde_json::Value>>()
        .into()
}

fn fact<'a>(report: &'a Report, name: &str) -> &'a str {
    &report.facts.iter().find(|(known, _)| known == name).unwrap().1
}

#[tokio::test]
async fn coverage_tells_names_and_what_was_not_seen() {
    let report = Asked::Coverage(Span::default())
        .answer(&*filled().await)
        .await
        .unwrap();
    assert_eq!(
        (
            fact(&report, "statements"),
            fact(&report, "statements with a name")
        ),
        ("4", "75.00 %")
    );
    assert_eq!(
        rows(
            &report,
            "How sure the names are",
            &["certainty", "statements", "percent"]
        ),
        json!([["observed", 3, 75.0], ["none", 1, 25.0]])
    );
    assert_eq!(
        rows(&report, "What was not seen", &["reason", "gaps", "bytes_missing"]),
        json!([["ring_full", 1, 7]])
    );
    assert_eq!(
        rows(
            &report,
            "Statements and sessions that nobody is named for",
            &["statements", "first_event"]
        ),
        json!([[1, "a-2"]])
    );
    assert_eq!(rows(&report, "Agents", &["agent", "events"]), json!([["a", 7]]));
    assert_eq!(
        rows(&report, "What is elsewhere, or gone", &["what", "agent", "times"]),
        json!([["collector_change", "a", 1]])
    );
    // Of a time in which nothing happened, nothing is said to be fine that was not seen.
    let nothing = Asked::Coverage(Span {
        since_ns: None,
        until_ns: Some(1),
    })
    .answer(&*filled().await)
    .await
    .unwrap();
    assert_eq!(fact(&nothing, "statements with a name"), "–");
    assert!(
        page::markdown(&nothing)
            .unwrap()
            .contains("No agent delivered anything")
    );
    assert_eq!(
        rows(&nothing, "What is elsewhere, or gone", &["times"]),
        json!([[1]])
    );
}

#[tokio::test]
async fn a_review_tells_roles_and_what_takes_privileges() {
    let report = Asked::AccessReview(Span::default())
        .answer(&*filled().await)
        .await
        .unwrap();
    assert_eq!(
        rows(
            &report,
            "Roles and who used them",
            &["role", "principal", "statements"]
        ),
        json!([["app_user", SHOP, 3], ["app_user", "unknown", 1]])
    );
    assert_eq!(
        rows(
            &report,
            "What takes privileges",
            &["principal", "command", "an_event"]
        ),
        json!([[SHOP, "ALTER ROLE", "a-4"]])
    );
    assert_eq!(
        rows(&report, "Refused logins", &["principal", "times"]),
        json!([["spiffe://td/host/h/login/eve", 1]])
    );
    let touched = rows(
        &report,
        "What was touched",
        &["principal", "object", "access", "statements"],
    );
    assert_eq!(touched[0], json!([SHOP, "public.t0", "read", 1]));
}

#[tokio::test]
async fn an_access_review_of_a_past_period_has_nothing_from_behind_it() {
    let begin = |seq: u64| query(seq, SHOP, "").ts_start_ns.cast_signed();
    let period = Span {
        since_ns: Some(begin(1)),
        until_ns: Some(begin(3)),
    };
    let report = Asked::AccessReview(period)
        .answer(&*filled().await)
        .await
        .unwrap();
    assert_eq!(
        rows(&report, "Touched for the first time", &["first_event"]),
        json!([["a-2"], ["a-1"]])
    );
}

#[tokio::test]
async fn an_evidence_pack_has_each_requirement_with_its_figures() {
    let report = Asked::EvidencePack(Span::default())
        .answer(&*filled().await)
        .await
        .unwrap();
    let pci = rows(
        &report,
        "PCI DSS: requirement 10, log and monitor",
        &["requirement", "held in this period"],
    );
    let held = |requirement: &str| {
        let row = pci
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row[0] == requirement)
            .unwrap();
        row[1].as_str().unwrap().to_owned()
    };
    assert!(
        held("10.2.1.4").starts_with("1 refused logins, 0 statements"),
        "{}",
        held("10.2.1.4")
    );
    assert!(held("10.2.1.5").starts_with("1 statements of class ROLE"));
    assert!(held("10.7").starts_with("1 gaps and 0 sessions"));
    for title in [
        "SOC 2: CC6, logical access",
        "SOC 2: CC7, system operations",
        "GDPR: articles 5(2), 15 and 32",
    ] {
        assert!(
            !rows(&report, title, &["requirement"])
                .as_array()
                .unwrap()
                .is_empty(),
            "{title}"
        );
    }
    let html = page::html(&report).unwrap();
    assert!(html.contains("no statement that a requirement is met"));
}

#[tokio::test]
async fn a_record_that_nobody_told_of_is_not_said_to_be_untouched() {
    let asking: Asking = serde_json::from_value(json!({
        "asked": {"object": "public.t1", "column": "id", "tokens": [{"key": "k", "family": "integer", "token": "00".repeat(16)}]},
        "missing_keys": [], "unread": []
    }))
    .unwrap();
    let store = filled().await;
    for name_actors in [false, true] {
        let asked = Asked::Dsar {
            asking: asking.clone(),
            name_actors,
        };
        // As it comes over HTTP.
        let asked: Asked = serde_json::from_str(&serde_json::to_string(&asked).unwrap()).unwrap();
        let report = asked.answer(&store).await.unwrap();
        let who = if name_actors { "principal" } else { "actor" };
        let scans = rows(
            &report,
            "Scans that may have included the record",
            &[who, "statements"],
        );
        let shop = if name_actors { SHOP } else { "actor 1" };
        assert_eq!(scans, json!([[shop, 2]]));
        let text = page::markdown(&report).unwrap();
        assert!(text.contains("Nobody that is known"), "{text}");
        assert!(
            text.contains("it is not excluded that somebody else touched it"),
            "{text}"
        );
        assert_eq!(text.contains("spiffe"), name_actors, "{text}");
    }
}
