// What a shared role hides: the principals behind it.

import type { JSX } from "preact";
import type { Principal } from "../../answers.ts";
import type { Asked } from "../../ask.ts";
import type { Newcomers } from "../../newcomers.ts";
import { number, plural } from "../../numbers.ts";
import { Copy, command } from "../../parts/copy.tsx";
import { Answer, Capped, Panel } from "../../parts/panel.tsx";
import { Table } from "../../parts/table.tsx";
import { Names, Who } from "../../parts/text.tsx";
import { go, link, since } from "../../route.ts";
import { inOneLine } from "../../visible.ts";

export function SharedRoles({ asked, newcomers }: { asked: Asked<{ principals: Principal[] }>; newcomers: Newcomers | null }): JSX.Element {
  return (
    <Panel title="Principals" about="what the role hides" tools={<Copy text={command("ask", "shared-roles")} label="copy command" />}>
      <Answer asked={asked} lines={8} empty={(answer) => (answer.principals.length === 0 ? "No statement was recorded in this time. Choose a longer one (w)." : null)}>
        {({ principals }) => {
          const shared = sharing(principals);
          return (
            <>
              <p class="note">
                {shared.length === 0
                  ? "Each role was used by one principal."
                  : shared.map(([role, n], place) => (
                      <span key={role}>
                        {place > 0 && "; "}
                        <a href={link("principals", { role })}>
                          <code>{inOneLine(role)}</code>
                        </a>{" "}
                        is shared by {plural(n, "principal")}
                      </span>
                    ))}
              </p>
              <Table
                label="Principals"
                rows={principals.slice(0, SHOWN)}
                id={(p) => p.principal ?? "unknown"}
                open={(p) => go("principal", { name: p.principal ?? "unknown", since: since() })}
                columns={[
                  { title: "Principal", class: "grow", cell: (p) => <Who principal={p.principal} confidence={p.confidence} fresh={newcomers?.first.get(p.principal ?? "")} sub={principalNote(p)} /> },
                  { title: "Role", class: "hide-s", cell: (p) => <code>{<Names of={p.roles} most={3} />}</code> },
                  { title: "Statements", class: "n", cell: (p) => number(p.statements) },
                  { title: "Rows out", class: "n", cell: (p) => number(p.rows) },
                  { title: "Objects", class: "n hide-s", cell: (p) => <span title={(p.objects ?? []).map(inOneLine).join("\n")}>{number((p.objects ?? []).filter(Boolean).length)}</span> },
                ]}
              />
              <Capped when={principals.length > SHOWN} what={`The busiest ${SHOWN} of ${principals.length >= 1000 ? "1,000 or more" : principals.length}.`} />
              {principals.length > SHOWN && <p class="note"><a href={link("principals")}>all principals</a></p>}
            </>
          );
        }}
      </Answer>
    </Panel>
  );
}

/** Roles that more than one principal used, by how many. */
export function sharing(principals: Principal[]): [string, number][] {
  const users = new Map<string, number>();
  for (const p of principals) for (const role of p.roles ?? []) if (role) users.set(role, (users.get(role) ?? 0) + 1);
  return [...users].filter(([, n]) => n > 1).sort((a, b) => b[1] - a[1]);
}

export function principalNote(p: Principal): string {
  if (!p.principal || p.principal === "unknown") return inOneLine(p.reason ?? "why is not known");
  return inOneLine([p.method, p.command_line || p.exe].filter(Boolean).join(" · "));
}

const SHOWN = 12;
