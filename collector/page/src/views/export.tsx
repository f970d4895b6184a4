// What the trail's filters fit, as a file: all of it, not only what the list keeps.
//
// Owns that the same condition decides what is shown and what is exported, and that an answer that broke off leaves no file.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { purpose, setPurpose, tooLow } from "../access.ts";
import { query, refusal, Refused, say } from "../api.ts";
import { useAsked } from "../ask.ts";
import { pour, sink } from "../download.ts";
import { type Filters, where } from "../filters.ts";
import { bytes, number, seconds } from "../numbers.ts";
import { Copy, command, quoted } from "../parts/copy.tsx";
import { Problem, Slow } from "../parts/panel.tsx";
import { ALL, nanos, sinceNs } from "../time.ts";
import { visible } from "../visible.ts";

/** Their names in the API, endings, types, and what they are. */
const FORMATS = [
  ["jsonl", "jsonl", "application/jsonl", "JSON lines: events as the record has them"],
  ["csv", "csv", "text/csv", "CSV: the columns of the table events"],
  ["parquet", "parquet", "application/vnd.apache.parquet", "Parquet: the same columns"],
  ["ocsf", "ocsf.jsonl", "application/jsonl", "OCSF 1.3.0: JSON lines for a SIEM"],
] as const;

type Done = { file: string; bytes: number; took: number };

/** The collector's own question: the condition without the time, and the time. */
export function asExport(filters: Filters, window: string): { where?: string; since_ns?: bigint; until_ns?: bigint } {
  const { from, until, ...rest } = filters;
  const condition = where(rest, ALL);
  const since = from ? nanos(from) : sinceNs(window);
  return { where: condition || undefined, since_ns: since ?? undefined, until_ns: until ? nanos(until) : undefined };
}

export function Export({ filters, window }: { filters: Filters; window: string }): JSX.Element {
  const [format, choose] = useState<string>("jsonl");
  const [at, progress] = useState<{ bytes: number; since: number } | null>(null);
  const [done, end] = useState<Done | null>(null);
  const [refused, refuse] = useState<Refused | null>(null);
  const open = useRef<AbortController | null>(null);
  useEffect(() => () => open.current?.abort(), []);
  const counted = useAsked(`export ${JSON.stringify(filters)} ${window}`, (signal) =>
    query<{ n: number }>(`SELECT count(*) AS n FROM events WHERE ${where(filters, window) || "TRUE"}`, signal).then(({ rows }) => rows[0]?.n ?? 0),
  );
  const low = tooLow("auditor");
  const [name, ending, type] = FORMATS.find(([one]) => one === format) ?? FORMATS[0];
  const start = async (): Promise<void> => {
    end(null);
    refuse(null);
    const file = `pgwitness-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}Z.${ending}`;
    const to = await sink(file, type);
    if (!to) return;
    const mine = new AbortController();
    open.current = mine;
    const since = Date.now();
    let size = 0;
    progress({ bytes: 0, since });
    // Pieces come often; what is told of them need not.
    let said = 0;
    try {
      const answer = await say("/api/v1/export", { format: name, ...asExport(filters, window) }, mine.signal).catch(async (error) => {
        await to.broken();
        throw error;
      });
      await pour(answer, to, (all) => {
        size = all;
        if (Date.now() - said < TOLD_MS) return;
        said = Date.now();
        progress({ bytes: all, since });
      });
      end({ file, bytes: size, took: (Date.now() - since) / 1000 });
    } catch (error) {
      const why = mine.signal.aborted || error instanceof Refused ? refusal(error) : new Refused(`the answer broke off behind ${bytes(size)}: no file is kept, because it would not be whole`, 0);
      refuse(why);
    } finally {
      progress(null);
    }
  };
  const said = where({ ...filters, from: undefined, until: undefined }, ALL);
  const since = filters.from ?? (window === ALL ? null : window);
  return (
    <section class="export" aria-label="Export">
      <div class="filters">
        <label class="wide">
          <span>export what these filters fit, as</span>
          <select data-export="format" value={format} disabled={at != null} onChange={(it) => choose(it.currentTarget.value)}>
            {FORMATS.map(([one, , , what]) => (
              <option key={one} value={one}>
                {what}
              </option>
            ))}
          </select>
        </label>
        <label class="wide">
          <span>why you ask; it is recorded</span>
          <input type="text" data-export="purpose" value={purpose.value} placeholder="ticket, incident" maxLength={200} onInput={(it) => setPurpose(it.currentTarget.value)} />
        </label>
        <button type="button" class="pill" data-export="start" disabled={low != null} onClick={() => (at ? open.current?.abort() : void start())}>
          {at ? "stop" : "export"}
        </button>
        <Copy text={command("export", `--format ${format}`, said && `--where ${quoted(said)}`, since && `--since ${quoted(since)}`, filters.until && `--until ${quoted(filters.until)}`, `-o events.${ending}`)} label="copy command" />
      </div>
      {low && <p class="note">{visible(low)}.</p>}
      <p class="note" role="status" data-export="said">
        {at ? (
          <>
            <progress aria-label="Export" /> {bytes(at.bytes)} so far
          </>
        ) : done ? (
          `Whole: ${done.file}, ${bytes(done.bytes)} in ${done.took < 1 ? "less than a second" : seconds(done.took)}.`
        ) : counted.answered ? (
          `${number(counted.answer)} events, in no promised order.`
        ) : (
          ""
        )}
      </p>
      {!at && !done && <Slow of={counted} what="Events are being counted" />}
      {refused && <Problem of={refused} />}
    </section>
  );
}

const TOLD_MS = 250;
