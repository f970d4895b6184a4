"""asyncpg: binary values throughout, its cache of prepared statements, cursors (portals executed in parts), COPY."""
import asyncio
import datetime
import decimal
import io
import os
import uuid

from journal import Journal, cannot_run, expect, parts

try:
    import asyncpg
except ImportError as missing:
    cannot_run(missing)

NAME = "asyncpg"
JOURNAL = Journal(NAME)


class Session:
    """Marked statements on one connection."""

    def __init__(self, connection):
        self.connection = connection
        self.pid = connection.get_server_pid()

    async def rows(self, text, *params, count=None, shown=None):
        marked = JOURNAL.mark(text)
        got = await self.connection.fetch(marked, *params)
        JOURNAL.line(marked, self.pid, rows=len(got), params=shown or params)
        if count is not None:
            expect(text, len(got), count)
        return got

    async def change(self, text, *params):
        """With parameters extended, without simple. The status tag has the count."""
        marked = JOURNAL.mark(text)
        tag = (await self.connection.execute(marked, *params)).split()
        affected = int(tag[-1]) if tag[0] in ("INSERT", "UPDATE", "DELETE") else None
        JOURNAL.line(marked, self.pid, affected=affected, params=params)
        return affected

    async def fails(self, sqlstate, text, *params):
        marked = JOURNAL.mark(text)
        try:
            await self.connection.fetch(marked, *params)
        except asyncpg.PostgresError as error:
            expect(text, error.sqlstate, sqlstate)
            JOURNAL.line(marked, self.pid, sqlstate=sqlstate, **({"params": params} if sqlstate.startswith("22") else {}))
            return
        raise SystemExit(f"{text} did not fail")


async def values(session):
    moment = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)
    for kind, value in [
        ("int2", -3), ("int4", 70_000), ("int8", 1 << 62), ("float8", 1.5), ("float4", -0.25), ("bool", True), ("bool", False),
        ("numeric", decimal.Decimal("12345678901234567890.123456789")), ("numeric", decimal.Decimal("-0.0010")),
        ("numeric", decimal.Decimal("1000000")), ("text", "it's \"quoted\" \\ ümlaut"), ("text", ""), ("text", None), ("bytea", b"\x00\x01\xff'\\"),
        ("uuid", uuid.UUID(int=0x1234567890ABCDEF)), ("date", datetime.date(2024, 2, 29)), ("time", datetime.time(1, 2, 3, 4)),
        ("timestamp", moment), ("timestamptz", moment.replace(tzinfo=datetime.timezone.utc)), ("int4[]", [1, 2, None]),
        ("text[]", ["a", "b c", None, '"', ""]), ("int8[]", [[1, 2], [3, 4]]), ("json", '{"a": [1,2]}'), ("jsonb", '{"a": [1, 2]}'),
    ]:
        got = await session.rows(f"SELECT /**/ $1::{kind} AS v", value, count=1)
        expect(kind, got[0]["v"], value)
    for number in range(6):
        await session.rows("SELECT /**/ generate_series(1, $1::int4)", number, count=number)
    for number in range(130):
        await session.rows(f"SELECT /**/ {number}", count=1)


