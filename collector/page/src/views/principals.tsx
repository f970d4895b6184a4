// Everybody who sent statements in this time; or only those behind one role.

import type { JSX } from "preact";
import { get } from "../api.ts";
import type { Principal } from "../answers.ts";
import { useAsked } from "../ask.ts";
import { useNewcomers } from "../newcomers.ts";
import { number, plural } from "../numbers.ts";
import { Copy } from "../parts/copy.tsx";
import { Answer, Capped, Panel } from "../parts/panel.tsx";
import { Table } from "../parts/table.tsx";
import { Names, Time, Who } from "../parts/text.tsx";
import { change, go, link, route, since } from "../route.ts";
import { sinceText } from "../time.ts";
import { inOneLine, visible } from "../visible.ts";
import { principalNote, sharing } from "./overview/shared.tsx";

export function Principals(): JSX.Element {
  const window = since();
  const role = route.value.params.role ?? "";
  const asked = useAsked(`principals ${window}`, (signal) => get<{ principals: Principal[] }>(`/api/v1/principals?since=${encodeURIComponent(sinceText(window))}`, signal), 30_000);
  const newcomers = useNewcomers(window);
  const sql = `SELECT principal, confidence, roles, statements, rows, objects FROM principals`;
  return (
    <Panel title={role ? `Principals behind the role ${visible(role)}` : "Principals"} about="the busiest first" tools={<Copy text={sql} label="copy SQL" />} class="tall">
      <Answer asked={asked} lines={12} empty={(answer) => (answer.principals.length === 0 ? "No statement was recorded in this time. Choose a longer one (w)." : null)}>
        {({ principals }) => {
          const roles = sharing(principals);
          const shown = role ? principals.filter((p) => p.roles?.includes(role)) : principals;
          return (
            <>
              <div class="filters">
                <label>
                  <span>role</span>
                  <select data-filter="role" value={role} onChange={(at) => change({ role: at.currentTarget.value || null })}>
                    <option value="">all</option>
                    {[...new Set(principals.flatMap((p) => p.roles ?? []).filter((one): one is string => one != null))].sort().map((one) => (
                      <option key={one} value={one}>
                        {inOneLine(one)}
                      </option>
                    ))}
                  </select>
                </label>
                <p class="note">
                  {roles.length === 0 ? "Each role was used by one principal." : `Shared: ${roles.map(([name, n]) => `${inOneLine(name)} by ${plural(n, "principal")}`).join("; ")}.`}
                </p>
              </div>
              {shown.length === 0 && <p class="state">Nobody used this role in this time.</p>}
              <Table
                tall
                label="Principals"
                rows={shown}
                id={(p) => p.principal ?? "unknown"}
                open={(p) => go("principal", { name: p.principal ?? "unknown", since: route.value.params.since })}
                columns={[
                  { title: "Principal", class: "grow", cell: (p) => <Who principal={p.principal} confidence={p.confidence} fresh={newcomers.answer?.first.get(p.principal ?? "")} sub={principalNote(p)} /> },
                  { title: "Roles", class: "hide-s", cell: (p) => <Names of={p.roles} most={3} /> },
                  { title: "Objects", class: "hide-s", cell: (p) => <Names of={p.objects} most={3} /> },
                  { title: "Statements", class: "n", cell: (p) => number(p.statements) },
                  { title: "Failed", class: "n hide-s", cell: (p) => number(p.errors) },
                  { title: "Rows out", class: "n", cell: (p) => number(p.rows) },
                  { title: "Last", class: "nowrap sub hide-s", cell: (p) => <Time at={p.last_seen} form="short" /> },
                ]}
              />
              <Capped when={principals.length >= 1000} what="The busiest 1,000: there are more." />
              <p class="note">
                A principal is the program, unit, container or login that held the connection. Behind an application it does not name the person whose request led to the statement.{" "}
                <a href={link("coverage")}>What has no name</a>
              </p>
            </>
          );
        }}
      </Answer>
    </Panel>
  );
}

