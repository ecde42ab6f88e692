-- Summaries that grow in place, and off their page.
create table br(a int, b text) with (fillfactor = 10);
insert into br select i, chr(65 + i % 26) from generate_series(1, 12000) i;
create index br_a on br using brin(a) with (pages_per_range = 1);
create index br_b on br using brin(b) with (pages_per_range = 1);
update br set a = -a, b = (select 'z' || string_agg(md5(a::text || i), '') from generate_series(1, 40) i) where a % 20 = 0;
update br set b = repeat('|', 1200) where a % 170 = 0;
insert into br select i, repeat('y', i % 200) from generate_series(20000, 23000) i;
select count(brin_summarize_new_values('br_a')), count(brin_summarize_new_values('br_b'));
-- Summaries that are dropped, and made again in the room that is left.
select count(brin_desummarize_range('br_a', i)), count(brin_desummarize_range('br_b', i)) from generate_series(0, 60, 2) i;
vacuum br;
select count(brin_summarize_range('br_b', i)) from generate_series(0, 40, 4) i;
delete from br where a > 11000; vacuum br;
-- A map of several pages, which pushes summaries away as it grows.
create table bw(a int, b text); alter table bw alter b set storage plain;
insert into bw select i, repeat('w', 5000) from generate_series(1, 3000) i;
create index bw_a on bw using brin(a) with (pages_per_range = 1);
insert into bw select i, repeat('v', 5000) from generate_series(3001, 4200) i;
vacuum bw; select count(brin_summarize_new_values('bw_a'));
create table bs(a int); insert into bs select generate_series(1, 3000);
do $$ begin for r in 1..25 loop execute 'create index on bs using brin(a) with (pages_per_range = ' || r || ')'; end loop; end $$;
create unlogged table bu(a int); create index on bu using brin(a);
