//! Key figures, what reports count, and the questions that `ask` knows by name.

use super::*;
use crate::ask;

impl Evidence {
    fn since(&self, since_ns: i64) -> Vec<&Seen> {
        let span = Span {
            since_ns: Some(since_ns),
            until_ns: None,
        };
        self.within(span).collect()
    }

    pub(in super::super) fn overview(&self, since_ns: i64) -> Row {
        let seen = self.since(since_ns);
        let statements: Vec<&Seen> = seen
            .iter()
            .copied()
            .filter(|seen| seen.query().is_some())
            .collect();
        let sum = |of: &dyn Fn(&Seen) -> bool| -> u64 {
            let those = statements.iter().filter(|seen| of(seen));
            those.map(|seen| seen.executions()).sum()
        };
        let at =
            |level: &str| sum(&|seen| !seen.is_unattributed() && seen.confidence().as_deref() == Some(level));
        let distinct = |all: Vec<Option<String>>| all.into_iter().flatten().collect::<HashSet<_>>().len();
        let named = statements.iter().filter(|seen| !seen.is_unattributed());
        let of_kind = |kind: &str| seen.iter().filter(|seen| seen.kind() == kind).count();
        let gaps = || {
            seen.iter().filter_map(|seen| match &seen.event.body {
                Some(Body::Gap(gap)) => Some(gap.bytes_missing),
                _ => None,
            })
        };
        Row::from([
            ("statements", json!(sum(&|_| true))),
            ("errors", json!(sum(&|seen| seen.outcome() == Some("error")))),
            (
                "principals",
                json!(distinct(named.map(|seen| seen.named()).collect())),
            ),
            (
                "roles",
                json!(distinct(statements.iter().map(|seen| seen.role()).collect())),
            ),
            ("attributed", json!(sum(&|seen| !seen.is_unattributed()))),
            ("observed", json!(at("observed"))),
            ("joined", json!(at("joined"))),
            ("inferred", json!(at("inferred"))),
            ("asserted", json!(at("asserted"))),
            ("rows", counted(&statements)["rows"].clone()),
            ("gaps", json!(gaps().count())),
            ("bytes_missing", json!(gaps().flatten().sum::<u64>())),
            (
                "gaps_of_unknown_size",
                json!(gaps().filter(Option::is_none).count()),
            ),
            ("opaque_sessions", json!(of_kind("opaque_session"))),
            ("auth_failures", json!(of_kind("auth_failure"))),
            ("alarms", json!(of_kind("alarm"))),
        ])
    }

    /// The principals, the busiest first, of statements alone.
    pub(in super::super) fn busiest(&self, since_ns: i64) -> Vec<(Value, Value)> {
        let mut of: BTreeMap<String, u64> = BTreeMap::new();
        for seen in self
            .since(since_ns)
            .into_iter()
            .filter(|seen| seen.query().is_some())
        {
            *of.entry(seen.principal()).or_default() += seen.executions();
        }
        let mut of: Vec<(String, u64)> = of.into_iter().collect();
        of.sort_by_key(|(principal, statements)| (std::cmp::Reverse(*statements), principal.clone()));
        of.into_iter()
            .map(|(principal, statements)| (json!(principal), json!(statements)))
            .collect()
    }

    /// Ids of the newest events that have a time, the newest first.
    pub(in super::super) fn newest(&self, kind: Option<&str>, since_ns: i64, limit: usize) -> Vec<String> {
        let mut seen = self.since(since_ns);
        seen.retain(|seen| kind.is_none_or(|kind| seen.kind() == kind));
        seen.sort_by_key(|seen| std::cmp::Reverse(order(seen)));
        seen.truncate(limit);
        seen.into_iter().map(Seen::id).collect()
    }

