//! `pgwitness-collector explain`: one event, and the chain of evidence behind the name that it has, in words.
//!
//! Owns the order in which a chain is told. It says nothing that is not in the event. Text from events is shown with control
//! characters escaped.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{query, source::MarkedPlace, store::timeline};

/// Tells who is behind an event, how sure that is, and on what evidence.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The event's id, as in `SELECT event_id FROM events`: the agent's id, a dash, and a number.
    pub event_id: String,
    /// Whom to ask.
    #[command(flatten)]
    pub place: MarkedPlace,
}

/// Looks the event up and prints its chain.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let sql = question(&args.event_id)?;
    let page = args.place.open().await?.ask(&sql).await?;
    let text = page.rows.first().and_then(|row| row.first()?.as_str());
    let Some(text) = text else {
        bail!("there is no event {}", args.event_id)
    };
    let event: Value = serde_json::from_str(text).context("the event is not what this version expects")?;
    print!("{}", explain(&event));
    Ok(ExitCode::SUCCESS)
}

/// The two parts of an id are columns of the table, so that files without the event are passed over.
fn question(event_id: &str) -> anyhow::Result<String> {
    let (agent, seq) = timeline::parts(event_id)?;
    Ok(format!(
        "SELECT event FROM events WHERE agent = '{agent}' AND seq = {seq} LIMIT 1"
    ))
}

/// The chain of an event in its JSON form.
fn explain(event: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        if !text.is_empty() {
            let _ = writeln!(out, "{name:<10} {}", query::printable(&text));
        }
    };
    let session = &event["session"];
    let who = &event["attribution"];
    line("event", words(event, &["event_id", "kind", "ts_start"]));
    line("statement", words(&event["statement"], &["text"]));
    line(
        "",
        words(&event["meaning"], &["class", "tag"]) + &with(" ", &words(&event["result"], &["outcome"])),
    );
    for (number, subject) in list(&event["subjects"]).iter().enumerate() {
        line(if number == 0 { "records" } else { "" }, records(subject));
    }
    let rollup = &event["rollup"];
    let of = |name: &str, what: &str| with(what, &text(&rollup[name]));
    line(
        "executions",
        text(&rollup["executions"])
            + &of("committed", ", committed ")
            + &of("rolled_back", ", rolled back ")
            + &of("prepared", ", prepared ")
            + &of("end_unknown", ", of unknown end ")
            + &of("open", ", not ended yet ")
            + &of("open_transaction", " in transaction "),
    );
    line("session", {
        let user = text(&session["login_role"]) + &with("@", &text(&session["database"]));
        let client = words(&session["client"], &["addr"]) + &with(":", &words(&session["client"], &["port"]));
        let manner = words(session, &["transport", "encryption"]);
        format!(
            "{} {user}, {manner}{}",
            text(&session["id"]),
            with(", from ", &client)
        )
    });
    match who.as_object() {
        None => line("who", "this event is the agent's own, or of nobody".to_owned()),
        Some(_) => {
            line("who", text(&who["principal"]));
            let method = with(" by ", &text(&who["method"]));
            line("certainty", text(&who["confidence"]) + &method);
            line("reason", text(&who["reason"]));
            line("amended", with("by ", &text(&who["amended_by"])));
            let recorded = &who["recorded"];
            let method = with(" by ", &text(&recorded["method"]));
            let level = with(", ", &text(&recorded["confidence"]));
            line("recorded", text(&recorded["principal"]) + &level + &method);
            for fact in list(&recorded["evidence"]) {
                line("", text(fact));
            }
        }
    }
    let amends = &event["amends"];
    line("amends", words(amends, &["agent", "session"]));
    let inputs: Vec<String> = list(&amends["inputs"]).iter().map(text).collect();
    line(
        "",
        with("made of ", &inputs.join(", ")) + &with(", by ", &text(&amends["match"])),
    );
    inventory(&mut line, &event["inventory"]);
    for (number, fact) in list(&who["evidence"]).iter().enumerate() {
        line(
            if number == 0 { "evidence" } else { "" },
            format!("{}. {}", number + 1, text(fact)),
        );
    }
    if who["put_in"] == true {
        line("", "it was put into its container from outside (exec)".to_owned());
    }
    process(&mut line, "process", &who["process"]);
    let container = &who["container"];
    line("container", words(container, &["name", "image", "runtime", "id"]));
    pod(&mut line, &who["pod"]);
    chain(&mut line, event);
    for hop in list(&who["hops"]) {
        let through = format!(
            "{} {}, {}",
            text(&hop["role"]),
            text(&hop["name"]),
            text(&hop["confidence"])
        );
        line("through", through);
        process(&mut line, "", &hop["process"]);
    }
    out
}

