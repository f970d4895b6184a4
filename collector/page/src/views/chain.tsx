// The way of a statement, from who sent it to the backend that ran it, each link with its own confidence.
//
// Owns that a relay is a link and never the principal.

import type { JSX } from "preact";
import type { Event } from "../answers.ts";
import { Chip, SessionLink, Who } from "../parts/text.tsx";
import { visible } from "../visible.ts";

export function Chain({ of: event }: { of: Event }): JSX.Element {
  const a = event.attribution;
  if (!a) return <p class="note">{event.agent.startsWith("collector-") ? "This event is the collector's own: it is in a chain that the collector signs." : "This event is the agent's own: nobody sent it."}</p>;
  const hops = a.hops ?? [];
  const first = hops.find((hop) => hop.session);
  const server = event.session?.server;
  return (
    <ol class="chain">
      <li>
        <span class="sub">client</span>
        <div>
          <Who principal={a.principal} confidence={(first ? first.client_confidence : a.confidence) ?? "none"} sub={visible((first ? first.client_method : a.method) ?? a.reason)} />
        </div>
      </li>
      {hops.map((hop, n) => (
        <li key={n}>
          <span class="sub">{visible(hop.role ?? "relay")}</span>
          <div>
            <Who principal={hop.name} confidence={hop.confidence ?? "none"} sub={hop.session ? <>its session with the client <SessionLink id={hop.session} /></> : ""} />
          </div>
        </li>
      ))}
      <li>
        <span class="sub">server</span>
        <div>
          <span class="who">{event.session?.backend_pid == null ? "backend" : `backend ${event.session.backend_pid}`}</span>{" "}
          {hops.length > 0 && (
            <>
              the whole chain: <Chip of={a.confidence} /> <span class="sub">{visible(a.method)}</span>
            </>
          )}
          <div class="sub clamp">{server ? visible([server.addr, server.port].filter((part) => part != null).join(":")) : ""}</div>
        </div>
      </li>
    </ol>
  );
}
