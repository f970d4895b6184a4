// The page for whoever may not do everything: figures are there, and what is missing says which role it takes.

import { open, picture, settled, watchedAll } from "./tools.js";

export async function roles(chrome, options, checks) {
  if (!options.viewer) return checks.note("no --viewer-token-file: the page is not looked at as a viewer");
  const { page, context, seen } = await open(chrome, { ...options, token: options.viewer }, checks, { hash: `#/overview?since=${encodeURIComponent(options.since)}` });
  const vain = [];
  page.on("response", (response) => response.status() === 403 && vain.push(response.url()));
  await checks.step("the overview, for a viewer", async () => {
    await settled(page);
    checks.that((await page.$$("[data-figure]")).length >= 8, "figures are there");
    checks.that((await page.$$("[aria-label=Principals] tr[data-row]")).length > 0, "principals are there");
    const chart = await page.$eval("[aria-label='Statements by class']", (one) => one.innerText);
    checks.that(chart.includes("Needs the role analyst"), "the chart says which role it takes");
    await picture(page, options, "viewer-overview");
  });
  await checks.step("the trail, for a viewer", async () => {
    await page.evaluate((role) => (location.hash = `#/trail?since=all&role=${role}`), options.role);
    await settled(page);
    await page.waitForSelector("[aria-label=Events] tr[data-row]");
    const ids = await page.$$eval("[aria-label=Events] tr[data-row]", (all) => all.map((row) => `${row.querySelector("time").dateTime} ${row.innerText}`));
    checks.same(new Set(ids).size, ids.length, "no event stands there twice");
    await picture(page, options, "viewer-trail");
  });
  for (const [hash, what] of [["#/evidence", "verifying"], ["#/records", "records"], ["#/coverage", "coverage"], ["#/objects", "objects"], ["#/questions", "questions"], ["#/reports?report=coverage", "reports"], ["#/trail?export=yes", "exports"]]) {
    await checks.step(`${what}, for a viewer`, async () => {
      await page.evaluate((to) => (location.hash = to), hash);
      await settled(page);
      if (hash === "#/evidence") {
        await page.click("[data-verify]");
        await page.waitForSelector("#verify .state");
      }
      const text = await page.$eval("main", (one) => one.innerText);
      checks.that(hash === "#/records" ? text.includes("Who touched a record") : /[Nn]eeds the role (analyst|auditor)/.test(text), "it is there, and what is not allowed says so");
      await picture(page, options, `viewer-${what}`);
    });
  }
  const tells = await page.evaluate(async () => (await fetch("/api/v1/me", { headers: { Authorization: `Bearer ${sessionStorage.getItem("token")}` } })).ok);
  if (tells) checks.same(vain, [], "nothing was asked in vain");
  else checks.note("this collector does not tell the role: what is refused is tried once");
  watchedAll(checks, seen, await page.evaluate(() => globalThis.__violations), "as a viewer");
  await context.close();
}
