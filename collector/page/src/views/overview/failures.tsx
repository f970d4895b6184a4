// What failed: logins, statements, sessions.

import type { JSX } from "preact";
import type { Rows } from "../../api.ts";
import type { Asked } from "../../ask.ts";
import { number } from "../../numbers.ts";
import { Answer, Capped, Panel } from "../../parts/panel.tsx";
import { Table } from "../../parts/table.tsx";
import { Time, Who } from "../../parts/text.tsx";
import { go, link, since } from "../../route.ts";
import { entry, inOneLine, visible } from "../../visible.ts";

export interface Failure {
  kind: string;
  principal: string | null;
  confidence: string | null;
  login_role: string | null;
  sqlstate: string | null;
  times: number;
  last_seen: string;
  event_id: string;
}

/** What codes mean that are met often (PostgreSQL manual, appendix A). */
export const SQLSTATES: Record<string, string> = {
  "28P01": "wrong password",
  "28000": "not admitted",
  "3D000": "no such database",
  "53300": "too many connections",
  "57014": "canceled",
  "57P01": "ended by an administrator",
  "57P03": "server not ready",
  "57P05": "idle too long",
  "42501": "no privilege",
  "42P01": "no such table",
  "42703": "no such column",
  "42601": "syntax error",
  "23505": "duplicate key",
  "23503": "foreign key",
  "40001": "serialization failure",
  "40P01": "deadlock",
  "25P02": "transaction had failed",
};

export function Failures({ asked }: { asked: Asked<Rows<Failure>> }): JSX.Element {
  return (
    <Panel title="Failures" about="refused logins first" tools={<a class="pill" href={link("trail", { outcome: "failed" })}>in the trail</a>}>
      <Answer asked={asked} lines={5} empty={(answer) => (answer.rows.length === 0 ? "Nothing failed in this time." : null)}>
        {(answer) => (
          <>
            <Table
              label="Failures"
              rows={answer.rows.slice(0, SHOWN)}
              id={(one, n) => `${one.kind} ${one.principal} ${one.login_role} ${one.sqlstate} ${n}`}
              open={(one) => go("trail", { since: since(), principal: one.principal, role: one.login_role, ...(one.kind === "query" ? { outcome: "failed" } : { kind: one.kind }) })}
              columns={[
                { title: "What", class: "nowrap hide-s", cell: (one) => <span class={one.kind === "auth_failure" ? "bad" : ""}>{entry(WORDS, one.kind) ?? visible(one.kind)}</span> },
                { title: "Principal", class: "grow", cell: (one) => <Who principal={one.principal} confidence={one.confidence} sub={`as ${inOneLine(one.login_role ?? "a role that is not known")}`} /> },
                { title: "Code", class: "nowrap", cell: (one) => (<><code>{visible(one.sqlstate ?? "–")}</code><div class="sub">{entry(SQLSTATES, one.sqlstate) ?? ""}</div></>) },
                { title: "Times", class: "n", cell: (one) => number(one.times) },
                { title: "Last", class: "nowrap sub hide-s", cell: (one) => <Time at={one.last_seen} form="short" /> },
              ]}
            />
            <Capped when={answer.rows.length > SHOWN} what={`${SHOWN} of ${answer.rows.length >= 100 ? "100 or more" : answer.rows.length} sorts of failures; the trail has all.`} />
          </>
        )}
      </Answer>
    </Panel>
  );
}

const WORDS: Record<string, string> = { auth_failure: "login", query: "statement", rollup: "statements", session_error: "session" };
const SHOWN = 10;
