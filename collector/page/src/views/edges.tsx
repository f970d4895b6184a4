// Who touched what for the first time.
//
// Owns what has to be said with it: whoever is in a record that has just begun is new to it.

import type { JSX } from "preact";
import type { Rows } from "../api.ts";
import type { Asked, Open } from "../ask.ts";
import { number } from "../numbers.ts";
import { Copy, command, sinceFlag } from "../parts/copy.tsx";
import { Answer, Capped, Panel } from "../parts/panel.tsx";
import { Table } from "../parts/table.tsx";
import { Names, Obj, Time, Who } from "../parts/text.tsx";
import { change, since } from "../route.ts";
import { ALL, nanos, sinceNs } from "../time.ts";
import { visible } from "../visible.ts";

export interface Edge {
  principal: string | null;
  confidence: (string | null)[] | null;
  object: string;
  access: string;
  known_access: string[] | string | null;
  commands: string[] | null;
  statements: number;
  failed: number;
  rows: number | null;
  rows_affected: number | null;
  first_seen: string;
  last_seen: string;
  first_event: string;
}

export interface Edges extends Rows<Edge> {
  /** The record's first event. */
  begins: string | null;
}

/** Whether there is a time before the window to compare with. */
export function hasBefore(begins: string | null, window: string): boolean {
  const start = sinceNs(window);
  return begins != null && start != null && nanos(begins) < start;
}

export function NewEdges({ asked, behind, title = "New edges", of }: { asked: Asked<Edges>; behind?: Open; title?: string; of?: (edge: Edge) => boolean }): JSX.Element {
  const window = since();
  return (
    <Panel title={title} about="used for the first time on record" tools={<Copy text={command("new-edges", sinceFlag(window) ?? "--since 3650d")} label="copy command" />}>
      {window === ALL && !asked.answered ? (
        <p class="state">There is no time before all of the record: choose a shorter time (w), and see what is new in it.</p>
      ) : (
        <Answer asked={asked} behind={behind} lines={8} empty={(answer) => (answer.rows.filter(of ?? (() => true)).length === 0 ? "Nothing new: everybody used what they had used before." : null)}>
          {(answer) => {
            const rows = answer.rows.filter(of ?? (() => true));
            return (
              <>
                {!hasBefore(answer.begins, window) && answer.begins && (
                  <p class="note warn">
                    The record begins at <Time at={answer.begins} /> UTC, within this time: who was there before is not known, so everybody is new. Choose a
                    shorter time to compare with what is on record.
                  </p>
                )}
                <Table
                  label={title}
                  rows={rows.slice(0, SHOWN)}
                  id={(edge) => `${edge.principal} ${edge.object} ${edge.access}`}
                  open={(edge) => change({ event: edge.first_event })}
                  columns={[
                    { title: "First", class: "nowrap sub hide-s", cell: (edge) => <Time at={edge.first_seen} form="short" /> },
                    {
                      title: "Principal and object",
                      class: "grow",
                      cell: (edge) => (
                        <>
                          <Who principal={edge.principal} confidence={edge.confidence} sub="" />
                          <div class="sub">
                            <b class={`access-${edge.access === "ddl" ? "ddl" : edge.access === "write" ? "write" : "read"}`}>{visible(edge.access)}</b> <Obj name={edge.object} /> <Names of={edge.commands} most={3} />
                            {edge.known_access?.length ? `, before: ${visible([edge.known_access].flat().join(", "))}` : ""}
                          </div>
                        </>
                      ),
                    },
                    { title: "Statements", class: "n", cell: (edge) => number(edge.statements) },
                    { title: "Rows", class: "n hide-s", cell: (edge) => number(edge.rows_affected ?? edge.rows) },
                  ]}
                />
                <Capped when={rows.length > SHOWN} what={`The newest ${SHOWN} of ${number(rows.length)}${answer.truncated ? " or more" : ""}; all of them: ${command("new-edges")}`} />
              </>
            );
          }}
        </Answer>
      )}
    </Panel>
  );
}

const SHOWN = 10;
