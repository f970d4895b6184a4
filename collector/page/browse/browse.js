// A browser does an auditor's work on a running collector, by keyboard, and looks at every view; whatever does not hold makes it fail.
//
//   npm run browse -- --url http://127.0.0.1:7480 [--token-file FILE] [--token-key FILE] [--collector BIN] [--origin-key KEY]
//                     [--object public.customers] [--key 42] [--role app_user] [--since 24h] [--new-since TIME] [--out DIR]
//                     [--only tasks,questions,files,reach,slow,marks,views,hostile,roles] [--viewer-token-file FILE]

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { files } from "./files.js";
import { hostile } from "./hostile.js";
import { marks } from "./marks.js";
import { questions } from "./questions.js";
import { reach } from "./reach.js";
import { roles } from "./roles.js";
import { slow } from "./slow.js";
import { tasks } from "./tasks.js";
import { browser, Checks } from "./tools.js";
import { views } from "./views.js";

const text = { type: "string" };
const { values } = parseArgs({
  options: {
    url: text,
    token: text,
    "token-file": text,
    "token-key": text,
    collector: text,
    "origin-key": text,
    object: { ...text, default: "public.customers" },
    key: { ...text, default: "42" },
    role: { ...text, default: "app_user" },
    since: { ...text, default: "24h" },
    "new-since": text,
    "viewer-token-file": text,
    out: text,
    only: { ...text, default: "tasks,questions,files,reach,slow,marks,views,hostile,roles" },
  },
});
if (!values.url) {
  console.error("--url of a running collector is missing");
  process.exit(2);
}

const options = {
  ...values,
  url: values.url.replace(/\/$/, ""),
  token: values["token-file"] ? readFileSync(values["token-file"], "utf8").trim() : values.token,
  viewer: values["viewer-token-file"] && readFileSync(values["viewer-token-file"], "utf8").trim(),
  keys: values["token-key"],
  originKey: values["origin-key"],
  newSince: values["new-since"] ?? new Date(Date.now() - 86_400_000).toISOString(),
};
const parts = { tasks, questions, files, reach, slow, marks, views, hostile, roles };
const checks = new Checks();
const chrome = await browser();
try {
  for (const name of options.only.split(",")) await checks.step(`== ${name}`, () => parts[name](chrome, options, checks));
} finally {
  await chrome.close();
}
console.log(`\n${checks.passed} checks hold, ${checks.failed.length} do not`);
for (const what of checks.failed) console.log(`  FAIL  ${what}`);
process.exitCode = checks.failed.length > 0 ? 1 : 0;
