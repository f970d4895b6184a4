// Figures as people read them, with their units.
//
// Owns the rule that a share is never rounded up to a whole that it is not.

const GROUPED = new Intl.NumberFormat("en-US");

/** What has no value is a dash, never a zero. */
export const number = (n: number | null | undefined): string => (n == null ? "–" : GROUPED.format(n));

/** From a million on with three or four digits: rounded down, as shares are. */
export function compact(n: number | null | undefined): string {
  if (n == null || n < 1e6) return number(n);
  const [unit, of] = n < 1e9 ? ["M", 1e6] : ["bn", 1e9];
  return `${(Math.floor((n / of) * 100) / 100).toFixed(2)} ${unit}`;
}

export function bytes(n: number | null | undefined): string {
  if (n == null) return "unknown size";
  let size = n;
  let unit = 0;
  for (; size >= 1024 && unit < UNITS.length - 1; unit += 1) size /= 1024;
  return `${unit === 0 ? size : size.toFixed(1)} ${UNITS[unit]}`;
}

/** Rounded down: 99.999 is not a hundred. */
export function share(part: number, whole: number): string {
  if (whole === 0) return "–";
  if (part === whole) return "100 %";
  return `${(Math.floor((part / whole) * 10_000) / 100).toFixed(2)} %`;
}

export function seconds(of: number | null | undefined): string {
  if (of == null) return "–";
  if (of < 90) return `${Math.round(of)} s`;
  if (of < 5400) return `${Math.round(of / 60)} min`;
  if (of < 172_800) return `${Math.round(of / 3600)} h`;
  return `${Math.round(of / 86_400)} d`;
}

/** Of nanoseconds; three digits are enough to compare. */
export function milliseconds(ns: number | null | undefined): string {
  if (ns == null) return "–";
  const ms = ns / 1e6;
  return ms >= 100 ? GROUPED.format(Math.round(ms)) : ms.toFixed(ms >= 10 ? 1 : 2);
}

export const plural = (n: number, one: string, many = `${one}s`): string => `${number(n)} ${n === 1 ? one : many}`;

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
