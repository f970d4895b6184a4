//! The JSON form of an event: what people, tools and the answers' `event` column see.
//!
//! Owns the mapping of one `Event` to one JSON object, field by field in the order of the event reference. Refuses
//! to fill gaps: a field that the event leaves at its default is absent, because it is unknown or does not apply. It is
//! separate from the messages so that agent and collector print the same event the same way.

use serde_json::Value;

use self::{
    fields::{Fields, in_one_line},
    subjects::{param, subject},
};
use crate::v1::{self, event::Body};

mod fields;
mod subjects;

/// The JSON form of `event`, which `agent_id` recorded.
///
/// Times are RFC 3339 in UTC with nanoseconds; enums are their lower-case names (`tcp`, `observed`), classes
/// upper-case as pgAudit writes them (`READ`). Booleans that queries rely on (`text_known`, `truncated`, `parsed`,
/// `opened_before_attach`, `previous_run_unclean`, `recording_segments`) are always there. An enum value that this version does not know
/// is kept as its number.
pub fn event(agent_id: &str, event: &v1::Event) -> String {
    event_as(agent_id, event, None)
}

/// What a collector found out behind an event.
#[derive(Clone, Copy, Debug)]
pub struct Amended<'a> {
    /// Id of the event that says so.
    pub by: &'a str,
    /// Whose the session is.
    pub attribution: &'a v1::Attribution,
}

/// The JSON form of an event whose session has another name than it was recorded with: that stands in
/// `attribution.recorded`.
pub fn amended_event(agent_id: &str, event: &v1::Event, amended: Amended<'_>) -> String {
    event_as(agent_id, event, Some(amended))
}

fn event_as(agent_id: &str, event: &v1::Event, amended: Option<Amended<'_>>) -> String {
    in_one_line(|fields| {
        fields.always("kind", kind(event));
        fields.always("event_id", &event_id(agent_id, event.seq));
        fields.always("agent", agent_id);
        fields.always("seq", &event.seq);
        fields.time("ts_start", event.ts_start_ns);
        fields.time("ts_first_response", event.ts_first_response_ns);
        fields.time("ts_end", event.ts_end_ns);
        let own = match &event.body {
            Some(Body::Query(query)) => Some(query),
            Some(Body::Rollup(rollup)) => rollup.query.as_ref(),
            _ => None,
        };
        fields.node("session", event.session.as_ref(), |fields, of| {
            session(fields, of, own);
        });
        match &event.body {
            Some(Body::Query(q)) => query(fields, q),
            Some(body @ Body::Rollup(rollup)) => {
                if let Some(q) = &rollup.query {
                    query(fields, q);
                }
                fields.node("rollup", Some(body), detail);
            }
            // Under the kind's own name stands the attribution that it gives.
            Some(body @ Body::Amendment(_)) => fields.node("amends", Some(body), detail),
            Some(body) => fields.node(kind_of(body), Some(body), detail),
            None => {}
        }
        let asserted = own.and_then(|query| query.asserted.as_ref());
        let none = v1::Attribution::default();
        let shown = amended.map(|amended| amended.attribution);
        let shown = shown.or(event.attribution.as_ref());
        fields.node("attribution", shown.or(asserted.map(|_| &none)), |fields, of| {
            if shown.is_some() {
                attribution(fields, of);
            }
            if let Some(amended) = amended {
                fields.always("amended_by", amended.by);
                fields.node("recorded", event.attribution.as_ref(), attribution);
            }
            fields.node("asserted", asserted, self::asserted);
        });
        if let Some(Body::Gap(gap)) = &event.body {
            fields.node("loss", Some(gap), loss);
        }
    })
}

/// The kind's name, as in `"kind"`: `query`, `session_open`, `gap`, …; `unknown` for a body that this version does
/// not know.
pub fn kind(event: &v1::Event) -> &'static str {
    event.body.as_ref().map_or("unknown", kind_of)
}

