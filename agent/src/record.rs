//! From the pipeline's events and the join's answers to the messages that are signed.

mod encoded;
mod encoder;
mod flow;
mod writer;

use attribution::{Attribution, Confidence, Hop, PrincipalKind, Process};
use proto::v1;
use tap_core::{
    Asserted, Body, Column, Direction, EncryptionKind, Endpoint, Event, ExchangeKind, Final, Format, Gap,
    Outcome, Param, Phase, Query, SessionFacts, Statement, Transport, Unreadable, ValueText, text_of,
    text_of_start,
};

use sql_meaning::{ObjectRef, mask_value};

pub use self::{
    encoded::{Encoded, Gathered},
    encoder::Encoder,
    flow::flow_owner,
};
use crate::clock::Clock;

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

/// The answer of the join.
pub fn attribution(answer: &Attribution) -> v1::Attribution {
    let kind = match answer.principal.kind {
        PrincipalKind::Container => v1::PrincipalKind::Container,
        PrincipalKind::Unit => v1::PrincipalKind::Unit,
        PrincipalKind::Login => v1::PrincipalKind::Login,
        PrincipalKind::Process => v1::PrincipalKind::Process,
        PrincipalKind::Remote => v1::PrincipalKind::Remote,
        PrincipalKind::Unknown => v1::PrincipalKind::Unknown,
    };
    let process = answer.process.as_deref();
    let placement = process.map(Process::placement).unwrap_or_default();
    let kept = process.and_then(|process| process.container.as_deref().cloned());
    let kept = kept.unwrap_or_default();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    v1::Attribution {
        principal: answer.principal.id.clone(),
        kind: kind.into(),
        confidence: confidence(answer.confidence).into(),
        method: answer.method.to_owned(),
        reason: answer.reason.clone(),
        evidence: answer.evidence.clone(),
        hops: answer.hops.iter().map(hop).collect(),
        process: process.map(self::process),
        container: placement.container_id.map(|id| v1::Container {
            id,
            runtime: match placement.runtime {
                Some(runtime) => runtime.to_owned(),
                None => kept.runtime.to_string(),
            },
            name: kept.name.unwrap_or_default(),
            image: text(kept.image.as_deref()),
        }),
        pod: placement.pod_uid.map(|uid| v1::Pod {
            uid,
            name: kept.pod.unwrap_or_default(),
            namespace: text(kept.namespace.as_deref()),
        }),
        put_in: process.is_some_and(Process::was_put_in),
    }
}

fn confidence(confidence: Confidence) -> v1::Confidence {
    match confidence {
        Confidence::None => v1::Confidence::None,
        Confidence::Asserted => v1::Confidence::Asserted,
        Confidence::Inferred => v1::Confidence::Inferred,
        Confidence::Joined => v1::Confidence::Joined,
        Confidence::Observed => v1::Confidence::Observed,
    }
}

fn hop(hop: &Hop) -> v1::Hop {
    v1::Hop {
        name: hop.principal.id.clone(),
        role: hop.relay.name().to_owned(),
        confidence: confidence(hop.confidence).into(),
        process: Some(process(&hop.process)),
    }
}

fn process(process: &Process) -> v1::Process {
    let placement = process.placement();
    let ancestor = |ancestor: &attribution::Ancestor| v1::Ancestor {
        pid: ancestor.pid,
        start_ns: ancestor.start_ns,
        exe: ancestor.exe.to_string(),
    };
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    v1::Process {
        pid: process.pid,
        start_ns: process.start_ns,
        exe: text(process.exe.as_deref()),
        command_line: process.command_line.iter().map(str::to_owned).collect(),
        uid: process.uid,
        user: text(process.user.as_deref()),
        login_uid: process.login_uid,
        cgroup_path: text(process.cgroup_path.as_deref()),
        cgroup_id: process.cgroup_id,
        unit: placement.unit.unwrap_or_default(),
        ancestry: process.ancestry.iter().map(|parent| ancestor(parent)).collect(),
        exe_sha256: process
            .exe_sha256
            .map_or_else(Default::default, |digest| digest.to_vec()),
        audit_session: process.audit_session,
        session: process.session,
        tty: text(process.tty.as_deref()),
        namespaces: Some(v1::Namespaces {
            pid: process.namespaces.pid,
            net: process.namespaces.net,
            mnt: process.namespaces.mnt,
        }),
        run: process
            .run
            .iter()
            .map(|variable| v1::Variable {
                name: variable.name.clone(),
                value: variable.value.clone(),
            })
            .collect(),
        inner_unit: placement.inner_unit.unwrap_or_default(),
        slice: placement.slice.unwrap_or_default(),
        login_session: placement.session.unwrap_or_default(),
        login_user: text(process.login_user.as_deref()),
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
        fingerprint: facts.fingerprint,
        server_version: text(&facts.server_version),
        tls_version: facts.tls_version.unwrap_or_default().to_owned(),
        tls_cipher: facts.tls_cipher.unwrap_or_default().to_owned(),
        ..v1::Session::default()
    }
}

