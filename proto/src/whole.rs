//! Events as a batch holds them, and whole ones.
//!
//! In a batch an event leaves out what follows from its place (its number) and what it has in common with others: that
//! it names by the place of a `Definition` of the same batch. Owns how the two make an event again, and what is refused:
//! a place where no definition is, one of the other kind, and whatever would be said twice. Refuses hashes and salts:
//! that events and definitions are those that were signed is checked before.

use std::fmt;

use prost::Message;

use crate::v1::{self, definition::Kind, event::Body};

/// The event that a batch holds at one place: `seq` is its number, `definitions` are those of the batch, encoded.
///
/// # Errors
///
/// With what is wrong with it.
pub fn event(seq: u64, encoded: &[u8], definitions: &[impl AsRef<[u8]>]) -> Result<v1::Event, Refused> {
    let mut event = v1::Event::decode(encoded).map_err(|_| Refused::Malformed)?;
    check(seq, &event)?;
    if let Some(place) = event.template {
        let Kind::Template(template) = definition(place, definitions)? else {
            return Err(Refused::Kind(place));
        };
        // Protobuf merges what is said again, and adds what was not said: the event's own bytes come behind the template's.
        let template = v1::Event {
            body: Some(match event.body {
                Some(Body::Rollup(_)) => Body::Rollup(v1::Rollup {
                    query: Some(template),
                    ..v1::Rollup::default()
                }),
                _ => Body::Query(template),
            }),
            ..v1::Event::default()
        };
        let mut merged = template.encode_to_vec();
        merged.extend_from_slice(encoded);
        event = v1::Event::decode(merged.as_slice()).map_err(|_| Refused::Malformed)?;
    }
    if let Some(place) = event.party {
        let Kind::Party(party) = definition(place, definitions)? else {
            return Err(Refused::Kind(place));
        };
        (event.session, event.attribution) = (party.session, party.attribution);
    }
    Ok(alone(seq, event))
}

/// The same of an event that names no template, without its party.
#[must_use]
pub fn alone(seq: u64, mut event: v1::Event) -> v1::Event {
    if let Some(after) = event.first_response_after_ns {
        event.ts_first_response_ns = event.ts_start_ns.saturating_add(after);
    }
    if let Some(after) = event.ended_after_ns {
        event.ts_end_ns = event.ts_start_ns.saturating_add(after);
    }
    v1::Event {
        seq,
        first_response_after_ns: None,
        ended_after_ns: None,
        party: None,
        template: None,
        ..event
    }
}

/// Whether an event, as a batch holds it, may stand at the place of number `seq` and says nothing twice. The places
/// that it names are not looked at.
///
/// # Errors
///
/// With what is wrong with it.
pub fn check(seq: u64, event: &v1::Event) -> Result<(), Refused> {
    if event.seq != 0 && event.seq != seq {
        return Err(Refused::Number(event.seq));
    }
    let said_again = [
        event.party.is_some() && (event.session.is_some() || event.attribution.is_some()),
        event.template.is_some() && !matches!(event.body, Some(Body::Query(_) | Body::Rollup(_))),
        event.first_response_after_ns.is_some() && event.ts_first_response_ns != 0,
        event.ended_after_ns.is_some() && event.ts_end_ns != 0,
    ];
    if said_again.contains(&true) {
        return Err(Refused::Twice);
    }
    Ok(())
}

fn definition(place: u32, definitions: &[impl AsRef<[u8]>]) -> Result<Kind, Refused> {
    let index = usize::try_from(place).unwrap_or(usize::MAX);
    let encoded = definitions.get(index).ok_or(Refused::Place(place))?;
    let definition = v1::Definition::decode(encoded.as_ref()).map_err(|_| Refused::Definition(place))?;
    definition.kind.ok_or(Refused::Kind(place))
}

/// Why there is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its bytes are no event.
    Malformed,
    /// It says another number than the one of its place.
    Number(u64),
    /// It says something that its definition says, too, or names a template of another kind of event.
    Twice,
    /// The batch has no definition at this place.
    Place(u32),
    /// The definition at this place is of another kind.
    Kind(u32),
    /// The bytes of the definition at this place are none.
    Definition(u32),
}

