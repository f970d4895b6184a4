// Statements over time with the usual range and what was not seen: the same panel for all, for a principal, and for an object.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { useAsked } from "../ask.ts";
import { Chart } from "../parts/chart.tsx";
import { Copy } from "../parts/copy.tsx";
import { Answer, Panel, Problem, Slow } from "../parts/panel.tsx";
import { Time } from "../parts/text.tsx";
import { bytes, plural } from "../numbers.ts";
import { go, link, since } from "../route.ts";
import { type Gap, gaps, isComparable, MOST_GAPS, series, type Usual, usual, within } from "../series.ts";
import { rfc3339 } from "../time.ts";

interface Props {
  title: string;
  /** A condition over the columns of events. */
  of: string;
  /** Filters of the trail for what is dragged over. */
  trail?: Record<string, string>;
  every?: number;
}

export function Activity({ title, of, trail = {}, every = 0 }: Props): JSX.Element {
  const window = since();
  const key = `${window} ${of}`;
  const counted = useAsked(key, (signal) => series(window, of, signal), every);
  const missed = useAsked(`gaps ${window}`, (signal) => gaps(window, signal), every);
  const of_series = counted.answer;
  const comparing = of_series && isComparable(window, of_series) ? `${key} ${of_series.x[0]} ${of_series.step}` : null;
  const compared = useAsked(comparing, (signal) => usual(of_series!, of, signal));
  const [dragging] = useState(() => (from: number, to: number) => go("trail", { ...trail, from: rfc3339(from * 1000), until: rfc3339(to * 1000) }));
  const sql = `SELECT date_bin(INTERVAL '${of_series?.step ?? 600} seconds', ts_start) AS t, class, sum(executions) AS n FROM queries WHERE ${within(window)} AND (${of}) GROUP BY 1, 2 ORDER BY 1`;
  return (
    <Panel class="first activity" title={title} about="drag to see that time in the trail" tools={<Copy text={sql} label="copy SQL" />}>
      <Answer asked={counted} lines={7}>
        {(shown) => (
          <>
            <Chart series={shown} usual={compared.answer} gaps={missed.answer?.rows ?? NONE} label={title} chosen={dragging} />
            <p class="note">
              <Comparison asked={comparing != null} found={compared.answer} />
              {shown.begins != null && (
                <>
                  {" "}
                  The record begins at <Time at={rfc3339(shown.begins * 1000)} /> UTC.
                </>
              )}{" "}
              {missed.answer && <NotSeen of={missed.answer.rows} capped={missed.answer.truncated} />}
            </p>
            <Slow of={compared} what="The time before is being looked at" />
            <Slow of={missed} what="Gaps are being looked for" />
            {missed.refused && <Problem of={missed.refused} again={missed.again} />}
            {compared.refused && <Problem of={compared.refused} again={compared.again} />}
          </>
        )}
      </Answer>
    </Panel>
  );
}

const NONE: Gap[] = [];

function Comparison({ asked, found }: { asked: boolean; found: Usual | null }): JSX.Element {
  if (!asked) return <>Not compared with earlier days: choose a shorter time.</>;
  if (found == null) return <>Looking at the time before…</>;
  if (found.times === 0) return <>No earlier {found.of} has this time on record: nothing to call usual yet.</>;
  return <>Usual: the least and the most of the same time on {plural(found.times, `earlier ${found.of}`)} of the record.</>;
}

function NotSeen({ of, capped }: { of: Gap[]; capped: boolean }): JSX.Element {
  if (of.length === 0) return <>No gaps are known in this time.</>;
  const opaque = of.filter((one) => one.kind === "opaque_session").length;
  const unknown = of.filter((one) => one.bytes_missing == null && one.kind === "gap").length;
  const sum = of.reduce((all, one) => all + (one.bytes_missing ?? 0), 0);
  return (
    <a href={link("coverage")}>
      {capped ? `more than ${MOST_GAPS} gaps; of the newest ` : ""}
      {plural(of.length - opaque, "gap")}{sum > 0 ? `: ${bytes(sum)} not seen` : ""}{unknown ? `, ${unknown} of unknown size` : ""}
      {opaque ? `; ${plural(opaque, "session that cannot be read", "sessions that cannot be read")}` : ""}.
    </a>
  );
}
