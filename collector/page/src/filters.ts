// The trail's filters: what they say in the address, what of it the collector can be asked, and what the page decides itself.
//
// Owns that one filter means the same for the backlog (asked of places, or by SQL) and for what comes live.

import type { Event } from "./answers.ts";
import type { Params } from "./route.ts";
import { within } from "./series.ts";
import { moment, nanos } from "./time.ts";

export const FILTERS = ["principal", "role", "database", "class", "kind", "outcome", "object", "session"] as const;
export type Filter = (typeof FILTERS)[number];
export type Filters = Partial<Record<Filter | "from" | "until", string>>;

export function filtersOf(params: Params): Filters {
  const kept: Filters = {};
  for (const name of FILTERS) if (params[name]) kept[name] = params[name];
  for (const name of ["from", "until"] as const) {
    const at = moment(params[name]);
    if (at) kept[name] = at;
  }
  return kept;
}

/** Not shown unless they are asked for: agents' heartbeats, and questions to this record, which the page asks itself. */
export const NOISE = ["heartbeat", "access"];
const LEFT_OUT = `kind NOT IN (${NOISE.map((kind) => `'${kind}'`).join(", ")})`;

export const text = (value: string): string => `'${value.replaceAll("'", "''")}'`;

/** An object as people call it: with a schema also the bare name, without one in any schema. */
export function isObject(name: string): string {
  const bare = name.startsWith("public.") ? name.slice(7) : name;
  return bare === name && !name.includes(".")
    ? `(array_has(objects, ${text(name)}) OR array_has(objects, ${text(`public.${name}`)}))`
    : `(array_has(objects, ${text(name)})${bare === name ? "" : ` OR array_has(objects, ${text(bare)})`})`;
}

export const isPrincipal = (name: string): string => (name === "unknown" ? "(principal IS NULL OR principal = 'unknown')" : `principal = ${text(name)}`);

/** As a condition over the columns of events. */
export function where(filters: Filters, since: string): string {
  const all = [filters.from ? "TRUE" : within(since), filters.kind ? "TRUE" : LEFT_OUT];
  if (filters.from) all.push(`ts_start >= to_timestamp_nanos(${nanos(filters.from)})`);
  if (filters.until) all.push(`ts_start < to_timestamp_nanos(${nanos(filters.until)})`);
  if (filters.principal) all.push(filters.principal === "unknown" ? isPrincipal("unknown") : `strpos(principal, ${text(filters.principal)}) > 0`);
  if (filters.role) all.push(`login_role = ${text(filters.role)}`);
  if (filters.database) all.push(`database = ${text(filters.database)}`);
  if (filters.class) all.push(`class = ${text(filters.class)}`);
  if (filters.kind) all.push(`kind = ${text(filters.kind)}`);
  if (filters.session) all.push(`(session_id = ${text(filters.session)} OR client_session = ${text(filters.session)})`);
  if (filters.object) all.push(isObject(filters.object));
  if (filters.outcome === "failed") all.push("(outcome IN ('error', 'canceled') OR kind IN ('auth_failure', 'session_error'))");
  else if (filters.outcome) all.push(`outcome = ${text(filters.outcome)}`);
  return all.filter((one) => one !== "TRUE").join(" AND ");
}

export function fits(event: Event, filters: Filters): boolean {
  const { attribution, session, meaning, result } = event;
  if (!filters.kind && NOISE.includes(event.kind)) return false;
  if (filters.until && (event.ts_start ?? "") >= filters.until) return false;
  if (filters.from && (event.ts_start ?? "") < filters.from) return false;
  if (filters.principal === "unknown") {
    if ((attribution?.principal ?? "unknown") !== "unknown") return false;
  } else if (filters.principal && !attribution?.principal?.includes(filters.principal)) return false;
  if (filters.role && session?.login_role !== filters.role) return false;
  if (filters.database && session?.database !== filters.database) return false;
  if (filters.class && meaning?.class !== filters.class) return false;
  if (filters.kind && event.kind !== filters.kind) return false;
  if (filters.session && session?.id !== filters.session && !attribution?.hops?.some((hop) => hop.session === filters.session)) return false;
  if (filters.object && !meaning?.objects?.some((one) => names(one.schema, one.name).includes(filters.object!))) return false;
  if (filters.outcome === "failed") return result?.outcome === "error" || result?.outcome === "canceled" || event.kind === "auth_failure" || event.kind === "session_error";
  return !filters.outcome || result?.outcome === filters.outcome;
}

function names(schema: string | undefined, name: string): string[] {
  if (schema && schema !== "public") return [`${schema}.${name}`];
  return [name, `public.${name}`];
}

/** What GET events and live take; the rest is decided here. */
export function asked(filters: Filters): URLSearchParams {
  const query = new URLSearchParams();
  for (const name of ["kind", "class"] as const) if (filters[name]) query.set(name, filters[name]);
  if (filters.principal && filters.principal !== "unknown") query.set("principal", filters.principal);
  return query;
}

/** Whether these are decided in the page only. */
export const isBeyond = (filters: Filters): boolean =>
  filters.principal === "unknown" || (["role", "database", "outcome", "object", "session", "from", "until"] as const).some((name) => filters[name]);
