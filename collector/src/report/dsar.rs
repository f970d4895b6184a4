//! The report on one person's record: who touched it, and, apart from that, what may have.
//!
//! Owns that the two are never put together, and that actors have numbers, the same all over the report, unless names are asked for. The
//! record's value is not in it: whoever asks knows it.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Report, Section, period};
use crate::{
    store::{Store, page::Page},
    who::{Asking, told},
};

pub(super) async fn report(store: &Store, asking: &Asking, name_actors: bool) -> anyhow::Result<Report> {
    let answer = store.who(&asking.asked).await?;
    let mut actors = Actors {
        named: name_actors,
        known: HashMap::new(),
    };
    let touched = told::touched(&answer.touched);
    let (on_object, elsewhere) = told::not_excluded(&answer.not_excluded);
    let mut sections = vec![
        Section::of(
            "Who touched the record",
            "Each row is a sort of statement. written: the record's value was inserted or set. read: a row with it came back. named: a condition named it. \
             certainty is of the actor; known is of the record: surely by its own value, possibly by a filter of many that it passes.",
            actors.numbered(touched),
            "Nobody that is known.",
        ),
        Section::of(
            "Scans that may have included the record",
            "Statements on the object of which it is not known whose records they touched: the record may be among them, or not.",
            actors.numbered(on_object),
            "None: of every statement on the object it is known whose records it touched.",
        ),
    ];
    sections.push(Section {
        title: "How far this goes".to_owned(),
        text: told::limits(asking, &answer, &elsewhere),
        table: None,
    });
    let known: Vec<String> = asking
        .asked
        .tokens
        .iter()
        .map(|sought| format!("{} ({})", sought.key, sought.family))
        .collect();
    let [first, last] = answer.seen.each_ref().map(|time| time.as_deref().unwrap_or("–"));
    let mut facts = vec![
        ("object".to_owned(), asking.asked.object.clone()),
        ("identified by".to_owned(), asking.asked.column.clone()),
        period(asking.asked.span),
        ("events looked at".to_owned(), format!("from {first} to {last}")),
        (
            "looked for under the keys".to_owned(),
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            },
        ),
    ];
    if !name_actors {
        facts.push(("actors".to_owned(), "numbered in this report; the events named with them tell who they are to whoever may see the record".to_owned()));
    }
    Ok(Report {
        title: "Access to one person's data".to_owned(),
        facts,
        sections,
    })
}

/// Who is called what in a report.
struct Actors {
    named: bool,
    known: HashMap<String, usize>,
}

impl Actors {
    /// The table, with numbers in place of what says who somebody is, unless that is asked for.
    fn numbered(&mut self, mut page: Page) -> Page {
        if self.named {
            return page;
        }
        // A role may be a person's own, and a statement is about how somebody works.
        for hidden in ["role", "statement"] {
            page = without(page, hidden);
        }
        let Some(place) = page.columns.iter().position(|name| name == "principal") else {
            return page;
        };
        for row in &mut page.rows {
            if let Some(cell) = row.get_mut(place) {
                *cell = self.called(cell);
            }
        }
        if let Some(name) = page.columns.get_mut(place) {
            "actor".clone_into(name);
        }
        page
    }

    fn called(&mut self, principal: &Value) -> Value {
        match principal.as_str() {
            None | Some("unknown") => json!("not known"),
            Some(principal) => {
                let next = self.known.len() + 1;
                let number = *self.known.entry(principal.to_owned()).or_insert(next);
                json!(format!("actor {number}"))
            }
        }
    }
}

fn without(mut page: Page, column: &str) -> Page {
    if let Some(place) = page.columns.iter().position(|name| name == column) {
        page.columns.remove(place);
        for row in &mut page.rows {
            row.remove(place);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_has_one_number_and_nothing_else_says_who_it_is() {
        let page = || Page {
            columns: ["principal", "statements", "role", "statement"]
                .map(str::to_owned)
                .to_vec(),
            rows: ["spiffe://td/b", "unknown", "spiffe://td/a", "spiffe://td/b"]
                .map(|principal| vec![json!(principal), json!(1), json!("eve"), json!("SELECT secret")])
                .to_vec(),
            truncated: false,
        };
        let mut actors = Actors {
            named: false,
            known: HashMap::new(),
        };
        let first = actors.numbered(page());
        assert_eq!(first.columns, ["actor", "statements"]);
        let called: Vec<&Value> = first.rows.iter().map(|row| &row[0]).collect();
        assert_eq!(
            called,
            [
                &json!("actor 1"),
                &json!("not known"),
                &json!("actor 2"),
                &json!("actor 1")
            ]
        );
        let text = format!("{:?}", actors.numbered(page()));
        assert!(
            !text.contains("spiffe") && !text.contains("eve") && !text.contains("secret"),
            "{text}"
        );
        assert_eq!(actors.known.len(), 2, "the same all over the report");
        let mut named = Actors {
            named: true,
            known: HashMap::new(),
        };
        assert_eq!(named.numbered(page()), page());
    }
}
