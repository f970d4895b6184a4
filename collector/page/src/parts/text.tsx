// The small things that views are made of: names, chips, times, figures, pieces of SQL.
//
// Owns that a principal never stands without how sure it is, and that text from events is shown through `visible`.

import type { ComponentChildren, JSX } from "preact";
import type { Attribution, Hop } from "../answers.ts";
import { level, LEVELS, MEANS, named, UNKNOWN } from "../principal.ts";
import { link } from "../route.ts";
import { ago, clock, local, short, utc } from "../time.ts";
import { seconds } from "../numbers.ts";
import { inOneLine, visible } from "../visible.ts";

export function Chip({ of }: { of: string | null | undefined }): JSX.Element {
  const known = level(of);
  return (
    <span class={`chip c-${known}`} title={MEANS[known]}>
      {known}
    </span>
  );
}

/** Each level once, the surest first. */
export function Chips({ of }: { of: (string | null)[] | string | null | undefined }): JSX.Element {
  const given = (Array.isArray(of) ? of : [of]).map(level);
  const shown = LEVELS.filter((one) => given.includes(one));
  return (
    <span class="chips">
      {shown.map((one) => (
        <Chip key={one} of={one} />
      ))}
    </span>
  );
}

interface WhoProps {
  principal: string | null | undefined;
  confidence?: (string | null)[] | string | null;
  /** What stands below it. */
  sub?: ComponentChildren;
  hops?: Hop[];
  chips?: boolean;
  /** Since when it is new. */
  fresh?: string | undefined;
}

/** A principal, linked to its page. */
export function Who({ principal, confidence, sub, hops, chips = true, fresh }: WhoProps): JSX.Element {
  const { name, host } = named(principal);
  return (
    <>
      <span class="wholine">
        <a class="who" href={link("principal", { name: principal || UNKNOWN })} title={visible(principal ?? UNKNOWN)}>
          <Path of={name} />
          {host && <small> {inOneLine(host)}</small>}
        </a>
        {chips && <Chips of={principal && principal !== UNKNOWN ? confidence : "none"} />}
        <New since={fresh} />
      </span>
      {hops?.map((hop, n) => (
        <span key={n} class="hopline">
          <span class="hop" title={`passed on by ${visible(hop.role ?? "")} ${visible(hop.name ?? "")}`}>
            <Path of={named(hop.name).name} />
          </span>
          <Chip of={hop.confidence} />
        </span>
      ))}
      {sub ? <div class="sub clamp">{sub}</div> : null}
    </>
  );
}

/** Where there is little room the end of a name stays, which tells programs of one folder apart. */
function Path({ of }: { of: string }): JSX.Element {
  const end = of.lastIndexOf("/") + 1;
  return (
    <span class={`path ${of.indexOf("/") < end - 1 ? "far" : ""}`}>
      {end > 1 && <span class="from">{inOneLine(of.slice(0, end))}</span>}
      <span>{inOneLine(of.slice(end > 1 ? end : 0))}</span>
    </span>
  );
}

/** Many of them, without what all of them begin with; how sure each is stands elsewhere. */
export function Workloads({ of, most = 50 }: { of: (string | null)[]; most?: number }): JSX.Element {
  const names = of.filter((one): one is string => Boolean(one));
  return (
    <span class="names" title={names.map(visible).join("\n")}>
      {names.slice(0, most).map((one, n) => (
        <span key={one}>
          {n > 0 && ", "}
          <a href={link("principal", { name: one })}>{inOneLine(named(one).name)}</a>
        </span>
      ))}
      {names.length > most && ` and ${names.length - most} more`}
    </span>
  );
}

/** Who an event's attribution names. */
export function WhoOf({ of, sub }: { of: Attribution | undefined; sub?: ComponentChildren }): JSX.Element {
  if (!of) return <span class="sub">of pgwitness itself</span>;
  return <Who principal={of.principal} confidence={of.confidence ?? "none"} hops={of.hops} sub={sub} />;
}

/** Whoever is in the record for the first time. */
export function New({ since }: { since: string | undefined }): JSX.Element | null {
  if (!since) return null;
  return (
    <span class="chip c-new" title={`never on record before ${utc(since)} UTC`}>
      new
    </span>
  );
}

export function Time({ at, form = "utc" }: { at: string | null | undefined; form?: "utc" | "short" | "clock" | "ago" }): JSX.Element {
  if (!at) return <span class="sub">not known</span>;
  const text = form === "clock" ? clock(at) : form === "short" ? short(at) : form === "ago" ? `${seconds(ago(at))} ago` : utc(at);
  return (
    <time dateTime={at} title={local(at)}>
      {text}
    </time>
  );
}

const CLASSES = ["READ", "WRITE", "FUNCTION", "ROLE", "DDL", "MISC", "MISC_SET"];

export function Class({ of }: { of: string | null | undefined }): JSX.Element {
  const known = of && CLASSES.includes(of) ? of : "MISC";
  return <span class={`cls ${known}`}>{of ? visible(of) : "–"}</span>;
}

export function Sql({ text }: { text: string | null | undefined }): JSX.Element {
  if (text == null) return <span class="sub">text not known</span>;
  return (
    <code class="sql" title={visible(text)}>
      {inOneLine(text)}
    </code>
  );
}

/** Names in a row, the first few of many. */
export function Names({ of, most = 6 }: { of: (string | null)[] | null | undefined; most?: number }): JSX.Element {
  const names = (of ?? []).filter((one): one is string => one != null && one !== "");
  if (names.length === 0) return <span class="sub">–</span>;
  const rest = names.length - most;
  return (
    <span title={names.map(visible).join("\n")}>
      {names.slice(0, most).map(inOneLine).join(", ")}
      {rest > 0 ? ` and ${rest} more` : ""}
    </span>
  );
}

export function Obj({ name }: { name: string | null | undefined }): JSX.Element {
  if (!name) return <span class="sub">none named</span>;
  return (
    <a href={link("object", { name })} title={visible(name)}>
      <code>{inOneLine(name)}</code>
    </a>
  );
}

export function EventLink({ id, children }: { id: string | null | undefined; children?: ComponentChildren }): JSX.Element | null {
  if (!id) return null;
  return <a href={link("event", { id })}>{children ?? inOneLine(id)}</a>;
}

export function SessionLink({ id }: { id: string | null | undefined }): JSX.Element {
  if (!id) return <span class="sub">–</span>;
  return (
    <a href={link("session", { id })}>
      <code>{inOneLine(id)}</code>
    </a>
  );
}

export function Outcome({ of, sqlstate }: { of: string | null | undefined; sqlstate?: string | null }): JSX.Element | null {
  if (!of || of === "ok") return null;
  return <span class={of === "error" ? "bad" : "warn"}>{[of, sqlstate].filter(Boolean).map(visible).join(" ")}</span>;
}
