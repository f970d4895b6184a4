// What needs a look: only what the collector really says.
//
// Owns the list and its order: first what makes other answers wrong, then what somebody did. Nothing is scored or guessed.

import type { ComponentChildren, JSX } from "preact";
import { get, query } from "../../api.ts";
import type { Event, Overview, Principal, Status } from "../../answers.ts";
import { useAsked } from "../../ask.ts";
import type { Newcomers } from "../../newcomers.ts";
import { bytes, number, plural, seconds, share } from "../../numbers.ts";
import { Panel, Problem, Skeleton, Slow } from "../../parts/panel.tsx";
import { Obj, Time, Who } from "../../parts/text.tsx";
import { link, since } from "../../route.ts";
import { within } from "../../series.ts";
import { sinceText } from "../../time.ts";
import { entry, inOneLine, visible } from "../../visible.ts";
import { type Edges, hasBefore } from "../edges.tsx";
import { isBehind, STALE_S } from "./strip.tsx";

interface Item {
  id: string;
  grave: boolean;
  what: string;
  sub: ComponentChildren;
  at?: string | null | undefined;
  to: string;
}

interface Marked {
  principal: string | null;
  confidence: string | null;
  expected: string;
  because: string | null;
  times: number;
  last_seen: string;
}

interface LookProps {
  figures: Overview | null;
  edges: Edges | null;
  newcomers: Newcomers | null;
  principals: Principal[];
}

export function Look({ figures, edges, newcomers, principals }: LookProps): JSX.Element {
  const window = since();
  const span = encodeURIComponent(sinceText(window));
  const status = useAsked("status", (signal) => get<Status>("/api/v1/status", signal), 15_000);
  const told = useAsked(
    `told ${window}`,
    async (signal) => {
      const of = (kind: string) => get<{ events: Event[] }>(`/api/v1/events?kind=${kind}&limit=20&since=${span}`, signal).then((answer) => answer.events);
      return { alarms: await of("alarm"), pauses: await of("agent_pause"), erasures: await of("erasure") };
    },
    60_000,
  );
  const inventory = status.answer?.inventory != null;
  const marked = useAsked(inventory ? `marked ${window}` : null, (signal) => query<Marked>(MARKED(window), signal).then((answer) => answer.rows), 60_000);
  const items = [
    ...ofFigures(figures),
    ...ofAgents(status.answer),
    ...(told.answer ? ofEvents(told.answer) : []),
    ...(marked.answer ?? []).map(ofMark),
    ...ofNewcomers(newcomers, principals),
    ...ofEdges(edges, newcomers, window),
  ].sort((a, b) => Number(b.grave) - Number(a.grave));
  const asking = !figures || !status.answer || !told.answer;
  const refused = told.refused ?? status.refused ?? (marked.refused?.status === 403 ? null : marked.refused);
  return (
    <Panel class="first looks" title="Needs a look" about={asking ? "" : plural(items.length, "open item")}>
      {refused && <Problem of={refused} again={told.refused ? told.again : status.refused ? status.again : marked.again} />}
      {items.length === 0 && (asking && !refused ? <Skeleton lines={5} of={told} /> : !asking && <p class="state">Nothing stands out in this time.</p>)}
      {items.length > 0 && <Slow of={told} what="Alarms, pauses and erasures are being looked for" />}
      <Slow of={marked} what="The inventory's marks are being looked for" />
      <ul class="look">
        {items.slice(0, SHOWN).map((item) => (
          <li key={item.id}>
            <a href={item.to} data-row="" class="item">
              <i class={`dot ${item.grave ? "bad" : "warn"}`} />
              <b>{item.what}</b>
              <span class="sub at">{item.at && <Time at={item.at} form="short" />}</span>
            </a>
            <div class="sub">{item.sub}</div>
          </li>
        ))}
      </ul>
      {items.length > SHOWN && <p class="note">And {number(items.length - SHOWN)} more, in the panels of this page.</p>}
      {!asking && !inventory && <p class="note">No inventory says who is expected to do what: pgwitness-collector inventory suggest</p>}
    </Panel>
  );
}

function ofFigures(o: Overview | null): Item[] {
  if (!o) return [];
  const items: Item[] = [];
  if (o.store.behind_from != null)
    items.push({ id: "behind", grave: true, what: "Answers are not complete", sub: "They have fallen behind the evidence log: restart the collector.", to: link("evidence") });
  if (o.evidence.aside)
    items.push({ id: "aside", grave: true, what: `${plural(o.evidence.aside, "batch", "batches")} did not verify`, sub: "They were kept aside, and are in no answer.", to: link("evidence") });
  if (isBehind(o.evidence))
    items.push({ id: "checkpoint", grave: true, what: "Batches wait for a checkpoint", sub: o.evidence.checkpoint_age_seconds == null ? "There is none yet." : `The newest was made ${seconds(o.evidence.checkpoint_age_seconds)} ago, and ${plural(o.evidence.batches - o.evidence.tree_size, "batch", "batches")} came since.`, at: o.evidence.checkpoint, to: link("evidence") });
  if (o.gaps)
    items.push({ id: "gaps", grave: false, what: "Not everything was seen", sub: `${plural(o.gaps, "gap")}${o.bytes_missing ? `: ${bytes(o.bytes_missing)}` : ""}${o.gaps_of_unknown_size ? `, ${number(o.gaps_of_unknown_size)} of unknown size` : ""}.`, to: link("coverage") });
  if (o.opaque_sessions)
    items.push({ id: "opaque", grave: false, what: plural(o.opaque_sessions, "session that cannot be read", "sessions that cannot be read"), sub: "Encrypted; attributed, but their statements are not seen.", to: link("coverage") });
  if (o.statements > o.attributed)
    items.push({ id: "unattributed", grave: false, what: `${number(o.statements - o.attributed)} statements have no name`, sub: `${share(o.attributed, o.statements)} have one; reasons are in coverage.`, to: link("coverage") });
  if (o.auth_failures)
    items.push({ id: "logins", grave: false, what: plural(o.auth_failures, "failed login"), sub: "The server refused the session.", to: link("trail", { kind: "auth_failure" }) });
  return items;
}

