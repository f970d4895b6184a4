// Builds the page anew into a temporary folder and compares it, byte for byte, with what is committed.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EMBEDDED, FILES, bundle } from "./bundle.js";

const folder = await mkdtemp(join(tmpdir(), "pgwitness-page-"));
try {
  await bundle(folder);
  const differ = [];
  for (const name of [...FILES, "built.json"]) {
    const [made, kept] = await Promise.all([folder, EMBEDDED].map((where) => readFile(join(where, name)).catch(() => null)));
    if (!kept || !made.equals(kept)) differ.push(name);
  }
  if (differ.length > 0) {
    console.error(`not what the sources make: ${differ.join(", ")}; run npm run build and commit what it writes`);
    process.exitCode = 1;
  } else console.log("the committed page is what the sources make");
} finally {
  await rm(folder, { recursive: true });
}
