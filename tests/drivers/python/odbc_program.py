"""psqlODBC through pyodbc: values written into the text, statements prepared on the server, cursors fetched in parts."""
import os

from journal import Journal, cannot_run, expect, parts

try:
    import pyodbc
except ImportError as missing:
    cannot_run(missing)

NAME = "odbc"
JOURNAL = Journal(NAME)


class Session:
    """Marked statements on one connection."""

    def __init__(self, connection, bound, fetched):
        self.connection = connection
        self.bound = bound
        self.fetched = fetched
        self.pid = int(connection.execute("SELECT pg_backend_pid()").fetchone()[0])

    def claim(self, marked, values):
        """What is claimed of values: nothing where the driver writes them into the text, as for all its cursors."""
        written = not self.bound or (self.fetched and marked.startswith("SELECT"))
        return {"params": list(values)} if values and not written else {}

    def run(self, text, *values):
        marked = JOURNAL.mark(text)
        cursor = self.connection.cursor()
        cursor.execute(marked, *values)
        rows = len(cursor.fetchall()) if cursor.description else None
        affected = cursor.rowcount if text.split()[0] in ("INSERT", "UPDATE", "DELETE") and rows is None else None
        JOURNAL.line(marked, self.pid, rows=rows, affected=affected, **self.claim(marked, values))
        cursor.close()
        return rows if affected is None else affected

    def fails(self, sqlstate, text, *values):
        marked = JOURNAL.mark(text)
        try:
            self.connection.cursor().execute(marked, *values)
        except pyodbc.Error as error:
            # The driver manager translates some of the server's codes; the program knows which ones it provoked.
            expect(text, "did not fail" in str(error), False)
            JOURNAL.line(marked, self.pid, sqlstate=sqlstate)
            return
        raise SystemExit(f"{text} did not fail")

    def round(self):
        run = self.run
        run("SET /**/ TIME ZONE 'UTC'")
        run("CREATE TEMP TABLE odbc_t /**/ (id int8, name text, data bytea)")
        expect("insert", run("INSERT INTO odbc_t /**/ (id, name) VALUES (?, ?)", 1, "it's \"one\" ümlaut"), 1)
        run("INSERT INTO odbc_t /**/ (id, name) VALUES (?, ?)", 2, None)
        run("INSERT INTO odbc_t /**/ (id, name) SELECT generate_series(10, 19), 'many'")
        expect("update", run("UPDATE odbc_t /**/ SET name = ? WHERE id > ?", "big", 5), 10)
        run("DELETE FROM odbc_t /**/ WHERE id = ?", -1)
        run("UPDATE odbc_t /**/ SET data = ? WHERE id = ?", b"\x00\x01\xff", 1)
        for number in range(6):
            expect("rows", run("SELECT /**/ g FROM generate_series(1, ?) g", number), number)
        run("SELECT /**/ CAST(? AS text), CAST(? AS float8)", "text", 1.5)
        for number in (25, 60):
            run(f"SELECT /**/ g, repeat('x', 50) FROM generate_series(1, {number}) g")
        self.many()
        self.transactions()
        self.fails("22012", "SELECT /**/ 1 / 0")
        self.fails("42P01", "SELECT /**/ * FROM no_such_table")
        self.fails("42601", "SELECT /**/ FROM WHERE")
        if not self.fetched:
            self.strings()
        run("SELECT /**/ length(CAST(? AS text))", "abc'def " * (1024 * 1024 // 8))
        run("SELECT /**/ length(repeat('z', 3000000))")
        run("DROP TABLE /**/ odbc_t")

    def many(self):
        marked = JOURNAL.mark("INSERT INTO odbc_t /**/ (id, name) VALUES (?, ?)")
        rows = [(100 + number, f"many {number}") for number in range(5)]
        self.connection.cursor().executemany(marked, rows)
        for row in rows:
            JOURNAL.line(marked, self.pid, affected=1, **self.claim(marked, row))
        expect("many", self.run("SELECT /**/ id FROM odbc_t WHERE id >= 100"), 5)

    def transactions(self):
        self.connection.autocommit = False
        self.run("INSERT INTO odbc_t /**/ (id) VALUES (?)", 77)
        self.connection.rollback()
        self.connection.autocommit = True
        expect("rolled back", self.run("SELECT /**/ id FROM odbc_t WHERE id = ?", 77), 0)

    def strings(self):
        marked = JOURNAL.mark("SELECT /**/ 1; SELECT /**/ 2 UNION SELECT 3; UPDATE odbc_t /**/ SET name = name WHERE id = 1")
        cursor = self.connection.cursor()
        cursor.execute(marked)
        first, second, third = parts(marked)
        JOURNAL.line(first, self.pid, rows=len(cursor.fetchall()))
        cursor.nextset()
        JOURNAL.line(second, self.pid, rows=len(cursor.fetchall()))
        cursor.nextset()
        JOURNAL.line(third, self.pid, affected=cursor.rowcount)


def main():
    place = {"SERVER": "PGHOST", "PORT": "PGPORT", "UID": "PGUSER", "PWD": "PGPASSWORD", "DATABASE": "PGDATABASE"}
    settings = ";".join(f"{key}={os.environ[name]}" for key, name in place.items())
    for _ in range(JOURNAL.rounds):
        for prepare, fetch in ((1, 0), (0, 0), (1, 1), (0, 1)):
            how = f"DRIVER=PostgreSQL Unicode;SSLmode={os.environ['PGSSLMODE']};UseServerSidePrepare={prepare};UseDeclareFetch={fetch};Fetch=20"
            connection = pyodbc.connect(f"{how};{settings}", autocommit=True)
            Session(connection, bool(prepare), bool(fetch)).round()
            connection.close()


main()
