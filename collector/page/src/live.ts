// The live trail: what was, then what comes.
//
// Owns the connection, the order of events, and that a busy database does not keep the browser busy: events are taken in as they come and
// shown a few times a second, and only so many are kept.

import { tokenWanted } from "./access.ts";
import { get, query, refusal, Refused, stopped } from "./api.ts";
import type { Event } from "./answers.ts";
import { asked, type Filters, fits, isBeyond, where } from "./filters.ts";
import { follow } from "./stream.ts";
import { sinceText } from "./time.ts";

export interface Trail {
  events: Event[];
  state: "connecting" | "live" | "not connected" | "a time that is over";
  /** Came and could not be shown in time; they are in the record. */
  missed: number;
  /** What the list does not have. */
  note: string;
  refused: Refused | null;
  loaded: boolean;
  /** Since when what was before is being asked; null: it is not. */
  asking: number | null;
  /** How many came live. */
  came: number;
}

export const NOTHING_YET: Trail = { events: [], state: "connecting", missed: 0, note: "", refused: null, loaded: false, asking: null, came: 0 };

export const KEPT = 2000;
const BACKLOG = 300;
const LOOKED_AT = 1000;
const RECONNECT_MS = 3000;

/** What a reader can do to it. */
export interface Watched {
  /** Ends the question for what was before; what comes is still followed. */
  stop: () => void;
  /** Asks for it again. */
  again: () => void;
}

/** Follows until it is aborted. `show` is called when something has changed. */
export function watch(filters: Filters, since: string, show: (trail: Trail) => void, signal: AbortSignal): Watched {
  const trail: Trail = { ...NOTHING_YET, events: [] };
  let before = new AbortController();
  const seen = new Set<string>();
  let changed = true;
  const painter = setInterval(() => {
    if (!changed) return;
    changed = false;
    // Agents tell in their own order, and of several agents one is always late: the list is by time.
    trail.events.sort((a, b) => byTime(b, a));
    for (const gone of trail.events.splice(KEPT)) seen.delete(gone.event_id);
    show({ ...trail, events: trail.events.slice() });
  }, PAINT_MS);
  signal.addEventListener("abort", () => clearInterval(painter));

  const take = (events: Event[]): number => {
    // Lists may overlap, and what comes live may be in them, too.
    const fresh = events.filter((event) => !seen.has(event.event_id) && fits(event, filters) && seen.add(event.event_id));
    trail.events.push(...fresh);
    changed = true;
    return fresh.length;
  };

  const backlog = async (): Promise<void> => {
    before = new AbortController();
    const ends = AbortSignal.any([signal, before.signal]);
    Object.assign(trail, { loaded: false, refused: null, asking: Date.now() });
    changed = true;
    try {
      const { events, note } = await earlier(filters, since, ends);
      if (signal.aborted) return;
      take(events);
      trail.note = note;
    } catch (error) {
      if (signal.aborted) return;
      trail.refused = before.signal.aborted ? stopped() : refusal(error);
    }
    trail.loaded = true;
    trail.asking = null;
    changed = true;
  };

  const live = async (): Promise<void> => {
    while (!signal.aborted) {
      try {
        await follow(`/api/v1/live?${asked(filters)}`, signal, () => {
          trail.state = "live";
          changed = true;
        }, (name, what) => {
          if (name === "lagged") trail.missed += (what as { missed: number }).missed;
          else if (name === "sighting") trail.came += take([what as Event]);
        });
      } catch {
        /* said by the state, and tried again */
      }
      if (signal.aborted) return;
      trail.state = "not connected";
      changed = true;
      if (tokenWanted.value != null) return;
      await new Promise((again) => setTimeout(again, RECONNECT_MS));
    }
  };

  void backlog();
  if (filters.until) trail.state = "a time that is over";
  else void live();
  return { stop: () => before.abort(), again: () => void backlog() };
}

/** The newest events before now: by SQL, or, for viewers, from what the place for them shows. */
async function earlier(filters: Filters, since: string, signal: AbortSignal): Promise<{ events: Event[]; note: string }> {
  try {
    const { rows } = await query<{ event: string }>(sqlOf(filters, since, BACKLOG), signal);
    return { events: rows.map((row) => JSON.parse(row.event) as Event), note: rows.length === BACKLOG ? `from the newest ${BACKLOG} of that time on` : "" };
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 403) throw error;
  }
  const newest = async (kind: string | null): Promise<Event[]> => {
    const named = asked(filters);
    if (kind) named.set("kind", kind);
    named.set("limit", String(LOOKED_AT));
    named.set("since", filters.from ?? sinceText(since));
    return (await get<{ events: Event[] }>(`/api/v1/events?${named}`, signal)).events;
  };
  // Statements apart, or questions to this record could stand before all of them.
  const lists = filters.kind ? [await newest(null)] : [await newest(null), await newest("query")];
  const events = lists.flat();
  const more = lists.some((list) => list.length >= LOOKED_AT);
  const note = isBeyond(filters) ? `those that fit among the newest ${LOOKED_AT} events: to look further takes the role analyst` : `the newest ${LOOKED_AT} of that time`;
  return { events, note: more ? note : "" };
}

/** Times of one form, so that they can be compared as they are. */
function byTime(a: Event, b: Event): number {
  const [one, other] = [a.ts_start ?? "", b.ts_start ?? ""];
  if (one !== other) return one < other ? -1 : 1;
  return a.agent === b.agent ? a.seq - b.seq : a.agent < b.agent ? -1 : 1;
}

/** The same list, as SQL. */
export const sqlOf = (filters: Filters, since: string, limit = 1000): string =>
  `SELECT event FROM events WHERE ${where(filters, since) || "TRUE"} ORDER BY ts_start DESC, log_index DESC, seq DESC LIMIT ${limit}`;

const PAINT_MS = 400;
