// The same question elsewhere: as a command of pgwitness-collector, or as SQL.
//
// Owns the quoting for a shell. Nothing is copied that was not shown to be.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { ALL } from "../time.ts";

/** In single quotes, unless it is plain. */
export const quoted = (text: string): string => (/^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

export const command = (...words: (string | null | undefined)[]): string =>
  ["pgwitness-collector", ...words.filter((word): word is string => word != null)].join(" ");

/** The window as commands have it. */
export const sinceFlag = (since: string): string | null => (since === ALL ? null : `--since ${quoted(since)}`);

export function Copy({ text, label }: { text: string; label: string }): JSX.Element {
  const [said, say] = useState("");
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text);
      say("copied");
    } catch {
      say("not allowed: copy it by hand from the title");
    }
    setTimeout(() => say(""), 2000);
  };
  return (
    <button type="button" class="pill copy" title={text} onClick={() => void copy()}>
      {said || label}
    </button>
  );
}
