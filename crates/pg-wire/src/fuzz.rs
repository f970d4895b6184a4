//! The body of the fuzz target, here so that a unit test runs the same code. It turns bytes into a life of
//! a session — pieces, well-framed messages, gaps, an end — and asserts what must hold in any of them.

use crate::limits::Limits;
use crate::output::Output;
use crate::session::Session;
use crate::{Direction, exchange};

/// Drives a session with what `data` says. Panics if an invariant breaks.
pub fn fuzz_session(data: &[u8]) {
    let Some((&head, mut data)) = data.split_first() else {
        return;
    };
    let limits = if head & 2 == 0 { Limits::default() } else { tight() };
    let bound = limits.retained_bound();
    let mut session = if head & 1 == 0 {
        Session::new(limits.clone())
    } else {
        Session::mid_stream(limits.clone())
    };
    let mut offsets = [0_u64; 2];
    while let Some((&[step, length], rest)) = data.split_first_chunk::<2>() {
        let (piece, rest) = rest.split_at_checked(usize::from(length)).unwrap_or((rest, &[]));
        data = rest;
        let direction = if step & 1 == 0 {
            Direction::Frontend
        } else {
            Direction::Backend
        };
        let [frontend, backend] = &mut offsets;
        let offset = if step & 1 == 0 { frontend } else { backend };
        match (step >> 1) & 7 {
            // A message with a true length is what random bytes hardly ever are.
            0..=4 => {
                let message = message(direction, step >> 4, piece);
                session.handle_bytes(direction, 0, *offset, &message);
                *offset += message.len() as u64;
            }
            5 => {
                session.handle_bytes(direction, 0, *offset, piece);
                *offset += piece.len() as u64;
            }
            6 => {
                *offset += u64::from(length);
                let missing = (step & 16 == 0).then_some(u64::from(length));
                session.handle_gap(direction, 0, *offset, missing);
            }
            _ if step & 16 == 0 => session.handle_close(0),
            // Out of order, without saying so.
            _ => *offset = offset.wrapping_sub(u64::from(length)) % (1 << 40),
        }
        check(&mut session, &limits);
        assert!(
            session.retained_bytes() <= bound,
            "{} bytes kept, bound {bound}",
            session.retained_bytes()
        );
    }
    session.handle_close(0);
    check(&mut session, &limits);
}

fn check(session: &mut Session, limits: &Limits) {
    while let Some(output) = session.poll() {
        let Output::Exchange(exchange) = output else {
            continue;
        };
        assert!(exchange.request.start < exchange.request.end, "an empty request");
        assert!(!exchange.results.is_empty(), "an exchange without result");
        assert!(exchange.results.len() <= limits.results + 1, "too many results");
        assert!(exchange.statement_name.len() <= limits.names_bytes, "a long name");
        if let Some(sql) = &exchange.sql {
            assert!(sql.len() <= limits.statement_bytes, "a long statement");
            assert_eq!(
                exchange.truncated,
                (sql.len() as u64) < exchange.sql_bytes,
                "truncation not told"
            );
        }
        for result in &exchange.results {
            let failed = result.outcome == exchange::Outcome::Error;
            assert_eq!(failed, result.error.is_some(), "outcome and error differ");
        }
    }
}

/// A message whose type is chosen among those of its direction.
fn message(direction: Direction, choice: u8, body: &[u8]) -> Vec<u8> {
    let kinds: &[u8] = match direction {
        Direction::Frontend => b"QPBDECSHFdcfSXES",
        Direction::Backend => b"Z123CDETtnsGHdZR",
    };
    let kind = kinds.get(usize::from(choice)).copied().unwrap_or(b'S');
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut message = vec![kind];
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// Bounds that a few hundred bytes can reach.
fn tight() -> Limits {
    Limits {
        statement_bytes: 40,
        names_bytes: 5,
        value_bytes: 3,
        values_bytes: 8,
        prepared: 3,
        prepared_bytes: 100,
        pipeline: 6,
        pipeline_bytes: 90,
        results: 3,
        columns: 4,
    }
}
