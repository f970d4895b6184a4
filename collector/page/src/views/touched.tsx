// The answer to who touched a record, and how far it goes: in the order and the words of `pgwitness-collector who`.
//
// Refuses to say "nobody else" where something is not known.

import type { JSX } from "preact";
import { rowsOf } from "../api.ts";
import type { WhoAnswer } from "../answers.ts";
import { number, plural } from "../numbers.ts";
import { Capped } from "../parts/panel.tsx";
import { Table } from "../parts/table.tsx";
import { Names, Outcome, Sql, Time, Who } from "../parts/text.tsx";
import { change, link } from "../route.ts";
import type { Asking } from "../subjects/asking.ts";
import { visible } from "../visible.ts";

interface Row {
  principal: string | null;
  confidence: (string | null)[] | string | null;
  statements: number;
  sources: string[] | string | null;
  class: string | null;
  kind: string;
  sure: boolean | null;
  outcome: string | null;
  login_role: string | null;
  first_seen: string;
  last_seen: string;
  last_event: string;
  statement: string | null;
}

interface Open {
  principal: string | null;
  confidence: (string | null)[] | string | null;
  statements: number;
  commands: string[] | null;
  because: string;
  on_object: boolean;
  first_seen: string;
  last_seen: string;
}

export function Touched({ asked, answer }: { asked: Asking; answer: WhoAnswer }): JSX.Element {
  const touched = rowsOf<Row>(answer.touched).rows;
  const open = rowsOf<Open>(answer.not_excluded).rows;
  const onObject = open.filter((row) => row.on_object);
  const elsewhere = open.filter((row) => !row.on_object);
  return (
    <>
      <p class="note">
        Among events from <Time at={answer.seen[0]} /> to <Time at={answer.seen[1]} /> UTC. Looked for under the keys{" "}
        {asked.tokens.length ? visible(asked.tokens.map((one) => `${one.key} (${one.family})`).join(", ")) : "none"}.
      </p>
      {touched.length === 0 ? (
        <p class="state">Nobody that is known.</p>
      ) : (
        <Table
          label="Who touched it"
          rows={touched}
          id={(row, n) => `${row.last_event} ${n}`}
          open={(row) => change({ event: row.last_event })}
          columns={[
            { title: "Principal", class: "grow", cell: (row) => <><Who principal={row.principal} confidence={row.confidence} sub="" /><Sql text={row.statement} /></> },
            { title: "Record", class: "nowrap", cell: (row) => <><b>{access(row).join(", ")}</b><div class="sub">{sureness(row)}</div></> },
            { title: "Role", class: "hide-s", cell: (row) => <><code>{visible(row.login_role ?? "–")}</code><div><Outcome of={row.outcome} /></div></> },
            { title: "Statements", class: "n", cell: (row) => number(row.statements) },
            { title: "First", class: "nowrap sub hide-s", cell: (row) => <Time at={row.first_seen} form="short" /> },
            { title: "Last", class: "nowrap sub", cell: (row) => <Time at={row.last_seen} form="short" /> },
          ]}
        />
      )}
      <Capped when={answer.more || answer.touched.truncated} what="And more: choose a shorter time." />
      {onObject.length > 0 && (
        <>
          <h3>Not excluded, because it is not known which records they touched</h3>
          <Table
            label="Not excluded"
            rows={onObject}
            id={(row, n) => `${row.principal} ${n}`}
            columns={[
              { title: "Principal", class: "grow", cell: (row) => <Who principal={row.principal} confidence={row.confidence} sub={visible(row.because)} /> },
              { title: "Commands", class: "hide-s", cell: (row) => <Names of={row.commands} /> },
              { title: "Statements", class: "n", cell: (row) => number(row.statements) },
              { title: "Last", class: "nowrap sub", cell: (row) => <Time at={row.last_seen} form="short" /> },
            ]}
          />
        </>
      )}
      <h3>How far this goes</h3>
      <ul class="limits">
        {limits(asked, answer, elsewhere).map((line) => (
          <li key={line}>{visible(line)}</li>
        ))}
      </ul>
      {answer.gaps + answer.opaque_sessions > 0 && (
        <p class="note">
          <a href={link("coverage")}>what was not seen</a>
        </p>
      )}
    </>
  );
}

/** A value that was bound or inserted was written, a row that came back was read; one that a condition names was named. */
function access(row: Row): string[] {
  const sources = [row.sources ?? []].flat().join(", ").split(", ");
  const done: string[] = [];
  if (sources.includes("written")) done.push("written");
  if (sources.includes("returned")) done.push("read");
  return done.length > 0 ? done : [row.class === "WRITE" ? "named to write" : "named"];
}

/** Of a roll-up one execution touched it, at least. */
const sureness = (row: Row): string => (row.kind === "rollup" ? "of some" : row.sure ? "surely" : "possibly");

const isComplete = (asked: Asking, answer: WhoAnswer): boolean =>
  asked.missing.length === 0 &&
  asked.unread.length === 0 &&
  answer.not_excluded.rows.length === 0 &&
  answer.gaps + answer.opaque_sessions + answer.left_out + answer.moved + answer.removals === 0 &&
  !answer.more &&
  !answer.not_counted &&
  !answer.touched.truncated;

function limits(asked: Asking, answer: WhoAnswer, elsewhere: Open[]): string[] {
  const lines: string[] = [];
  if (asked.missing.length > 0) lines.push(`Not looked for under the keys ${asked.missing.join(", ")}, which the key file does not have.`);
  for (const family of asked.unread) lines.push(`Not looked for among values of type ${family}: the value given is none, or not surely one.`);
  const counts = new Map<string, number>();
  for (const row of elsewhere) counts.set(row.because, (counts.get(row.because) ?? 0) + row.statements);
  for (const [because, statements] of counts) lines.push(`Of ${number(statements)} statements it is not known whether they have to do with it: ${because}.`);
  if (answer.gaps + answer.opaque_sessions > 0) {
    lines.push(`Not everything was seen: ${plural(answer.gaps, "gap")}, ${plural(answer.opaque_sessions, "session")} that could not be read.`);
  }
  if (answer.left_out > 0) lines.push("A volume policy left statements out: nothing but their number is kept.");
  if (answer.moved > 0) lines.push("Agents have delivered to other collectors, too: what they told there is not in this answer. Ask there as well.");
  if (answer.removals > 0) lines.push("Events were erased, or removed for their age: whose records they touched is not known any more.");
  if (answer.not_counted) {
    lines.push("Which other statements are not excluded was not counted: there are too many for the time that a question may take. Choose a shorter time.");
  }
  if (answer.not_excluded.truncated) lines.push("There are more that are not excluded.");
  lines.push(
    isComplete(asked, answer)
      ? "Every other statement of that time that was seen is known to have touched other records, or other objects."
      : "So it is not excluded that somebody else touched it.",
  );
  lines.push("What views, triggers and functions did inside the server is not seen.");
  return lines;
}
