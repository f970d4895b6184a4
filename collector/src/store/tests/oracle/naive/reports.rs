//! Reports whose figures are their own: on a person's record, and for auditors.

use super::*;
use crate::report::Asked as Report;

impl Evidence {
    /// Sections of the report on a record, with names.
    pub(in super::super) fn dsar(&self, asked: &Asked) -> Vec<(&'static str, Vec<Row>)> {
        let found = self.who(asked);
        let touched = found.touched.into_iter().map(|row| {
            let known = match (row["kind"].as_str(), row["sure"].as_bool()) {
                (Some("rollup"), _) => "of some",
                (_, Some(true)) => "surely",
                _ => "possibly",
            };
            let mut shown = renamed(
                &row,
                &[
                    ("principal", "principal"),
                    ("certainty", "confidence"),
                    ("statements", "statements"),
                    ("by", "sources"),
                    ("outcome", "outcome"),
                    ("role", "login_role"),
                    ("first", "first_seen"),
                    ("last", "last_seen"),
                    ("event", "last_event"),
                    ("statement", "statement"),
                ],
            );
            shown.insert("known", json!(known));
            shown
        });
        let scans = found.not_excluded.into_iter();
        let scans = scans.filter(|row| row["on_object"] == true).map(|row| {
            renamed(
                &row,
                &[
                    ("principal", "principal"),
                    ("certainty", "confidence"),
                    ("statements", "statements"),
                    ("commands", "commands"),
                    ("because", "because"),
                    ("first", "first_seen"),
                    ("last", "last_seen"),
                ],
            )
        });
        vec![
            ("Who touched the record", touched.collect()),
            ("Scans that may have included the record", scans.collect()),
        ]
    }

    /// What the report for auditors counts, and its events by kind.
    pub(in super::super) fn evidence_pack(&self, span: Span) -> (Row, Vec<Row>) {
        let seen: Vec<&Seen> = self.within(span).collect();
        let sum = |of: &dyn Fn(&Seen) -> bool| -> Value {
            let those = seen.iter().filter(|seen| seen.query().is_some() && of(seen));
            json!(those.map(|seen| seen.executions()).sum::<u64>())
        };
        let kinds = |kinds: &[&str]| json!(seen.iter().filter(|seen| kinds.contains(&seen.kind())).count());
        let distinct = |of: &dyn Fn(&Seen) -> Option<String>| {
            let all: HashSet<String> = seen.iter().filter_map(|seen| of(seen)).collect();
            json!(all.len())
        };
        let told = |seen: &&&Seen| seen.query().is_some_and(|query| !query.subjects.is_empty());
        let counts = Row::from([
            ("events", json!(seen.len())),
            ("statements", sum(&|_| true)),
            (
                "principals",
                distinct(&|seen| seen.named().filter(|name| name != "unknown")),
            ),
            ("roles", distinct(&Seen::role)),
            ("unnamed", sum(&Seen::is_unattributed)),
            ("role_changes", sum(&|seen| seen.class() == Some("ROLE"))),
            ("ddl", sum(&|seen| seen.class() == Some("DDL"))),
            ("privileged", sum(&Seen::is_privileged)),
            ("failed", sum(&|seen| seen.outcome() == Some("error"))),
            (
                "text_not_known",
                sum(&|seen| {
                    let statement = seen.query().and_then(|query| query.statement.as_ref());
                    !statement.is_some_and(|statement| statement.text_known)
                }),
            ),
            ("refused", kinds(&["auth_failure"])),
            ("alarms", kinds(&["alarm"])),
            ("pauses", kinds(&["agent_pause"])),
            ("gaps", kinds(&["gap"])),
            ("opaque", kinds(&["opaque_session"])),
            ("removals", kinds(&["erasure", "retention"])),
            ("with_subjects", json!(seen.iter().filter(told).count())),
        ]);
        let by_kind = grouped(seen.iter().copied(), |seen| vec![json!(seen.kind())]);
        let by_kind = by_kind.into_iter().map(|(key, seen)| {
            let times = counted(&seen);
            Row::from([
                ("kind", key.into_iter().next().unwrap()),
                ("events", json!(seen.len())),
                ("first", times["first_seen"].clone()),
                ("last", times["last_seen"].clone()),
            ])
        });
        (counts, by_kind.collect())
    }
}

/// The report on a record, asked.
pub(in super::super) fn dsar_of(asked: &Asked, name_actors: bool) -> Report {
    Report::Dsar {
        asking: crate::who::Asking {
            asked: asked.clone(),
            missing_keys: Vec::new(),
            unread: Vec::new(),
        },
        name_actors,
    }
}

fn renamed(row: &Row, columns: &[(&'static str, &str)]) -> Row {
    let cell = |(title, name): &(&'static str, &str)| (*title, row[*name].clone());
    columns.iter().map(cell).collect()
}