impl fmt::Display for Refused {
    /// Goes on a sentence that begins with which event it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("is malformed"),
            Self::Number(found) => write!(f, "calls itself {found}"),
            Self::Twice => f.write_str("says again what its definition says, or is not what that is of"),
            Self::Place(place) => write!(f, "names definition {place}, which the batch does not have"),
            Self::Kind(place) => write!(f, "names definition {place}, which is of another kind"),
            Self::Definition(place) => write!(f, "names definition {place}, which is malformed"),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    fn definitions() -> Vec<Vec<u8>> {
        let party = v1::Party {
            session: Some(v1::Session {
                id: "b-1".into(),
                ..Default::default()
            }),
            attribution: None,
        };
        let template = v1::Query {
            protocol: 2,
            statement: Some(v1::Statement {
                text: "SELECT $1".into(),
                original_bytes: 9,
                ..Default::default()
            }),
            meaning: Some(v1::Meaning {
                command: "SELECT".into(),
                tag: "SELECT 1".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let of = |kind| v1::Definition { kind: Some(kind) }.encode_to_vec();
        vec![of(Kind::Party(party)), of(Kind::Template(template))]
    }

    fn compact() -> v1::Event {
        v1::Event {
            ts_start_ns: 1000,
            first_response_after_ns: Some(0),
            ended_after_ns: Some(7),
            party: Some(0),
            template: Some(1),
            body: Some(Body::Query(v1::Query {
                result: Some(v1::Result {
                    rows: Some(0),
                    ..Default::default()
                }),
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    #[test]
    fn event_and_definitions_make_the_whole() {
        let whole = event(12, &compact().encode_to_vec(), &definitions()).unwrap();
        assert_eq!(
            (whole.seq, whole.ts_first_response_ns, whole.ts_end_ns),
            (12, 1000, 1007)
        );
        assert_eq!(whole.session.as_ref().unwrap().id, "b-1");
        let Some(Body::Query(query)) = &whole.body else {
            panic!("a query")
        };
        assert_eq!(query.protocol, 2);
        assert_eq!(query.statement.as_ref().unwrap().text, "SELECT $1");
        assert_eq!(query.meaning.as_ref().unwrap().tag, "SELECT 1");
        assert_eq!(query.result.as_ref().unwrap().rows, Some(0));
        // A whole event is whole already, with its number or without.
        let none: &[&[u8]] = &[];
        assert_eq!(event(12, &whole.encode_to_vec(), none).as_ref(), Ok(&whole));
        let unnumbered = v1::Event {
            seq: 0,
            ..whole.clone()
        };
        assert_eq!(event(12, &unnumbered.encode_to_vec(), none), Ok(whole));
    }

    #[test]
    fn a_roll_up_begins_as_a_query_does() {
        let rollup = v1::Rollup {
            query: Some(v1::Query {
                result: Some(v1::Result {
                    rows: Some(30),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            executions: 10,
            durations: vec![0, 300],
            ..Default::default()
        };
        let mut own = compact();
        own.body = Some(Body::Rollup(rollup));
        let whole = event(12, &own.encode_to_vec(), &definitions()).unwrap();
        let Some(Body::Rollup(rollup)) = &whole.body else {
            panic!("a roll-up")
        };
        let query = rollup.query.as_ref().unwrap();
        assert_eq!(query.statement.as_ref().unwrap().text, "SELECT $1");
        assert_eq!(query.result.as_ref().unwrap().rows, Some(30));
        assert_eq!(
            (rollup.executions, rollup.durations.as_slice()),
            (10, &[0, 300][..])
        );
    }

    #[test]
    fn what_the_event_says_itself_counts() {
        let mut own = compact().encode_to_vec();
        // Field 10 again: statement.original_bytes 11, meaning.tag empty.
        own.extend([
            10 << 3 | 2,
            8,
            2 << 3 | 2,
            2,
            8 << 3,
            11,
            3 << 3 | 2,
            2,
            3 << 3 | 2,
            0,
        ]);
        let whole = event(1, &own, &definitions()).unwrap();
        let Some(Body::Query(query)) = &whole.body else {
            panic!("a query")
        };
        let (statement, meaning) = (query.statement.as_ref().unwrap(), query.meaning.as_ref().unwrap());
        assert_eq!(
            (statement.text.as_str(), statement.original_bytes),
            ("SELECT $1", 11)
        );
        assert_eq!((meaning.command.as_str(), meaning.tag.as_str()), ("SELECT", ""));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        let refused = |change: fn(&mut v1::Event)| {
            let mut changed = compact();
            change(&mut changed);
            event(5, &changed.encode_to_vec(), &definitions()).unwrap_err()
        };
        assert_eq!(refused(|event| event.seq = 6), Refused::Number(6));
        assert_eq!(refused(|event| event.party = Some(2)), Refused::Place(2));
        assert_eq!(
            refused(|event| event.template = Some(u32::MAX)),
            Refused::Place(u32::MAX)
        );
        assert_eq!(refused(|event| event.party = Some(1)), Refused::Kind(1));
        assert_eq!(refused(|event| event.template = Some(0)), Refused::Kind(0));
        assert_eq!(
            refused(|event| event.session = Some(v1::Session::default())),
            Refused::Twice
        );
        assert_eq!(refused(|event| event.ts_end_ns = 1), Refused::Twice);
        assert_eq!(refused(|event| event.body = None), Refused::Twice);
        let other = Some(Body::Gap(v1::Gap::default()));
        let mut gap = compact();
        gap.body = other;
        assert_eq!(
            event(5, &gap.encode_to_vec(), &definitions()),
            Err(Refused::Twice)
        );
        let broken = [vec![0xff], Vec::new()];
        assert_eq!(
            event(5, &compact().encode_to_vec(), &broken),
            Err(Refused::Kind(1))
        );
        let broken = [Vec::new(), vec![0xff]];
        assert_eq!(
            event(5, &compact().encode_to_vec(), &broken),
            Err(Refused::Definition(1))
        );
        assert_eq!(event(5, &[0xff], &broken), Err(Refused::Malformed));
    }
}
