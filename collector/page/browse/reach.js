// Whether every answer of the API is reached from some view, as the collector's own description of it has them.
//
// Owns the table of places and views. A place that the description has and the table has not is a failure, and so is one that a view does not
// ask when its reader does what the table says.

import { readFile } from "node:fs/promises";
import { ask, open, settled, watchedAll } from "./tools.js";
import { addresses } from "./views.js";

/** `get /path`: [the view, what its reader does there]; or null and why no view asks it. */
export const PLACES = {
  "get /api/v1/overview": ["overview"],
  "get /api/v1/events": ["overview"],
  "get /api/v1/principals": ["principals"],
  "get /api/v1/status": ["coverage"],
  "get /api/v1/live": ["trail"],
  "get /api/v1/evidence": ["evidence"],
  "get /api/v1/me": ["overview"],
  "get /api/v1/openapi.json": ["evidence", (page) => page.click("[data-download=openapi]")],
  "get /metrics": ["evidence", (page) => page.click("[data-download=metrics]")],
  "get /healthz": [null, "for whoever starts and stops the collector: it says one word"],
  "post /api/v1/query": ["overview"],
  "post /api/v1/what": ["principal"],
  "post /api/v1/timeline": ["session"],
  "post /api/v1/new-edges": ["overview", (page) => page.selectOption("#window", "24h")],
  "post /api/v1/unattributed": ["coverage"],
  "post /api/v1/subjects": ["records", sought],
  "post /api/v1/who": ["records-nobody"],
  "post /api/v1/report": ["reports", (page) => page.click("[data-report=coverage]")],
  "post /api/v1/export": ["trail-export", (page) => page.click("[data-export=start]")],
  "get /api/v1/proof": ["event", (page) => page.click("[data-download=proof]")],
  "get /api/v1/verify": ["evidence", (page) => page.click("[data-verify]")],
};

export async function reach(chrome, options, checks) {
  const api = await ask(options, "/api/v1/openapi.json");
  const described = Object.entries(api.paths).flatMap(([path, ways]) => Object.keys(ways).map((way) => `${way} ${path}`));
  checks.same(described.filter((one) => !PLACES[one]), [], `all ${described.length} places of the API have a view, or a reason why not`);
  checks.same(Object.keys(PLACES).filter((one) => !described.includes(one)), [], "and every place in the table is one of the API");
  const all = await addresses(options);
  const { page, context, seen } = await open(chrome, options, checks, { hash: "#/no-such-view" });
  // A file that is asked for is saved by the browser's own way.
  await page.addInitScript(() => delete globalThis.showSaveFilePicker);
  let asked = [];
  page.on("request", (request) => asked.push(`${request.method().toLowerCase()} ${new URL(request.url()).pathname}`));
  for (const place of described.filter((one) => PLACES[one])) {
    const [view, act] = PLACES[place];
    if (view == null) {
      checks.note(`${place}: no view, ${act}`);
      continue;
    }
    await checks.step(`${place} from ${view}`, async () => {
      // Anew, with each: what one view has learned is not asked again for the next.
      await page.goto("about:blank");
      asked = [];
      await page.goto(`${options.url}/${all[view]}`);
      await settled(page);
      await act?.(page, options);
      await page.waitForTimeout(act ? 500 : 0);
      for (let n = 0; n < 40 && !asked.includes(place); n += 1) await page.waitForTimeout(100);
      checks.that(asked.includes(place), `${view} asks ${place}`, [...new Set(asked)].join(", "));
    });
  }
  await checks.step("choices", () => choices(page, options, checks, api, all));
  watchedAll(checks, seen, await page.evaluate(() => globalThis.__violations), "all places");
  await context.close();
}

/** What the API takes as one of several has each of them in the page. */
async function choices(page, options, checks, api, all) {
  const body = (path) => api.paths[path].post.requestBody.content["application/json"].schema;
  const values = (selector, name) => page.$$eval(selector, (found, from) => found.map((one) => one.getAttribute(from)), name);
  await page.evaluate((to) => (location.hash = to), all["trail-export"]);
  await settled(page);
  checks.same(await values("[data-export=format] option", "value"), body("/api/v1/export").properties.format.enum, "every format of exports can be chosen");
  const kinds = (await ask(options, "/api/v1/query", { sql: "SELECT DISTINCT kind FROM events" })).rows.flat();
  const offered = await values("select[data-filter=kind] option", "value");
  checks.same(kinds.filter((kind) => !offered.includes(kind)), [], `each of the ${kinds.length} kinds of events of this record can be filtered for`);
  await page.evaluate((to) => (location.hash = to), all.reports);
  await settled(page);
  const reports = body("/api/v1/report").oneOf.flatMap(({ properties: { report } }) => report.enum ?? [report.const]);
  checks.same((await values("[data-report]", "data-report")).sort(), reports.sort(), "every report can be chosen");
}

async function sought(page, options) {
  await page.fill("input[name=object]", options.object);
  await page.fill("input[name=value]", options.key);
  await page.fill("textarea[name=keys]", options.keys ? (await readFile(options.keys, "utf8")).trim() : `none ${"0123456789abcdef".repeat(4)}`);
  await page.click("form[aria-label=Record] button");
}