function ofAgents(status: Status | null): Item[] {
  const stale = (status?.agents ?? []).filter((agent) => (agent.last_seen_seconds ?? Number.POSITIVE_INFINITY) > STALE_S);
  return stale.map((agent) => ({
    id: `agent ${agent.agent}`,
    grave: true,
    what: `Agent ${inOneLine(agent.agent)} is not heard of`,
    sub: agent.last_seen_seconds == null ? "It was never seen since this collector started." : `Last ${seconds(agent.last_seen_seconds)} ago: what happens there now is not known.`,
    at: agent.last_seen,
    to: link("coverage"),
  }));
}

function ofEvents({ alarms, pauses, erasures }: { alarms: Event[]; pauses: Event[]; erasures: Event[] }): Item[] {
  const detail = (event: Event, ...names: string[]): string => {
    const of = (entry(event, event.kind) ?? {}) as Record<string, unknown>;
    return names.map((name) => of[name]).filter((one) => one != null && one !== "").map(visible).join(" · ");
  };
  const item = (event: Event, grave: boolean, what: string, sub: string): Item => ({ id: event.event_id, grave, what, sub, at: event.ts_start, to: link("event", { id: event.event_id }) });
  return [
    ...alarms.map((event) => item(event, true, `Alarm: ${detail(event, "kind").replaceAll("_", " ")}`, detail(event, "agent", "detail"))),
    ...pauses.map((event) => item(event, true, "An agent was paused", detail(event, "login", "reason"))),
    ...erasures.map((event) => item(event, false, "Events were erased", detail(event, "by", "reason"))),
  ];
}

const ofMark = (one: Marked): Item => ({
  id: `mark ${one.principal} ${one.expected}`,
  grave: one.expected === "unexpected",
  what: one.expected === "unexpected" ? "Nobody expects this" : "Not in the inventory",
  sub: (
    <>
      <Who principal={one.principal} confidence={one.confidence} sub={[one.because && inOneLine(one.because), plural(one.times, "event")].filter(Boolean).join(" · ")} />
    </>
  ),
  at: one.last_seen,
  to: link("principal", { name: one.principal }),
});

function ofNewcomers(newcomers: Newcomers | null, principals: Principal[]): Item[] {
  return [...(newcomers?.first ?? [])].slice(0, SHOWN).map(([name, first]) => {
    const p = principals.find((one) => one.principal === name);
    const roles = (p?.roles ?? []).filter(Boolean).map((role) => inOneLine(role));
    return {
      id: `new ${name}`,
      grave: true,
      what: "A principal that was never seen before",
      sub: <Who principal={name} confidence={p?.confidence ?? "none"} sub={roles.length ? `as ${roles.join(", ")} · ${plural(p?.statements ?? 0, "statement")}` : ""} />,
      at: first,
      to: link("principal", { name }),
    };
  });
}

function ofEdges(edges: Edges | null, newcomers: Newcomers | null, window: string): Item[] {
  // In a record that has just begun everybody is new: that is no news.
  if (!edges || !hasBefore(edges.begins, window)) return [];
  const others = edges.rows.filter((edge) => !newcomers?.first.has(edge.principal ?? ""));
  return others.slice(0, SHOWN).map((edge) => ({
    id: `edge ${edge.principal} ${edge.object} ${edge.access}`,
    grave: false,
    what: `First ${edge.access === "ddl" ? "change of the form" : edge.access} of this object by this principal`,
    sub: (
      <>
        <Who principal={edge.principal} confidence={edge.confidence} sub={<><Obj name={edge.object} /> · {plural(edge.statements, "statement")}</>} />
      </>
    ),
    at: edge.first_seen,
    to: link("event", { id: edge.first_event }),
  }));
}

const MARKED = (window: string): string =>
  "SELECT principal, max(confidence) AS confidence, expected, max(unexpected_because) AS because, count(*) AS times, max(ts_start) AS last_seen FROM events " +
  `WHERE ${within(window)} AND expected IN ('unexpected', 'not in inventory') GROUP BY principal, expected ORDER BY last_seen DESC LIMIT 20`;

const SHOWN = 8;
