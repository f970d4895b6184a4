// Questions by name: the page says what the command says.

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { environment, open, picture, settled, watchedAll } from "./tools.js";

const run = promisify(execFile);

const NAMES = ["shared-roles", "new-principals", "dormant", "new-workloads", "unexpected", "not-listed", "expiring"];

export async function questions(chrome, options, checks) {
  const { page, context, seen } = await open(chrome, options, checks, { hash: "#/questions" });
  await settled(page);
  checks.same(await page.$$eval("[data-ask]", (all) => all.map((one) => one.dataset.ask)), NAMES, "every question of the command is there");
  for (const since of ["2020-01-01T00:00:00Z", new Date(Date.parse(options.newSince) || Date.now() - 86_400_000).toISOString()]) {
    for (const name of NAMES) {
      await checks.step(`${name} since ${since}`, async () => {
        await page.evaluate((to) => (location.hash = to), `#/questions?ask=${name}&since=${since}`);
        await settled(page);
        await picture(page, options, `question-${name}`);
        if (!options.collector) return checks.note("no --collector BIN: not compared with the command");
        const told = await run(options.collector, ["ask", name, "--url", options.url, "--since", since, "--format", "json"], { env: environment(options), maxBuffer: 1 << 28 }).catch((error) => error);
        const text = await page.$eval("main section:last-of-type", (one) => one.innerText);
        if (told.code) return void checks.that(told.stderr.includes("inventory") && text.includes("no inventory"), "neither answers without an inventory", told.stderr);
        const list = told.stdout.split("\n").filter(Boolean).map((line) => JSON.parse(line));
        const key = ["principal", "id", "login_role"].find((one) => list[0]?.[one] !== undefined);
        // Of a long list only what is looked at is in the page.
        const shown = await page.$$eval("main section:last-of-type tbody tr:not(.space)", (all) =>
          all.map((row) => [row.querySelector(".who")?.title ?? row.cells[0].textContent, ...[...row.querySelectorAll("td.n")].map((one) => one.textContent)]),
        );
        const figures = (row) => Object.entries(row).flatMap(([name, of]) => (typeof of === "number" ? [name === "days" ? of.toFixed(1) : of.toLocaleString("en-US")] : []));
        const counted = await page.$eval("main section:last-of-type", (one) => Number(one.querySelector("table")?.getAttribute("aria-rowcount") ?? one.querySelectorAll("tbody tr").length + 1) - 1);
        checks.same([counted, shown], [list.length, list.slice(0, shown.length).map((row) => [row[key] ?? "unknown", ...figures(row)])], `the command's ${list.length} rows and figures, in its order`);
      });
    }
  }
  watchedAll(checks, seen, await page.evaluate(() => globalThis.__violations), "questions by name");
  await context.close();
}
