-- Makes values.tsv: what a PostgreSQL server says of values, in binary (the type's send function) and in text (its
-- output function). Against an empty database of a server with default settings, PostgreSQL 15 or newer:
--
--   psql -X -q -f crates/pg-wire/tests/values.sql > crates/pg-wire/tests/values.tsv
--
-- Columns, as COPY writes them: oid of the type, bytes in hexadecimal, text, and how the value was made.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET IntervalStyle = 'postgres';
SET bytea_output = 'hex';
SET extra_float_digits = 1;

CREATE TEMP TABLE value (ordinal serial, type_oid oid, bytes text, printed text, made text);

-- `as_text`: what is printed where the output function asks the catalog.
CREATE FUNCTION pg_temp.say(type_name regtype, made text, as_text text DEFAULT 'format(''%s'', v)') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('INSERT INTO value (type_oid, bytes, printed, made) SELECT %s, encode(%s(v), ''hex''), %s, %L FROM (SELECT %s AS v) AS s',
    type_name::oid, (SELECT typsend FROM pg_type WHERE oid = type_name), as_text, made, made);
END $$;

-- Each literal of a list, cast to the type.
CREATE FUNCTION pg_temp.list(type_name regtype, VARIADIC literals text[]) RETURNS void
LANGUAGE sql AS $$
  SELECT pg_temp.say(type_name, format('%L::%s', l, type_name)) FROM unnest(literals) WITH ORDINALITY AS u(l, n) ORDER BY n
$$;

