// Key figures in one strip.
//
// Every figure is one of GET /api/v1/overview, and bears its name in data-figure, so that it can be held against that answer.

import type { ComponentChildren, JSX } from "preact";
import type { EvidenceStatus, Overview } from "../../answers.ts";
import type { Asked } from "../../ask.ts";
import { bytes, compact, number, plural, seconds, share } from "../../numbers.ts";
import { Problem, Slow } from "../../parts/panel.tsx";
import { LEVELS } from "../../principal.ts";
import { link } from "../../route.ts";

export function Strip({ asked }: { asked: Asked<Overview> }): JSX.Element {
  const o = asked.answer;
  return (
    <>
      {asked.refused && <Problem of={asked.refused} again={asked.again} />}
      <section class="strip" aria-label="Key figures">
        <Kpi label="Statements" to={link("trail")} value={o && <Fig name="statements" of={o.statements} as={compact(o.statements)} />}>
          {o && (
            <>
              <Fig name="rows" of={o.rows ?? 0} as={compact(o.rows ?? 0)} /> rows out · <Fig name="errors" of={o.errors} as={number(o.errors)} /> errors
            </>
          )}
        </Kpi>
        <Kpi
          label={o ? `Principals, sharing ${plural(o.roles, "role")}` : "Principals"}
          to={link("principals")}
          value={o && <Fig name="principals" of={o.principals} as={number(o.principals)} />}
        >
          {o && (
            <a href={link("trail", { kind: "auth_failure" })} class={o.auth_failures ? "warn" : ""}>
              <Fig name="auth_failures" of={o.auth_failures} as={number(o.auth_failures)} /> {o.auth_failures === 1 ? "failed login" : "failed logins"}
            </a>
          )}
        </Kpi>
        <Kpi
          label="Attributed"
          to={link("coverage")}
          state={o && o.statements > 0 ? (o.attributed === o.statements ? "ok" : "warn") : ""}
          value={o && <Fig name="attributed" of={o.attributed} as={share(o.attributed, o.statements)} />}
        >
          {o && <Levels of={o} />}
        </Kpi>
        <Kpi
          label="Not seen"
          to={link("coverage")}
          state={o ? (o.gaps || o.opaque_sessions ? "warn" : "ok") : ""}
          value={
            o && (
              <>
                {o.gaps_of_unknown_size && o.bytes_missing ? "≥ " : ""}
                <Fig name="bytes_missing" of={o.bytes_missing} as={o.gaps_of_unknown_size && !o.bytes_missing ? "not known" : bytes(o.bytes_missing)} />
              </>
            )
          }
        >
          {o && (
            <>
              <Fig name="gaps" of={o.gaps} as={number(o.gaps)} /> {o.gaps === 1 ? "gap" : "gaps"}
              {o.gaps_of_unknown_size > 0 && (
                <>
                  , <Fig name="gaps_of_unknown_size" of={o.gaps_of_unknown_size} as={number(o.gaps_of_unknown_size)} /> of unknown size
                </>
              )}
              {" · "}
              <Fig name="opaque_sessions" of={o.opaque_sessions} as={number(o.opaque_sessions)} /> opaque sessions
            </>
          )}
        </Kpi>
        <Kpi
          label="Newest checkpoint"
          to={link("evidence")}
          state={o && isBehind(o.evidence) ? "warn" : ""}
          value={o && (o.evidence.checkpoint_age_seconds == null ? "none" : `${seconds(o.evidence.checkpoint_age_seconds)} ago`)}
        >
          {o && (
            <>
              {compact(o.evidence.events)} events in {compact(o.evidence.batches)} signed batches
            </>
          )}
        </Kpi>
      </section>
      <Slow of={asked} what="Key figures are being asked" />
    </>
  );
}

function Kpi({ label, to, value, state = "", children }: { label: string; to: string; value: ComponentChildren; state?: string | null; children: ComponentChildren }): JSX.Element {
  return (
    <div class="kpi">
      <a class="l" href={to}>
        {label}
      </a>
      <div class={`n ${state ?? ""}`}>{value ?? "–"}</div>
      <div class="d sub">{children}</div>
    </div>
  );
}

function Fig({ name, of, as }: { name: string; of: number; as: string }): JSX.Element {
  return (
    <span data-figure={name} data-value={of} title={number(of)}>
      {as}
    </span>
  );
}

/** How sure names are, and what has none. */
function Levels({ of }: { of: Overview }): JSX.Element {
  const shown = LEVELS.filter((level) => level !== "none" && of[level as "observed"] > 0);
  const unknown = of.statements - of.attributed;
  if (of.statements === 0) return <>no statements in this time</>;
  return (
    <>
      {shown.map((level, n) => (
        <span key={level}>
          {n > 0 && " · "}
          {level} <Fig name={level} of={of[level as "observed"]} as={compact(of[level as "observed"])} />
        </span>
      ))}
      {unknown > 0 && (
        <span class="warn">
          {shown.length > 0 && " · "}not known {compact(unknown)}
        </span>
      )}
    </>
  );
}

/** A checkpoint is made a few seconds after a batch came; where none comes, an old one is no fault. */
export const isBehind = (of: EvidenceStatus): boolean =>
  of.checkpoint_age_seconds == null || (of.batches > of.tree_size && of.checkpoint_age_seconds > STALE_S);

/** Agents tell that they are there every few seconds. */
export const STALE_S = 60;
