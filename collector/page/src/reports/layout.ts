// A report as a file: Markdown, or one HTML file, as `pgwitness-collector report` writes it, byte for byte.
//
// Owns the two forms (collector/src/report/page.rs has the same). What is put into them comes from outside, and is escaped by where it stands.
// In the page itself a report is made of text nodes, as everything is; what is made here goes into files only.

import type { Page } from "../answers.ts";
import { json } from "../api.ts";

/** `POST /api/v1/report`. */
export interface Report {
  title: string;
  facts: [string, string][];
  sections: { title: string; text: string[]; table: Page | null }[];
}

/** A cell as text. */
export function plain(value: unknown): string {
  if (value == null) return "";
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(plain).join(", ");
  return json(value);
}

/** In one line, and with nothing that is obeyed and not shown. */
const printable = (text: string): string => text.replace(/[\n\t\r]/g, " ").replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`);

/** Columns have names of SQL. */
export const heading = (column: string): string => column.replaceAll("_", " ");

export function markdown(of: Report): string {
  const safe = (text: string): string => text.replace(/[\\`*_[\]<>|~&!#]/g, "\\$&");
  const row = (cells: string[]): string => `|${cells.map((cell) => ` ${cell} |`).join("")}\n`;
  const lines = [`# ${safe(of.title)}\n\n`, ...of.facts.map(([name, value]) => `- ${safe(name)}: ${safe(printable(value))}\n`)];
  for (const { title, text, table } of of.sections) {
    lines.push(`\n## ${safe(title)}\n\n`, ...text.map((one) => `${safe(printable(one))}\n\n`));
    if (!table) continue;
    lines.push(row(table.columns.map((name) => safe(heading(name)))), row(table.columns.map(() => "---")));
    lines.push(...table.rows.map((cells) => row(cells.map((cell) => safe(printable(plain(cell)))))));
  }
  return lines.join("");
}

export function html(of: Report, version: string): string {
  const safe = (text: string): string => text.replace(/[&<>"'/]/g, (c) => ENTITIES[c]!);
  const cells = (name: string, of: string[]): string => `<tr>${of.map((one) => `<${name}>${safe(one)}</${name}>`).join("")}</tr>`;
  const lines = [HEAD_1 + safe(of.title) + HEAD_2, `<h1>${safe(of.title)}</h1>`, "<dl>"];
  lines.push(...of.facts.map(([name, value]) => `<dt>${safe(name)}</dt><dd>${safe(printable(value))}</dd>`), "</dl>");
  for (const { title, text, table } of of.sections) {
    lines.push(`<h2>${safe(title)}</h2>`, ...text.map((one) => `<p>${safe(printable(one))}</p>`));
    if (!table) continue;
    lines.push('<div class="wide"><table>', `<thead>${cells("th", table.columns.map(heading))}</thead>`, "<tbody>");
    lines.push(...table.rows.map((row) => cells("td", row.map((cell) => printable(plain(cell))))), "</tbody>", "</table></div>");
  }
  lines.push(`<footer>Made by pgwitness ${safe(version)}.</footer>`, "</body>", "</html>");
  return lines.join("\n");
}

const ENTITIES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;", "/": "&#x2f;" };

/** Up to the title, and from there to the body, as in collector/src/report/report.html.jinja. */
export const HEAD_1 = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>`;
export const HEAD_2 = `</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0.2rem 1.2rem; }
dt { color: #57606a; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { border-bottom: 1px solid #d0d7de; padding: 0.3rem 0.7rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
footer { color: #57606a; font-size: 13px; margin-top: 3rem; }
@media print { body { margin: 0; max-width: none; } .wide { overflow: visible; } }
</style>
</head>
<body>`;