/// The kind's name of an event with this body.
pub fn kind_of(body: &Body) -> &'static str {
    match body {
        Body::Query(_) => "query",
        Body::SessionOpen(_) => "session_open",
        Body::SessionClose(_) => "session_close",
        Body::AuthFailure(_) => "auth_failure",
        Body::Gap(_) => "gap",
        Body::OpaqueSession(_) => "opaque_session",
        Body::SessionError(_) => "session_error",
        Body::Cancel(_) => "cancel",
        Body::Heartbeat(_) => "heartbeat",
        Body::AgentStart(_) => "agent_start",
        Body::AgentStop(_) => "agent_stop",
        Body::Transaction(_) => "transaction",
        Body::AgentPause(_) => "agent_pause",
        Body::AgentResume(_) => "agent_resume",
        Body::FlowOwner(_) => "flow_owner",
        Body::PoolerClient(_) => "pooler_client",
        Body::Amendment(_) => "attribution",
        Body::PoolerTraffic(_) => "pooler_traffic",
        Body::Rollup(_) => "rollup",
        Body::ConfigChange(_) => "config_change",
        Body::CollectorChange(_) => "collector_change",
        Body::LogRestored(_) => "log_restored",
        Body::Alarm(_) => "alarm",
        Body::Erasure(_) => "erasure",
        Body::Hold(_) => "hold",
        Body::Retention(_) => "retention",
        Body::Inquiry(_) => "access",
        Body::KubernetesPod(_) => "pod",
    }
}

/// An event's name in every answer: `<agent id>-<seq>`.
pub fn event_id(agent_id: &str, seq: u64) -> String {
    format!("{agent_id}-{seq}")
}

/// The short name of an enum value: `TRANSPORT_TCP` under the prefix `TRANSPORT_` is `tcp`.
///
/// `None` for the value 0, which every enum of the schema uses for "unknown".
pub fn enum_name(number: i32, full_name: Option<&str>, prefix: &str) -> Option<String> {
    if number == 0 {
        return None;
    }
    Some(match full_name {
        Some(full) => full.strip_prefix(prefix).unwrap_or(full).to_ascii_lowercase(),
        None => number.to_string(),
    })
}

/// The short name of a confidence; 0 is a level of its own, `none`, and is always said.
pub fn confidence(number: i32) -> String {
    let full = v1::Confidence::try_from(number).ok();
    enum_name(number, full.map(|c| c.as_str_name()), "CONFIDENCE_").unwrap_or_else(|| "none".to_owned())
}

/// A statement's class as pgAudit writes it: `READ`, `MISC_SET`, …; `None` where it is not known.
pub fn class(number: i32) -> Option<String> {
    let full = v1::Class::try_from(number).ok();
    enum_name(number, full.map(|c| c.as_str_name()), "CLASS_").map(|name| name.to_ascii_uppercase())
}

/// Nanoseconds since the Unix epoch as RFC 3339 in UTC, always nine decimals; `None` for 0 (not known).
pub fn time(unix_ns: u64) -> Option<String> {
    if unix_ns == 0 {
        return None;
    }
    let at = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).ok()?;
    Some(format!("{at:.9}"))
}

fn session(f: &mut Fields<'_>, s: &v1::Session, query: Option<&v1::Query>) {
    f.text("id", &s.id);
    f.number("backend_pid", s.backend_pid.into());
    f.text("login_role", &s.login_role);
    if let Some(query) = query.filter(|query| !query.effective_role.is_empty()) {
        f.text("effective_role", &query.effective_role);
        let stale = query.effective_role_possibly_stale;
        f.optional("effective_role_possibly_stale", stale.then_some(true));
    }
    f.text("database", &s.database);
    f.text("application_name", &s.application_name);
    f.name(
        "transport",
        s.transport,
        v1::Transport::try_from(s.transport).map(|e| e.as_str_name()),
        "TRANSPORT_",
    );
    f.name(
        "encryption",
        s.encryption,
        v1::Encryption::try_from(s.encryption).map(|e| e.as_str_name()),
        "ENCRYPTION_",
    );
    f.text("tls_version", &s.tls_version);
    f.text("tls_cipher", &s.tls_cipher);
    f.text("client_certificate", &s.client_certificate);
    f.text("auth_method", &s.auth_method);
    f.text("server_version", &s.server_version);
    f.node("client", s.client.as_ref(), endpoint);
    f.node("server", s.server.as_ref(), endpoint);
    f.text("fingerprint", &fingerprint(s.fingerprint));
    f.always("opened_before_attach", &s.opened_before_attach);
}

