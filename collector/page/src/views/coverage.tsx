// How far the record goes: what has no name, what was not seen, what could not be read, and which agents are silent.

import type { JSX } from "preact";
import { get, post, query, rowsOf } from "../api.ts";
import type { Page, Status } from "../answers.ts";
import { useAsked } from "../ask.ts";
import { bytes, number, plural, seconds, share } from "../numbers.ts";
import { Copy, command, sinceFlag } from "../parts/copy.tsx";
import { Answer, Capped, Facts, Panel } from "../parts/panel.tsx";
import { Table } from "../parts/table.tsx";
import { Chip, SessionLink, Time } from "../parts/text.tsx";
import { change, link, since } from "../route.ts";
import { type Gap, gaps, MOST_GAPS, within } from "../series.ts";
import { sinceNs } from "../time.ts";
import { visible } from "../visible.ts";
import { reasonOf } from "../words.ts";
import { Activity } from "./activity.tsx";
import { STALE_S } from "./overview/strip.tsx";

interface Level {
  confidence: string | null;
  method: string | null;
  principals: number;
  statements: number;
}

interface Unnamed {
  reason: string | null;
  login_role: string | null;
  database: string | null;
  statements: number;
  percent: number | null;
  sessions: number;
  refused_logins: number;
  first_seen: string;
  last_seen: string;
  last_event: string;
}

export function Coverage(): JSX.Element {
  const window = since();
  const levels = useAsked(`levels ${window}`, (signal) => query<Level>(LEVELS_SQL(window), signal));
  const unnamed = useAsked(`unnamed ${window}`, (signal) => post<Page>("/api/v1/unattributed", { since_ns: sinceNs(window) ?? undefined }, signal).then((page) => rowsOf<Unnamed>(page)));
  const missed = useAsked(`gaps ${window}`, (signal) => gaps(window, signal));
  const status = useAsked("status", (signal) => get<Status>("/api/v1/status", signal), 10_000);
  return (
    <>
      <div class="two">
        <Panel title="How sure the names are" about="of the statements of this time">
          <Answer asked={levels} lines={4} empty={(answer) => (answer.rows.length === 0 ? "No statement in this time." : null)}>
            {({ rows }) => {
              const all = rows.reduce((sum, row) => sum + row.statements, 0);
              return (
                <Table
                  label="How sure the names are"
                  rows={rows}
                  id={(row) => `${row.confidence} ${row.method}`}
                  columns={[
                    { title: "Certainty", class: "nowrap", cell: (row) => <Chip of={row.confidence} /> },
                    { title: "Method", class: "grow", cell: (row) => visible(row.method ?? "–") },
                    { title: "Principals", class: "n hide-s", cell: (row) => number(row.principals) },
                    { title: "Statements", class: "n", cell: (row) => number(row.statements) },
                    { title: "Share", class: "n", cell: (row) => share(row.statements, all) },
                  ]}
                />
              );
            }}
          </Answer>
        </Panel>
        <Panel title="Agents" about="now">
          <Answer asked={status} lines={4} empty={(answer) => (answer.agents.length === 0 ? "No agent has delivered to this collector: pgwitness-agent run --collector …" : null)}>
            {(answer) => <Agents of={answer} />}
          </Answer>
        </Panel>
      </div>
      <Panel title="Without a name" about="by reason, role and database" tools={<Copy text={command("unattributed", sinceFlag(window))} label="copy command" />}>
        <Answer asked={unnamed} lines={4} empty={(answer) => (answer.rows.length === 0 ? "Everybody in this time has a name." : null)}>
          {(answer) => (
            <>
              <Table
                label="Without a name"
                rows={answer.rows}
                id={(_, n) => String(n)}
                open={(row) => change({ event: row.last_event })}
                columns={[
                  { title: "Reason", class: "grow", cell: (row) => <><Chip of="none" /> {visible(row.reason ?? "why is not known")}</> },
                  { title: "Role, database", class: "hide-s", cell: (row) => <>{visible(row.login_role ?? "not known")}<div class="sub">{visible(row.database ?? "not known")}</div></> },
                  { title: "Statements", class: "n", cell: (row) => <>{number(row.statements)}<div class="sub">{row.percent == null ? "" : `${row.percent} %`}</div></> },
                  { title: "Sessions", class: "n", cell: (row) => number(row.sessions) },
                  { title: "Refused", class: "n hide-s", cell: (row) => number(row.refused_logins) },
                  { title: "Last", class: "nowrap sub hide-s", cell: (row) => <Time at={row.last_seen} form="short" /> },
                ]}
              />
              <Capped when={answer.truncated} what="There are more." />
            </>
          )}
        </Answer>
      </Panel>
      <div class="cols">
        <div class="col">
          <Activity title="Statements, and what was not seen" of="TRUE" />
        </div>
        <div class="col">
          <Panel title="Not seen, by reason" about="gaps and sessions that cannot be read" tools={<Copy text={GAPS_SQL(window)} label="copy SQL" />}>
            <Answer asked={missed} lines={4} empty={(answer) => (answer.rows.length === 0 ? "No gap is known in this time, and every session could be read." : null)}>
              {(answer) => <Reasons of={answer.rows} capped={answer.truncated} />}
            </Answer>
          </Panel>
        </div>
      </div>
      <Panel title="Gaps and unreadable sessions, one by one" about="the newest first" tools={<a class="pill" href={link("trail", { kind: "gap" })}>in the trail</a>}>
        <Answer asked={missed} lines={4} empty={(answer) => (answer.rows.length === 0 ? "None." : null)}>
          {(answer) => (
            <Table
              label="Gaps"
              tall={answer.rows.length > 20}
              rows={answer.rows}
              id={(gap) => gap.event_id}
              open={(gap) => change({ event: gap.event_id })}
              columns={[
                { title: "From (UTC)", class: "nowrap sub", cell: (gap) => <Time at={gap.ts_start} form="short" /> },
                { title: "Reason", class: "grow", cell: (gap) => <Why of={gap} /> },
                { title: "Missing", class: "n", cell: (gap) => amount(gap) },
                { title: "Session", class: "hide-s nowrap", cell: (gap) => <SessionLink id={gap.session_id} /> },
                { title: "Agent", class: "hide-s sub nowrap", cell: (gap) => visible(gap.agent) },
              ]}
            />
          )}
        </Answer>
      </Panel>
    </>
  );
}

