"""pg8000 (written in Python throughout): native interface, DB-API, prepared statements, COPY."""
import datetime
import decimal
import io
import os
import ssl
import uuid

from journal import Journal, cannot_run, expect, parts

try:
    import pg8000.dbapi
    import pg8000.native
except ImportError as missing:
    cannot_run(missing)

NAME = "pg8000"
JOURNAL = Journal(NAME)


def connect(module):
    host = os.environ["PGHOST"]
    place = {"unix_sock": f"{host}/.s.PGSQL.{os.environ['PGPORT']}"} if host.startswith("/") else {"host": host, "port": int(os.environ["PGPORT"])}
    context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"]) if os.environ["PGSSLMODE"] != "disable" else False
    factory = getattr(module, "Connection" if module is pg8000.native else "connect")
    return factory(user=os.environ["PGUSER"], password=os.environ["PGPASSWORD"], database=os.environ["PGDATABASE"], ssl_context=context, **place)


class Native:
    """The native interface: `:name` parameters, autocommit."""

    def __init__(self, connection):
        self.connection = connection
        self.pid = connection.run("SELECT pg_backend_pid()")[0][0]

    def run(self, text, *, count=None, **params):
        marked = JOURNAL.mark(text)
        got = self.connection.run(marked, **params)
        word = text.split()[0]
        affected = self.connection.row_count if word in ("INSERT", "UPDATE", "DELETE") else None
        rows = None if got is None or self.connection.columns is None else len(got)
        JOURNAL.line(marked, self.pid, rows=rows, affected=affected, params=list(params.values()))
        if count is not None:
            expect(text, affected if rows is None else rows, count)
        return got

    def fails(self, sqlstate, text, **params):
        marked = JOURNAL.mark(text)
        try:
            self.connection.run(marked, **params)
        except pg8000.exceptions.DatabaseError as error:
            expect(text, error.args[0]["C"], sqlstate)
            JOURNAL.line(marked, self.pid, sqlstate=sqlstate, **({"params": list(params.values())} if sqlstate.startswith("22") else {}))
            return
        raise SystemExit(f"{text} did not fail")


def native(session):
    run = session.run
    run("SET /**/ TIME ZONE 'UTC'")
    for kind, value in [
        ("int4", 70_000), ("int8", 1 << 62), ("float8", 1.5), ("numeric", decimal.Decimal("12345678901234567890.123456789")), ("bool", True),
        ("bool", False), ("text", "it's \"quoted\" \\ ümlaut"), ("text", ""), ("text", None), ("bytea", b"\x00\x01\xff'\\"),
        ("uuid", uuid.UUID(int=0x1234567890ABCDEF)), ("date", datetime.date(2024, 2, 29)), ("time", datetime.time(1, 2, 3, 4)),
        ("timestamp", datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)), ("int4[]", [1, 2, None]), ("text[]", ["a", "b c", None, '"']),
    ]:
        expect(kind, run(f"SELECT /**/ CAST(:v AS {kind})", v=value)[0][0], value)
    for number in range(6):
        run("SELECT /**/ generate_series(1, CAST(:v AS int4))", v=number, count=number)
    run("CREATE TEMP TABLE pg8000_t /**/ (id int8, name text)")
    run("INSERT INTO pg8000_t /**/ VALUES (:a, :b)", a=1, b=None, count=1)
    run("INSERT INTO pg8000_t /**/ SELECT generate_series(10, 19) RETURNING id", count=10)
    run("UPDATE pg8000_t /**/ SET name = :b WHERE id > 5", b="big", count=10)
    run("DELETE FROM pg8000_t /**/ WHERE id = -1", count=0)
    marked = JOURNAL.mark("SELECT /**/ id FROM pg8000_t WHERE id < :v")
    prepared = session.connection.prepare(marked)
    for limit in (15, 5, 12):
        got = prepared.run(v=limit)
        JOURNAL.line(marked, session.pid, rows=len(got), params=[limit])
    prepared.close()
    session.fails("22012", "SELECT /**/ 1 / CAST(:v AS int4)", v=0)
    session.fails("42P01", "SELECT /**/ * FROM no_such_table")
    session.fails("42601", "SELECT /**/ FROM WHERE")
    marked = JOURNAL.mark("COPY pg8000_t /**/ FROM STDIN")
    text = b"".join(b"%d\tcopied\n" % (1000 + number) for number in range(300))
    session.connection.run(marked, stream=io.BytesIO(text))
    JOURNAL.line(marked, session.pid, affected=300, copy_bytes=len(text))
    for kind in ("text", "csv", "binary"):
        marked = JOURNAL.mark(f"COPY (SELECT * FROM pg8000_t WHERE name = 'copied') /**/ TO STDOUT (FORMAT {kind})")
        out = io.BytesIO()
        session.connection.run(marked, stream=out)
        JOURNAL.line(marked, session.pid, affected=300, copy_bytes=len(out.getvalue()))
    marked = JOURNAL.mark("SELECT /**/ 1; SELECT /**/ 2 UNION SELECT 3")
    expect("string", len(session.connection.run(marked)), 3)
    for part, rows in zip(parts(marked), (1, 2)):
        JOURNAL.line(part, session.pid, rows=rows)
    session.connection.run("")
    value = "abc'def " * (3 * 1024 * 1024 // 8)
    expect("big", run("SELECT /**/ length(CAST(:v AS text))", v=value)[0][0], len(value))
    run("SELECT /**/ repeat('z', 3000000)", count=1)
    run("DROP TABLE /**/ pg8000_t")


def dbapi(connection):
    """The DB-API: transactions begin by themselves."""
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    pid = cursor.fetchone()[0]

    def run(text, *params, affected=None):
        marked = JOURNAL.mark(text)
        cursor.execute(marked, params)
        rows = len(cursor.fetchall()) if cursor.description else None
        JOURNAL.line(marked, pid, rows=rows, affected=affected, params=params)

    run("CREATE TEMP TABLE pg8000_d /**/ (id int8, name text)")
    run("INSERT INTO pg8000_d /**/ VALUES (%s, %s)", 1, "one", affected=1)
    connection.commit()
    marked = JOURNAL.mark("INSERT INTO pg8000_d /**/ VALUES (%s, %s)")
    many = [(number, f"many {number}") for number in range(10, 20)]
    cursor.executemany(marked, many)
    for row in many:
        JOURNAL.line(marked, pid, affected=1, params=row)
    connection.rollback()
    run("SELECT /**/ * FROM pg8000_d WHERE id > %s", 0)
    run("DROP TABLE /**/ pg8000_d")
    connection.commit()


for _ in range(JOURNAL.rounds):
    with connect(pg8000.native) as used:
        native(Native(used))
    used = connect(pg8000.dbapi)
    dbapi(used)
    used.close()
