// What takes privileges: roles and grants, the schema, the server's settings, and functions, which run code that the wire does not show.

import type { JSX } from "preact";
import type { Rows } from "../../api.ts";
import type { Asked } from "../../ask.ts";
import { Answer, Capped, Panel } from "../../parts/panel.tsx";
import { Table } from "../../parts/table.tsx";
import { Class, Outcome, Sql, Time, Who } from "../../parts/text.tsx";
import { change, link } from "../../route.ts";
import { visible } from "../../visible.ts";

export interface Act {
  ts_start: string;
  principal: string | null;
  confidence: string | null;
  login_role: string | null;
  class: string | null;
  command: string | null;
  statement: string | null;
  outcome: string | null;
  sqlstate: string | null;
  event_id: string;
}

export function Privileged({ asked }: { asked: Asked<Rows<Act>> }): JSX.Element {
  return (
    <Panel title="Privileged operations" about="roles, schema, settings, functions" tools={<a class="pill" href={link("trail", { class: "ROLE" })}>in the trail</a>}>
      <Answer asked={asked} lines={5} empty={(answer) => (answer.rows.length === 0 ? "None in this time. What functions and triggers did inside the server is not on the wire." : null)}>
        {(answer) => (
          <>
            <Table
              label="Privileged operations"
              rows={answer.rows.slice(0, SHOWN)}
              id={(one) => one.event_id}
              open={(one) => change({ event: one.event_id })}
              columns={[
                { title: "Time", class: "nowrap sub hide-s", cell: (one) => <Time at={one.ts_start} form="short" /> },
                { title: "Class", cell: (one) => (<><Class of={one.class} /><div><Outcome of={one.outcome} sqlstate={one.sqlstate} /></div></>) },
                { title: "Principal and statement", class: "grow", cell: (one) => (<><Who principal={one.principal} confidence={one.confidence} sub="" /><Sql text={one.statement} /></>) },
                { title: "Role", class: "hide-s", cell: (one) => <code>{visible(one.login_role ?? "–")}</code> },
              ]}
            />
            <Capped when={answer.rows.length > SHOWN} what={`The newest ${SHOWN} of ${answer.rows.length > 100 ? "more than 100" : answer.rows.length}; the trail has all, by class.`} />
          </>
        )}
      </Answer>
    </Panel>
  );
}

const SHOWN = 10;
