// Every view: what axe says of it, whether it fits, how it looks, how fast it comes, and how much it is.

import { gzipSync } from "node:zlib";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { ask, open, picture, settled, watchedAll } from "./tools.js";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Names of views and their addresses, with something real in each. */
export async function addresses(options) {
  const since = `since=${encodeURIComponent(options.since)}`;
  const { principals } = await ask(options, `/api/v1/principals?since=${encodeURIComponent(options.since === "all" ? "10000d" : options.since)}`);
  const { events } = await ask(options, "/api/v1/events?kind=query&limit=50");
  const event = events.find((one) => one.attribution?.hops?.length) ?? events[0];
  const object = principals.flatMap((one) => one.objects ?? []).find(Boolean) ?? "none";
  const made = await ask(options, "/api/v1/subjects", { object: options.object }).catch(() => []);
  const of = (view, query = {}) => `#/${view}?${since}&${new URLSearchParams(query)}`;
  const one = made.find((entry) => entry.family);
  const tokens = one ? `${one.key}~${one.family}~${"0".repeat(32)}` : "";
  return {
    overview: of("overview"),
    trail: of("trail"),
    "trail-event": of("trail", { event: event?.event_id ?? "" }),
    "trail-failed": of("trail", { kind: "auth_failure" }),
    principals: of("principals"),
    principal: of("principal", { name: event?.attribution?.principal ?? "unknown" }),
    "principal-unknown": of("principal", { name: "unknown" }),
    objects: of("objects"),
    object: of("object", { name: object }),
    session: of("session", { id: event?.session?.id ?? "none" }),
    event: of("event", { id: event?.event_id ?? "none-1" }),
    records: of("records"),
    "records-nobody": of("records", { object: options.object, column: one?.column ?? "id", tokens }),
    evidence: of("evidence"),
    coverage: of("coverage"),
    "trail-export": of("trail", { export: "yes" }),
    "trail-access": of("trail", { kind: "access" }),
    questions: of("questions"),
    "questions-new": of("questions", { ask: "new-workloads" }),
    "questions-unexpected": of("questions", { ask: "unexpected" }),
    reports: of("reports"),
    "report-coverage": of("reports", { report: "coverage" }),
    "report-access-review": of("reports", { report: "access-review" }),
    "report-evidence-pack": of("reports", { report: "evidence-pack" }),
    "report-nobody": of("reports", { report: "dsar" }),
    nowhere: of("no-such-view"),
    "nowhere-either": "#/__proto__?since=__proto__&event=constructor",
  };
}

export async function views(chrome, options, checks) {
  const all = await addresses(options);
  for (const [width, theme] of [[1280, "light"], [1280, "dark"], [390, "light"], [390, "dark"]]) {
    await checks.step(`every view at ${width} px, ${theme}`, async () => {
      const { page, context, seen } = await open(chrome, options, checks, { width, theme, hash: all.overview });
      for (const [name, hash] of Object.entries(all)) {
        await page.evaluate((to) => (location.hash = to), hash);
        await settled(page).catch(() => checks.that(false, `${name}: answers come`));
        await picture(page, options, `${name}-${width}-${theme}`);
        const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
        checks.that(wide <= room, `${name}: fits ${width} px`, `${wide} px in ${room}`);
        const bare = await page.evaluate(() => [...document.querySelectorAll("main .who, dialog .who")].filter((one) => one.matches("a") && !one.parentElement.querySelector(".chip")).map((one) => one.textContent));
        checks.same(bare, [], `${name}: no principal without how sure it is`);
        await axe(page, checks, name);
      }
      watchedAll(checks, seen, await page.evaluate(() => globalThis.__violations), `${width} px, ${theme}`);
      await context.close();
    });
  }
  await checks.step("first paint, shifts, sizes, long lists", () => measures(chrome, options, checks, all));
}

export async function axe(page, checks, name) {
  // Through the debugger: the content policy lets in no other script, and stays as it is.
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => (await globalThis.axe.run(document, { resultTypes: ["violations"] })).violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map((node) => `${node.target.join(" ")}: ${node.any[0]?.message ?? node.all[0]?.message ?? ""}`).slice(0, 4) })));
  const grave = found.filter(({ impact }) => impact === "serious" || impact === "critical");
  checks.that(grave.length === 0, `${name}: axe finds nothing serious`, JSON.stringify(grave, null, 1));
  for (const { id, impact, nodes } of found.filter((one) => !grave.includes(one))) checks.note(`${name}: axe, ${impact}: ${id} ${nodes[0]}`);
}

async function measures(chrome, options, checks, all) {
  const script = Buffer.from(await (await fetch(`${options.url}/app.js`)).arrayBuffer());
  const size = gzipSync(script, { level: 9 }).length;
  checks.that(size <= SCRIPT_BYTES, `the script is ${(size / 1024).toFixed(1)} KiB compressed, of at most ${SCRIPT_BYTES / 1024}`);
  const { page, context } = await open(chrome, options, checks, { hash: all.overview });
  await settled(page);
  const [paint, shift] = await page.evaluate(() => [performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null, globalThis.__shift]);
  checks.that(paint != null && paint < PAINT_MS, `first paint after ${Math.round(paint ?? -1)} ms`);
  checks.that(shift < SHIFT, `the layout shifts by ${shift.toFixed(3)}, of less than ${SHIFT}`);
  await page.evaluate((to) => (location.hash = to), all.trail);
  await settled(page);
  const [inPage, counted] = await page.evaluate(() => [document.querySelectorAll("[aria-label=Events] tr[data-row]").length, Number(document.querySelector("[aria-label=Events] table")?.getAttribute("aria-rowcount"))]);
  checks.that(inPage <= 80, `of ${counted - 1} events of the trail, ${inPage} rows are in the page`);
  const before = await page.evaluate(() => document.activeElement?.textContent);
  for (let n = 0; n < 30; n += 1) await page.keyboard.press("j");
  checks.that((await page.evaluate(() => document.activeElement?.dataset.row)) === "29" || counted < 31, "j goes on beyond what is in the page", before);
  await context.close();
}

const SCRIPT_BYTES = 100 * 1024;
const PAINT_MS = 1500;
const SHIFT = 0.1;
