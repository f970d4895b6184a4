//! Events in the form of the Open Cybersecurity Schema Framework, version 1.3.0 (<https://schema.ocsf.io/1.3.0/>).
//!
//! Owns what becomes of each field. Statements, logins and refused logins are Datastore Activity (6005); what OCSF has no class for (gaps, heartbeats,
//! amendments, …) is a Base Event (0), so that nothing is left out. Fields are moved, not copied: what has no place there stays, as it is,
//! under `unmapped`. Refuses to say more than the event: a principal that is not known is not in it, and how sure one is stands in `unmapped`.

use serde_json::{Map, Value, json};

/// An event's JSON form as OCSF.
#[must_use]
pub fn of(mut event: Value) -> Value {
    let kind = text(&event, "/kind");
    let class = match kind.as_str() {
        // It asks for an actor: the session, where nothing else is known.
        "query" | "rollup" | "session_open" | "auth_failure" if !text(&event, "/session/id").is_empty() => {
            Class::Datastore
        }
        _ => Class::Base,
    };
    let mut ocsf = Map::new();
    let mut put = |name: &str, value: Value| {
        if !is_empty(&value) {
            ocsf.insert(name.to_owned(), value);
        }
    };
    let (activity, activity_name) = match class {
        Class::Datastore => activity(&event, &kind),
        Class::Base => (OTHER, json!(kind)),
    };
    put("activity_id", json!(activity));
    put("activity_name", activity_name);
    put("category_uid", json!(class.category()));
    put("class_uid", json!(class.uid()));
    put("type_uid", json!(class.uid() * 100 + activity));
    // What happened is no finding: how bad it is nobody judged.
    put("severity_id", json!(1));
    let start = milliseconds(&event, "/ts_start");
    let end = milliseconds(&event, "/ts_end");
    put("time", start.clone().or(end.clone()).unwrap_or(json!(0)));
    put("start_time", start.unwrap_or_default());
    put("end_time", end.unwrap_or_default());
    put(
        "count",
        event
            .pointer("/rollup/executions")
            .filter(|count| fits(count))
            .cloned()
            .unwrap_or_default(),
    );
    put("message", json!(message(&event, &kind)));
    put("metadata", metadata(&mut event));
    if class == Class::Datastore {
        let (status, name) = status(&event, &kind);
        put("status_id", json!(status));
        put("status", name);
        let sqlstate = ["/result/sqlstate", "/auth_failure/sqlstate"];
        put(
            "status_code",
            sqlstate
                .iter()
                .map(|place| take(&mut event, place))
                .find(|code| !code.is_null())
                .unwrap_or_default(),
        );
        put("actor", actor(&mut event));
        put("src_endpoint", source(&mut event));
        put("dst_endpoint", endpoint(&mut event, "/session/server"));
        put("type_id", json!(DATABASE));
        put("database", database(&mut event));
        put("table", table(&event));
        put("query_info", query_info(&mut event));
    }
    prune(&mut event);
    put("unmapped", event);
    Value::Object(ocsf)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Datastore,
    Base,
}

impl Class {
    const fn uid(self) -> u64 {
        match self {
            Self::Datastore => 6005,
            Self::Base => 0,
        }
    }

    /// Application Activity, or none.
    const fn category(self) -> u64 {
        self.uid() / 1000
    }
}

/// What a statement does by its command; what is not one of OCSF's activities has its own name.
fn activity(event: &Value, kind: &str) -> (u64, Value) {
    let (class, command) = (text(event, "/meaning/class"), text(event, "/meaning/command"));
    let id = match (kind, class.as_str(), command.as_str()) {
        ("session_open" | "auth_failure", ..) => CONNECT,
        ("query" | "rollup", _, "SELECT") => QUERY,
        ("query" | "rollup", _, "INSERT") => CREATE,
        ("query" | "rollup", _, "UPDATE" | "MERGE") => UPDATE,
        ("query" | "rollup", _, "DELETE" | "TRUNCATE" | "TRUNCATE TABLE") => DELETE,
        ("query" | "rollup", "READ", "COPY") => READ,
        ("query" | "rollup", "WRITE", "COPY") => WRITE,
        ("query" | "rollup", "", "") => UNKNOWN,
        _ => OTHER,
    };
    let name = match (kind, command.as_str()) {
        ("query" | "rollup", "") => class,
        ("query" | "rollup", command) => command.to_owned(),
        (kind, _) => kind.to_owned(),
    };
    (id, json!(name))
}

fn status(event: &Value, kind: &str) -> (u64, Value) {
    let outcome = text(event, "/result/outcome");
    match (kind, outcome.as_str()) {
        ("session_open", _) => (SUCCESS, json!("Success")),
        ("auth_failure", _) => (FAILURE, json!("Failure")),
        (_, "ok") => (SUCCESS, json!("Success")),
        (_, "error" | "canceled") => (FAILURE, json!("Failure")),
        (_, "" | "unknown") => (UNKNOWN, json!("Unknown")),
        (_, other) => (OTHER, json!(other)),
    }
}

fn message(event: &Value, kind: &str) -> String {
    let detail = [
        "/meaning/tag",
        "/loss/reason",
        "/alarm/kind",
        "/opaque_session/reason",
    ];
    let detail = detail
        .iter()
        .map(|place| text(event, place))
        .find(|text| !text.is_empty());
    match detail {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind.to_owned(),
    }
}

fn metadata(event: &mut Value) -> Value {
    let mut metadata = json!({
        "version": VERSION,
        "product": { "name": "pgwitness", "vendor_name": "pgwitness", "version": env!("CARGO_PKG_VERSION") },
        "uid": take(event, "/event_id"),
        "event_code": take(event, "/kind"),
        "log_provider": take(event, "/agent"),
        "sequence": if event.get("seq").is_some_and(fits) { take(event, "/seq") } else { Value::Null },
    });
    prune(&mut metadata);
    metadata
}

