//! From the pipeline's events and the join's answers to the messages that are signed.

mod encoded;
mod encoder;
mod flow;
mod query;
mod who;
mod writer;

use proto::v1;
use tap_core::{Body, Direction, EncryptionKind, Endpoint, Event, Gap, SessionFacts, Transport, Unreadable};
use volume::Rolled;

use self::query::how;
pub use self::{
    encoded::{Encoded, Gathered},
    encoder::Encoder,
    flow::{flow_owner, pooler_client, pooler_client_again, pooler_traffic},
    who::attribution,
};
use crate::{clock::Clock, fleet_key};

/// An event of a session, with who is behind it. `boot` tells sessions of one boot of the host from those of another.
pub fn event(event: &Event, attribution: Option<&v1::Attribution>, clock: Clock, boot: &str) -> v1::Event {
    v1::Event {
        seq: 0,
        ts_start_ns: clock.utc(event.times.start),
        ts_first_response_ns: event.times.first_response.map_or(0, |at| clock.utc(at)),
        ts_end_ns: clock.utc(event.times.end),
        session: Some(session(&event.session, boot)),
        attribution: attribution.cloned(),
        body: Some(body(&event.body, boot)),
        ..v1::Event::default()
    }
}

/// Several executions as one, with who is behind them; `rule` of the policy said so.
pub fn rollup(roll: &Rolled, rule: &str, clock: Clock, boot: &str) -> v1::Event {
    let told = event(&roll.event, roll.attribution.as_deref(), clock, boot);
    let Some(v1::event::Body::Query(query)) = told.body else {
        // Nothing else is put together.
        return told;
    };
    let (first, counts) = roll.durations.counts();
    let rollup = v1::Rollup {
        query: Some(v1::Query {
            transaction: None,
            ..query
        }),
        executions: roll.executions,
        transactions: roll.transactions,
        committed: roll.ends.committed,
        rolled_back: roll.ends.rolled_back,
        prepared: roll.ends.prepared,
        end_unknown: roll.ends.unknown,
        open: roll.open,
        open_transaction: roll.open_transaction,
        duration_ns: roll.duration_ns,
        duration_from: first,
        durations: counts.to_vec(),
        rule: rule.to_owned(),
    };
    v1::Event {
        body: Some(v1::event::Body::Rollup(rollup)),
        ..told
    }
}

/// An event of the agent itself.
pub fn own_event(at_boot_ns: u64, clock: Clock, body: v1::event::Body) -> v1::Event {
    let at = clock.utc(at_boot_ns);
    v1::Event {
        ts_start_ns: at,
        ts_end_ns: at,
        body: Some(body),
        ..v1::Event::default()
    }
}

fn session(facts: &SessionFacts, boot: &str) -> v1::Session {
    let encryption = match facts.encryption {
        Some(kind) => encryption(kind),
        None if facts.opened_before_attach => v1::Encryption::Unknown,
        None => v1::Encryption::None,
    };
    let transport = match facts.transport {
        Transport::Tcp => v1::Transport::Tcp,
        Transport::Unix => v1::Transport::Unix,
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    v1::Session {
        id: session_id(boot, facts.cookie),
        backend_pid: facts.backend_pid,
        login_role: text(&facts.login_role),
        database: text(&facts.database),
        application_name: text(&facts.application_name),
        transport: transport.into(),
        encryption: encryption.into(),
        auth_method: facts.auth_method.unwrap_or_default().to_owned(),
        client: endpoint(&facts.client),
        server: endpoint(&facts.server),
        opened_before_attach: facts.opened_before_attach,
        fingerprint: fleet_key::fingerprint(facts.fingerprint),
        server_version: text(&facts.server_version),
        tls_version: facts.tls_version.unwrap_or_default().to_owned(),
        tls_cipher: facts.tls_cipher.unwrap_or_default().to_owned(),
        ..v1::Session::default()
    }
}

/// How a connection is called in records.
pub fn session_id(boot: &str, cookie: u64) -> String {
    format!("{boot}-{cookie:x}")
}

fn endpoint(endpoint: &Endpoint) -> Option<v1::Endpoint> {
    match endpoint {
        Endpoint::Inet(address, port) => Some(v1::Endpoint {
            addr: address.to_string(),
            port: u32::from(*port),
        }),
        Endpoint::Unix(path) if path.is_empty() => None,
        Endpoint::Unix(path) => Some(v1::Endpoint {
            addr: path.clone(),
            port: 0,
        }),
    }
}

fn encryption(kind: EncryptionKind) -> v1::Encryption {
    match kind {
        EncryptionKind::Tls => v1::Encryption::Tls,
        EncryptionKind::Gss => v1::Encryption::Gss,
    }
}

fn body(body: &Body, boot: &str) -> v1::event::Body {
    use v1::event::Body as Out;
    match body {
        Body::SessionOpen => Out::SessionOpen(v1::SessionOpen {}),
        Body::SessionClose {
            reason,
            bytes_in,
            bytes_out,
            statements,
        } => Out::SessionClose(v1::SessionClose {
            reason: (*reason).to_owned(),
            bytes_in: *bytes_in,
            bytes_out: *bytes_out,
            statements: *statements,
        }),
        Body::AuthFailure(error) => Out::AuthFailure(v1::AuthFailure {
            sqlstate: error.sqlstate.clone(),
            severity: error.severity.clone(),
        }),
        Body::SessionError(error) => Out::SessionError(v1::SessionError {
            sqlstate: error.sqlstate.clone(),
            severity: error.severity.clone(),
        }),
        Body::Cancel { victim, session } => Out::Cancel(v1::Cancel {
            victim_backend_pid: *victim,
            victim_session: session.map(|cookie| session_id(boot, cookie)).unwrap_or_default(),
        }),
        Body::Transaction(end) => Out::Transaction(v1::TransactionEnd {
            seq: end.number,
            r#final: how(end.how).into(),
            statements: end.statements,
        }),
        Body::Opaque { kind, reason } => Out::OpaqueSession(v1::OpaqueSession {
            encryption: encryption(*kind).into(),
            reason: unreadable(*reason).to_owned(),
        }),
        Body::Gap(gap) => Out::Gap(self::gap(gap)),
        Body::Query(query) => Out::Query(query::query(query)),
    }
}

fn unreadable(reason: Unreadable) -> &'static str {
    match reason {
        Unreadable::NotProbed => "the server's encryption functions were not probed when the session began",
        Unreadable::NoPlaintext => {
            "encrypted bytes went by, and the probes of the server's encryption functions saw none"
        }
        Unreadable::NothingSaid => "the connection ended before anything was said under encryption",
    }
}

fn gap(gap: &Gap) -> v1::Gap {
    let direction = match gap.direction {
        Direction::Frontend => v1::Direction::Frontend,
        Direction::Backend => v1::Direction::Backend,
    };
    v1::Gap {
        reason: gap.reason.to_owned(),
        direction: direction.into(),
        bytes_missing: gap.bytes_missing,
        events_missing: None,
        detail: gap.detail.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