async def rare_types(session):
    """Binary values of the less common types, with the text that the server prints for each."""
    utc = datetime.timezone.utc
    moment = datetime.datetime(2024, 2, 29, 12, 30, 15, tzinfo=utc)
    for kind, value, text in [
        ("interval", datetime.timedelta(days=1, seconds=5), "1 day 00:00:05"), ("interval", datetime.timedelta(days=-2), "-2 days"),
        ("int4range", asyncpg.Range(1, 5), "[1,5)"), ("int8range", asyncpg.Range(empty=True), "empty"), ("numrange", asyncpg.Range(None, 5, upper_inc=True), "(,5]"),
        ("point", asyncpg.Point(1.5, -2), "(1.5,-2)"), ("box", asyncpg.Box((3, 4), (1, 2)), "(3,4),(1,2)"), ("circle", asyncpg.Circle((0, 0), 2), "<(0,0),2>"),
        ("lseg", asyncpg.LineSegment((0, 0), (1, 1)), "[(0,0),(1,1)]"), ("polygon", asyncpg.Polygon((0, 0), (1, 1), (1, 0)), "((0,0),(1,1),(1,0))"),
        ("path", asyncpg.Path((0, 0), (1, 1), is_closed=False), "[(0,0),(1,1)]"), ("line", asyncpg.Line(1, -1, 0), "{1,-1,0}"),
        ("varbit", asyncpg.BitString("1011"), "1011"), ("timetz", datetime.time(1, 2, 3, tzinfo=utc), "01:02:03+00"), ("oid", 4_000_000_000, "4000000000"),
        ("xid", 77, "77"), ("tid", (1, 2), "(1,2)"), ("name", "a name", "a name"), ("varchar(10)", "varchar", "varchar"), ("bpchar", "c ", "c "),
        ("float8", float("inf"), "Infinity"), ("float8", float("nan"), "NaN"), ("float8", 1e300, "1e+300"), ("numeric", decimal.Decimal("NaN"), "NaN"),
        ("date", datetime.date.max, "infinity"), ("uuid[]", [uuid.UUID(int=1)], "{00000000-0000-0000-0000-000000000001}"),
        ("bytea[]", [b"\x00\xff"], '{"\\\\x00ff"}'), ("timestamptz[]", [moment, None], '{"2024-02-29 12:30:15+00",NULL}'),
        ("numeric[]", [decimal.Decimal("1.50"), decimal.Decimal("-0.001")], "{1.50,-0.001}"), ("jsonb[]", ['{"a": 1}'], '{"{\\"a\\": 1}"}'),
        ("bool[]", [True, False], "{t,f}"), ("float8[]", [1.5, 2.0], "{1.5,2}"), ("int4[]", [], "{}"), ("inet", "10.1.0.0/16", "10.1.0.0/16"),
        ("inet", "2001:db8::1", "2001:db8::1"), ("cidr", "10.0.0.0/8", "10.0.0.0/8"), ("macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:03"), ("pg_lsn", 0x16_B374_D848, "16/B374D848"),
        ("money", "$12.34", "$12.34"), ("xml", "<a/>", "<a/>"), ("tsvector", "'a' 'b'", "'a' 'b'"), ("regclass", "pg_class", "pg_class"),
    ]:
        await session.rows(f"SELECT /**/ $1::{kind} IS NULL, 'rare'", value, count=1, shown=[text])
    await session.change("CREATE TYPE pg_temp.asyncpg_mood /**/ AS ENUM ('sad', 'ok')")
    await session.change("CREATE TYPE pg_temp.asyncpg_pair /**/ AS (a int4, b text)")
    await session.change("CREATE DOMAIN pg_temp.asyncpg_small /**/ AS int4 CHECK (VALUE < 100)")
    await session.rows("SELECT /**/ $1::pg_temp.asyncpg_mood", "ok", count=1)
    await session.rows("SELECT /**/ $1::pg_temp.asyncpg_pair", (1, "x y"), count=1, shown=['(1,"x y")'])
    await session.rows("SELECT /**/ $1::pg_temp.asyncpg_small", 7, count=1)


async def changes(session):
    await session.change("CREATE TEMP TABLE asyncpg_t /**/ (id int8 PRIMARY KEY, name text)")
    expect("insert", await session.change("INSERT INTO asyncpg_t /**/ VALUES ($1, $2)", 1, None), 1)
    expect("update", await session.change("UPDATE asyncpg_t /**/ SET name = $1", "one"), 1)
    expect("delete", await session.change("DELETE FROM asyncpg_t /**/ WHERE id = -1"), 0)
    marked = JOURNAL.mark("INSERT INTO asyncpg_t /**/ VALUES ($1, $2)")
    many = [(number, f"many {number}") for number in range(10, 40)]
    await session.connection.executemany(marked, many)
    for row in many:
        JOURNAL.line(marked, session.pid, affected=1, params=row)
    divide = JOURNAL.mark("UPDATE asyncpg_t /**/ SET id = id / $1::int8 WHERE id = 1")
    try:
        await session.connection.executemany(divide, [(1,), (1,), (0,), (1,)])
    except asyncpg.DivisionByZeroError:
        for by in (1, 1):
            JOURNAL.line(divide, session.pid, affected=1, params=[by])
        JOURNAL.line(divide, session.pid, sqlstate="22012", params=[0])
    prepared = await session.connection.prepare(JOURNAL.mark("SELECT /**/ id FROM asyncpg_t WHERE id < $1"))
    for limit in (15, 5, 20):
        got = await prepared.fetch(limit)
        JOURNAL.line(prepared.get_query(), session.pid, rows=len(got), params=[limit])
    row = JOURNAL.mark("SELECT /**/ id FROM asyncpg_t ORDER BY id")
    expect("row", (await session.connection.fetchrow(row))["id"], 1)
    JOURNAL.line(row, session.pid, rows=1, params=[])


