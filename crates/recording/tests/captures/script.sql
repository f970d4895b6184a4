select 1 as one;
create temp table t (id int primary key, name text);
insert into t select g, 'name ' || g from generate_series(1, 20) g;
select id, name from t where id <= 3;
begin; update t set name = 'x' where id = 1; commit;
select nothing from nowhere;
copy t to stdout;
