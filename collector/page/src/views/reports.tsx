// Reports: answers put together for people who were not there, to read here and to keep as a file.
//
// Owns which there are, and that what is kept has the same parts as what is read.

import type { JSX } from "preact";
import { purpose, setPurpose, tooLow } from "../access.ts";
import { get, Refused, reported } from "../api.ts";
import type { Status } from "../answers.ts";
import { useAsked } from "../ask.ts";
import { fileName, save } from "../download.ts";
import { number, plural } from "../numbers.ts";
import { Copy, command, quoted, sinceFlag } from "../parts/copy.tsx";
import { Answer, Facts, Panel, Problem } from "../parts/panel.tsx";
import { Table } from "../parts/table.tsx";
import { Chips, EventLink, Workloads } from "../parts/text.tsx";
import { heading, html, markdown, plain, type Report } from "../reports/layout.ts";
import { change, link, route, since } from "../route.ts";
import { type Asking, inAddress, ofAddress } from "../subjects/asking.ts";
import { ALL, behind, lastDay, moment, nanos, rfc3339, sinceNs, utc } from "../time.ts";
import { entry, inOneLine, visible } from "../visible.ts";

const REPORTS: Record<string, { title: string; says: string }> = {
  coverage: { title: "Coverage", says: "What was seen and what was not: names, gaps, agents." },
  "access-review": { title: "Access review", says: "Who uses which role and touches what, what takes privileges, and what nobody expects." },
  "evidence-pack": { title: "Evidence pack", says: "What is held of what SOC 2, PCI DSS and GDPR ask for, and what is not." },
  dsar: { title: "Access to one person's data", says: "Who touched a record, and which scans may have included it." },
};

interface Whole {
  report: Report;
  version: string;
}

export function Reports(): JSX.Element {
  const params = route.value.params;
  const name = entry(REPORTS, params.report) ? params.report! : null;
  const [from, until] = [moment(params.from), moment(params.until)];
  const low = tooLow("auditor");
  return (
    <>
      <Panel title="Reports" about="for people who were not there; of the days that are named here, else of the time that is chosen above">
        <ul class="choices">
          {Object.entries(REPORTS).map(([one, { title, says }]) => (
            <li key={one}>
              <a class="item" data-row="" data-report={one} aria-current={one === name ? "true" : undefined} href={link("reports", { ...(one === "dsar" ? recordOf(params) : {}), from, until, report: one })}>
                <b>{title}</b>
                <span class="sub">{says}</span>
              </a>
            </li>
          ))}
        </ul>
        <div class="filters">
          <label>
            <span>from the day (UTC)</span>
            <input type="date" data-filter="from" value={from?.slice(0, 10) ?? ""} max={until ? lastDay(until) : undefined} onChange={(at) => change({ from: at.currentTarget.value ? `${at.currentTarget.value}T00:00:00Z` : null })} />
          </label>
          <label>
            <span>to the end of the day (UTC)</span>
            <input type="date" data-filter="until" value={until ? lastDay(until) : ""} min={from?.slice(0, 10)} onChange={(at) => change({ until: at.currentTarget.value ? behind(at.currentTarget.value) : null })} />
          </label>
          <label class="wide">
            <span>why you ask; it is recorded</span>
            <input type="text" data-filter="purpose" value={purpose.value} placeholder="ticket, request" maxLength={200} onInput={(at) => setPurpose(at.currentTarget.value)} />
          </label>
        </div>
        {low && <Problem of={new Refused(low, 403, "auditor")} />}
      </Panel>
      {name === "dsar" && !ofAddress(params) && (
        <Panel title={REPORTS.dsar!.title}>
          <p class="state">
            First say whose record it is: ask <a href={link("records")}>who touched a record</a>, and take the report from there. The value stays in this page.
          </p>
        </Panel>
      )}
      {name && !low && (name !== "dsar" || ofAddress(params)) && <One key={name} name={name} />}
    </>
  );
}

/** The record that is asked for, as the address has it. */
const recordOf = (params: Record<string, string>): Record<string, string> => {
  const asked = ofAddress(params);
  return asked ? inAddress(asked) : {};
};

/** What the report is of: the first moment, and the first one behind it where it has an end. */
interface Period {
  from: string;
  until: string | null;
}

/** An end without a beginning has all of the record before it. */
const periodOf = (params: Record<string, string>): Period => {
  const until = moment(params.until);
  return { from: moment(params.from) ?? (until ? ALL : since()), until };
};

