//! The default redaction takes literals and values away, and nothing else.
//!
//! Owns one comparison of the record with itself: the same programs once with texts in the clear, once with the
//! default; count, order, outcome, rows and sizes of the events have to be the same. Separate from `compare`, because
//! no log takes part: the clear record is held against the log by the other parts.

use anyhow::Result;

use super::events::{self, Event, Session};
use super::figures::Figures;
use super::site::Site;
use super::{Plan, Server, drivers, psql};
use crate::cluster::{Cluster, Witness, server_binaries};
use crate::suite::settle;
use crate::tap::{Redaction, Settings, Tap};

/// Runs psql's script and a client of the extended protocol with each redaction; gives what differs.
pub(super) async fn run(plan: &Plan, server: &Server) -> Result<Figures> {
    let routes: Vec<_> = plan.transport.into_iter().collect();
    let mut cluster = Cluster::init_for(server.binaries.clone(), Witness::Statements, &routes)?;
    cluster.start().await?;
    let clients = server_binaries()?;
    // Both before the first run: psql lists roles and databases.
    let mut sites = Vec::new();
    for name in ["clear", "default"] {
        sites.push(Site::prepare(plan, &cluster, name, &clients).await?);
    }
    let mut records = Vec::new();
    for (site, redaction) in sites.iter().zip([Redaction::Clear, Redaction::Default]) {
        let settings = Settings {
            tier: plan.tier,
            ..redaction.into()
        };
        let mut tap = Tap::start(&cluster.data(), settings).await?;
        psql::once(site).await?;
        drivers::tokio_postgres(site).await?;
        settle(&tap).await?;
        tap.stop().await?;
        let record = events::read(tap.collector_binary(), &tap.collector_data())?;
        records.push(shapes(record.sessions, &site.role));
    }
    drop(sites);
    cluster.stop().await?;
    let mut figures = Figures::default();
    if let [clear, redacted] = records.as_slice() {
        compare(clear, redacted, &mut figures);
    }
    Ok(figures)
}

/// What redaction must leave.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    request: (String, u32, String, String),
    outcome: (String, String, Option<String>, Option<String>),
    counts: (Option<u64>, Option<u64>, Option<u64>, Option<u64>),
    params: Vec<(u32, bool)>,
    has_text: bool,
    /// Only the clear record may have any.
    values: usize,
}

fn shapes(sessions: Vec<Session>, role: &str) -> Vec<Vec<Shape>> {
    let of = |session: Session| session.requests.iter().flatten().map(shape).collect();
    sessions
        .into_iter()
        .filter(|session| session.role == role)
        .map(of)
        .collect()
}

fn shape(event: &Event) -> Shape {
    let result = &event.result;
    let statement = &event.statement;
    Shape {
        request: (
            event.protocol.clone(),
            statement.index,
            statement.name.clone(),
            statement.portal.clone(),
        ),
        outcome: (
            result.phase.clone(),
            result.outcome.clone(),
            result.sqlstate.clone(),
            event.meaning.tag.clone(),
        ),
        counts: (
            result.rows,
            result.rows_affected,
            result.copy_bytes,
            statement.original_bytes,
        ),
        params: event.params.iter().map(|param| (param.oid, param.null)).collect(),
        has_text: statement.text_known,
        values: event.params.iter().filter(|param| param.value.is_some()).count(),
    }
}

fn compare(clear: &[Vec<Shape>], redacted: &[Vec<Shape>], figures: &mut Figures) {
    let (lost, more) = (
        clear.len().saturating_sub(redacted.len()),
        redacted.len().saturating_sub(clear.len()),
    );
    figures.missing += lost as u64;
    figures.extra += more as u64;
    for (clear, redacted) in clear.iter().zip(redacted) {
        figures.recorded_events += redacted.len() as u64;
        figures.missing += clear.len().saturating_sub(redacted.len()) as u64;
        figures.extra += redacted.len().saturating_sub(clear.len()) as u64;
        for (clear, redacted) in clear.iter().zip(redacted) {
            if redacted.values > 0 {
                figures.wrong_params += 1;
                figures.note(|| format!("values behind the default redaction: {redacted:?}"));
            }
            if clear.counts != redacted.counts {
                figures.wrong_rows += 1;
                figures.note(|| format!("rows: clear {clear:?}, default {redacted:?}"));
            } else if (&clear.request, &clear.outcome, &clear.params, clear.has_text)
                != (
                    &redacted.request,
                    &redacted.outcome,
                    &redacted.params,
                    redacted.has_text,
                )
            {
                figures.wrong_outcome += 1;
                figures.note(|| format!("outcome: clear {clear:?}, default {redacted:?}"));
            }
        }
    }
}
