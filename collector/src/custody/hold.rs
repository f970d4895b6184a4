//! Whether a hold is on an event.
//!
//! Owns the comparison, on the event as the evidence has it. What cannot be excluded is held: a statement of which nobody knows what
//! it touched may have touched anything.

use proto::v1::{self, event::Body};

/// Whether all that the hold says fits the event; `amended` is who answers say it is, if that is somebody else.
pub(super) fn is_on(hold: &v1::Hold, event: &v1::Event, amended: &dyn Fn() -> Option<String>) -> bool {
    is_within(hold, event.ts_start_ns)
        && (hold.object.is_empty() || may_touch(event, &hold.object))
        && (hold.principal.is_empty()
            || is_of(event, &hold.principal)
            || amended().is_some_and(|name| name == hold.principal))
}

/// Whether the hold may be on something in a batch, by its times alone.
pub(super) fn may_be_on(hold: &v1::Hold, header: &v1::BatchHeader) -> bool {
    let (first, last) = (header.first_ns, header.last_ns);
    // First and last are of some events: one of an unknown time may be among them.
    let begins_before = hold.until_ns == 0 || first < hold.until_ns;
    header.event_count > 0 && begins_before && (hold.since_ns == 0 || last >= hold.since_ns || first == 0)
}

fn is_within(hold: &v1::Hold, at: u64) -> bool {
    // Of an unknown time it cannot be excluded.
    at == 0 || (hold.since_ns == 0 || at >= hold.since_ns) && (hold.until_ns == 0 || at < hold.until_ns)
}

fn is_of(event: &v1::Event, principal: &str) -> bool {
    let recorded = event.attribution.as_ref();
    recorded.is_some_and(|recorded| recorded.principal == principal)
}

fn may_touch(event: &v1::Event, object: &str) -> bool {
    let query = match &event.body {
        Some(Body::Query(query)) => query,
        Some(Body::Rollup(rollup)) => match &rollup.query {
            Some(query) => query,
            None => return true,
        },
        _ => return false,
    };
    if query.subjects.iter().any(|subject| subject.object == object) {
        return true;
    }
    let (schema, bare) = object.rsplit_once('.').unwrap_or(("", object));
    let named = |of: &v1::Object| {
        of.name == bare && (schema.is_empty() || of.schema.is_empty() || of.schema == schema)
    };
    let meaning = query.meaning.as_ref();
    meaning.is_none_or(|meaning| !meaning.parsed || meaning.objects.iter().any(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touching(schema: &str, name: &str) -> v1::Event {
        let meaning = v1::Meaning {
            parsed: true,
            objects: vec![v1::Object {
                schema: schema.to_owned(),
                name: name.to_owned(),
                ..v1::Object::default()
            }],
            ..v1::Meaning::default()
        };
        v1::Event {
            ts_start_ns: 50,
            attribution: Some(v1::Attribution {
                principal: "recorded".to_owned(),
                ..v1::Attribution::default()
            }),
            body: Some(Body::Query(v1::Query {
                meaning: Some(meaning),
                ..v1::Query::default()
            })),
            ..v1::Event::default()
        }
    }

    #[test]
    fn all_that_a_hold_says_has_to_fit() {
        let event = touching("public", "customers");
        let amended = || Some("amended".to_owned());
        let on = |object: &str, principal: &str, since_ns, until_ns| {
            let hold = v1::Hold {
                object: object.to_owned(),
                principal: principal.to_owned(),
                since_ns,
                until_ns,
                ..v1::Hold::default()
            };
            is_on(&hold, &event, &amended)
        };
        for held in [
            on("", "", 0, 0),
            on("public.customers", "", 0, 0),
            on("customers", "recorded", 50, 51),
            on("", "amended", 0, 0),
        ] {
            assert!(held);
        }
        for free in [
            on("public.orders", "", 0, 0),
            on("other.customers", "", 0, 0),
            on("customers", "somebody", 0, 0),
            on("", "", 51, 0),
            on("", "", 0, 50),
        ] {
            assert!(!free);
        }
    }

    #[test]
    fn what_cannot_be_excluded_is_held() {
        let hold = v1::Hold {
            object: "public.customers".to_owned(),
            since_ns: 10,
            ..v1::Hold::default()
        };
        let is_held = |event: &v1::Event| is_on(&hold, event, &|| None);
        assert!(is_held(&touching("", "customers")), "its schema is not known");
        let mut event = touching("public", "orders");
        event.ts_start_ns = 0;
        assert!(!is_held(&event));
        if let Some(Body::Query(query)) = &mut event.body {
            query.meaning = None;
        }
        assert!(is_held(&event), "nobody knows what it touched, or when");
        let gap = v1::Event {
            body: Some(Body::Gap(v1::Gap::default())),
            ..v1::Event::default()
        };
        assert!(!is_held(&gap));
    }
}
