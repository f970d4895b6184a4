// What was touched: all objects, and one of them, with who did.

import type { JSX } from "preact";
import { post, query, rowsOf } from "../api.ts";
import type { Page } from "../answers.ts";
import { useAsked } from "../ask.ts";
import { isObject } from "../filters.ts";
import { number, plural } from "../numbers.ts";
import { Copy, command, quoted, sinceFlag } from "../parts/copy.tsx";
import { Answer, Capped, Facts, Panel } from "../parts/panel.tsx";
import { Table } from "../parts/table.tsx";
import { Names, Obj, Time, Who } from "../parts/text.tsx";
import { go, link, route, since } from "../route.ts";
import { within } from "../series.ts";
import { sinceNs } from "../time.ts";
import { visible } from "../visible.ts";
import { Activity } from "./activity.tsx";
import { type Use, UseTable } from "./uses.tsx";

interface Listed {
  object: string;
  ways: string[] | null;
  principals: number;
  statements: number;
  rows: number | null;
  changed: number | null;
  first_seen: string;
  last_seen: string;
}

export function Objects(): JSX.Element {
  const window = since();
  const asked = useAsked(`objects ${window}`, (signal) => query<Listed>(LISTED(window), signal), 60_000);
  return (
    <Panel title="Objects" about="called as statements call them; the busiest first" tools={<Copy text={LISTED(window)} label="copy SQL" />}>
      <Answer asked={asked} lines={12} empty={(answer) => (answer.rows.length === 0 ? "No statement named an object in this time. Choose a longer one (w)." : null)}>
        {(answer) => (
          <>
            <Table
              tall
              label="Objects"
              rows={answer.rows}
              id={(one) => one.object}
              open={(one) => go("object", { name: one.object, since: route.value.params.since })}
              columns={[
                { title: "Object", class: "grow", cell: (one) => <><Obj name={one.object} /><div class="sub clamp"><Names of={one.ways} most={6} /></div></> },
                { title: "Principals", class: "n", cell: (one) => number(one.principals) },
                { title: "Statements", class: "n", cell: (one) => number(one.statements) },
                { title: "Rows", class: "n", cell: (one) => number(one.rows) },
                { title: "Changed", class: "n hide-s", cell: (one) => number(one.changed) },
                { title: "First", class: "nowrap sub hide-s", cell: (one) => <Time at={one.first_seen} form="short" /> },
                { title: "Last", class: "nowrap sub hide-s", cell: (one) => <Time at={one.last_seen} form="short" /> },
              ]}
            />
            <Capped when={answer.rows.length >= MOST} what={`The busiest ${number(MOST)}: there are more.`} />
          </>
        )}
      </Answer>
    </Panel>
  );
}

export function ObjectView(): JSX.Element {
  const name = route.value.params.name ?? "";
  const window = since();
  const asked = useAsked(`what ${name} ${window}`, (signal) => post<Page>("/api/v1/what", { object: name, since_ns: sinceNs(window) ?? undefined }, signal).then((page) => rowsOf<Use>(page)));
  // Of the whole record, so behind what is asked of this time.
  const ever = useAsked(asked.answered || asked.refused ? `ever ${name}` : null, (signal) => post<Page>("/api/v1/what", { object: name }, signal).then((page) => rowsOf<Use>(page)));
  return (
    <>
      <Panel
        title={visible(name)}
        about="an object"
        tools={
          <>
            <a class="pill" href={link("trail", { object: name })}>
              in the trail
            </a>
            <a class="pill" href={link("records", { object: name.includes(".") ? name : `public.${name}` })}>
              one record of it
            </a>
            <Copy text={command("who", `--object ${quoted(name)}`, sinceFlag(window))} label="copy command" />
          </>
        }
      >
        <Answer asked={ever} behind={asked} lines={4} empty={(answer) => (answer.rows.some((use) => use.object) ? null : "Nobody touched an object of this name, as far as is on record.")}>
          {({ rows, truncated }) => {
            const uses = rows.filter((use) => use.object);
            const first = uses.reduce<Use | null>((one, use) => (one && one.first_seen <= use.first_seen ? one : use), null);
            const columns = (of: (use: Use) => string[] | null): string[] => [...new Set(uses.flatMap((use) => of(use) ?? []))].sort();
            return (
              <>
                <Facts
                  of={[
                    ["first touched", first && <><Time at={first.first_seen} /> UTC, as far as the record goes, by <Who principal={first.principal} confidence={first.confidence} sub="" /></>],
                    ["by", plural(new Set(uses.map((use) => use.principal)).size, "principal")],
                    ["called", <Names of={[...new Set(uses.map((use) => use.object))]} most={10} />],
                    ["columns read", <Names of={columns((use) => (use.access === "read" ? use.columns : null))} most={30} />],
                    ["columns written", <Names of={columns((use) => (use.access === "write" ? use.columns : null))} most={30} />],
                    ["filtered by", <Names of={columns((use) => use.filtered)} most={30} />],
                    ["columns are all", uses.every((use) => use.columns_exact !== false) ? null : "no: of some statements it is not sure which columns they name"],
                  ]}
                />
                <Capped when={truncated} what="There is more than one answer holds: the first and the number may be others." />
              </>
            );
          }}
        </Answer>
      </Panel>
      <Activity title="Statements that name it" of={isObject(name)} trail={{ object: name }} />
      <Panel title="Who, in this time">
        <Answer asked={asked} lines={6} empty={(answer) => (answer.rows.length === 0 ? "Nobody in this time. Choose a longer one (w)." : null)}>
          {(answer) => {
            const [named, hidden] = [answer.rows.filter((use) => use.object), answer.rows.filter((use) => !use.object)];
            return (
              <>
                {named.length > 0 ? <UseTable of={{ rows: named, truncated: answer.truncated }} by="principal" /> : <p class="state">Nobody who named it.</p>}
                {hidden.length > 0 && (
                  <>
                    <h3>May have touched it: what they ran is not seen, or not understood</h3>
                    <UseTable of={{ rows: hidden, truncated: false }} by="principal" />
                  </>
                )}
              </>
            );
          }}
        </Answer>
      </Panel>
    </>
  );
}

const MOST = 1000;

const LISTED = (window: string): string =>
  "SELECT object, array_agg(DISTINCT access) AS ways, count(DISTINCT principal) AS principals, sum(executions) AS statements, sum(rows) AS rows, sum(changed) AS changed, " +
  "min(ts_start) AS first_seen, max(ts_start) AS last_seen FROM (SELECT unnest(objects) AS object, unnest(object_access) AS access, principal, executions, rows, " +
  `rows_affected AS changed, ts_start FROM queries WHERE ${within(window)}) AS touched GROUP BY object ORDER BY statements DESC LIMIT ${MOST}`;


