// A button that gets one answer as a file: by fetch, because a link has no header for the token.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { call, refusal, type Refused } from "../api.ts";
import { save } from "../download.ts";
import { Problem } from "./panel.tsx";

export function Download({ path, file, label, mark }: { path: string; file: string; label: string; mark: string }): JSX.Element {
  const [busy, be] = useState(false);
  const [refused, refuse] = useState<Refused | null>(null);
  const leaving = useRef<AbortController | null>(null);
  useEffect(() => () => leaving.current?.abort(), []);
  const get = async (): Promise<void> => {
    leaving.current = new AbortController();
    const { signal } = leaving.current;
    be(true);
    refuse(null);
    try {
      save(file, await (await call(path, { signal })).blob());
    } catch (error) {
      if (!signal.aborted) refuse(refusal(error));
    } finally {
      be(false);
    }
  };
  return (
    <>
      <button type="button" class="pill" data-download={mark} disabled={busy} onClick={() => void get()}>
        {busy ? "being made…" : label}
      </button>
      {refused && <Problem of={refused} />}
    </>
  );
}