/// Whose records an event touched, of one identifying column; by number, because tokens tell a reader nothing.
pub(crate) fn records(subject: &Value) -> String {
    let listed = list(&subject["tokens"]).len() as u64;
    let count = listed.max(subject["filter_values"].as_u64().unwrap_or_default());
    let sources: Vec<String> = list(&subject["sources"]).iter().map(text).collect();
    let all = if subject["complete"] == true {
        ""
    } else {
        ", and others that are not known"
    };
    format!(
        "{}.{}: {count}{}{all}",
        text(&subject["object"]),
        text(&subject["column"]),
        with(" by ", &sources.join(", "))
    )
}

/// From the client to the backend, each with its own level; told where a pooler is on the way and the client is known.
fn chain(line: &mut impl FnMut(&str, String), event: &Value) {
    let who = &event["attribution"];
    let hops = list(&who["hops"]);
    let Some(first) = hops.iter().find(|hop| hop["session"].is_string()) else {
        return;
    };
    let level = |of: &Value, confidence: &str, method: &str| {
        with(", ", &text(&of[confidence])) + &with(" by ", &text(&of[method]))
    };
    let mut links = vec![text(&who["principal"]) + &level(first, "client_confidence", "client_method")];
    links.extend(hops.iter().map(|hop| {
        format!("{} {}", text(&hop["role"]), text(&hop["name"]))
            + &level(hop, "confidence", "")
            + &with(", its session ", &text(&hop["session"]))
    }));
    let session = &event["session"];
    links.push(format!("backend {}", text(&session["backend_pid"])) + &level(who, "confidence", "method"));
    for (number, link) in links.iter().enumerate() {
        let name = if number == 0 { "chain" } else { "" };
        line(name, format!("{}. {link}", number + 1));
    }
}

/// What is expected of whoever it was, by the inventory that is in effect now.
fn inventory(line: &mut impl FnMut(&str, String), inventory: &Value) {
    if !inventory.is_object() {
        return;
    }
    line(
        "inventory",
        text(&inventory["mark"]) + &with(": ", &text(&inventory["because"])),
    );
    line("", with("owner ", &text(&inventory["owner"])));
    line("", with("purpose ", &text(&inventory["purpose"])));
    let by = with(" by ", &text(&inventory["approved_by"]));
    let on = with(" on ", &text(&inventory["approved_on"]));
    line("", with("approved", &(by + &on)));
}

fn pod(line: &mut impl FnMut(&str, String), pod: &Value) {
    line("pod", words(pod, &["namespace", "name", "uid"]));
    let account = with("service account ", &text(&pod["service_account"]));
    line("", account + &with(", on node ", &text(&pod["node"])));
    let owners = list(&pod["owners"]).iter();
    let owners: Vec<String> = owners.map(|owner| words(owner, &["kind", "name"])).collect();
    line("", with("of ", &owners.join(", of ")));
    for (name, pairs) in [("label ", "labels"), ("annotation ", "annotations")] {
        for pair in list(&pod[pairs]) {
            line("", with(name, &text(&pair["name"])) + " " + &text(&pair["value"]));
        }
    }
}

fn process(line: &mut impl FnMut(&str, String), name: &str, process: &Value) {
    if !process.is_object() {
        return;
    }
    line(
        name,
        format!(
            "{} {}",
            text(&process["pid"]),
            text(&process["exe"]) + &with(", SHA-256 ", &text(&process["exe_sha256"]))
        ),
    );
    let arguments: Vec<String> = list(&process["command_line"]).iter().map(text).collect();
    line("", with("runs ", &arguments.join(" ")));
    let user = |number: &str, name: &str| {
        text(&process[number])
            + &with(" (", &text(&process[name]))
            + if process[name].is_string() { ")" } else { "" }
    };
    line("", with("user ", &user("uid", "user")));
    line("", with("logged in as ", &user("login_uid", "login_user")));
    line("", with("on terminal ", &text(&process["tty"])));
    let unit = [&process["unit"], &process["inner_unit"], &process["slice"]].map(text);
    line("", with("unit ", unit.join(" ").trim()));
    line("", with("cgroup ", &text(&process["cgroup_path"])));
    let run: Vec<String> = list(&process["run"])
        .iter()
        .map(|variable| format!("{}={}", text(&variable["name"]), text(&variable["value"])))
        .collect();
    line("", with("run ", &run.join(" ")));
    let from: Vec<String> = list(&process["ancestry"])
        .iter()
        .map(|ancestor| format!("{} {}", text(&ancestor["pid"]), text(&ancestor["exe"])))
        .collect();
    line("", with("started by ", &from.join(" ← ")));
}

/// `text` behind `before`, if there is any.
fn with(before: &str, text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("{before}{text}")
    }
}

