"""psycopg 3: every way in which it can send a statement.

Client-side and server-side binding, text and binary both ways, preparation, pipelines with errors inside, COPY,
cursors on the server, strings of several statements. Works with 3.1 (Debian) and later.
"""
import datetime
import decimal
import ipaddress
import sys
import threading
import uuid

from journal import Journal, cannot_run, expect, parts

try:
    import psycopg
    from psycopg import pq
    from psycopg.types.json import Json, Jsonb
except ImportError as missing:
    cannot_run(missing)

NAME = sys.argv[1] if len(sys.argv) > 1 else "psycopg"
JOURNAL = Journal(NAME)
UTC = datetime.timezone.utc


class Runner:
    """Runs marked statements on one connection and keeps the journal."""

    def __init__(self, connection):
        self.connection = connection
        self.pid = connection.info.backend_pid

    def run(self, text, params=None, *, cursor=None, claims=True, **how):
        """Executes, fetches everything, journals; gives the rows."""
        marked = JOURNAL.mark(text)
        cursor = cursor or self.connection.cursor()
        claim = {"params": list(params or ())} if claims else {}
        try:
            cursor.execute(marked, params, **how)
        except psycopg.Error as error:
            expect("a failure has its SQLSTATE", error.sqlstate is not None, True)
            JOURNAL.line(marked, self.pid, sqlstate=error.sqlstate)
            raise
        self.journal_results(marked, cursor, claim)
        return cursor.fetchall() if cursor.description else None

    def journal_results(self, marked, cursor, claim):
        """One line for each result of the string."""
        for part in parts(marked):
            rows, affected = counts(cursor.pgresult)
            JOURNAL.line(part, self.pid, rows=rows, affected=affected, **claim)
            more = cursor.nextset()
        expect("results of a string", more, None)

    def fails(self, sqlstate, text, params=None, **how):
        """The same for a statement that has to fail with this SQLSTATE."""
        try:
            self.run(text, params, **how)
        except psycopg.Error as error:
            expect(text, error.sqlstate, sqlstate)
            return
        raise SystemExit(f"{text} did not fail")


def counts(result):
    """Rows received and rows changed, of one result."""
    tag = (result.command_status or b"").split()
    rows = result.ntuples if result.status == pq.ExecStatus.TUPLES_OK else None
    return rows, (int(tag[-1]) if tag and tag[0] in CHANGES else None)


CHANGES = (b"INSERT", b"UPDATE", b"DELETE", b"MERGE", b"COPY")


def types(runner, how, cursor=None, claims=True):
    """One value of each type that programs send, there and back."""
    run = runner.run
    moment = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)
    values = [
        ("int2", 7), ("int4", 70_000), ("int8", 2**62), ("int8", -1), ("float8", 1.5), ("float8", -2.25e-7),
        ("numeric", decimal.Decimal("12345678901234567890.123456789")), ("numeric", decimal.Decimal("-0.0010")),
        ("numeric", decimal.Decimal("NaN")), ("bool", True), ("bool", False), ("text", "it's \"quoted\" \\ ümlaut"), ("text", ""),
        ("bytea", b"\x00\x01\xff'\\"), ("uuid", uuid.UUID(int=0x1234567890ABCDEF)), ("date", datetime.date(2024, 2, 29)),
        ("time", datetime.time(1, 2, 3, 4)), ("timestamp", moment.replace(tzinfo=None)), ("timestamptz", moment),
        ("inet", ipaddress.ip_address("10.1.2.3")), ("inet", ipaddress.ip_address("2001:db8::1")),
        ("cidr", ipaddress.ip_network("10.1.0.0/16")), ("int4[]", [1, 2, 3]), ("text[]", ["a", "b c", None, '"', ""]),
        ("int4[]", [[1, 2], [3, 4]]), ("text", None), ("int4", None),
    ]
    for kind, value in values:
        for binary in (False, True)[: 1 if cursor else 2]:
            # The number of the type and the format are in the text, so that the journal's numbers differ.
            got = run(f"SELECT /**/ %{how}::{kind} AS v, {int(binary)}", (value,), cursor=fresh(runner, cursor), binary=binary, claims=claims)
            if value == value:
                expect(kind, got[0][0], value)
    for wrapped, kind in ((Json, "json"), (Jsonb, "jsonb")):
        value = {"a": 1, "b": [1, None, "x"]}
        marked = JOURNAL.mark(f"SELECT /**/ %{how}::{kind} AS v")
        used = fresh(runner, cursor)
        used.execute(marked, (wrapped(value),))
        expect(kind, used.fetchone()[0], value)
        JOURNAL.line(marked, runner.pid, rows=1, **({"params": [value]} if claims else {}))


