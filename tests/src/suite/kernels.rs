//! What `cargo xtask kernels` runs inside of a virtual machine: whether the tap is right on the kernel that runs.
//!
//! The suite `local` in small, once a tier: every route, simple and extended and prepared statements, long sessions and
//! processes of milliseconds, all at once; every statement against the server's own log. It runs on any machine, also
//! on one that is not virtual. Nothing here is fast: an emulated machine is twenty times slower than the one that
//! emulates it, so there is little of everything, and patience.

mod old;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{Outcome, await_delivery, complete_log, figures, recorded};
use crate::cluster::{APP_ROLE, Cluster, Witness, server_binaries};
use crate::compare::{Differences, Expected, compare};
use crate::csvlog::{Encryption, LoggedSession};
use crate::doctor::Doctor;
use crate::program::{Program, Route};
use crate::record::query_folder;
use crate::screen::progress;
use crate::tap::{Settings, Tap, Tier};

/// Runs the suite. What goes wrong with one tier is its result's `problem`, and the others run still.
///
/// # Errors
/// When the agent cannot even say what this kernel has.
pub async fn run() -> Result<Outcome> {
    let doctor = Doctor::ask()?;
    for line in doctor.said.lines() {
        progress(line);
    }
    let kernel = nix::sys::utsname::uname()
        .context("uname")?
        .release()
        .to_string_lossy()
        .into_owned();
    let mut tiers = vec![Tier::Auto];
    // Where it is the agent's own choice, that was all.
    if doctor.has_tier_a() {
        tiers.push(Tier::B);
    }
    let mut results = Vec::new();
    for tier in tiers {
        progress(&format!("Linux {kernel}, tier {}", tier.name()));
        let began = Instant::now();
        let mut result =
            json!({ "kernel": kernel, "asked_tier": tier.name(), "tier": null, "doctor": doctor.verdict() });
        let entries = result.as_object_mut().context("a result is an object")?;
        match check(tier).await {
            Ok(found) => entries.extend(found),
            Err(problem) => {
                entries.insert("problem".to_owned(), format!("{problem:#}").into());
                entries.insert("verdict".to_owned(), FAILED.into());
            }
        }
        entries.insert("seconds".to_owned(), began.elapsed().as_secs().into());
        progress(&result.to_string());
        results.push(result);
    }
    let passed = doctor.passed
        && results
            .iter()
            .all(|result| result.get("verdict") == Some(&PASSED.into()));
    let figures = figures(json!({ "kernel": kernel, "passed": passed, "results": results }))?;
    Ok(Outcome { figures, passed })
}

/// One tier against a cluster of its own.
async fn check(tier: Tier) -> Result<Map<String, Value>> {
    let slice = format!("pgwitness-kernels-{}-{}", std::process::id(), tier.name());
    let mut cluster = Cluster::init_for(server_binaries()?, Witness::Full, &ROUTES)?;
    progress("starting collector and agent, then the server");
    let mut tap = Tap::start(&cluster.data(), Settings::clear(tier)).await?;
    cluster.start().await?;
    cluster.prepare().await?;
    let programs = Programs::new(&slice, &cluster)?;
    programs.run().await?;
    let logged = complete_log(&cluster.csvlog()).await?;
    let ours = || logged.iter().filter(|session| session.role == APP_ROLE);
    let expected = ours().map(|session| session.statements.len() as u64).sum();
    progress(&format!(
        "{expected} statements in the server's log; waiting for their delivery"
    ));
    await_delivery(&tap, expected).await;
    tap.stop().await?;

    let record = recorded(&tap)?;
    let units = programs.units();
    let found = compare(
        &logged,
        &record,
        Expected {
            role: APP_ROLE,
            units: &units,
            texts: true,
            pooled: None,
        },
    );
    let wrong_encryption = wrong_encryption(&tap, ours())?;
    let gaps = count(&tap, "kind = 'gap'")?;
    let opaque = count(&tap, "kind = 'opaque_session'")?;
    let (verified, verdict) = tap.verify()?;
    progress("sessions that are older than the agent");
    let old = old::run(&slice, &cluster, tier).await?;
    let mut problems = problems(
        &found,
        &[
            (gaps > 0, format!("{gaps} gaps: {}", reasons(&tap)?)),
            (opaque > 0, format!("{opaque} sessions that were not read")),
            (
                wrong_encryption > 0,
                format!("{wrong_encryption} sessions with another encryption than the server's"),
            ),
            (!verified, verdict),
            (
                found.statements < MIN_STATEMENTS,
                format!("only {} statements were run", found.statements),
            ),
        ],
    );
    // What is said not to be known of them is no mistake.
    if !old.none() || old.statements == 0 {
        problems.push(format!(
            "sessions older than the agent: {}",
            serde_json::to_string(&old)?
        ));
        problems.extend(old.examples.iter().map(|example| cut(example)));
    }
    let mut result = figures(serde_json::to_value(&found)?)?;
    result.extend(figures(json!({
        "tier": recorded_tier(&tap)?,
        "programs": units.len(),
        "wrong_encryption": wrong_encryption,
        "gaps": gaps,
        "opaque_sessions": opaque,
        "verified": verified,
        "old_statements": old.statements,
        "old_recorded": old.recorded,
        "old_told_missing": old.told_missing,
        "old_untold": old.untold,
        "old_unknown_facts": old.unknown_session,
        "old_unknown_principal": old.unknown_principal,
        "server": cluster.version(),
        "verdict": if problems.is_empty() { PASSED } else { FAILED },
        "problem": (!problems.is_empty()).then(|| problems.join("\n")),
    }))?);
    Ok(result)
}

