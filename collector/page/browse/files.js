// Exports and reports from the page: what is filtered is what is in the file, and what breaks off leaves none.

import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { ask, environment, open, picture, settled, watchedAll } from "./tools.js";
import { addresses } from "./views.js";

const run = promisify(execFile);

export async function files(chrome, options, checks) {
  const all = await addresses(options);
  const { page, context, seen } = await open(chrome, options, checks, { hash: all["trail-export"] });
  await settled(page);
  const exported = await wanted(options);
  await checks.step("an export, by the browser's own way", () => byBlobs(page, options, checks, exported));
  await checks.step("an export, piece by piece into a file", () => byPieces(page, checks, exported));
  await checks.step("an export that breaks off", () => broken(page, checks));
  await checks.step("an export that is stopped", () => stopped(page, checks));
  for (const report of ["coverage", "access-review", "evidence-pack"]) await checks.step(`the report ${report}`, () => kept(page, options, checks, report));
  await checks.step("a report of one day", () => ofOneDay(page, options, checks));
  await checks.step("the report dsar", () => dsar(page, options, checks, all));
  watchedAll(checks, seen, await page.evaluate(() => globalThis.__violations), "exports and reports");
  await context.close();
}

const FILTERS = "class=READ";

/** Of a large record, the hours behind this moment: fixed, so that nothing leaves them meanwhile. */
async function wanted(options) {
  const [[all]] = (await ask(options, "/api/v1/query", { sql: "SELECT count(*) AS n FROM events" })).rows;
  const since = all > 200_000 ? new Date(Date.now() - 12 * 3_600_000).toISOString() : "all";
  const where = `kind NOT IN ('heartbeat', 'access') AND class = 'READ'${since === "all" ? "" : ` AND ts_start >= TIMESTAMP '${since}'`}`;
  return { since, count: async () => (await ask(options, "/api/v1/query", { sql: `SELECT count(*) AS n FROM events WHERE ${where}` })).rows[0][0] };
}

async function start(page, format) {
  await page.selectOption("[data-export=format]", format);
  await page.click("[data-export=start]");
}

async function byBlobs(page, options, checks, exported) {
  await page.evaluate(() => delete globalThis.showSaveFilePicker);
  await page.evaluate((to) => (location.hash = to), `#/trail?since=${encodeURIComponent(exported.since)}&export=yes&${FILTERS}`);
  await settled(page);
  const ids = await exported.count();
  await page.waitForFunction((n) => document.querySelector("[data-export=said]")?.textContent.startsWith(`${n.toLocaleString("en-US")} events`), ids);
  checks.that(true, `${ids} events are said to fit`);
  await page.fill("[data-export=purpose]", "ticket 93");
  const asked = page.waitForRequest((request) => request.url().endsWith("/api/v1/export"));
  for (const [format, count] of [["jsonl", lines], ["csv", (text) => lines(text) - 1], ["ocsf", lines], ["parquet", null]]) {
    const coming = page.waitForEvent("download", { timeout: 60_000 });
    await start(page, format);
    const download = await coming;
    const content = await readFile(await download.path());
    if (count) checks.same(count(content.toString()), ids, `${format}: ${ids} events in ${download.suggestedFilename()}`);
    else checks.that(content.subarray(0, 4).toString() === "PAR1" && content.subarray(-4).toString() === "PAR1", `${format}: whole, ${content.length} bytes`);
    await page.waitForFunction(() => document.querySelector("[data-export=said]")?.textContent.startsWith("Whole"));
    if (format === "jsonl") {
      const kinds = new Set(content.toString().trim().split("\n").map((line) => JSON.parse(line).meaning?.class));
      checks.same([...kinds], ["READ"], "and nothing but what the filters fit");
    }
  }
  checks.same((await asked).headers()["x-pgwitness-purpose"], "ticket 93", "the purpose goes with it");
  await page.fill("[data-export=purpose]", "");
  await picture(page, options, "export");
}

/** Lines, but for line breaks within quotes of CSV. */
const lines = (text) => {
  let count = 0;
  let quoted = false;
  for (const c of text) {
    if (c === '"' && !text.startsWith("{")) quoted = !quoted;
    else if (c === "\n" && !quoted) count += 1;
  }
  return count;
};

/** Headless there is nobody who chooses a file: it is chosen from the origin's own files, which are written in the same way. */
const chosen = () => {
  globalThis.showSaveFilePicker = async ({ suggestedName }) => {
    globalThis.__file = await (await navigator.storage.getDirectory()).getFileHandle(suggestedName, { create: true });
    return globalThis.__file;
  };
};

async function byPieces(page, checks, exported) {
  await page.evaluate(chosen);
  await start(page, "jsonl");
  await page.waitForFunction(() => document.querySelector("[data-export=said]")?.textContent.startsWith("Whole"), null, { timeout: 60_000 });
  const ids = await exported.count();
  const text = await page.evaluate(async () => (await globalThis.__file.getFile()).text());
  checks.same(lines(text), ids, "the file has all of them");
}

