create extension bloom;
create table t(id bigserial primary key, k int, v text, w int);
create index t_k on t(k);
create index t_w on t(w);
create index t_bloom on t using bloom(k, w);
insert into t(k, v, w) select i % 50, repeat('x', i % 90), (i * 7919) % 30000 from generate_series(1, 20000) i;
insert into t(k, v, w) select (i * 31) % 53, 'second', (i * 104729) % 60000 from generate_series(1, 6000) i;
\copy (select k, v, w from t limit 3000) to 'rows.txt'
\copy t(k, v, w) from 'rows.txt'
begin; create table c(k int, v text, w int);
\copy c from 'rows.txt'
commit;
\copy c from 'rows.txt'
vacuum (freeze, disable_page_skipping) t;
vacuum c;
update t set v = v || 'y' where id % 17 = 0;
update t set w = w + 1 where id % 11 = 0;
delete from t where id % 13 = 0;
delete from t where id between 4000 and 12000;
vacuum t; vacuum t;
insert into t(k, v, w) select i % 50, 'again', i from generate_series(1, 3000) i;
delete from t where w % 2 = 0;
vacuum t; vacuum t; vacuum (freeze) t;
begin; select count(*) from (select * from t order by id limit 300 for update) s; commit;
begin; select count(*) from (select * from t order by id limit 100 for key share) s; rollback;
create table u(a int primary key, b int);
insert into u values (1, 1) on conflict (a) do update set b = u.b + 1;
insert into u values (1, 1), (2, 2) on conflict (a) do update set b = u.b + 1;
create table h(a int primary key, b int, c text) with (fillfactor = 60);
create index h_b on h(b);
insert into h select i, i, 'h' from generate_series(1, 400) i;
do $$ begin for r in 1..25 loop update h set b = b + 1; commit; end loop; end $$;
do $$ begin for r in 1..15 loop update h set c = 'h' || r; commit; end loop; end $$;
create table d(a int); create index d_a on d(a) with (deduplicate_items = off);
insert into d select i % 10 from generate_series(1, 4000) i;
delete from d where a < 5; vacuum d;
create table p(a text); create index p_a on p(a);
insert into p select repeat(md5(i::text), 30) || i from generate_series(1, 3000) i;
delete from p where a < 'f'; vacuum p; vacuum p;
insert into p select repeat(md5(i::text), 30) || i from generate_series(1, 500) i;
create sequence s; select count(nextval('s')) from generate_series(1, 200);
analyze; create index on c(k); alter table c add column z int default 3;
truncate u; delete from c where k > 10; vacuum c; checkpoint;
create unlogged table n(a int primary key, b text); insert into n values (1, 'n');
begin; create table r(a int); insert into r values (1); rollback;
vacuum full h; drop table d;
insert into u select i, i from generate_series(10, 40) i on conflict (a) do nothing;
select format('create table m%1$s(a int primary key); insert into m%1$s select generate_series(1, 2000); delete from m%1$s where a between 400 and 1600', i) from generate_series(1, 24) i \gexec
select format('vacuum m%s', i) from generate_series(1, 24) i \gexec
