// Principals that are new to the record within a window.
//
// Owns that nobody is called new where the record does not reach back before the window.

import { query } from "./api.ts";
import { type Asked, useAsked } from "./ask.ts";
import { begins as beginning } from "./begins.ts";
import { nanos, sinceNs } from "./time.ts";

export interface Newcomers {
  /** By name, when each was first seen. */
  first: Map<string, string>;
  /** The record's first event. */
  begins: string | null;
}

export function useNewcomers(window: string): Asked<Newcomers> {
  const start = sinceNs(window);
  return useAsked(
    start == null ? null : `newcomers ${window}`,
    async (signal) => {
      const begins = await beginning(signal);
      if (start == null || begins == null || nanos(begins) >= start) return { first: new Map(), begins };
      const sql =
        "SELECT principal, min(ts_start) AS first FROM events WHERE executions IS NOT NULL AND principal IS NOT NULL AND principal <> 'unknown' " +
        `GROUP BY 1 HAVING min(ts_start) >= to_timestamp_nanos(${start}) ORDER BY 2 DESC LIMIT 1000`;
      const { rows } = await query<{ principal: string; first: string }>(sql, signal);
      return { first: new Map(rows.map((row) => [row.principal, row.first])), begins };
    },
    300_000,
  );
}
