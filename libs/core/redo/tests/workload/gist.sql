select setseed(0.5);
create table gs(p point, n int); create index gs_p on gs using gist(p);
insert into gs select point(random(), random()), i from generate_series(1, 14000) i;
-- Dead items that scans note, and whose room is taken by what comes next.
delete from gs where p <@ box '((0,0),(0.6,0.6))';
set enable_seqscan = off; set enable_bitmapscan = off;
select count(*) from gs where p <@ box '((0,0),(1,1))';
insert into gs select point(random() * 0.6, random() * 0.6), i from generate_series(1, 7000) i;
reset enable_seqscan; reset enable_bitmapscan;
-- Leaves that become empty, and are used again.
delete from gs where p[0] < 0.8; vacuum gs;
select txid_current(); select txid_current(); vacuum gs; vacuum gs;
insert into gs select point(random(), random()), i from generate_series(1, 7000) i;
delete from gs; vacuum gs; insert into gs select point(i, i), i from generate_series(1, 500) i;
-- Roots that split.
do $$ begin for r in 1..25 loop
    execute 'create table gr' || r || '(b box)';
    execute 'create index on gr' || r || ' using gist(b)';
    execute 'insert into gr' || r || ' select box(point(i % 17, i % 13), point(i, i)) from generate_series(1, 220) i';
end loop; end $$;
-- Wide keys: several levels, splits into more than two.
create table gw(r text, t tsvector);
create index gw_t on gw using gist(t tsvector_ops(siglen = 1200));
insert into gw select i, to_tsvector('simple', (select string_agg((i * g % 9973)::text, ' ') from generate_series(1, 150) g)) from generate_series(1, 1000) i;
update gw set r = r || 'x' where r like '%7'; delete from gw where r like '%3'; vacuum gw;
-- Indexes that are built over rows: sorted, and one by one.
create table gb(b box, p point);
insert into gb select box(point(i % 97, i % 89), point(i % 97 + 1, i % 89 + 1)), point(i % 97, i % 89) from generate_series(1, 5000) i;
create index gb_b on gb using gist(b); create index gb_p on gb using gist(p) include (b);
insert into gb select box(point(i % 31, i % 37), point(i % 31 + 2, i % 37 + 2)), point(i, i) from generate_series(1, 2000) i;
create unlogged table gu(p point); create index on gu using gist(p);
