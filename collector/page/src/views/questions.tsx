// Questions by name, and the record's own answers to them.
//
// Owns what has to be said beside an answer: that a record which has just begun knows nobody from before, and that without an inventory
// nobody is expected or not.

import type { JSX } from "preact";
import { get, query } from "../api.ts";
import type { Status } from "../answers.ts";
import { useAsked } from "../ask.ts";
import { begins } from "../begins.ts";
import { number } from "../numbers.ts";
import { Copy, command, sinceFlag } from "../parts/copy.tsx";
import { Answer, Capped, Panel } from "../parts/panel.tsx";
import { type Column, Table } from "../parts/table.tsx";
import { EventLink, Names, Time, Who, Workloads } from "../parts/text.tsx";
import { QUESTIONS } from "../questions.ts";
import { change, link, route, since } from "../route.ts";
import { entry, inOneLine } from "../visible.ts";
import { hasBefore } from "./edges.tsx";

type Row = Record<string, unknown>;

export function Questions(): JSX.Element {
  const name = entry(QUESTIONS, route.value.params.ask) ? route.value.params.ask! : "shared-roles";
  return (
    <>
      <Panel title="Questions" about="by name; every one is SQL that can be asked a little differently">
        <ul class="choices">
          {Object.entries(QUESTIONS).map(([one, { title, says }]) => (
            <li key={one}>
              <a class="item" data-row="" data-filter={one === name ? "" : undefined} data-ask={one} aria-current={one === name ? "true" : undefined} href={link("questions", { ask: one })}>
                <b>{title}</b>
                <span class="sub">{says}</span>
              </a>
            </li>
          ))}
        </ul>
      </Panel>
      <One key={name} name={name} />
    </>
  );
}

function One({ name }: { name: string }): JSX.Element {
  const window = since();
  const question = QUESTIONS[name]!;
  const sql = question.sql(window);
  const asked = useAsked(`${name} ${window}`, async (signal) => {
    // Without an inventory nothing is marked, and an empty answer would look like all is well.
    const listed = question.inventory ? (await get<Status>("/api/v1/status", signal)).inventory != null : true;
    const answer = listed ? await query<Row>(sql, signal) : { rows: [], truncated: false };
    return { ...answer, listed, begins: question.compares ? await begins(signal) : null };
  });
  const nothing = ({ rows, listed }: { rows: Row[]; listed: boolean }): JSX.Element | string | null => {
    if (!listed) return "This collector has no inventory that says who is expected to do what: pgwitness-collector inventory suggest makes a first one, serve --inventory takes it.";
    return rows.length === 0 ? question.none : null;
  };
  return (
    <Panel title={question.title} about={question.says} tools={<><Copy text={sql} label="copy SQL" /><Copy text={command("ask", name, sinceFlag(window))} label="copy command" /></>}>
      <Answer asked={asked} lines={8} empty={nothing}>
        {(answer) => (
          <>
            {question.compares && answer.begins && !hasBefore(answer.begins, window) && (
              <p class="note warn">
                The record begins at <Time at={answer.begins} /> UTC, within this time: who was there before is not known. Choose a shorter time (w).
              </p>
            )}
            <Table
              label={question.title}
              rows={answer.rows}
              id={(_, n) => String(n)}
              open={answer.rows[0]?.an_event ? (row) => change({ event: String(row.an_event) }) : undefined}
              columns={columnsOf(answer.rows)}
            />
            <Capped when={answer.truncated} what="There are more: choose a shorter time." />
          </>
        )}
      </Answer>
    </Panel>
  );
}

/** A principal needs no column beside its own for how sure it is, and why it was not expected. */
function columnsOf(rows: Row[]): Column<Row>[] {
  const names = Object.keys(rows[0] ?? {}).filter((name) => !BESIDE.includes(name));
  return names.map((name) => ({
    title: entry(TITLES, name) ?? name.replaceAll("_", " "),
    class: `${LATER.includes(name) ? "hide-s " : ""}${WIDE.includes(name) ? "grow" : typeof rows[0]![name] === "number" ? "n" : ""}`,
    cell: (row) => cell(name, row),
  }));
}

function cell(name: string, row: Row): JSX.Element | string {
  const of = row[name];
  if (name === "principal") return <Who principal={of as string | null} confidence={row.confidence as string[] | null} sub={row.unexpected_because ? inOneLine(row.unexpected_because) : ""} />;
  if (name === "an_event") return <EventLink id={of as string | null} />;
  if (name.startsWith("used_")) return <Workloads of={(of as string[] | null) ?? []} most={6} />;
  if (Array.isArray(of)) return <Names of={of as string[]} most={3} />;
  if (typeof of === "number") return name === "days" ? of.toFixed(1) : number(of);
  if (typeof of === "string" && /^\d{4}-\d\d-\d\dT/.test(of)) return <span class="sub nowrap"><Time at={of} form="short" /></span>;
  return of == null || of === "" ? <span class="sub">–</span> : inOneLine(of);
}

const TITLES: Record<string, string> = {
  login_role: "role",
  client_addr: "address",
  because: "why",
  an_event: "event",
  credential_expires: "expires",
  credential_rotated: "changed",
  statements_of_unknown: "of unknown",
};
/** They stand with the principal. */
const BESIDE = ["confidence", "unexpected_because"];
const WIDE = ["principal", "id", "used_by"];
/** Not on a phone. */
const LATER = ["first_seen", "last_seen", "an_event", "database", "databases", "client_addr", "credential_rotated", "sessions", "owner", "statements_of_unknown", "used_before_by"];
