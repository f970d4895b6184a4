// What the collector says of itself and of the record: refusals, erasures, holds, removals, and who asked.

import type { JSX } from "preact";
import { query } from "../api.ts";
import { useAsked } from "../ask.ts";
import { number } from "../numbers.ts";
import { Answer, Panel } from "../parts/panel.tsx";
import { Table } from "../parts/table.tsx";
import { Time } from "../parts/text.tsx";
import { go, since } from "../route.ts";
import { within } from "../series.ts";

interface Said {
  kind: string;
  times: number;
  last: string;
}

/** Kinds of the collectors' own chains, and what each means. */
const KINDS: [string, string, string][] = [
  ["alarm", "Alarms", "Something was refused, or seen that nobody honest does."],
  ["erasure", "Erasures", "Events were erased. That, by whom and why stays."],
  ["hold", "Holds", "What may neither be erased nor removed; and when that ended."],
  ["retention", "Removals", "The oldest payloads were removed; hashes and signatures stay."],
  ["log_restored", "Restored", "The log was made of a backup."],
  ["access", "Questions", "Who asked this record, what, and why."],
];

export function Itself(): JSX.Element {
  const window = since();
  const asked = useAsked(`itself ${window}`, (signal) => query<Said>(SQL(window), signal).then(({ rows }) => rows));
  return (
    <Panel title="Of the record itself" about="by the collector, in a chain of its own">
      <Answer asked={asked} lines={6}>
        {(rows) => (
          <Table
            label="Of the record itself"
            rows={KINDS}
            id={([kind]) => kind}
            open={([kind]) => go("trail", { kind, since: window })}
            columns={[
              { title: "What", class: "grow", cell: ([, title, says]) => <><b>{title}</b><div class="sub">{says}</div></> },
              { title: "Times", class: "n", cell: ([kind]) => { const n = rows.find((one) => one.kind === kind)?.times ?? 0; return <span class={kind === "alarm" && n ? "bad" : ""}>{number(n)}</span>; } },
              { title: "Last", class: "nowrap sub", cell: ([kind]) => { const last = rows.find((one) => one.kind === kind)?.last; return last ? <Time at={last} form="short" /> : "–"; } },
            ]}
          />
        )}
      </Answer>
    </Panel>
  );
}

const SQL = (window: string): string =>
  `SELECT kind, count(*) AS times, max(ts_start) AS last FROM events WHERE ${within(window)} AND kind IN (${KINDS.map(([kind]) => `'${kind}'`).join(", ")}) GROUP BY kind`;