fn words(value: &Value, names: &[&str]) -> String {
    let found: Vec<String> = names
        .iter()
        .map(|name| text(&value[*name]))
        .filter(|word| !word.is_empty())
        .collect();
    found.join(" ")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  explain db1-4711";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_becomes_a_question_and_nothing_else_does() {
        assert_eq!(
            question("db-1-17").expect("an id"),
            "SELECT event FROM events WHERE agent = 'db-1' AND seq = 17 LIMIT 1"
        );
        for wrong in ["", "17", "db1", "db1-", "db1-x", "a' OR 1=1 --1", "db1-1; x"] {
            assert!(question(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pooled_statement_has_a_chain_with_a_level_for_each_link() {
        let event = json!({
            "event_id": "db1-17", "kind": "query", "session": {"id": "s", "backend_pid": 4711},
            "attribution": {"principal": "spiffe://x/unit/a.service", "confidence": "joined", "method": "lease",
                "hops": [{"role": "pooler", "name": "spiffe://x/unit/p.service", "confidence": "observed", "session": "b-7",
                    "client_confidence": "observed", "client_method": "tcp-owner"}]},
        });
        let told = explain(&event);
        let lines: Vec<&str> = told.lines().map(str::trim).collect();
        for expected in [
            "chain      1. spiffe://x/unit/a.service, observed by tcp-owner",
            "2. pooler spiffe://x/unit/p.service, observed, its session b-7",
            "3. backend 4711, joined by lease",
        ] {
            assert!(lines.contains(&expected), "{expected:?} is not in\n{told}");
        }
    }

    #[test]
    fn the_chain_is_told_link_by_link() {
        let event = json!({
            "event_id": "db1-17", "kind": "query", "ts_start": "2026-01-02T03:04:05Z",
            "session": {"id": "s", "login_role": "app_user", "database": "shop", "transport": "tcp",
                "client": {"addr": "10.0.0.5", "port": 5000}},
            "statement": {"text": "SELECT 1\u{1b}[2J"},
            "meaning": {"class": "READ", "tag": "SELECT 1"}, "result": {"outcome": "ok"},
            "attribution": {"principal": "spiffe://x/unit/a.service", "confidence": "observed", "method": "tcp-owner",
                "evidence": ["connect() recorded", "cgroup 7 is /a"],
                "process": {"pid": 70, "exe": "/bin/a", "exe_sha256": "ab", "command_line": ["a", "--b"], "uid": 0,
                    "user": "root", "run": [{"name": "CI_JOB_ID", "value": "12"}],
                    "ancestry": [{"pid": 60, "exe": "/bin/sh"}, {"pid": 1, "exe": "/sbin/init"}]},
                "hops": [{"role": "proxy", "name": "spiffe://x/unit/p.service", "confidence": "observed",
                    "process": {"pid": 80, "exe": "/bin/p"}}]},
            "inventory": {"mark": "unexpected", "because": "role app_user is not listed", "owner": "team-orders",
                "purpose": "the shop", "approved_by": "eve", "approved_on": "2026-01-01"},
            "subjects": [{"object": "public.customers", "column": "id", "tokens": ["0f", "1f"], "complete": true,
                    "sources": ["predicate", "returned"]},
                {"object": "public.customers", "column": "email", "filter": "0102", "filter_values": 5000, "complete": false}]
        });
        let told = explain(&event);
        let lines: Vec<&str> = told.lines().map(str::trim).collect();
        for expected in [
            "event      db1-17 query 2026-01-02T03:04:05Z",
            "session    s app_user@shop, tcp, from 10.0.0.5:5000",
            "records    public.customers.id: 2 by predicate, returned",
            "public.customers.email: 5000, and others that are not known",
            "who        spiffe://x/unit/a.service",
            "certainty  observed by tcp-owner",
            "evidence   1. connect() recorded",
            "2. cgroup 7 is /a",
            "process    70 /bin/a, SHA-256 ab",
            "runs a --b",
            "user 0 (root)",
            "run CI_JOB_ID=12",
            "started by 60 /bin/sh ← 1 /sbin/init",
            "through    proxy spiffe://x/unit/p.service, observed",
            "80 /bin/p",
            "inventory  unexpected: role app_user is not listed",
            "owner team-orders",
            "purpose the shop",
            "approved by eve on 2026-01-01",
        ] {
            assert!(lines.contains(&expected), "{expected:?} is not in\n{told}");
        }
        assert!(!told.contains('\u{1b}'));
        let rolled = json!({"kind": "rollup", "rollup": {"executions": 7, "committed": 5, "open": 2, "open_transaction": 9}});
        assert!(explain(&rolled).contains("executions 7, committed 5, not ended yet 2 in transaction 9\n"));
        let own = explain(&json!({"event_id": "db1-1", "kind": "heartbeat"}));
        assert!(own.contains("the agent's own"));
    }
}
