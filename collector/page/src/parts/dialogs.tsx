// What stands before everything else: the token that is wanted, the help, one event.
//
// Owns that Escape and a click beside close them, and that the address says which event is open.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { tokenWanted, useToken } from "../access.ts";
import { help, KEYS, VIEWS } from "../keys.ts";
import { LEVELS, MEANS } from "../principal.ts";
import { change, link, route } from "../route.ts";
import { EventDetail } from "../views/event.tsx";
import { visible } from "../visible.ts";
import { Chip } from "./text.tsx";

function Dialog({ title, close, class: kind = "", children }: { title: string; close: (() => void) | null; class?: string; children: ComponentChildren }): JSX.Element {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    const one = box.current;
    one?.showModal();
    return () => {
      one?.close();
      if (before?.isConnected) before.focus();
    };
  }, []);
  const cancel = (at: Event): void => {
    at.preventDefault();
    close?.();
  };
  return (
    <dialog ref={box} class={kind} aria-label={title} onCancel={cancel} onClick={(at) => at.target === box.current && close?.()}>
      <div class="inner">
        <div class="head">
          <h2>{title}</h2>
          {close && (
            <span class="tools">
              <button type="button" class="pill" onClick={close}>
                close
              </button>
            </span>
          )}
        </div>
        {children}
      </div>
    </dialog>
  );
}

export function Dialogs(): JSX.Element {
  const event = route.value.view === "event" ? null : route.value.params.event;
  return (
    <>
      {event && (
        <Dialog key={event} class="drawer" title={`Event ${visible(event)}`} close={() => change({ event: null })}>
          <p class="note">
            <a href={link("event", { id: event })}>a page of its own</a>
          </p>
          <EventDetail id={event} />
        </Dialog>
      )}
      {help.value && <Help />}
      {tokenWanted.value != null && <Token why={tokenWanted.value} />}
    </>
  );
}

function Help(): JSX.Element {
  return (
    <Dialog title="Keys, and what the chips say" close={() => (help.value = false)}>
      <dl class="facts">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
        <div>
          <dt>views</dt>
          <dd>{VIEWS.map((one) => `g ${one.key} ${one.title}`).join(" · ")}</dd>
        </div>
      </dl>
      <h3>How a name is known</h3>
      <dl class="facts">
        {LEVELS.map((one) => (
          <div key={one}>
            <dt>
              <Chip of={one} />
            </dt>
            <dd>{MEANS[one].slice(one.length + 2)}</dd>
          </div>
        ))}
      </dl>
      <p class="note">
        A principal is the program, unit, container or login that held the connection. Behind an application it does not name the person whose request led to
        the statement. Times are UTC; hold the pointer over one for your own clock.
      </p>
    </Dialog>
  );
}

function Token({ why }: { why: string }): JSX.Element {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  const submit = (at: SubmitEvent): void => {
    at.preventDefault();
    const given = field.current?.value ?? "";
    if (given.trim()) useToken(given);
  };
  return (
    <Dialog title="This collector wants a token" close={null}>
      <p class="note">Whoever runs it gives you one: pgwitness-collector user add NAME --role viewer. It is kept until this tab is closed.</p>
      {why && (
        <p class="note bad" role="alert">
          {visible(why)}
        </p>
      )}
      <form class="filters" onSubmit={submit}>
        <input ref={field} type="password" autocomplete="off" spellcheck={false} aria-label="Token" />
        <button type="submit" class="pill">
          go on
        </button>
      </form>
    </Dialog>
  );
}
