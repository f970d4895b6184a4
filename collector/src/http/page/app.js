// The page. Everything that comes from events becomes text through textContent: SQL is written by strangers.
"use strict";

const REFRESH_MS = 5000; // key figures and principals
const TRAIL_ROWS = 200; // kept in the page
const RECONNECT_MS = 3000;
const PAINT_MS = 250; // a busy database must not keep the browser busy

const byId = (id) => document.getElementById(id);
const at = (object, path) => path.split(".").reduce((node, key) => (node == null ? undefined : node[key]), object);
// Control characters and those that turn the reading direction are shown, not obeyed.
const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const visible = (text) => text.replace(HIDDEN, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`);
const number = (n) => (n == null ? "–" : Number(n).toLocaleString("en-US"));

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text != null) node.textContent = visible(String(text));
  return node;
}

function compact(n) {
  return n < 100000 ? number(n) : new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 }).format(n);
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${unit === 0 ? n : n.toFixed(1)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

// "spiffe://domain/host/db1/unit/shop.service" reads "unit/shop.service" with the host beside it.
function principalParts(principal) {
  if (!principal) return { name: "unknown", place: "" };
  const path = principal.startsWith("spiffe://") ? principal.slice(9).split("/").slice(1) : null;
  if (!path || path.length === 0) return { name: principal, place: "" };
  if (path[0] === "host" && path.length > 2) return { name: path.slice(2).join("/"), place: path[1] };
  return { name: path.join("/"), place: "" };
}

const LEVELS = ["observed", "joined", "inferred", "asserted", "none"];

function chip(level) {
  const known = LEVELS.includes(level) ? level : "none";
  return element("span", `chip c-${known}`, known);
}

// Only these become class names of the page.
const CLASSES = ["READ", "WRITE", "FUNCTION", "ROLE", "DDL", "MISC", "MISC_SET"];

// The token is kept for this tab alone, and goes nowhere but into this header.
const token = { value: null };
try { token.value = sessionStorage.getItem("token"); } catch { /* kept for this view */ }

async function call(path, options = {}) {
  const headers = token.value ? { Authorization: `Bearer ${token.value}` } : {};
  const response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  const why = answer.error || `the collector answered ${response.status}`;
  if (response.status === 401) askForToken(token.value ? why : "");
  throw new Error(why);
}

const getJson = async (path) => (await call(path)).json();

function askForToken(why) {
  byId("token-why").textContent = why;
  if (!byId("token").open) byId("token").showModal();
}

function useToken() {
  const given = byId("token-value").value.trim();
  if (!given) return;
  byId("token-value").value = "";
  token.value = given;
  try { sessionStorage.setItem("token", given); } catch { /* kept for this view */ }
  byId("token").close();
  refresh();
  watch();
}

function kpi(id, value, detail, state) {
  const figure = byId(id);
  figure.textContent = value;
  figure.className = state ? `n ${state}` : "n";
  byId(`${id}-d`).textContent = detail;
}

function showOverview(o) {
  kpi("k-statements", compact(o.statements), `${compact(o.rows || 0)} rows out · ${number(o.errors)} errors`);
  byId("k-principals-l").textContent = `Principals, sharing ${number(o.roles)} ${o.roles === 1 ? "role" : "roles"}`;
  kpi("k-principals", number(o.principals), o.auth_failures ? `${number(o.auth_failures)} failed logins` : "no failed logins");
  // Never rounded up to a hundred that is not one.
  const share = o.statements === 0 ? "–" : o.attributed === o.statements ? "100 %"
    : `${(Math.floor((o.attributed / o.statements) * 10000) / 100).toFixed(2)} %`;
  const levels = LEVELS.filter((level) => o[level]).map((level) => `${level} ${compact(o[level])}`);
  const unknown = o.statements - o.attributed;
  if (unknown) levels.push(`not known ${compact(unknown)}`);
  kpi("k-attributed", share, levels.join(" · ") || "no statements yet", unknown ? "warn" : o.statements ? "ok" : "");
  const gaps = [];
  if (o.gaps) gaps.push(`${number(o.gaps)} ${o.gaps === 1 ? "gap" : "gaps"}`);
  if (o.gaps_of_unknown_size) gaps.push(`${number(o.gaps_of_unknown_size)} of unknown size`);
  gaps.push(`${number(o.opaque_sessions)} opaque sessions`);
  kpi("k-gaps", (o.gaps_of_unknown_size ? "≥ " : "") + bytes(o.bytes_missing), o.gaps ? gaps.join(" · ") : `no gaps · ${gaps[0]}`,
    o.gaps || o.opaque_sessions ? "warn" : "ok");
  const e = o.evidence;
  const entries = `${number(e.events)} events in ${number(e.batches)} signed batches`;
  if (e.checkpoint_age_seconds == null) kpi("k-evidence", "no checkpoint", entries, "warn");
  else kpi("k-evidence", `${duration(e.checkpoint_age_seconds)} ago`, `newest checkpoint · ${entries}`, e.checkpoint_age_seconds > 60 ? "warn" : "");
  const alarms = [];
  if (o.alarms) alarms.push(`${number(o.alarms)} ${o.alarms === 1 ? "alarm" : "alarms"} in this time: filter the events by kind alarm.`);
  if (e.aside) alarms.push(`${number(e.aside)} batches did not verify and were kept aside.`);
  if (o.store.behind_from != null) alarms.push("The answers have fallen behind the evidence log: what is shown is not complete. Restart the collector.");
  byId("alarm").hidden = alarms.length === 0;
  byId("alarm").textContent = alarms.join(" ");
}

function showPrincipals(principals) {
  const body = byId("principals");
  if (principals.length === 0) return;
  body.replaceChildren(...principals.map((p) => {
    const row = element("tr");
    const { name, place } = principalParts(p.principal);
    const who = element("td");
    const title = element("span", "who", name);
    title.title = p.principal;
    who.append(title);
    const known = p.principal !== "unknown";
    const detail = known ? [place, p.command_line || p.exe].filter(Boolean).join(" · ") : p.reason || "";
    const sub = element("span", "sub clamp", detail);
    sub.title = detail;
    who.append(sub);
    const role = element("td");
    (p.roles || []).filter(Boolean).forEach((r, n) => role.append(n ? ", " : "", element("code", "", r)));
    const how = element("td");
    (p.confidence || []).forEach((level) => how.append(chip(level || "none")));
    how.append(element("div", "sub", p.method || ""));
    const objects = (p.objects || []).filter(Boolean);
    const touched = element("td", "hide-s");
    touched.append(element("span", "", objects.length ? number(objects.length) : "–"));
    const names = element("span", "sub clamp", objects.join(", "));
    names.title = objects.join("\n");
    touched.append(names);
    const statements = element("td", "n", number(p.statements));
    if (p.errors) statements.append(element("div", "sub", `${number(p.errors)} errors`));
    const rows = element("td", "n", number(p.rows));
    if (p.rows_affected) rows.append(element("div", "sub", `${number(p.rows_affected)} changed`));
    row.append(who, role, how, statements, rows, touched);
    return row;
  }));
}

let refreshing = false;
async function refresh() {
  if (refreshing || document.hidden || byId("token").open) return;
  refreshing = true;
  const since = encodeURIComponent(byId("window").value);
  try {
    const [overview, answer] = await Promise.all([
      getJson(`/api/v1/overview?since=${since}`), getJson(`/api/v1/principals?since=${since}`)]);
    showOverview(overview);
    showPrincipals(answer.principals);
  } catch (error) {
    byId("alarm").hidden = false;
    byId("alarm").textContent = `No figures: ${error.message}`;
  } finally {
    refreshing = false;
  }
}

// The trail: newest first, held still while it is read.
const trail = { events: [], paused: false, hovered: false, waiting: 0, missed: 0, dirty: false };

function milliseconds(event) {
  if (!event.ts_start || !event.ts_end) return "–";
  // Nanoseconds do not fit a Date: whole seconds and fractions are taken apart.
  const parts = (text) => [Date.parse(`${text.slice(0, 19)}Z`), Number(`0${text.slice(19, -1)}`) * 1000];
  const [[start, startFraction], [end, endFraction]] = [parts(event.ts_start), parts(event.ts_end)];
  return (end - start + endFraction - startFraction).toFixed(1);
}

function meanMilliseconds(rollup) {
  return `⌀ ${(rollup.duration_ns / rollup.executions / 1e6).toFixed(1)}`;
}

// A statement, or many that are alike.
const isStatement = (event) => event.kind === "query" || event.kind === "rollup";

function words(event) {
  if (!isStatement(event)) {
    const detail = event.loss || event.amends || event[event.kind];
    return event.kind.replaceAll("_", " ") + (detail ? ` ${JSON.stringify(detail)}` : "");
  }
  const text = at(event, "statement.text");
  return text == null ? "(text not known)" : text + (at(event, "statement.truncated") ? " …" : "");
}

// Whose records it touched, by number: tokens tell a reader nothing.
function records(event) {
  return (event.subjects || []).map((s) => {
    const count = Math.max((s.tokens || []).length, s.filter_values || 0);
    const sources = (s.sources || []).join(", ");
    return `${s.object}.${s.column}: ${number(count)}${sources ? ` by ${sources}` : ""}${s.complete ? "" : ", and others that are not known"}`;
  });
}

function trailRow(event) {
  const row = element("tr");
  row.tabIndex = 0;
  const { name, place } = principalParts(at(event, "attribution.principal"));
  const who = element("td", "who", name);
  who.title = [at(event, "attribution.principal"), at(event, "attribution.confidence"), place].filter(Boolean).join("\n");
  if (at(event, "inventory.mark") === "unexpected") who.append(element("div", "sub bad", `unexpected: ${at(event, "inventory.because")}`));
  (at(event, "attribution.hops") || []).forEach((hop) => who.append(element("span", "hop", hop.name)));
  const cls = at(event, "meaning.class") || (isStatement(event) ? "" : event.kind);
  const classCell = element("td");
  const coloured = CLASSES.includes(cls) || ["gap", "opaque_session", "auth_failure", "alarm"].includes(cls) ? cls : "MISC";
  classCell.append(element("span", `cls ${coloured}`, isStatement(event) ? cls || "–" : "·"));
  const statement = element("td", "s");
  const sql = element("span", isStatement(event) ? "sql" : "sql sub", words(event));
  statement.append(sql);
  if (event.rollup) statement.append(element("span", "sub", `${number(event.rollup.executions)} times`));
  const outcome = at(event, "result.outcome");
  if (outcome && outcome !== "ok") {
    statement.append(element("span", outcome === "error" ? "sub bad" : "sub warn", [outcome, at(event, "result.sqlstate")].filter(Boolean).join(" ")));
  }
  const touched = records(event);
  if (touched.length) statement.append(element("span", "sub", `records ${touched.join("; ")}`));
  const rows = at(event, "result.rows") ?? at(event, "result.rows_affected");
  row.append(
    element("td", "sub", event.ts_start ? event.ts_start.slice(11, 23) : "–"), who,
    element("td", "hide-s sub", at(event, "session.login_role") || ""), classCell, statement,
    element("td", "n", number(rows)), element("td", "n", event.rollup ? meanMilliseconds(event.rollup) : milliseconds(event)));
  const open = () => showDetail(event);
  row.addEventListener("click", open);
  row.addEventListener("keydown", (key) => { if (key.key === "Enter") open(); });
  return row;
}

function paintTrail() {
  const still = trail.paused || trail.hovered;
  const state = [];
  if (trail.paused) state.push("paused");
  else if (trail.hovered) state.push("held while you read");
  if (still && trail.waiting) state.push(`${number(trail.waiting)} new`);
  if (trail.missed) state.push(`${number(trail.missed)} too fast to show here, in the record all the same`);
  byId("trail-state").textContent = state.join(" · ") || "click a row for the whole event";
  if (still || !trail.dirty) return;
  trail.dirty = false;
  trail.waiting = 0;
  if (trail.events.length) byId("trail").replaceChildren(...trail.events.map(trailRow));
  else byId("trail").replaceChildren(emptyRow());
}

function emptyRow() {
  const row = element("tr");
  const cell = element("td", "sub", "Waiting for the first statement.");
  cell.colSpan = 7;
  row.append(cell);
  return row;
}

// Server-sent events over fetch: an EventSource cannot send the token.
async function follow(path, signal, opened, handle) {
  const response = await call(path, { signal });
  opened();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let [text, name, data] = ["", "", ""];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data) handle(name, JSON.parse(data));
        [name, data] = ["", ""];
      } else if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
  }
}

function connection(text, state) {
  byId("connection").textContent = text;
  byId("connection").className = `pill ${state}`;
}

let stopWatching = () => {};
async function watch() {
  stopWatching();
  const stop = new AbortController();
  stopWatching = () => stop.abort();
  const filter = new URLSearchParams();
  if (byId("filter").value) filter.set("principal", byId("filter").value);
  if (byId("class").value) filter.set("class", byId("class").value);
  trail.events = [];
  trail.missed = 0;
  trail.dirty = true;
  const seen = new Set();
  const wanted = (event) => event.kind !== "heartbeat" && !seen.has(event.event_id);
  const handle = (name, what) => {
    if (name === "lagged") trail.missed += what.missed;
    if (name !== "sighting" || !wanted(what)) return;
    seen.add(what.event_id);
    if (seen.size > 4 * TRAIL_ROWS) seen.delete(seen.values().next().value);
    trail.events.unshift(what);
    trail.events.length = Math.min(trail.events.length, TRAIL_ROWS);
    trail.waiting += 1;
    trail.dirty = true;
  };
  const live = `/api/v1/live?${filter}`;
  (async () => {
    while (!stop.signal.aborted) {
      try {
        await follow(live, stop.signal, () => connection("live", "ok"), handle);
      } catch { /* said by the state, and tried again */ }
      if (stop.signal.aborted) return;
      connection("not connected", "bad");
      // A token begins anew.
      if (byId("token").open) return;
      await new Promise((again) => { setTimeout(again, RECONNECT_MS); });
    }
  })();
  try {
    filter.set("limit", String(TRAIL_ROWS));
    const { events } = await getJson(`/api/v1/events?${filter}`);
    if (stop.signal.aborted) return;
    trail.events.push(...events.filter(wanted));
    trail.events.length = Math.min(trail.events.length, TRAIL_ROWS);
    trail.dirty = true;
  } catch (error) {
    byId("trail-state").textContent = error.message;
  }
}

// One event, everything that is known.
function facts(title, pairs) {
  const known = pairs.filter(([, value]) => value != null && value !== "");
  if (known.length === 0) return [];
  const list = element("dl");
  known.forEach(([name, value]) => {
    const cell = element("dd");
    if (value instanceof Node) cell.append(value); else cell.textContent = visible(String(value));
    list.append(element("dt", "", name), cell);
  });
  return [element("h3", "", title), list];
}

const NOTES = {
  kubernetes: "This names the workload. The person whose request it served is not visible on the wire.",
  container: "This names the container. The person whose request it served is not visible on the wire.",
  unit: "This names the service. The person whose request it served is not visible on the wire.",
  process: "This names the program. The person whose request it served is not visible on the wire.",
  remote: "This names an address only: no agent runs there.",
};

function showDetail(event) {
  const endpoint = (e) => e && [e.addr, e.port].filter((part) => part != null).join(" port ");
  const a = event.attribution || {};
  const p = a.process || {};
  const r = event.result || {};
  const m = event.meaning || {};
  const parts = [];
  if (isStatement(event)) parts.push(element("pre", "", words(event)));
  const level = element("span");
  level.append(chip(a.confidence), element("span", "", a.method || ""));
  parts.push(...facts("Who", [["principal", a.principal || "unknown"], ["how we know", level], ["why not known", a.reason],
    ["recorded as", a.recorded && `${a.recorded.principal} (${a.recorded.confidence})`], ["amended by", a.amended_by],
    ["through", (a.hops || []).map((hop) => `${hop.name} (${[hop.role, hop.confidence].filter(Boolean).join(", ")})`).join(" › ")]]));
  if (NOTES[a.kind]) parts.push(element("p", "note", NOTES[a.kind]));
  if (a.evidence) {
    const list = element("ul");
    a.evidence.forEach((fact) => list.append(element("li", "", fact)));
    parts.push(element("h3", "", "Evidence for it"), list);
  }
  parts.push(...facts("Process", [["pid", p.pid], ["executable", p.exe], ["command line", (p.command_line || []).join(" ")],
    ["user", p.user ? `${p.user} (uid ${p.uid})` : p.uid], ["login uid", p.login_uid], ["unit", p.unit], ["cgroup", p.cgroup_path],
    ["container", at(a, "container.id")], ["pod", at(a, "pod.uid")],
    ["started by", (p.ancestry || []).map((parent) => `${parent.exe} (${parent.pid})`).join(" ‹ ")]]));
  const s = event.session || {};
  parts.push(...facts("Session", [["role", s.login_role], ["database", s.database], ["application name (said by the client)", s.application_name],
    ["client", endpoint(s.client)], ["server", endpoint(s.server)], ["transport", [s.transport, s.encryption && `encryption ${s.encryption}`].filter(Boolean).join(", ")],
    ["authentication", s.auth_method], ["backend pid", s.backend_pid], ["opened before the agent", s.opened_before_attach ? "yes" : null]]));
  parts.push(...facts("What", [["class", m.class], ["command tag", m.tag],
    ["objects", (m.objects || []).map((o) => `${o.access || ""} ${[o.schema, o.name].filter(Boolean).join(".")}`.trim()).join(", ")],
    ["records", records(event).join("; ")],
    ["executions, as one record", event.rollup && number(event.rollup.executions)],
    ["outcome", [r.outcome, r.sqlstate].filter(Boolean).join(" ")], ["rows out", r.rows], ["rows changed", r.rows_affected],
    ["bytes in / out", event.result ? `${number(r.bytes_in)} / ${number(r.bytes_out)}` : null]]));
  parts.push(element("h3", "", "The record"), element("pre", "", JSON.stringify(event, null, 2)));
  byId("detail-title").textContent = visible(`${event.kind.replaceAll("_", " ")} · ${event.event_id} · ${event.ts_start || ""}`);
  byId("detail-body").replaceChildren(...parts);
  byId("detail").showModal();
}

function storedTheme() { try { return localStorage.getItem("theme"); } catch { return null; } }
function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
function labelTheme() { byId("theme").textContent = isDark() ? "light theme" : "dark theme"; }

const theme = storedTheme();
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
labelTheme();
byId("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* chosen for this visit */ }
  labelTheme();
});
byId("window").addEventListener("change", refresh);
byId("filter").addEventListener("change", watch);
byId("class").addEventListener("change", watch);
byId("pause").addEventListener("click", () => {
  trail.paused = !trail.paused;
  byId("pause").textContent = trail.paused ? "resume" : "pause";
  byId("pause").setAttribute("aria-pressed", String(trail.paused));
  paintTrail();
});
byId("trail").addEventListener("mouseenter", () => { trail.hovered = true; });
byId("trail").addEventListener("mouseleave", () => { trail.hovered = false; paintTrail(); });
byId("token-use").addEventListener("click", useToken);
byId("token-value").addEventListener("keydown", (key) => { if (key.key === "Enter") useToken(); });
byId("detail-close").addEventListener("click", () => byId("detail").close());
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, REFRESH_MS);
setInterval(paintTrail, PAINT_MS);
refresh();
watch();
