// Numbers, as crates/subjects/src/canonical/number.rs reads them.

/** Without white space at both ends, as C's `isspace` knows it. */
export const trimmed = (text: string): string => text.replace(/^[ \t\n\v\f\r]+|[ \t\n\v\f\r]+$/g, "");

/** A whole number within 64 bits, as the server prints it. Hexadecimal and underscores are read by newer servers only. */
export function integer(text: string): string | null {
  const given = trimmed(text);
  if (!/^[-+]?[0-9]+$/.test(given)) return null;
  const number = BigInt(given.replace(/^\+/, ""));
  return number >= -(2n ** 63n) && number < 2n ** 63n ? number.toString() : null;
}

/** Digits without zeros at either end, and the power of ten that they are times of: `42.50` is `425e-1`. */
export function numeric(text: string): string | null {
  const given = trimmed(text);
  const sign = given.startsWith("-") ? "-" : "";
  const rest = sign ? given.slice(1) : given.replace(/^\+/, "");
  const name = rest.toLowerCase();
  if (name === "nan") return rest === given ? "NaN" : null;
  if (name === "infinity" || name === "inf") return `${sign}Infinity`;
  const parts = /^([0-9]*)(?:\.([0-9]*))?(?:[eE]([-+]?[0-9]{1,6}))?$/.exec(rest);
  if (!parts || (!parts[1] && !parts[2])) return null;
  const behind = parts[2] ?? "";
  const digits = (parts[1] ?? "") + behind;
  const kept = digits.replace(/0+$/, "");
  if (kept === "") return "0";
  const exponent = Number(parts[3] ?? 0) + (digits.length - kept.length) - behind.length;
  return `${sign}${kept.replace(/^0+/, "")}e${exponent}`;
}

/** In double precision; infinite by name only, not because it is too large. */
function parsed(text: string): number | null {
  const given = trimmed(text);
  const named = /^([-+]?)(inf|infinity|nan)$/i.exec(given);
  if (named) return named[2]!.toLowerCase() === "nan" ? Number.NaN : named[1] === "-" ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  if (!/^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$/.test(given)) return null;
  const value = Number(given);
  return Number.isFinite(value) ? value : null;
}

/** The fewest digits that read back as it. */
function written(value: number, digits?: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
  return value.toExponential(digits).replace("e+", "e");
}

export function double(text: string): string | null {
  const value = parsed(text);
  return value == null ? null : written(value);
}

/** Only what is a number in single precision, too: unquoted it is read in double precision, and equals no other. */
export function real(text: string): string | null {
  const value = parsed(text);
  if (value == null || !(Number.isNaN(value) || Math.fround(value) === value)) return null;
  for (let digits = 0; digits < 9; digits += 1) {
    const short = written(value, digits);
    if (Math.fround(Number(short)) === value) return short;
  }
  return written(value);
}
