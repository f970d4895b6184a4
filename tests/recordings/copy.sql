create temp table events (id int, kind text, payload text);
insert into events select g, 'kind ' || g % 3, repeat('payload ', 20) from generate_series(1, 9000) g;
\copy events to 'events.txt'
\copy events from 'events.txt'
copy (select id, payload from events where id < 3000) to stdout with (format csv) \g /dev/null
\copy events (id, kind) from program 'seq 1 12000 | sed "s/$/,a/"' with (format csv)
copy events from stdin;
not a number	x	y
\.
copy events (id) to stdout (format binary) \g /dev/null
select count(*) from events;
