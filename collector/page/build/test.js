// Tokens against known answers, the same as in crates/subjects: what differs from them would look for somebody else's record.
//
// Owns the cases, and that a share is never rounded up, hidden characters are shown, and reports are laid out as the collector does it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const load = async (path) => {
  const made = await esbuild.build({ entryPoints: [fileURLToPath(new URL(`../src/${path}`, import.meta.url))], bundle: true, format: "esm", write: false, charset: "utf8" });
  return import(`data:text/javascript;base64,${Buffer.from(made.outputFiles[0].text).toString("base64")}`);
};

const { canonical } = await load("subjects/canonical.ts");
const { parseKeys, token } = await load("subjects/keys.ts");
const { entry, visible } = await load("visible.ts");
const { share } = await load("numbers.ts");
const { behind, lastDay, moment, nanos } = await load("time.ts");
const { HEAD_1, HEAD_2, html, markdown } = await load("reports/layout.ts");

const form = (family, text) => {
  const bytes = canonical(family, text);
  return bytes && new TextDecoder().decode(bytes);
};

const SAME = [
  ["integer", "42", ["42", " 42 ", "+42", "042", "\t42\n"]],
  ["integer", "-9223372036854775808", ["-9223372036854775808"]],
  ["integer", "0", ["0", "-0", "000"]],
  ["numeric", "425e-1", ["42.5", "042.50", "+42.5000", "4.25e1", "425E-1", ".425e2"]],
  ["numeric", "-42e1", ["-420", "-420.00", "-4.2e+2"]],
  ["numeric", "0", ["0", "-0.00", "0e10", ".0"]],
  ["numeric", "NaN", ["NaN", "nan"]],
  ["numeric", "-Infinity", ["-Infinity", "-inf"]],
  ["double precision", "1e-1", ["0.1", "1e-1", " .1 "]],
  ["double precision", "inf", ["Infinity", "inf"]],
  ["double precision", "4.25e1", ["42.5"]],
  ["real", "5e-1", ["0.5", "5e-1"]],
  ["char", "ab", ["ab", "ab   "]],
  ["text", " a ", [" a "]],
  ["uuid", "a0eebc999c0b4ef8bb6d6bb9bd380a11", ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11"]],
  ["boolean", "t", ["t", "TRUE", " yes", "on", "1", "tr"]],
  ["boolean", "f", ["f", "False", "no", "of", "off", "0"]],
  ["date", "0", ["2000-01-01", "20000101", "2000-1-1", "2000-01-01 23:59", " 2000-01-01 AD"]],
  ["date", "8825", ["2024-02-29"]],
  ["date", "-730485", ["0001-01-01 BC", "0001-1-1 BC"]],
  ["date", "infinity", ["infinity", "INFINITY"]],
  ["time", "52205500000", ["14:30:05.5", "14:30:05.500000"]],
  ["time", "86400000000", ["24:00:00", "24:00"]],
  ["timestamp", "86400000000", ["2000-01-02", "2000-01-02 00:00:00", "2000-01-02T00:00", "2000-01-02 00:00:00+05"]],
  ["timestamp", "-1000000", ["1999-12-31 23:59:59"]],
  ["timestamptz", "0", ["2000-01-01 00:00:00+00", "2000-01-01T00:00:00Z", "2000-01-01 02:30:00+02:30", "2000-01-01 02:30:00+0230", "1999-12-31 16:00:00-08", "2000-01-01 00:00 UTC", "2000-01-01 00:34:08+00:34:08"]],
  ["bytea", "a\\b", ["a\\\\b", "\\x615c62", "\\x61 5c 62", "\\141\\134\\142", "\\x615C62"]],
  ["inet", "10.0.0.1/32", ["10.0.0.1", "10.0.0.1/32"]],
  ["inet", "10.0.0.0/8", ["10.0.0.0/8"]],
  ["inet", "2001:db8::1/128", ["2001:db8::1", "2001:DB8:0:0::1", "2001:0db8::1/128"]],
  ["inet", "::ffff:1.2.3.4/128", ["::ffff:1.2.3.4", "::ffff:102:304"]],
  ["inet", "1::3:0:0:4/128", ["1:0:0:0:3:0:0:4", "1::3:0:0:4"]],
];

const NONE = [
  ["integer", ["", " ", "+", "4 2", "42.0", "0x2A", "1_000", "9223372036854775808", "--1", "+-1", "٤٢"]],
  ["numeric", ["", ".", "1e", "1e1234567", "0x2A", "1_0", "1.2.3", "-NaN", "1 0", "- 1"]],
  ["double precision", ["", "1e400", "0x1p3", "abc", "1_0"]],
  ["real", ["0.1", "1e39"]],
  ["text", ["a\0b"]],
  ["uuid", ["", " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-", "a0eebc9-99c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11"]],
  ["boolean", ["", "o", "2", "truee"]],
  ["date", ["", "01/02/2003", "2003-13-01", "2003-02-29", "1900-02-29", "030201", "Jan 1 2003", "today", "0000-01-01", "2003-1", "2003-01-02x"]],
  ["time", ["", "14", "14:60", "24:00:01", "2:30 PM", "14:30:05.1234567", "14:30:60", "14:30+02"]],
  ["timestamp", ["now", "2000-01-01 2:30 PM", "2000-01-01 25:00", "01.01.2000 00:00"]],
  ["timestamptz", ["2000-01-01 00:00:00", "2000-01-01", "2000-01-01 00:00 Europe/Berlin", "2000-01-01 00:00+16", "2000-01-01 00:00+02:"]],
  ["bytea", ["\\x6", "\\x6 1", "\\xzz", "\\400", "\\", "\\14"]],
  ["inet", ["", "10.1", "10.0.0.1/33", "10.0.0.01", "::1/129", "10.0.0.1/", "fe80::1%eth0", "10.0.0.1/+8", "1.2.3.4::", ":::", "1:2:3:4:5:6:7::8", "1:2:3:4:5:6:7:8::"]],
  ["no such family", ["42"]],
];

for (const [family, expected, texts] of SAME) for (const text of texts) assert.equal(form(family, text), expected, `${family} ${JSON.stringify(text)}`);
for (const [family, texts] of NONE) for (const text of texts) assert.equal(form(family, text), null, `${family} ${JSON.stringify(text)}`);

const FIRST = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const [key] = parseKeys(`# made in May\nk ${FIRST}\n`);
assert.equal(await token(key, "integer", canonical("integer", " 042")), "7aad287ccdff0cb4ef22914494adda78");
for (const wrong of ["", "# none", `k ${FIRST.slice(2)}`, FIRST, `k ${FIRST} x`, `a/b ${FIRST}`, `k ${FIRST}\nk ${FIRST}`, `k ${"ab".repeat(32)}`]) {
  assert.throws(() => parseKeys(wrong), (error) => !error.message.includes(FIRST.slice(0, 8)) && !error.message.includes("abab"), wrong);
}

assert.equal(visible("a\u202egnp\u0000\u001b[31m"), "a\\u{202e}gnp\\u{0}\\u{1b}[31m");
// Once, a code `__proto__` brought what is in every object into the page, which then wrote into it.
for (const name of ["__proto__", "constructor", "toString", null]) assert.equal(entry({ a: 1 }, name), undefined);
assert.equal(entry({ a: 1 }, "a"), 1);
assert.equal(share(999_999, 1_000_000), "99.99 %");
assert.equal(share(0, 0), "–");
assert.equal(nanos("2026-11-22T19:50:49.911233599Z"), 1795377049911233599n);
assert.equal(behind("2028-02-28"), "2028-02-29T00:00:00Z");
assert.equal(lastDay("2027-01-01T00:00:00Z"), "2026-12-31");
assert.equal(lastDay("2027-01-01T00:00:01Z"), "2027-01-01");
assert.equal(moment("2026-11-22T19:50:49.9Z"), "2026-11-22T19:50:49.9Z");
for (const text of [undefined, "", "24h", "2026-13-01T00:00:00Z", "2026-11-22", "2026-11-22T00:00:00Z' OR 1"]) assert.equal(moment(text), null);
// The collector has the same form as a template; browse compares whole reports.
const template = await readFile(new URL("../../src/report/report.html.jinja", import.meta.url), "utf8");
assert.equal(template.slice(0, template.indexOf("<h1>")), `${HEAD_1}{{ title }}${HEAD_2}\n`);
const text = "<script>alert(1)</script> | [x](javascript:y) *z*\n# a\u001b[31m";
const report = { title: "A report", facts: [["period", text]], sections: [{ title: "One", text: [text], table: { columns: ["who", "how_often"], rows: [[text, 7], [["a", "b"], null]], truncated: false } }, { title: "Two", text: ["There is none."], table: null }] };
const page = html(report, "1");
assert.ok(!page.includes("<script") && !page.includes("\u001b") && page.split("<tr>").length === 4, page);
const lines = markdown(report).split("\n");
assert.ok(lines.includes("| who | how often |") && lines.includes("| a, b |  |") && lines.includes("There is none."), lines.join("\n"));
assert.ok(!/(?<!\\)[<[*]/.test(markdown(report)) && !lines.some((line) => line.startsWith("# a")), lines.join("\n"));
console.log("tokens, shares, times, hidden characters and reports are as they must be");
