// Makes a small record that has what a quiet one has not: sessions that cannot be read, gaps of unknown size, an alarm, an erasure, a hold, and an
// inventory by which some of it is unexpected. Real programs do all of it; nothing is written by hand but the inventory.
//
//   node browse/states.js --bin FOLDER --out FOLDER
//
// `--bin` has pgwitness-agent and pgwitness-collector. Takes root (the agent does), PostgreSQL's programs, openssl and a C compiler. In the end `--out` has
// `data` and `inventory.toml`, for `pgwitness-collector serve`.

import { execFile, spawn } from "node:child_process";
import { chmod, chown, copyFile, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

const run = promisify(execFile);
const text = { type: "string" };
const { values } = parseArgs({ options: { bin: text, out: text } });
if (!values.bin || !values.out || process.getuid() !== 0) {
  console.error("as root: node browse/states.js --bin FOLDER --out FOLDER");
  process.exit(2);
}
const out = resolve(values.out);
const [AGENT, COLLECTOR] = ["agent", "collector"].map((name) => resolve(values.bin, `pgwitness-${name}`));
const CONFINE = fileURLToPath(new URL("../../../tests/programs/confine.c", import.meta.url));

const running = new Set();
const folder = await mkdtemp(join(tmpdir(), "pgwitness-states-"));
try {
  await make();
} finally {
  // The newest first: the server goes last.
  for (const child of [...running].reverse()) await end(child, "SIGINT");
  await rm(folder, { recursive: true, force: true });
}

async function make() {
  await mkdir(out, { recursive: true });
  const [server, grpc, http] = await Promise.all([port(), port(), port()]);
  const psql = await startServer(server);
  const collector = start("collector", COLLECTOR, ["serve", "--data", join(out, "data"), "--grpc", `127.0.0.1:${grpc}`, "--http", `127.0.0.1:${http}`]);
  const url = `http://127.0.0.1:${http}`;
  await until("the collector answers", () => fetch(`${url}/healthz`));
  const agent = (name) =>
    start(`agent ${name}`, AGENT, ["run", "--collector", `http://127.0.0.1:${grpc}`, "--state-dir", join(folder, name), "--data-dir", join(folder, "server/data")], {
      // A server that may not be probed where that could end it: its encrypted sessions are told, and not read.
      env: { ...process.env, PGWITNESS_AGENT__TAP__URETPROBES: "unconfined", PGWITNESS_AGENT__AGENT__ID: "db1" },
    });
  let tap = agent("first");
  const count = async (sql) => (await ask(url, sql))[0][0];
  await until("the agent delivers", async () => (await count("SELECT count(*) FROM events WHERE kind = 'agent_start'")) > 0);
  await wait(1500);
  // Four programs, each under its own name.
  for (const name of ["orders-api", "nightly-job", "old-import", "back-office"]) {
    await psql(name, "app_user", "disable", "SELECT id, email FROM customers WHERE id = 42", "SELECT count(*) FROM orders", "UPDATE orders SET amount = amount + 1 WHERE id = 7");
  }
  await psql("orders-api", "reporting", "disable", "SELECT region, count(*) FROM customers GROUP BY region");
  await psql("back-office", "app_user", "require", "SELECT email FROM customers");
  await psql("nightly-job", "app_user", "require", "DELETE FROM orders WHERE id = 9");
  console.log("a session over a Unix socket, and an agent that is killed meanwhile");
  const session = start("psql", "psql", ["-X", "-q", "-h", join(folder, "server"), "-p", server, "-U", "postgres", "-d", "postgres"], { stdin: "pipe" });
  const say = async (sql) => {
    session.stdin.write(`${sql};\n`);
    await wait(1200);
  };
  await say("SELECT 'before'");
  await end(tap, "SIGKILL");
  for (let n = 0; n < 40; n += 1) session.stdin.write("SELECT 'while nobody looks';\n");
  await wait(500);
  tap = agent("first");
  await until("the agent is back", async () => (await count("SELECT count(*) FROM events WHERE kind = 'agent_start'")) > 1);
  await wait(1500);
  await say("SELECT 'after'");
  await say("SELECT 'and once more'");
  session.stdin.end("\\q\n");
  await until("the gap is told", async () => (await count("SELECT count(*) FROM gaps WHERE kind = 'gap' AND bytes_missing IS NULL")) > 0);
  console.log("another agent of the same name, with a key of its own");
  const other = agent("second");
  await until("the collector refuses it", async () => (await count("SELECT count(*) FROM events WHERE kind = 'alarm'")) > 0);
  await end(other, "SIGKILL");
  console.log("an erasure, a hold, an inventory");
  const principal = (name) => `spiffe://*/${name}`;
  const named = (name) => count(`SELECT max(principal) FROM events WHERE principal LIKE '%/${name}'`);
  await until("everything is told", async () => (await count("SELECT count(*) FROM events WHERE kind = 'opaque_session'")) > 1);
  await run(COLLECTOR, ["hold", "add", "--data", join(out, "data"), "--principal", await named("back-office"), "--reason", "case 7"]);
  await run(COLLECTOR, ["erase", "--data", join(out, "data"), "--principal", await named("old-import"), "--reason", "request 93"]);
  const now = new Date();
  const day = (back) => new Date(now - back * 86_400_000).toISOString().slice(0, 10);
  const entries = [
    { id: principal("orders-api"), owner: "team-orders", purpose: "orders of the shop", roles: ["app_user"], rotated: day(500), expires: day(-10) },
    { id: principal("back-office"), owner: "operations", roles: ["app_user"], databases: ["postgres"], rotated: day(30), expires: day(2) },
    { id: principal("psql"), owner: "operations" },
  ];
  const list = (names) => JSON.stringify(names);
  await writeFile(
    join(out, "inventory.toml"),
    entries
      .map(({ id, owner, purpose, roles, databases, rotated, expires }) =>
        ["[[principal]]", `id = "${id}"`, `owner = "${owner}"`, purpose && `purpose = "${purpose}"`, roles && `roles = ${list(roles)}`, databases && `databases = ${list(databases)}`, expires && `credential = { rotated = ${rotated}, expires = ${expires} }`]
          .filter(Boolean)
          .join("\n"),
      )
      .join("\n\n"),
  );
  await until("that is told, too", async () => (await count("SELECT count(DISTINCT kind) FROM events WHERE kind IN ('hold', 'erasure')")) > 1);
  await end(tap, "SIGINT");
  await end(collector, "SIGINT");
  console.log(`\n${COLLECTOR} serve --data ${join(out, "data")} --inventory ${join(out, "inventory.toml")}`);
}

/** A throwaway server under a filter of system calls, as containers have one; answers with how it is asked. */
async function startServer(server) {
  const binaries = (await run("pg_config", ["--bindir"]).catch(() => ({ stdout: "" }))).stdout.trim() || (await newest("/usr/lib/postgresql"));
  const [uid, gid] = await Promise.all(["-u", "-g"].map(async (which) => Number((await run("id", [which, "postgres"])).stdout)));
  const as = (program, ...args) => run(program, args, { cwd: "/", uid, gid });
  await chmod(folder, 0o755);
  await mkdir(join(folder, "server"));
  await chown(join(folder, "server"), uid, gid);
  const data = join(folder, "server/data");
  await as(join(binaries, "initdb"), "-A", "trust", "-U", "postgres", "--locale=C", "--encoding=UTF8", "--no-sync", "-D", data);
  await as("openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=localhost", "-out", join(data, "server.crt"), "-keyout", join(data, "server.key"));
  await as("chmod", "600", join(data, "server.key"));
  await run("cc", ["-o", join(folder, "confine"), CONFINE]);
  const settings = [`port=${server}`, "listen_addresses=127.0.0.1", `unix_socket_directories=${join(folder, "server")}`, "ssl=on", "fsync=off"].flatMap((one) => ["-c", one]);
  start("postgres", join(folder, "confine"), [join(binaries, "postgres"), "-D", data, ...settings], { cwd: "/", uid, gid });
  const client = join(binaries, "psql");
  const admin = (...sql) => run(client, ["-X", "-q", "-h", join(folder, "server"), "-p", server, "-U", "postgres", ...sql.flatMap((one) => ["-c", one])]);
  await until("the server answers", () => admin("SELECT 1"));
  await admin(
    "CREATE ROLE app_user LOGIN",
    "CREATE ROLE reporting LOGIN",
    "CREATE TABLE customers AS SELECT n AS id, 'c' || n || '@example.org' AS email, n % 5 AS region FROM generate_series(1, 200) n",
    "CREATE TABLE orders AS SELECT n AS id, n * 3 AS amount FROM generate_series(1, 500) n",
    "GRANT ALL ON customers, orders TO app_user, reporting",
  );
  // A principal is the program that asks: the same client under several names.
  const programs = join(folder, "programs");
  await mkdir(programs, { recursive: true });
  return async (name, role, sslmode, ...sql) => {
    const program = join(programs, name);
    await copyFile(client, program);
    await chmod(program, 0o755);
    await run(program, ["-X", "-q", `host=127.0.0.1 port=${server} user=${role} dbname=postgres sslmode=${sslmode} application_name=${name}`, ...sql.flatMap((one) => ["-c", one])]);
  };
}

async function newest(root) {
  const versions = (await readdir(root)).sort((a, b) => Number(b) - Number(a));
  return join(root, versions[0], "bin");
}

function start(name, program, args, { stdin = "ignore", ...more } = {}) {
  const child = spawn(program, args, { ...more, stdio: [stdin, "ignore", "pipe"] });
  const said = [];
  child.stderr.on("data", (data) => said.push(data) > 50 && said.shift());
  child.on("exit", (code, signal) => {
    running.delete(child);
    if (code) console.log(`${name} ended with ${code ?? signal}: ${Buffer.concat(said.map(Buffer.from)).toString().slice(-600)}`);
  });
  running.add(child);
  return child;
}

async function end(child, signal) {
  if (child.exitCode != null || child.signalCode != null) return;
  const over = new Promise((gone) => child.on("exit", gone));
  child.kill(signal);
  await Promise.race([over, wait(10_000)]);
}

async function ask(url, sql) {
  const answer = await fetch(`${url}/api/v1/query`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ sql }) });
  if (!answer.ok) throw new Error(await answer.text());
  return (await answer.json()).rows;
}

async function until(what, holds, seconds = 60) {
  const last = Date.now() + seconds * 1000;
  let why = "";
  while (Date.now() < last) {
    try {
      if (await holds()) return console.log(what);
    } catch (error) {
      why = `: ${error.message}`;
    }
    await wait(300);
  }
  throw new Error(`in vain: ${what}${why}`);
}

function wait(ms) {
  return new Promise((over) => setTimeout(over, ms));
}

/** A port that is free now. */
function port() {
  return new Promise((found, failed) => {
    const server = createServer();
    server.on("error", failed);
    server.listen(0, "127.0.0.1", () => {
      const { port: number } = server.address();
      server.close(() => found(String(number)));
    });
  });
}