/// A client of each kind on each route.
struct Programs {
    programs: Vec<(Route, [Program; 3])>,
}

impl Programs {
    fn new(slice: &str, cluster: &Cluster) -> Result<Self> {
        let programs = ROUTES.iter().map(|&route| {
            let program =
                |kind: &str| Program::new(slice, &format!("{kind}-{}", route.name()), cluster, route);
            anyhow::Ok((route, [program("script")?, program("bench")?, program("short")?]))
        });
        Ok(Self {
            programs: programs.collect::<Result<_>>()?,
        })
    }

    fn units(&self) -> BTreeMap<String, String> {
        let programs = self.programs.iter().flat_map(|(_, programs)| programs);
        programs
            .map(|program| (program.name().to_owned(), program.unit().to_owned()))
            .collect()
    }

    /// All of them at once.
    async fn run(&self) -> Result<()> {
        let [unix, tcp, tls] = self.programs.as_slice() else {
            anyhow::bail!("there are three routes");
        };
        tokio::try_join!(on_route(unix), on_route(tcp), on_route(tls)).map(drop)
    }
}

async fn on_route((route, [script, bench, short]): &(Route, [Program; 3])) -> Result<()> {
    tokio::try_join!(
        async {
            let tag = script.tag();
            // Longer than a socket's read buffer in the server (8 KiB), so that it arrives in pieces.
            let long = "x".repeat(20_000);
            let text = format!(
                "SELECT 'a;b' AS \"x;y\" {tag};\nBEGIN {tag};\nSELECT 1/0 {tag};\nROLLBACK {tag};\nSELEC {tag};\n\
                 SELECT 1 {tag} \\; SELECT 2 {tag};\nSELECT length('{long}') {tag};\n\
                 SELECT repeat('y', 100000) {tag};\nSELECT g FROM generate_series(1, 3000) g {tag};\n"
            );
            script.finish(script.start(script.psql_script(&text)?)?, PATIENCE).await
        },
        async {
            let tag = bench.tag();
            let lines = format!(
                "\\set id random(1, 1000)\nSELECT id, email FROM customers {tag} WHERE id = :id;\n\
                 INSERT INTO orders {tag} (customer, amount) VALUES (:id, 3);\n"
            );
            let run = bench.start(bench.pgbench(&lines, &["-M", "prepared", "-c", "2", "-t", BENCH_TURNS])?)?;
            bench.finish(run, PATIENCE).await
        },
        async {
            short.repeat(SHORT_LIVES, |_| Ok(short.psql(&format!("SELECT 3 {}", short.tag())))).await?;
            short.repeat(SHORT_LIVES, |_| short.oneshot("extended")).await
        },
    )
    .with_context(|| format!("over {}", route.name()))
    .map(drop)
}

