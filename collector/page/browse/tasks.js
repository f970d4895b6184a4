// What an auditor comes for, by keyboard alone.
//
// Owns the order of keys, and what must come of them: each answer is held against the API's own, asked apart from the page.

import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { ask, goTo, open, picture, rows, settled, tabTo, watchedAll } from "./tools.js";

const run = promisify(execFile);

export async function tasks(chrome, options, checks) {
  const { page, context, seen } = await open(chrome, options, checks, { hash: `#/overview?since=${encodeURIComponent(options.since)}` });
  await settled(page);
  await checks.step("every figure of the overview is the API's", () => figures(page, seen, checks));
  await checks.step("who read customer 42", () => customer(page, options, checks));
  let session = null;
  await checks.step("the program behind app_user that is new", async () => {
    session = await newcomer(page, options, checks);
  });
  await checks.step("one session, followed", () => follow(page, options, checks, session));
  await checks.step("failed logins, and the link to them", () => failedLogins(chrome, page, options, checks));
  await checks.step("live, paused and resumed", () => live(page, options, checks));
  await checks.step("the evidence verifies", () => verify(page, options, checks));
  await checks.step("a proof, and its check", () => proof(page, options, checks));
  await checks.step("what was not seen", () => gap(page, options, checks));
  await checks.step("light and dark", () => themes(page, checks));
  watchedAll(checks, seen, await page.evaluate(() => globalThis.__violations), "the tasks");
  await context.close();
}

