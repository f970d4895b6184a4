// A question that a view asks, and what has become of it.
//
// Owns that an older answer never replaces a newer one, that what is shown stays while it is asked again, so that nothing jumps, and that
// a question ends when nobody waits for it any more: its view was left, or its reader stopped it.

import { useEffect, useRef, useState } from "preact/hooks";
import { admitted, tokenWanted } from "./access.ts";
import { refusal, type Refused, stopped } from "./api.ts";

/** A question that is open. */
export interface Open {
  /** Unix milliseconds, while it is asked for the first time; null: nobody waits. */
  asking: number | null;
  stop: () => void;
}

export interface Asked<T> extends Open {
  /** The newest answer; null also where there is none. */
  answer: T | null;
  /** Whether there is one, which may be null itself. */
  answered: boolean;
  /** Why there is none, or no newer one. */
  refused: Refused | null;
  /** Whether it is being asked. */
  waiting: boolean;
  /** Asks again. */
  again: () => void;
}

/** Asks whenever `key` changes, and every `every` milliseconds while the page is looked at. Null: nothing is asked. */
export function useAsked<T>(key: string | null, ask: (signal: AbortSignal) => Promise<T>, every = 0): Asked<T> {
  const [state, set] = useState<State<T>>({ ...NOTHING, waiting: key != null });
  const [round, again] = useState(0);
  const newest = useRef(ask);
  newest.current = ask;
  const stop = useRef(() => {});
  const token = admitted.value;
  useEffect(() => {
    if (key == null) {
      set(NOTHING);
      return;
    }
    const leaving = new AbortController();
    let open = false;
    const once = async (): Promise<void> => {
      // What takes longer than `every` is not asked a second time beside itself.
      if (open || tokenWanted.value != null) return;
      open = true;
      const asking = Date.now();
      // An old refusal is no word on the question that is open now.
      set((old) => (old.of === key && old.answered ? { ...old, waiting: true } : { ...NOTHING, of: key, waiting: true, asking }));
      try {
        const answer = await newest.current(leaving.signal);
        if (!leaving.signal.aborted) set({ of: key, answer, answered: true, refused: null, waiting: false, asking: null });
      } catch (error) {
        if (leaving.signal.aborted) return;
        set((old) => ({ ...old, refused: refusal(error), waiting: false, asking: null }));
      } finally {
        open = false;
      }
    };
    void once();
    const timer = every > 0 ? setInterval(() => void (document.hidden || once()), every) : 0;
    const end = (): void => {
      leaving.abort();
      clearInterval(timer);
    };
    stop.current = () => {
      end();
      set((old) => ({ ...old, refused: stopped(), waiting: false, asking: null }));
    };
    return end;
  }, [key, round, every, token]);
  const shown = state.of === key ? state : { ...NOTHING, waiting: true };
  const { answer, answered, refused, waiting, asking } = shown;
  return { answer, answered, refused, waiting, asking, stop: () => stop.current(), again: () => again((n) => n + 1) };
}

interface State<T> {
  /** The key of what was asked. */
  of: string | null;
  answer: T | null;
  answered: boolean;
  refused: Refused | null;
  waiting: boolean;
  asking: number | null;
}

const NOTHING = { of: null, answer: null, answered: false, refused: null, waiting: false, asking: null };
