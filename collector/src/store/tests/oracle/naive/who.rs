//! Who touched a record, by going through every event.

use super::*;

/// Who touched a record.
pub(in super::super) struct Who {
    pub(in super::super) touched: Vec<Row>,
    pub(in super::super) not_excluded: Vec<Row>,
    /// Gaps, opaque sessions, statements left out, moves of agents, removals.
    pub(in super::super) missing: [u64; 5],
}

impl Evidence {
    pub(in super::super) fn who(&self, asked: &Asked) -> Who {
        let mut touched: BTreeMap<Vec<String>, (Row, Vec<&Seen>)> = BTreeMap::new();
        let mut open: BTreeMap<Vec<String>, (Row, Vec<&Seen>)> = BTreeMap::new();
        let mut missing = [0; 5];
        for seen in &self.events {
            match &seen.event.body {
                Some(Body::CollectorChange(_)) => missing[3] += 1,
                Some(Body::Erasure(_) | Body::Retention(_)) => missing[4] += 1,
                _ => {}
            }
        }
        for seen in self.within(asked.span) {
            match &seen.event.body {
                Some(Body::Gap(_)) => missing[0] += 1,
                Some(Body::OpaqueSession(_)) => missing[1] += 1,
                Some(Body::Heartbeat(beat)) => {
                    let left_out = beat.counters.as_ref().map_or(0, |counters| counters.left_out);
                    missing[2] = missing[2].max(left_out);
                }
                _ => {}
            }
            let Some(query) = seen.query() else { continue };
            let told: Vec<&v1::Subject> = query
                .subjects
                .iter()
                .filter(|subject| subject.object == asked.object && subject.column == asked.column)
                .collect();
            let found = how(&told, asked);
            if let Some((sure, sources)) = &found {
                let row = Row::from([
                    ("principal", json!(seen.principal())),
                    ("confidence", json!(seen.confidence())),
                    ("sure", json!(sure)),
                    ("sources", json!(sources)),
                    ("kind", json!(seen.kind())),
                    ("class", json!(seen.class())),
                    ("command", json!(seen.command())),
                    ("outcome", json!(seen.outcome())),
                    ("login_role", json!(seen.role())),
                    (
                        "database",
                        json!(seen.event.session.as_ref().map(|session| &session.database)),
                    ),
                    ("statement", json!(seen.text())),
                ]);
                let method = seen.stands.as_ref().map(|who| who.method.clone());
                // Whoever has no attribution at all is not the one that has an unknown principal.
                let named = seen.named();
                let key = vec![format!("{row:?} {method:?} {named:?}")];
                touched
                    .entry(key)
                    .or_insert_with(|| (row, Vec::new()))
                    .1
                    .push(seen);
            }
            if found.is_some() || covered(&told, asked) || seen.never_ran() {
                continue;
            }
            let names_it = seen
                .objects()
                .iter()
                .any(|(_, object)| *object == asked.object || *object == "customers");
            let searchable = told.iter().any(|subject| is_searchable(subject, asked));
            let because = if searchable {
                Some("not all of its records are known")
            } else if !told.is_empty() {
                Some("its records are of another key or type, or not known")
            } else if names_it {
                Some("its records are not known")
            } else {
                seen.hidden()
            };
            if let Some(because) = because {
                let row = Row::from([
                    ("on_object", json!(names_it || !told.is_empty())),
                    ("principal", json!(seen.principal())),
                    ("confidence", json!(seen.confidence())),
                    ("because", json!(because)),
                ]);
                let key = vec![format!("{row:?} {:?}", seen.named())];
                open.entry(key).or_insert_with(|| (row, Vec::new())).1.push(seen);
            }
        }
        let touched = touched.into_values().map(|(mut row, seen)| {
            row.append(&mut counted(&seen));
            row.insert("last_event", json!(newest(&seen).id()));
            row
        });
        let open = open.into_values().map(|(mut row, seen)| {
            let mut counts = counted(&seen);
            for name in ["statements", "first_seen", "last_seen"] {
                row.insert(name, counts.remove(name).unwrap());
            }
            row.insert("commands", list(seen.iter().filter_map(|seen| seen.command())));
            row
        });
        Who {
            touched: touched.collect(),
            not_excluded: open.collect(),
            missing,
        }
    }
}

/// Whether the values told are those that are asked for, surely or by a filter, and where they come from.
fn how(told: &[&v1::Subject], asked: &Asked) -> Option<(bool, String)> {
    let mut sure = false;
    let mut sources = BTreeSet::new();
    for subject in told {
        let listed = subject.tokens.iter().any(|token| {
            let is_it = |sought: &Sought| is_of(sought, subject) && hex::encode(token) == sought.token;
            asked.tokens.iter().any(is_it)
        });
        if listed || may_hold(subject, asked) {
            sure |= listed;
            sources.extend(subject.sources.iter().cloned());
        }
    }
    (!sources.is_empty()).then(|| (sure, sources.into_iter().collect::<Vec<_>>().join(", ")))
}

fn may_hold(subject: &v1::Subject, asked: &Asked) -> bool {
    let filter = ::subjects::Filter::from_bytes(&subject.filter);
    filter.is_some_and(|filter| {
        asked.tokens.iter().any(|sought| {
            let mut bytes = [0; 16];
            hex::decode_to_slice(&sought.token, &mut bytes).unwrap();
            filter.contains(::subjects::Token(bytes))
        })
    })
}

fn is_searchable(subject: &v1::Subject, asked: &Asked) -> bool {
    asked.tokens.iter().any(|sought| is_of(sought, subject))
}

fn is_of(sought: &Sought, subject: &v1::Subject) -> bool {
    sought.key == subject.key && sought.family == subject.family
}

/// Whether something that was told of the column is all that was touched, and the record is not in it.
fn covered(told: &[&v1::Subject], asked: &Asked) -> bool {
    told.iter().any(|subject| {
        let nothing = subject.tokens.is_empty() && subject.filter.is_empty();
        subject.complete && (nothing || is_searchable(subject, asked) && !may_hold(subject, asked))
    })
}
