"""A small order service: psycopg 3 over one pooled-for-life connection, as many services run.

usage: orders_api.py PROGRAM SECONDS PAUSE ROUNDS   (connection settings come from the PG* environment)
"""
import os
import sys
import time

import psycopg

program, seconds, pause, rounds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
tag = f"/* program={program} */"
end = time.monotonic() + seconds
done = 0
with psycopg.connect(autocommit=True) as connection:
    if os.environ.get("POOLED"):
        # A pooler in transaction mode: nothing may stay behind in a connection.
        connection.prepare_threshold = None
    while time.monotonic() < end and done < rounds:
        # Each of them once, and number 42 soon.
        customer = 1 + 41 * done % 1000
        connection.execute(f"SELECT id, email FROM customers {tag} WHERE id = %s", (customer,)).fetchall()
        connection.execute(f"SELECT id, amount FROM orders {tag} WHERE id <= %s ORDER BY id", (done % 40,)).fetchall()
        with connection.transaction():
            connection.execute(f"INSERT INTO orders {tag} (customer, amount) VALUES (%s, %s)", (customer, done % 90))
            connection.execute(f"UPDATE customers {tag} SET region = 'north' WHERE id = %s", (customer,))
        if done % 25 == 24:
            try:
                connection.execute(f"SELECT {tag} amount / (amount - amount) FROM orders WHERE id = %s", (1,))
            except psycopg.errors.DivisionByZero:
                pass
            try:
                connection.execute(f"SELECT {tag} id FROM no_such_table WHERE id = %s", (1,))
            except psycopg.errors.UndefinedTable:
                pass
        done += 1
        time.sleep(pause)
