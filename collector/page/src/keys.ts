// The page by keyboard.
//
// Owns which key does what, everywhere; `?` shows it. Keys that are typed into a field are the field's, but for Escape.

import { signal } from "@preact/signals";
import { link } from "./route.ts";

export const VIEWS: { key: string; view: string; title: string }[] = [
  { key: "o", view: "overview", title: "Overview" },
  { key: "t", view: "trail", title: "Live trail" },
  { key: "p", view: "principals", title: "Principals" },
  { key: "b", view: "objects", title: "Objects" },
  { key: "r", view: "records", title: "Records" },
  { key: "q", view: "questions", title: "Questions" },
  { key: "e", view: "evidence", title: "Evidence" },
  { key: "c", view: "coverage", title: "Coverage" },
  { key: "s", view: "reports", title: "Reports" },
];

export const KEYS: [string, string][] = [
  ["/", "search"],
  ["j  k  ↓  ↑", "next and previous row"],
  ["Enter", "open the row"],
  ["g, then a letter", "go to a view, by the letter beside it"],
  ["w", "choose the time"],
  ["f", "filters of this view"],
  ["Space", "pause and resume the live trail"],
  ["d", "light or dark"],
  ["Esc", "close, or leave a field"],
  ["?", "this help"],
];

export const help = signal(false);

/** What views add for as long as they are shown. */
export const actions = new Map<string, () => void>();

let leader = 0;

addEventListener("keydown", (key) => {
  if (key.ctrlKey || key.metaKey || key.altKey || key.defaultPrevented) return;
  const at = key.target as HTMLElement;
  const typing = at.matches("input:not([type=checkbox]):not([type=file]),textarea,select");
  if (typing) {
    if (key.key === "Escape") at.blur();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  if (obey(key.key, at)) key.preventDefault();
});

function obey(key: string, at: HTMLElement): boolean {
  const led = Date.now() - leader < LEADER_MS;
  leader = 0;
  if (led) {
    const to = VIEWS.find((one) => one.key === key);
    if (to) location.hash = link(to.view);
    return to != null;
  }
  switch (key) {
    case "g":
      leader = Date.now();
      return true;
    case "?":
      help.value = true;
      return true;
    case "/":
      return focus("#search");
    case "w":
      return focus("#window");
    case "f":
      return focus("[data-filter]");
    case "j":
    case "ArrowDown":
      return move(at, 1, key === "j");
    case "k":
    case "ArrowUp":
      return move(at, -1, key === "k");
    case "Enter":
      if (at.dataset.row == null) return false;
      at.click();
      return true;
    case " ":
      if (at.matches("button,a,summary,[data-row]") && !at.matches("[data-row]")) return false;
      return act(key);
    default:
      return act(key);
  }
}

function act(key: string): boolean {
  const action = actions.get(key);
  action?.();
  return action != null;
}

/** Arrows move only between rows; outside of a list they scroll. */
function move(from: HTMLElement, by: number, anywhere: boolean): boolean {
  const rows = [...document.querySelectorAll<HTMLElement>("main [data-row]")];
  const now = rows.indexOf(from.closest<HTMLElement>("[data-row]") ?? from);
  if (now < 0 && !anywhere) return false;
  const to = now < 0 ? rows.find((row) => row.getBoundingClientRect().bottom > 0) : rows[now + by];
  to?.focus();
  to?.scrollIntoView({ block: "nearest" });
  return to != null;
}

function focus(selector: string): boolean {
  const one = document.querySelector<HTMLElement>(selector);
  one?.focus();
  if (one instanceof HTMLInputElement) one.select();
  return one != null;
}

/** Time for the letter behind `g`. */
const LEADER_MS = 1500;
