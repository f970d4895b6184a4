// Questions by name, as `pgwitness-collector ask` has them.
//
// Owns their SQL: the same conditions and columns (collector/src/ask.rs), and how sure each name is beside it. `seen` is whoever has an event of
// a session, failed logins included; `used` is a role only by who was let in with it.

import { within } from "./series.ts";
import { nanos, rfc3339 } from "./time.ts";

export interface NamedQuestion {
  title: string;
  says: string;
  /** What is said where nothing is found. */
  none: string;
  /** It holds what happened against what was before. */
  compares?: boolean;
  /** It asks of the inventory. */
  inventory?: boolean;
  sql: (window: string) => string;
}

const SEEN = "session_id IS NOT NULL AND principal IS NOT NULL AND principal <> 'unknown'";
const USED = "kind IN ('session_open', 'query', 'rollup')";
const HOW = "array_sort(array_agg(DISTINCT confidence)) AS confidence";
const DAY_MS = 86_400_000;
/** How long one was not seen who is called back, how far is looked ahead, and how old a credential may be; in days. */
const QUIET = 30;
const AHEAD = 30;
const OLD = 365;

const moment = (ms: number): string => `to_timestamp_nanos(${nanos(rfc3339(ms))})`;

const marked = (mark: string) => (window: string): string =>
  `SELECT principal, ${HOW}, login_role, database, client_addr, unexpected_because, count(DISTINCT session_id) AS sessions, ` +
  "coalesce(sum(executions), 0) AS statements, min(ts_start) AS first_seen, max(ts_start) AS last_seen, max(event_id) AS an_event " +
  `FROM events WHERE expected = '${mark}' AND ${within(window)} ` +
  "GROUP BY principal, login_role, database, client_addr, unexpected_because ORDER BY last_seen DESC, principal, login_role";

export const QUESTIONS: Record<string, NamedQuestion> = {
  "shared-roles": {
    title: "Shared roles",
    says: "Roles that several principals used.",
    none: "Each role was used by one principal.",
    sql: (window) =>
      "SELECT login_role, count(DISTINCT principal) FILTER (WHERE principal <> 'unknown') AS principals, " +
      "array_sort(array_agg(DISTINCT principal) FILTER (WHERE principal <> 'unknown')) AS used_by, coalesce(sum(executions), 0) AS statements, " +
      "coalesce(sum(executions) FILTER (WHERE principal = 'unknown'), 0) AS statements_of_unknown, min(ts_start) AS first_seen, max(ts_start) AS last_seen " +
      `FROM events WHERE ${USED} AND login_role IS NOT NULL AND ${within(window)} GROUP BY login_role ` +
      "HAVING count(DISTINCT principal) FILTER (WHERE principal <> 'unknown') > 1 ORDER BY principals DESC, login_role",
  },
  "new-principals": {
    title: "New principals",
    says: "Whoever was never seen before.",
    none: "Everybody who was seen in this time had been seen before.",
    compares: true,
    sql: (window) =>
      `SELECT principal, ${HOW}, min(ts_start) AS first_seen, max(ts_start) AS last_seen, array_sort(array_agg(DISTINCT login_role)) AS roles, ` +
      "array_sort(array_agg(DISTINCT database)) AS databases, coalesce(sum(executions), 0) AS statements " +
      `FROM events WHERE ${SEEN} GROUP BY principal HAVING ${within(window, "min(ts_start)")} ORDER BY first_seen DESC, principal`,
  },
  dormant: {
    title: "Back after a pause",
    says: `Principals that were not seen for ${QUIET} days, and then again.`,
    none: `Nobody came back after ${QUIET} days or more.`,
    compares: true,
    sql: (window) =>
      `WITH hours AS (SELECT principal, ${HOW}, min(ts_start) AS came, max(ts_start) AS went FROM events WHERE ${SEEN} ` +
      "GROUP BY principal, date_trunc('hour', ts_start)), " +
      "pauses AS (SELECT principal, confidence, lag(went) OVER (PARTITION BY principal ORDER BY came) AS last_seen, came AS seen_again FROM hours) " +
      "SELECT principal, confidence, last_seen, seen_again, (date_part('epoch', seen_again) - date_part('epoch', last_seen)) / 86400 AS days FROM pauses " +
      `WHERE ${within(window, "seen_again")} AND last_seen <= seen_again - INTERVAL '${QUIET * 86_400} seconds' ORDER BY seen_again DESC, principal`,
  },
  "new-workloads": {
    title: "New users of a role",
    says: "Roles used by a principal that never used them before.",
    none: "Every role was used by who had used it before.",
    compares: true,
    sql: (window) =>
      `WITH pairs AS (SELECT login_role, principal, ${HOW}, min(ts_start) AS first_seen, max(ts_start) AS last_seen, ` +
      `coalesce(sum(executions), 0) AS statements FROM events WHERE ${USED} AND ${SEEN} AND login_role IS NOT NULL GROUP BY login_role, principal), ` +
      `former AS (SELECT login_role, array_sort(array_agg(principal)) AS used_before_by FROM pairs WHERE NOT (${within(window, "first_seen")}) GROUP BY login_role) ` +
      "SELECT pairs.login_role, principal, confidence, first_seen, last_seen, statements, used_before_by " +
      "FROM pairs LEFT JOIN former ON pairs.login_role = former.login_role " +
      `WHERE ${within(window, "first_seen")} ORDER BY first_seen DESC, principal, pairs.login_role`,
  },
  unexpected: {
    title: "Not expected",
    says: "What the inventory does not expect of those whom it lists.",
    none: "Whoever is in the inventory did what it expects.",
    inventory: true,
    sql: marked("unexpected"),
  },
  "not-listed": {
    title: "Not in the inventory",
    says: "Who was seen and is not listed, those without a name included.",
    none: "Everybody who was seen is in the inventory.",
    inventory: true,
    sql: marked("not in inventory"),
  },
  expiring: {
    title: "Credentials",
    says: `Of the inventory: those that expire within ${AHEAD} days, have expired, or were not changed for ${OLD} days.`,
    none: "None expires soon, and none is old.",
    inventory: true,
    sql: () => {
      const now = Date.now();
      const [soon, old] = [moment(now + AHEAD * DAY_MS), moment(now - OLD * DAY_MS)];
      return (
        "SELECT id, owner, credential_expires, credential_rotated, " +
        `CASE WHEN credential_expires < date_trunc('day', ${moment(now)}) THEN 'has expired' WHEN credential_expires <= ${soon} THEN 'expires soon' ` +
        "ELSE 'was not changed for long' END AS because " +
        `FROM inventory WHERE credential_expires <= ${soon} OR credential_rotated <= ${old} ORDER BY credential_expires NULLS LAST, credential_rotated, id`
      );
    },
  },
};
