// What stands around every view: the ways between them, the search, the time, the theme, and who is asking.

import type { ComponentChildren, JSX } from "preact";
import { useEffect } from "preact/hooks";
import { admitted, me, purpose, setPurpose } from "../access.ts";
import { introduction } from "../api.ts";
import { help, VIEWS } from "../keys.ts";
import { change, link, route, since } from "../route.ts";
import { choose, isDark, next, painted } from "../theme.ts";
import { WINDOWS } from "../time.ts";
import { entry, visible } from "../visible.ts";
import { Search } from "./search.tsx";

const OF: Record<string, string> = { principal: "principals", object: "objects", session: "trail", event: "trail" };

export function Shell({ title, children }: { title: string; children: ComponentChildren }): JSX.Element {
  const view = route.value.view;
  const current = entry(OF, view) ?? view;
  useEffect(() => {
    scrollTo(0, 0);
    // On a phone the ways stand in a line that is longer than the screen.
    document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [view]);
  useEffect(() => void introduction(), [admitted.value]);
  return (
    <div class="app">
      <a class="skip" href="#main" onClick={skip}>
        to the content
      </a>
      <nav aria-label="Views">
        <div class="brand">
          pg<span>witness</span>
        </div>
        {VIEWS.map((one) => (
          <a key={one.view} href={link(one.view)} aria-current={one.view === current ? "page" : undefined} aria-keyshortcuts={`g ${one.key}`}>
            {one.title} <kbd>{one.key}</kbd>
          </a>
        ))}
        <div class="foot">
          <label>
            why you ask
            <input type="text" value={purpose.value} placeholder="ticket, incident" maxLength={200} onChange={(at) => setPurpose(at.currentTarget.value)} />
          </label>
          <p>
            <a href={link("trail", { kind: "access" })}>Your questions are recorded, too.</a>
          </p>
          {me.value && (
            <p>
              As <b>{visible(me.value.user)}</b>
              {me.value.role ? `, ${visible(me.value.role)}` : ""}
            </p>
          )}
        </div>
      </nav>
      <main id="main" tabIndex={-1}>
        <header class="bar">
          <h1>{title}</h1>
          <Search />
          <label class="pill">
            <span class="hide-s">time, UTC </span>
            <select id="window" aria-label="Time" value={since()} onChange={(at) => change({ since: at.currentTarget.value, from: null, until: null })}>
              {WINDOWS.some(([value]) => value === since()) ? null : <option value={since()}>{since()}</option>}
              {WINDOWS.map(([value, name]) => (
                <option key={value} value={value}>
                  {name}
                </option>
              ))}
            </select>
          </label>
          <Theme />
          <button type="button" class="pill" aria-label="Help: keys" onClick={() => (help.value = true)}>
            ?
          </button>
        </header>
        {children}
      </main>
    </div>
  );
}

function Theme(): JSX.Element {
  void painted.value;
  return (
    <button type="button" class="pill" id="theme" onClick={() => choose(next())} title="The system's, until you choose">
      {isDark() ? "light" : "dark"}
    </button>
  );
}

/** The address is the page's own: a fragment would be taken for a view. */
function skip(at: MouseEvent): void {
  at.preventDefault();
  document.querySelector<HTMLElement>("#main")?.focus();
}
