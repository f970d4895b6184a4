// One principal: what it is, from where and since when, what it touched, what of that is new, and on what evidence it has its name.

import type { JSX } from "preact";
import { get, post, query, rowsOf } from "../api.ts";
import type { Event, Page, Principal } from "../answers.ts";
import { useAsked } from "../ask.ts";
import { begins } from "../begins.ts";
import { isPrincipal } from "../filters.ts";
import { number, plural } from "../numbers.ts";
import { Copy, command, quoted, sinceFlag } from "../parts/copy.tsx";
import { Answer, Capped, Facts, Panel, Slow } from "../parts/panel.tsx";
import { Table } from "../parts/table.tsx";
import { Chips, EventLink, Names, Time } from "../parts/text.tsx";
import { named, NOTES, UNKNOWN } from "../principal.ts";
import { go, link, route, since } from "../route.ts";
import { within } from "../series.ts";
import { nanos, sinceNs, sinceText } from "../time.ts";
import { entry, visible } from "../visible.ts";
import { Activity } from "./activity.tsx";
import { Chain } from "./chain.tsx";
import { type Edge, NewEdges } from "./edges.tsx";
import { ProcessFacts } from "./event.tsx";
import { type Use, UseTable } from "./uses.tsx";

interface Life {
  first_seen: string | null;
  last_seen: string | null;
  statements: number | null;
  days: number | null;
}

interface From {
  login_role: string | null;
  database: string | null;
  application_name: string | null;
  client_addr: string | null;
  sessions: number;
  last_session: string | null;
  last_seen: string;
}

