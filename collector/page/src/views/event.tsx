// One event: what happened, who is behind it, and the chain that leads to the name.
//
// Owns where an event comes from: by SQL for whoever may ask, else from the newest that viewers are shown.

import type { JSX } from "preact";
import { get, query, Refused } from "../api.ts";
import type { Attribution, Event, Process } from "../answers.ts";
import { useAsked } from "../ask.ts";
import { text } from "../filters.ts";
import { bytes, number } from "../numbers.ts";
import { Copy, command } from "../parts/copy.tsx";
import { Answer, Facts, Panel } from "../parts/panel.tsx";
import { Chip, Class, EventLink, Names, Obj, Outcome, SessionLink, Time, Who } from "../parts/text.tsx";
import { NOTES } from "../principal.ts";
import { link, route } from "../route.ts";
import { entry, visible } from "../visible.ts";
import { isStatement, records, took, words } from "../words.ts";
import { Chain } from "./chain.tsx";
import { Own } from "./own.tsx";
import { Proof } from "./proof.tsx";

export function EventView(): JSX.Element {
  const id = route.value.params.id ?? "";
  return (
    <Panel title={`Event ${visible(id)}`}>
      <EventDetail id={id} />
    </Panel>
  );
}

async function lookUp(id: string, signal: AbortSignal): Promise<Event | null> {
  const [, agent, seq] = /^(.+)-(\d+)$/.exec(id) ?? [];
  if (!agent || !seq) throw new Refused(`${id} is no event's id: it is the agent's id, a dash, and a number`, 400);
  try {
    const { rows } = await query<{ event: string }>(`SELECT event FROM events WHERE agent = ${text(agent)} AND seq = ${BigInt(seq)} LIMIT 1`, signal);
    return rows[0] ? (JSON.parse(rows[0].event) as Event) : null;
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 403) throw error;
    const { events } = await get<{ events: Event[] }>("/api/v1/events?limit=1000", signal);
    const one = events.find((event) => event.event_id === id);
    if (!one) throw new Refused("this event is not among the newest 1,000; to look further takes the role analyst", 403, "analyst");
    return one;
  }
}

export function EventDetail({ id }: { id: string }): JSX.Element {
  const asked = useAsked(`event ${id}`, (signal) => lookUp(id, signal));
  return (
    <Answer asked={asked} lines={12} empty={(event) => (event ? null : "There is no such event in this record; it may have been erased.")}>
      {(event) => (event ? <Detail of={event} /> : null)}
    </Answer>
  );
}

function Detail({ of: event }: { of: Event }): JSX.Element {
  const { session: s = {}, meaning: m = {}, result: r = {}, attribution: a } = event;
  const end = (one?: { addr?: string; port?: number }): string | null => (one ? visible([one.addr, one.port].filter((part) => part != null).join(" port ")) : null);
  return (
    <div class="detail">
      {isStatement(event) && <pre class="sqltext">{visible(words(event))}</pre>}
      <p class="line">
        <b>{visible(event.kind.replaceAll("_", " "))}</b> <Time at={event.ts_start} /> {isStatement(event) && <Class of={m.class} />} <Outcome of={r.outcome} sqlstate={r.sqlstate} />
        <Copy text={command("explain", event.event_id)} label="copy command" />
        <Copy text={location.href} label="copy link" />
      </p>
      {!isStatement(event) && <Own of={event} />}
      {event.inventory?.mark && (
        <p class={`note ${event.inventory.mark === "unexpected" ? "bad" : event.inventory.mark === "expected" ? "" : "warn"}`}>
          Inventory: {[event.inventory.mark, event.inventory.because].filter(Boolean).map(visible).join(": ")}
          {event.inventory.owner && ` · owner ${visible(event.inventory.owner)}`}
          {event.inventory.purpose && ` · ${visible(event.inventory.purpose)}`}
        </p>
      )}
      {a && <h3>Who, from the client to the server</h3>}
      <Chain of={event} />
      {entry(NOTES, a?.kind) && <p class="note">{entry(NOTES, a?.kind)}</p>}
      <Named of={a} />
      {isStatement(event) && (
        <>
          <h3>What</h3>
          <Facts
            of={[
              ["command", visible(m.tag ?? m.command)],
              ["understood", m.parsed === false ? "the parser did not take the text: class and objects are a best effort" : null],
              [
                "objects",
                m.objects?.length ? (
                  <ul class="plain">
                    {m.objects.map((one, n) => (
                      <li key={n}>
                        {visible(one.access)} <Obj name={[one.schema, one.name].filter(Boolean).join(".")} />{" "}
                        {one.columns?.length ? <span class="sub">columns {<Names of={one.columns} most={20} />}{one.columns_exact ? "" : ", perhaps others"}</span> : null}{" "}
                        {one.filtered?.length ? <span class="sub">filtered by <Names of={one.filtered} most={20} /></span> : null}
                      </li>
                    ))}
                  </ul>
                ) : null,
              ],
              ["records", event.subjects?.length ? event.subjects.map(records).map(visible).join("; ") : null],
              ["rows out", r.rows == null ? null : number(r.rows)],
              ["rows changed", r.rows_affected == null ? null : number(r.rows_affected)],
              ["bytes in, out", event.result ? `${bytes(r.bytes_in)}, ${bytes(r.bytes_out)}` : null],
              ["took", `${took(event)} ms`],
              ["executions", event.rollup ? `${number(event.rollup.executions)}, put together` : null],
              ["transaction", event.transaction ? visible([event.transaction.seq, event.transaction.final ?? "end not known yet"].filter((one) => one != null).join(", ")) : null],
              ["parameters", event.params?.length ? <pre>{visible(JSON.stringify(event.params, null, 1))}</pre> : null],
              ["runs the text of", event.statement?.source ? <pre>{visible(event.statement.source)}</pre> : null],
              ["fingerprint", event.statement?.fingerprint ? <code>{visible(event.statement.fingerprint)}</code> : null],
            ]}
          />
        </>
      )}
      {event.session && (
        <>
          <h3>Session</h3>
          <Facts
            of={[
              ["id", <SessionLink id={s.id} />],
              ["role", s.login_role ? <a href={link("principals", { role: s.login_role })}><code>{visible(s.login_role)}</code></a> : "not known"],
              ["effective role", s.effective_role && s.effective_role !== s.login_role ? visible(s.effective_role) : null],
              ["database", s.database ? visible(s.database) : null],
              ["application name", s.application_name ? `${visible(s.application_name)} (the client's word)` : null],
              ["client", end(s.client)],
              ["server", end(s.server)],
              ["transport", visible([s.transport, s.encryption && `encryption ${s.encryption}`, s.tls_version].filter(Boolean).join(", "))],
              ["authentication", s.auth_method ? visible(s.auth_method) : null],
              ["backend", s.backend_pid == null ? null : `process ${s.backend_pid}`],
              ["older than the agent", s.opened_before_attach ? "yes: prepared statements and settings of before are not known" : null],
            ]}
          />
        </>
      )}
      <h3>Proof</h3>
      <Proof id={event.event_id} />
      <details>
        <summary>The record, as it is</summary>
        <pre>{visible(JSON.stringify(event, null, 2))}</pre>
      </details>
    </div>
  );
}

