// The overview: what happened, who was behind it, what is new, and how far the record goes.
//
// Owns the order of panels and what each asks. Figures come from the collector as they are; none is made here but shares.

import type { JSX } from "preact";
import { get, post, query, rowsOf } from "../../api.ts";
import type { Overview as Figures, Page, Principal } from "../../answers.ts";
import { type Asked, useAsked } from "../../ask.ts";
import { begins, learn } from "../../begins.ts";
import { useNewcomers } from "../../newcomers.ts";
import { since } from "../../route.ts";
import { within } from "../../series.ts";
import { ALL, sinceNs, sinceText } from "../../time.ts";
import { Activity } from "../activity.tsx";
import { NewEdges, type Edge } from "../edges.tsx";
import { Failures, type Failure } from "./failures.tsx";
import { Look } from "./look.tsx";
import { Privileged, type Act } from "./privileged.tsx";
import { SharedRoles } from "./shared.tsx";
import { Strip } from "./strip.tsx";

export function Overview(): JSX.Element {
  const window = since();
  const start = sinceNs(window) ?? 0n;
  const span = encodeURIComponent(sinceText(window));
  const figures = useAsked(`figures ${window}`, (signal) => get<Figures>(`/api/v1/overview?since=${span}`, signal).then((answer) => (learn(answer), answer)), LIVE_MS);
  const principals = useAsked(`principals ${window}`, (signal) => get<{ principals: Principal[] }>(`/api/v1/principals?since=${span}`, signal), LIVE_MS * 3);
  const newcomers = useNewcomers(window);
  // It reads the whole record: what is quick comes first.
  const edges = useAsked(
    window !== ALL && over(figures) && over(principals) ? `edges ${window}` : null,
    async (signal) => {
      const [page, record] = await Promise.all([
        post<Page>("/api/v1/new-edges", { since_ns: start }, signal),
        begins(signal),
      ]);
      return { ...rowsOf<Edge>(page), begins: record };
    },
    HEAVY_MS,
  );
  const failures = useAsked(`failures ${window}`, (signal) => query<Failure>(FAILURES(window), signal), SLOW_MS);
  const acts = useAsked(`acts ${window}`, (signal) => query<Act>(PRIVILEGED(window), signal), SLOW_MS);
  return (
    <>
      <Strip asked={figures} />
      <div class="cols">
        <div class="col">
          <Activity title="Statements by class" of="TRUE" every={SLOW_MS} />
          <SharedRoles asked={principals} newcomers={newcomers.answer} />
          <Failures asked={failures} />
        </div>
        <div class="col">
          <Look figures={figures.answer} edges={edges.answer} newcomers={newcomers.answer} principals={principals.answer?.principals ?? []} />
          <NewEdges asked={edges} behind={over(figures) ? principals : figures} />
          <Privileged asked={acts} />
        </div>
      </div>
    </>
  );
}

const over = (one: Asked<unknown>): boolean => one.answered || one.refused != null;

const FAILURES = (window: string): string =>
  "SELECT kind, principal, max(confidence) AS confidence, login_role, sqlstate, count(*) AS times, max(ts_start) AS last_seen, " +
  "max(agent || '-' || seq) AS event_id FROM events " +
  `WHERE ${within(window)} AND (kind IN ('auth_failure', 'session_error') OR outcome IN ('error', 'canceled')) ` +
  "GROUP BY kind, principal, login_role, sqlstate ORDER BY CASE WHEN kind = 'auth_failure' THEN 0 ELSE 1 END, last_seen DESC LIMIT 100";

/** As timelines mark it. */
export const IS_PRIVILEGED =
  "(class IN ('ROLE', 'DDL') OR command IN ('ALTER SYSTEM', 'SET ROLE', 'SET SESSION AUTHORIZATION', 'LOAD', 'CHECKPOINT', 'DO'))";

const PRIVILEGED = (window: string): string =>
  "SELECT ts_start, principal, confidence, login_role, class, command, statement, outcome, sqlstate, event_id FROM queries " +
  `WHERE ${within(window)} AND (${IS_PRIVILEGED} OR class = 'FUNCTION') ORDER BY ts_start DESC LIMIT 101`;

/** Key figures. Each question is on record, alike ones together. */
const LIVE_MS = 10_000;
const SLOW_MS = 60_000;
const HEAVY_MS = 900_000;
