// Builds the page into the folder that the collector embeds, and says how large the script is.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { EMBEDDED, bundle } from "./bundle.js";

await bundle(EMBEDDED);
const script = await readFile(join(EMBEDDED, "app.js"));
console.log(`app.js: ${script.length} bytes, ${gzipSync(script, { level: 9 }).length} compressed`);
