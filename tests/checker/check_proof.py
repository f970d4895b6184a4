#!/usr/bin/env python3
"""Checks a proof of one event without pgwitness.

    check_proof.py FILE [--origin-key NAME+ID+KEY]

Written from the published forms alone: C2SP tlog-checkpoint, signed-note and tlog-cosignature, RFC 6962, and the form of a
proof in collector/src/prove/file.rs. Needs the standard library and `cryptography`. Exit code 0: it holds.
"""
import base64, hashlib, json, sys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Wrong(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Wrong(what)


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def node(left, right):
    return sha(b"\1", left, right)


def root(hashes):
    if not hashes:
        return sha()
    while len(hashes) > 1:  # pairs level by level; an odd one goes up as it is, which makes the same tree
        pairs = [node(*hashes[at:at + 2]) for at in range(0, len(hashes) - 1, 2)]
        hashes = pairs + hashes[len(pairs) * 2:]
    return hashes[0]


def root_by(leaf, index, size, path):
    """RFC 9162 section 2.1.3.2."""
    need(0 <= index < size, f"place {index} is not in a tree of {size}")
    at, last = index, size - 1
    for beside in path:
        need(last, "a path is too long")
        if at & 1 or at == last:
            leaf = node(beside, leaf)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            leaf = node(leaf, beside)
        at, last = at >> 1, last >> 1
    need(last == 0, "a path is too short")
    return leaf


def b64(text):
    raw = base64.b64decode(text, validate=True)
    need(base64.b64encode(raw).decode() == text, "base64 is not in its one form")
    return raw


def signed(key, signature, message, what):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Wrong(f"{what}: the signature does not hold") from None


def verifier(text, kind):
    """NAME+ID+KEY, as signed-note has it: the name, the id, the Ed25519 key."""
    name, ident, key = text.split("+", 2)
    raw = b64(key)
    need(len(raw) == 33 and raw[0] == kind and name, f"{text!r} is no key of type {kind}")
    need(ident == sha(name.encode(), b"\n", raw)[:4].hex(), f"{text!r} has another id")
    return name, bytes.fromhex(ident), raw[1:]


def checkpoint(note, log_key, witnesses, what):
    """Size and root; the log's signature comes first, then those of known witnesses, each once."""
    text, _, lines = note.decode().rpartition("\n\n")
    text += "\n"
    need(lines.endswith("\n") and text.count("\n") == 3, f"{what} is no checkpoint")
    name, ident, key = verifier(log_key, 1)
    known = {(w, i): k for w, i, k in (verifier(witness, 4) for witness in witnesses)}
    signatures = []
    for line in lines[:-1].split("\n"):
        dash, who, signature = line.split(" ")
        need(dash == "\u2014", f"{what}: a line is no signature")
        raw = b64(signature)
        signatures.append((who, raw[:4], raw[4:]))
    need(len({s[:2] for s in signatures}) == len(signatures), f"{what}: a signature stands there twice")
    need(signatures[0][:2] == (name, ident), f"{what} is not signed by {log_key}")
    signed(key, signatures[0][2], text.encode(), what)
    for who, i, raw in signatures[1:]:
        need((who, i) in known, f"{what}: {who} is no known witness")
        time = int.from_bytes(raw[:8], "big")
        need(time < 1 << 63, f"{what}: the time is too large")
        signed(known[who, i], raw[8:], f"cosignature/v1\ntime {time}\n{text}".encode(), f"{what}: {who}")
    origin, size, tree = text.split("\n")[:3]
    need(origin == name, f"{what} is of {origin}, expected {name}")
    need(size == str(int(size)), f"{what}: the size is not in its one form")
    need(len(b64(tree)) == 32, f"{what}: the root is not one hash")
    return int(size), b64(tree), len(signatures) - 1


def fields(message):
    """A protobuf message: numbers of fields and their values."""
    at, found = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 2:
            length = varint()
            need(at + length <= len(message), "a message is cut short")
            found.append((key >> 3, message[at:at + length]))
            at += length
        elif key & 7 == 0:
            found.append((key >> 3, varint()))
        else:
            width = {1: 8, 5: 4}[key & 7]
            found.append((key >> 3, message[at:at + width]))
            at += width
    return found


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number, value):
    return bytes([number << 3 | 2]) + varint(len(value)) + value if value else b""


