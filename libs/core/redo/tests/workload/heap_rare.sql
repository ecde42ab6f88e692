-- What tables go through seldom. Statements that \gexec makes run in a transaction each.
create schema rare; set search_path = rare, public;
-- Another session is a psql of its own.
\setenv PGHOST :HOST
\setenv PGUSER :USER

-- Every way to take the map's bits away, each from a page that has them.
create table v(id int, filler text) with (autovacuum_enabled = off);
insert into v select i, repeat('v', 700) from generate_series(1, 300) i;
vacuum (freeze) v;
select format('select id from v where id = %s for update', 11 * i) from generate_series(1, 27) i \gexec
vacuum (freeze) v;
select unnest(array['delete from v where id = ' || i * 11, 'vacuum v']) from generate_series(1, 25) i \gexec
select unnest(array['insert into v values (1000, ''one'')', 'vacuum v']) from generate_series(1, 25) i \gexec
select unnest(array['copy v(id) from program ''seq 2001 2009''', 'vacuum v']) from generate_series(1, 25) i \gexec
select unnest(array['update v set filler = ''short'' where id = ' || i * 7, 'vacuum v']) from generate_series(1, 25) i \gexec
-- The new tuple goes to a page that everyone may see too.
create table w(id int, filler text) with (autovacuum_enabled = off);
alter table w alter filler set storage plain;
insert into w select i, repeat('w', 600) from generate_series(1, 400) i;
delete from w where id % 40 = 0;
vacuum (freeze) w;
select unnest(array[format('update w set filler = repeat(''W'', 620) where id = %s', i * 12 + 1), 'vacuum (freeze) w'])
  from generate_series(1, 30) i \gexec
-- A page that is empty, and known to be.
create table e(id int, filler text) with (autovacuum_enabled = off);
alter table e alter filler set storage plain;
insert into e select i, repeat('e', 7000) from generate_series(1, 90) i;
delete from e where id < 90;
vacuum (freeze) e; vacuum (freeze) e;
insert into e select i, repeat('e', 7000) from generate_series(1, 30) i;
vacuum (freeze) e;
update e set id = id + 1000, filler = filler || 'e';
vacuum e;

-- Rows that are frozen as they are copied.
create table f(a int, b text);
insert into f select i, repeat('f', 400) from generate_series(1, 600) i;
copy f to '/tmp/redo-heap-rows.txt';
begin; truncate f; copy f from '/tmp/redo-heap-rows.txt' with (freeze); commit;
delete from f where a % 3 = 0;
copy f from program 'rm /tmp/redo-heap-rows.txt';

-- Pages whose tuples need many different plans to freeze them.
create table z(a int primary key, b int, c text) with (fillfactor = 70, autovacuum_enabled = off);
insert into z select i, case when i % 3 > 0 then i end, case when i % 5 > 0 then repeat('z', i % 30) end
  from generate_series(1, 6000) i;
update z set b = 1 where a % 7 = 0;
update z set b = 2 where a % 11 = 0;
select count(*) from (select * from z where a % 13 = 0 for share) s;
begin; select count(*) from (select * from z where a % 17 = 0 for update) s; rollback;
begin; update z set b = 3 where a % 19 = 0; rollback;
alter table z add d int;
insert into z select i, i, 'new', i from generate_series(7001, 9000) i;
begin;
select count(*) from (select * from z where a % 23 = 0 for key share) s;
\! psql -Xqc 'select count(*) from (select * from rare.z where a % 23 = 0 for key share) s' postgres >other.log
commit;
vacuum (freeze, disable_page_skipping) z;
-- Tuples of multixacts of which a member still runs.
select pg_advisory_lock(1);
\! psql -Xqc begin -c 'select 1 from rare.z where a % 29 = 0 for key share' -c 'select pg_advisory_lock(1)' -c commit postgres >other.log &
do $$ begin
  while not exists (select from pg_locks where locktype = 'advisory' and not granted) loop
    perform pg_sleep(0.05);
  end loop;
end $$;
update z set b = 4 where a % 29 = 0;
vacuum (freeze, disable_page_skipping) z;
select pg_advisory_unlock(1);
vacuum (freeze, disable_page_skipping) z;
-- A lock of a row takes its later versions along, which another transaction made.
begin;
update z set b = 5 where a % 50 = 0;
\! psql -Xqc 'select count(*) from (select * from rare.z where a % 50 = 0 for key share) s' postgres >other.log
update z set b = 6 where a % 50 = 0;
commit;

-- Rows that an insert takes back when it finds another behind its own back.
create table sp(a int);
create function sp_loud(a int) returns int language plpgsql as $$ begin
  if current_setting('sp.seen', true) in ('0', '1') then
    perform set_config('sp.seen', (current_setting('sp.seen')::int + 1)::text, false);
    if current_setting('sp.seen') = '2' then insert into rare.sp values (a); end if;
  end if;
  return a;
end $$;
create function sp_key(a int) returns int immutable language plpgsql as $$ begin return rare.sp_loud(a); end $$;
create unique index on sp(sp_key(a));
do $$ begin for i in 1..30 loop
  perform set_config('sp.seen', '0', false);
  insert into sp values (i) on conflict do nothing;
  perform set_config('sp.seen', '', false);
end loop; end $$;
insert into sp select i from generate_series(20, 80) i on conflict do nothing;

-- Rows that move to another partition.
create table pm(a int, b text) partition by list (a);
create table pm1 partition of pm for values in (1);
create table pm2 partition of pm for values in (2);
insert into pm select 1, 'p' || i from generate_series(1, 50) i;
update pm set a = 2;

-- Catalogues that are changed in place.
select format('create table i%s as select %s as a', i, i) from generate_series(1, 30) i \gexec
select format('vacuum (analyze) i%s', i) from generate_series(1, 30) i \gexec

-- Pruning: chains with a redirection, dead items, and a page that is pruned by who reads it.
create table h2(a int primary key, b int, c text) with (fillfactor = 50, autovacuum_enabled = off);
create index on h2(c);
insert into h2 select i, i, 'h' from generate_series(1, 3000) i;
do $$ begin for r in 1..20 loop update h2 set b = b + 1 where a % 4 < 2; commit; end loop; end $$;
update h2 set c = 'i' where a % 9 = 0;
delete from h2 where a % 5 = 0;
select count(*) from h2;
vacuum h2;
insert into h2 select i, i, 'again' from generate_series(4001, 5000) i;
-- Line pointers at the end of pages go unused, but for one where its index entry is left.
create table lp(a int) with (autovacuum_enabled = off);
insert into lp select i from generate_series(1, 9000) i;
delete from lp where ctid::text ~ ',(1[0-9][0-9]|2[0-9][0-9])\)';
vacuum lp;
delete from lp where a % 2 = 0;
vacuum lp;
update lp set a = -a where a % 9 = 1;
select count(*) from lp;
vacuum (freeze) lp;

-- While a base backup is taken every page has its image once, for a hint bit too.
select case when current_setting('server_version_num')::int < 150000
  then 'pg_start_backup(''b'', true, false)' else 'pg_backup_start(''b'', true)' end as starts,
  case when current_setting('server_version_num')::int < 150000
  then 'pg_stop_backup(false, false)' else 'pg_backup_stop(false)' end as stops \gset
create table hb(a int, b text) with (autovacuum_enabled = off);
insert into hb select i, repeat('b', 300) from generate_series(1, 1500) i;
select :starts;
select count(*) from hb;
update v set id = id + 1 where id % 9 = 0;
vacuum v; vacuum hb;
select :stops;
