//! What a pooler did with a connection, as the event that tells of it.

use lease::{Coded, Kind, Portion};
use proto::v1;

/// The part of a `pooler_traffic` event that a portion makes; `session` gives the id of a client's session.
#[must_use]
pub fn pooler_traffic(kind: Kind, portion: &Portion, session: impl Fn(u64) -> String) -> v1::PoolerTraffic {
    let coded = Coded::of(portion);
    v1::PoolerTraffic {
        program: kind.name().to_owned(),
        first: portion.is_first,
        written_from: portion.written_from,
        passed_from: portion.passed_from,
        settled_to: portion.settled_to,
        over: portion.is_over,
        clients: coded.clients.into_iter().map(session).collect(),
        ended: coded.ended,
        written: coded.written,
        passed: coded.passed,
        ..v1::PoolerTraffic::default()
    }
}

/// The portion that such an event tells of, its clients under the numbers that `number` gives them; `None` where it is not what
/// [`pooler_traffic`] makes.
#[must_use]
pub fn portion(of: &v1::PoolerTraffic, number: impl FnMut(&str) -> u64) -> Option<Portion> {
    let coded = Coded {
        clients: of.clients.iter().map(String::as_str).map(number).collect(),
        ended: of.ended.clone(),
        written: of.written.clone(),
        passed: of.passed.clone(),
    };
    coded.pieces(Portion {
        is_first: of.first,
        written_from: of.written_from,
        passed_from: of.passed_from,
        settled_to: of.settled_to,
        is_over: of.over,
        ..Portion::default()
    })
}