def fresh(runner, factory):
    return factory(runner.connection) if factory else runner.connection.cursor()


def preparation(runner):
    """Prepared after five executions, at once, never, and taken back when the limit is reached."""
    runner.connection.prepare_threshold = 5
    runner.connection.prepared_max = 3
    for number in range(8):
        got = runner.run("SELECT /**/ %s::int4 + 1", (number,))
        expect("after five", got, [(number + 1,)])
    for number in range(3):
        runner.run("SELECT /**/ %s::int4 + 2", (number,), prepare=True)
        runner.run("SELECT /**/ %s::int4 + 3", (number,), prepare=False)
    for number in range(5):
        runner.run(f"SELECT /**/ %s::text || '{number}'", ("evicts",), prepare=True)
    runner.fails("22012", "SELECT /**/ 1 / %s::int4", (0,), prepare=True)
    runner.run("SELECT /**/ 1 / %s::int4", (1,), prepare=True)
    runner.fails("22P02", "SELECT /**/ %t::text::int4", ("no number",), prepare=True)
    runner.connection.prepared_max = 100


def changes(runner):
    """INSERT, UPDATE, DELETE, RETURNING, executemany with and without results."""
    run = runner.run
    run(f"CREATE TEMP TABLE {NAME}_t /**/ (id int8 PRIMARY KEY, name text, data bytea)")
    run(f"INSERT INTO {NAME}_t /**/ VALUES (%s, %s, %s)", (1, "one", b"\x01"))
    got = run(f"INSERT INTO {NAME}_t /**/ VALUES (%s, %s, NULL), (%s, %s, NULL) RETURNING id", (2, "two", 3, None))
    expect("returning", got, [(2,), (3,)])
    marked = JOURNAL.mark(f"INSERT INTO {NAME}_t /**/ (id, name) VALUES (%s, %s)")
    many = [(10 + number, f"many {number}") for number in range(20)]
    cursor = runner.connection.cursor()
    cursor.executemany(marked, many)
    expect("executemany", cursor.rowcount, 20)
    for row in many:
        JOURNAL.line(marked, runner.pid, affected=1, params=row)
    marked = JOURNAL.mark(f"UPDATE {NAME}_t /**/ SET name = upper(name) WHERE id >= %s RETURNING id")
    cursor = runner.connection.cursor()
    cursor.executemany(marked, [(28,), (100,), (2,)], returning=True)
    for bound, found in ((28, 2), (100, 0), (2, 22)):
        expect("executemany returning", len(cursor.fetchall()), found)
        JOURNAL.line(marked, runner.pid, rows=found, affected=found, params=[bound])
        cursor.nextset()
    expect("where", run(f"SELECT /**/ count(*) FROM {NAME}_t WHERE name LIKE %s", ("MANY %",)), [(20,)])
    run(f"UPDATE {NAME}_t /**/ SET name = NULL WHERE id = %s", (999,))
    run(f"DELETE FROM {NAME}_t /**/ WHERE id >= %(from)s AND id < %(to)s", {"from": 10, "to": 20}, claims=False)
    runner.fails("23505", f"INSERT INTO {NAME}_t /**/ (id) VALUES (%s)", (1,))
    run(f"CREATE TEMP TABLE {NAME}_u /**/ AS SELECT * FROM {NAME}_t")


