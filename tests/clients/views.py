"""Asks the views with drivers as they are, each in its own way of sending parameters and taking values; prints what they found.

usage: views.py PORT
"""

import asyncio
import json
import sys

import asyncpg
import pg8000.dbapi
import psycopg

PORT = int(sys.argv[1])
SQL = "SELECT principal, sum(executions) AS statements, min(ts_start) AS since FROM queries WHERE login_role = {} GROUP BY 1 ORDER BY 1"
ROLE = "app_user"


def shown(rows):
    """Rows as any driver gives them, in one form."""
    return [[principal, int(statements), since.timestamp() > 0] for principal, statements, since in rows]


def with_psycopg(binary):
    with psycopg.connect(host="127.0.0.1", port=PORT, user="anyone", dbname="pgwitness", sslmode="disable") as connection:
        with connection.cursor(binary=binary) as cursor:
            cursor.execute(SQL.format("%s"), [ROLE])
            rows = cursor.fetchall()
            # A list, a null and JSON text.
            cursor.execute("SELECT objects, sqlstate, event FROM queries WHERE login_role = %s LIMIT 1", [ROLE])
            objects, _, event = cursor.fetchone()
            assert isinstance(objects, list), objects
            assert json.loads(event)["session"]["login_role"] == ROLE, event
    return shown(rows)


def with_pg8000():
    connection = pg8000.dbapi.connect(user="anyone", host="127.0.0.1", port=PORT, database="pgwitness")
    cursor = connection.cursor()
    cursor.execute(SQL.format("%s"), (ROLE,))
    rows = cursor.fetchall()
    connection.close()
    return shown(rows)


async def with_asyncpg():
    connection = await asyncpg.connect(host="127.0.0.1", port=PORT, user="anyone", database="pgwitness", ssl=False)
    rows = [tuple(row) for row in await connection.fetch(SQL.format("$1"), ROLE)]
    # Prepared once, run again.
    prepared = await connection.prepare("SELECT count(*) FROM queries WHERE login_role = $1")
    assert await prepared.fetchval(ROLE) == await prepared.fetchval(ROLE)
    await connection.close()
    return shown(rows)


print(
    json.dumps(
        {
            "psycopg": with_psycopg(binary=False),
            "psycopg_binary": with_psycopg(binary=True),
            "pg8000": with_pg8000(),
            "asyncpg": asyncio.run(with_asyncpg()),
        }
    )
)