/** An answer whose connection breaks behind its first bytes. */
async function broken(page, checks) {
  await page.evaluate(() => {
    const real = globalThis.fetch;
    globalThis.__fetch = real;
    globalThis.fetch = async (path, more) => {
      const answer = await real(path, more);
      if (!String(path).endsWith("/export")) return answer;
      const reader = answer.body.getReader();
      let first = true;
      const body = new ReadableStream({
        async pull(to) {
          if (!first) return to.error(new TypeError("network error"));
          first = false;
          to.enqueue((await reader.read()).value.slice(0, 100));
        },
      });
      return new Response(body, { status: answer.status, headers: answer.headers });
    };
  });
  await start(page, "jsonl");
  await page.waitForSelector("section[aria-label=Export] [role=alert]");
  const said = await page.$eval("section[aria-label=Export] [role=alert]", (one) => one.innerText);
  checks.that(said.includes("not be whole"), "it is said that it is not whole", said);
  checks.same(await page.evaluate(async () => (await globalThis.__file.getFile()).size), 0, "and nothing of it is kept");
  await page.evaluate(() => (globalThis.fetch = globalThis.__fetch));
}

async function stopped(page, checks) {
  const gone = [];
  page.on("requestfailed", (request) => gone.push(new URL(request.url()).pathname));
  await page.route("**/api/v1/export", () => {});
  await start(page, "csv");
  await page.waitForFunction(() => document.querySelector("[data-export=start]").textContent === "stop");
  await page.click("[data-export=start]");
  await page.waitForSelector("section[aria-label=Export] [role=note]");
  checks.same(gone, ["/api/v1/export"], "the request ends");
  await page.unroute("**/api/v1/export");
}

/** Both ask, and each question is on record: between the two, numbers, times and the root have gone on. Their forms have not. */
const comparable = (text) => text.replace(/root [^\n<]+/, "root").replace(/\d+/g, "0");

async function kept(page, options, checks, report) {
  const since = "2020-01-01T00:00:00Z";
  await page.evaluate((to) => (location.hash = to), `#/reports?since=${since}&report=${report}`);
  // Of all that there is: of a large record a minute's work.
  await settled(page, 180_000);
  await page.waitForSelector(".report section h3");
  await picture(page, options, `report-${report}`);
  await asTheCommand(page, options, checks, report, ["--since", since]);
}

/** The first day of the record alone, by its fields. */
async function ofOneDay(page, options, checks) {
  const { begins } = await ask(options, "/api/v1/overview?since=1s");
  const day = begins.slice(0, 10);
  const behind = new Date(Date.parse(`${day}T00:00:00Z`) + 86_400_000).toISOString().slice(0, 10);
  await page.evaluate(() => (location.hash = "#/reports?report=access-review"));
  await settled(page);
  for (const field of ["from", "until"]) await page.fill(`[data-filter=${field}]`, day);
  await page.waitForFunction((day) => location.hash.includes("until=") && document.querySelector(".report dl")?.innerText.includes(day), day);
  await settled(page);
  checks.that((await page.evaluate(() => location.hash)).includes(encodeURIComponent(`${behind}T00:00:00Z`)), `${day} alone stands in the address`);
  await asTheCommand(page, options, checks, "access-review", ["--since", `${day}T00:00:00Z`, "--until", `${behind}T00:00:00Z`]);
}

/** What is kept of the report that is shown, against what the command writes. */
async function asTheCommand(page, options, checks, report, period) {
  for (const form of ["markdown", "html"]) {
    const coming = page.waitForEvent("download");
    await page.click(`[data-download=${form}]`);
    const text = await readFile(await (await coming).path(), "utf8");
    if (!options.collector) {
      checks.note("no --collector BIN: not compared with the command");
      continue;
    }
    const told = await run(options.collector, ["report", report, "--url", options.url, ...period, "--format", form], { maxBuffer: 1 << 28, env: environment(options) });
    const [mine, its] = [text, told.stdout].map((one) => comparable(one).split("\n"));
    const other = mine.findIndex((line, n) => line !== its[n]);
    checks.that(mine.length === its.length && other < 0, `${form}: as the command writes it, ${mine.length} lines`, other < 0 ? `${mine.length} lines, not ${its.length}` : `${mine[other]}\n        not   ${its[other]}`);
  }
}

async function dsar(page, options, checks, all) {
  await page.evaluate((to) => (location.hash = to), all["records-nobody"]);
  await settled(page);
  const link = await page.$("[data-dsar]");
  if (!link) return checks.note("this record has no tokens: no report on one of its records");
  await link.click();
  await settled(page);
  await page.waitForSelector(".report section h3");
  checks.that((await page.$eval(".report", (one) => one.innerText)).includes("numbered in this report"), "actors have numbers");
  await page.click("[data-named]");
  await settled(page);
  await page.waitForFunction(() => !document.querySelector(".report").innerText.includes("numbered in this report"));
  checks.that(true, "and names, when they are asked for");
  await picture(page, options, "report-dsar");
}
