//! The report on coverage: how much of what happened is in the record, and how sure the names are.

use super::{Report, Section, number, period, text};
use crate::store::{
    Store,
    question::{Question, Span},
    unattributed::Unattributed,
};

pub(super) async fn report(store: &Store, span: Span) -> anyhow::Result<Report> {
    let pages = store
        .pages(
            span,
            &[HEAD, CERTAINTY, GAPS, OPAQUE, AGENTS, NOT_UNDERSTOOD, ELSEWHERE],
        )
        .await?;
    let [head, certainty, gaps, opaque, agents, not_understood, elsewhere] = pages;
    let unattributed = Unattributed { span }.answer(store).await?;
    let statements = number(&head, "statements");
    let facts = vec![
        period(span),
        (
            "events".to_owned(),
            format!(
                "{}, from {} to {}",
                number(&head, "events"),
                text(&head, "first"),
                text(&head, "last")
            ),
        ),
        ("statements".to_owned(), statements.to_string()),
        (
            "statements with a name".to_owned(),
            match statements {
                0 => "–".to_owned(),
                all => format!("{:.2} %", number(&head, "named") as f64 * 100.0 / all as f64),
            },
        ),
        ("sessions".to_owned(), number(&head, "sessions").to_string()),
    ];
    let sections = vec![
        Section::of(
            "How sure the names are",
            "observed: one kernel saw both ends of the connection. joined: two observations that surely belong together. inferred: from an address, \
             or from who held the connection. none: nobody is named.",
            certainty,
            "No statement was seen.",
        ),
        Section::of(
            "Statements and sessions that nobody is named for",
            "By reason; a name may still come, when the agent of the client's host tells.",
            unattributed,
            "Everybody is named.",
        ),
        Section::of(
            "What was not seen",
            "A gap is where bytes or events are missing and their absence is known; operations.md says what each reason means.",
            gaps,
            "No gap is known in this time.",
        ),
        Section::of(
            "Sessions that could not be read",
            "",
            opaque,
            "Every session that was seen could be read.",
        ),
        Section::of(
            "Statements that are not understood",
            "Of these, objects may be missing: their text was not seen, or is not in a form that is understood.",
            not_understood,
            "All statements are understood.",
        ),
        Section::of(
            "What is elsewhere, or gone",
            "At whatever time, because it may have been of this one. collector_change: an agent came from another collector, and what it delivered there is \
             in that one's record. erasure, retention: events were taken out of this record; each of these says how many, and why.",
            elsewhere,
            "No agent came from another collector, and nothing was taken out of this record.",
        ),
        Section::of(
            "Agents",
            "What these agents record is in the record; a host without an agent is not. left_out: statements that a volume policy only counted, since the \
             agent started.",
            agents,
            "No agent delivered anything in this time.",
        ),
    ];
    Ok(Report {
        title: "Coverage".to_owned(),
        facts,
        sections,
    })
}

const HEAD: &str = "SELECT count(*) AS events, coalesce(sum(executions), 0) AS statements, \
    coalesce(sum(executions) FILTER (WHERE principal <> 'unknown' AND confidence <> 'none'), 0) AS named, \
    count(DISTINCT concat(agent, ' ', session_id)) FILTER (WHERE session_id IS NOT NULL) AS sessions, \
    CAST(min(ts_start) AS VARCHAR) AS first, CAST(max(ts_start) AS VARCHAR) AS last FROM chosen";

const CERTAINTY: &str = "SELECT coalesce(confidence, 'none') AS certainty, coalesce(method, 'none') AS method, \
    count(DISTINCT principal) AS principals, sum(executions) AS statements, \
    sum(executions) * 10000 / (SELECT sum(executions) FROM chosen) / 100.0 AS percent \
    FROM chosen WHERE executions IS NOT NULL GROUP BY 1, 2 ORDER BY statements DESC, 1, 2";

const GAPS: &str = "SELECT agent, gap_reason AS reason, count(*) AS gaps, \
    count(DISTINCT session_id) AS sessions, sum(bytes_missing) AS bytes_missing, \
    count(*) FILTER (WHERE bytes_missing IS NULL AND events_missing IS NULL) AS of_unknown_size, sum(events_missing) AS events_missing, \
    min(ts_start) AS first, max(coalesce(ts_end, ts_start)) AS last \
    FROM chosen WHERE kind = 'gap' GROUP BY agent, gap_reason ORDER BY gaps DESC, 1, 2";

const OPAQUE: &str = "SELECT agent, gap_reason AS reason, coalesce(encryption, 'unknown') AS encryption, count(*) AS sessions, \
    min(ts_start) AS first, max(ts_start) AS last \
    FROM chosen WHERE kind = 'opaque_session' GROUP BY 1, 2, 3 ORDER BY sessions DESC, 1, 2, 3";

const AGENTS: &str = "SELECT agent, count(*) AS events, min(ts_start) AS first, max(ts_start) AS last, \
    count(*) FILTER (WHERE kind = 'agent_start') AS starts, count(*) FILTER (WHERE kind = 'agent_pause') AS pauses, \
    count(DISTINCT session_id) FILTER (WHERE opened_before_attach) AS sessions_older_than_the_agent, \
    coalesce(max(left_out), 0) AS left_out \
    FROM chosen GROUP BY agent ORDER BY agent";

const ELSEWHERE: &str = "SELECT kind AS what, agent, count(*) AS times, min(ts_start) AS first, max(ts_start) AS last, max(event_id) AS an_event \
    FROM events WHERE kind IN ('collector_change', 'erasure', 'retention') GROUP BY kind, agent ORDER BY kind, agent";

const NOT_UNDERSTOOD: &str = "SELECT CASE WHEN text_known IS NOT TRUE THEN 'text not known' ELSE 'text not understood' END AS because, \
    coalesce(class, 'unknown') AS class, coalesce(protocol, 'unknown') AS protocol, sum(executions) AS statements, max(event_id) AS an_event \
    FROM chosen WHERE executions IS NOT NULL AND (text_known IS NOT TRUE OR parsed IS NOT TRUE) \
    GROUP BY 1, 2, 3 ORDER BY statements DESC, 1, 2, 3";
