"""Reads a store's Parquet files with DuckDB and pandas as they are; prints what each counted.

usage: files.py DATA
"""

import json
import sys
from pathlib import Path

import duckdb
import pandas

FILES = Path(sys.argv[1]) / "store" / "events"


def with_duckdb():
    rows = duckdb.sql(
        f"SELECT kind, count(*) AS events, coalesce(sum(executions), 0) AS statements, min(ts_start) > TIMESTAMP '2020-01-01' AS sane "
        f"FROM read_parquet('{FILES}/**/*.parquet', hive_partitioning = true) GROUP BY kind ORDER BY kind"
    ).fetchall()
    return [[kind, events, int(statements), sane] for kind, events, statements, sane in rows]


def with_pandas():
    events = pandas.concat(pandas.read_parquet(file) for file in sorted(FILES.rglob("*.parquet")))
    kinds = events.groupby("kind", observed=True)
    since = pandas.Timestamp("2020-01-01", tz="UTC")
    return [
        [kind, len(rows), int(rows["executions"].fillna(0).sum()), bool(rows["ts_start"].min() > since)]
        for kind, rows in sorted(kinds)
    ]


print(json.dumps({"duckdb": with_duckdb(), "pandas": with_pandas()}))
