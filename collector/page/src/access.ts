// Who is asking, and why: the token, the purpose, and what the collector said of the role.
//
// Owns where they are kept: for this tab alone. The token goes nowhere but into a header of requests to the collector itself.

import { signal } from "@preact/signals";

const kept = (name: string): string => {
  try {
    return sessionStorage.getItem(name) ?? "";
  } catch {
    return "";
  }
};

const keep = (name: string, value: string): void => {
  try {
    sessionStorage.setItem(name, value);
  } catch {
    /* kept for this view */
  }
};

let token = kept("token");

/** Why a token is wanted; null: none is. An empty text: none was given yet. */
export const tokenWanted = signal<string | null>(null);

/** Goes up with each token: what was asked without is asked anew. */
export const admitted = signal(0);

/** Kept in the record with each question. */
export const purpose = signal(kept("purpose"));


/** As whom the record has what is asked; null: not known (yet). */
export const me = signal<{ user: string; role: string | null } | null>(null);

const ROLES = ["viewer", "analyst", "auditor", "admin"];

/** Why a place that needs `role` would be refused; null: it would not, as far as is known. */
export function tooLow(role: string): string | null {
  const known = me.value;
  if (!known?.role || !ROLES.includes(known.role)) return refusedRoles.get(role) ?? null;
  return ROLES.indexOf(known.role) < ROLES.indexOf(role) ? `this needs the role ${role}, and the role of ${known.user} is ${known.role}` : null;
}

/** Roles that were refused under this token: each question in vain is an event of the record. */
const refusedRoles = new Map<string, string>();

export function wasRefused(role: string | null, why: string): void {
  if (role) refusedRoles.set(role, why);
}

export function authorization(): Record<string, string> {
  const headers: Record<string, string> = token ? { Authorization: `Bearer ${token}` } : {};
  // A header takes no other characters; the collector reads bytes.
  if (purpose.value) headers["x-pgwitness-purpose"] = purpose.value.replace(/[^\x20-\x7e]/g, "?");
  return headers;
}

export const hasToken = (): boolean => token !== "";

export function useToken(given: string): void {
  token = given.trim();
  keep("token", token);
  tokenWanted.value = null;
  refusedRoles.clear();
  me.value = null;
  admitted.value += 1;
}

export function setPurpose(text: string): void {
  purpose.value = text;
  keep("purpose", text);
}
