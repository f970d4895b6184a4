// Verifying from the page: the collector reads its folder and tells how far it is.
//
// Owns the words of the verdict. What was checked and what was not stand beside each other, as `pgwitness-collector verify` says it.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Refused } from "../api.ts";
import { bytes, number, plural } from "../numbers.ts";
import { Copy, command } from "../parts/copy.tsx";
import { Facts, Problem } from "../parts/panel.tsx";
import { follow } from "../stream.ts";
import { rfc3339 } from "../time.ts";
import { Time } from "../parts/text.tsx";
import { visible } from "../visible.ts";

interface Wrong {
  file: string;
  offset: number | null;
  entry: number | null;
  what: string;
}

interface Progress {
  batches: number;
  events: number;
  bytes: number;
  of_bytes: number;
}

interface Report {
  ok: boolean;
  origin: string;
  verifier_key: string;
  compared_with_known_key: boolean;
  compared_with_kept_checkpoint: boolean;
  agents: number;
  batches: number;
  events: number;
  tree_size: number;
  root: string;
  not_yet_under_a_checkpoint: number;
  unfinished_bytes: number;
  checked_earlier: number;
  cosigned_size: number | null;
  cosigned_by: string[];
  elsewhere: { agent_id: string; from: number; to: number; given_up: boolean }[];
  restored: { origin: string; tree_size: number }[];
  amendments: number;
  amendments_not_checked: number;
  erased_events: number;
  removed: { entries: number; at: string | null; reason: string } | null;
  wrong: Wrong | null;
}

export function Verify(): JSX.Element {
  const [at, progress] = useState<Progress | null>(null);
  const [report, tell] = useState<{ report: Report; when: string } | null>(null);
  const [refused, refuse] = useState<Refused | null>(null);
  const [busy, be] = useState(false);
  const stop = useRef<AbortController | null>(null);
  useEffect(() => () => stop.current?.abort(), []);
  const start = async (): Promise<void> => {
    stop.current = new AbortController();
    progress(null);
    tell(null);
    refuse(null);
    be(true);
    let ended = false;
    try {
      await follow("/api/v1/verify", stop.current.signal, () => undefined, (name, data) => {
        if (name === "progress") progress(data as Progress);
        if (name === "report") tell({ report: data as Report, when: rfc3339(Date.now()) });
        if (name === "error") refuse(new Refused((data as { error: string }).error, 500));
        ended ||= name !== "progress";
      });
      if (!ended) refuse(new Refused("the collector ended the answer before its end: nothing is verified", 500));
    } catch (error) {
      if ((error as Error).name === "AbortError") refuse(new Refused("you stopped it: nothing is verified", 500));
      else refuse(error instanceof Refused ? error : new Refused(`the answer broke off: ${(error as Error).message}`, 0));
    } finally {
      be(false);
    }
  };
  return (
    <div id="verify">
      <p>
        <button type="button" class="pill" data-verify onClick={() => (busy ? stop.current?.abort() : void start())}>
          {busy ? "stop" : report ? "verify again" : "verify now"}
        </button>{" "}
        <Copy text={command("verify", "--data DIR")} label="copy command" />
      </p>
      {busy && (
        <p class="note" role="status">
          <progress aria-label="Bytes checked" value={at?.bytes ?? undefined} max={Math.max(1, at?.of_bytes ?? 1)} />{" "}
          {at ? `${bytes(at.bytes)} of ${bytes(at.of_bytes)}: ${number(at.events)} events in ${plural(at.batches, "batch", "batches")}` : "reading the folder"}
        </p>
      )}
      {refused && <Problem of={refused} />}
      {report && <Verdict of={report.report} when={report.when} />}
      {!busy && !report && !refused && <p class="state">Not verified in this page yet.</p>}
    </div>
  );
}

function Verdict({ of, when }: { of: Report; when: string }): JSX.Element {
  return (
    <div role="status">
      <p class={`verdict ${of.ok ? "ok" : "bad"}`} data-verdict={of.ok ? "ok" : "wrong"}>
        {of.ok ? "Verified" : "WRONG: it does not verify"}
      </p>
      {of.wrong && (
        <p class="state bad">
          {visible(of.wrong.what)}: {visible(of.wrong.file)}
          {of.wrong.offset != null && `, byte ${number(of.wrong.offset)}`}
          {of.wrong.entry != null && `, entry ${number(of.wrong.entry)}`}
        </p>
      )}
      {of.ok && (
        <Facts
          of={[
            ["when", <Time at={when} />],
            ["what", `${plural(of.batches, "batch", "batches")} of ${plural(of.agents, "agent")}, with ${number(of.events)} events`],
            ["tree", `${number(of.tree_size)} entries`],
            ["root", <span class="key">{visible(of.root)}</span>],
          ]}
        />
      )}
      {of.ok && (
        <ul class="limits">
          {remarks(of).map((line) => (
            <li key={line}>{visible(line)}</li>
          ))}
        </ul>
      )}
    </div>
  );
}

function remarks(of: Report): string[] {
  const lines: string[] = [];
  const told = (count: number, what: string): void => void (count > 0 && lines.push(`${number(count)} ${what}`));
  told(of.amendments - of.amendments_not_checked, "sessions were named by what two hosts saw; each follows from the events that it names");
  told(of.erased_events, "events were erased, as the collector's own chain says, with reasons; everything else still holds");
  told(of.amendments_not_checked, "were named by rules of another version, which this program cannot repeat");
  told(of.not_yet_under_a_checkpoint, "batches are not yet under a checkpoint: their signatures and chains hold");
  told(of.unfinished_bytes, "bytes at the end are an unfinished record");
  if (of.removed) lines.push(`the payloads of its first ${number(of.removed.entries)} entries, of before ${of.removed.at ?? "an unknown time"}, were removed by retention (${of.removed.reason})`);
  for (const gap of of.elsewhere ?? []) {
    lines.push(`batches ${gap.from} to ${gap.to} of agent ${gap.agent_id} are not in this log: ${gap.given_up ? "the agent says that it gave them up" : "look at all collectors together"}`);
  }
  for (const old of of.restored ?? []) lines.push(`its first ${number(old.tree_size)} entries are a backup of ${old.origin}`);
  if (of.cosigned_size != null) lines.push(`its first ${number(of.cosigned_size)} entries were cosigned by ${of.cosigned_by.join(", ")}`);
  if (!of.compared_with_kept_checkpoint) lines.push("no checkpoint from elsewhere was compared: a folder rolled back whole to an older state would verify too");
  if (!of.compared_with_known_key) lines.push("the log's key was taken from the folder: a folder made anew under another key would verify too");
  return lines;
}
