// One value, one form, as crates/subjects/src/canonical.rs makes it: by the type family of the identifying column.
//
// Owns that a value which is not surely one of the family has no form at all: then it is not looked for, which is said. Rules and their
// sources stand there; build/test.js holds both to the same known answers.

import { date, time, timestamp, timestamptz } from "./moment.ts";
import { inet } from "./network.ts";
import { double, integer, numeric, real, trimmed } from "./number.ts";

/** The bytes that become a token, or null. */
export function canonical(family: string, text: string): Uint8Array | null {
  const utf8 = (form: string | null): Uint8Array | null => (form == null ? null : new TextEncoder().encode(form));
  switch (family) {
    case "integer":
      return utf8(integer(text));
    case "numeric":
      return utf8(numeric(text));
    case "real":
      return utf8(real(text));
    case "double precision":
      return utf8(double(text));
    case "text":
      return text.includes("\0") ? null : utf8(text);
    case "char":
      return text.includes("\0") ? null : utf8(text.replace(/ +$/, ""));
    case "uuid":
      return utf8(uuid(text));
    case "boolean":
      return utf8(boolean(text));
    case "date":
      return utf8(date(text));
    case "time":
      return utf8(time(text));
    case "timestamp":
      return utf8(timestamp(text));
    case "timestamptz":
      return utf8(timestamptz(text));
    case "bytea":
      return bytea(text);
    case "inet":
      return utf8(inet(text));
    default:
      return null;
  }
}

function boolean(text: string): string | null {
  const given = trimmed(text).toLowerCase();
  const begins = (word: string, least: number): boolean => given.length >= least && word.startsWith(given);
  if (begins("true", 1) || begins("yes", 1) || begins("on", 2) || given === "1") return "t";
  if (begins("false", 1) || begins("no", 1) || begins("off", 2) || given === "0") return "f";
  return null;
}

/** A hyphen may stand behind any group of four digits. */
function uuid(text: string): string | null {
  const bare = text.startsWith("{") ? (text.endsWith("}") ? text.slice(1, -1) : "") : text;
  return /^(?:[0-9a-f]{4}-?){7}[0-9a-f]{4}$/i.test(bare) ? bare.replaceAll("-", "").toLowerCase() : null;
}

function bytea(text: string): Uint8Array | null {
  if (!text.startsWith("\\x")) return escaped(text);
  const parts = text.slice(2).split(/[ \n\t\r]/);
  if (!parts.every((part) => part.length % 2 === 0 && /^[0-9a-f]*$/i.test(part))) return null;
  return Uint8Array.from(parts.join("").match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** `\\` is a backslash, `\ooo` a byte in octal digits, everything else is itself. */
function escaped(text: string): Uint8Array | null {
  const bytes = new TextEncoder().encode(text);
  const made: number[] = [];
  for (let at = 0; at < bytes.length; at += 1) {
    if (bytes[at] !== BACKSLASH) {
      made.push(bytes[at]!);
      continue;
    }
    const octal = /^[0-3][0-7][0-7]/.exec(String.fromCharCode(...bytes.slice(at + 1, at + 4)));
    if (bytes[at + 1] === BACKSLASH) {
      made.push(BACKSLASH);
      at += 1;
    } else if (octal) {
      made.push(Number.parseInt(octal[0], 8));
      at += 3;
    } else return null;
  }
  return Uint8Array.from(made);
}

const BACKSLASH = 0x5c;
