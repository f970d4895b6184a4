// Makes the page's files: one script, one style sheet, the shell and the icon.
//
// Owns what goes into them and the record of it (built.json), so that a test without Node sees when sources and built files no
// longer belong together. The rule of the hashes is in README.md.

import { createHash } from "node:crypto";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const HERE = fileURLToPath(new URL("..", import.meta.url));

/** Where the collector takes the page from. */
export const EMBEDDED = fileURLToPath(new URL("../../src/http/page/", import.meta.url));

const FILES = ["app.js", "icon.svg", "index.html", "style.css"];

/** What the built files are made of, beside the folders. */
const SINGLE = [".npmrc", "package-lock.json", "package.json", "tsconfig.json"];
const FOLDERS = ["build", "src"];

export async function bundle(folder) {
  await esbuild.build({
    absWorkingDir: HERE,
    entryPoints: { app: "src/main.tsx", style: "src/style/page.css" },
    outdir: folder,
    bundle: true,
    minify: true,
    format: "iife",
    target: ["es2022"],
    charset: "utf8",
    legalComments: "none",
    banner: { js: await notices() },
    logLevel: "warning",
  });
  for (const name of ["index.html", "icon.svg"]) {
    await writeFile(join(folder, name), await readFile(join(HERE, "src", name)));
  }
  const files = {};
  for (const name of FILES) files[name] = digest(await readFile(join(folder, name)));
  const built = { sources: await sources(), files };
  await writeFile(join(folder, "built.json"), `${JSON.stringify(built, null, 2)}\n`);
}

/** The licences of what is bundled ask for their notices in every copy. */
async function notices() {
  const of = async (name) => {
    const text = await readFile(join(HERE, "node_modules", name, "LICENSE"), "utf8");
    const line = text.split("\n").find((one) => one.startsWith("Copyright"));
    return `${name}: ${line?.trim() ?? ""}`;
  };
  const names = ["preact", "@preact/signals", "@preact/signals-core", "uplot"];
  const lines = (await Promise.all(names.map(of))).join("\n");
  const text = await readFile(join(HERE, "node_modules/preact/LICENSE"), "utf8");
  return `/*! ${lines}\n${text.slice(text.indexOf("Permission is")).trim()}\n*/`;
}

/** One digest over all sources: for each, in the order of their paths, path, 0, length in decimal, 0, content. */
async function sources() {
  const paths = [...SINGLE];
  for (const folder of FOLDERS) {
    for (const entry of await readdir(join(HERE, folder), { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) paths.push(join(entry.parentPath, entry.name).slice(HERE.length));
    }
  }
  const hash = createHash("sha256");
  for (const path of paths.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))) {
    const content = await readFile(join(HERE, path));
    hash.update(`${path}\0${content.length}\0`).update(content);
  }
  return hash.digest("hex");
}

const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");
export { FILES };
