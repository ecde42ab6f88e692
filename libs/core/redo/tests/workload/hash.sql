-- Every kind of hash record: begin, insert, overflow, split, clean up, squeeze, move, delete.
create table hash_begin(a int);
select format('create index on hash_begin using hash(a)') from generate_series(1, 22) \gexec
create unlogged table hash_unlogged(a int); create index on hash_unlogged using hash(a);
-- More buckets at the beginning than one step makes.
create table hash_many(a int); insert into hash_many select i from generate_series(1, 25000) i;
analyze hash_many; create index on hash_many using hash(a) with (fillfactor = 10);
create table hash_rows(a int, b int); create index on hash_rows using hash(a);
insert into hash_rows select i % 60, i from generate_series(1, 30000) i;
insert into hash_rows select i % 3, i from generate_series(1, 20000) i;
delete from hash_rows where b % 2 = 0; vacuum (index_cleanup on) hash_rows;
delete from hash_rows where b % 50 <> 1; vacuum (index_cleanup on) hash_rows;
insert into hash_rows select i % 60, i from generate_series(1, 12000) i;
create table hash_vacuum(a int); create index on hash_vacuum using hash(a);
insert into hash_vacuum select i % 30 from generate_series(1, 900) i;
select 'delete from hash_vacuum where a = ' || i, 'vacuum (index_cleanup on) hash_vacuum' from generate_series(1, 24) i \gexec
-- Rows that scans find dead go when their page is full.
create table hash_dead(a int, b int); create index on hash_dead using hash(a);
insert into hash_dead select i % 60, i from generate_series(1, 24000) i;
delete from hash_dead;
set enable_seqscan = off; set enable_bitmapscan = off;
select 'select count(*) from hash_dead where a = ' || i from generate_series(0, 59) i \gexec
reset all;
insert into hash_dead select i % 60, i from generate_series(1, 24000) i;
