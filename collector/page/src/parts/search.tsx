// One field for whatever somebody has in hand: part of a principal or of an object, a role, the id of an event or of a session, or a record's key.
//
// Owns where each leads. A key's value goes into the form of the records view by memory, never into the address.

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get } from "../api.ts";
import type { Principal } from "../answers.ts";
import { named } from "../principal.ts";
import { go, since } from "../route.ts";
import { sinceText } from "../time.ts";
import { inOneLine } from "../visible.ts";
import { Chips } from "./text.tsx";

interface Found {
  what: string;
  name: string;
  more: string;
  /** Of a principal: how it is known. */
  confidence?: (string | null)[] | null;
  open: () => void;
}

/** What was typed as `key:OBJECT=VALUE`, for the records view to take. */
export const soughtKey = signal<{ object: string; value: string } | null>(null);

export function Search(): JSX.Element {
  const [text, type] = useState("");
  const [known, know] = useState<Principal[] | null>(null);
  const [at, move] = useState(0);
  const learn = (): void => {
    if (known) return;
    get<{ principals: Principal[] }>(`/api/v1/principals?since=${encodeURIComponent(sinceText(since()))}`).then(
      (answer) => know(answer.principals),
      () => know([]),
    );
  };
  const found = text.trim() ? find(text.trim(), known ?? []) : [];
  const choose = (one: Found | undefined): void => {
    if (!one) return;
    type("");
    know(null);
    (document.activeElement as HTMLElement | null)?.blur();
    one.open();
  };
  const keys = (key: KeyboardEvent): void => {
    if (key.key === "ArrowDown" || key.key === "ArrowUp") {
      key.preventDefault();
      move((n) => Math.max(0, Math.min(found.length - 1, n + (key.key === "ArrowDown" ? 1 : -1))));
    } else if (key.key === "Enter") {
      key.preventDefault();
      choose(found[Math.min(at, found.length - 1)]);
    } else if (key.key === "Escape") type("");
  };
  return (
    <div class="search">
      <input
        id="search"
        type="search"
        role="combobox"
        list={undefined}
        aria-label="Search"
        aria-expanded={found.length > 0}
        aria-controls="found"
        aria-activedescendant={found.length > 0 ? `found-${Math.min(at, found.length - 1)}` : undefined}
        placeholder="principal, object, role, event, key:customers=42   ( / )"
        autocomplete="off"
        spellcheck={false}
        value={text}
        onFocus={learn}
        onInput={(input) => {
          type(input.currentTarget.value);
          move(0);
        }}
        onKeyDown={keys}
      />
      <ul id="found" role="listbox" aria-label="Found" hidden={found.length === 0}>
        {found.map((one, n) => (
          <li key={`${one.what} ${one.name}`} id={`found-${n}`} role="option" aria-selected={n === at} onMouseDown={(down) => (down.preventDefault(), choose(one))}>
            <span class="sub">{one.what}</span> {inOneLine(one.name)} {one.what === "principal" && <Chips of={one.confidence} />} <span class="sub">{inOneLine(one.more)}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}

function find(text: string, principals: Principal[]): Found[] {
  const window = since();
  const record = /^key:([^=]+)=(.*)$/s.exec(text);
  if (record) {
    const open = (): void => {
      soughtKey.value = { object: record[1]!.trim(), value: record[2]! };
      go("records", { object: record[1]!.trim(), since: window });
    };
    return [{ what: "record", name: `of ${record[1]}`, more: "the value stays in this page", open }];
  }
  const part = text.toLowerCase();
  const has = (one: string | null): one is string => one != null && one.toLowerCase().includes(part);
  const unique = (of: (string | null)[]): string[] => [...new Set(of.filter(has))].slice(0, MOST);
  const found: Found[] = principals
    .filter((p) => has(p.principal))
    .slice(0, MOST)
    .map((p) => ({ what: "principal", name: named(p.principal).name, more: named(p.principal).host, confidence: p.confidence, open: () => go("principal", { name: p.principal, since: window }) }));
  const objects = unique(principals.flatMap((p) => p.objects ?? []));
  found.push(...objects.map((name) => ({ what: "object", name, more: "", open: () => go("object", { name, since: window }) })));
  const roles = unique(principals.flatMap((p) => p.roles ?? []));
  found.push(...roles.map((name) => ({ what: "role", name, more: "who used it", open: () => go("principals", { role: name, since: window }) })));
  // An event's id ends in a number; a session's is eight characters of the boot id and a cookie in hexadecimal.
  if (/^\S+-\d+$/.test(text)) found.push({ what: "event", name: text, more: "", open: () => go("event", { id: text, since: window }) });
  if (/^[0-9a-f]{8}-[0-9a-f]+$/.test(text)) found.push({ what: "session", name: text, more: "", open: () => go("session", { id: text, since: window }) });
  found.push({ what: "trail", name: text, more: "principals that have it in their name", open: () => go("trail", { principal: text, since: window }) });
  found.push({ what: "object", name: text, more: "exactly this name", open: () => go("object", { name: text, since: window }) });
  return found;
}

const MOST = 5;