const reason = (gap: Gap): string => `${gap.kind === "opaque_session" ? "cannot be read: " : ""}${gap.gap_reason ? reasonOf(gap.gap_reason) : "why is not known"}`;

/** In a list, in few words. */
function Why({ of: gap }: { of: Gap }): JSX.Element {
  const opaque = gap.kind === "opaque_session";
  return (
    <span title={visible(reason(gap))}>
      {opaque ? "cannot be read" : visible(gap.gap_reason ? reasonOf(gap.gap_reason, false) : "why is not known")}
      {opaque && <span class="sub clamp">{visible(gap.gap_reason)}</span>}
    </span>
  );
}

function amount(gap: Gap): string {
  if (gap.kind === "opaque_session") return "all statements";
  // They were seen, and not understood.
  if (gap.bytes_missing === 0) return "not understood";
  if (gap.bytes_missing != null) return bytes(gap.bytes_missing);
  return gap.events_missing == null ? "unknown size" : plural(gap.events_missing, "event");
}

function Reasons({ of, capped }: { of: Gap[]; capped: boolean }): JSX.Element {
  const reasons = new Map<string, { times: number; bytes: number; unknown: number; events: number }>();
  for (const gap of of) {
    const name = reason(gap);
    const sum = reasons.get(name) ?? { times: 0, bytes: 0, unknown: 0, events: 0 };
    sum.times += 1;
    sum.bytes += gap.bytes_missing ?? 0;
    sum.unknown += Number(gap.bytes_missing == null && gap.events_missing == null);
    sum.events += gap.events_missing ?? 0;
    reasons.set(name, sum);
  }
  return (
    <>
      <Capped when={capped} what={`Of the newest ${number(MOST_GAPS)}: there are more.`} />
      <Table
        label="Not seen, by reason"
        rows={[...reasons]}
        id={([name]) => name}
        columns={[
          { title: "Reason", class: "grow", cell: ([name]) => visible(name) },
          { title: "Times", class: "n", cell: ([, sum]) => number(sum.times) },
          { title: "Bytes", class: "n", cell: ([, sum]) => (sum.bytes === 0 ? "–" : bytes(sum.bytes)) },
          { title: "Unknown size", class: "n", cell: ([, sum]) => (sum.unknown === 0 ? "–" : number(sum.unknown)) },
        ]}
      />
    </>
  );
}

/** Counters that mean that something was not seen. */
const LOSSES = ["ring_full", "copy_fault", "unsupported_call", "call_cap", "facts_lost", "targets_full", "owners_full", "flows_full", "program_missed", "probe_missed", "plaintext_unplaced", "malformed", "queue_dropped", "spool_dropped", "paused_bytes", "memory_limit_bytes", "left_out"];

function Agents({ of }: { of: Status }): JSX.Element {
  return (
    <>
      {of.agents.map((agent) => {
        const stale = agent.last_seen_seconds == null || agent.last_seen_seconds > STALE_S;
        const lost = LOSSES.filter((name) => (agent.counters?.[name] ?? 0) > 0);
        return (
          <div key={agent.agent}>
            <h3>{visible(agent.agent)}</h3>
            <Facts
              of={[
                ["last heard of", <span class={stale ? "bad" : "ok"}>{agent.last_seen_seconds == null ? "never since this collector started" : `${seconds(agent.last_seen_seconds)} ago`}{stale ? ": what happens there now is not known" : ""}</span>],
                ["since it started", `${number(agent.counters?.sessions)} sessions, ${number(agent.counters?.events)} events, ${bytes(agent.counters?.bytes)}`],
                ["losses counted", lost.length === 0 ? "none" : lost.map((name) => `${name.replaceAll("_", " ")} ${number(agent.counters?.[name])}`).join(", ")],
              ]}
            />
          </div>
        );
      })}
    </>
  );
}

const LEVELS_SQL = (window: string): string =>
  "SELECT coalesce(confidence, 'none') AS confidence, method, count(DISTINCT principal) AS principals, sum(executions) AS statements FROM queries " +
  `WHERE ${within(window)} GROUP BY 1, 2 ORDER BY statements DESC`;

const GAPS_SQL = (window: string): string =>
  `SELECT gap_reason, count(*) AS times, sum(bytes_missing) AS bytes FROM gaps WHERE ${within(window)} GROUP BY 1 ORDER BY times DESC`;
