// What a driver program did, as the program itself knows it.
//
// Owns the markers in the statements' texts, the lines of the journal, and the text form of values.
"use strict";
const fs = require("node:fs");

const MARKER = /\/\* d=\S+ j=(\d+) \*\//;

class Journal {
  constructor(name) {
    this.name = name;
    this.rounds = Number(process.env.PGW_ROUNDS ?? 1);
    this.file = fs.openSync(process.env.PGW_JOURNAL, "a");
    this.numbers = new Map();
  }

  /** Gives each empty comment in a text its marker. Equal texts keep equal numbers, in every round. */
  mark(text) {
    let count = 0;
    const marked = text.replaceAll("/**/", () => {
      const key = `${(count += 1)} ${text}`;
      if (!this.numbers.has(key)) this.numbers.set(key, this.numbers.size + 1);
      return `/* d=${this.name} j=${this.numbers.get(key)} */`;
    });
    expect("a place for the marker", count > 0, true);
    return marked;
  }

  /** One execution of the first marked statement of a text. */
  line(marked, pid, { rows = null, affected = null, sqlstate = null, copied = null, params } = {}) {
    const line = { d: this.name, j: Number(MARKER.exec(marked)[1]), pid, rows, affected, sqlstate, copy_bytes: copied };
    if (params) line.params = params.map(shown);
    fs.writeSync(this.file, `${JSON.stringify(line)}\n`);
  }
}

/** A value as the server's output function prints it (ISO dates, UTC). */
function shown(value) {
  if (value === null || value === undefined) return null;
  if (typeof value === "boolean") return value ? "t" : "f";
  if (Buffer.isBuffer(value)) return `\\x${value.toString("hex")}`;
  if (value instanceof Date) return value.toISOString().replace("T", " ").replace(/(\.\d*?)0*Z$/, "$1+00").replace(".+", "+");
  if (Array.isArray(value)) return `{${value.map((inner) => shown(inner) ?? "NULL").join(",")}}`;
  if (typeof value === "object") return JSON.stringify(value).replace(/([:,])(?=\S)/g, "$1 ");
  return String(value);
}

function expect(what, got, wanted) {
  if (got !== wanted) {
    console.error(`${what}: expected ${String(wanted)}, got ${String(got)}`);
    process.exit(1);
  }
}

/** Rows received and rows changed, as the command tag of a result has them. */
function counts(result) {
  const changes = ["INSERT", "UPDATE", "DELETE", "MERGE", "COPY"].includes(result.command);
  return { rows: result.fields?.length ? result.rows.length : null, affected: changes ? result.rowCount : null };
}

module.exports = { Journal, expect, counts };
