// Names of principals, and how sure they are.
//
// Owns what is shown in front and what beside: "spiffe://domain/host/db1/unit/shop.service" reads "unit/shop.service", on db1.

import type { Level } from "./answers.ts";

export const UNKNOWN = "unknown";

export interface Named {
  name: string;
  host: string;
}

export function named(principal: string | null | undefined): Named {
  if (!principal || principal === UNKNOWN) return { name: UNKNOWN, host: "" };
  if (!principal.startsWith("spiffe://")) return { name: principal, host: "" };
  const path = principal.slice(9).split("/").slice(1);
  if (path[0] === "host" && path.length > 2) return { name: path.slice(2).join("/"), host: path[1] ?? "" };
  return path.length > 0 ? { name: path.join("/"), host: "" } : { name: principal, host: "" };
}

export const LEVELS: Level[] = ["observed", "joined", "inferred", "asserted", "none"];

/** What a level means, in a sentence. */
export const MEANS: Record<Level, string> = {
  observed: "observed: one kernel saw both ends of this very socket",
  joined: "joined: two observations that belong together for sure",
  inferred: "inferred: from an address, or from who held the connection; the only one that fits, and not exact",
  asserted: "asserted: the client said so, and nobody checked",
  none: "none: nobody is named; the reason is told",
};

export const level = (text: string | null | undefined): Level => (LEVELS.includes(text as Level) ? (text as Level) : "none");

/** What a name of that kind does not say. */
export const NOTES: Record<string, string> = {
  container: "This names the container. The person whose request it served is not visible on the wire.",
  unit: "This names the service. The person whose request it served is not visible on the wire.",
  process: "This names the program. The person whose request it served is not visible on the wire.",
  remote: "This names an address only: no agent runs there.",
};