/// The principal is the service that acted; the role is the user in whose name it did.
fn actor(event: &mut Value) -> Value {
    let mut actor = Map::new();
    if text(event, "/attribution/principal") != "unknown" {
        actor.insert("app_uid".to_owned(), take(event, "/attribution/principal"));
    }
    let role = take(event, "/session/login_role");
    if !role.is_null() {
        actor.insert("user".to_owned(), json!({ "name": role, "type_id": UNKNOWN }));
    }
    actor.insert("session".to_owned(), json!({ "uid": take(event, "/session/id") }));
    let pid = take(event, "/attribution/process/pid");
    if !pid.is_null() {
        let mut process = Map::from_iter([("pid".to_owned(), pid)]);
        let words = take(event, "/attribution/process/command_line");
        if let Some(words) = words.as_array() {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            process.insert("cmd_line".to_owned(), words.join(" ").into());
        }
        let exe = text(event, "/attribution/process/exe");
        if !exe.is_empty() {
            take(event, "/attribution/process/exe");
            let name = exe.rsplit('/').find(|name| !name.is_empty()).unwrap_or("/");
            process.insert(
                "file".to_owned(),
                json!({ "name": name, "path": exe, "type_id": REGULAR_FILE }),
            );
        }
        actor.insert("process".to_owned(), process.into());
    }
    let mut actor = Value::from(actor);
    prune(&mut actor);
    actor
}

/// The client's end. A Unix socket has no address there; the session stands for it.
fn source(event: &mut Value) -> Value {
    let client = endpoint(event, "/session/client");
    if !is_empty(&client) {
        return client;
    }
    let transport = text(event, "/session/transport");
    let name = if transport.is_empty() {
        "unknown".to_owned()
    } else {
        format!("{transport} socket")
    };
    json!({ "name": name })
}

fn endpoint(event: &mut Value, place: &str) -> Value {
    let addr = text(event, &format!("{place}/addr"));
    if addr.is_empty() {
        return Value::Null;
    }
    take(event, &format!("{place}/addr"));
    if addr.starts_with('/') {
        return json!({ "name": addr });
    }
    let port = take(event, &format!("{place}/port"));
    if port.is_null() {
        json!({ "ip": addr })
    } else {
        json!({ "ip": addr, "port": port })
    }
}

/// It needs a name or an id. Of a session whose login was not seen neither is known, which is said.
fn database(event: &mut Value) -> Value {
    let name = take(event, "/session/database");
    let name = if name.is_null() { json!("unknown") } else { name };
    json!({ "name": name, "type": "PostgreSQL", "type_id": RELATIONAL })
}

/// There is room for one: of several, the first. All are under `unmapped.meaning.objects`.
fn table(event: &Value) -> Value {
    let objects = event.pointer("/meaning/objects").and_then(Value::as_array);
    let tables = ["table", "view", "materialized view", "foreign table", "partition"];
    let table = objects
        .into_iter()
        .flatten()
        .find(|object| tables.contains(&text(object, "/kind").as_str()));
    match table {
        Some(table) if text(table, "/schema").is_empty() => json!({ "name": text(table, "/name") }),
        Some(table) => json!({ "name": format!("{}.{}", text(table, "/schema"), text(table, "/name")) }),
        None => Value::Null,
    }
}

/// It needs a text and a name.
fn query_info(event: &mut Value) -> Value {
    if text(event, "/statement/text").is_empty() || text(event, "/statement/fingerprint").is_empty() {
        return Value::Null;
    }
    let mut info = Map::from_iter([
        ("query_string".to_owned(), take(event, "/statement/text")),
        ("uid".to_owned(), take(event, "/statement/fingerprint")),
        ("bytes".to_owned(), take(event, "/result/bytes_out")),
    ]);
    info.retain(|_, value| !value.is_null());
    info.into()
}

/// Whether a number is an integer_t: a signed one of 32 bits.
fn fits(number: &Value) -> bool {
    number
        .as_i64()
        .is_some_and(|number| i32::try_from(number).is_ok())
}

fn milliseconds(event: &Value, place: &str) -> Option<Value> {
    let time: jiff::Timestamp = event.pointer(place)?.as_str()?.parse().ok()?;
    Some(json!(time.as_millisecond()))
}

fn text(event: &Value, place: &str) -> String {
    event
        .pointer(place)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// Moves a field out.
fn take(event: &mut Value, place: &str) -> Value {
    let Some((section, field)) = place.rsplit_once('/') else {
        return Value::Null;
    };
    let section = event.pointer_mut(section).and_then(Value::as_object_mut);
    section
        .and_then(|section| section.shift_remove(field))
        .unwrap_or_default()
}

/// Takes away what nothing is left of.
fn prune(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(prune);
        fields.retain(|_, field| !is_empty(field));
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

const VERSION: &str = "1.3.0";

// Activities, then what else OCSF numbers.
const UNKNOWN: u64 = 0;
const READ: u64 = 1;
const UPDATE: u64 = 2;
const CONNECT: u64 = 3;
const QUERY: u64 = 4;
const WRITE: u64 = 5;
const CREATE: u64 = 6;
const DELETE: u64 = 7;
const OTHER: u64 = 99;
const SUCCESS: u64 = 1;
const FAILURE: u64 = 2;
const DATABASE: u64 = 1;
const RELATIONAL: u64 = 1;
const REGULAR_FILE: u64 = 1;

#[cfg(test)]
mod tests;
