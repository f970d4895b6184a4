// When the record begins.
//
// Owns that it is asked once and kept for a while: it stays as it is, but for erasures and retention. Whoever has an overview at hand tells
// it; a collector that does not say it there is asked by SQL.

import { admitted } from "./access.ts";
import type { Overview } from "./answers.ts";
import { get, query } from "./api.ts";

let known: { at: number; with: number; begins: string | null } | null = null;

/** Of an answer that was asked for something else. */
export function learn(overview: Overview): void {
  if (overview.begins != null) known = { at: Date.now(), with: admitted.value, begins: overview.begins };
}

/** The first event's time; null: there is none. */
export async function begins(signal?: AbortSignal): Promise<string | null> {
  if (known && known.with === admitted.value && Date.now() - known.at < KEPT_MS) return known.begins;
  const asker = admitted.value;
  const { begins: said } = await get<Overview>("/api/v1/overview?since=1s", signal);
  const first = said ?? (await query<{ first: string | null }>("SELECT min(ts_start) AS first FROM events", signal)).rows[0]?.first ?? null;
  known = first == null ? null : { at: Date.now(), with: asker, begins: first };
  return first;
}

const KEPT_MS = 300_000;
