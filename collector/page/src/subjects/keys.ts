// Token keys, and the tokens that are made with them, as crates/subjects/src/key.rs does it.
//
// Owns that neither key nor value leaves this page: what comes out of here is ids and tokens. Keys are kept by nobody.

export interface Key {
  id: string;
  bytes: Uint8Array<ArrayBuffer>;
}

/** Reads a key file. Errors name the line, never the key. */
export function parseKeys(text: string): Key[] {
  const keys: Key[] = [];
  for (const [place, content] of text.split(/\r?\n/).entries()) {
    const words = (content.split("#")[0] ?? "").split(/\s+/).filter(Boolean);
    if (words.length === 0) continue;
    const [id, digits, more] = words;
    const line = place + 1;
    if (!id || !digits || more != null || !/^[\w.-]{1,32}$/.test(id) || !/^[0-9a-f]{64}$/i.test(digits)) {
      throw new Error(`line ${line}: expected an id of letters, digits, ".", "_" or "-" (at most 32), a space and 64 hexadecimal digits`);
    }
    if (keys.some((key) => key.id === id)) throw new Error(`line ${line}: the id ${id} stands there twice`);
    const bytes = Uint8Array.from(digits.match(/../g)!, (pair) => Number.parseInt(pair, 16));
    if (new Set(bytes).size < DIFFERENT_BYTES) throw new Error(`line ${line}: the key ${id} is not random`);
    keys.push({ id, bytes });
  }
  if (keys.length === 0) throw new Error("there is no key in it: pgwitness-agent token-key new FILE makes one");
  return keys;
}

/** The first 16 bytes of HMAC-SHA-256 over the family's name, a zero byte and the value's form, in hexadecimal. */
export async function token(key: Key, family: string, form: Uint8Array): Promise<string> {
  if (!globalThis.crypto?.subtle) throw new Error("this browser makes tokens on pages of loopback or over TLS only; use pgwitness-collector who");
  const name = new TextEncoder().encode(`${family}\0`);
  const said = new Uint8Array(name.length + form.length);
  said.set(name);
  said.set(form, name.length);
  const hmac = await crypto.subtle.importKey("raw", key.bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const digest = new Uint8Array(await crypto.subtle.sign("HMAC", hmac, said));
  return Array.from(digest.slice(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const DIFFERENT_BYTES = 16;