fn session_id(boot: &str, cookie: u64) -> String {
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
        Body::Query(query) => Out::Query(self::query(query)),
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

fn protocol(query: &Query) -> v1::Protocol {
    match query.kind {
        _ if query.replication => v1::Protocol::Replication,
        ExchangeKind::Simple => v1::Protocol::Simple,
        ExchangeKind::FunctionCall => v1::Protocol::FunctionCall,
        _ => v1::Protocol::Extended,
    }
}

/// System columns have negative numbers, told as 0; the table and the name still tell them.
fn attribute_number(column: &Column) -> u64 {
    u64::try_from(column.attnum).unwrap_or(0)
}

fn query(query: &Query) -> v1::Query {
    let error = query.error.clone().unwrap_or_default();
    let columns = query.columns.iter().map(|column| v1::ResultColumn {
        name: String::from_utf8_lossy(&column.name).into_owned(),
        table_oid: column.table_oid,
        attnum: u32::try_from(attribute_number(column)).unwrap_or(0),
    });
    v1::Query {
        protocol: protocol(query).into(),
        statement: Some(v1::Statement {
            text: query.text.as_deref().unwrap_or_default().to_owned(),
            fingerprint: query
                .statement
                .as_ref()
                .map(|statement| hex::encode(statement.fingerprint))
                .unwrap_or_default(),
            name: String::from_utf8_lossy(&query.statement_name).into_owned(),
            portal: String::from_utf8_lossy(&query.portal).into_owned(),
            index: query.index,
            text_known: query.text.is_some(),
            truncated: query.truncated,
            original_bytes: query.original_bytes,
            sha256: query
                .digest
                .as_ref()
                .map(|digest| digest.to_vec())
                .unwrap_or_default(),
            source: query.source.as_deref().unwrap_or_default().to_owned(),
        }),
        meaning: Some(meaning(query)),
        result: Some(v1::Result {
            phase: phase(query.phase).into(),
            outcome: outcome(query).into(),
            rows: Some(query.rows),
            rows_affected: query.rows_affected,
            bytes_in: query.bytes_in,
            bytes_out: query.bytes_out,
            copy_bytes: query.copy_bytes,
            sqlstate: error.sqlstate,
            severity: error.severity,
            columns: columns.collect(),
        }),
        transaction: Some(v1::Transaction {
            status: query
                .transaction_status
                .map(|status| char::from(status).to_string())
                .unwrap_or_default(),
            seq: query.transaction,
            r#final: query.transaction_final.map_or(v1::Final::Unknown, how).into(),
        }),
        stream: Some(v1::StreamRange {
            request_from: query.request.start,
            request_to: query.request.end,
            response_to: query.response_to,
            continues: query.continues,
        }),
        param_count: u32::from(query.param_count),
        params: query.params.iter().map(param).collect(),
        function_oid: query.function_oid,
        asserted: query.asserted.as_deref().map(asserted),
        effective_role: role_of(query).to_owned(),
        effective_role_possibly_stale: role_may_be_stale(query),
    }
}

fn role_of(query: &Query) -> &str {
    query.effective_role.as_ref().map_or("", |role| &role.name)
}

fn role_may_be_stale(query: &Query) -> bool {
    query
        .effective_role
        .as_ref()
        .is_some_and(|role| role.possibly_stale)
}

fn asserted(asserted: &Asserted) -> v1::Asserted {
    let claims = asserted.claims.iter().map(|claim| v1::Claim {
        says: claim.says.to_string(),
        value: claim.value.to_string(),
        source: claim.source.to_string(),
        set_by: claim.set_by.map(|by| v1::SetBy {
            request_from: by.request_from,
            index: by.index,
        }),
        possibly_stale: claim.possibly_stale,
    });
    v1::Asserted {
        claims: claims.collect(),
        unknown: asserted.unknown.unwrap_or_default().to_owned(),
    }
}

/// Values are there only where the pipeline was told to keep them.
fn param(param: &Param) -> v1::Param {
    let length = param.bytes.unwrap_or(0);
    let known = param.bytes.is_some() && (!param.kept.is_empty() || length == 0);
    let cut = known && param.truncated();
    let text_of = if cut { text_of_start } else { text_of };
    let (value, raw) = match known.then(|| text_of(param.type_oid, param.format, &param.kept)) {
        Some(ValueText::Text(text)) => (Some(mask_value(&text).into_owned()), false),
        Some(ValueText::Raw(text)) => (Some(text), true),
        None => (None, false),
    };
    v1::Param {
        oid: param.type_oid,
        format: format(param.format).into(),
        null: param.bytes.is_none(),
        bytes: u64::from(length),
        value,
        truncated: cut,
        raw,
    }
}

fn format(format: Format) -> v1::Format {
    match format {
        Format::Text => v1::Format::Text,
        Format::Binary => v1::Format::Binary,
    }
}

fn how(how: Final) -> v1::Final {
    match how {
        Final::Committed => v1::Final::Committed,
        Final::RolledBack => v1::Final::RolledBack,
        Final::Prepared => v1::Final::Prepared,
        Final::Unknown => v1::Final::Unknown,
    }
}

/// The class that a query is told with, and its statement if that is what says so: what the text says; where it says
/// nothing, or is not the whole text of this one statement, what the server's command tag says. Hiding a statement behind
/// a long text must not change its class.
fn class_of<'a>(query: &'a Query, tag: &str) -> (sql_meaning::Class, Option<&'a Statement>) {
    let statement = query.statement.as_deref().filter(|_| query.text_is_whole());
    let known = match statement {
        Some(statement) if statement.class != sql_meaning::Class::Unknown => statement.class,
        _ => sql_meaning::class_of_tag(tag),
    };
    (known, statement)
}

