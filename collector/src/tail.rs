//! `pgwitness-collector tail`: events as they arrive, one a line.
//!
//! Owns the line's form. It watches a running collector over server-sent events; events that it was too slow for are
//! said to be missing.

use std::{io::Write, process::ExitCode};

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::{
    explain,
    http::client::{self, DEFAULT_URL, percent},
    query::printable,
    source::{self, Credentials},
};

/// Shows events as they arrive.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The collector to watch.
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    pub url: String,
    /// As whom.
    #[command(flatten)]
    pub credentials: Credentials,
    /// Why this is asked: the collector records it.
    #[arg(long, value_name = "TEXT", value_parser = source::purpose)]
    pub purpose: Option<String>,
    /// Only principals that contain this.
    #[arg(long, value_name = "TEXT")]
    pub principal: Option<String>,
    /// Only this class: READ, WRITE, FUNCTION, ROLE, DDL, MISC, MISC_SET.
    #[arg(long)]
    pub class: Option<String>,
    /// Only this kind: query, gap, session_open, …
    #[arg(long)]
    pub kind: Option<String>,
    /// Prints the JSON form, one object a line.
    #[arg(long)]
    pub json: bool,
}

/// Watches until the collector ends or the output is closed.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filters = [
        ("principal", &args.principal),
        ("class", &args.class),
        ("kind", &args.kind),
    ];
    let filters: Vec<String> = filters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", percent(value.as_deref()?))))
        .collect();
    let response = args
        .credentials
        .collector(&args.url)?
        .for_purpose(args.purpose.as_deref())
        .ask(&format!("/api/v1/live?{}", filters.join("&")), None)
        .await?;
    if !response.status().is_success() {
        let status = response.status();
        return Err(source::refused(status, &client::read(response).await?));
    }
    let mut body = response.into_body();
    let mut messages = Messages::default();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame
            .context("the connection to the collector broke")?
            .into_data()
        else {
            continue;
        };
        for message in messages.feed(&bytes)? {
            match show(&message, args.json) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                done => done.context("cannot print")?,
            }
        }
    }
    bail!("the collector ended the stream")
}

fn show(message: &Message, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match message.name.as_str() {
        "lagged" => {
            let lagged = serde_json::from_str::<Value>(&message.data).unwrap_or_default();
            let missed = lagged.get("missed").and_then(Value::as_u64).unwrap_or(0);
            eprintln!("… {missed} events were too fast to show here; they are in the record");
            Ok(())
        }
        _ if json => writeln!(out, "{}", message.data),
        _ => match serde_json::from_str(&message.data) {
            Ok(event) => writeln!(out, "{}", line(&event)),
            Err(_) => Ok(()),
        },
    }?;
    out.flush()
}

/// Time, principal, confidence, role, class, statement, rows, milliseconds, outcome; for other kinds than queries the
/// kind and what it says. Of a roll-up rows are of all together, and milliseconds of one on average. Behind it, why the inventory does not expect it, if that is so.
fn line(event: &Value) -> String {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let number = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64);
    let time = text("/ts_start").and_then(|t| t.get(11..23)).unwrap_or("-");
    let principal = printable(short(text("/attribution/principal").unwrap_or("unknown")));
    let confidence = text("/attribution/confidence").unwrap_or("none");
    let role = printable(text("/session/login_role").unwrap_or("-"));
    let kind = text("/kind").unwrap_or("unknown");
    let head = format!("{time}  {principal:<28} {confidence:<8} {role:<12}");
    let unexpected = text("/inventory/because")
        .map(|because| format!("  UNEXPECTED: {}", printable(because)))
        .unwrap_or_default();
    let executions = number("/rollup/executions");
    if kind != "query" && executions.is_none() {
        // Under the kind's own name stands the attribution that an amendment gives.
        let detail = ["loss", "amends", kind]
            .iter()
            .find_map(|name| event.get(*name))
            .map(Value::to_string)
            .unwrap_or_default();
        return format!("{head} {kind} {}{unexpected}", printable(&detail))
            .trim_end()
            .to_owned();
    }
    let class = text("/meaning/class").unwrap_or("-");
    let statement = printable(text("/statement/text").unwrap_or("(text not known)"));
    let rows = number("/result/rows").or_else(|| number("/result/rows_affected"));
    let rows = rows.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let mean = || Some(number("/rollup/duration_ns")? as f64 / executions? as f64 / 1e6);
    let ms = mean().or_else(|| duration_ms(event));
    let ms = ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
    let times = executions
        .map(|n| format!("  {n} times, ms of one"))
        .unwrap_or_default();
    let outcome = text("/result/outcome").unwrap_or("unknown");
    let sqlstate = text("/result/sqlstate")
        .map(|s| format!(" {}", printable(s)))
        .unwrap_or_default();
    let records = event
        .get("subjects")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let records: Vec<String> = records
        .map(|subject| printable(&explain::records(subject)))
        .collect();
    let records = if records.is_empty() {
        String::new()
    } else {
        format!("  records {}", records.join("; "))
    };
    format!(
        "{head} {class:<8} {statement}  {rows} rows  {ms} ms  {outcome}{sqlstate}{times}{records}{unexpected}"
    )
}

