// An event in a line.

import type { Event, Subject } from "./answers.ts";
import { milliseconds, number } from "./numbers.ts";
import { nanos } from "./time.ts";

export const isStatement = (event: Event): boolean => event.kind === "query" || event.kind === "rollup";

/** The statement, or what else it is and what is told of it. */
export function words(event: Event): string {
  if (isStatement(event)) return event.statement?.text == null ? "(text not known)" : event.statement.text + (event.statement.truncated ? " …" : "");
  const detail = (event.loss ?? event.amends ?? (Object.hasOwn(event, event.kind) ? event[event.kind] : undefined)) as Record<string, unknown> | undefined;
  return [event.kind.replaceAll("_", " "), detail && told(detail)].filter(Boolean).join(": ");
}

function told(detail: Record<string, unknown>): string {
  const say = (value: unknown): string => (value && typeof value === "object" ? JSON.stringify(value) : String(value));
  return Object.entries(detail)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${say(value)}`)
    .join(", ");
}

/** Whose records it touched, by number: tokens tell a reader nothing. */
export function records(subject: Subject): string {
  const count = Math.max(subject.tokens?.length ?? 0, subject.filter_values ?? 0);
  const sources = subject.sources?.length ? ` by ${subject.sources.join(", ")}` : "";
  return `${subject.object}.${subject.column}: ${number(count)}${sources}${subject.complete ? "" : ", and others that are not known"}`;
}

export function took(event: Event): string {
  if (event.rollup) return `⌀ ${milliseconds(event.rollup.duration_ns / event.rollup.executions)}`;
  if (!event.ts_start || !event.ts_end || !isStatement(event)) return "–";
  return milliseconds(Number(nanos(event.ts_end) - nanos(event.ts_start)));
}

export const rowsOf = (event: Event): string => {
  const { rows, rows_affected: changed } = event.result ?? {};
  return changed != null && !rows ? number(changed) : number(rows);
};