    /// Sections of the report on coverage.
    pub(in super::super) fn coverage(&self, span: Span) -> Vec<(&'static str, Vec<Row>)> {
        let seen: Vec<&Seen> = self.within(span).collect();
        let statements = || seen.iter().copied().filter(|seen| seen.query().is_some());
        let all: u64 = statements().map(Seen::executions).sum();
        let certainty = grouped(statements(), |seen| {
            let method = seen.stands.as_ref().map(|who| who.method.clone());
            let method = method.filter(|method| !method.is_empty());
            let confidence = seen.confidence().unwrap_or_else(|| "none".to_owned());
            vec![
                json!(confidence),
                json!(method.unwrap_or_else(|| "none".to_owned())),
            ]
        });
        let certainty = certainty.into_iter().map(|(key, seen)| {
            let [certainty, method] = two(key);
            let statements: u64 = seen.iter().map(|seen| seen.executions()).sum();
            let principals: HashSet<String> = seen.iter().filter_map(|seen| seen.named()).collect();
            Row::from([
                ("certainty", certainty),
                ("method", method),
                ("principals", json!(principals.len())),
                ("statements", json!(statements)),
                ("percent", json!((statements * 10_000 / all) as f64 / 100.0)),
            ])
        });
        let gap = |seen: &Seen| match &seen.event.body {
            Some(Body::Gap(gap)) => Some(gap.clone()),
            _ => None,
        };
        let gaps = grouped(seen.iter().copied().filter(|seen| gap(seen).is_some()), |seen| {
            let reason = gap(seen)
                .map(|gap| gap.reason)
                .filter(|reason| !reason.is_empty());
            vec![json!(seen.agent), json!(reason)]
        });
        let gaps = gaps.into_iter().map(|(key, seen)| {
            let [agent, reason] = two(key);
            let all = || seen.iter().filter_map(|seen| gap(seen));
            let sum =
                |of: &dyn Fn(&v1::Gap) -> Option<u64>| all().filter_map(|gap| of(&gap)).reduce(|a, b| a + b);
            let unknown = all().filter(|gap| gap.bytes_missing.is_none() && gap.events_missing.is_none());
            let sessions: HashSet<String> = seen.iter().filter_map(|seen| seen.session()).collect();
            Row::from([
                ("agent", agent),
                ("reason", reason),
                ("gaps", json!(seen.len())),
                ("sessions", json!(sessions.len())),
                ("bytes_missing", json!(sum(&|gap| gap.bytes_missing))),
                ("events_missing", json!(sum(&|gap| gap.events_missing))),
                ("of_unknown_size", json!(unknown.count())),
            ])
        });
        let agents = grouped(seen.iter().copied(), |seen| vec![json!(seen.agent)]);
        let agents = agents.into_iter().map(|(key, seen)| {
            let kind = |kind: &str| seen.iter().filter(|seen| seen.kind() == kind).count();
            Row::from([
                ("agent", key.into_iter().next().unwrap()),
                ("events", json!(seen.len())),
                ("starts", json!(kind("agent_start"))),
                ("pauses", json!(kind("agent_pause"))),
                ("first", counted(&seen)["first_seen"].clone()),
                ("last", counted(&seen)["last_seen"].clone()),
            ])
        });
        let elsewhere = ["collector_change", "erasure", "retention"];
        let elsewhere = self.events.iter().filter(|seen| elsewhere.contains(&seen.kind()));
        let elsewhere = grouped(elsewhere, |seen| vec![json!(seen.kind()), json!(seen.agent)]);
        let elsewhere = elsewhere.into_iter().map(|(key, seen)| {
            let [what, agent] = two(key);
            Row::from([("what", what), ("agent", agent), ("times", json!(seen.len()))])
        });
        vec![
            ("How sure the names are", certainty.collect()),
            ("What was not seen", gaps.collect()),
            ("Agents", agents.collect()),
            ("What is elsewhere, or gone", elsewhere.collect()),
        ]
    }

