// How objects were used: a row is a principal, an object and one way of using it, as POST /api/v1/what answers.

import type { JSX } from "preact";
import type { Rows } from "../api.ts";
import { number } from "../numbers.ts";
import { Capped } from "../parts/panel.tsx";
import { Table, type Column } from "../parts/table.tsx";
import { Names, Obj, Time, Who } from "../parts/text.tsx";
import { change } from "../route.ts";
import { visible } from "../visible.ts";

export interface Use {
  principal: string | null;
  confidence: (string | null)[] | string | null;
  object: string | null;
  access: string | null;
  columns: string[] | null;
  filtered: string[] | null;
  columns_exact: boolean | null;
  commands: string[] | null;
  statements: number;
  failed: number;
  rows: number | null;
  rows_affected: number | null;
  sessions: number;
  first_seen: string;
  last_seen: string;
  last_event: string;
  because: string | null;
}

export function UseTable({ of, by }: { of: Rows<Use>; by: "object" | "principal" }): JSX.Element {
  const whose: Column<Use> =
    by === "principal"
      ? { title: "Principal", class: "grow", cell: (use) => <Who principal={use.principal} confidence={use.confidence} sub={<Ways of={use} />} /> }
      : { title: "Object", class: "grow", cell: (use) => (use.object ? <><Obj name={use.object} /><div class="sub clamp"><Ways of={use} /></div></> : <span class="sub">{visible(use.because ?? "no object is named")} · <Names of={use.commands} most={4} /></span>) };
  return (
    <>
      <Table
        label={by === "object" ? "Objects" : "Principals"}
        rows={of.rows}
        id={(use) => `${use.principal} ${use.object} ${use.access} ${use.because}`}
        open={(use) => change({ event: use.last_event })}
        columns={[
          whose,
          { title: "Use", class: "nowrap", cell: (use) => <b class={`access-${use.access === "write" ? "write" : use.access === "ddl" ? "ddl" : "read"}`}>{visible(use.access ?? "–")}</b> },
          { title: "Statements", class: "n", cell: (use) => <>{number(use.statements)}{use.failed > 0 && <div class="sub bad">{number(use.failed)} failed</div>}</> },
          { title: "Rows", class: "n", cell: (use) => <>{number(use.rows)}{use.rows_affected ? <div class="sub">{number(use.rows_affected)} changed</div> : null}</> },
          { title: "First", class: "nowrap sub hide-s", cell: (use) => <Time at={use.first_seen} form="short" /> },
          { title: "Last", class: "nowrap sub hide-s", cell: (use) => <Time at={use.last_seen} form="short" /> },
        ]}
      />
      <Capped when={of.truncated} what="There is more than one answer holds: choose a shorter time." />
    </>
  );
}

function Ways({ of: use }: { of: Use }): JSX.Element {
  return (
    <>
      <Names of={use.commands} most={3} />
      {use.columns?.length ? (
        <>
          {" "}
          of <Names of={use.columns} most={5} />
          {use.columns_exact ? "" : ", perhaps others"}
        </>
      ) : null}
      {use.filtered?.length ? (
        <>
          {" "}
          by <Names of={use.filtered} most={4} />
        </>
      ) : null}
      {use.because ? ` · ${visible(use.because)}` : ""}
    </>
  );
}
