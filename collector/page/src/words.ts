// An event in a line.

import type { Event, Subject } from "./answers.ts";
import { milliseconds, number } from "./numbers.ts";
import { nanos } from "./time.ts";
import { entry } from "./visible.ts";

export const isStatement = (event: Event): boolean => event.kind === "query" || event.kind === "rollup";

/** The statement, or what else it is and what is told of it. */
export function words(event: Event): string {
  if (isStatement(event)) return event.statement?.text == null ? "(text not known)" : event.statement.text + (event.statement.truncated ? " …" : "");
  const detail = detailOf(event);
  return [event.kind.replaceAll("_", " "), detail && told(detail)].filter(Boolean).join(": ");
}

/** What it says beside what all events say. */
export function detailOf(event: Event): Record<string, unknown> | undefined {
  return (event.loss ?? event.amends ?? (Object.hasOwn(event, event.kind) ? event[event.kind] : undefined)) as Record<string, unknown> | undefined;
}

function told(detail: Record<string, unknown>): string {
  // Of lists, how long they are: the event's own page has them.
  const say = (value: unknown): string => (Array.isArray(value) && typeof value[0] === "object" ? number(value.length) : value && typeof value === "object" ? JSON.stringify(value) : String(value));
  return Object.entries(detail)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${name === "reason" ? reasonOf(String(value), false) : say(value)}`)
    .join(", ");
}

/** Why something was not seen (docs/event-reference.md, `loss`), in words; any other reason as it is. */
export function reasonOf(code: string, whole = true): string {
  const means = entry(REASONS, code);
  if (!means) return code;
  return whole ? `${code.replaceAll("_", " ")}: ${means}` : code.replaceAll("_", " ");
}

const REASONS: Record<string, string> = {
  missed: "bytes passed by a way that is not tapped",
  ring_full: "the ring between kernel and agent was full",
  probe_missed: "encrypted bytes passed beside the server's probed functions",
  agent_restart: "what passed between two runs of the agent",
  copy_fault: "the payload could not be copied from the server's memory",
  unsupported_call: "the buffer of the call is not known",
  call_cap: "one call moved more than is taken of it",
  malformed: "not the protocol, or not where it has it",
  resync: "seen, and not understood until the next sure place",
  opened_before_attach: "seen, and not understood, on a connection that is older than the agent",
  result_cap: "answers to one query string beyond those that are kept",
  paused: "the agent was paused",
  memory_limit: "the agent was at its limit of memory",
  facts_lost: "connections may be missing, or without a name",
  targets_full: "too many server processes to mark: nothing of the others is seen",
  owners_full: "clients may be unknown",
  flows_full: "connections to servers elsewhere were not told",
  program_missed: "the kernel skipped runs of the tap",
  plaintext_unplaced: "plaintext that belongs to no known connection",
  record_rolled_back: "the collector's record is older than what it had acknowledged",
  chain_followed: "the collector held newer batches than the agent knew of",
  spool_damaged: "batches on the agent's disk cannot be read",
  spool_dropped: "the agent's spool was full, and its oldest batches were deleted",
  queue_full: "the agent's spool and queue were full",
};

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