    /// Sections of the review of access.
    pub(in super::super) fn access_review(&self, span: Span) -> Vec<(&'static str, Vec<Row>)> {
        let seen: Vec<&Seen> = self.within(span).collect();
        let used = || seen.iter().copied().filter(|seen| seen.is_use());
        let roles = grouped(used(), |seen| vec![json!(seen.role()), json!(seen.principal())]);
        let roles = roles.into_iter().map(|(key, seen)| {
            let [role, principal] = two(key);
            let counts = counted(&seen);
            Row::from([
                ("role", role),
                ("principal", principal),
                (
                    "certainty",
                    list(seen.iter().filter_map(|seen| seen.confidence())),
                ),
                ("databases", list(seen.iter().filter_map(|seen| seen.database()))),
                ("sessions", json!(sessions(&seen))),
                ("statements", counts["statements"].clone()),
                ("first", counts["first_seen"].clone()),
                ("last", counts["last_seen"].clone()),
            ])
        });
        let shared = grouped(used().filter(|seen| seen.role().is_some()), |seen| {
            vec![json!(seen.role())]
        });
        let shared = shared.into_iter().filter_map(|(key, seen)| {
            let by: BTreeSet<String> = seen.iter().filter_map(|seen| seen.known()).collect();
            (by.len() > 1).then(|| {
                Row::from([
                    ("role", key.into_iter().next().unwrap()),
                    ("principals", json!(by.len())),
                    ("used_by", json!(by)),
                ])
            })
        });
        let mut touched: BTreeMap<(String, Option<String>, String, String), Vec<&Seen>> = BTreeMap::new();
        for seen in seen.iter().copied().filter(|seen| seen.query().is_some()) {
            for (access, object) in seen.objects().into_iter().collect::<BTreeSet<_>>() {
                let key = (seen.principal(), seen.role(), object, access);
                touched.entry(key).or_default().push(seen);
            }
        }
        let touched = touched
            .into_iter()
            .map(|((principal, role, object, access), seen)| {
                let counts = counted(&seen);
                Row::from([
                    ("principal", json!(principal)),
                    ("role", json!(role)),
                    ("object", json!(object)),
                    ("access", json!(access)),
                    ("statements", counts["statements"].clone()),
                    ("rows", counts["rows"].clone()),
                    ("rows_affected", counts["rows_affected"].clone()),
                ])
            });
        let refused = |seen: &&Seen| matches!(seen.event.body, Some(Body::AuthFailure(_)));
        let refused = grouped(seen.iter().copied().filter(refused), |seen| {
            let sqlstate = match &seen.event.body {
                Some(Body::AuthFailure(of)) if !of.sqlstate.is_empty() => json!(of.sqlstate),
                _ => Value::Null,
            };
            vec![json!(seen.role()), json!([json!(seen.principal()), sqlstate])]
        });
        let refused = refused.into_iter().map(|(key, seen)| {
            let [role, of] = two(key);
            Row::from([
                ("role", role),
                ("principal", of[0].clone()),
                ("sqlstate", of[1].clone()),
                ("times", json!(seen.len())),
            ])
        });
        let privileged = seen.iter().copied().filter(|seen| seen.is_privileged());
        let privileged = grouped(privileged, |seen| {
            let meaning = seen.query().and_then(|query| query.meaning.clone());
            let (class, command, objects) = meaning.map_or_else(<_>::default, |meaning| {
                let objects = meaning.objects.into_iter();
                let objects: Vec<_> = objects.map(|of| (of.schema, of.name)).collect();
                (meaning.class, meaning.command, objects)
            });
            let who = json!([seen.principal(), seen.role(), seen.outcome().unwrap_or("unknown")]);
            vec![who, json!((class, command, objects))]
        });
        let privileged = privileged.into_iter().map(|(key, seen)| {
            let [who, _] = two(key);
            Row::from([
                ("principal", who[0].clone()),
                ("role", who[1].clone()),
                ("outcome", who[2].clone()),
                ("statements", counted(&seen)["statements"].clone()),
            ])
        });
        vec![
            ("What takes privileges", privileged.collect()),
            ("Roles and who used them", roles.collect()),
            ("Roles that several principals use", shared.collect()),
            ("What was touched", touched.collect()),
            ("Refused logins", refused.collect()),
        ]
    }

    /// What `ask` answers.
    /// When the first event began.
    pub(in super::super) fn begins(&self) -> Option<u64> {
        let times = self.events.iter().map(|seen| seen.event.ts_start_ns);
        times.filter(|ns| *ns != 0).min()
    }