def document(raw, keys, what):
    """JSON in its one form, with these keys."""
    value = json.loads(raw)
    again = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    forms = (AGENT, LATER) if keys == AGENT else (keys,)
    need(isinstance(value, dict) and list(value) in forms and again.encode() == raw, f"{what} is not in its form")
    return value


AGENT = ["agent_id", "public_key", "first_seen_unix_ns", "signature"]
LATER = AGENT[:3] + ["later", "signature"]


def agent_keys(record, log_key):
    """The agent's keys, with the first batch that each signs."""
    text = "pgwitness agent v1\n{agent_id}\n{public_key}\n{first_seen_unix_ns}\n".format(**record)
    text += "".join("{from_batch} {public_key}\n".format(**later) for later in record.get("later", []))
    signed(verifier(log_key, 1)[2], bytes.fromhex(record["signature"]), text.encode(), "agent " + record["agent_id"])
    keys = [(0, record["public_key"])] + [(later["from_batch"], later["public_key"]) for later in record.get("later", [])]
    need(keys == sorted(keys), "the agent's keys are not in order")
    return [(batch, bytes.fromhex(key)) for batch, key in keys]


def check_batch(header, signature, keys):
    need(len(signature) == 64, "a signature takes 64 bytes")
    number = dict(fields(header))[2]
    key = [key for batch, key in keys if batch <= number][-1]
    signed(key, signature, b"pgwitness batch v1\n" + header, "a batch")


def check_proof(raw, origin_key):
    keys = ["format", "event_id", "event", "definitions", "batch", "agent", "log", "witnesses"]
    proof = document(raw, keys, "the proof")
    need(proof["format"] == "pgwitness proof v1", "it is of another format")
    log, batch, event = proof["log"], proof["batch"], proof["event"]
    need(list(log) == ["verifier_key", "index", "path", "checkpoint"], "log is not in its form")
    need(list(batch) == ["header", "signature"] and list(proof["agent"]) in (AGENT, LATER), "batch or agent is not in its form")
    need(origin_key in (None, log["verifier_key"]), f"the log's key is {log['verifier_key']}, expected {origin_key}")
    size, tree, cosigned = checkpoint(log["checkpoint"].encode(), log["verifier_key"], proof["witnesses"], "the checkpoint")
    need(cosigned == len(proof["witnesses"]), "not all witnesses that it names cosigned")
    header, signature = b64(batch["header"]), b64(batch["signature"])
    check_batch(header, signature, agent_keys(proof["agent"], log["verifier_key"]))
    said = dict(fields(header))
    need(said[1].decode() == proof["agent"]["agent_id"], "the batch is of another agent")
    entry = sha(b"\0", field(1, header), field(2, signature))
    need(root_by(entry, log["index"], size, [b64(h) for h in log["path"]]) == tree, "the entry is not in the log")
    events, definitions = said.get(4, 0), said.get(11, 0)

    def message(leaf, place, below):
        need(list(leaf) == ["place", "message", "salt", "path"], "a leaf is not in its form")
        need(type(leaf["place"]) is int and 0 <= leaf["place"] < below, "a place is not in the batch")
        salt, text = b64(leaf["salt"]), b64(leaf["message"])
        need(len(salt) == 16, "a salt takes 16 bytes")
        found = root_by(sha(b"\0", salt, text), place, events + definitions, [b64(h) for h in leaf["path"]])
        need(found == said[5], f"leaf {place} is not in the batch")
        return text

    text = message(event, event["place"], events)
    number = said.get(9, 0) + event["place"]
    need(proof["event_id"] == f"{said[1].decode()}-{number}", "event_id is another event's")
    named = sorted({value for number, value in fields(text) if number in (30, 31)})
    need([leaf["place"] for leaf in proof["definitions"]] == named, "definitions are not those that the event names")
    for leaf in proof["definitions"]:
        message(leaf, events + leaf["place"], definitions)
    return f"{proof['event_id']} is entry {log['index']} of {log['verifier_key']}, {size} entries, {cosigned} cosigned"


def main(check, what, _flag=None, key=None):
    try:
        print("OK:", check(what, key))
    except (Wrong, ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as wrong:
        sys.exit(f"WRONG: {what}: {wrong or type(wrong).__name__}")


if __name__ == "__main__":
    main(lambda file, key: check_proof(open(file, "rb").read(), key), *sys.argv[1:])
