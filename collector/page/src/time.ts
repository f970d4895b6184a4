// Moments and spans.
//
// Owns nanoseconds, which do not fit a number of JavaScript: they are texts (RFC 3339) or BigInt, and milliseconds where only a place on an
// axis is meant. Times are shown in UTC; what the reader's own clock said then is shown on demand.

const SECOND = 1_000_000_000n;

/** Unix milliseconds, with the fraction. */
export function millis(time: string): number {
  const fraction = /\.(\d+)/.exec(time)?.[1] ?? "";
  return Date.parse(`${time.slice(0, 19)}Z`) + Number(`0.${fraction || 0}`) * 1000;
}

/** Unix nanoseconds. */
export function nanos(time: string): bigint {
  const fraction = (/\.(\d+)/.exec(time)?.[1] ?? "").padEnd(9, "0").slice(0, 9);
  return (BigInt(Date.parse(`${time.slice(0, 19)}Z`)) / 1000n) * SECOND + BigInt(fraction || "0");
}

/** What a window calls a time, as Unix nanoseconds: a span before now, or RFC 3339. Null: the beginning of the record. */
export function sinceNs(since: string, now = Date.now()): bigint | null {
  if (since === ALL) return null;
  const span = /^(\d+)([smhd])$/.exec(since);
  if (span) return BigInt(Math.round(now)) * 1_000_000n - BigInt(span[1]!) * BigInt(SPANS[span[2] as "s"]!) * SECOND;
  return Number.isNaN(Date.parse(since)) ? BigInt(Math.round(now) - 86_400_000) * 1_000_000n : nanos(withZone(since));
}

/** As the places of the API want it that take spans. */
export const sinceText = (since: string): string => (since === ALL ? "10000d" : since);

export const rfc3339 = (ms: number): string => new Date(ms).toISOString();

/** A moment as an address has it, where it is one. */
export const moment = (text: string | undefined): string | null => (text && MOMENT.test(text) && !Number.isNaN(Date.parse(text)) ? text : null);

/** Where a day ends: the first moment behind it. */
export const behind = (day: string): string => `${rfc3339(Date.parse(`${day}T00:00:00Z`) + DAY_MS).slice(0, 10)}T00:00:00Z`;

/** The last day before a moment. */
export const lastDay = (until: string): string => rfc3339(millis(until) - 1).slice(0, 10);

/** Day and time in UTC, to the second. */
export const utc = (time: string): string => `${time.slice(0, 10)} ${time.slice(11, 19)}`;

/** In UTC: of today the time, else the day and the minute. */
export const short = (time: string, now = Date.now()): string =>
  time.slice(0, 10) === new Date(now).toISOString().slice(0, 10) ? time.slice(11, 19) : `${time.slice(5, 10)} ${time.slice(11, 16)}`;

/** Time of day in UTC, to the millisecond. */
export const clock = (time: string): string => time.slice(11, 23).replace("Z", "");

/** As the reader's clock said, for what is shown on hover. */
export function local(time: string): string {
  const at = new Date(millis(time));
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return `${time} (UTC)\n${at.toLocaleString("sv-SE", { timeZoneName: "short" })} here, ${zone}`;
}

/** How long ago, in words. */
export function ago(time: string, now = Date.now()): number {
  return Math.max(0, (now - millis(time)) / 1000);
}

const withZone = (time: string): string => (/Z|[+-]\d\d:\d\d$/.test(time) ? new Date(time).toISOString() : `${time}Z`);

const DAY_MS = 86_400_000;
const MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/;
export const ALL = "all";
const SPANS = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Windows that are offered; any other stands in the address. */
export const WINDOWS: [string, string][] = [
  ["15m", "15 minutes"],
  ["1h", "1 hour"],
  ["24h", "24 hours"],
  ["7d", "7 days"],
  ["30d", "30 days"],
  [ALL, "all of the record"],
];