async def transactions(session):
    connection = session.connection
    async with connection.transaction(isolation="serializable"):
        try:
            async with connection.transaction():
                await session.change("INSERT INTO asyncpg_t /**/ VALUES ($1)", 77)
                await session.fails("22012", "SELECT /**/ 1 / $1::int4", 0)
                raise KeyError
        except KeyError:
            pass
        await session.rows("SELECT /**/ id FROM asyncpg_t WHERE id = 77", count=0)
        text = JOURNAL.mark("SELECT /**/ n, repeat('x', 50) AS x FROM generate_series(1, $1::int4) n")
        got = 0
        async for _ in connection.cursor(text, 120, prefetch=50):
            got += 1
        expect("cursor", got, 120)
        JOURNAL.line(text, session.pid, rows=got, params=[120])
        cursor = await connection.cursor(text, 60)
        got = len(await cursor.fetch(10)) + len(await cursor.fetch(20)) + (await cursor.fetchrow() is not None)
        expect("cursor", got, 31)
        JOURNAL.line(text, session.pid, rows=got, params=[60])
    await session.fails("42P01", "SELECT /**/ * FROM no_such_table")
    await session.fails("42601", "SELECT /**/ FROM WHERE")


async def strings(session):
    marked = JOURNAL.mark("SELECT /**/ 1; UPDATE asyncpg_t /**/ SET name = name WHERE id < 5; ; SET /**/ work_mem TO '5MB'")
    await session.connection.execute(marked)
    for part in parts(marked):
        JOURNAL.line(part, session.pid)
    bad = JOURNAL.mark("SELECT /**/ 1; SELECT /**/ 1 / 0; SELECT /**/ 'never'")
    try:
        await session.connection.execute(bad)
    except asyncpg.DivisionByZeroError:
        JOURNAL.line(parts(bad)[0], session.pid)
        JOURNAL.line(parts(bad)[1], session.pid, sqlstate="22012")
    await session.connection.fetch("-- nothing")


async def copies(session):
    """asyncpg writes the COPY of a table itself; that of a query holds the program's text."""
    connection = session.connection
    records = [(1000 + number, "copied") for number in range(300)]
    expect("copied", await connection.copy_records_to_table("asyncpg_t", records=records), "COPY 300")
    await connection.copy_to_table("asyncpg_t", source=io.BytesIO(b"5000\tcopied\n"))
    for kind in ("text", "csv", "binary"):
        marked = JOURNAL.mark(f"SELECT /**/ * FROM asyncpg_t WHERE name = 'copied' AND '{kind}' <> ''")
        out = io.BytesIO()
        expect("copied", await connection.copy_from_query(marked, output=out, format=kind), "COPY 301")
        JOURNAL.line(marked, session.pid, affected=301, copy_bytes=len(out.getvalue()))


async def big(session):
    value = "abc'def " * (3 * 1024 * 1024 // 8)
    expect("big", (await session.rows("SELECT /**/ length($1::text) AS v", value))[0]["v"], len(value))
    await session.rows("SELECT /**/ repeat('z', 3000000)", count=1)
    await session.rows(f"SELECT /**/ length('{'z' * 3_000_000}')", count=1)
    await session.rows("SELECT /**/ n, n::text FROM generate_series(1, 5000) n", count=5000)


async def main():
    for _ in range(JOURNAL.rounds):
        connection = await asyncpg.connect(host=os.environ["PGHOST"])
        session = Session(connection)
        await session.change("SET /**/ TIME ZONE 'UTC'")
        for step in (values, rare_types, changes, transactions, strings, copies, big):
            await step(session)
        await session.change("DROP TABLE /**/ asyncpg_t")
        await connection.close()


asyncio.run(main())
