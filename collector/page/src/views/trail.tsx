// The live trail, with filters in the address.
//
// Owns pausing: what comes meanwhile is kept and counted, and the list does not move under the reader.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { admitted } from "../access.ts";
import type { Event } from "../answers.ts";
import { FILTERS, type Filter, filtersOf } from "../filters.ts";
import { actions } from "../keys.ts";
import { KEPT, NOTHING_YET, sqlOf, type Trail, watch, type Watched } from "../live.ts";
import { number } from "../numbers.ts";
import { Copy, command, quoted } from "../parts/copy.tsx";
import { Panel, Problem, Skeleton, Slow } from "../parts/panel.tsx";
import { Table } from "../parts/table.tsx";
import { Class, Outcome, Sql, Time, WhoOf } from "../parts/text.tsx";
import { change, route, since } from "../route.ts";
import { inOneLine, visible } from "../visible.ts";
import { Export } from "./export.tsx";
import { isStatement, records, rowsOf, took, words } from "../words.ts";

export function LiveTrail(): JSX.Element {
  const params = route.value.params;
  const filters = filtersOf(params);
  const window = since();
  const exporting = params.export === "yes";
  const key = JSON.stringify([filters, window, admitted.value]);
  const [trail, set] = useState(NOTHING_YET);
  const [still, hold] = useState<Trail | null>(null);
  const [paused, pause] = useState(false);
  const [reading, read] = useState(false);
  const watched = useRef<Watched | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    set(NOTHING_YET);
    hold(null);
    read(false);
    watched.current = watch(filters, window, set, stop.signal);
    return () => stop.abort();
  }, [key]);
  const held = paused || reading;
  const some = trail.events.length > 0;
  // A list that is not there yet is not held: nobody reads it.
  useEffect(() => hold(held && some ? trail : null), [held, some]);
  const newest = useRef({ pause, paused });
  newest.current = { pause, paused };
  useEffect(() => {
    actions.set(" ", () => newest.current.pause(!newest.current.paused));
    return () => void actions.delete(" ");
  }, []);
  const shown = still ?? trail;
  const before = { asking: trail.asking, stop: () => watched.current?.stop() };
  const waiting = still ? trail.came - still.came : 0;
  const told = [
    paused ? "paused" : held ? "held while you read" : "",
    held && waiting > 0 ? `${number(waiting)} new` : "",
    trail.missed ? `${number(trail.missed)} came too fast to show here; they are in the record` : "",
    shown.note,
    shown.events.length >= KEPT ? `${number(KEPT)} are kept here` : "",
  ];
  return (
    <Panel
      class="fill"
      title="Live trail"
      about={told.filter(Boolean).join(" · ")}
      tools={
        <>
          <span class={`pill state-${trail.state === "live" ? "ok" : trail.state === "not connected" ? "bad" : "soft"}`} role="status">
            {trail.state}
          </span>
          <button type="button" class="pill" aria-pressed={paused} onClick={() => pause(!paused)}>
            {paused ? "resume" : "pause"}
          </button>
          <button type="button" class="pill" data-export="open" aria-expanded={exporting} onClick={() => change({ export: exporting ? null : "yes" }, true)}>
            export
          </button>
          <Copy text={location.href} label="copy link" />
          <Copy text={sqlOf(filters, window)} label="copy SQL" />
          <Copy text={command("tail", filters.principal ? `--principal ${quoted(filters.principal)}` : null, filters.kind ? `--kind ${quoted(filters.kind)}` : null)} label="copy command" />
        </>
      }
    >
      <FilterBar />
      {exporting && <Export filters={filters} window={window} />}
      {shown.refused && <Problem of={shown.refused} again={() => watched.current?.again()} />}
      {trail.asking != null && shown.events.length > 0 && <Slow of={before} />}
      {!shown.loaded && shown.events.length === 0 ? (
        <Skeleton lines={10} of={before} />
      ) : shown.events.length === 0 ? (
        !shown.refused && <p class="state">
          {Object.keys(filters).length > 0 ? "Nothing fits these filters in this time. Take one away, or choose a longer time (w)." : "Waiting for the first event."}
        </p>
      ) : (
        <div onMouseEnter={() => read(true)} onMouseLeave={() => read(false)} class="filled">
          <Table tall label="Events" rows={shown.events} id={(event) => event.event_id} open={(event) => change({ event: event.event_id })} mark={markOf} columns={COLUMNS} />
        </div>
      )}
    </Panel>
  );
}

const markOf = (event: Event): string => (params().event === event.event_id ? "chosen" : "");
const params = (): Record<string, string> => route.value.params;