/// The command that a tag names.
fn command_of(tag: &str) -> &str {
    tag.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ')
}

/// What a statement touches, and what it runs by an SQL-level EXECUTE or FETCH.
fn objects<'a>(query: &'a Query, statement: &'a Statement) -> impl Iterator<Item = &'a ObjectRef> {
    let source = query.source_statement.iter().flat_map(|source| &source.objects);
    statement.objects.iter().chain(source)
}

fn meaning(query: &Query) -> v1::Meaning {
    let tag = query.tag.as_deref().unwrap_or_default();
    let (known, statement) = class_of(query, tag);
    let Some(statement) = statement else {
        return v1::Meaning {
            class: class(known).into(),
            command: command_of(tag).to_owned(),
            tag: tag.to_owned(),
            ..v1::Meaning::default()
        };
    };
    v1::Meaning {
        class: class(known).into(),
        command: statement.command.clone(),
        tag: tag.to_owned(),
        parsed: statement.parsed,
        objects: objects(query, statement).map(object).collect(),
    }
}

fn access(access: sql_meaning::Access) -> v1::Access {
    match access {
        sql_meaning::Access::Read => v1::Access::Read,
        sql_meaning::Access::Write => v1::Access::Write,
        sql_meaning::Access::Ddl => v1::Access::Ddl,
        sql_meaning::Access::Execute => v1::Access::Execute,
    }
}

/// Where the knowledge of an object comes from: the statement's text.
const FROM_SQL: &str = "sql";

fn object(object: &ObjectRef) -> v1::Object {
    v1::Object {
        schema: object.schema.clone().unwrap_or_default(),
        name: object.name.clone(),
        kind: object.kind.to_owned(),
        access: access(object.access).into(),
        columns: object.columns.clone(),
        source: FROM_SQL.to_owned(),
    }
}

fn class(class: sql_meaning::Class) -> v1::Class {
    match class {
        sql_meaning::Class::Unknown => v1::Class::Unknown,
        sql_meaning::Class::Read => v1::Class::Read,
        sql_meaning::Class::Write => v1::Class::Write,
        sql_meaning::Class::Function => v1::Class::Function,
        sql_meaning::Class::Role => v1::Class::Role,
        sql_meaning::Class::Ddl => v1::Class::Ddl,
        sql_meaning::Class::Misc => v1::Class::Misc,
        sql_meaning::Class::MiscSet => v1::Class::MiscSet,
    }
}

fn phase(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Parse => v1::Phase::Parse,
        Phase::Bind => v1::Phase::Bind,
        Phase::Execute => v1::Phase::Execute,
        Phase::Complete => v1::Phase::Complete,
    }
}

fn outcome(query: &Query) -> v1::Outcome {
    /// `query_canceled`, manual appendix "PostgreSQL Error Codes".
    const CANCELED: &str = "57014";
    match query.outcome {
        Outcome::Ok | Outcome::EmptyQuery => v1::Outcome::Ok,
        Outcome::Error
            if query
                .error
                .as_ref()
                .is_some_and(|error| error.sqlstate == CANCELED) =>
        {
            v1::Outcome::Canceled
        }
        Outcome::Error => v1::Outcome::Error,
        Outcome::Suspended => v1::Outcome::Suspended,
        Outcome::Unanswered => v1::Outcome::Unanswered,
        Outcome::Unknown => v1::Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests;
