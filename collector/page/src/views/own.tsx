// What an event that is no statement says of itself: a gap, an alarm, an erasure, a login that failed.
//
// Owns how names and values of the record read to people, whatever kind it is; a kind that is new to this page is shown, too.

import type { ComponentChildren, JSX } from "preact";
import type { Event } from "../answers.ts";
import { bytes, number, seconds } from "../numbers.ts";
import { Facts } from "../parts/panel.tsx";
import { Time } from "../parts/text.tsx";
import { visible } from "../visible.ts";
import { detailOf, reasonOf } from "../words.ts";

export function Own({ of: event }: { of: Event }): JSX.Element {
  const told: [string, ComponentChildren][] = Object.entries(detailOf(event) ?? {}).map(([name, value]) => [spaced(name), shown(name, value)]);
  const isGap = event.kind === "gap";
  if (isGap && event.loss?.bytes_missing == null && event.loss?.events_missing == null) told.push(["missing", "it is not known how much"]);
  if (event.kind === "opaque_session") told.unshift(["what is missing", "all statements: the session is encrypted and cannot be read; whose it is, is known"]);
  return <Facts of={told} />;
}

const spaced = (name: string): string => visible(name.replace(/_(ns|nanos)$/, "").replaceAll("_", " "));

function shown(name: string, value: unknown): ComponentChildren {
  if (value == null || value === "") return null;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (name === "reason") return visible(reasonOf(String(value)));
  if (name === "direction") return value === "frontend" ? "from the client" : value === "backend" ? "from the server" : visible(value);
  if (typeof value === "number") return /^bytes_|_bytes$/.test(name) ? (name === "bytes_missing" && value === 0 ? "none: they were seen, and not understood" : bytes(value)) : name.endsWith("_ns") ? seconds(value / 1e9) : number(value);
  if (typeof value === "string") return /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value) ? <Time at={value} /> : /^[0-9a-f]{32,}$/.test(value) ? <span class="key">{value}</span> : visible(value);
  if (Array.isArray(value)) {
    if (value.every((one) => one == null || typeof one !== "object")) return visible(value.join(", "));
    return (
      <ul class="plain">
        {value.map((one, n) => (
          <li key={n}>{members(one)}</li>
        ))}
      </ul>
    );
  }
  return members(value);
}

function members(of: unknown): ComponentChildren {
  if (of == null || typeof of !== "object") return visible(of);
  return (
    <span class="sub">
      {Object.entries(of).map(([name, value], n) => (
        <span key={name}>
          {n > 0 && ", "}
          {spaced(name)} {Array.isArray(value) || value == null || typeof value !== "object" ? visible([value].flat().join(" ")) : members(value)}
        </span>
      ))}
    </span>
  );
}