def pipelines(runner):
    """Many statements under way at once; of those behind an error nothing is executed until the next Sync."""
    connection = runner.connection
    with connection.pipeline() as pipeline:
        jobs = []
        for number in range(15):
            marked = JOURNAL.mark("SELECT /**/ generate_series(1, %s::int4), 'piped'")
            jobs.append((marked, number, connection.execute(marked, (number,))))
        marked_insert = JOURNAL.mark(f"INSERT INTO {NAME}_t /**/ (id, name) VALUES (%s, 'piped')")
        inserted = connection.execute(marked_insert, (5000,))
        pipeline.sync()
        for marked, number, cursor in jobs:
            expect("piped rows", len(cursor.fetchall()), number)
            JOURNAL.line(marked, runner.pid, rows=number, params=[number])
        expect("piped insert", inserted.rowcount, 1)
        JOURNAL.line(marked_insert, runner.pid, affected=1, params=[5000])
    good = JOURNAL.mark("SELECT /**/ $1::int4, 'before the error'")
    bad = JOURNAL.mark("SELECT /**/ 1 / $1::int4, 'piped error'")
    skipped = JOURNAL.mark("SELECT /**/ $1::int4, 'skipped'")
    after = JOURNAL.mark("SELECT /**/ $1::int4, 'after the sync'")
    # With libpq's own functions, since the connection above them decides by itself when to read.
    libpq = connection.pgconn
    libpq.enter_pipeline_mode()
    queued = [(good, b"1"), (bad, b"0"), (skipped, b"1"), (skipped, b"2"), None, (after, b"2"), None]
    for query in queued:
        if query:
            libpq.send_query_params(query[0].encode(), [query[1]])
        else:
            libpq.pipeline_sync()
    statuses = []
    for query in queued:
        result = libpq.get_result()
        statuses.append(result.status)
        if query:
            expect("end of a result", libpq.get_result(), None)
    status = pq.ExecStatus
    wanted = [status.TUPLES_OK, status.FATAL_ERROR, status.PIPELINE_ABORTED, status.PIPELINE_ABORTED]
    expect("failed pipeline", statuses, [*wanted, status.PIPELINE_SYNC, status.TUPLES_OK, status.PIPELINE_SYNC])
    libpq.exit_pipeline_mode()
    JOURNAL.line(good, runner.pid, rows=1, params=[1])
    JOURNAL.line(bad, runner.pid, sqlstate="22012", params=[0])
    JOURNAL.line(after, runner.pid, rows=1, params=[2])


def copies(runner):
    """COPY in and out, as text, CSV and binary, from several writes, and one that the client gives up."""
    connection = runner.connection
    runner.run(f"CREATE TEMP TABLE {NAME}_c /**/ (id int4, name text)")
    cursor = connection.cursor()
    marked = JOURNAL.mark(f"COPY {NAME}_c /**/ FROM STDIN")
    lines = [f"{number}\trow {number}\n" for number in range(500)]
    with cursor.copy(marked) as copy:
        for line in lines:
            copy.write(line)
    JOURNAL.line(marked, runner.pid, affected=500, copy_bytes=len("".join(lines)))
    marked = JOURNAL.mark(f"COPY {NAME}_c /**/ FROM STDIN (FORMAT csv)")
    with cursor.copy(marked) as copy:
        copy.write('900,"a,b"\n901,"c"\n')
    JOURNAL.line(marked, runner.pid, affected=2, copy_bytes=18)
    marked = JOURNAL.mark(f"COPY {NAME}_c /**/ FROM STDIN (FORMAT binary)")
    with cursor.copy(marked) as copy:
        copy.set_types(["int4", "text"])
        for number in range(100):
            copy.write_row((1000 + number, "binär"))
    JOURNAL.line(marked, runner.pid, affected=100, copy_bytes=19 + 100 * (2 + 8 + 4 + 6) + 2)
    for options in ("", "(FORMAT csv)", "(FORMAT binary)"):
        marked = JOURNAL.mark(f"COPY (SELECT * FROM {NAME}_c ORDER BY id) /**/ TO STDOUT {options}")
        with cursor.copy(marked) as copy:
            received = sum(len(block) for block in copy)
        JOURNAL.line(marked, runner.pid, affected=602, copy_bytes=received)
    marked = JOURNAL.mark(f"COPY {NAME}_c /**/ FROM STDIN (FORMAT text, NULL 'gives up')")
    try:
        with cursor.copy(marked) as copy:
            copy.write("1\tx\n")
            raise KeyError("the client gives up")
    except (KeyError, psycopg.errors.QueryCanceled):
        pass  # which of the two it is depends on the version
    JOURNAL.line(marked, runner.pid, sqlstate="57014")
    marked = JOURNAL.mark(f"COPY {NAME}_c /**/ FROM STDIN (FORMAT text, NULL 'bad data')")
    try:
        with cursor.copy(marked) as copy:
            copy.write("no number\tx\n")
    except psycopg.errors.InvalidTextRepresentation:
        JOURNAL.line(marked, runner.pid, sqlstate="22P02")
    else:
        raise SystemExit("bad COPY data was taken")
    expect("copied", runner.run(f"SELECT /**/ count(*) FROM {NAME}_c"), [(602,)])


