//! What is exported is held against the schema: names, types, enumerations, and what must be there.

use super::*;

/// An object, or a class: what it must have, of what it must have one, and all of its attributes that are used here, so that a name that the
/// schema does not have is none that passes. After <https://schema.ocsf.io/1.3.0/classes/datastore_activity> and
/// <https://schema.ocsf.io/1.3.0/objects>, without profiles.
struct Schema {
    required: &'static [&'static str],
    one_of: &'static [&'static str],
    attributes: &'static [(&'static str, Type)],
}

enum Type {
    /// string_t, and those that are made of it.
    Text,
    /// integer_t, port_t: 32 bits.
    Integer,
    /// long_t, timestamp_t.
    Long,
    /// integer_t, one of these.
    One(&'static [i64]),
    Of(&'static Schema),
    /// Anything: unmapped.
    Any,
}

use Type::{Any, Integer, Long, Of, One, Text};

const BASE: Schema = Schema {
    required: &[
        "activity_id",
        "category_uid",
        "class_uid",
        "metadata",
        "severity_id",
        "time",
        "type_uid",
    ],
    one_of: &[],
    attributes: &[
        ("activity_id", One(&[0, 99])),
        ("activity_name", Text),
        ("category_uid", One(&[0])),
        ("class_uid", One(&[0])),
        ("count", Integer),
        ("end_time", Long),
        ("message", Text),
        ("metadata", Of(&METADATA)),
        ("severity_id", One(&[0, 1, 2, 3, 4, 5, 6, 99])),
        ("start_time", Long),
        ("time", Long),
        ("type_uid", Long),
        ("unmapped", Any),
    ],
};

const DATASTORE_ACTIVITY: Schema = Schema {
    required: &[
        "activity_id",
        "actor",
        "category_uid",
        "class_uid",
        "metadata",
        "severity_id",
        "src_endpoint",
        "time",
        "type_uid",
    ],
    one_of: &["database", "databucket", "table"],
    attributes: &[
        ("activity_id", One(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 99])),
        ("activity_name", Text),
        ("actor", Of(&ACTOR)),
        ("category_uid", One(&[6])),
        ("class_uid", One(&[6005])),
        ("count", Integer),
        ("database", Of(&DATABASE_OBJECT)),
        ("dst_endpoint", Of(&ENDPOINT)),
        ("end_time", Long),
        ("message", Text),
        ("metadata", Of(&METADATA)),
        ("query_info", Of(&QUERY_INFO)),
        ("severity_id", One(&[0, 1, 2, 3, 4, 5, 6, 99])),
        ("src_endpoint", Of(&ENDPOINT)),
        ("start_time", Long),
        ("status", Text),
        ("status_code", Text),
        ("status_id", One(&[0, 1, 2, 99])),
        ("table", Of(&TABLE)),
        ("time", Long),
        ("type_id", One(&[0, 1, 2, 3, 99])),
        ("type_uid", Long),
        ("unmapped", Any),
    ],
};

const METADATA: Schema = Schema {
    required: &["product", "version"],
    one_of: &[],
    attributes: &[
        ("event_code", Text),
        ("log_provider", Text),
        ("product", Of(&PRODUCT)),
        ("sequence", Integer),
        ("uid", Text),
        ("version", Text),
    ],
};

const PRODUCT: Schema = Schema {
    required: &["name", "vendor_name"],
    one_of: &[],
    attributes: &[("name", Text), ("vendor_name", Text), ("version", Text)],
};

const ACTOR: Schema = Schema {
    required: &[],
    one_of: &["process", "user", "invoked_by", "session", "app_name", "app_uid"],
    attributes: &[
        ("app_uid", Text),
        ("process", Of(&PROCESS)),
        ("session", Of(&SESSION)),
        ("user", Of(&USER)),
    ],
};

const PROCESS: Schema = Schema {
    required: &[],
    one_of: &["pid", "uid"],
    attributes: &[("cmd_line", Text), ("file", Of(&FILE)), ("pid", Integer)],
};

const FILE: Schema = Schema {
    required: &["name", "type_id"],
    one_of: &[],
    attributes: &[
        ("name", Text),
        ("path", Text),
        ("type_id", One(&[0, 1, 2, 3, 4, 5, 6, 7, 99])),
    ],
};

const SESSION: Schema = Schema {
    required: &[],
    one_of: &[],
    attributes: &[("uid", Text)],
};

const USER: Schema = Schema {
    required: &[],
    one_of: &["account", "name", "uid"],
    attributes: &[("name", Text), ("type_id", One(&[0, 1, 2, 3, 99]))],
};

const ENDPOINT: Schema = Schema {
    required: &[],
    one_of: &[
        "ip",
        "uid",
        "name",
        "hostname",
        "svc_name",
        "instance_uid",
        "interface_uid",
        "interface_name",
    ],
    attributes: &[("ip", Text), ("name", Text), ("port", Integer)],
};

const DATABASE_OBJECT: Schema = Schema {
    required: &["type_id"],
    one_of: &["name", "uid"],
    attributes: &[
        ("name", Text),
        ("type", Text),
        ("type_id", One(&[0, 1, 2, 3, 4, 5, 6, 99])),
    ],
};

const TABLE: Schema = Schema {
    required: &[],
    one_of: &["name", "uid"],
    attributes: &[("name", Text)],
};

const QUERY_INFO: Schema = Schema {
    required: &["query_string"],
    one_of: &["name", "uid"],
    attributes: &[("bytes", Long), ("query_string", Text), ("uid", Text)],
};

/// What is wrong with a value, by the place where it stands.
fn wrong(value: &Value, schema: &Schema, place: &str) -> Vec<String> {
    let Some(fields) = value.as_object() else {
        return vec![format!("{place} is no object")];
    };
    let mut wrong = Vec::new();
    for name in schema.required.iter().filter(|name| !fields.contains_key(**name)) {
        wrong.push(format!("{place}.{name} is not there"));
    }
    if !schema.one_of.is_empty() && !schema.one_of.iter().any(|name| fields.contains_key(*name)) {
        wrong.push(format!("{place} has none of {:?}", schema.one_of));
    }
    for (name, value) in fields {
        let place = format!("{place}.{name}");
        let Some((_, of)) = schema.attributes.iter().find(|(known, _)| known == name) else {
            wrong.push(format!("{place} is none of the schema's"));
            continue;
        };
        let fits = match of {
            Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Integer => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            Long => value.is_i64() || value.as_u64().is_some_and(|number| i64::try_from(number).is_ok()),
            One(numbers) => value.as_i64().is_some_and(|number| numbers.contains(&number)),
            Any => true,
            Of(schema) => {
                wrong.extend(self::wrong(value, schema, &place));
                true
            }
        };
        if !fits {
            wrong.push(format!("{place} is {value}"));
        }
    }
    wrong
}

fn assert_valid(ocsf: &Value) {
    let schema = match ocsf["class_uid"].as_u64() {
        Some(0) => &BASE,
        _ => &DATASTORE_ACTIVITY,
    };
    assert_eq!(wrong(ocsf, schema, ""), Vec::<String>::new(), "{ocsf:#}");
    let number = |name: &str| ocsf[name].as_u64().unwrap();
    assert_eq!(
        number("type_uid"),
        number("class_uid") * 100 + number("activity_id")
    );
    assert_eq!(ocsf["metadata"]["version"], VERSION);
    // What is not mapped has the source's own name beside it.
    if number("activity_id") == 99 {
        assert!(!text(ocsf, "/activity_name").is_empty(), "{ocsf:#}");
    }
    if ocsf.get("status_id") == Some(&json!(99)) {
        assert!(!text(ocsf, "/status").is_empty(), "{ocsf:#}");
    }
}

#[test]
fn the_schema_is_held_to() {
    let with = |place: &str, value: Value| {
        let mut ocsf = of(query());
        let (section, name) = place.rsplit_once('/').unwrap();
        let section = ocsf.pointer_mut(section).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            section.shift_remove(name);
        } else {
            section.insert(name.to_owned(), value);
        }
        wrong(&ocsf, &DATASTORE_ACTIVITY, "")
    };
    for (place, value, expected) in [
        ("/time", Value::Null, ".time is not there"),
        ("/actor", Value::Null, ".actor is not there"),
        ("/src_endpoint", Value::Null, ".src_endpoint is not there"),
        (
            "/query_info/query_string",
            Value::Null,
            ".query_info.query_string is not there",
        ),
        ("/database/type_id", Value::Null, ".database.type_id is not there"),
        ("/time", json!("now"), ".time is \"now\""),
        (
            "/metadata/sequence",
            json!(3_000_000_000_u64),
            ".metadata.sequence is 3000000000",
        ),
        ("/activity_id", json!(11), ".activity_id is 11"),
        ("/princpal", json!("x"), ".princpal is none of the schema's"),
    ] {
        assert_eq!(with(place, value), [expected]);
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
    assert_valid(&ocsf);
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
        assert_valid(&ocsf);
        let ocsf = of(
            json!({"kind": kind, "event_id": "db1-1", "agent": "db1", "seq": 1, "ts_start": "2026-01-02T03:04:05Z",
            "session": {"id": "s"}, "attribution": {"principal": "unknown", "confidence": "none"}}),
        );
        assert_valid(&ocsf);
        assert_eq!(ocsf.pointer("/actor/app_uid"), None, "nobody is named");
        assert_eq!(
            ocsf.pointer("/unmapped/attribution/principal"),
            Some(&json!("unknown"))
        );
    }
    // Nobody at all acted, as far as is known.
    let ocsf = of(json!({"kind": "query", "event_id": "db1-1", "ts_start": "2026-01-02T03:04:05Z"}));
    assert_valid(&ocsf);
    assert_eq!(ocsf["class_uid"], 0);
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

#[test]
fn a_number_that_does_not_fit_stays_where_it_was() {
    let mut event = query();
    event["seq"] = json!(3_000_000_000_u64);
    event["rollup"] = json!({"executions": 3_000_000_000_u64});
    let ocsf = of(event);
    assert_valid(&ocsf);
    assert_eq!(ocsf.pointer("/unmapped/seq"), Some(&json!(3_000_000_000_u64)));
    assert_eq!(
        ocsf.pointer("/unmapped/rollup/executions"),
        Some(&json!(3_000_000_000_u64))
    );
    assert_eq!(
        (ocsf.get("count"), ocsf.pointer("/metadata/sequence")),
        (None, None)
    );
}
