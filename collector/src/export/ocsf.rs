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
        "query" | "rollup" | "session_open" | "auth_failure" => Class::Datastore,
        _ => Class::Base,
    };
    let mut ocsf = Map::new();
    let mut put = |name: &str, value: Value| {
        if !is_empty(&value) {
            ocsf.insert(name.to_owned(), value);
        }
    };
    let (activity, activity_name) = activity(&event, &kind);
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
        event.pointer("/rollup/executions").cloned().unwrap_or_default(),
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
    json!({
        "version": VERSION,
        "product": { "name": "pgwitness", "vendor_name": "pgwitness", "version": env!("CARGO_PKG_VERSION") },
        "uid": take(event, "/event_id"),
        "event_code": take(event, "/kind"),
        "log_provider": take(event, "/agent"),
        "sequence": take(event, "/seq"),
    })
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
            process.insert("cmd_line".to_owned(), json!(words.join(" ")));
        }
        let exe = text(event, "/attribution/process/exe");
        if !exe.is_empty() {
            take(event, "/attribution/process/exe");
            let name = exe.rsplit('/').next().unwrap_or_default();
            process.insert(
                "file".to_owned(),
                json!({ "name": name, "path": exe, "type_id": REGULAR_FILE }),
            );
        }
        actor.insert("process".to_owned(), process.into());
    }
    actor.retain(|_, value| !is_empty(value));
    actor.into()
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
mod tests {
    use super::*;

    /// What the schema asks for, of every event and of each object in it: <https://schema.ocsf.io/1.3.0/classes/datastore_activity>.
    fn is_valid(ocsf: &Value) {
        let number = |place: &str| ocsf.pointer(place).and_then(Value::as_u64);
        for place in [
            "/activity_id",
            "/category_uid",
            "/class_uid",
            "/severity_id",
            "/time",
            "/type_uid",
        ] {
            assert!(number(place).is_some(), "{place} of {ocsf:#}");
        }
        assert_eq!(
            number("/type_uid"),
            Some(number("/class_uid").unwrap() * 100 + number("/activity_id").unwrap())
        );
        for place in [
            "/metadata/version",
            "/metadata/product/name",
            "/metadata/product/vendor_name",
            "/metadata/uid",
        ] {
            assert!(!text(ocsf, place).is_empty(), "{place} of {ocsf:#}");
        }
        if number("/class_uid") == Some(0) {
            assert_eq!(number("/category_uid"), Some(0), "{ocsf:#}");
            return;
        }
        assert_eq!(
            (number("/class_uid"), number("/category_uid")),
            (Some(6005), Some(6)),
            "{ocsf:#}"
        );
        let one_of = |object: &str, names: &[&str]| {
            let named = names
                .iter()
                .any(|name| ocsf.pointer(&format!("{object}/{name}")).is_some());
            assert!(named, "{object} of {ocsf:#}");
        };
        one_of("", &["database", "databucket", "table"]);
        one_of("/actor", &["process", "user", "session", "app_name", "app_uid"]);
        one_of(
            "/src_endpoint",
            &[
                "ip",
                "uid",
                "name",
                "hostname",
                "svc_name",
                "instance_uid",
                "interface_uid",
                "interface_name",
            ],
        );
        one_of("/database", &["name", "uid"]);
        assert!(number("/database/type_id").is_some(), "{ocsf:#}");
        for (object, names) in [
            ("/dst_endpoint", &["ip", "uid", "name", "hostname"][..]),
            ("/table", &["name", "uid"]),
            ("/actor/user", &["name", "uid", "account"]),
            ("/actor/process", &["pid", "uid"]),
            ("/query_info", &["name", "uid"]),
        ] {
            if ocsf.pointer(object).is_some() {
                one_of(object, names);
            }
        }
        if ocsf.get("query_info").is_some() {
            assert!(!text(ocsf, "/query_info/query_string").is_empty(), "{ocsf:#}");
        }
        if ocsf.pointer("/actor/process/file").is_some() {
            assert!(
                !text(ocsf, "/actor/process/file/name").is_empty()
                    && number("/actor/process/file/type_id").is_some()
            );
        }
    }

