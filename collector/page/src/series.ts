// Statements over time: what is asked, and how it becomes a series.
//
// Owns the steps of the axis, what the usual range is, and that time without any word of an agent is not taken for time in which nothing
// happened.

import { query } from "./api.ts";
import { begins as beginning } from "./begins.ts";
import { ALL, millis, sinceNs } from "./time.ts";

export interface Series {
  /** Unix seconds, the beginning of each step. */
  x: number[];
  step: number;
  /** By class. */
  counts: Record<string, number[]>;
  /** Steps of which no agent told anything at all. */
  silent: boolean[];
  /** Where the record begins within the window; null: before it. */
  begins: number | null;
}

export interface Usual {
  low: (number | null)[];
  high: (number | null)[];
  of: "day" | "week";
  /** Earlier days, or weeks, that have this time on record. */
  times: number;
}

export interface Gap {
  kind: string;
  ts_start: string;
  ts_end: string | null;
  gap_reason: string | null;
  bytes_missing: number | null;
  events_missing: number | null;
  agent: string;
  session_id: string | null;
  event_id: string;
}

const STEPS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 10_800, 21_600, 86_400, 604_800];
const MOST_STEPS = 144;
export const CLASSES = ["READ", "WRITE", "FUNCTION", "DDL", "ROLE", "MISC", "MISC_SET", "unknown"];

const moment = (ns: bigint): string => `to_timestamp_nanos(${ns})`;

/** `where` over the columns of events, for a window. */
export function within(since: string, column = "ts_start"): string {
  const ns = sinceNs(since);
  return ns == null ? "TRUE" : `${column} >= ${moment(ns)}`;
}

/** Statements by class; `of` is a condition over the columns of events. */
export async function series(since: string, of: string, signal?: AbortSignal): Promise<Series> {
  const now = Date.now() / 1000;
  const record = await beginning(signal);
  const first = record ? millis(record) / 1000 : now - 60;
  const asked = sinceNs(since);
  const from = asked == null ? first : Math.max(first, Number(asked / 1_000_000n) / 1000);
  const step = STEPS.find((one) => (now - from) / one <= MOST_STEPS) ?? 604_800;
  const bin = `date_bin(INTERVAL '${step} seconds', ts_start)`;
  const sql =
    `SELECT ${bin} AS t, CASE WHEN executions IS NOT NULL AND (${of}) THEN coalesce(class, 'unknown') END AS class, ` +
    `sum(executions) AS n FROM events WHERE ${within(since)} AND agent NOT LIKE 'collector-%' GROUP BY 1, 2 ORDER BY 1`;
  const { rows } = await query<{ t: string; class: string | null; n: number | null }>(sql, signal);
  const start = Math.floor(from / step) * step;
  const x = Array.from({ length: Math.max(1, Math.floor((now - start) / step) + 1) }, (_, n) => start + n * step);
  const counts: Record<string, number[]> = {};
  const heard = new Set<number>();
  for (const row of rows) {
    const place = Math.round((millis(row.t) / 1000 - start) / step);
    heard.add(place);
    if (row.class == null || place < 0 || place >= x.length) continue;
    const known = CLASSES.includes(row.class) ? row.class : "unknown";
    (counts[known] ??= x.map(() => 0))[place]! += row.n ?? 0;
  }
  // Heartbeats come every few seconds: between two of them nothing need be heard.
  const near = step >= HEARD_S ? 0 : Math.ceil(HEARD_S / step);
  const silent = x.map((_, place) => !Array.from({ length: 2 * near + 1 }, (__, n) => place - near + n).some((one) => heard.has(one)));
  const begins = asked == null || first > Number(asked / 1_000_000n) / 1000 + step ? first : null;
  return { x, step, counts, silent, begins };
}

/** The least and the most of the same time on days before; of a longer window, of weeks before. */
export async function usual(of: Series, where: string, signal?: AbortSignal): Promise<Usual> {
  const start = of.x[0]!;
  const { unit, times } = period(of);
  const sql =
    `SELECT date_bin(INTERVAL '${of.step} seconds', ts_start) AS t, sum(executions) FILTER (WHERE ${where}) AS n FROM events ` +
    `WHERE ts_start >= ${moment(BigInt(start - times * unit) * 1_000_000_000n)} AND ts_start < ${moment(BigInt(start) * 1_000_000_000n)} ` +
    `AND agent NOT LIKE 'collector-%' GROUP BY 1`;
  const { rows } = await query<{ t: string; n: number | null }>(sql, signal);
  const known = new Map(rows.map((row) => [Math.round(millis(row.t) / 1000), row.n ?? 0]));
  const back = Array.from({ length: times }, (_, n) => (n + 1) * unit);
  // A time of which nothing at all is on record says nothing of what is usual.
  const all = of.x.map((x) => back.map((by) => known.get(x - by)).filter((n): n is number => n != null));
  return {
    of: unit === DAY ? "day" : "week",
    times: back.filter((by) => of.x.some((x) => known.has(x - by))).length,
    low: all.map((n) => (n.length ? Math.min(...n) : null)),
    high: all.map((n) => (n.length ? Math.max(...n) : null)),
  };
}

function period(of: Series): { unit: number; times: number } {
  return of.x.length * of.step <= DAY + of.step ? { unit: DAY, times: 7 } : { unit: 7 * DAY, times: 4 };
}

/** What was not seen, the newest first. */
export function gaps(since: string, signal?: AbortSignal): Promise<{ rows: Gap[]; truncated: boolean }> {
  const sql =
    "SELECT kind, ts_start, ts_end, gap_reason, bytes_missing, events_missing, agent, session_id, event_id FROM gaps " +
    `WHERE (${within(since)} OR ${within(since, "ts_end")}) ORDER BY ts_start DESC LIMIT ${MOST_GAPS + 1}`;
  return query<Gap>(sql, signal).then(({ rows, truncated }) => ({ rows: rows.slice(0, MOST_GAPS), truncated: truncated || rows.length > MOST_GAPS }));
}

/** Longer than a week nothing repeats that would be called usual. */
export const isComparable = (since: string, of: Series): boolean => since !== ALL && of.x.length * of.step <= 7 * DAY + of.step;

/** Without a word for so long, an agent is taken to be silent. */
const HEARD_S = 30;
export const MOST_GAPS = 1000;
const DAY = 86_400;
