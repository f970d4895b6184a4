// node-postgres: simple, parameterised and named queries, cursors and streams (portals executed in parts), COPY,
// pipelined queries with an error among them.
"use strict";
const { once } = require("node:events");
const { Readable } = require("node:stream");
const { pipeline } = require("node:stream/promises");
const { Client } = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");
const copy = require("pg-copy-streams");
const { Journal, counts, expect } = require("./journal.js");

const journal = new Journal("pg");

class Session {
  constructor(client) {
    this.client = client;
    this.pid = client.processID;
  }

  /** Runs a marked statement and gives its result; `claim` replaces what is claimed of the parameters. */
  async run(text, values, { name, claim = values, ...options } = {}) {
    const marked = journal.mark(text);
    try {
      const result = await this.client.query({ text: marked, values, name, ...options });
      journal.line(marked, this.pid, { ...counts(result), params: claim });
      return result;
    } catch (error) {
      // A statement that failed before its execution was never given its values.
      const params = error.code?.startsWith("22") ? claim : undefined;
      journal.line(marked, this.pid, { sqlstate: error.code, params });
      throw error;
    }
  }

  async fails(sqlstate, text, values, options) {
    try {
      await this.run(text, values, options);
    } catch (error) {
      expect(text, error.code, sqlstate);
      return;
    }
    expect(text, "no failure", sqlstate);
  }
}

async function values(session) {
  const moment = new Date(Date.UTC(2024, 1, 29, 12, 30, 15, 123));
  const all = [
    ["int4", 7], ["int8", "4611686018427387904"], ["float8", 1.5], ["numeric", "12345678901234567890.123456789"], ["bool", true],
    ["bool", false], ["text", "it's \"quoted\" \\ ümlaut"], ["text", ""], ["bytea", Buffer.from([0, 1, 255, 39, 92])],
    ["uuid", "00000000-0000-0000-1234-567890abcdef"], ["timestamptz", moment], ["date", "2024-02-29"], ["inet", "10.1.2.0/24"],
    ["int4[]", [1, 2, 3]], ["jsonb", { a: 1, b: "x" }], ["text", null],
  ];
  for (const [type, value] of all) {
    // Dates and lists go out in spellings of the driver's own: the server is asked whether they are the same value.
    for (const binary of [false, true]) {
      const result = await session.run(`SELECT /**/ $1::${type} AS v, ${binary}`, [value], { binary });
      expect(type, result.rows.length, 1);
    }
    if (typeof value === "string") expect(type, (await session.run(`SELECT /**/ $1::${type}::text AS v`, [value])).rows[0].v, value);
  }
}

async function prepared(session) {
  for (let number = 0; number < 6; number += 1) {
    const result = await session.run("SELECT /**/ $1::int4 + 1 AS v", [number], { name: "pg_named" });
    expect("named", result.rows[0].v, number + 1);
  }
  await session.fails("22012", "SELECT /**/ 1 / $1::int4 AS v", [0], { name: "pg_divide" });
  await session.run("SELECT /**/ 1 / $1::int4 AS v", [1], { name: "pg_divide" });
  await session.fails("42P01", "SELECT /**/ * FROM no_such_table WHERE id = $1", [1], { name: "pg_nothing" });
  const limited = await session.run("SELECT /**/ generate_series(1, 50) AS v", [], { rows: 20, claim: undefined });
  expect("executed in parts", limited.rows.length, 50);
}

async function changes(session) {
  await session.run("CREATE TEMP TABLE pg_t /**/ (id int8, name text)");
  await session.run("INSERT INTO pg_t /**/ VALUES ($1, $2), ($3, $4)", [1, "one", 2, null]);
  expect("returning", (await session.run("INSERT INTO pg_t /**/ SELECT generate_series(10, $1::int4) RETURNING id", [19])).rows.length, 10);
  expect("update", (await session.run("UPDATE pg_t /**/ SET name = $1 WHERE id > $2", ["big", 5])).rowCount, 10);
  expect("delete", (await session.run("DELETE FROM pg_t /**/ WHERE id = -1")).rowCount, 0);
  await session.client.query("BEGIN");
  await session.run("INSERT INTO pg_t /**/ VALUES ($1)", [77]);
  await session.client.query("SAVEPOINT s");
  await session.fails("42601", "SELECT /**/ FROM WHERE");
  await session.fails("25P02", "SELECT /**/ 'in a failed transaction'");
  await session.client.query("ROLLBACK TO s");
  await session.run("SELECT /**/ count(*) FROM pg_t");
  await session.client.query("ROLLBACK");
}

