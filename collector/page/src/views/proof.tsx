// The proof of one event, to keep and to give away: a file that `pgwitness-collector verify --proof` checks against the log's key.

import type { JSX } from "preact";
import { fileName } from "../download.ts";
import { Copy, command } from "../parts/copy.tsx";
import { Download } from "../parts/download.tsx";

export function Proof({ id }: { id: string }): JSX.Element {
  const file = `${fileName(id)}.proof.json`;
  return (
    <div>
      <Download path={`/api/v1/proof?event=${encodeURIComponent(id)}`} file={file} label="download the proof" mark="proof" /> <Copy text={command("verify", "--proof", file)} label="copy how to check it" />
    </div>
  );
}
