// The proof of one event, to keep and to give away: a file that `pgwitness-collector verify --proof` checks against the log's key.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { call, Refused } from "../api.ts";
import { Copy, command } from "../parts/copy.tsx";
import { Problem } from "../parts/panel.tsx";

export function Proof({ id }: { id: string }): JSX.Element {
  const [busy, be] = useState(false);
  const [refused, refuse] = useState<Refused | null>(null);
  const file = `${id.replace(/[^\w.-]/g, "_")}.proof.json`;
  const download = async (): Promise<void> => {
    be(true);
    refuse(null);
    try {
      // By fetch, because a link has no header for the token.
      const response = await call(`/api/v1/proof?event=${encodeURIComponent(id)}`);
      const at = URL.createObjectURL(await response.blob());
      const link = document.createElement("a");
      link.href = at;
      link.download = file;
      link.click();
      setTimeout(() => URL.revokeObjectURL(at), 10_000);
    } catch (error) {
      refuse(error instanceof Refused ? error : new Refused(String(error), 0));
    } finally {
      be(false);
    }
  };
  return (
    <div>
      <button type="button" class="pill" data-proof={id} disabled={busy} onClick={() => void download()}>
        {busy ? "being made…" : "download the proof"}
      </button>{" "}
      <Copy text={command("verify", "--proof", file)} label="copy how to check it" />
      {refused && <Problem of={refused} />}
    </div>
  );
}
