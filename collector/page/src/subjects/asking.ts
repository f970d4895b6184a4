// From a value to a question in tokens, as collector/src/who.rs does it.
//
// Owns what the question cannot reach: keys that are not at hand, and rules by which the value cannot surely be read.

import type { Made, Sought } from "../answers.ts";
import type { Params } from "../route.ts";
import { canonical } from "./canonical.ts";
import { type Key, token } from "./keys.ts";

export interface Asking {
  object: string;
  column: string;
  tokens: Sought[];
  missing: string[];
  unread: string[];
}

export async function asking(object: string, column: string, made: Made[], keys: Key[], value: string): Promise<Asking> {
  const question: Asking = { object, column: columnOf(object, column, made), tokens: [], missing: [], unread: [] };
  for (const one of made) {
    if (one.column !== question.column || one.family == null || one.key == null) continue;
    const form = canonical(one.family, value);
    const key = keys.find((known) => known.id === one.key);
    if (!form) question.unread.push(one.family);
    else if (!key) question.missing.push(one.key);
    else question.tokens.push({ key: one.key, family: one.family, token: await token(key, one.family, form) });
  }
  question.missing = [...new Set(question.missing)].sort();
  question.unread = [...new Set(question.unread)].sort();
  return question;
}

function columnOf(object: string, asked: string, made: Made[]): string {
  if (asked) return asked;
  const known = [...new Set(made.map((one) => one.column))].sort();
  if (known.length === 1) return known[0]!;
  if (known.length === 0) {
    throw new Error(`no agent told whose records of ${object} were touched in that time: is it in the agents' classification, under this name?`);
  }
  throw new Error(`${object} has several identifying columns: name one of ${known.join(", ")}`);
}

/** In the address stand tokens, not the value: with them somebody else can ask the same, without the key. */
export const inAddress = (of: Asking): Params => ({
  object: of.object,
  column: of.column,
  tokens: of.tokens.map((one) => [one.key, one.family, one.token].join("~")).join(","),
  missing: of.missing.join(","),
  unread: of.unread.join(","),
});

export function ofAddress(params: Params): Asking | null {
  const { object, column, tokens, missing, unread } = params;
  if (!object || !column || (!tokens && !missing && !unread)) return null;
  const list = (text: string | undefined): string[] => (text ? text.split(",") : []);
  const sought = list(tokens).map((one) => one.split("~"));
  return {
    object,
    column,
    tokens: sought.filter((one) => one.length === 3).map(([key, family, of]) => ({ key: key!, family: family!, token: of! })),
    missing: list(missing),
    unread: list(unread),
  };
}