    pub(in super::super) fn asked(&self, question: ask::Question, when: &ask::When) -> Vec<Row> {
        match question {
            ask::Question::SharedRoles => {
                let used = self
                    .since(when.since)
                    .into_iter()
                    .filter(|seen| seen.is_use() && seen.role().is_some());
                let of = grouped(used, |seen| vec![json!(seen.role())]);
                let row = |(key, seen): (Vec<Value>, Vec<&Seen>)| {
                    let by: BTreeSet<String> = seen.iter().filter_map(|seen| seen.known()).collect();
                    let counts = counted(&seen);
                    (by.len() > 1).then(|| {
                        Row::from([
                            ("login_role", key.into_iter().next().unwrap()),
                            ("principals", json!(by.len())),
                            ("used_by", json!(by)),
                            ("statements", counts["statements"].clone()),
                            ("first_seen", counts["first_seen"].clone()),
                            ("last_seen", counts["last_seen"].clone()),
                        ])
                    })
                };
                of.into_iter().filter_map(row).collect()
            }
            ask::Question::NewPrincipals => {
                let of = grouped(self.events.iter().filter(|seen| seen.is_known()), |seen| {
                    vec![json!(seen.known())]
                });
                let row = |(key, seen): (Vec<Value>, Vec<&Seen>)| {
                    let counts = counted(&seen);
                    let first = counts["first_seen"].as_i64();
                    first.is_some_and(|first| first >= when.since).then(|| {
                        Row::from([
                            ("principal", key.into_iter().next().unwrap()),
                            ("statements", counts["statements"].clone()),
                            ("roles", list(seen.iter().filter_map(|seen| seen.role()))),
                            ("databases", list(seen.iter().filter_map(|seen| seen.database()))),
                            ("first_seen", counts["first_seen"].clone()),
                            ("last_seen", counts["last_seen"].clone()),
                        ])
                    })
                };
                of.into_iter().filter_map(row).collect()
            }
            ask::Question::NewWorkloads => {
                let used = self
                    .events
                    .iter()
                    .filter(|seen| seen.is_known() && seen.is_use() && seen.role().is_some());
                let of = grouped(used, |seen| vec![json!(seen.role()), json!(seen.known())]);
                let first = |seen: &[&Seen]| counted(seen)["first_seen"].as_i64();
                let mut rows = Vec::new();
                for (key, seen) in &of {
                    if first(seen).is_none_or(|first| first < when.since) {
                        continue;
                    }
                    let former = of.iter().filter(|(other, seen)| {
                        other[0] == key[0] && first(seen).is_some_and(|first| first < when.since)
                    });
                    let former = former.filter_map(|(other, _)| other[1].as_str().map(str::to_owned));
                    rows.push(Row::from([
                        ("login_role", key[0].clone()),
                        ("principal", key[1].clone()),
                        ("statements", counted(seen)["statements"].clone()),
                        ("used_before_by", list(former)),
                    ]));
                }
                rows
            }
            ask::Question::Dormant => {
                let known = self.events.iter().filter(|seen| seen.is_known());
                let mut rows = Vec::new();
                for (key, seen) in grouped(known, |seen| vec![json!(seen.known())]) {
                    let mut times: Vec<i64> = seen
                        .iter()
                        .map(|seen| seen.event.ts_start_ns as i64)
                        .filter(|ns| *ns != 0)
                        .collect();
                    times.sort_unstable();
                    for pair in times.windows(2) {
                        if pair[1] >= when.since && pair[1] - pair[0] >= when.quiet * 1_000_000_000 {
                            rows.push(Row::from([
                                ("principal", key[0].clone()),
                                ("last_seen", json!(pair[0])),
                                ("seen_again", json!(pair[1])),
                            ]));
                        }
                    }
                }
                rows
            }
            other => panic!("{other:?} is not asked here"),
        }
    }
}

impl Seen {
    fn database(&self) -> Option<String> {
        let database = &self.event.session.as_ref()?.database;
        (!database.is_empty()).then(|| database.clone())
    }

    /// Whoever was let in did something.
    fn is_use(&self) -> bool {
        matches!(
            self.event.body,
            Some(Body::SessionOpen(_) | Body::Query(_) | Body::Rollup(_))
        )
    }

    /// It takes privileges, or reaches beyond the data.
    pub(super) fn is_privileged(&self) -> bool {
        let beyond = [
            "ALTER SYSTEM",
            "SET ROLE",
            "SET SESSION AUTHORIZATION",
            "LOAD",
            "CHECKPOINT",
            "DO",
        ];
        let meaning = self.query().and_then(|query| query.meaning.as_ref());
        meaning.is_some_and(|meaning| {
            matches!(meaning.class(), v1::Class::Role | v1::Class::Ddl)
                || beyond.contains(&meaning.command.as_str())
        })
    }

    /// Who it is, if that is known.
    fn known(&self) -> Option<String> {
        self.named().filter(|principal| principal != "unknown")
    }

    fn is_known(&self) -> bool {
        self.event.session.is_some() && self.known().is_some()
    }
}

/// By key, each with its events.
pub(super) fn grouped<'a>(
    seen: impl Iterator<Item = &'a Seen>,
    key: impl Fn(&Seen) -> Vec<Value>,
) -> Vec<(Vec<Value>, Vec<&'a Seen>)> {
    let mut of: BTreeMap<String, (Vec<Value>, Vec<&Seen>)> = BTreeMap::new();
    for seen in seen {
        let key = key(seen);
        let entry = of.entry(json!(key).to_string());
        entry.or_insert_with(|| (key, Vec::new())).1.push(seen);
    }
    of.into_values().collect()
}

fn two(key: Vec<Value>) -> [Value; 2] {
    key.try_into().unwrap()
}
