// A question that a view asks, and what has become of it.
//
// Owns that an older answer never replaces a newer one, and that what is shown stays while it is asked again, so that nothing jumps.

import { useEffect, useRef, useState } from "preact/hooks";
import { admitted, tokenWanted } from "./access.ts";
import { Refused } from "./api.ts";

export interface Asked<T> {
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
  const [state, set] = useState<State<T>>({
    of: null,
    answer: null,
    answered: false,
    refused: null,
    waiting: key != null,
  });
  const [round, again] = useState(0);
  const newest = useRef(ask);
  newest.current = ask;
  const token = admitted.value;
  useEffect(() => {
    if (key == null) {
      set({ of: null, answer: null, answered: false, refused: null, waiting: false });
      return;
    }
    const stop = new AbortController();
    const once = async (): Promise<void> => {
      if (tokenWanted.value != null) return;
      set((old) => (old.of === key ? { ...old, waiting: true } : { of: key, answer: null, answered: false, refused: null, waiting: true }));
      try {
        const answer = await newest.current(stop.signal);
        if (!stop.signal.aborted) set({ of: key, answer, answered: true, refused: null, waiting: false });
      } catch (error) {
        if (stop.signal.aborted) return;
        const refused = error instanceof Refused ? error : new Refused(`the page failed: ${(error as Error).message}`, 0);
        set((old) => ({ ...old, refused, waiting: false }));
      }
    };
    void once();
    const timer = every > 0 ? setInterval(() => void (document.hidden || once()), every) : 0;
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [key, round, every, token]);
  const mine = state.of === key;
  const shown = mine ? state : { answer: null, answered: false, refused: null };
  return { answer: shown.answer, answered: shown.answered, refused: shown.refused, waiting: state.waiting || !mine, again: () => again((n) => n + 1) };
}

interface State<T> {
  /** The key of what was asked. */
  of: string | null;
  answer: T | null;
  answered: boolean;
  refused: Refused | null;
  waiting: boolean;
}
