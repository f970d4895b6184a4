// Where the reader is. Everything that decides what is shown stands in the address, so that it can be sent to somebody else.
//
// Owns the form `#/view?name=value`. Values of records never come in here: an address is kept in histories.

import { signal } from "@preact/signals";

export type Params = Record<string, string>;

export interface Route {
  view: string;
  params: Params;
}

export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return { view: path || "overview", params: Object.fromEntries(new URLSearchParams(query)) };
}

export function href(view: string, params: Record<string, string | null | undefined> = {}): string {
  const kept = Object.entries(params).filter((one): one is [string, string] => one[1] != null && one[1] !== "");
  const query = new URLSearchParams(kept).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

export const route = signal<Route>(parse(location.hash));

addEventListener("hashchange", () => {
  route.value = parse(location.hash);
});

export function go(view: string, params: Record<string, string | null | undefined> = {}): void {
  location.hash = href(view, params);
}

/** Other values for some parameters; null takes one away. `quietly`: going back does not come by here again. */
export function change(params: Record<string, string | null>, quietly = false): void {
  const to = href(route.value.view, { ...route.value.params, ...params });
  if (to === location.hash) return;
  if (quietly) {
    history.replaceState(null, "", to);
    route.value = parse(to);
  } else location.hash = to;
}

/** The window that all views share. */
export const since = (): string => route.value.params.since ?? "24h";

/** A link that keeps the window. */
export const link = (view: string, params: Record<string, string | null | undefined> = {}): string =>
  href(view, { since: route.value.params.since, ...params });