\o /dev/null
SELECT pg_temp.list('bool', 't', 'f');
SELECT pg_temp.list('"char"', 'a', '', '~', '\', ' ');
SELECT pg_temp.list('int2', '0', '-1', '42', '32767', '-32768');
SELECT pg_temp.list('int4', '0', '-1', '42', '2147483647', '-2147483648');
SELECT pg_temp.list('int8', '0', '-1', '42', '9223372036854775807', '-9223372036854775808');
SELECT pg_temp.list('oid', '0', '1', '4294967295');
SELECT pg_temp.list('xid', '0', '3', '4294967295');
SELECT pg_temp.list('cid', '0', '4294967295');
SELECT pg_temp.list('xid8', '0', '18446744073709551615');
SELECT pg_temp.say(t::regtype, format('%L::%s', l, t), 'v::oid::text') FROM (VALUES
  ('regclass', 'pg_class'), ('regclass', '-'), ('regtype', 'int4'), ('regproc', 'pg_sleep'), ('regprocedure', 'lower(text)'),
  ('regoper', '||/'), ('regoperator', '+(int4,int4)'), ('regconfig', 'simple'), ('regdictionary', 'simple'),
  ('regnamespace', 'pg_catalog'), ('regcollation', '"C"')) AS u(t, l);

SELECT pg_temp.list('float4', '0', '-0', '1', '-1', '0.1', '1.5', '100', '123456', '999999', '1000000', '1234567', '16777216', '16777217',
  '0.0001', '0.00012345', '0.00001', '1e10', '1e20', '1e-5', '3.4028235e38', '1.17549435e-38', '1e-45', '1.1e-44', 'NaN', 'Infinity', '-Infinity',
  '8.5899346e9', '3.3554432e7', '2e38', '0.3', '0.7', '33554436', '5.0000003', '9.8e9', '12345.678', '-7.0385307e-26', '2097152.5', '8388607.5');
SELECT pg_temp.list('float8', '0', '-0', '1', '-1', '0.1', '1.5', '100', '123456789012345', '999999999999999', '1e15', '1234567890123456', '9007199254740991',
  '9007199254740993', '0.0001', '0.00012345', '0.00001', '1e10', '1e20', '1e22', '1e23', '-1e23', '1e-5', '1.7976931348623157e308', '2.2250738585072014e-308',
  '5e-324', '1e-323', 'NaN', 'Infinity', '-Infinity', '0.3', '2.5', '123.456', '-1.5e-7', '4.35', '0.30000000000000004', '9.5367431640625e-07', '144115188075855870',
  '5764607523034235e3', '1152921504606846976', '1e100', '8.41e21', '2.0919495182368195e19', '9409340012568248e18', '5e22', '4.5035996273704975e15');
SELECT pg_temp.say('float8', format('power(2::float8, %s)', n)) FROM generate_series(-1060, 1020, 40) AS n;
SELECT pg_temp.say('float8', format('power(2::float8, %s)', n)) FROM unnest('{-25,-1017,-1007,-957,-921,-808,-792}'::int[]) AS n;
SELECT pg_temp.list('float4', '0.00024414062', '2097125.25', '2097125.75');
SELECT pg_temp.say('float4', format('power(2::float8, %s)::float4', n)) FROM generate_series(-148, 127, 11) AS n;
SELECT pg_temp.say('float8', format('1e%s::float8', n)) FROM generate_series(-30, 40, 5) AS n;

SELECT pg_temp.list('numeric', '0', '0.0', '0.00', '-0', '1', '-1', '42', '10000', '9999', '99990000', '100000000', '0.1', '0.0001', '0.00001', '-0.00000000001', '1.10', '123456789.987654321',
  '12345678901234567890123456789012345678901234567890', '-12345.6789', '1e30', '1e-30', '1.000000', '1000.0001', '10000.00010', '0.9999', '0.99990', '5e4', '0.00010000', 'NaN', 'Infinity', '-Infinity', '1.5e3',
  '00100.500', '70000000000000000000000000000000000.00000000000000000000000000001');
SELECT pg_temp.say('numeric', made) FROM unnest('{1e1000::numeric,1::numeric/3,(-2)::numeric/7,"round(12345.6789, 2)","round(12345.6789, -2)",2::numeric^100,sqrt(2::numeric),1::numeric(10\,4),-0.5::numeric(3\,0)}'::text[]) AS made;

SELECT pg_temp.list('text', '', 'a', 'für', '日本語', E'a\tb\nc\\d"e', '🦀', 'NULL');
SELECT pg_temp.list('varchar', 'abc', '');
SELECT pg_temp.say('bpchar', '''ab''::char(5)');
SELECT pg_temp.list('name', 'relname', 'Größe');
SELECT pg_temp.list('json', '{"a" : [1, 2]}', 'null');
SELECT pg_temp.list('jsonb', '{"a" : [1, 2], "b": "ü"}', 'null', '[]');
SELECT pg_temp.list('jsonpath', '$.a[*] ? (@ > 1)');
SELECT pg_temp.list('xml', '<a b="c">d</a>');
SELECT pg_temp.list('bytea', '', '\x00', '\xdeadbeef', 'abc');
SELECT pg_temp.list('uuid', '00000000-0000-0000-0000-000000000000', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11');
SELECT pg_temp.list('bit', '1', '0');
SELECT pg_temp.say('bit', made) FROM unnest('{B''10101'',B'''',B''11111111'',B''111111110'',''1''::bit(20)}'::text[]) AS made;
SELECT pg_temp.list('varbit', '', '1', '10101010', '101010101', '0000000000000001');
SELECT pg_temp.list('pg_lsn', '0/0', '16/B374D848', 'FFFFFFFF/FFFFFFFF', '1/A');
SELECT pg_temp.list('tid', '(0,0)', '(4294967295,65535)', '(12,3)');
SELECT pg_temp.list('pg_snapshot', '10:20:10,14,15', '10:10:');
SELECT pg_temp.list('txid_snapshot', '10:20:10,14,15');

SELECT pg_temp.list('date', '2000-01-01', '1999-12-31', '1970-01-01', '2024-02-29', '1900-03-01', '0001-01-01', '0001-12-31 BC', '0044-03-15 BC', '0005-02-28 BC', '0005-02-29 BC', '4714-11-24 BC', '5874897-12-31', '9999-12-31', '10000-01-01',
  'infinity', '-infinity', '2400-02-29', '2100-02-28', '2100-03-01', '0400-02-29', '0401-03-01 BC');
SELECT pg_temp.say('date', format('date ''4713-01-01 BC'' + %s', n::bigint)) FROM generate_series(0, 3000000, 97777) AS n;
SELECT pg_temp.list('time', '00:00', '24:00', '23:59:59.999999', '12:34:56.7', '01:02:03.000001', '12:00:00.120');
SELECT pg_temp.list('timetz', '00:00+00', '24:00-15:59:59', '12:34:56.789+05:30', '12:34:56-08', '01:02:03+15:59:59', '01:02:03-00:00:01', '01:02:03+00:30');
SELECT pg_temp.list('timestamp', '2000-01-01', '1999-12-31 23:59:59.999999', '2024-02-29 12:34:56.5', '0001-01-01', '0001-12-31 23:59:59.1 BC', '4714-11-24 BC', '4714-11-24 00:00:00.000001 BC', '294276-12-31 23:59:59.999999', '10000-01-01 00:00:01', 'infinity', '-infinity', '1970-01-01 00:00:00.000001');
SELECT pg_temp.list('timestamptz', '2000-01-01', '1999-12-31 23:59:59.999999+01', '2024-02-29 12:34:56.5-08', '0001-12-31 23:59:59.1 BC', '4714-11-24 BC', '294276-12-31 23:59:59.999999', 'infinity', '-infinity');
SELECT pg_temp.list('interval', '0', '1 year', '-1 year', '2 years 3 mons', '1 mon', '-1 mon', '11 mons', '12 mons', '-13 mons', '1 day', '-1 day', '2 days', '1 hour', '-1 hour', '100 hours', '00:00:00.000001', '-00:00:00.000001', '-00:00:01.5',
  '1 year -1 day', '-1 year 1 day', '-1 year 1 day 01:00', '-1 day 01:00', '1 day -01:00', '1 year 2 mons -3 days +04:05:06.789', '-1 mon -2 days -03:04:05', '1 mon 00:00:01', '178000000 years', '-178000000 years', '2147483647 days', '-2147483648 days',
  '2562047788:00:54.775807', '-2562047788:00:54.775807', '-2147483648 mons', '2147483647 mons', '-1 year 2 hours', '1000000:00:00', '-1 mon 2 days -3 hours', '1.5 days');

SELECT pg_temp.list('inet', '0.0.0.0', '127.0.0.1', '192.168.1.5/24', '10.0.0.0/8', '255.255.255.255/0', '::', '::1', '::5', '::ffff:1.2.3.4', '::1.2.3.4', '::fffe:1.2.3.4', 'fe80::1/64', '2001:db8::/32', '2001:db8:0:0:1:0:0:1', '1:2:3:4:5:6:7:8', '0:0:1::', '1:0:2:0:3:0:4:0',
  '1::', '0:1:2:3:4:5:6:7', '1:2:3:4:5:6:7:0', '::1:0:0:0', '::ffff:0:0', '::1:0', '::2:0:1', '0:0:0:0:0:ffff:0:1/96', '1:0:0:2:0:0:0:3', 'ff02::1:ff00:0/104', '::1:2', '::ffff');
SELECT pg_temp.list('cidr', '10.0.0.0/8', '127.0.0.1', '0.0.0.0/0', '2001:db8::/32', '::1', '::/0', '192.168');
SELECT pg_temp.list('macaddr', '08:00:2b:01:02:03', 'ff-ff-ff-ff-ff-ff');
SELECT pg_temp.list('macaddr8', '08:00:2b:01:02:03:04:05', '08:00:2b:01:02:03');
SELECT pg_temp.list('point', '(1,2)', '(-0,1e20)', '(0.1,NaN)', '(Infinity,-Infinity)');
SELECT pg_temp.list('line', '{1,2,3}', '[(0,0),(1,1)]');
SELECT pg_temp.list('lseg', '[(1,2),(3,4)]');
SELECT pg_temp.list('box', '(1,2),(3,4)', '(3,1),(1,4)');
SELECT pg_temp.list('path', '[(1,2),(3,4)]', '((1,2),(3,4),(5,6))', '[(1,2)]');
SELECT pg_temp.list('polygon', '((1,2),(3,4),(5,6))', '((0,0))');
SELECT pg_temp.list('circle', '<(1,2),3>');

SELECT pg_temp.list('int4[]', '{}', '{1}', '{1,2,3}', '{NULL}', '{1,NULL,3}', '{{1,2},{3,4}}', '{{{1},{2}},{{3},{4}}}', '[0:2]={1,2,3}', '[-5:-4]={1,2}', '[1:1][2:3]={{1,2}}', '[2:2][1:1]={{7}}', '{{{{{{1,2}}}}}}', '[2147483646:2147483646]={1}');
SELECT pg_temp.list('text[]', '{}', '{""}', '{NULL,"NULL","null","Null","nul"}', '{a,"b c","d,e","f\"g","h\\i","{j}","k''l"}', E'{"tab\there","new\nline","\\v\v","cr\r","ff\f"}', '{ä,日本}', '{{a,"b "},{" c",d}}', '{"a;b","(x)",[1]}', '{" "}');
SELECT pg_temp.list('bool[]', '{t,f,NULL}');
SELECT pg_temp.list('int2[]', '{1,-1}');
SELECT pg_temp.list('int8[]', '{9223372036854775807}');
SELECT pg_temp.list('float4[]', '{1,1e20,NaN}');
SELECT pg_temp.list('float8[]', '{1,1e20,-Infinity}');
SELECT pg_temp.list('numeric[]', '{1.50,NaN,NULL}');
SELECT pg_temp.list('bytea[]', '{"\\x00ff",""}');
SELECT pg_temp.list('uuid[]', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}');
SELECT pg_temp.list('varchar[]', '{a b,c}');
SELECT pg_temp.say('bpchar[]', '''{ab,c}''::char(3)[]');
SELECT pg_temp.list('name[]', '{a,b}');
SELECT pg_temp.list('"char"[]', '{a,"",","}');
SELECT pg_temp.list('date[]', '{2024-01-01,infinity}');
SELECT pg_temp.list('time[]', '{12:00}');
SELECT pg_temp.list('timetz[]', '{12:00+01}');
SELECT pg_temp.list('timestamp[]', '{"2024-01-01 12:00"}');
SELECT pg_temp.list('timestamptz[]', '{"2024-01-01 12:00+00",NULL}');
SELECT pg_temp.list('interval[]', '{"1 day","01:00"}');
SELECT pg_temp.list('json[]', '{"{\"a\":1}",null,"\"x\""}');
SELECT pg_temp.list('jsonb[]', '{"{\"a\":1}"}');
SELECT pg_temp.list('inet[]', '{10.0.0.0/8,::1}');
SELECT pg_temp.list('cidr[]', '{10.0.0.0/8}');
SELECT pg_temp.list('macaddr[]', '{08:00:2b:01:02:03}');
SELECT pg_temp.list('bit[]', '{1,0}');
SELECT pg_temp.list('varbit[]', '{10,""}');
SELECT pg_temp.list('point[]', '{"(1,2)"}');
SELECT pg_temp.list('box[]', '{(1,2),(3,4);(5,6),(7,8)}');
SELECT pg_temp.list('path[]', '{"[(1,2),(3,4)]"}');
SELECT pg_temp.list('oid[]', '{1,2}');
SELECT pg_temp.list('tid[]', '{"(1,2)"}');
SELECT pg_temp.list('pg_lsn[]', '{1/A}');
SELECT pg_temp.list('xml[]', '{<a/>}');
SELECT pg_temp.list('int2vector', '1 2 3', '');
SELECT pg_temp.list('oidvector', '23 4294967295');
SELECT pg_temp.list('int2vector[]', '{"1 2","3"}');

SELECT pg_temp.list('int4range', '[1,5)', '(,5)', '[1,)', '(,)', 'empty', '[1,5]');
SELECT pg_temp.list('int8range', '[1,5)');
SELECT pg_temp.list('numrange', '[1.5,2.50]', '(1.5,2.50)', '(,1]', 'empty');
SELECT pg_temp.list('daterange', '[2024-01-01,2024-12-31]', '[-infinity,infinity]', '[0044-03-15 BC,)');
SELECT pg_temp.list('tsrange', '[2024-01-01,2024-12-31)', '(,"2024-01-01 12:00:00.5"]');
SELECT pg_temp.list('tstzrange', '[2024-01-01,)', '[infinity,infinity]');
SELECT pg_temp.list('int4range[]', '{"[1,5)",empty,NULL}');
SELECT pg_temp.list('tstzrange[]', '{"[2024-01-01,)"}');
SELECT pg_temp.list('int4multirange', '{}', '{[1,5)}', '{[1,5),[7,9),[20,)}');
SELECT pg_temp.list('tsmultirange', '{[2024-01-01,2024-12-31)}');
SELECT pg_temp.list('nummultirange', '{[1.5,2.5],(3,)}');
SELECT pg_temp.say('record', made, 'v::text') FROM unnest(ARRAY['ROW()', 'ROW(1)', 'ROW(NULL)', 'ROW(NULL, NULL)', 'ROW(1, NULL, ''a''::text)', 'ROW(''''::text)', 'ROW(''a b''::text, ''c"d''::text, ''e\f''::text, ''(g)''::text, ''h,i''::text)',
  'ROW(true, 1.50, ''x''::varchar)', 'ROW(ROW(1, ''q"r''::text), ARRAY[''a b'', ''"''])', 'ROW(ROW(ROW(''"\''::text)))', 'ROW(now() - now(), date ''2024-01-01'', ''{}''::int[])', 'ROW(''null''::text, E''a\tb''::text)']) AS made;
SELECT pg_temp.say('record[]', 'ARRAY[ROW(1, ''a''::text), ROW(2, ''b c''::text)]', 'v::text');
\o

COPY (SELECT type_oid, bytes, printed, made FROM value ORDER BY ordinal) TO STDOUT;