    fn query() -> Value {
        json!({
            "kind": "query", "event_id": "db1-17", "agent": "db1", "seq": 17, "ts_start": "2026-01-02T03:04:05.123456789Z",
            "ts_end": "2026-01-02T03:04:06.000000000Z",
            "session": {"id": "s", "backend_pid": 5, "login_role": "app_user", "database": "shop", "transport": "tcp",
                "client": {"addr": "10.0.0.5", "port": 5000}, "server": {"addr": "10.0.0.9", "port": 5432}},
            "statement": {"text": "SELECT id FROM t", "fingerprint": "ab", "text_known": true},
            "meaning": {"class": "READ", "command": "SELECT", "tag": "SELECT 1",
                "objects": [{"name": "t", "schema": "public", "kind": "table", "access": "read"}]},
            "result": {"outcome": "ok", "rows": 1, "bytes_out": 99},
            "attribution": {"principal": "spiffe://x/unit/a.service", "confidence": "observed",
                "process": {"pid": 70, "exe": "/bin/a", "command_line": ["a", "--b"], "user": "root"}},
        })
    }

    #[test]
    fn a_statement_is_mapped_and_what_has_no_place_stays() {
        let ocsf = of(query());
        is_valid(&ocsf);
        for (place, value) in [
            ("/type_uid", json!(600_504)),
            ("/time", json!(1_767_323_045_123_u64)),
            ("/status_id", json!(SUCCESS)),
            ("/actor/app_uid", json!("spiffe://x/unit/a.service")),
            ("/actor/user/name", json!("app_user")),
            ("/actor/process/cmd_line", json!("a --b")),
            ("/src_endpoint/ip", json!("10.0.0.5")),
            ("/database/name", json!("shop")),
            ("/table/name", json!("public.t")),
            ("/query_info/query_string", json!("SELECT id FROM t")),
            ("/metadata/uid", json!("db1-17")),
            ("/unmapped/attribution/confidence", json!("observed")),
            ("/unmapped/result/rows", json!(1)),
            ("/unmapped/meaning/objects/0/access", json!("read")),
            ("/unmapped/session/backend_pid", json!(5)),
        ] {
            assert_eq!(ocsf.pointer(place), Some(&value), "{place} of {ocsf:#}");
        }
        assert_eq!(ocsf.pointer("/unmapped/statement/text"), None, "it was moved");
    }

    #[test]
    fn every_kind_is_valid_also_with_nothing_known() {
        for kind in [
            "query",
            "rollup",
            "session_open",
            "auth_failure",
            "gap",
            "heartbeat",
            "attribution",
            "unknown",
        ] {
            let ocsf = of(
                json!({"kind": kind, "event_id": "db1-1", "agent": "db1", "seq": 1,
                "session": {"id": "s", "transport": "unix", "server": {"addr": "/run/x"}}}),
            );
            is_valid(&ocsf);
            let ocsf = of(
                json!({"kind": kind, "event_id": "db1-1", "agent": "db1", "seq": 1, "ts_start": "2026-01-02T03:04:05Z",
                "session": {"id": "s"}, "attribution": {"principal": "unknown", "confidence": "none"}}),
            );
            is_valid(&ocsf);
            assert_eq!(ocsf.pointer("/actor/app_uid"), None, "nobody is named");
            assert_eq!(
                ocsf.pointer("/unmapped/attribution/principal"),
                Some(&json!("unknown"))
            );
        }
        let refused = of(
            json!({"kind": "auth_failure", "event_id": "a-1", "session": {"id": "s"}, "auth_failure": {"sqlstate": "28P01"}}),
        );
        assert_eq!(
            (refused["type_uid"].clone(), refused["status_id"].clone()),
            (json!(600_503), json!(FAILURE))
        );
        assert_eq!(refused["status_code"], "28P01");
    }

    #[test]
    fn what_a_statement_does_is_told_by_its_command() {
        for (class, command, id) in [
            ("READ", "SELECT", QUERY),
            ("WRITE", "INSERT", CREATE),
            ("WRITE", "UPDATE", UPDATE),
            ("WRITE", "DELETE", DELETE),
            ("READ", "COPY", READ),
            ("WRITE", "COPY", WRITE),
            ("DDL", "CREATE TABLE", OTHER),
            ("MISC", "BEGIN", OTHER),
        ] {
            let mut event = query();
            event["meaning"] = json!({"class": class, "command": command});
            let ocsf = of(event);
            assert_eq!(
                (&ocsf["activity_id"], &ocsf["activity_name"]),
                (&json!(id), &json!(command))
            );
        }
        let mut event = query();
        event["meaning"] = Value::Null;
        assert_eq!(of(event)["activity_id"], UNKNOWN);
    }
}
