// Every text in every answer replaced by what somebody would send who wants to run something in the reader's browser.
//
// Owns the replacing: answers are the collector's own, with each text but times and names of columns exchanged for one of the corpus, so
// that no field is trusted because it looked harmless in a test.

import { readFile } from "node:fs/promises";
import { open, picture, settled, watchedAll } from "./tools.js";
import { addresses } from "./views.js";

const CORPUS = (await readFile(new URL("xss.txt", import.meta.url), "utf8")).split("\n").filter((line) => line && !line.startsWith("#"));

/** What says how an answer is read, and not what is in it. */
const KEPT = new Set(["columns", "ts_start", "ts_end", "first_seen", "last_seen", "first", "t", "event_id", "first_event", "last_event", "checkpoint", "last_seen_seconds", "time"]);
const IS_TIME = /^\d{4}-\d\d-\d\dT[\d:.]+Z$/;

export async function hostile(chrome, options, checks) {
  const all = await addresses(options);
  const { page, context, seen } = await open(chrome, options, checks, { hash: "#/evidence" });
  let turn = 0;
  const swap = (value, name = "") => {
    if (typeof value === "string") {
      if (KEPT.has(name) || IS_TIME.test(value)) return value;
      if (name === "event") return JSON.stringify(swap(JSON.parse(value)));
      // Of a kind, the views' own branches must still be reached.
      if (name === "kind" && turn % 3 !== 0) return (turn += 1), value;
      turn += 1;
      return CORPUS[turn % CORPUS.length];
    }
    if (Array.isArray(value)) return value.map((one) => swap(one, name));
    if (value && typeof value === "object") {
      if (Array.isArray(value.columns) && Array.isArray(value.rows)) {
        return { ...value, rows: value.rows.map((row) => row.map((cell, n) => swap(cell, value.columns[n]))) };
      }
      return Object.fromEntries(Object.entries(value).map(([key, of]) => [key, swap(of, key)]));
    }
    return value;
  };
  await page.route("**/api/v1/**", async (route) => {
    if (route.request().url().includes("/live")) return route.continue();
    const response = await route.fetch();
    if (!response.headers()["content-type"]?.includes("json")) return route.fulfill({ response });
    await route.fulfill({ response, json: swap(await response.json()) });
  });
  let shown = "";
  for (const [name, hash] of Object.entries(all)) {
    await checks.step(`hostile texts in ${name}`, async () => {
      await page.evaluate((to) => (location.hash = to), hash);
      await settled(page);
      await page.mouse.move(640, 400);
      shown += await page.evaluate(() => [document.body.innerText, ...[...document.querySelectorAll("[title]")].map((one) => one.title)].join("\n"));
      await picture(page, options, `hostile-${name}`);
      const made = await page.evaluate(() => ({
        ran: globalThis.__ran ?? null,
        // What texts used as names could have put into every object.
        polluted: Object.keys(Object.prototype).concat(Object.keys(Function.prototype), Object.keys(Array.prototype)),
        elements: [...document.querySelectorAll("iframe,object,embed,math,base,form[action],meta[http-equiv],link:not([href='/style.css']):not([href='/icon.svg']),script:not([src='/app.js']),style,[onload],[onerror],[onmouseover],[srcdoc]")].map((one) => one.outerHTML.slice(0, 80)),
        links: [...document.querySelectorAll("a[href]")].map((one) => one.getAttribute("href")).filter((href) => !href.startsWith("#") && href !== null),
      }));
      checks.same(made, { ran: null, polluted: [], elements: [], links: [] }, "nothing ran, no element and no foreign link was made of a text");
    });
  }
  const told = (text) => text.replace(/[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`);
  const missing = CORPUS.filter((text) => !shown.includes(told(text)));
  checks.same(missing, [], `all ${CORPUS.length} texts are shown, hidden characters escaped`);
  watchedAll(checks, { ...seen, errors: seen.errors }, await page.evaluate(() => globalThis.__violations), "hostile texts");
  await context.close();
}