async function figures(page, seen, checks) {
  await page.waitForSelector("[data-figure=statements]");
  // What was answered last, and what is shown: taken together, because the page asks again and again.
  let [shown, answer] = [[], null];
  for (let n = 0; n < 20; n += 1) {
    answer = seen.overview;
    shown = await page.evaluate(() => [...document.querySelectorAll("[data-figure]")].map((one) => [one.dataset.figure, Number(one.dataset.value), one.textContent]));
    // An answer that has just come is shown a moment later.
    if (shown.some(([name, value]) => name === "statements" && value === answer.statements)) break;
    await page.waitForTimeout(50);
  }
  checks.that(shown.length >= 8, `${shown.length} figures are shown`);
  const group = (n) => n.toLocaleString("en-US");
  const compact = (n) => (n < 1e6 ? group(n) : n < 1e9 ? `${(Math.floor(n / 1e4) / 100).toFixed(2)} M` : `${(Math.floor(n / 1e7) / 100).toFixed(2)} bn`);
  const text = (name, n) => {
    if (name === "bytes_missing") {
      if (n === 0 && answer.gaps_of_unknown_size) return "not known";
      let unit = 0;
      let size = n;
      for (; size >= 1024 && unit < 4; unit += 1) size /= 1024;
      return `${unit ? size.toFixed(1) : size} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
    }
    if (name === "attributed") {
      const { attributed, statements } = answer;
      if (!statements) return "–";
      return attributed === statements ? "100 %" : `${(Math.floor((attributed / statements) * 10_000) / 100).toFixed(2)} %`;
    }
    return ["errors", "principals", "auth_failures", "gaps", "gaps_of_unknown_size", "opaque_sessions"].includes(name) ? group(n) : compact(n);
  };
  for (const [name, value, words] of shown) {
    checks.same(value, answer[name] ?? 0, `${name} is the API's`);
    checks.same(words, text(name, value), `${name} is shown as ${words}`);
  }
}

async function customer(page, options, checks) {
  if (!options.keys) return void checks.that(false, "no --token-key FILE was given: the value cannot become tokens");
  const sent = [];
  const listen = (request) => sent.push(`${request.url()} ${request.postData() ?? ""}`);
  page.on("request", listen);
  await page.keyboard.press("/");
  await page.keyboard.type(`key:${options.object}=${options.key}`);
  await page.keyboard.press("Enter");
  await page.waitForSelector("textarea[name=keys]");
  await tabTo(page, "textarea[name=keys]");
  const keys = await readFile(options.keys, "utf8");
  await page.keyboard.type(keys.trim());
  await tabTo(page, "form[aria-label=Record] button");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".limits", { timeout: 30_000 });
  await settled(page);
  page.off("request", listen);
  const secret = keys.trim().split(/\s+/)[1];
  checks.that(!sent.some((one) => one.includes(secret)), "the key is in no request");
  checks.that(!sent.some((one) => new RegExp(`[^0-9a-f]${options.key}[^0-9a-f]`).test(one.replace(/since_ns":\d+/, ""))), "the value is in no request");
  checks.that(!page.url().includes(secret) && !decodeURIComponent(page.url()).includes(`=${options.key}`), "neither is in the address");
  // Of a long list only what is looked at is in the page.
  const found = await page.$$eval("[aria-label='Who touched it'] tbody tr:not(.space)", (all) => all.map((row) => [row.querySelector(".who").title, row.querySelector("td.n").textContent]));
  const counted = await page.$eval("[aria-label='Who touched it'] table", (one) => Number(one.getAttribute("aria-rowcount") ?? one.querySelectorAll("tr").length) - 1);
  checks.that(found.length > 0, `${counted} sorts of statements touched it`);
  await picture(page, options, "task-customer");
  if (!options.collector) return void checks.note("no --collector BIN: not compared with the command");
  const asked = ["who", "--object", options.object, "--key", options.key, "--token-key", options.keys, "--url", options.url, "--json", ...(options.since === "all" ? [] : ["--since", options.since])];
  const { stdout } = await run(options.collector, asked, { env: { ...process.env, PGWITNESS_TOKEN: options.token ?? "" } }).catch(withoutToken(options, asked));
  const told = JSON.parse(stdout).touched.map((row) => [row.principal, Number(row.statements).toLocaleString("en-US")]);
  checks.same([counted, found], [told.length, told.slice(0, found.length)], "the page says what the command says");
}

/** An empty token is not the same as none. */
const withoutToken = (options, asked) => async (error) => {
  if (options.token) throw error;
  const { PGWITNESS_TOKEN: _, ...env } = process.env;
  return run(options.collector, asked, { env });
};

async function newcomer(page, options, checks) {
  await goTo(page, "o");
  await page.evaluate((since) => (location.hash = `#/overview?since=${encodeURIComponent(since)}`), options.newSince);
  await settled(page);
  const expected = rows(await ask(options, "/api/v1/new-edges", { since_ns: Math.floor(Date.parse(options.newSince) || Date.now() - 86_400_000) * 1e6 }));
  if (expected.length === 0) return void checks.that(false, `nothing is new since ${options.newSince}: choose another --new-since`);
  const table = "[aria-label='New edges'] tr[data-row]";
  await page.waitForSelector(table);
  const named = await page.$$eval(`${table} .who`, (all) => all.map((one) => one.title));
  checks.same(named, expected.slice(0, named.length).map((edge) => edge.principal ?? "unknown"), "the new edges are the API's, newest first");
  // Down by j to the first of them, and open it.
  await page.keyboard.press("Escape");
  for (let n = 0; n < 200; n += 1) {
    await page.keyboard.press("j");
    if (await page.evaluate((one) => document.activeElement?.matches(one) ?? false, table)) break;
  }
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog.drawer .chain");
  const told = await page.$eval("dialog.drawer", (one) => one.innerText);
  checks.that(told.includes(options.role), `its event says that it used ${options.role}`);
  checks.that(/observed|joined|inferred|none/.test(told), "and how its name is known");
  const session = await page.$eval("dialog.drawer a[href*='#/session']", (one) => one.textContent);
  await picture(page, options, "task-newcomer");
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog.drawer", { state: "detached" });
  checks.that(!page.url().includes("event="), "Escape closes it, and the address says so");
  return session;
}

async function follow(page, options, checks, session) {
  if (!session) return void checks.that(false, "no session is known to follow");
  await page.keyboard.press("/");
  await page.keyboard.type(session);
  await page.waitForFunction((id) => [...document.querySelectorAll("#found li")].some((one) => one.textContent.includes("session") && one.textContent.includes(id)), session);
  const place = await page.$$eval("#found li", (all) => all.findIndex((one) => one.textContent.startsWith("session")));
  for (let n = 0; n < place; n += 1) await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.waitForSelector("[aria-label=Timeline] tr[data-row]");
  const answer = rows(await ask(options, "/api/v1/timeline", { session, limit: 500 }));
  const shown = await page.$$eval("[aria-label=Timeline] tr[data-row] td:first-child time", (all) => all.map((one) => one.dateTime));
  checks.same(shown, answer.slice(0, shown.length).map((one) => one.ts_start), `its ${answer.length} events stand in the API's order`);
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog.drawer");
  checks.that(decodeURIComponent(page.url()).includes(`event=${answer[1]?.event_id ?? answer[0].event_id}`), "Enter opens the second event");
  await settled(page);
  await picture(page, options, "task-session");
  await page.keyboard.press("Escape");
}

async function failedLogins(chrome, page, options, checks) {
  await page.evaluate((since) => (location.hash = `#/overview?since=${encodeURIComponent(since)}`), options.since);
  await goTo(page, "t");
  await page.keyboard.press("f");
  await tabTo(page, "select[data-filter=kind]");
  await page.keyboard.type("failed");
  await page.waitForFunction(() => location.hash.includes("kind=auth_failure"));
  await settled(page);
  const ids = (of) => of.$$eval("[aria-label=Events] tr[data-row] time", (all) => all.map((one) => one.dateTime));
  const found = await ids(page);
  const { events } = await ask(options, `/api/v1/events?kind=auth_failure&limit=300&since=${encodeURIComponent(options.since === "all" ? "10000d" : options.since)}`);
  checks.same(found, events.map((one) => one.ts_start).slice(0, found.length), `${found.length} failed logins, as the API has them`);
  checks.that(found.length === Math.min(events.length, found.length) && (found.length > 0 || events.length === 0), events.length ? "there are some" : "there are none in this record");
  await picture(page, options, "task-failed-logins");
  const other = await open(chrome, options, checks, { hash: new URL(page.url()).hash });
  await settled(other.page);
  checks.same(await ids(other.page), found, "whoever opens the link sees the same");
  await other.context.close();
}

/** Questions to the record are events of it, too: so something comes live whenever it is wanted. */
async function live(page, options, checks) {
  // Out of the field that the step before was in.
  await page.keyboard.press("Escape");
  await page.evaluate(() => (location.hash = "#/trail?kind=access&since=15m"));
  await settled(page);
  const newest = () => page.$eval("[aria-label=Events] tr[data-row] time", (one) => one.dateTime).catch(() => "");
  const question = () => ask(options, "/api/v1/query", { sql: `SELECT ${Math.floor(Math.random() * 1e9)} AS n` });
  await page.waitForFunction(() => document.querySelector("[role=status].state-ok") != null, null, { timeout: 10_000 });
  const before = await newest();
  await question();
  await page.waitForFunction((old) => document.querySelector("[aria-label=Events] tr[data-row] time")?.dateTime > old, before, { timeout: LIVE_MS });
  checks.that(true, "what happens comes by itself");
  await page.keyboard.press(" ");
  await page.waitForSelector("button[aria-pressed=true]");
  const held = await newest();
  await question();
  await page.waitForFunction(() => /paused · \d+ new/.test(document.querySelector("[aria-label='Live trail'] small")?.textContent ?? ""), null, { timeout: LIVE_MS });
  checks.same(await newest(), held, "paused, the list stays, and what came is counted");
  await page.keyboard.press(" ");
  await page.waitForFunction((old) => document.querySelector("[aria-label=Events] tr[data-row] time")?.dateTime > old, held, { timeout: LIVE_MS });
  checks.that(true, "resumed, it is there");
}

async function verify(page, options, checks) {
  await goTo(page, "e");
  await tabTo(page, "[data-verify]");
  await page.keyboard.press("Enter");
  await page.waitForSelector("[data-verdict],#verify [role=alert],#verify [role=note]", { timeout: 120_000 });
  const verdict = await page.$eval("#verify", (one) => one.querySelector("[data-verdict]")?.dataset.verdict ?? one.innerText);
  await picture(page, options, "task-verify");
  checks.same(verdict, "ok", "the verdict in the page");
}

async function proof(page, options, checks) {
  await goTo(page, "e");
  // Not the newest: on a record that grows it is under no checkpoint yet, which the page says.
  const { events } = await ask(options, "/api/v1/events?kind=query&limit=300");
  const id = events.at(-1)?.event_id;
  if (!id) return void checks.that(false, "no statement is on record");
  await page.keyboard.press("f");
  await page.keyboard.type(id);
  await page.keyboard.press("Enter");
  await tabTo(page, "[data-download=proof]");
  const coming = page.waitForEvent("download", { timeout: 15_000 });
  await page.keyboard.press("Enter");
  const file = join(options.out ?? tmpdir(), `${id}.proof.json`);
  const download = await coming;
  await download.saveAs(file);
  JSON.parse(await readFile(file, "utf8"));
  checks.that(true, "the proof is a file of JSON");
  if (!options.collector) return void checks.note("no --collector BIN: the proof is not checked");
  const checked = await run(options.collector, ["verify", "--proof", file, ...(options.originKey ? ["--origin-key", options.originKey] : [])]);
  checks.that(true, `verify --proof accepts it: ${checked.stdout.split("\n")[0]}`);
  const forged = file.replace(".json", ".forged.json");
  await writeFile(forged, (await readFile(file, "utf8")).replace(/[0-9]{6}/, (digits) => digits.split("").reverse().join("").replace(/^./, "7")));
  const refused = await run(options.collector, ["verify", "--proof", forged, ...(options.originKey ? ["--origin-key", options.originKey] : [])]).then(() => false, () => true);
  checks.that(refused, "and refuses it once it was changed");
}

async function gap(page, options, checks) {
  await page.evaluate((since) => (location.hash = `#/overview?since=${encodeURIComponent(since)}`), options.since);
  await goTo(page, "c");
  const answer = await ask(options, "/api/v1/query", { sql: "SELECT count(*) AS n, max(ts_start) FROM gaps" });
  const [count, last] = answer.rows[0];
  if (count === 0) return checks.note("this record has no gap: nothing to show");
  // Of the time that is looked at, there may be none.
  if ((await page.$$("[aria-label=Gaps] tr[data-row]")).length === 0) {
    await page.evaluate((since) => (location.hash = `#/coverage?since=${encodeURIComponent(since)}`), new Date(Date.parse(last) - 3_600_000).toISOString());
    await settled(page);
  }
  const listed = await page.$$("[aria-label=Gaps] tr[data-row]");
  checks.that(listed.length > 0, `gaps are listed (${count} on record)`);
  checks.that((await page.$$(".of-gap")).length > 0, "and shaded in the chart");
  await picture(page, options, "task-gaps");
}

async function themes(page, checks) {
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const before = await ground();
  await page.keyboard.press("Escape");
  await page.keyboard.press("d");
  const after = await ground();
  checks.that(before !== after, "d turns light to dark");
  await page.reload();
  await page.waitForSelector("nav .foot");
  checks.same(await ground(), after, "the choice is kept");
  await page.keyboard.press("d");
  checks.same(await ground(), before, "and back");
  await page.keyboard.press("?");
  await page.waitForSelector("dialog[open]");
  checks.that(await page.$eval("dialog[open]", (one) => one.innerText.includes("next and previous row")), "? shows the keys");
  await page.keyboard.press("Escape");
}

/** Questions that are alike are told together, once in a while. */
const LIVE_MS = 40_000;
