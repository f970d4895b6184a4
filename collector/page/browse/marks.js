// States that a quiet record has not: alarms, erasures, holds, sessions that cannot be read, gaps of unknown size, and what no inventory expects.
//
// Owns what must be said of each, wherever it is shown. A record that has none of one says so; `states.js` makes a record that has all of them.

import { ask, open, picture, rows, settled, watchedAll } from "./tools.js";
import { axe } from "./views.js";

/** Name: which event has it, by SQL; what the event's own page says; where else it is shown, and what is said there. */
const STATES = {
  alarm: { of: "kind = 'alarm'", says: /alarm/i, also: [["overview", "section[aria-label='Needs a look']", /Alarm: /], ["evidence", "section[aria-label='Of the record itself']", /Alarms/]] },
  erasure: { of: "kind = 'erasure'", says: /erasure/i, also: [["overview", "section[aria-label='Needs a look']", /Events were erased/]] },
  hold: { of: "kind = 'hold'", says: /hold/i, also: [["evidence", "section[aria-label='Of the record itself']", /Holds/]] },
  opaque: {
    of: "kind = 'opaque_session'",
    says: /cannot be read|encrypt/i,
    also: [["overview", "section[aria-label='Needs a look']", /cannot be read/], ["coverage", "section[aria-label='Not seen, by reason']", /cannot be read/], ["coverage", "section[aria-label='Gaps and unreadable sessions, one by one']", /all statements/]],
  },
  "gap-unknown": {
    of: "kind = 'gap' AND bytes_missing IS NULL AND events_missing IS NULL",
    says: /not known|unknown/i,
    also: [["overview", "section[aria-label='Key figures']", /(≥|not known).*of unknown size/s], ["coverage", "section[aria-label='Gaps and unreadable sessions, one by one']", /unknown size/]],
  },
  unexpected: {
    of: "expected = 'unexpected' AND kind = 'query'",
    says: /Inventory: unexpected/,
    also: [["overview", "section[aria-label='Needs a look']", /Nobody expects this/], ["questions-unexpected", "main", /Not expected/], ["trail-unexpected", "section[aria-label='Live trail']", /unexpected/]],
  },
  "not-listed": { of: "expected = 'not in inventory' AND kind = 'query'", says: /Inventory: not in inventory/, also: [["overview", "section[aria-label='Needs a look']", /Not in the inventory/]] },
};

export async function marks(chrome, options, checks) {
  const found = {};
  for (const [name, { of }] of Object.entries(STATES)) {
    const [one] = rows(await ask(options, "/api/v1/query", { sql: `SELECT agent || '-' || seq AS id, principal, session_id FROM events WHERE ${of} ORDER BY ts_start DESC LIMIT 1` }));
    if (one) found[name] = one;
    else checks.note(`this record has no ${name}: browse/states.js makes one that has`);
  }
  const of = (view, query = {}) => `#/${view}?since=all&${new URLSearchParams(query)}`;
  const places = {
    overview: of("overview"),
    coverage: of("coverage"),
    evidence: of("evidence"),
    "questions-unexpected": of("questions", { ask: "unexpected" }),
    "trail-unexpected": of("trail", { principal: found.unexpected?.principal ?? "" }),
  };
  for (const [width, theme] of [[1280, "light"], [1280, "dark"], [390, "light"], [390, "dark"]]) {
    const { page, context, seen } = await open(chrome, options, checks, { width, theme, hash: places.overview });
    const shown = {};
    const look = async (name, hash) => {
      await page.evaluate((to) => (location.hash = to), hash);
      await settled(page);
      await picture(page, options, `state-${name}-${width}-${theme}`);
      const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      checks.that(wide <= room, `${name}: fits ${width} px`, `${wide} px in ${room}`);
      await axe(page, checks, name);
    };
    for (const [name, event] of Object.entries(found)) {
      await checks.step(`${name}, ${width} px, ${theme}`, async () => {
        const { says, also } = STATES[name];
        await look(`${name}-event`, of("event", { id: event.id }));
        const told = await page.$eval("main", (one) => one.innerText);
        checks.that(says.test(told), `${name}: its event says so`, told.slice(0, 400));
        checks.that(!/\[object Object\]|undefined|NaN/.test(told), `${name}: nothing is left over from the program`);
        await look(`${name}-trail`, of("trail", { kind: /kind = '(\w+)'/.exec(STATES[name].of)?.[1] ?? "", event: event.id }));
        await page.keyboard.press("Escape");
        for (const [view, where, words] of also) {
          if (!shown[view]) await look(view, places[view]);
          else {
            await page.evaluate((to) => (location.hash = to), places[view]);
            await settled(page);
          }
          shown[view] = true;
          await page.waitForFunction(([at, pattern, flags]) => new RegExp(pattern, flags).test(document.querySelector(at)?.innerText ?? ""), [where, words.source, words.flags], { timeout: 5000 }).then(
            () => checks.that(true, `${name}: ${view} says ${words}`),
            async () => checks.that(false, `${name}: ${view} says ${words}`, await page.$eval(where, (one) => one.innerText).catch(String)),
          );
        }
      });
    }
    watchedAll(checks, seen, await page.evaluate(() => globalThis.__violations), `states, ${width} px, ${theme}`);
    await context.close();
  }
}
