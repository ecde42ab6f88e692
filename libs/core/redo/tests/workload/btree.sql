-- Keys of which two or three fill a page: pages of inner levels split, and whole subtrees go.
create function nbt_key(i int) returns text language sql immutable as
$$ select string_agg(md5(format('%s %s', i, j)), '') from generate_series(1, 60) j $$;
create table nbt_wide(n int, k text); alter table nbt_wide alter k set storage external;
create index nbt_wide_k on nbt_wide(k);
insert into nbt_wide select i, nbt_key(i) from generate_series(1, 700) i;
insert into nbt_wide select i, 'z' || i || nbt_key(i) from generate_series(1000, 1300) i;
insert into nbt_wide select i, ' ' || i || nbt_key(i) from generate_series(1300, 1000, -1) i;
delete from nbt_wide where n < 700 and k > '4' and k < 'c'; vacuum nbt_wide; vacuum nbt_wide;
insert into nbt_wide select i, nbt_key(i) from generate_series(2000, 2300) i;
-- All but one leaf go: the root that is fast to reach is below the other one, until the pages split again.
do $$ begin for r in 1..24 loop
    execute 'create table nbt_fast' || r || '(n int, k text)';
    execute 'alter table nbt_fast' || r || ' alter k set storage external';
    execute 'create index on nbt_fast' || r || '(k)';
    execute 'insert into nbt_fast' || r || ' select i, nbt_key(i) from generate_series(1, 60) i';
    execute 'delete from nbt_fast' || r || ' where k < (select max(k) from nbt_fast' || r || ')';
end loop; end $$;
vacuum; vacuum;
do $$ begin for r in 1..24 loop
    execute 'insert into nbt_fast' || r || ' select i, nbt_key(i) from generate_series(100, 160) i';
end loop; end $$;
-- Lists of rows that a page splits within, and a new row that falls into one and goes right.
create table nbt_list(k int, n int); create index nbt_list_k on nbt_list(k);
insert into nbt_list select i % 40, i from generate_series(1, 30000) i;
delete from nbt_list where n % 7 < 3; vacuum nbt_list;
insert into nbt_list select (i * 13) % 40, i from generate_series(1, 16000) i;