export function PrincipalView(): JSX.Element {
  const name = route.value.params.name ?? UNKNOWN;
  const window = since();
  const span = encodeURIComponent(sinceText(window));
  const start = sinceNs(window);
  const all = useAsked(`principals ${window}`, (signal) => get<{ principals: Principal[] }>(`/api/v1/principals?since=${span}`, signal), 30_000);
  const life = useAsked(`life ${name}`, (signal) => query<Life>(LIFE(name), signal).then((answer) => answer.rows[0] ?? null));
  const from = useAsked(`from ${name} ${window}`, (signal) => query<From>(FROM(name, window), signal));
  const what = useAsked(`what ${name} ${window}`, (signal) => post<Page>("/api/v1/what", { principal: name, since_ns: start ?? undefined }, signal).then((page) => rowsOf<Use>(page)));
  const edges = useAsked(`edges ${name} ${window}`, async (signal) => {
    const [ever, record] = await Promise.all([
      post<Page>("/api/v1/what", { principal: name }, signal).then((page) => rowsOf<Use>(page)),
      begins(signal),
    ]);
    return { rows: newOf(ever.rows, start), truncated: ever.truncated, begins: record };
  });
  const newest = useAsked(`newest ${name}`, (signal) =>
    get<{ events: Event[] }>(`/api/v1/events?kind=query&limit=20${name === UNKNOWN ? "" : `&principal=${encodeURIComponent(name)}`}`, signal).then(
      ({ events }) => events.find((event) => (event.attribution?.principal ?? UNKNOWN) === name) ?? null,
    ),
  );
  return (
    <>
      <Panel
        title={named(name).name}
        about={visible(name)}
        tools={
          <>
            <a class="pill" href={link("trail", { principal: name })}>
              in the trail
            </a>
            <Copy text={command("what", `--principal ${quoted(name)}`, sinceFlag(window))} label="copy command" />
            <Copy text={location.href} label="copy link" />
          </>
        }
      >
        <Answer asked={all} lines={4}>
          {({ principals }) => {
            const p = principals.find((one) => (one.principal ?? UNKNOWN) === name);
            if (!p) return <p class="state">It sent no statement in this time. Choose a longer one (w).</p>;
            return (
              <Facts
                of={[
                  ["how it is known", <><Chips of={p.confidence} /> {visible(p.method ?? p.reason)}</>],
                  ["since when", life.answer ? <><Time at={life.answer.first_seen} /> UTC in this record, on {plural(life.answer.days ?? 0, "day")}; {number(life.answer.statements)} statements in all</> : <><Time at={p.first_seen} /> UTC in this time<Slow of={life} what="All of the record is being asked" /></>],
                  ["last", <Time at={p.last_seen} />],
                  ["statements", `${number(p.statements)} in this time, ${number(p.errors)} failed`],
                  ["rows out", `${number(p.rows)}; changed ${number(p.rows_affected)}`],
                  ["roles", <Names of={p.roles} most={20} />],
                  ["databases", <Names of={p.databases} most={20} />],
                  ["calls itself", p.application_names?.some(Boolean) ? <><Names of={p.application_names} most={20} /> <span class="sub">the client's word</span></> : null],
                ]}
              />
            );
          }}
        </Answer>
      </Panel>
      <div class="cols">
        <div class="col">
          <Activity title="When, against the days before" of={isPrincipal(name)} trail={{ principal: name }} />
          <Panel title="What it touched" about="a statement counts with each object that it names">
            <Answer asked={what} lines={6} empty={(answer) => (answer.rows.length === 0 ? "Nothing in this time." : null)}>
              {(answer) => <UseTable of={answer} by="object" />}
            </Answer>
          </Panel>
        </div>
        <div class="col">
          <Panel class="first" title="On what evidence" about={newest.answer ? <>its newest statement, <EventLink id={newest.answer.event_id} /></> : ""}>
            <Answer asked={newest} lines={6} empty={(event) => (event ? null : "None of its statements is among the newest.")}>
              {(event) =>
                event && (
                  <>
                    <Chain of={event} />
                    {event.attribution?.reason && <p class="note warn">{visible(event.attribution.reason)}</p>}
                    {entry(NOTES, event.attribution?.kind) && <p class="note">{entry(NOTES, event.attribution?.kind)}</p>}
                    <ol class="evidence">
                      {event.attribution?.evidence?.map((fact, n) => (
                        <li key={n}>{visible(fact)}</li>
                      ))}
                    </ol>
                    {event.attribution?.process && <ProcessFacts of={event.attribution.process} />}
                  </>
                )
              }
            </Answer>
          </Panel>
          <NewEdges title="New in this time" asked={edges} />
          <Panel title="From where" about="by role, database and address">
            <Answer asked={from} lines={4} empty={(answer) => (answer.rows.length === 0 ? "No session in this time." : null)}>
              {(answer) => (
                <>
                  <Table
                    label="From where"
                    rows={answer.rows}
                    id={(_, n) => String(n)}
                    open={(one) => one.last_session && go("session", { id: one.last_session, since: route.value.params.since })}
                    columns={[
                      { title: "Role, database", class: "", cell: (one) => <>{visible(one.login_role ?? "not known")}<div class="sub">{visible(one.database ?? "not known")}</div></> },
                      { title: "Address, name", class: "grow", cell: (one) => <>{visible(one.client_addr ?? "Unix socket")}<div class="sub clamp">{visible(one.application_name ?? "")}</div></> },
                      { title: "Sessions", class: "n", cell: (one) => number(one.sessions) },
                      { title: "Last", class: "nowrap sub", cell: (one) => <Time at={one.last_seen} form="short" /> },
                    ]}
                  />
                  <Capped when={answer.rows.length >= 50} what="The newest 50 ways." />
                </>
              )}
            </Answer>
          </Panel>
        </div>
      </div>
      {name === UNKNOWN && (
        <p class="note">
          “unknown” stands for everybody who has no name: <a href={link("coverage")}>the reasons</a>.
        </p>
      )}
    </>
  );
}

/** Of all that it ever did, what began in this time. Cheaper than asking who is new to what, which looks at everybody. */
function newOf(ever: Use[], start: bigint | null): Edge[] {
  const isNew = (use: Use): boolean => start == null || nanos(use.first_seen) >= start;
  return ever
    .filter((use) => use.object && use.access && isNew(use))
    .map((use) => ({
      ...use,
      object: use.object!,
      access: use.access!,
      confidence: [use.confidence].flat(),
      known_access: ever.filter((other) => other.object === use.object && other.access && !isNew(other)).map((other) => other.access!),
      first_event: use.last_event,
    }))
    .sort((a, b) => b.first_seen.localeCompare(a.first_seen));
}

const LIFE = (name: string): string =>
  "SELECT min(ts_start) AS first_seen, max(ts_start) AS last_seen, sum(executions) AS statements, count(DISTINCT date_trunc('day', ts_start)) AS days " +
  `FROM queries WHERE ${isPrincipal(name)}`;

const FROM = (name: string, window: string): string =>
  "SELECT login_role, database, application_name, client_addr, count(DISTINCT session_id) AS sessions, max(session_id) AS last_session, max(ts_start) AS last_seen " +
  `FROM events WHERE ${within(window)} AND session_id IS NOT NULL AND ${isPrincipal(name)} GROUP BY 1, 2, 3, 4 ORDER BY last_seen DESC LIMIT 50`;