function One({ name }: { name: string }): JSX.Element {
  const params = route.value.params;
  const period = periodOf(params);
  const asking = name === "dsar" ? ofAddress(params) : null;
  const withNames = params.named === "yes";
  const asked = useAsked(`report ${name} ${JSON.stringify([period, asking])} ${withNames}`, (signal) => make(name, period, asking, withNames, signal));
  const keep = (ending: string, type: string, text: (of: Whole) => string): void => {
    if (asked.answer) save(`${fileName(name)}-${new Date().toISOString().slice(0, 10)}.${ending}`, new Blob([text(asked.answer)], { type }));
  };
  return (
    <Panel
      class="report"
      title={REPORTS[name]!.title}
      tools={
        <>
          {asking && (
            <label class="pill">
              <input type="checkbox" data-named checked={withNames} onChange={(at) => change({ named: at.currentTarget.checked ? "yes" : null })} /> with names
            </label>
          )}
          <button type="button" class="pill" data-download="markdown" disabled={!asked.answer} onClick={() => keep("md", "text/markdown", (of) => markdown(of.report))}>
            Markdown
          </button>
          <button type="button" class="pill" data-download="html" disabled={!asked.answer} onClick={() => keep("html", "text/html", (of) => html(of.report, of.version))}>
            HTML
          </button>
          <Copy text={asCommand(name, period, asking, withNames)} label="copy command" />
          <Copy text={location.href} label="copy link" />
        </>
      }
    >
      <Answer asked={asked} lines={14}>
        {({ report }) => <Shown of={report} />}
      </Answer>
    </Panel>
  );
}

function Shown({ of }: { of: Report }): JSX.Element {
  return (
    <>
      <Facts of={of.facts.map(([name, value]) => [visible(name), visible(value)])} />
      {of.sections.map(({ title, text, table }, n) => (
        <section key={n} aria-label={visible(title)}>
          <h3>{visible(title)}</h3>
          {text.map((one, place) => (
            <p key={place} class="note">
              {visible(one)}
            </p>
          ))}
          {table && (
            <>
              {table.rows.length > SHOWN && <p class="note">{plural(table.rows.length, "row")}; the first {number(SHOWN)} are shown here, the files have all.</p>}
              <Table
                label={visible(title)}
                rows={table.rows.slice(0, SHOWN)}
                id={(_, place) => String(place)}
                columns={table.columns.map((column, place) => ({
                  title: heading(column),
                  class: table.rows.some((row) => typeof row[place] === "number") ? "n" : "",
                  cell: (row: unknown[]) => <Cell column={column} of={row[place]} />,
                }))}
              />
            </>
          )}
        </section>
      ))}
    </>
  );
}

function Cell({ column, of }: { column: string; of: unknown }): JSX.Element {
  const text = plain(of);
  if (EVENTS.includes(column) && text) return <EventLink id={text} />;
  if (LEVEL_COLUMNS.includes(column)) return <Chips of={text.split(", ")} />;
  if (text.startsWith("spiffe://")) return Array.isArray(of) ? <span class="prose"><Workloads of={of.map(String)} /></span> : <Workloads of={[text]} />;
  if (typeof of === "number") return <>{number(of)}</>;
  if (IS_TIME.test(text)) return <time dateTime={text} title={text}>{utc(text)}</time>;
  if (text.length > PROSE && text.includes(" ")) return <span class="prose">{inOneLine(text)}</span>;
  return <span title={visible(text)}>{inOneLine(text)}</span>;
}

async function make(name: string, period: Period, asking: Asking | null, withNames: boolean, signal: AbortSignal): Promise<Whole> {
  const span = { since_ns: sinceNs(period.from) ?? undefined, until_ns: period.until ? nanos(period.until) : undefined };
  const question = asking
    ? { report: name, name_actors: withNames, asking: { asked: { object: asking.object, column: asking.column, tokens: asking.tokens, ...span }, missing_keys: asking.missing, unread: asking.unread } }
    : { report: name, ...span };
  const report = await reported<Report>("/api/v1/report", question, signal);
  const { version, evidence } = await get<Status>("/api/v1/status", signal);
  const made = `${utc(rfc3339(Date.now()))} UTC`;
  const stands: [string, string][] = [["evidence log", evidence.origin], ["newest checkpoint", `${evidence.tree_size} entries, root ${evidence.root_hash}`]];
  return { version, report: { ...report, facts: [["made", made], ...report.facts, ...stands] } };
}

const asCommand = (name: string, { from, until }: Period, asking: Asking | null, withNames: boolean): string =>
  command("report", name, asking && `--object ${quoted(asking.object)} --key - --token-key FILE`, withNames ? "--name-actors" : null, sinceFlag(from), until && `--until ${quoted(until)}`, purpose.value && `--purpose ${quoted(purpose.value)}`, "--format html", `-o ${name}.html`);

const SHOWN = 200;
/** Characters from which on a cell is read as a sentence. */
const PROSE = 36;
const LEVEL_COLUMNS = ["certainty", "confidence"];
const EVENTS = ["event", "an_event", "event_id", "last_event", "first_event"];
const IS_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
