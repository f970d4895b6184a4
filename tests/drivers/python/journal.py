"""What a driver program did, as the program itself knows it.

Owns the markers in the statements' texts, the lines of the journal, and the text form of values. It looks at nothing
but what its caller hands in: a journal that asked the server would be no witness of its own.
"""
import datetime
import decimal
import ipaddress
import json
import os
import re
import sys
import uuid


class Journal:
    """The journal of one program, for all of its sessions."""

    def __init__(self, name):
        self.name = name
        self.rounds = int(os.environ.get("PGW_ROUNDS", "1"))
        self._file = open(os.environ["PGW_JOURNAL"], "a", encoding="utf-8")
        self._numbers = {}

    def mark(self, text):
        """Gives every `/**/` in a text its marker. Equal texts keep equal numbers, in every round."""
        count = 0

        def marker(_):
            nonlocal count
            count += 1
            number = self._numbers.setdefault((text, count), len(self._numbers) + 1)
            return f"/* d={self.name} j={number} */"

        marked = re.sub(r"/\*\*/", marker, text)
        assert count, f"a statement without a place for its marker: {text[:80]}"
        return marked

    def mark_verb(self, text):
        """The same for a text that a library wrote: behind its first word."""
        return self.mark(re.sub(r"^(\s*\w+)", r"\1 /**/", text, count=1))

    def line(self, marked, pid, *, rows=None, affected=None, sqlstate=None, copy_bytes=None, **claim):
        """One execution of the (first) statement in a marked text. `params=[…]` claims parameter values."""
        number = int(MARKER.search(marked).group(1))
        line = {"d": self.name, "j": number, "pid": pid, "rows": rows, "affected": affected, "sqlstate": sqlstate}
        line["copy_bytes"] = copy_bytes
        if "params" in claim:
            line["params"] = [shown(value) for value in claim["params"]]
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def parts(marked):
    """The statements of a marked string of several, cut behind each `;`. For strings without quoted semicolons."""
    return [part for part in marked.split(";") if MARKER.search(part)]


def shown(value):
    """A value as the server's output function prints it (ISO dates, UTC); None is NULL."""
    match value:
        case None:
            return None
        case bool():
            return "t" if value else "f"
        case bytes() | bytearray() | memoryview():
            return "\\x" + bytes(value).hex()
        case float():
            return repr(value).removesuffix(".0")
        case datetime.datetime():
            moment = value.isoformat(sep=" ")
            return re.sub(r"\+00:00$", "+00", moment)
        case list() | tuple():
            return "{" + ",".join(element(inner) for inner in value) + "}"
        case dict():
            return json.dumps(value)
        case str():
            return value
        case int() | decimal.Decimal() | datetime.date() | datetime.time() | uuid.UUID():
            return str(value)
        case ipaddress.IPv4Address() | ipaddress.IPv6Address() | ipaddress.IPv4Network() | ipaddress.IPv6Network():
            return str(value)
    raise TypeError(f"no text form for {type(value)}")


def element(value):
    """A value inside an array's text (manual, 8.15.6)."""
    if isinstance(value, (list, tuple)):
        return shown(value)
    text = shown(value)
    if text is None:
        return "NULL"
    if text == "" or text.lower() == "null" or re.search(r'[{}",\\\s]', text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def expect(what, got, wanted):
    """Ends the program if the driver did not do what the program is here to exercise."""
    if got != wanted:
        raise SystemExit(f"{what}: expected {str(wanted)[:200]}, got {str(got)[:200]}")


def cannot_run(why):
    """Exit code 77: this driver is not to be had here."""
    print(f"cannot run here, because {why}", file=sys.stderr)
    raise SystemExit(77)


MARKER = re.compile(r"/\* d=\S+ j=(\d+) \*/")
