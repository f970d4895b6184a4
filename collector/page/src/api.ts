// Asking the collector.
//
// Owns how many questions are open at once (it answers four of everybody, and eight of one user), and what a refusal means: a wrong token, a
// role that is too low, too much at once, or a mistake. Events come back as they are; nothing here looks into them.

import { admitted, authorization, hasToken, me, tokenWanted, tooLow, wasRefused } from "./access.ts";
import type { Page } from "./answers.ts";

/** Why there is no answer. */
export class Refused extends Error {
  constructor(
    message: string,
    /** HTTP status; 0: nobody answered. */
    readonly status: number,
    /** The role that it takes. */
    readonly role: string | null = null,
  ) {
    super(message);
  }
}

/** In place of a status: whoever asked stopped it. */
export const STOPPED = -1;
export const stopped = (): Refused => new Refused("You stopped it.", STOPPED);

/** What was thrown, as a reason that can be shown. */
export function refusal(error: unknown): Refused {
  if (error instanceof Refused) return error;
  if ((error as Error)?.name === "AbortError") return stopped();
  return new Refused(`the page failed: ${(error as Error)?.message ?? error}`, 0);
}

/** Numbers that no float holds keep their digits. */
export function json(value: unknown): string {
  if (typeof value === "bigint") return value.toString();
  if (Array.isArray(value)) return `[${value.map(json).join(",")}]`;
  if (value && typeof value === "object") {
    const members = Object.entries(value).filter(([, of]) => of !== undefined);
    return `{${members.map(([name, of]) => `${JSON.stringify(name)}:${json(of)}`).join(",")}}`;
  }
  return JSON.stringify(value ?? null);
}

/** One request; the answer's body is not read yet. */
export async function call(path: string, options: RequestInit = {}): Promise<Response> {
  // Without the token that is wanted, each further request would be refused, and counted.
  if (tokenWanted.value != null) throw new Refused("a token is wanted", 401);
  const role = needs(path);
  if (role) {
    await introduction();
    const refused = tooLow(role);
    if (refused) throw new Refused(refused, 403, role);
  }
  let response: Response;
  try {
    const headers = { ...authorization(), ...(options.headers as Record<string, string>) };
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Refused("the collector does not answer: is it running, and is this still its address?", 0);
  }
  if (response.ok) return response;
  const said = (await response.json().catch(() => ({}))) as { error?: string; role?: string };
  const why = said.error ?? `the collector answered ${response.status} to ${path}`;
  if (response.status === 401) tokenWanted.value = hasToken() ? why : "";
  if (response.status === 403) wasRefused(said.role ?? null, why);
  throw new Refused(why, response.status, said.role ?? null);
}

let open = 0;
const waiting: (() => void)[] = [];

async function inTurn<T>(ask: () => Promise<T>): Promise<T> {
  if (open >= AT_ONCE) await new Promise<void>((now) => waiting.push(now));
  else open += 1;
  try {
    return await ask();
  } finally {
    const next = waiting.shift();
    if (next) next();
    else open -= 1;
  }
}

export function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return inTurn(async () => (await call(path, { signal })).json() as Promise<T>);
}

export function post<T>(path: string, question: unknown, signal?: AbortSignal): Promise<T> {
  return inTurn(async () => (await say(path, question, signal)).json() as Promise<T>);
}

/** A question in JSON; the answer's body is not read yet. */
export function say(path: string, question: unknown, signal?: AbortSignal): Promise<Response> {
  return call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: json(question), signal });
}

/** The same, for what is kept as a file: numbers that would lose digits on the way stay texts, where the browser tells their digits. */
export function reported<T>(path: string, question: unknown, signal?: AbortSignal): Promise<T> {
  const digits = (_: string, value: unknown, context?: { source?: string }): unknown =>
    typeof value === "number" && context?.source != null && String(value) !== context.source ? context.source : value;
  return inTurn(async () => JSON.parse(await (await say(path, question, signal)).text(), digits) as T);
}

/** Rows as objects. `truncated` stays on the list, so that nobody forgets to say it. */
export interface Rows<T> {
  rows: T[];
  truncated: boolean;
}

export function rowsOf<T>(page: Page): Rows<T> {
  const rows = page.rows.map((row) => Object.fromEntries(page.columns.map((name, n) => [name, row[n]])) as T);
  return { rows, truncated: page.truncated };
}

export async function query<T>(sql: string, signal?: AbortSignal): Promise<Rows<T>> {
  return rowsOf<T>(await post<Page>("/api/v1/query", { sql }, signal));
}

let introduced: { with: number; done: Promise<void> } | null = null;

/** Asks once for each token who one is: what is asked in vain is an event of the record. A collector that cannot tell is tried. */
export function introduction(): Promise<void> {
  if (introduced?.with !== admitted.value) {
    const ask = async (): Promise<void> => {
      me.value = (await (await call("/api/v1/me")).json()) as { user: string; role: string | null };
    };
    introduced = { with: admitted.value, done: ask().catch(() => undefined) };
  }
  return introduced.done;
}

/** The role that a place takes, as far as the page asks it. */
function needs(path: string): string | null {
  const place = path.split("?")[0] ?? "";
  if (["proof", "verify", "export", "report"].some((name) => place === `/api/v1/${name}`)) return "auditor";
  return ["query", "what", "timeline", "new-edges", "unattributed", "subjects", "who"].some((name) => place === `/api/v1/${name}`) ? "analyst" : null;
}

/** Leaves a place for whoever else asks under the same user. */
const AT_ONCE = 3;