def cursors(runner):
    """Cursors on the server: the driver declares them, and fetches in parts with statements of its own."""
    connection = runner.connection
    with connection.transaction():
        for size, scrollable in ((7, False), (100, True)):
            with connection.cursor(f"{NAME}_cursor", scrollable=scrollable) as cursor:
                marked = JOURNAL.mark(f"SELECT /**/ n FROM generate_series(1, %s::int4) n WHERE {size} > 0")
                cursor.execute(marked, (60,))
                cursor.itersize = size
                got = cursor.fetchone() and 1
                got += len(cursor.fetchmany(10)) + sum(1 for _ in cursor)
                expect("rows of a cursor", got, 60)
                if scrollable:
                    cursor.scroll(0, "absolute")
                    got += len(cursor.fetchmany(5))
                JOURNAL.line(marked, runner.pid, rows=got)
    with connection.cursor(f"{NAME}_hold", withhold=True) as cursor:
        marked = JOURNAL.mark("SELECT /**/ n, repeat('x', 100) FROM generate_series(1, 40) n")
        cursor.execute(marked)
        expect("held", len(cursor.fetchall()), 40)
        JOURNAL.line(marked, runner.pid, rows=40)
    with connection.cursor() as cursor:
        marked = JOURNAL.mark("SELECT /**/ n FROM generate_series(1, %s::int4) n -- streamed")
        expect("streamed", sum(1 for _ in cursor.stream(marked, (50,))), 50)
        JOURNAL.line(marked, runner.pid, rows=50, params=[50])
    with connection.transaction():
        runner.run(f"DECLARE {NAME}_own SCROLL CURSOR /**/ FOR SELECT generate_series(1, 30)")
        expect("fetch", len(runner.run(f"FETCH 12 /**/ FROM {NAME}_own")), 12)
        expect("fetch", len(runner.run(f"FETCH ALL /**/ FROM {NAME}_own")), 18)
        runner.run(f"MOVE ABSOLUTE 5 /**/ FROM {NAME}_own")
        runner.run(f"CLOSE /**/ {NAME}_own")


def transactions(runner):
    """BEGIN and COMMIT by the driver; savepoints, errors of every stage, a failed transaction."""
    connection = runner.connection
    with connection.transaction():
        runner.run(f"INSERT INTO {NAME}_t /**/ (id) VALUES (%s)", (6000,))
        try:
            with connection.transaction():
                runner.run(f"INSERT INTO {NAME}_t /**/ (id) VALUES (%s)", (6001,))
                runner.fails("42P01", "SELECT /**/ * FROM no_such_table WHERE id = %s", (1,))
                runner.fails("25P02", "SELECT /**/ 'in a failed transaction', %s::int4", (1,))
                raise psycopg.Rollback()
        except psycopg.Rollback:
            pass
    expect("savepoint", runner.run(f"SELECT /**/ id FROM {NAME}_t WHERE id IN (%s, %s)", (6000, 6001)), [(6000,)])
    connection.autocommit = False
    runner.run(f"DELETE FROM {NAME}_t /**/ WHERE id = %s", (6000,))
    connection.rollback()
    runner.fails("42601", "SELECT /**/ FROM WHERE")
    connection.rollback()
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    runner.run("SELECT /**/ current_setting('transaction_isolation')")
    connection.commit()
    connection.isolation_level = None
    connection.autocommit = True
    runner.run("SET /**/ application_name TO 'psycopg program'")
    runner.run("LISTEN /**/ psycopg_channel")
    runner.run("NOTIFY /**/ psycopg_channel, 'payload'")
    if psycopg.__version__ >= "3.2":  # before it there is no limit to the waiting
        got = [notice.payload for notice in connection.notifies(timeout=1, stop_after=1)]
        expect("notified", got, ["payload"])
    runner.run("UNLISTEN /**/ *")


def strings(runner):
    """Strings of several statements, empty ones, and one that fails in its middle."""
    runner.run("SELECT /**/ 1 AS a; SELECT /**/ 2 AS b UNION ALL SELECT 3; ; SET /**/ work_mem TO '5MB'", claims=False)
    cursor = runner.connection.cursor()
    for empty in ("", "  ", ";;", "-- nothing but a comment"):
        cursor.execute(empty)
    marked = JOURNAL.mark("SELECT /**/ 1; SELECT /**/ 1 / 0; SELECT /**/ 'never'")
    first, second, _ = parts(marked)
    try:
        cursor.execute(marked)
    except psycopg.errors.DivisionByZero:
        # libpq hands on no more than the error: what the first statement gave is not known to the program.
        JOURNAL.line(first, runner.pid)
        JOURNAL.line(second, runner.pid, sqlstate="22012")
    cursor = psycopg.ClientCursor(runner.connection)
    runner.run("SELECT /**/ %s; SELECT /**/ %s::bytea", ("it's", b"\x00\\"), cursor=cursor, claims=False)


