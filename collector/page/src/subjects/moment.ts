// Dates and times, as crates/subjects/src/canonical/moment.rs reads them: in the ISO forms alone, counted from 2000.

import { trimmed } from "./number.ts";

const SECOND = 1_000_000n;
const DAY = 86_400n * SECOND;

interface Moment {
  days: bigint;
  time: bigint;
  /** Seconds east of Greenwich, if a zone is given. */
  east: bigint | null;
}

const infinite = (text: string): string | null => ["infinity", "-infinity"].find((name) => name === text.toLowerCase()) ?? null;
const micros = (moment: Moment): bigint => moment.days * DAY + moment.time;

/** A time behind it is dropped, and so is a zone. */
export function date(text: string): string | null {
  const given = trimmed(text);
  return infinite(given) ?? read(given)?.days.toString() ?? null;
}

export function time(text: string): string | null {
  const found = clock(trimmed(text));
  return found?.rest === "" ? found.time.toString() : null;
}

/** A zone that is written is not looked at. */
export function timestamp(text: string): string | null {
  const given = trimmed(text);
  const moment = infinite(given) ? null : read(given);
  return infinite(given) ?? (moment ? micros(moment).toString() : null);
}

/** Without a zone it would be that of the session. */
export function timestamptz(text: string): string | null {
  const given = trimmed(text);
  const moment = infinite(given) ? null : read(given);
  return infinite(given) ?? (moment?.east == null ? null : (micros(moment) - moment.east * SECOND).toString());
}

/** `2024-02-29`, `20240229`, then perhaps a time and a zone, then perhaps the era. */
function read(given: string): Moment | null {
  const beforeChrist = given.endsWith(" BC");
  const text = given.replace(/ (BC|AD)$/, "");
  const parts = /^(?:([0-9]{4,8})-([0-9]{1,2})-([0-9]{1,2})|([0-9]{4})([0-9]{2})([0-9]{2}))(?![0-9])(.*)$/s.exec(text);
  if (!parts) return null;
  const [year, month, day] = [parts[1] ?? parts[4], parts[2] ?? parts[5], parts[3] ?? parts[6]].map((part) => BigInt(part!)) as [bigint, bigint, bigint];
  if (year <= 0n) return null;
  const count = days(beforeChrist ? 1n - year : year, month, day);
  return count == null ? null : behind(count, parts[7] ?? "");
}

function behind(count: bigint, rest: string): Moment | null {
  if (rest === "") return { days: count, time: 0n, east: null };
  if (!/^[ Tt]/.test(rest)) return null;
  const found = clock(rest.slice(1).replace(/^ +/, ""));
  if (!found) return null;
  const after = found.rest.replace(/^ +/, "");
  if (after === "") return { days: count, time: found.time, east: null };
  const east = zone(after);
  return east == null ? null : { days: count, time: found.time, east };
}

/** More than six digits of a second are rounded by the server, which may carry into the date. */
function clock(text: string): { time: bigint; rest: string } | null {
  const parts = /^([0-9]{1,2}):([0-9]{2})(?![0-9])(?::([0-9]{2})(?![0-9])(?:\.([0-9]{1,6})(?![0-9]))?)?(.*)$/s.exec(text);
  if (!parts || /^[:.]/.test(parts[5] ?? "")) return null;
  const [hour, minute, second] = [parts[1], parts[2], parts[3] ?? "0"].map((part) => BigInt(part!)) as [bigint, bigint, bigint];
  const of = ((hour * 60n + minute) * 60n + second) * SECOND + BigInt((parts[4] ?? "").padEnd(6, "0") || "0");
  return minute < 60n && second < 60n && of <= DAY ? { time: of, rest: parts[5] ?? "" } : null;
}

/** `Z`, `UTC`, `+02`, `+0230`, `+02:30`, `+02:30:15`. Names of zones need tables. */
function zone(text: string): bigint | null {
  if (/^(z|utc|gmt)$/i.test(text)) return 0n;
  const parts = /^([-+])([0-9]{2})(?:([0-9]{2})|:([0-9]{2})(?::([0-9]{2}))?)?$/.exec(text);
  if (!parts) return null;
  const [hours, minutes, seconds] = [parts[2], parts[3] ?? parts[4] ?? "0", parts[5] ?? "0"].map((part) => BigInt(part!)) as [bigint, bigint, bigint];
  if (hours >= 16n || minutes >= 60n || seconds >= 60n) return null;
  return (parts[1] === "-" ? -1n : 1n) * ((hours * 60n + minutes) * 60n + seconds);
}

/** Days from 2000 of a date that there is. */
function days(year: bigint, month: bigint, day: bigint): bigint | null {
  const leap = year % 4n === 0n && (year % 100n !== 0n || year % 400n === 0n);
  const length = month === 2n ? (leap ? 29n : 28n) : [4n, 6n, 9n, 11n].includes(month) ? 30n : 31n;
  if (month < 1n || month > 12n || day < 1n || day > length) return null;
  // Years that begin in March.
  const [of, fromMarch] = month > 2n ? [year, month - 3n] : [year - 1n, month + 9n];
  const within = ((of % 400n) + 400n) % 400n;
  const cycle = (of - within) / 400n;
  return cycle * 146_097n + within * 365n + within / 4n - within / 100n + (153n * fromMarch + 2n) / 5n + day - 1n - 730_425n;
}