/** What the name rests on. */
function Named({ of: a }: { of: Attribution | undefined }): JSX.Element | null {
  if (!a) return null;
  return (
    <>
      {a.evidence?.length ? (
        <>
          <h3>Evidence for the name</h3>
          <ol class="evidence">
            {a.evidence.map((fact, n) => (
              <li key={n}>{visible(fact)}</li>
            ))}
          </ol>
        </>
      ) : null}
      <Facts
        of={[
          ["why not known", a.reason ? visible(a.reason) : null],
          ["name came later, by", a.amended_by ? <EventLink id={a.amended_by} /> : null],
          ["recorded as", a.recorded ? <><Who principal={a.recorded.principal} confidence={a.recorded.confidence ?? "none"} sub={visible(a.recorded.method)} /></> : null],
          ["the client says", a.asserted ? <Asserted of={a.asserted} /> : null],
          ["put in from outside", a.put_in ? "yes (exec into the container)" : null],
          ["container", a.container ? visible([a.container.name, a.container.image, a.container.runtime, a.container.id].filter(Boolean).join(", ")) : null],
          ["pod", a.pod ? visible([a.pod.namespace, a.pod.name, a.pod.uid].filter(Boolean).join(", ")) : null],
        ]}
      />
      {a.process && (
        <>
          <h3>Process</h3>
          <ProcessFacts of={a.process} />
        </>
      )}
    </>
  );
}

/** Who the client says is behind it: its word, beside what was observed. */
function Asserted({ of }: { of: Record<string, unknown> }): JSX.Element {
  const { end_user: user, source, unknown, set_by: _, ...more } = of;
  const rest = Object.entries(more).map(([name, value]) => `${name.replaceAll("_", " ")} ${[value].flat().join(", ")}`);
  return (
    <>
      <Chip of={user ? "asserted" : "none"} /> {user ? `${visible(user)}, by ${visible(source)}` : `nobody that is known${unknown ? `: ${visible(String(unknown).replaceAll("_", " "))}` : ""}`}
      {rest.length > 0 && <div class="sub">{visible(rest.join("; "))}</div>}
    </>
  );
}

export function ProcessFacts({ of: p }: { of: Process }): JSX.Element {
  const user = p.user ? `${p.user} (uid ${p.uid})` : p.uid;
  const login = p.login_user ?? p.login_uid;
  return (
    <Facts
      of={[
        ["pid", p.pid == null ? null : String(p.pid)],
        ["executable", p.exe ? <code>{visible(p.exe)}</code> : null],
        ["SHA-256", p.exe_sha256 ? <code>{visible(p.exe_sha256)}</code> : null],
        ["command line", p.command_line?.length ? <code>{visible(p.command_line.join(" "))}</code> : null],
        ["user", user == null ? null : visible(user)],
        ["logged in as", login == null ? null : visible(login)],
        ["unit", p.unit ? visible(p.unit) : null],
        ["cgroup", p.cgroup_path ? visible(p.cgroup_path) : null],
        ["terminal", p.tty ? visible(p.tty) : null],
        ["started by", p.ancestry?.length ? p.ancestry.map((parent) => `${visible(parent.exe)} (${parent.pid})`).join(" ‹ ") : null],
      ]}
    />
  );
}
