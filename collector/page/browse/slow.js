// Answers that take long, or do not come: what a reader is told meanwhile, and that nobody goes on asking for whoever has left.

import { open, picture, settled, watchedAll } from "./tools.js";
import { addresses } from "./views.js";

/** Questions that one could wait for; who asks, and the trail's stream, are not among them. */
const ASKED = (url) => /\/api\/v1\/(?!live|me)/.test(url.pathname);

export async function slow(chrome, options, checks) {
  const all = await addresses(options);
  for (const [width, theme] of [[1280, "light"], [390, "dark"]]) {
    const { page, context, seen } = await open(chrome, options, checks, { width, theme, hash: "#/no-such-view" });
    const open_ = new Set();
    const ended = [];
    // Nothing is answered until it is let go.
    await page.route(ASKED, (route) => void open_.add(route));
    page.on("requestfailed", (request) => ASKED(new URL(request.url())) && ended.push(request));
    for (const view of ["overview", "trail", "principals", "principal", "objects", "object", "session", "event", "records-nobody", "questions", "evidence", "coverage", "report-coverage"]) {
      await checks.step(`${view} without an answer, ${width} px`, async () => {
        open_.clear();
        ended.length = 0;
        await page.evaluate((to) => (location.hash = to), all[view]);
        await page.waitForTimeout(1000);
        checks.same(await page.$$eval(".slow", (found) => found.length), 0, "a second is not called long");
        await page.waitForFunction(() => document.querySelectorAll(".slow").length > 0, null, { timeout: 4000 });
        const bare = await page.$$eval("main .skeleton", (found) => found.filter((one) => !one.querySelector("[data-stop]")).map((one) => one.closest("section")?.ariaLabel));
        checks.same(bare, [], "each panel says that it is being asked, and can be stopped");
        await picture(page, options, `slow-${view}-${width}`);
        const asked = open_.size;
        checks.that(asked > 0, `${asked} questions are open`);
        await page.evaluate(() => (location.hash = "#/no-such-view"));
        await page.waitForTimeout(300);
        checks.same(ended.length, asked, "whoever leaves ends them");
        checks.same(open_.size, asked, "and none of those in line is asked then");
      });
    }
    await checks.step(`stopped, ${width} px`, () => stop(page, options, checks, all, ended));
    await page.unroute(ASKED);
    await checks.step(`no time for an answer, ${width} px`, () => late(page, options, checks, width));
    watchedAll(checks, seen, await page.evaluate(() => globalThis.__violations), `slow answers, ${width} px`);
    await context.close();
  }
}

async function stop(page, options, checks, all, ended) {
  await page.evaluate((to) => (location.hash = to), all.objects);
  await page.waitForSelector("[data-stop]", { timeout: 5000 });
  ended.length = 0;
  await page.click("[data-stop]");
  await page.waitForSelector("main [role=note]");
  await page.waitForTimeout(100);
  checks.same(ended.length, 1, "stop ends the question");
  checks.that((await page.$eval("main [role=note]", (one) => one.innerText)).includes("ask again"), "and it can be asked again");
  await picture(page, options, "stopped");
}

/** As the collector says it when its time is over. */
async function late(page, options, checks, width) {
  await page.route("**/api/v1/query", (route) => route.fulfill({ status: 503, json: { error: "there was no answer in 30 seconds" } }));
  await page.evaluate(() => (location.hash = "#/no-such-view"));
  await page.waitForTimeout(100);
  await page.evaluate(() => (location.hash = "#/objects?since=all"));
  await page.waitForSelector("main [role=alert]");
  const said = await page.$eval("main [role=alert]", (one) => one.innerText);
  checks.that(/shorter time/.test(said) && /only 24 hours/.test(said), "it is said what to do", said);
  await picture(page, options, `late-${width}`);
  await page.unroute("**/api/v1/query");
  await page.click("main [role=alert] button:has-text('only 24 hours')");
  await settled(page);
  checks.that(page.url().includes("since=24h") && (await page.$("main [role=alert]")) == null, "the shorter time is one press away");
}
