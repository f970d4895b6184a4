// What all parts of the browsing share: the browser, the keyboard, and the list of what holds and what does not.
//
// Owns that nothing passes silently: a check that could not be made is a failure, unless it says that there was nothing to check.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";

export class Checks {
  constructor() {
    this.failed = [];
    this.passed = 0;
  }

  that(holds, what, detail = "") {
    if (holds) {
      this.passed += 1;
      console.log(`  ok    ${what}`);
    } else {
      this.failed.push(what);
      console.log(`  FAIL  ${what}${detail ? `\n        ${detail}` : ""}`);
    }
    return Boolean(holds);
  }

  same(found, expected, what) {
    const [a, b] = [found, expected].map((one) => JSON.stringify(one));
    return this.that(a === b, what, `found ${a}\n        not   ${b}`);
  }

  note(what) {
    console.log(`  –     ${what}`);
  }

  /** A step; what it throws is a failure of that step, and the next one goes on. */
  async step(what, run) {
    console.log(what);
    try {
      await run();
    } catch (error) {
      this.that(false, what, error.stack ?? String(error));
    }
  }
}

export async function browser() {
  const args = ["--disable-gpu", "--force-color-profile=srgb"];
  // Chromium's sandbox refuses to run as root.
  if (process.getuid?.() === 0) args.push("--no-sandbox");
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
}

/** A page whose every request, message and dialog is watched. */
export async function open(chrome, options, checks, { width = 1280, theme = "light", hash = "" } = {}) {
  const context = await chrome.newContext({
    viewport: { width, height: width < 600 ? 844 : 900 },
    colorScheme: theme,
    timezoneId: "America/New_York",
    acceptDownloads: true,
    permissions: ["clipboard-read", "clipboard-write"],
  });
  const page = await context.newPage();
  const seen = { foreign: [], errors: [], dialogs: [], overview: null };
  await page.addInitScript(() => {
    globalThis.__violations = [];
    document.addEventListener("securitypolicyviolation", (event) => globalThis.__violations.push(`${event.violatedDirective} ${event.blockedURI}`));
    globalThis.__shift = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) if (!entry.hadRecentInput) globalThis.__shift += entry.value;
    }).observe({ type: "layout-shift", buffered: true });
  });
  const origin = new URL(options.url).origin;
  page.on("request", (request) => {
    const to = new URL(request.url());
    if (to.origin !== origin && !["blob:", "data:"].includes(to.protocol)) seen.foreign.push(request.url());
  });
  page.on("pageerror", (error) => seen.errors.push(`${error.message} ${process.env.STACKS ? error.stack : ""}`.trim()));
  page.on("dialog", (dialog) => {
    seen.dialogs.push(dialog.message());
    void dialog.dismiss();
  });
  page.on("response", async (response) => {
    // A second of it is asked for to learn when the record begins.
    if (response.url().includes("/api/v1/overview") && !response.url().includes("since=1s")) seen.overview = await response.json().catch(() => seen.overview);
  });
  await page.goto(`${options.url}/${hash}`);
  if (options.token) {
    await page.waitForSelector("dialog[open] input[type=password]", { timeout: 10_000 });
    await page.keyboard.type(options.token);
    await page.keyboard.press("Enter");
    await page.waitForSelector("dialog[open]", { state: "detached", timeout: 10_000 });
  }
  return { page, context, seen };
}

export function watchedAll(checks, seen, violations, what) {
  checks.same(seen.foreign, [], `${what}: no request leaves the origin`);
  checks.same(seen.errors, [], `${what}: no error in the page`);
  checks.same(seen.dialogs, [], `${what}: no dialog`);
  checks.same(violations, [], `${what}: nothing that the content policy had to stop`);
}

/** Waits until the page has answers for all that it asked. */
export async function settled(page, most = 30_000) {
  await page.waitForTimeout(150);
  await page.waitForFunction(() => document.querySelectorAll(".skeleton").length === 0, null, { timeout: most });
  await page.waitForTimeout(150);
}

/** Presses Tab until `selector` has the focus. */
export async function tabTo(page, selector, most = 120) {
  for (let n = 0; n < most; n += 1) {
    if (await page.evaluate((one) => document.activeElement?.matches(one) ?? false, selector)) return;
    await page.keyboard.press("Tab");
  }
  throw new Error(`${selector} is not reached by Tab`);
}

/** As somebody types it: g, then the view's letter. */
export async function goTo(page, letter) {
  await page.keyboard.press("Escape");
  await page.keyboard.press("g");
  await page.keyboard.press(letter);
  await settled(page);
}

export async function ask(options, path, body) {
  const headers = { "content-type": "application/json", ...(options.token ? { authorization: `Bearer ${options.token}` } : {}) };
  const response = await fetch(options.url + path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

export const rows = ({ columns, rows }) => rows.map((row) => Object.fromEntries(columns.map((name, n) => [name, row[n]])));

export async function picture(page, options, name) {
  if (!options.out) return;
  await mkdir(options.out, { recursive: true });
  await page.screenshot({ path: join(options.out, `${name}.png`), fullPage: true });
}

/** Of a command that asks with the same token; an empty one is not the same as none. */
export function environment(options) {
  const { PGWITNESS_TOKEN: _, ...env } = process.env;
  return options.token ? { ...env, PGWITNESS_TOKEN: options.token } : env;
}