/// Of a connection, as 16 hexadecimal digits; empty where it is not known.
fn fingerprint(of: Option<u64>) -> String {
    of.map(|pair| format!("{pair:016x}")).unwrap_or_default()
}

fn endpoint(f: &mut Fields<'_>, e: &v1::Endpoint) {
    f.text("addr", &e.addr);
    f.number("port", e.port.into());
}

fn query(f: &mut Fields<'_>, q: &v1::Query) {
    f.name(
        "protocol",
        q.protocol,
        v1::Protocol::try_from(q.protocol).map(|e| e.as_str_name()),
        "PROTOCOL_",
    );
    f.node("statement", q.statement.as_ref(), statement);
    f.number("param_count", q.param_count.into());
    f.list("params", &q.params, param);
    f.optional("function_oid", q.function_oid);
    f.node("meaning", q.meaning.as_ref(), meaning);
    f.node("result", q.result.as_ref(), result);
    f.node("transaction", q.transaction.as_ref(), transaction);
    f.node("stream", q.stream.as_ref(), stream);
    f.list("subjects", &q.subjects, subject);
}

/// How a transaction ended: `committed`, `rolled_back`, `prepared`; `None` where that is not known.
pub fn final_name(number: i32) -> Option<String> {
    let full = v1::Final::try_from(number).ok();
    enum_name(number, full.map(|e| e.as_str_name()), "FINAL_")
}

fn statement(f: &mut Fields<'_>, s: &v1::Statement) {
    if s.text_known {
        f.always("text", s.text.as_str());
    } else {
        f.text("text", &s.text);
    }
    f.text("fingerprint", &s.fingerprint);
    f.text("name", &s.name);
    f.text("portal", &s.portal);
    f.always("index", &s.index);
    f.always("text_known", &s.text_known);
    f.always("truncated", &s.truncated);
    f.number("original_bytes", s.original_bytes);
    if !s.sha256.is_empty() {
        f.always("sha256", &hex::encode(&s.sha256));
    }
    f.text("source", &s.source);
}

fn meaning(f: &mut Fields<'_>, m: &v1::Meaning) {
    f.optional("class", class(m.class));
    f.text("command", &m.command);
    f.text("tag", &m.tag);
    f.always("parsed", &m.parsed);
    f.list("objects", &m.objects, object);
}

fn object(f: &mut Fields<'_>, o: &v1::Object) {
    f.text("schema", &o.schema);
    f.text("name", &o.name);
    f.text("kind", &o.kind);
    f.name(
        "access",
        o.access,
        v1::Access::try_from(o.access).map(|e| e.as_str_name()),
        "ACCESS_",
    );
    f.texts("columns", &o.columns);
    f.texts("filtered", &o.filtered);
    f.optional("columns_exact", o.columns_exact.then_some(true));
    f.text("source", &o.source);
}

fn result(f: &mut Fields<'_>, r: &v1::Result) {
    f.name(
        "phase",
        r.phase,
        v1::Phase::try_from(r.phase).map(|e| e.as_str_name()),
        "PHASE_",
    );
    // Every other field says so by its absence; that no answer was seen is an outcome in its own right.
    let outcome = v1::Outcome::try_from(r.outcome).ok();
    let outcome = enum_name(r.outcome, outcome.map(|e| e.as_str_name()), "OUTCOME_");
    f.always("outcome", outcome.as_deref().unwrap_or("unknown"));
    f.optional("rows", r.rows);
    f.optional("rows_affected", r.rows_affected);
    f.always("bytes_in", &r.bytes_in);
    f.always("bytes_out", &r.bytes_out);
    f.optional("copy_bytes", r.copy_bytes);
    f.text("sqlstate", &r.sqlstate);
    f.text("severity", &r.severity);
    f.list("columns", &r.columns, result_column);
}

