// What strangers wrote, as it is shown.
//
// Owns which characters are shown and not obeyed: control characters, and those that are invisible or turn the reading direction. Everything
// that comes from events passes through here and becomes a text node; nothing becomes markup.

const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** `text` with hidden characters as `\u{…}`. */
export function visible(text: unknown): string {
  return String(text ?? "").replace(HIDDEN, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`);
}

/** What a table has under a name that a stranger chose: `__proto__` and `constructor` are in every object, and not in the table. */
export function entry<T>(table: Record<string, T>, name: string | null | undefined): T | undefined {
  return name != null && Object.hasOwn(table, name) ? table[name] : undefined;
}

/** The same in one line, for tables. */
export function inOneLine(text: unknown): string {
  return visible(String(text ?? "").replace(/[\r\n\t]+ */g, " "));
}