fn duration_ms(event: &Value) -> Option<f64> {
    let at = |key: &str| event.get(key)?.as_str()?.parse::<jiff::Timestamp>().ok();
    Some(at("ts_end")?.duration_since(at("ts_start")?).as_secs_f64() * 1000.0)
}

/// The principal behind the trust domain and the host: what tells it from others in a line.
fn short(principal: &str) -> &str {
    let Some(rest) = principal.strip_prefix("spiffe://") else {
        return principal;
    };
    let path = rest.split_once('/').map_or(rest, |(_, path)| path);
    match path.strip_prefix("host/").and_then(|p| p.split_once('/')) {
        Some((_, on_host)) => on_host,
        None => path,
    }
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq)]
struct Message {
    name: String,
    data: String,
}

/// Puts server-sent events together from what the connection delivers (WHATWG HTML, section 9.2.6).
#[derive(Default)]
struct Messages {
    buffer: Vec<u8>,
    next: Message,
}

impl Messages {
    fn feed(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Message>> {
        self.buffer.extend_from_slice(bytes);
        let mut done = Vec::new();
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let message = std::mem::take(&mut self.next);
                if !message.data.is_empty() {
                    done.push(message);
                }
            } else if let Some((field, value)) = line.split_once(':') {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "event" => value.clone_into(&mut self.next.name),
                    "data" if self.next.data.is_empty() => value.clone_into(&mut self.next.data),
                    "data" => {
                        self.next.data.push('\n');
                        self.next.data.push_str(value);
                    }
                    _ => {}
                }
            }
        }
        if self.buffer.len() + self.next.data.len() > MAX_MESSAGE_BYTES {
            bail!("the collector sent an event of more than {MAX_MESSAGE_BYTES} bytes");
        }
        Ok(done)
    }
}

/// Longest event shown: above what a batch may hold.
const MAX_MESSAGE_BYTES: usize = 256 * 1024 * 1024;

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  tail --principal shop --class WRITE
  tail --kind alarm --json";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_come_out_whole_however_the_bytes_are_cut() {
        let stream =
            ": watching\n\nevent: sighting\ndata: {\"ü\":1}\n\n:\n\nevent: lagged\ndata: a\ndata: b\n\n";
        for cut in 0..=stream.len() {
            let mut messages = Messages::default();
            let (a, b) = stream.as_bytes().split_at(cut);
            let mut all = messages.feed(a).unwrap();
            all.extend(messages.feed(b).unwrap());
            let message = |name: &str, data: &str| Message {
                name: name.into(),
                data: data.into(),
            };
            assert_eq!(
                all,
                [message("sighting", "{\"ü\":1}"), message("lagged", "a\nb")],
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_query_is_one_line_and_harmless() {
        let event = json!({
            "kind": "query", "ts_start": "2026-11-21T01:40:00.123456789Z", "ts_end": "2026-11-21T01:40:00.125956789Z",
            "session": {"login_role": "app_user"},
            "statement": {"text": "SELECT 1\n\u{1b}[2J"}, "meaning": {"class": "READ"},
            "result": {"rows": 3, "outcome": "ok"},
            "attribution": {"principal": "spiffe://td/host/db1/unit/shop.service", "confidence": "observed"},
        });
        let mut unexpected = event.clone();
        unexpected["inventory"] = json!({"mark": "unexpected", "because": "role x\n is not listed"});
        assert!(line(&unexpected).ends_with("ms  ok  UNEXPECTED: role x  is not listed"));
        let mut of_somebody = event.clone();
        of_somebody["subjects"] = json!([{"object": "public.customers", "column": "id", "tokens": ["0f"], "complete": true,
            "sources": ["predicate"]}]);
        assert!(line(&of_somebody).ends_with("ms  ok  records public.customers.id: 1 by predicate"));
        assert_eq!(
            line(&event),
            "01:40:00.123  unit/shop.service            observed app_user     READ     \
             SELECT 1 \\u{1b}[2J  3 rows  2.5 ms  ok"
        );
    }

    #[test]
    fn a_roll_up_says_how_many_and_how_long_one_took() {
        let event = json!({
            "kind": "rollup", "ts_start": "2026-11-21T01:40:00.000Z", "ts_end": "2026-11-21T01:40:09.000Z",
            "statement": {"text": "SELECT ?"}, "meaning": {"class": "READ"}, "result": {"rows": 40, "outcome": "ok"},
            "rollup": {"executions": 20, "duration_ns": 50_000_000}
        });
        let line = line(&event);
        assert!(
            line.ends_with("SELECT ?  40 rows  2.5 ms  ok  20 times, ms of one"),
            "{line}"
        );
    }

    #[test]
    fn what_is_not_known_is_said_to_be() {
        assert_eq!(
            line(&json!({"kind": "gap", "loss": {"reason": "ring_full"}})),
            "-  unknown                      none     -            gap {\"reason\":\"ring_full\"}"
        );
        let amendment = json!({"kind": "attribution", "amends": {"agent": "db", "session": "b-1"},
            "attribution": {"principal": "spiffe://td/host/web/unit/a.service", "confidence": "joined"}});
        assert_eq!(
            line(&amendment),
            "-  unit/a.service               joined   -            attribution {\"agent\":\"db\",\"session\":\"b-1\"}"
        );
        assert_eq!(short("spiffe://td/ns/web/sa/checkout"), "ns/web/sa/checkout");
        assert_eq!(short("unknown"), "unknown");
    }
}