const COLUMNS = [
  { title: "Time (UTC)", class: "nowrap sub t", cell: (event: Event) => <Time at={event.ts_start} form="clock" /> },
  { title: "Principal", class: "w", cell: (event: Event) => <WhoOf of={event.attribution} /> },
  {
    title: "Role, database",
    class: "hide-s nowrap r",
    cell: (event: Event) => (
      <>
        <code>{visible(event.session?.login_role ?? "–")}</code>
        <div class="sub clamp">{visible(event.session?.database ?? "")}</div>
      </>
    ),
  },
  { title: "Class", class: "c", cell: (event: Event) => (isStatement(event) ? <Class of={event.meaning?.class} /> : <span class={`cls k-${visible(event.kind)}`}>·</span>) },
  {
    title: "Statement",
    class: "s",
    cell: (event: Event) => (
      <>
        {isStatement(event) ? <Sql text={words(event)} /> : <span class={`clamp ${LOUD.has(event.kind) ? "bad" : "sub"}`}>{inOneLine(words(event))}</span>}
        <div class="sub clamp">
          <Outcome of={event.result?.outcome} sqlstate={event.result?.sqlstate} />
          {event.inventory?.mark === "unexpected" && <span class="bad"> unexpected: {visible(event.inventory.because)}</span>}
          {event.rollup && ` ${number(event.rollup.executions)} times`}
          {event.subjects?.length ? ` records ${event.subjects.map(records).map(inOneLine).join("; ")}` : ""}
        </div>
      </>
    ),
  },
  { title: "Rows", class: "n hide-s", cell: rowsOf },
  { title: "ms", class: "n hide-s", cell: took },
];

const LOUD = new Set(["gap", "opaque_session", "auth_failure", "alarm", "session_error", "agent_pause"]);

const CHOICES: Partial<Record<Filter, [string, string][]>> = {
  class: ["READ", "WRITE", "FUNCTION", "ROLE", "DDL", "MISC", "MISC_SET"].map((one) => [one, one]),
  outcome: [["failed", "failed"], ["ok", "ok"], ["error", "error"], ["canceled", "canceled"], ["suspended", "suspended"], ["unanswered", "unanswered"], ["unknown", "unknown"]],
  kind: [
    ["query", "statements"],
    ["rollup", "statements put together"],
    ["auth_failure", "failed logins"],
    ["session_open", "sessions opened"],
    ["session_close", "sessions closed"],
    ["session_error", "sessions that were ended"],
    ["opaque_session", "sessions that cannot be read"],
    ["gap", "gaps"],
    ["cancel", "cancel requests"],
    ["transaction", "ends of transactions"],
    ["attribution", "names that came later"],
    ["alarm", "alarms"],
    ["agent_start", "agents started"],
    ["agent_stop", "agents stopped"],
    ["agent_pause", "agents paused"],
    ["config_change", "changes of settings"],
    ["access", "questions to this record"],
    ["erasure", "erasures"],
    ["hold", "holds"],
    ["retention", "removals"],
    ["log_restored", "logs made of a backup"],
    ["collector_change", "agents that changed their collector"],
    ["agent_resume", "agents resumed"],
    ["flow_owner", "connections to servers elsewhere"],
    ["pooler_client", "clients of poolers"],
    ["pooler_traffic", "traffic of poolers"],
    ["heartbeat", "heartbeats"],
  ],
};

function FilterBar(): JSX.Element {
  const now = route.value.params;
  const set = (name: string, value: string): void => change({ [name]: value.trim() || null, event: null });
  return (
    <form class="filters" role="search" aria-label="Filters of the trail" onSubmit={(at) => at.preventDefault()}>
      {FILTERS.map((name) =>
        CHOICES[name] ? (
          <label key={name}>
            <span>{name}</span>
            <select data-filter={name} value={now[name] ?? ""} onChange={(at) => set(name, at.currentTarget.value)}>
              <option value="">all</option>
              {CHOICES[name].map(([value, title]) => (
                <option key={value} value={value}>
                  {title}
                </option>
              ))}
            </select>
          </label>
        ) : (
          <label key={name}>
            <span>{name}</span>
            <input data-filter={name} type="search" value={now[name] ?? ""} placeholder={name === "principal" ? "part of it" : "exactly"} spellcheck={false} autocomplete="off" onChange={(at) => set(name, at.currentTarget.value)} />
          </label>
        ),
      )}
      {(now.from || now.until) && (
        <span class="pill">
          {now.from ? <Time at={now.from} /> : "…"} to {now.until ? <Time at={now.until} /> : "now"}{" "}
          <button type="button" class="plain" aria-label="take the time away" onClick={() => change({ from: null, until: null })}>
            ×
          </button>
        </span>
      )}
      {FILTERS.some((name) => now[name]) && (
        <button type="button" class="pill" onClick={() => change(Object.fromEntries(FILTERS.map((name) => [name, null])))}>
          no filters
        </button>
      )}
    </form>
  );
}
