// The evidence: which log this is, its newest checkpoint, the agents' chains, and whether all of it verifies.
//
// Owns that nothing is called verified that was not verified now, in this page, by asking; and that what was not compared is said.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get } from "../api.ts";
import type { Evidence, Overview, Status } from "../answers.ts";
import { useAsked } from "../ask.ts";
import { number, plural, seconds } from "../numbers.ts";
import { Copy, command } from "../parts/copy.tsx";
import { Download } from "../parts/download.tsx";
import { Answer, Facts, Panel } from "../parts/panel.tsx";
import { Table } from "../parts/table.tsx";
import { Time } from "../parts/text.tsx";
import { change, route } from "../route.ts";
import { ago } from "../time.ts";
import { visible } from "../visible.ts";
import { Itself } from "./itself.tsx";
import { isBehind, STALE_S } from "./overview/strip.tsx";
import { Proof } from "./proof.tsx";
import { Verify } from "./verify.tsx";

const NOT_KNOWN = <span class="sub">not known</span>;
const or = (value: string | number | null | undefined): JSX.Element | string => (value == null || value === "" ? NOT_KNOWN : visible(typeof value === "number" ? number(value) : value));

export function EvidenceView(): JSX.Element {
  const status = useAsked("status", (signal) => get<Status>("/api/v1/status", signal), 10_000);
  const asked = useAsked("evidence", (signal) => get<Evidence>("/api/v1/evidence", signal), 10_000);
  return (
    <>
      <div class="two">
        <Panel title="The log" about="a Merkle tree over batches that agents signed and chained">
          <Answer asked={status} lines={5}>
            {(s) => <Log of={s.evidence} evidence={asked.answer} />}
          </Answer>
        </Panel>
        <Panel title="Verify" about="signatures, chains, the whole tree">
          <Verify />
        </Panel>
      </div>
      <div class="two">
        <Panel title="Chains by agent" about="each agent signs on the host that saw the traffic">
          <Answer asked={asked} lines={4} empty={(answer) => (answer.chains?.length === 0 ? "No agent has delivered anything." : null)}>
            {(answer) =>
              answer.chains ? (
                <Table
                  label="Chains"
                  rows={answer.chains}
                  id={(chain) => chain.agent}
                  columns={[
                    { title: "Agent", class: "grow", cell: (chain) => <><span class="who">{visible(chain.agent)}</span><div class="key sub">{chain.key ? visible(chain.key) : "key not known"}{chain.keys_before ? `, and ${plural(chain.keys_before, "key")} before it` : ""}</div></> },
                    { title: "Batches", class: "n", cell: (chain) => number(chain.batches) },
                    { title: "Last", class: "nowrap", cell: (chain) => <Last at={chain.last_seen} /> },
                  ]}
                />
              ) : (
                NOT_KNOWN
              )
            }
          </Answer>
        </Panel>
        <Itself />
      </div>
      <Panel title="Proof of one event" about="a file that proves it to somebody who has the log's key and nothing else">
        <OneProof />
      </Panel>
      <Panel title="Outside of this page">
        <p class="note">A collector that says of itself that all is well is no proof. Whoever doubts it checks a copy of its folder, on another machine, with a checkpoint that was kept elsewhere:</p>
        <p>
          <Copy text={command("verify", "--data DIR", "--origin-key KEY", "--checkpoint FILE")} label="copy the command" /> <code>{command("verify", "--data DIR", "--origin-key KEY", "--checkpoint FILE")}</code>
        </p>
        <p class="note">
          What this page asks, programs can ask, too: <Download path="/api/v1/openapi.json" file="pgwitness-openapi.json" label="the API's description" mark="openapi" /> (OpenAPI), and the collector's own figures:{" "}
          <Download path="/metrics" file="pgwitness-metrics.txt" label="metrics" mark="metrics" /> (OpenMetrics).
        </p>
      </Panel>
    </>
  );
}

function Log({ of, evidence }: { of: Overview["evidence"]; evidence: Evidence | null }): JSX.Element {
  const old = isBehind(of);
  return (
    <>
      <Facts
        of={[
          ["origin", <code>{visible(of.origin)}</code>],
          ["its key", <span class="key">{or(evidence?.verifier_key)}</span>],
          ["newest checkpoint", <span class={old ? "warn" : ""}>{of.checkpoint_age_seconds == null ? "none" : `${seconds(of.checkpoint_age_seconds)} ago`} {of.checkpoint && <Time at={of.checkpoint} />}</span>],
          ["entries under it", number(evidence?.checkpoint?.size ?? of.tree_size)],
          ["root", <span class="key">{or(evidence?.checkpoint?.root ?? of.root_hash)}</span>],
          ["cosigned", evidence ? evidence.cosigned ? `${number(evidence.cosigned.size)} entries, by ${visible((evidence.cosigned.by ?? []).join(", ") || "nobody that is known")}` : "by no witness" : NOT_KNOWN],
          ["batches", `${number(of.batches)}, with ${number(of.events)} events`],
          ["kept aside", of.aside ? <span class="bad">{number(of.aside)}: they did not verify, and are in no answer</span> : "none"],
        ]}
      />
      {evidence?.checkpoint?.note && (
        <p>
          <Copy text={evidence.checkpoint.note} label="copy the checkpoint" /> <span class="sub">kept elsewhere, it shows later that nothing was taken back</span>
        </p>
      )}
    </>
  );
}

function Last({ at }: { at: string | null }): JSX.Element {
  if (!at) return NOT_KNOWN;
  return <span class={ago(at) > STALE_S ? "warn" : ""} title={at}><Time at={at} form="ago" /></span>;
}

function OneProof(): JSX.Element {
  const given = route.value.params.proof ?? "";
  const [id, type] = useState(given);
  return (
    <>
      <form
        class="filters"
        onSubmit={(at) => {
          at.preventDefault();
          change({ proof: id.trim() || null });
        }}
      >
        <label class="wide">
          <span>event id, as every event shows it</span>
          <input data-filter="proof" value={id} placeholder="vm-98925d62-387" spellcheck={false} autocomplete="off" onInput={(at) => type(at.currentTarget.value)} />
        </label>
        <button type="submit" class="pill">
          take it
        </button>
      </form>
      {given && <Proof id={given} />}
    </>
  );
}
