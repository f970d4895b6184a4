// One session from its beginning to its end, with what was not seen meanwhile.
//
// Owns the pages of a timeline: each goes on exactly behind the last event of the one before.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { admitted } from "../access.ts";
import { post, query, refusal, type Refused, rowsOf, stopped } from "../api.ts";
import type { Page } from "../answers.ts";
import { type Open, useAsked } from "../ask.ts";
import { text } from "../filters.ts";
import { bytes, milliseconds, number } from "../numbers.ts";
import { Copy, command, quoted } from "../parts/copy.tsx";
import { Answer, Facts, Panel, Problem, Skeleton, Slow } from "../parts/panel.tsx";
import { Table } from "../parts/table.tsx";
import { Class, Names, Sql, Time, Who } from "../parts/text.tsx";
import { change, link, route } from "../route.ts";
import { visible } from "../visible.ts";

interface Step {
  ts_start: string;
  kind: string;
  mark: string | null;
  principal: string | null;
  confidence: string | null;
  login_role: string | null;
  class: string | null;
  command: string | null;
  objects: string[] | null;
  executions: number | null;
  rows: number | null;
  rows_affected: number | null;
  duration_ns: number | null;
  bytes_missing: number | null;
  statement: string | null;
  event_id: string;
}

interface Head {
  agent: string;
  backend_pid: number | null;
  login_role: string | null;
  database: string | null;
  application_name: string | null;
  transport: string | null;
  encryption: string | null;
  client_addr: string | null;
  client_port: number | null;
  statements: number | null;
  rows: number | null;
  closed: boolean | null;
  first_seen: string;
  last_seen: string;
}

export function SessionView(): JSX.Element {
  const id = route.value.params.id ?? "";
  const head = useAsked(`session ${id}`, (signal) => query<Head>(`SELECT * FROM sessions WHERE session_id = ${text(id)}`, signal).then((answer) => answer.rows[0] ?? null));
  const people = useAsked(`people ${id}`, (signal) => query<{ principal: string | null; confidence: (string | null)[] }>(PEOPLE(id), signal).then((answer) => answer.rows));
  const steps = useTimeline(id);
  return (
    <>
      <Panel
        title={`Session ${visible(id)}`}
        tools={
          <>
            <a class="pill" href={link("trail", { session: id })}>
              in the trail
            </a>
            <Copy text={command("timeline", `--session ${quoted(id)}`)} label="copy command" />
            <Copy text={location.href} label="copy link" />
          </>
        }
      >
        <Answer asked={head} lines={4}>
          {(one) =>
            one ? (
              <Facts
                of={[
                  ["who", <>{(people.answer ?? []).map((who, n) => <div key={n}><Who principal={who.principal} confidence={who.confidence} sub="" /></div>)}</>],
                  ["role, database", visible([one.login_role ?? "role not known", one.database ?? "database not known"].join(", "))],
                  ["application name", one.application_name ? `${visible(one.application_name)} (the client's word)` : null],
                  ["client", one.client_addr ? visible(`${one.client_addr} port ${one.client_port ?? "?"}`) : "Unix socket"],
                  ["transport", visible([one.transport, `encryption ${one.encryption ?? "not known"}`].join(", "))],
                  ["from, to", <><Time at={one.first_seen} /> – <Time at={one.last_seen} /> UTC{one.closed ? "" : ", not closed as far as is known"}</>],
                  ["statements", `${number(one.statements)}, ${number(one.rows)} rows out`],
                  ["backend", one.backend_pid == null ? null : `process ${one.backend_pid}, agent ${visible(one.agent)}`],
                ]}
              />
            ) : (
              <p class="state">No session to a server has this id; it may be one with a pooler: its statements are below.</p>
            )
          }
        </Answer>
      </Panel>
      <Panel class="fill" title="What happened, in order" about={steps.rows.length > 0 ? `${number(steps.rows.length)} events${steps.more ? ", and more" : ", all of them"}` : ""}>
        {steps.refused && <Problem of={steps.refused} again={steps.next} />}
        {steps.asking != null && steps.rows.length === 0 && <Skeleton lines={10} of={steps} />}
        {steps.asking == null && !steps.refused && steps.rows.length === 0 && <p class="state">Nothing is on record of a session with this id.</p>}
        {steps.rows.length > 0 && (
          <Table
            label="Timeline"
            tall
            rows={steps.rows}
            id={(step) => step.event_id}
            open={(step) => change({ event: step.event_id })}
            mark={(step) => (step.event_id === route.value.params.event ? "chosen" : "")}
            columns={[
              { title: "Time (UTC)", class: "nowrap sub t", cell: (step) => <Time at={step.ts_start} form="clock" /> },
              { title: "Principal", class: "w", cell: (step) => <Who principal={step.principal} confidence={step.confidence} sub="" /> },
              { title: "Class", class: "nowrap c", cell: (step) => (step.executions == null ? <span class="sub">·</span> : <Class of={step.class} />) },
              {
                title: "What",
                class: "s",
                cell: (step) => (
                  <>
                    {step.executions == null ? <span class="sub">{visible(step.kind.replaceAll("_", " "))}</span> : <Sql text={step.statement} />}
                    <div class="sub clamp">
                      {step.mark && <b class={/^(privileged|rolled back)$/.test(step.mark) ? "warn" : "bad"}>{visible(step.mark)} </b>}
                      {step.kind === "gap" && `${bytes(step.bytes_missing)} `}
                      {step.objects?.length ? <Names of={step.objects} /> : null}
                    </div>
                  </>
                ),
              },
              { title: "Rows", class: "n hide-s", cell: (step) => number(step.rows_affected ?? step.rows) },
              { title: "ms", class: "n hide-s", cell: (step) => (step.executions == null ? "–" : milliseconds(step.duration_ns)) },
            ]}
          />
        )}
        {steps.more && (
          <button type="button" class="pill" onClick={steps.next}>
            more
          </button>
        )}
        {steps.rows.length > 0 && <Slow of={steps} />}
      </Panel>
    </>
  );
}

interface Timeline extends Open {
  rows: Step[];
  more: boolean;
  refused: Refused | null;
  next: () => void;
}

function useTimeline(id: string): Timeline {
  const [state, set] = useState<Omit<Timeline, "stop" | "next">>({ rows: [], more: false, asking: Date.now(), refused: null });
  const open = useRef<AbortController | null>(null);
  const token = admitted.value;
  const ask = async (rows: Step[]): Promise<void> => {
    open.current?.abort();
    const mine = new AbortController();
    open.current = mine;
    set({ rows, more: false, asking: Date.now(), refused: null });
    try {
      const page = await post<Page>("/api/v1/timeline", { session: id, limit: PAGE, after: rows.at(-1)?.event_id }, mine.signal);
      const more = rowsOf<Step>(page);
      if (!mine.signal.aborted) set({ rows: [...rows, ...more.rows], more: more.truncated, asking: null, refused: null });
    } catch (error) {
      if (!mine.signal.aborted) set({ rows, more: false, asking: null, refused: refusal(error) });
    }
  };
  useEffect(() => {
    void ask([]);
    return () => open.current?.abort();
  }, [id, token]);
  const stop = (): void => {
    open.current?.abort();
    set((old) => ({ ...old, asking: null, refused: stopped() }));
  };
  return { ...state, stop, next: () => void ask(state.rows) };
}

const PEOPLE = (id: string): string =>
  `SELECT principal, array_agg(DISTINCT confidence) AS confidence FROM events WHERE (session_id = ${text(id)} OR client_session = ${text(id)}) AND confidence IS NOT NULL GROUP BY 1 ORDER BY 1`;

const PAGE = 500;
