// A panel and its states.
//
// Owns what is said where there is no answer (yet): that it is being asked, that there is nothing, what went wrong and what to do, and which
// role it takes. A view never leaves a reader before an empty box.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { type Refused, STOPPED } from "../api.ts";
import type { Asked, Open } from "../ask.ts";
import { change, since } from "../route.ts";
import { sinceNs, WINDOWS } from "../time.ts";
import { visible } from "../visible.ts";

interface PanelProps {
  title: string;
  about?: ComponentChildren;
  /** Buttons and choices. */
  tools?: ComponentChildren;
  class?: string;
  children: ComponentChildren;
}

export function Panel({ title, about, tools, class: more = "", children }: PanelProps): JSX.Element {
  return (
    <section class={`panel ${more}`} aria-label={title}>
      <div class="head">
        <h2>{title}</h2>
        {about && <small>{about}</small>}
        {tools && <span class="tools">{tools}</span>}
      </div>
      {children}
    </section>
  );
}

/** Why there is no answer, and what to do. */
export function Problem({ of, again }: { of: Refused; again?: () => void }): JSX.Element {
  const [what, how] = advice(of);
  const calm = of.status === 403 || of.status === STOPPED;
  return (
    <div class={`state ${calm ? "" : "bad"}`} role={calm ? "note" : "alert"}>
      <b>{what}</b> {!calm && <span>{visible(of.message)}</span>}
      {of.status === 403 && <div class="sub">{visible(of.message)}.</div>}
      {how && <div class="sub">{how}</div>}
      {again && of.status !== 403 && (
        <button type="button" class="pill" onClick={again}>
          ask again
        </button>
      )}
      {again && (of.status === 503 || of.status === STOPPED) && <Shorter />}
    </div>
  );
}

/** Times that are shorter than the one that is shown. */
function Shorter(): JSX.Element {
  const now = sinceNs(since());
  return (
    <>
      {WINDOWS.filter(([value]) => OFFERED.includes(value) && (now == null || sinceNs(value)! > now + SLACK_NS)).map(([value, name]) => (
        <button key={value} type="button" class="pill" onClick={() => change({ since: value, from: null, until: null })}>
          only {name}
        </button>
      ))}
    </>
  );
}

const OFFERED = ["1h", "24h", "7d"];
/** Of the same span, asked for a moment later. */
const SLACK_NS = 1_000_000_000n;

function advice(of: Refused): [string, string] {
  switch (of.status) {
    case STOPPED:
      return ["You stopped it.", "Nothing is shown here; a shorter time is quicker."];
    case 0:
      return ["No answer.", "It is asked again by itself where figures are live."];
    case 401:
      return ["A token is needed.", "Whoever runs the collector gives one: pgwitness-collector user add NAME --role viewer"];
    case 403:
      return [`Needs the role ${of.role ?? "of somebody else"}.`, "Whoever runs the collector can give it; the rest of the page works without."];
    case 404:
      return ["Not there.", "This collector does not have that place: is it older than this page?"];
    case 429:
      return ["Too many questions at once.", "Wait for those that are open, also in other tabs and programs of yours."];
    case 503:
      return ["Not now.", "There is more to read than one answer has time for, or too much is being asked at once. A shorter time (w) is quicker; for all of it, export and look there."];
    default:
      return ["Not answered.", ""];
  }
}

interface AnswerProps<T> {
  asked: Asked<T>;
  /** What is said where the answer holds nothing; null: there is something. */
  empty?: (answer: T) => ComponentChildren | null;
  /** The question behind which this one is asked. */
  behind?: Open;
  /** Lines that are kept free while it is asked, so that nothing moves. */
  lines?: number;
  children: (answer: T) => ComponentChildren;
}

/** An answer, or its state. */
export function Answer<T>({ asked, empty, behind, lines = 3, children }: AnswerProps<T>): JSX.Element {
  if (!asked.answered) return asked.refused ? <Problem of={asked.refused} again={asked.again} /> : <Skeleton lines={lines} of={asked.asking == null && behind ? behind : asked} />;
  const answer = asked.answer as T;
  const nothing = empty?.(answer);
  return (
    <>
      {asked.refused && <Problem of={asked.refused} again={asked.again} />}
      {nothing != null ? <p class="state">{nothing}</p> : children(answer)}
    </>
  );
}

export function Skeleton({ lines, of }: { lines: number; of?: Open }): JSX.Element {
  return (
    <div class="skeleton">
      {Array.from({ length: lines }, (_, n) => (
        <i key={n} />
      ))}
      <div class="room">{of && <Slow of={of} />}</div>
    </div>
  );
}

/** What is said of a question that takes long, with the way to end it. Nothing within the first seconds. */
export function Slow({ of, what = "Being asked" }: { of: Open; what?: string }): JSX.Element | null {
  const [now, tick] = useState(Date.now());
  useEffect(() => {
    if (of.asking == null) return;
    const timer = setInterval(() => tick(Date.now()), 500);
    return () => clearInterval(timer);
  }, [of.asking]);
  const waited = of.asking == null ? 0 : (now - of.asking) / 1000;
  if (waited < SAID_S) return null;
  return (
    <div class="note slow" role="status">
      <progress aria-label={what} />
      <span>
        {what}
        <span aria-hidden="true"> for {Math.floor(waited)} s</span>
        {waited < LONG_S ? "" : ": a shorter time (w) is quicker"}
      </span>
      <button type="button" class="pill" data-stop onClick={of.stop}>
        stop
      </button>
    </div>
  );
}

/** From then on it is said that something takes long, and then what helps. */
const SAID_S = 2;
const LONG_S = 8;

/** That a list ends before its end. */
export function Capped({ when, what }: { when: boolean; what: string }): JSX.Element | null {
  return when ? <p class="note warn">{what}</p> : null;
}

/** Names and values; what is not known is not shown. */
export function Facts({ of }: { of: [string, ComponentChildren | null | undefined][] }): JSX.Element | null {
  const known = of.filter(([, value]) => value != null && value !== "" && value !== false);
  if (known.length === 0) return null;
  return (
    <dl class="facts">
      {known.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
