// Who touched one record: the value becomes tokens in this page, and the collector is asked with those.
//
// Owns the form. Value and keys live in its fields, and nowhere else: not in the address, not in storage, not in a request.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { post, Refused } from "../api.ts";
import type { Made, WhoAnswer } from "../answers.ts";
import { useAsked } from "../ask.ts";
import { Copy, command, quoted, sinceFlag } from "../parts/copy.tsx";
import { Answer, Panel, Problem } from "../parts/panel.tsx";
import { soughtKey } from "../parts/search.tsx";
import { change, link, route, since } from "../route.ts";
import { asking, inAddress, ofAddress } from "../subjects/asking.ts";
import { parseKeys } from "../subjects/keys.ts";
import { sinceNs } from "../time.ts";
import { visible } from "../visible.ts";
import { Touched } from "./touched.tsx";

export function Records(): JSX.Element {
  const window = since();
  const params = route.value.params;
  const asked = ofAddress(params);
  const key = asked ? JSON.stringify([asked, window]) : null;
  const answer = useAsked(key, (signal) =>
    post<WhoAnswer>("/api/v1/who", { object: asked!.object, column: asked!.column, tokens: asked!.tokens, since_ns: sinceNs(window) ?? undefined }, signal),
  );
  return (
    <>
      <Panel
        title="Who touched a record"
        about="the value and the keys stay in this page: the collector is asked with tokens"
        tools={<Copy text={command("who", `--object ${quoted(params.object ?? "public.customers")}`, "--key -", "--token-key FILE", sinceFlag(window))} label="copy command" />}
      >
        <Form />
      </Panel>
      {asked && (
        <Panel title={`This record of ${visible(asked.object)}, ${visible(asked.column)}`} about="by its tokens; the address has them, and can be sent on" tools={<><a class="pill" data-dsar href={link("reports", { ...inAddress(asked), report: "dsar" })}>as a report</a><Copy text={location.href} label="copy link" /></>}>
          <Answer asked={answer} lines={8}>
            {(found) => <Touched asked={asked} answer={found} />}
          </Answer>
        </Panel>
      )}
    </>
  );
}

function Form(): JSX.Element {
  const params = route.value.params;
  const [object, setObject] = useState(soughtKey.value?.object ?? params.object ?? "");
  const [column, setColumn] = useState(params.column ?? "");
  const [value, setValue] = useState(soughtKey.value?.value ?? "");
  const [problem, say] = useState<string | null>(null);
  const [refused, refuse] = useState<Refused | null>(null);
  const [busy, be] = useState(false);
  const keys = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    const given = soughtKey.value;
    if (!given) return;
    setObject(given.object);
    setValue(given.value);
    soughtKey.value = null;
    keys.current?.focus();
  }, [soughtKey.value]);
  const pick = async (files: FileList | null): Promise<void> => {
    const file = files?.[0];
    if (file && keys.current) keys.current.value = await file.text();
  };
  const submit = async (at: SubmitEvent): Promise<void> => {
    at.preventDefault();
    say(null);
    refuse(null);
    be(true);
    try {
      const known = parseKeys(keys.current?.value ?? "");
      const named = object.includes(".") ? object.trim() : `public.${object.trim()}`;
      const made = await post<Made[]>("/api/v1/subjects", { object: named, since_ns: sinceNs(since()) ?? undefined });
      change(inAddress(await asking(named, column.trim(), made, known, value)));
    } catch (error) {
      if (error instanceof Refused) refuse(error);
      else say((error as Error).message);
    } finally {
      be(false);
    }
  };
  return (
    <form onSubmit={(at) => void submit(at)} aria-label="Record">
      <div class="filters">
        <label class="wide">
          <span>object, as the classification names it</span>
          <input data-filter="object" name="object" required value={object} placeholder="public.customers" spellcheck={false} autocomplete="off" onInput={(at) => setObject(at.currentTarget.value)} />
        </label>
        <label>
          <span>column, if it has several</span>
          <input name="column" value={column} spellcheck={false} autocomplete="off" onInput={(at) => setColumn(at.currentTarget.value)} />
        </label>
        <label class="wide">
          <span>the record's value</span>
          <input name="value" required value={value} spellcheck={false} autocomplete="off" onInput={(at) => setValue(at.currentTarget.value)} />
        </label>
      </div>
      <div class="filters">
        <label class="keys">
          <span>token keys: the file's lines, or pick the file; they are forgotten when you leave this view</span>
          <textarea ref={keys} name="keys" rows={2} spellcheck={false} autocomplete="off" placeholder="id and 64 hexadecimal digits" />
        </label>
        <label>
          <span>key file</span>
          <input type="file" name="keyfile" onChange={(at) => void pick(at.currentTarget.files)} />
        </label>
        <button type="submit" class="pill" disabled={busy}>
          {busy ? "being asked…" : "who touched it"}
        </button>
      </div>
      {problem && (
        <p class="state bad" role="alert">
          {visible(problem)}
        </p>
      )}
      {refused && <Problem of={refused} />}
    </form>
  );
}