async function strings(session) {
  const marked = journal.mark("SELECT /**/ 1 AS a; SELECT /**/ 2 AS b UNION ALL SELECT 3; UPDATE pg_t /**/ SET name = name; ; SET /**/ work_mem TO '5MB'");
  const parts = marked.split(";").filter((part) => part.includes("/*"));
  const results = (await session.client.query(marked)).filter((result) => result.command);
  expect("results of a string", results.length, parts.length);
  parts.forEach((part, index) => journal.line(part, session.pid, counts(results[index])));
  for (const empty of ["", " ", ";", "-- nothing"]) await session.client.query(empty);
  await session.client.query({ text: "", values: [] });
  const bad = journal.mark("SELECT /**/ 1; SELECT /**/ 1 / 0; SELECT /**/ 'never'");
  const [first, second] = bad.split(";");
  await session.client.query(bad).then(() => expect(bad, "no failure", "22012"), (error) => expect(bad, error.code, "22012"));
  journal.line(first, session.pid);
  journal.line(second, session.pid, { sqlstate: "22012" });
}

async function cursors(session) {
  const text = journal.mark("SELECT /**/ n, repeat('x', 50) FROM generate_series(1, $1::int4) n");
  const cursor = session.client.query(new Cursor(text, [60]));
  let got = (await cursor.read(7)).length + (await cursor.read(20)).length;
  for (let part = await cursor.read(20); part.length; part = await cursor.read(20)) got += part.length;
  await cursor.close();
  expect("cursor", got, 60);
  journal.line(text, session.pid, { rows: got, params: [60] });
  const left = session.client.query(new Cursor(text, [50]));
  expect("cursor", (await left.read(5)).length, 5);
  await left.close();
  journal.line(text, session.pid, { rows: 5, params: [50] });
  let streamed = 0;
  for await (const _ of session.client.query(new QueryStream(text, [500], { batchSize: 90 }))) streamed += 1;
  expect("stream", streamed, 500);
  journal.line(text, session.pid, { rows: streamed, params: [500] });
}

async function copies(session) {
  const into = journal.mark("COPY pg_t /**/ FROM STDIN");
  const lines = Array.from({ length: 500 }, (_, number) => `${1000 + number}\tcopied\n`);
  const stream = session.client.query(copy.from(into));
  await pipeline(Readable.from(lines), stream);
  expect("copied", stream.rowCount, 500);
  journal.line(into, session.pid, { affected: 500, copied: lines.join("").length });
  for (const format of ["text", "csv", "binary"]) {
    const from = journal.mark(`COPY (SELECT * FROM pg_t WHERE name = 'copied') /**/ TO STDOUT (FORMAT ${format})`);
    const out = session.client.query(copy.to(from));
    let bytes = 0;
    out.on("data", (block) => (bytes += block.length));
    await once(out, "end");
    journal.line(from, session.pid, { affected: 500, copied: bytes });
  }
}

async function big(session) {
  const value = "abc'def ".repeat((3 * 1024 * 1024) / 8);
  expect("big", (await session.run("SELECT /**/ length($1::text) AS v", [value])).rows[0].v, value.length);
  expect("big", (await session.run("SELECT /**/ repeat('z', 3000000) AS v")).rows[0].v.length, 3000000);
  const text = `SELECT /**/ length('${value.replaceAll("'", "''")}') AS v`;
  expect("big", (await session.run(text)).rows[0].v, value.length);
  expect("many", (await session.run("SELECT /**/ n, n::text FROM generate_series(1, 5000) n")).rows.length, 5000);
}

/** Queries that are sent before the answers of those in front of them have come. */
async function pipelined() {
  const client = new Client({ pipeline: true });
  await client.connect();
  const session = new Session(client);
  const jobs = Array.from({ length: 20 }, (_, number) => session.run(`SELECT /**/ generate_series(1, $1::int4)`, [number]));
  jobs.push(session.fails("22012", "SELECT /**/ 1 / $1::int4", [0]), session.run("SELECT /**/ 'behind the error', $1::text", ["x"]));
  for (let number = 0; number < 10; number += 1) {
    jobs.push(session.run("SELECT /**/ $1::int4 + 3", [number], { name: "pg_piped" }), session.run(`SELECT /**/ 'simple', ${number}`));
  }
  jobs.push(session.run("SELECT /**/ 1"), session.fails("42P01", "SELECT /**/ * FROM no_such_table"));
  await Promise.all(jobs);
  await client.end();
}

async function main() {
  for (let round = 0; round < journal.rounds; round += 1) {
    const client = new Client();
    await client.connect();
    const session = new Session(client);
    await session.run("SET /**/ TIME ZONE 'UTC'");
    for (const step of [values, prepared, changes, strings, cursors, copies, big]) await step(session);
    await session.run("DROP TABLE /**/ pg_t");
    await client.end();
    await pipelined();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
