\o /dev/null
select string_agg('1 as column_' || g, ', ') as list from generate_series(1, 200) g \gset
select :list from generate_series(1, 100);
select :list;
select repeat('a megabyte of text ', 55000) as document;
select g, repeat('x', 1000000) as document from generate_series(1, 3) g;
select :list, repeat('y', 100000) as document from generate_series(1, 5);
