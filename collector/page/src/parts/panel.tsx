// A panel and its states.
//
// Owns what is said where there is no answer (yet): that it is being asked, that there is nothing, what went wrong and what to do, and which
// role it takes. A view never leaves a reader before an empty box.

import type { ComponentChildren, JSX } from "preact";
import type { Refused } from "../api.ts";
import type { Asked } from "../ask.ts";
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
  return (
    <div class={`state ${of.status === 403 ? "" : "bad"}`} role={of.status === 403 ? "note" : "alert"}>
      <b>{what}</b> {of.status !== 403 && <span>{visible(of.message)}</span>}
      {of.status === 403 && <div class="sub">{visible(of.message)}.</div>}
      {how && <div class="sub">{how}</div>}
      {again && of.status !== 403 && (
        <button type="button" class="pill" onClick={again}>
          ask again
        </button>
      )}
    </div>
  );
}

function advice(of: Refused): [string, string] {
  switch (of.status) {
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
      return ["Not now.", "It took too long, or too much is being asked: choose a shorter time."];
    default:
      return ["Not answered.", ""];
  }
}

interface AnswerProps<T> {
  asked: Asked<T>;
  /** What is said where the answer holds nothing; null: there is something. */
  empty?: (answer: T) => ComponentChildren | null;
  /** Lines that are kept free while it is asked, so that nothing moves. */
  lines?: number;
  children: (answer: T) => ComponentChildren;
}

/** An answer, or its state. */
export function Answer<T>({ asked, empty, lines = 3, children }: AnswerProps<T>): JSX.Element {
  if (!asked.answered) return asked.refused ? <Problem of={asked.refused} again={asked.again} /> : <Skeleton lines={lines} />;
  const answer = asked.answer as T;
  const nothing = empty?.(answer);
  return (
    <>
      {asked.refused && <Problem of={asked.refused} again={asked.again} />}
      {nothing != null ? <p class="state">{nothing}</p> : children(answer)}
    </>
  );
}

export function Skeleton({ lines }: { lines: number }): JSX.Element {
  return (
    <div class="skeleton" role="status" aria-label="being asked">
      {Array.from({ length: lines }, (_, n) => (
        <i key={n} />
      ))}
    </div>
  );
}

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
