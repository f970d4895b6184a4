import psycopg
c = psycopg.connect("application_name=pipeline sslmode=disable")
c.prepare_threshold = 2
cur = c.cursor()
cur.execute("create temp table p (id int primary key, name text, at timestamptz default now(), amount numeric, raw bytea)")
c.commit()
for i in range(20):
    cur.execute("insert into p (id, name, amount, raw) values (%s, %s, %s, %s)", (i, "name %d" % i, i / 4, b"\x00\x01" * i))
c.commit()
with c.pipeline() as p:
    for i in range(20):
        cur.execute("select name, amount from p where id = %s", (i,))
    p.sync()
    for i in range(20, 40):
        cur.execute("insert into p (id, name) values (%s, %s)", (i, None))
    p.sync()
c.commit()
try:
    with c.pipeline() as p:
        cur.execute("select 1")
        cur.execute("insert into p (id) values (1)")
        cur.execute("select 2 as skipped")
        p.sync()
except psycopg.Error as e: print(type(e).__name__)
c.rollback()
with c.pipeline() as p:
    cur.executemany("update p set name = %s where id = %s", [("again %d" % i, i) for i in range(10)])
c.commit()
with c.cursor(name="server_side") as s:
    s.itersize = 7
    s.execute("select id, name from p where id < %s order by id", (30,))
    n = len(list(s)); print(n)
c.commit()
b = c.cursor(binary=True)
b.execute("select id, at, amount, raw from p where id = %b or id = %b", (3, 4)); b.fetchall()
with cur.copy("copy p (id, name) from stdin") as cp:
    for i in range(100, 400): cp.write_row((i, "copied %d" % i))
with cur.copy("copy (select id, name from p) to stdout") as cp:
    for row in cp.rows(): pass
c.commit()
for row in cur.stream("select g, 'row' from generate_series(1, %s) g", (200,)): pass
c.commit()
for stmt in ["select * from nowhere", "select 1/0", "selec 1"]:
    try: cur.execute(stmt, ())
    except psycopg.Error as e: print(e.sqlstate)
    c.rollback()
with c.transaction():
    with c.transaction(): cur.execute("select 'nested' as t")
c.commit(); c.close()
