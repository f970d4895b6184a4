#!/usr/bin/env python3
"""Checks the log in an evidence folder without pgwitness.

    check_log.py DIR [--origin-key NAME+ID+KEY]

Written from C2SP tlog-tiles and what collector/src/log says of its files. It checks signatures, chains, payload digests, tree,
tiles and checkpoints; it does not unpack payloads, which the digests stand for. Exit code 0: it holds.
"""
import os, struct, sys, zlib
from check_proof import AGENT, agent_keys, check_batch, checkpoint, document, field, fields, main, need, root, sha, signed, verifier


def read(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def files(folder):
    found = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
    return sorted(os.path.relpath(name, folder) for name in found)


def check_folder(folder, origin_key):
    origin = document(read(folder, "origin"), ["origin", "verifier_key"], "origin")
    log_key = origin["verifier_key"]
    need(origin_key in (None, log_key), f"the log's key is {log_key}, expected {origin_key}")
    need(verifier(log_key, 1)[0] == origin["origin"], "origin: the key is not the origin's")
    there, witnesses = files(folder), []
    if "witnesses" in there:
        listed = document(read(folder, "witnesses"), ["witnesses", "signature"], "witnesses")
        witnesses = listed["witnesses"]
        text = "pgwitness witnesses v1\n" + "\n".join(witnesses) + "\n"
        signed(verifier(log_key, 1)[2], bytes.fromhex(listed["signature"]), text.encode(), "witnesses")
        need(listed["signature"] == listed["signature"].lower(), "witnesses: not in lower case")
    size, tree, _ = checkpoint(read(folder, "checkpoint"), log_key, [], "checkpoint")
    known = [("checkpoint", size, tree)]
    if "cosigned" in there:
        known.append(("cosigned", *checkpoint(read(folder, "cosigned"), log_key, witnesses, "cosigned")[:2]))
    agents, tips, announced = {}, {}, set()
    for name in [name for name in there if name.startswith("agents/")]:
        record = document(read(folder, name), AGENT, name)
        need(name == f"agents/{record['agent_id']}.json", f"{name} is another agent's")
        need(record["signature"] + record["public_key"] == (record["signature"] + record["public_key"]).lower(), name)
        keys = agents[record["agent_id"]] = agent_keys(record, log_key)
        for later in [later for later in record.get("later", []) if "announced" in later]:
            # By a batch of another log: its header stands in the record, signed by the key before.
            need(list(later["announced"]) == ["header", "signature"], f"{name}: what is shown of a key is not in its form")
            header, signature = (bytes.fromhex(text) for text in later["announced"].values())
            need([header.hex(), signature.hex()] == list(later["announced"].values()), f"{name}: not in lower case")
            said = dict(fields(header))
            need(said[1].decode() == record["agent_id"] and said[2] + 1 == later["from_batch"], f"{name}: another batch is shown")
            need(said[20].hex() == later["public_key"], f"{name}: another key is shown")
            check_batch(header, signature, keys)
            announced.add((record["agent_id"], said[2] + 1, said[20]))
    entries = []
    segments = [name for name in there if name.startswith("payload/")]
    for name in segments:
        need(name == f"payload/{len(entries):012}.seg", f"{name}: expected the one that begins at {len(entries)}")
        content, at = read(folder, name), 0
        while at < len(content):
            place = f"{name} at byte {at}, entry {len(entries)}"
            cut = len(content) - at < 12
            if not cut:
                length, check, body_check = struct.unpack_from(">III", content, at)
                need(zlib.crc32(content[at:at + 4]) == check, f"{place}: the length's checksum")
                body = content[at + 12:at + 12 + length]
                cut = len(body) < length
            if cut:
                need(name == segments[-1] and len(entries) >= size, f"{place}: the file ends inside a record")
                break
            need(zlib.crc32(body) == body_check, f"{place}: the checksum")
            parts = dict(fields(body))
            header, signature, payload = parts[1], parts[2], parts.get(3, b"")
            need(body == field(1, header) + field(2, signature) + field(3, payload), f"{place}: not in its form")
            said = dict(fields(header))
            agent = said[1].decode()
            need(agent in agents, f"{place}: no key of agent {agent}")
            check_batch(header, signature, agents[agent])
            if 20 in said:  # the key that the agent goes on with
                need((said[2] + 1, said[20]) in agents[agent], f"{place}: it announces a key that is not in agents/")
                announced.add((agent, said[2] + 1, said[20]))
            need(sha(payload) == said[8], f"{place}: the payload is another one")
            sequence, previous, event = tips.get(agent, (0, bytes(32), 1))
            number, first, count = said[2], said.get(9, 0), said.get(4, 0)
            if number == sequence + 1:
                need(said[3] == previous, f"{place}: it names another predecessor")
                need(count == 0 or first == event, f"{place}: begins at event {first}, expected {event}")
            else:  # batches of this agent that another collector has
                need(number > sequence and (count == 0 or first >= event), f"{place}: expected batch {sequence + 1}, found {number}")
            tips[agent] = number, sha(header), max(event, first + count)
            entries.append(field(1, header) + field(2, signature))
            at += 12 + length
    listed = [(agent, *key) for agent, keys in agents.items() for key in keys[1:]]
    need(sorted(listed) == sorted(announced), "agents/ has a key that no batch announced")
    rows = [[sha(b"\0", entry) for entry in entries]]
    for name, n, expected in known:
        need(n <= len(entries), f"rolled back: {len(entries)} batches are there, {name} has {n}")
        need(root(rows[0][:n]) == expected, f"{name}: its root is not the one of the batches in payload/")
    while len(rows[-1]) >= 256:
        below = rows[-1]
        rows.append([root(below[at:at + 256]) for at in range(0, len(below) - 255, 256)])
    bundle = [struct.pack(">H", len(entry)) + entry for entry in entries]
    required = {}
    for level, row in [("entries", bundle), *enumerate(rows)]:
        count = size >> (8 * level if level != "entries" else 0)
        for n in range((count + 255) // 256):
            base = f"tile/{level}/{path(n)}"
            width = min(256, count - n * 256)
            required[base if width == 256 else f"{base}.p/{width}"] = base
    for name in [name for name in there if name.startswith("tile/")]:
        base, _, width = name.partition(".p/")
        _, level, n = base.split("/", 2)
        n, width = int(n.replace("x", "").replace("/", "")), int(width or 256)
        row = bundle if level == "entries" else rows[int(level)] if int(level) < len(rows) else []
        row = row[n * 256:n * 256 + width]
        need(0 < width <= 256 and len(row) == width, f"{name} is not part of the tree")
        need(name == f"tile/{level}/{path(n)}" + (f".p/{width}" if width < 256 else ""), f"{name} is no tile's name")
        need(read(folder, name) == b"".join(row), f"{name} differs from the tree that the batches make")
    for name, base in required.items():
        need(name in there or base in there, f"{name} is missing")
    known = ("origin", "checkpoint", "witnesses", "cosigned")
    extra = [name for name in there if name not in known and name.split("/")[0] not in ("agents", "payload", "tile")]
    need(not extra, f"{extra} are not part of a log")
    return f"{log_key}: {len(entries)} batches of {len(tips)} agents, {size} under the checkpoint"


def path(n):
    digits = f"{n % 1000:03}"
    while n := n // 1000:
        digits = f"x{n % 1000:03}/{digits}"
    return digits


if __name__ == "__main__":
    main(check_folder, *sys.argv[1:])