def kinds(runner):
    """Statements whose answers have a form of their own."""
    run = runner.run
    expect("no columns", run("SELECT /**/ FROM generate_series(1, 3)"), None)
    expect("no rows", run("SELECT /**/ 1 WHERE false"), [])
    expect("values", run("VALUES /**/ (1), (2), (%s)", (3,)), [(1,), (2,), (3,)])
    expect("table", len(run(f"TABLE /**/ {NAME}_u")) > 0, True)
    expect("show", len(run("SHOW /**/ server_version")), 1)
    expect("explain", len(run("EXPLAIN (COSTS OFF) SELECT /**/ %s::int4", (1,), claims=False)) > 0, True)
    run("DO /**/ $$ BEGIN RAISE NOTICE 'a notice'; PERFORM 1; END $$")
    run(f"CREATE PROCEDURE pg_temp.{NAME}_p(INOUT n int4) LANGUAGE sql AS /**/ 'SELECT n + 1'")
    expect("call", run(f"CALL /**/ pg_temp.{NAME}_p(%s)", (41,)), [(42,)])
    run(f"PREPARE {NAME}_sql /**/ AS SELECT $1::int4 * 2")
    expect("execute", run(f"EXECUTE {NAME}_sql(21) /**/"), [(42,)])
    run(f"DEALLOCATE /**/ {NAME}_sql")
    run(f"WITH gone AS (DELETE FROM {NAME}_u RETURNING *) SELECT /**/ count(*) FROM gone")
    run(f"SELECT /**/ id INTO TEMP {NAME}_i FROM {NAME}_t WHERE id < %s", (3,), cursor=psycopg.ClientCursor(runner.connection), claims=False)
    if runner.connection.info.server_version >= 150000:
        source = "USING generate_series(1, 4) AS s(id) ON t.id = s.id"
        run(f"MERGE INTO {NAME}_i AS t /**/ {source} WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.id)")
    run(f"TRUNCATE /**/ {NAME}_i")
    run("SET /**/ statement_timeout TO 30")
    runner.fails("57014", "SELECT /**/ pg_sleep(5), 'times out'")
    run("RESET /**/ statement_timeout")
    # Cancelled by a connection of its own, while it runs.
    timer = threading.Timer(0.3, runner.connection.cancel)
    timer.start()
    runner.fails("57014", "SELECT /**/ pg_sleep(8), 'cancelled', %s::int4", (1,))
    timer.join()


def big(runner):
    """Values of 3 MB: as a parameter, inside the text, and in the answer."""
    value = "abc'def " * (3 * 1024 * 1024 // 8)
    expect("big parameter", runner.run("SELECT /**/ length(%s::text)", (value,)), [(len(value),)])
    expect("big answer", len(runner.run("SELECT /**/ repeat('z', 3000000)")[0][0]), 3_000_000)
    expect("big bytea", runner.run("SELECT /**/ length(%b::bytea)", (bytes(range(256)) * 4096,)), [(1 << 20,)])
    cursor = psycopg.ClientCursor(runner.connection)
    got = runner.run("SELECT /**/ length(%s)", (value,), cursor=cursor, claims=False)
    expect("big text", got, [(len(value),)])
    expect("many rows", len(runner.run("SELECT /**/ n, n::text FROM generate_series(1, 5000) n")), 5000)


def session(runner):
    """One round."""
    runner.run("SET /**/ TIME ZONE 'UTC'")
    types(runner, "s")
    types(runner, "t")
    types(runner, "b")
    types(runner, "s", psycopg.ClientCursor, claims=False)
    preparation(runner)
    changes(runner)
    pipelines(runner)
    copies(runner)
    cursors(runner)
    transactions(runner)
    strings(runner)
    kinds(runner)
    big(runner)
    for table in "tuci":
        runner.run(f"DROP TABLE /**/ {NAME}_{table}")


def main():
    for _ in range(JOURNAL.rounds):
        with psycopg.connect(autocommit=True) as connection:
            session(Runner(connection))


main()
