-- What psql can say. Tokens: @r @a @s stand for the marker of a statement whose rows, rows affected or only SQLSTATE
-- psql itself tells afterwards; @r=N, @a=N claim a number, for statements inside a string; @m marks a statement that
-- the script makes no claim about but its being run.
SELECT 1 @r;
SELECT g, 'it''s; "x"', $q$ dollar; quoted $q$ FROM generate_series(1, 7) g @r;
SELECT 1 @r AS "semi;colon" /* a comment; with /* nesting; */ inside */;
CREATE TABLE wire_t (id serial PRIMARY KEY, v text, n numeric, d date, CHECK (n IS NULL OR n < 1000)) @s;
INSERT INTO wire_t (v, n) VALUES ('a', 1), ('b', 2.5), (NULL, NULL) @a;
INSERT INTO wire_t (v, n) SELECT 'x' || g, g FROM generate_series(1, 50) g RETURNING id @r;
UPDATE wire_t SET v = v || '!' WHERE id <= 10 @a;
DELETE FROM wire_t WHERE id BETWEEN 20 AND 24 @a;
TABLE wire_t @r;
VALUES (1, 'one'), (2, 'two') @r;
WITH gone AS (DELETE FROM wire_t WHERE id > 50 RETURNING *) SELECT count(*) FROM gone @r;
EXPLAIN SELECT * FROM wire_t @s;
SHOW server_version @r=1;
ANALYZE wire_t @s;
VACUUM wire_t @s;
-- errors of every phase
SELEC @s;
SELECT * FROM nowhere @s;
SELECT 1/0 @s;
SELECT 'abc'::int @s;
INSERT INTO wire_t (n) VALUES (5000) @s;
INSERT INTO wire_t (id) VALUES (1) @s;
SELECT lo_get(4294967295::oid) @s;
COPY wire_t FROM '/nonexistent/file' @s;
-- strings of several statements
SELECT 1 @r=1 \; SELECT 2 UNION SELECT 3 @r=2 \; SELECT 4 WHERE false @r=0;
BEGIN @m \; INSERT INTO wire_t (v) VALUES ('s1'), ('s2') @a=2 \; UPDATE wire_t SET d = '2026-01-01' WHERE v LIKE 's_' @a=2 \; COMMIT @m;
SELECT 'before' @r=1 \; SELECT 1/0 @e=22012 \; SELECT 'never';
SELECT 'a;b' \; \; \; SELECT 'c' ;
BEGIN \; SELECT 'in' \; SELEC;
ROLLBACK @s;
INSERT INTO wire_t (v) VALUES ('implicit') @a=1 \; SELECT 1 @r=1 \; SELECT * FROM nowhere @e=42P01;
SELECT count(*) FROM wire_t WHERE v = 'implicit' @r;
-- nothing at all
;
/* only a comment */;
-- transactions and savepoints
BEGIN @s;
INSERT INTO wire_t (v) VALUES ('tx') @a;
SAVEPOINT one @s;
SELECT 1/0 @s;
SELECT 'refused in the failed transaction' @s;
ROLLBACK TO SAVEPOINT one @s;
RELEASE SAVEPOINT one @s;
COMMIT @s;
START TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE @s;
SELECT count(*) FROM wire_t @r;
INSERT INTO wire_t (v) VALUES ('read only') @s;
COMMIT AND CHAIN @s;
ROLLBACK @s;
COMMIT @s;
BEGIN @s;
SELECT 1 @r;
PREPARE TRANSACTION 'wire_two_phase' @s;
ROLLBACK PREPARED 'wire_two_phase' @s;
-- a constraint that fails at COMMIT
CREATE TABLE wire_d (id int UNIQUE DEFERRABLE INITIALLY DEFERRED) @s;
BEGIN @s;
INSERT INTO wire_d VALUES (1), (1) @a;
COMMIT @s;
INSERT INTO wire_d VALUES (2), (2) @s;
-- SQL-level prepared statements and cursors
PREPARE wire_p (int, text) AS SELECT id, v FROM wire_t WHERE id < $1 AND v <> $2 @s;
EXECUTE wire_p (5, 'zz') @r;
EXECUTE wire_p (0, NULL) @r;
EXECUTE wire_p ('x', 'y') @s;
EXECUTE wire_unknown @s;
PREPARE wire_p AS SELECT 1 @s;
PREPARE wire_i (text) AS INSERT INTO wire_t (v) VALUES ($1) @s;
EXECUTE wire_i ('by execute') @a;
DEALLOCATE wire_p @s;
DEALLOCATE ALL @s;
BEGIN @s;
DECLARE wire_c SCROLL CURSOR FOR SELECT id FROM wire_t ORDER BY id @m;
FETCH 3 FROM wire_c @r;
FETCH BACKWARD 2 FROM wire_c @r;
MOVE 5 IN wire_c @s;
FETCH ALL FROM wire_c @r;
FETCH NEXT FROM wire_c @r;
CLOSE wire_c @s;
FETCH 1 FROM wire_c @s;
ROLLBACK @s;
BEGIN @s;
DECLARE wire_h CURSOR WITH HOLD FOR VALUES (1), (2), (3) @m;
COMMIT @s;
FETCH 2 FROM wire_h @r;
CLOSE ALL @s;
-- psql's own ways
SELECT 1 AS a, 'x'::text AS b \gdesc
SELECT nothing FROM nowhere \gdesc
SELECT 42 AS answer @r \gset
SELECT :answer + 1 @r;
SELECT 'SELECT ' || g || ' AS made' FROM generate_series(1, 3) g \gexec
SELECT 1 AS one, 'a' AS two, 3 AS three \crosstabview
\d wire_t
\dt
\df wire_*
\du
\l
\sf pg_catalog.now
\set FETCH_COUNT 10
SELECT g FROM generate_series(1, 35) g @r=35;
SELECT 1/(g - 15) FROM generate_series(1, 35) g;
\unset FETCH_COUNT
\set ON_ERROR_ROLLBACK on
BEGIN @s;
SELECT 1/0 @s;
SELECT 'still alive' @r;
COMMIT @s;
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT off
SELECT 'implicit begin' @r;
ROLLBACK @s;
\set AUTOCOMMIT on
-- COPY
CREATE TEMP TABLE wire_copy (a int, b text) @s;
COPY wire_copy FROM STDIN @a;
1	one
2	two \\ three
3	\N
\.
COPY wire_copy FROM STDIN (FORMAT csv) @e=22P02;
4,"quoted, comma"
not a number,x
\.
COPY wire_copy TO STDOUT @a=3;
COPY (SELECT g, repeat('x', 100) FROM generate_series(1, 500) g) TO STDOUT @a=500;
COPY (SELECT 1/(g - 200) FROM generate_series(1, 300) g) TO STDOUT @e=22012;
COPY wire_copy TO STDOUT (FORMAT csv, HEADER) @a=3;
\copy wire_copy to '/dev/null'
\copy (select * from wire_copy) to '/dev/null' csv
\copy wire_copy (a) from program 'seq 1 2000'
SELECT 'first' @r=1 \; COPY wire_copy TO STDOUT @m \; SELECT 'last' @r=1;
SELECT count(*) FROM wire_copy @r;
-- large objects: function calls by oid
\lo_import /etc/hostname 'a comment; with a semicolon'
\lo_export :LASTOID /dev/null
\lo_unlink :LASTOID
\lo_export 4294967290 /dev/null
-- notifications
LISTEN wire_channel @s;
NOTIFY wire_channel, 'a payload' @s;
SELECT pg_notify('wire_channel', 'x' || g) FROM generate_series(1, 3) g @r;
UNLISTEN * @s;
-- what runs inside
DO $$ BEGIN FOR i IN 1..3 LOOP PERFORM i; RAISE NOTICE 'notice %', i; END LOOP; END $$ @s;
DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'ZZ001'; END $$ @s;
CREATE FUNCTION wire_f(i int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT i; SELECT i + 1; END @s;
SELECT wire_f(1) @r;
CREATE PROCEDURE wire_pr() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO wire_t (v) VALUES ('p'); COMMIT; PERFORM 1; END $$ @s;
CALL wire_pr() @s;
CREATE RULE wire_r AS ON INSERT TO wire_d DO ALSO (SELECT 1; SELECT 2) @s;
INSERT INTO wire_d VALUES (77);
DROP RULE wire_r ON wire_d @s;
CREATE RULE wire_n AS ON INSERT TO wire_d DO INSTEAD NOTHING @s;
INSERT INTO wire_d VALUES (78) @s;
-- secrets
CREATE ROLE wire_secret LOGIN PASSWORD 'geheim''s' @s;
ALTER ROLE wire_secret PASSWORD NULL @s;
ALTER ROLE wire_secret ENCRYPTED PASSWORD 'noch geheimer' @s;
DROP ROLE wire_secret @s;
-- settings
SET search_path = pg_catalog, public @s;
SET LOCAL work_mem = '1MB' @s;
SET DateStyle = 'German' @s;
SELECT date '2026-11-21' @r;
RESET ALL @s;
SET standard_conforming_strings = off @s;
SELECT 'it\'s; one' @r;
SET standard_conforming_strings = on @s;
SELECT E'it\'s; one', U&'\0441', B'101', X'1F', 'two'
 'parts' @r;
SET statement_timeout = '50ms' @s;
SELECT pg_sleep(10) @s;
RESET statement_timeout @s;
SELECT 'ä€😀' AS "ünicode" @r;
SET ROLE pg_monitor @s;
RESET ROLE @s;
DISCARD ALL @s;
DROP FUNCTION wire_f @s;
DROP PROCEDURE wire_pr @s;
DROP TABLE wire_t, wire_d @s;