fn result_column(f: &mut Fields<'_>, c: &v1::ResultColumn) {
    f.text("name", &c.name);
    f.number("table_oid", c.table_oid.into());
    f.number("attnum", c.attnum.into());
}

fn transaction(f: &mut Fields<'_>, t: &v1::Transaction) {
    f.text("status", &t.status);
    f.number("seq", t.seq);
    f.optional("final", final_name(t.r#final));
}

fn stream(f: &mut Fields<'_>, s: &v1::StreamRange) {
    f.always("request_from", &s.request_from);
    f.always("request_to", &s.request_to);
    f.always("response_to", &s.response_to);
    f.optional("continues", s.continues);
    f.optional("client_from", s.client_from);
    f.optional("client_to", s.client_to);
}

fn erased_batch(f: &mut Fields<'_>, of: &v1::ErasedBatch) {
    f.always("entry", &of.entry);
    f.text("former_digest", &hex::encode(&of.former_digest));
    f.text("digest", &hex::encode(&of.digest));
    f.always("places", &of.places);
}

/// The body of every kind but `query`.
fn detail(f: &mut Fields<'_>, body: &Body) {
    match body {
        Body::SessionClose(c) => {
            f.text("reason", &c.reason);
            f.always("bytes_in", &c.bytes_in);
            f.always("bytes_out", &c.bytes_out);
            f.always("statements", &c.statements);
        }
        Body::AuthFailure(e) => {
            f.text("sqlstate", &e.sqlstate);
            f.text("severity", &e.severity);
        }
        Body::SessionError(e) => {
            f.text("sqlstate", &e.sqlstate);
            f.text("severity", &e.severity);
        }
        Body::Cancel(c) => {
            f.number("victim_backend_pid", c.victim_backend_pid.into());
            f.text("victim_session", &c.victim_session);
        }
        Body::OpaqueSession(o) => {
            let full = v1::Encryption::try_from(o.encryption).map(|e| e.as_str_name());
            f.name("encryption", o.encryption, full, "ENCRYPTION_");
            f.text("reason", &o.reason);
        }
        Body::Heartbeat(h) => {
            f.number("interval_ns", h.interval_ns);
            f.node("counters", h.counters.as_ref(), counters);
            f.list("left_out", &h.left_out, left_out);
        }
        Body::AgentStart(a) => {
            f.text("version", &a.version);
            f.text("host", &a.host);
            f.text("kernel", &a.kernel);
            f.text("boot_id", &a.boot_id);
            f.texts("hooks", &a.hooks);
            f.always("previous_run_unclean", &a.previous_run_unclean);
            f.always("recording_segments", &a.recording_segments);
            f.text("tier", &a.tier);
        }
        Body::AgentStop(a) => {
            f.text("reason", &a.reason);
            f.node("counters", a.counters.as_ref(), counters);
        }
        Body::AgentPause(p) => {
            // 0 is root here, not "unknown".
            f.always("uid", &p.uid);
            f.text("login", &p.login);
            f.text("reason", &p.reason);
        }
        Body::AgentResume(r) => {
            f.always("uid", &r.uid);
            f.text("login", &r.login);
            f.always("paused_ns", &r.paused_ns);
            f.always("bytes_discarded", &r.bytes_discarded);
            f.text("reason", &r.reason);
        }
        Body::PoolerClient(client) => f.text("pooler", &client.pooler),
        Body::FlowOwner(flow) => {
            f.node("client", flow.client.as_ref(), endpoint);
            f.node("server", flow.server.as_ref(), endpoint);
            f.text("fingerprint", &fingerprint(flow.fingerprint));
            f.number("network_namespace", flow.network_namespace.into());
        }
        Body::Amendment(amended) => {
            f.text("agent", &amended.agent_id);
            f.text("session", &amended.session);
            f.texts("inputs", &amended.inputs);
            f.number("join_version", amended.join_version.into());
            f.text("match", &amended.r#match);
            let numbers: Vec<u64> = summed(&amended.events).collect();
            f.optional("events", (!numbers.is_empty()).then_some(numbers));
        }
        Body::PoolerTraffic(traffic) => pooler_traffic(f, traffic),
        Body::Rollup(of) => rollup(f, of),
        Body::ConfigChange(change) => {
            f.text("part", &change.part);
            f.text("file", &change.file);
            f.text("sha256", &hex::encode(&change.sha256));
            f.text("former_sha256", &hex::encode(&change.former_sha256));
            f.always("rules", &change.rules);
            f.text("problem", &change.problem);
        }
        Body::CollectorChange(change) => {
            f.text("origin", &change.origin);
            f.text("former_origin", &change.former_origin);
            f.always("held", &change.held);
            f.always("acknowledged", &change.acknowledged);
        }
        Body::LogRestored(of) => {
            f.text("origin", &of.origin);
            f.text("verifier_key", &of.verifier_key);
            f.always("tree_size", &of.tree_size);
            f.text("root", &hex::encode(&of.root));
            f.text("checkpoint", &of.checkpoint);
        }
        Body::Alarm(alarm) => {
            f.text("kind", &alarm.kind);
            f.text("agent", &alarm.agent_id);
            f.text("detail", &alarm.detail);
            f.always("times", &alarm.times);
        }
        Body::Erasure(of) => {
            f.text("reason", &of.reason);
            f.text("by", &of.by);
            f.text("selected_by", &of.selected_by);
            f.always("events", &of.events);
            f.list("batches", &of.batches, erased_batch);
        }
        Body::Hold(hold) => {
            f.text("id", &hold.id);
            f.text("reason", &hold.reason);
            f.text("by", &hold.by);
            f.text("object", &hold.object);
            f.text("principal", &hold.principal);
            f.time("since", hold.since_ns);
            f.time("until", hold.until_ns);
            f.always("released", &hold.released);
        }
        Body::Retention(of) => {
            f.text("reason", &of.reason);
            f.text("by", &of.by);
            f.always("first_entry", &of.first_entry);
            f.always("end_entry", &of.end_entry);
            f.always("events", &of.events);
            f.text("root", &hex::encode(&of.root));
            f.time("before", of.before_ns);
        }
        Body::Inquiry(of) => {
            f.text("who", &of.who);
            f.text("address", &of.address);
            f.text("purpose", &of.purpose);
            f.text("kind", &of.kind);
            f.text("question", &of.question);
            f.always("rows", &of.rows);
            f.optional("failed", of.failed.then_some(true));
            f.number("times", of.times);
        }
        Body::KubernetesPod(told) => {
            if let Some(of) = &told.pod {
                pod(f, of);
            }
            f.text("trust_domain", &told.trust_domain);
            f.list("addresses", &told.addresses, pod_address);
            f.always("owners_complete", &told.owners_complete);
        }
        Body::Transaction(t) => {
            f.number("seq", t.seq);
            f.always("final", final_name(t.r#final).as_deref().unwrap_or("unknown"));
            f.always("statements", &t.statements);
        }
        // The first carries nothing, the others stand elsewhere: as `loss`, and in the event itself.
        Body::SessionOpen(_) | Body::Gap(_) | Body::Query(_) => {}
    }
}

/// The numbers of an [`v1::Amendment`]'s events, which are recorded as differences.
pub fn summed(differences: &[u64]) -> impl Iterator<Item = u64> {
    differences.iter().scan(0_u64, |sum, difference| {
        *sum = sum.saturating_add(*difference);
        Some(*sum)
    })
}

fn pooler_traffic(f: &mut Fields<'_>, t: &v1::PoolerTraffic) {
    f.node("client", t.client.as_ref(), endpoint);
    f.node("server", t.server.as_ref(), endpoint);
    f.text("fingerprint", &fingerprint(t.fingerprint));
    f.text("connection", &t.connection);
    f.text("program", &t.program);
    f.always("first", &t.first);
    f.optional("written_from", t.written_from);
    f.always("passed_from", &t.passed_from);
    f.always("settled_to", &t.settled_to);
    f.always("over", &t.over);
    f.texts("clients", &t.clients);
    for (key, numbers) in [
        ("ended", &t.ended),
        ("written", &t.written),
        ("passed", &t.passed),
    ] {
        f.optional(key, (!numbers.is_empty()).then_some(numbers));
    }
}

/// All of an agent's counters since it started; zeros are figures here, not unknowns.
pub fn counters_value(c: &v1::Counters) -> Value {
    serde_json::from_str(&in_one_line(|fields| counters(fields, c))).unwrap_or_default()
}

fn counters(f: &mut Fields<'_>, c: &v1::Counters) {
    f.always("segments", &c.segments);
    f.always("bytes", &c.bytes);
    f.always("events", &c.events);
    f.always("sessions", &c.sessions);
    f.always("ring_full", &c.ring_full);
    f.always("copy_fault", &c.copy_fault);
    f.always("unsupported_call", &c.unsupported_call);
    f.always("facts_lost", &c.facts_lost);
    f.always("malformed", &c.malformed);
    f.always("queue_dropped", &c.queue_dropped);
    f.always("targets_full", &c.targets_full);
    f.always("program_missed", &c.program_missed);
    f.always("probe_missed", &c.probe_missed);
    f.always("call_cap", &c.call_cap);
    f.always("paused_bytes", &c.paused_bytes);
    f.always("memory_limit_bytes", &c.memory_limit_bytes);
    f.always("owners_full", &c.owners_full);
    f.always("flows_full", &c.flows_full);
    f.always("ring_full_bytes", &c.ring_full_bytes);
    f.always("plaintext_unplaced", &c.plaintext_unplaced);
    f.always("transfers_lost", &c.transfers_lost);
    f.always("left_out", &c.left_out);
    f.always("rolled_up", &c.rolled_up);
    f.always("policy_refused", &c.policy_refused);
    f.always("spool_dropped", &c.spool_dropped);
}

fn left_out(f: &mut Fields<'_>, l: &v1::LeftOut) {
    f.text("rule", &l.rule);
    f.always("statements", &l.statements);
}

fn rollup(f: &mut Fields<'_>, r: &v1::Rollup) {
    f.always("executions", &r.executions);
    f.number("transactions", r.transactions);
    f.number("committed", r.committed);
    f.number("rolled_back", r.rolled_back);
    f.number("prepared", r.prepared);
    f.number("end_unknown", r.end_unknown);
    f.number("open", r.open);
    f.number("open_transaction", r.open_transaction);
    f.always("duration_ns", &r.duration_ns);
    if !r.durations.is_empty() {
        f.always("duration_from", &r.duration_from);
        f.always("durations", &r.durations);
    }
    f.text("rule", &r.rule);
}

fn attribution(f: &mut Fields<'_>, a: &v1::Attribution) {
    f.text("principal", &a.principal);
    f.name(
        "kind",
        a.kind,
        v1::PrincipalKind::try_from(a.kind).map(|e| e.as_str_name()),
        "PRINCIPAL_KIND_",
    );
    f.always("confidence", &confidence(a.confidence));
    f.text("method", &a.method);
    f.text("reason", &a.reason);
    f.texts("evidence", &a.evidence);
    f.list("hops", &a.hops, hop);
    f.node("process", a.process.as_ref(), process);
    f.node("container", a.container.as_ref(), container);
    f.node("pod", a.pod.as_ref(), pod);
    if a.put_in {
        f.always("put_in", &true);
    }
}

/// What the first claim of each kind says. The end user's is told with all that is known of it.
fn asserted(f: &mut Fields<'_>, a: &v1::Asserted) {
    let first = |index: usize, claim: &v1::Claim| {
        let before = a.claims.iter().take(index);
        !claim.says.is_empty() && before.filter(|other| other.says == claim.says).count() == 0
    };
    let mut stale = Vec::new();
    for (index, claim) in a.claims.iter().enumerate() {
        if !first(index, claim) {
            continue;
        }
        f.always(&claim.says, &claim.value);
        if claim.says == END_USER {
            f.text("source", &claim.source);
            f.node("set_by", claim.set_by.as_ref(), |f, by| {
                f.always("request_from", &by.request_from);
                f.always("index", &by.index);
            });
        }
        stale.extend(claim.possibly_stale.then(|| claim.says.clone()));
    }
    f.texts("possibly_stale", &stale);
    f.texts("foreign", &a.foreign);
    f.text("unknown", &a.unknown);
}

/// What a claim says that names a person.
pub const END_USER: &str = "end_user";

fn hop(f: &mut Fields<'_>, h: &v1::Hop) {
    f.text("name", &h.name);
    f.text("role", &h.role);
    f.always("confidence", &confidence(h.confidence));
    f.node("process", h.process.as_ref(), process);
    f.text("session", &h.session);
    if !h.session.is_empty() {
        f.always("client_confidence", &confidence(h.client_confidence));
        f.text("client_method", &h.client_method);
    }
}

fn process(f: &mut Fields<'_>, p: &v1::Process) {
    f.number("pid", p.pid.into());
    f.number("start_ns", p.start_ns);
    f.text("exe", &p.exe);
    f.texts("command_line", &p.command_line);
    // 0 is root here, not "unknown".
    f.always("uid", &p.uid);
    f.text("user", &p.user);
    f.optional("login_uid", p.login_uid);
    f.text("cgroup_path", &p.cgroup_path);
    f.number("cgroup_id", p.cgroup_id);
    f.text("unit", &p.unit);
    f.list("ancestry", &p.ancestry, ancestor);
    if !p.exe_sha256.is_empty() {
        f.always("exe_sha256", &hex::encode(&p.exe_sha256));
    }
    f.optional("audit_session", p.audit_session);
    f.number("session", p.session.into());
    f.text("tty", &p.tty);
    f.node("namespaces", p.namespaces.as_ref(), namespaces);
    f.list("run", &p.run, variable);
    f.text("inner_unit", &p.inner_unit);
    f.text("slice", &p.slice);
    f.text("login_session", &p.login_session);
    f.text("login_user", &p.login_user);
}

fn namespaces(f: &mut Fields<'_>, n: &v1::Namespaces) {
    f.number("pid", n.pid.into());
    f.number("net", n.net.into());
    f.number("mnt", n.mnt.into());
}

fn variable(f: &mut Fields<'_>, v: &v1::Variable) {
    f.text("name", &v.name);
    f.text("value", &v.value);
}

fn ancestor(f: &mut Fields<'_>, a: &v1::Ancestor) {
    f.number("pid", a.pid.into());
    f.number("start_ns", a.start_ns);
    f.text("exe", &a.exe);
}

fn container(f: &mut Fields<'_>, c: &v1::Container) {
    f.text("id", &c.id);
    f.text("runtime", &c.runtime);
    f.text("name", &c.name);
    f.text("image", &c.image);
}

fn pod(f: &mut Fields<'_>, p: &v1::Pod) {
    f.text("uid", &p.uid);
    f.text("name", &p.name);
    f.text("namespace", &p.namespace);
    f.text("service_account", &p.service_account);
    f.text("node", &p.node);
    f.list("owners", &p.owners, owner);
    f.list("labels", &p.labels, variable);
    f.list("annotations", &p.annotations, variable);
}

fn owner(f: &mut Fields<'_>, o: &v1::Owner) {
    f.text("kind", &o.kind);
    f.text("name", &o.name);
}

fn pod_address(f: &mut Fields<'_>, a: &v1::PodAddress) {
    f.text("addr", &a.addr);
    f.time("from", a.from_ns);
    f.time("to", a.to_ns);
}

fn loss(f: &mut Fields<'_>, g: &v1::Gap) {
    f.optional("bytes_missing", g.bytes_missing);
    f.optional("events_missing", g.events_missing);
    f.text("reason", &g.reason);
    f.name(
        "direction",
        g.direction,
        v1::Direction::try_from(g.direction).map(|e| e.as_str_name()),
        "DIRECTION_",
    );
    f.text("detail", &g.detail);
}

#[cfg(test)]
mod tests;
