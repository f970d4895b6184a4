//! The report for reviews of access: who used which role, touched what, and did what takes privileges.

use super::{Report, Section, period};
use crate::store::{
    Store,
    edges::NewEdges,
    question::{Question, Span},
};

pub(super) async fn report(store: &Store, span: Span) -> anyhow::Result<Report> {
    let pages = store
        .pages(span, &[ROLES, SHARED, TOUCHED, PRIVILEGED, REFUSED, UNEXPECTED])
        .await?;
    let [roles, shared, touched, privileged, refused, unexpected] = pages;
    let mut sections = vec![
        Section::of(
            "Roles and who used them",
            "Used is what somebody was let in with. What a role was granted is not seen, only what was done with it.",
            roles,
            "Nobody was let in.",
        ),
        Section::of(
            "Roles that several principals use",
            "One role for several programs: the server's own log cannot tell them apart.",
            shared,
            "No role is shared.",
        ),
        Section::of(
            "What was touched",
            "Objects as the statements name them; a statement counts with each.",
            touched,
            "No object was named.",
        ),
        Section::of(
            "What takes privileges",
            "Changes of roles and of the schema, and commands that reach beyond the database.",
            privileged,
            "Nothing of the kind was seen.",
        ),
        Section::of("Refused logins", "", refused, "No login was refused."),
        Section::of(
            "What the inventory does not expect",
            "By the inventory that is in effect; without one, nothing is marked.",
            unexpected,
            "Nothing is marked.",
        ),
    ];
    if let Some(since_ns) = span.since_ns {
        let edges = NewEdges {
            since_ns,
            until_ns: span.until_ns,
        };
        let edges = edges.answer(store).await?;
        sections.push(Section::of(
            "Touched for the first time",
            "What these principals had never done to these objects before the period, in this record.",
            edges,
            "Nothing is new.",
        ));
    }
    Ok(Report {
        title: "Access review".to_owned(),
        facts: vec![period(span)],
        sections,
    })
}

const ROLES: &str = "SELECT login_role AS role, coalesce(principal, 'unknown') AS principal, \
    array_sort(array_agg(DISTINCT confidence) FILTER (WHERE confidence IS NOT NULL)) AS certainty, \
    array_sort(array_agg(DISTINCT database) FILTER (WHERE database IS NOT NULL)) AS databases, \
    count(DISTINCT concat(agent, ' ', session_id)) AS sessions, coalesce(sum(executions), 0) AS statements, \
    min(ts_start) AS first, max(ts_start) AS last \
    FROM chosen WHERE kind IN ('session_open', 'query', 'rollup') GROUP BY 1, 2 ORDER BY 1, 2";

const SHARED: &str = "SELECT login_role AS role, count(DISTINCT principal) AS principals, array_sort(array_agg(DISTINCT principal)) AS used_by \
    FROM chosen WHERE kind IN ('session_open', 'query', 'rollup') AND login_role IS NOT NULL AND principal <> 'unknown' \
    GROUP BY login_role HAVING count(DISTINCT principal) > 1 ORDER BY principals DESC, 1";

const TOUCHED: &str = "WITH t AS (SELECT *, unnest(touched(objects, object_access)) AS thing FROM chosen WHERE executions IS NOT NULL) \
    SELECT coalesce(principal, 'unknown') AS principal, login_role AS role, substr(thing, strpos(thing, ' ') + 1) AS object, \
    split_part(thing, ' ', 1) AS access, sum(executions) AS statements, sum(rows) AS rows, sum(rows_affected) AS rows_affected, \
    min(ts_start) AS first, max(ts_start) AS last \
    FROM t WHERE thing IS NOT NULL GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4";

const PRIVILEGED: &str = "SELECT coalesce(principal, 'unknown') AS principal, login_role AS role, class, command, objects, \
    coalesce(outcome, 'unknown') AS outcome, sum(executions) AS statements, max(ts_start) AS last, max(event_id) AS an_event \
    FROM chosen WHERE privileged \
    GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 6";

const REFUSED: &str = "SELECT login_role AS role, coalesce(principal, 'unknown') AS principal, client_addr AS address, sqlstate, \
    count(*) AS times, min(ts_start) AS first, max(ts_start) AS last, max(event_id) AS an_event \
    FROM chosen WHERE kind = 'auth_failure' GROUP BY 1, 2, 3, 4 ORDER BY times DESC, 1, 2, 3";

const UNEXPECTED: &str = "SELECT expected AS mark, coalesce(principal, 'unknown') AS principal, login_role AS role, database, \
    unexpected_because AS because, count(DISTINCT concat(agent, ' ', session_id)) AS sessions, coalesce(sum(executions), 0) AS statements, \
    max(ts_start) AS last, max(event_id) AS an_event \
    FROM chosen WHERE expected IN ('unexpected', 'not in inventory') GROUP BY 1, 2, 3, 4, 5 ORDER BY 1 DESC, 2, 3, 4";
