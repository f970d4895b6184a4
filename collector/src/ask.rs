//! `pgwitness-collector ask`: questions by name.
//!
//! Owns their SQL, which `--sql` prints, so that everybody can see what was asked, and ask it a little differently. Refuses
//! text from the command line in it: times and spans are numbers by then.
//!
//! *Seen* is whoever has an event of a session, failed logins included; *used* is a role only by who was let in with it.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use jiff::Timestamp;

use crate::{
    query::{self, Format},
    since::{since, span},
    source::{MarkedPlace, Source},
};

/// Asks by name: who shares a role, who is new, who came back, what nobody expected.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The question.
    #[arg(value_enum)]
    pub question: Question,
    /// What happened since then: RFC 3339, or a span before now like 24h or 30d.
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub since: String,
    /// `dormant`: how long one was not seen; at least an hour.
    #[arg(long, value_name = "SPAN", default_value = "30d")]
    pub quiet: String,
    /// `expiring`: how far to look ahead.
    #[arg(long, value_name = "SPAN", default_value = "30d")]
    pub within: String,
    /// `expiring`: how old a credential may be.
    #[arg(long, value_name = "SPAN", default_value = "365d")]
    pub unrotated: String,
    /// Prints the SQL, and asks nothing.
    #[arg(long)]
    pub sql: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub place: MarkedPlace,
    /// How to print the answer.
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Question {
    /// Roles that several principals used.
    SharedRoles,
    /// Principals that were never seen before.
    NewPrincipals,
    /// Principals that were not seen for a while (--quiet), and then again.
    Dormant,
    /// Roles used by a principal that never used them before.
    NewWorkloads,
    /// What the inventory does not expect of those whom it lists.
    Unexpected,
    /// Who was seen and is not in the inventory, those without a name included.
    NotListed,
    /// Credentials of the inventory that expire soon (--within), have expired, or were not changed for long (--unrotated).
    Expiring,
}

/// What a question's SQL depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    /// Unix nanoseconds.
    pub(crate) since: i64,
    /// Seconds.
    pub(crate) quiet: i64,
    /// Unix nanoseconds.
    pub(crate) now: i64,
    /// Unix nanoseconds.
    pub(crate) expires: i64,
    /// Unix nanoseconds.
    pub(crate) rotated: i64,
}

/// Asks and prints.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let when = When::of(&args, now)?;
    let sql = args.question.sql(&when);
    if args.sql {
        println!("{sql}");
        return Ok(ExitCode::SUCCESS);
    }
    let source = args.place.open().await?;
    if args.question.needs_inventory() {
        ensure_inventory(&source).await?;
    }
    if args.question.compares() {
        tell_beginning(&source, when.since).await?;
    }
    query::show(&source.ask(&sql).await?, args.format)
}

impl When {
    fn of(args: &Args, now: Timestamp) -> anyhow::Result<Self> {
        let now_ns = i64::try_from(now.as_nanosecond()).context("this clock is wrong")?;
        let quiet = span(&args.quiet)?;
        if quiet < HOUR {
            bail!("--quiet is {}: it must be at least an hour", args.quiet);
        }
        let nanoseconds = |text: &str| anyhow::Ok(span(text)?.saturating_mul(1_000_000_000));
        Ok(Self {
            since: since(&args.since, now)?,
            quiet,
            now: now_ns,
            expires: now_ns.saturating_add(nanoseconds(&args.within)?),
            rotated: now_ns.saturating_sub(nanoseconds(&args.unrotated)?),
        })
    }
}

