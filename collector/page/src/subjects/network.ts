// Network addresses, as crates/subjects/src/canonical/network.rs reads and writes them.

/** The address, and the bits of its netmask. Abbreviations and octets with zeros in front are refused. */
export function inet(text: string): string | null {
  const slash = text.indexOf("/");
  const [address, bits] = slash < 0 ? [text, null] : [text.slice(0, slash), text.slice(slash + 1)];
  const four = v4(address);
  const eight = four ? null : v6(address);
  if (!four && !eight) return null;
  const all = four ? 32 : 128;
  if (bits != null && (!/^[0-9]{1,3}$/.test(bits) || Number(bits) > all)) return null;
  return `${four ? four.join(".") : written(eight!)}/${bits == null ? all : Number(bits)}`;
}

function v4(text: string): number[] | null {
  const parts = text.split(".");
  return parts.length === 4 && parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) < 256) ? parts.map(Number) : null;
}

function v6(text: string): number[] | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const [front, back] = halves.map(groups);
  if (!front || back === null) return null;
  if (halves.length === 1) return front.length === 8 ? front : null;
  // An address in front of "::" cannot be the last 32 bits.
  if (halves[0]!.includes(".")) return null;
  const missing = 8 - front.length - back!.length;
  return missing < 1 ? null : [...front, ...Array<number>(missing).fill(0), ...back!];
}

/** Groups of 16 bits; the last two may be an IPv4 address. */
function groups(text: string): number[] | null {
  if (text === "") return [];
  const made: number[] = [];
  const parts = text.split(":");
  for (const [place, part] of parts.entries()) {
    const four = place === parts.length - 1 ? v4(part) : null;
    if (four) made.push(four[0]! * 256 + four[1]!, four[2]! * 256 + four[3]!);
    else if (/^[0-9a-f]{1,4}$/i.test(part)) made.push(Number.parseInt(part, 16));
    else return null;
  }
  return made;
}

/** By RFC 5952: the first of the longest runs of zeros is left out. */
function written(eight: number[]): string {
  if (eight.slice(0, 5).every((group) => group === 0) && eight[5] === 0xffff) {
    return `::ffff:${[eight[6]! >> 8, eight[6]! & 255, eight[7]! >> 8, eight[7]! & 255].join(".")}`;
  }
  let [from, length] = [0, 0];
  for (let at = 0; at < 8; at += 1) {
    let end = at;
    while (end < 8 && eight[end] === 0) end += 1;
    if (end - at > length) [from, length] = [at, end - at];
    if (end > at) at = end;
  }
  const hex = (part: number[]): string => part.map((group) => group.toString(16)).join(":");
  return length < 2 ? hex(eight) : `${hex(eight.slice(0, from))}::${hex(eight.slice(from + length))}`;
}