/// Sessions whose encryption is recorded otherwise than the server logged it.
fn wrong_encryption<'a>(tap: &Tap, sessions: impl Iterator<Item = &'a LoggedSession>) -> Result<u64> {
    let mut expected: BTreeMap<u32, &str> = BTreeMap::new();
    for session in sessions {
        let encryption = match session.encryption {
            Encryption::None => "none",
            Encryption::Tls { .. } => "tls",
            Encryption::Gss => "gss",
        };
        expected.insert(session.backend_pid, encryption);
    }
    let sql = format!(
        "SELECT DISTINCT backend_pid, encryption FROM events WHERE kind = 'query' AND login_role = '{APP_ROLE}' \
         ORDER BY backend_pid, encryption"
    );
    let rows = query_folder(tap.collector_binary(), &tap.collector_data(), &sql)?;
    let wrong = rows.iter().filter(|row| {
        let pid = row
            .get("backend_pid")
            .and_then(Value::as_u64)
            .and_then(|pid| u32::try_from(pid).ok());
        let recorded = row.get("encryption").and_then(Value::as_str);
        pid.and_then(|pid| expected.get(&pid).copied()) != recorded
    });
    Ok(wrong.count() as u64)
}

/// As the agent says at its start.
fn recorded_tier(tap: &Tap) -> Result<Option<String>> {
    let sql = "SELECT event FROM events WHERE kind = 'agent_start' ORDER BY agent, seq";
    let rows = query_folder(tap.collector_binary(), &tap.collector_data(), sql)?;
    let event = rows.first().and_then(|row| row.get("event"));
    let event = match event {
        Some(Value::String(text)) => serde_json::from_str(text).context("the event agent_start")?,
        other => other.cloned().unwrap_or_default(),
    };
    let tier = event.pointer("/agent_start/tier").or_else(|| event.get("tier"));
    Ok(tier.and_then(Value::as_str).map(str::to_owned))
}

fn count(tap: &Tap, condition: &str) -> Result<u64> {
    let sql = format!("SELECT agent, seq FROM events WHERE {condition} ORDER BY agent, seq");
    Ok(query_folder(tap.collector_binary(), &tap.collector_data(), &sql)?.len() as u64)
}

/// Why there were gaps.
fn reasons(tap: &Tap) -> Result<String> {
    let sql = "SELECT gap_reason, count(*) AS n FROM events WHERE kind = 'gap' GROUP BY gap_reason ORDER BY gap_reason";
    let rows = query_folder(tap.collector_binary(), &tap.collector_data(), sql)?;
    let text = |row: &Value, name: &str| row.get(name).map(ToString::to_string).unwrap_or_default();
    let reasons = rows
        .iter()
        .map(|row| format!("{} {}", text(row, "n"), text(row, "gap_reason").trim_matches('"')));
    Ok(reasons.collect::<Vec<_>>().join(", "))
}

/// What is not as it has to be, in words.
fn problems(found: &Differences, others: &[(bool, String)]) -> Vec<String> {
    let mut problems: Vec<String> = found.examples.iter().map(|text| cut(text)).collect();
    problems.extend(
        others
            .iter()
            .filter(|(wrong, _)| *wrong)
            .map(|(_, text)| text.clone()),
    );
    problems
}

/// Some statements are long, and a serial console is slow.
fn cut(text: &str) -> String {
    match text.char_indices().nth(PROBLEM_LENGTH) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

const PASSED: &str = "passed";
const FAILED: &str = "FAILED";
/// GSSAPI needs a realm, which is no matter of the kernel: it takes the same path as TLS.
const ROUTES: [Route; 3] = [Route::Unix, Route::Tcp, Route::Tls];
/// Of two clients, two statements each.
const BENCH_TURNS: &str = "10";
const SHORT_LIVES: u64 = 3;
const PROBLEM_LENGTH: usize = 200;
/// What all programs together run at the least.
const MIN_STATEMENTS: u64 = 150;
const PATIENCE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_problems_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = cut(&"ä".repeat(PROBLEM_LENGTH + 1));
        assert_eq!(long.chars().count(), PROBLEM_LENGTH + 1);
        assert!(long.ends_with('…'));
    }
}