impl Question {
    /// One SELECT over the store's tables.
    pub(crate) fn sql(self, when: &When) -> String {
        let since = time(when.since);
        match self {
            Self::SharedRoles => format!(
                "SELECT login_role, count(DISTINCT principal) FILTER (WHERE principal <> 'unknown') AS principals,\n  \
                 array_sort(array_agg(DISTINCT principal) FILTER (WHERE principal <> 'unknown')) AS used_by,\n  \
                 coalesce(sum(executions), 0) AS statements,\n  \
                 coalesce(sum(executions) FILTER (WHERE principal = 'unknown'), 0) AS statements_of_unknown,\n  \
                 min(ts_start) AS first_seen, max(ts_start) AS last_seen\n\
                 FROM events\n\
                 WHERE {USED} AND login_role IS NOT NULL AND ts_start >= {since}\n\
                 GROUP BY login_role\n\
                 HAVING count(DISTINCT principal) FILTER (WHERE principal <> 'unknown') > 1\n\
                 ORDER BY principals DESC, login_role"
            ),
            Self::NewPrincipals => format!(
                "SELECT principal, min(ts_start) AS first_seen, max(ts_start) AS last_seen,\n  \
                 array_sort(array_agg(DISTINCT login_role)) AS roles,\n  \
                 array_sort(array_agg(DISTINCT database)) AS databases,\n  \
                 coalesce(sum(executions), 0) AS statements\n\
                 FROM events\n\
                 WHERE {SEEN}\n\
                 GROUP BY principal\n\
                 HAVING min(ts_start) >= {since}\n\
                 ORDER BY first_seen DESC, principal"
            ),
            // By the hour, which loses nothing: a pause of an hour or more never lies within one.
            Self::Dormant => format!(
                "WITH hours AS (\n  \
                   SELECT principal, min(ts_start) AS came, max(ts_start) AS went\n  \
                   FROM events WHERE {SEEN}\n  \
                   GROUP BY principal, date_trunc('hour', ts_start)),\n\
                 pauses AS (\n  \
                   SELECT principal, lag(went) OVER (PARTITION BY principal ORDER BY came) AS last_seen, came AS seen_again\n  \
                   FROM hours)\n\
                 SELECT principal, last_seen, seen_again,\n  \
                 (date_part('epoch', seen_again) - date_part('epoch', last_seen)) / 86400 AS days\n\
                 FROM pauses\n\
                 WHERE seen_again >= {since} AND last_seen <= seen_again - INTERVAL '{} seconds'\n\
                 ORDER BY seen_again DESC, principal",
                when.quiet
            ),
            Self::NewWorkloads => format!(
                "WITH pairs AS (\n  \
                   SELECT login_role, principal, min(ts_start) AS first_seen, max(ts_start) AS last_seen,\n    \
                   coalesce(sum(executions), 0) AS statements\n  \
                   FROM events WHERE {USED} AND {SEEN} AND login_role IS NOT NULL\n  \
                   GROUP BY login_role, principal),\n\
                 former AS (\n  \
                   SELECT login_role, array_sort(array_agg(principal)) AS used_before_by\n  \
                   FROM pairs WHERE first_seen < {since}\n  \
                   GROUP BY login_role)\n\
                 SELECT pairs.login_role, principal, first_seen, last_seen, statements, used_before_by\n\
                 FROM pairs LEFT JOIN former ON pairs.login_role = former.login_role\n\
                 WHERE first_seen >= {since}\n\
                 ORDER BY first_seen DESC, principal, pairs.login_role"
            ),
            Self::Unexpected => marked("unexpected", &since),
            Self::NotListed => marked("not in inventory", &since),
            Self::Expiring => format!(
                "SELECT id, owner, credential_expires, credential_rotated,\n  \
                 CASE WHEN credential_expires < date_trunc('day', {now}) THEN 'has expired'\n       \
                      WHEN credential_expires <= {expires} THEN 'expires soon'\n       \
                      ELSE 'was not changed for long' END AS because\n\
                 FROM inventory\n\
                 WHERE credential_expires <= {expires} OR credential_rotated <= {rotated}\n\
                 ORDER BY credential_expires NULLS LAST, credential_rotated, id",
                now = time(when.now),
                expires = time(when.expires),
                rotated = time(when.rotated),
            ),
        }
    }

    const fn needs_inventory(self) -> bool {
        matches!(self, Self::Unexpected | Self::NotListed | Self::Expiring)
    }

    /// Whether it holds what happened against what was before.
    const fn compares(self) -> bool {
        matches!(self, Self::NewPrincipals | Self::Dormant | Self::NewWorkloads)
    }
}

fn marked(mark: &str, since: &str) -> String {
    format!(
        "SELECT principal, login_role, database, client_addr, unexpected_because,\n  \
         count(DISTINCT session_id) AS sessions, coalesce(sum(executions), 0) AS statements,\n  \
         min(ts_start) AS first_seen, max(ts_start) AS last_seen, max(event_id) AS an_event\n\
         FROM events\n\
         WHERE expected = '{mark}' AND ts_start >= {since}\n\
         GROUP BY principal, login_role, database, client_addr, unexpected_because\n\
         ORDER BY last_seen DESC, principal, login_role"
    )
}

/// A time as people read it, and SQL too.
fn time(unix_ns: i64) -> String {
    let at = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    format!("TIMESTAMP '{at}'")
}

/// Without an inventory nothing is marked, and an empty answer would look like all is well.
async fn ensure_inventory(source: &Source) -> anyhow::Result<()> {
    let page = source.ask("SELECT id FROM inventory LIMIT 1").await?;
    if page.rows.is_empty() {
        match source {
            Source::Folder { .. } => {
                bail!("there is no inventory, or it lists nobody: name one with --inventory")
            }
            Source::Collector(_) => bail!(
                "this collector has no inventory, or one that lists nobody: start it with --inventory (inventory suggest makes \
                 a first one)"
            ),
        }
    }
    Ok(())
}

/// Everybody is new to a record that has just begun.
pub(crate) async fn tell_beginning(source: &Source, since_ns: i64) -> anyhow::Result<()> {
    let page = source
        .ask(&format!(
            "SELECT min(ts_start), min(ts_start) < {} FROM events WHERE ts_start IS NOT NULL",
            time(since_ns)
        ))
        .await?;
    if let Some([first, before]) = page.rows.first().map(Vec::as_slice)
        && let (Some(first), Some(false)) = (first.as_str(), before.as_bool())
    {
        eprintln!("the record begins at {first}: who was there before is not known");
    }
    Ok(())
}

/// Whoever has a name.
const SEEN: &str = "session_id IS NOT NULL AND principal IS NOT NULL AND principal <> 'unknown'";

/// Only who was let in has used anything.
const USED: &str = "kind IN ('session_open', 'query', 'rollup')";

/// Seconds.
const HOUR: i64 = 3600;

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  ask shared-roles
  ask new-principals --since 7d
  ask shared-roles --sql      prints the question in SQL";
