// Light and dark: as the system has it, until the reader chooses.

import { signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const stored = (): Theme => {
  try {
    const chosen = localStorage.getItem("theme");
    return chosen === "light" || chosen === "dark" ? chosen : "system";
  } catch {
    return "system";
  }
};

export const theme = signal<Theme>(stored());

const system = matchMedia("(prefers-color-scheme: dark)");

/** Goes up when colours have changed, for what paints them itself. */
export const painted = signal(0);
system.addEventListener("change", () => {
  painted.value += 1;
});

export const isDark = (): boolean => (theme.value === "system" ? system.matches : theme.value === "dark");

export function choose(one: Theme): void {
  theme.value = one;
  try {
    localStorage.setItem("theme", one);
  } catch {
    /* chosen for this visit */
  }
  show();
}

export function show(): void {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  painted.value += 1;
}

export const next = (): Theme => (theme.value === "system" ? (isDark() ? "light" : "dark") : theme.value === "light" ? "dark" : "light");
