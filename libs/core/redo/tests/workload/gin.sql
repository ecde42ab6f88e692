-- Every kind of GIN record. Posting trees: of lists that grew, their leaves changed, split, emptied.
create table gin_list(a int[]);
create index gin_list_a on gin_list using gin(a);
select format('insert into gin_list select array(select generate_series(%s, %s + 23)) from generate_series(1, 20)', i, i),
    'select gin_clean_pending_list(''gin_list_a'')' from generate_series(1, 24) i \gexec
insert into gin_list select array(select generate_series(1, 24)) from generate_series(1, 3000);
-- Rows of more entries than a page of the list takes.
insert into gin_list select array(select generate_series(i, i + 1200)) from generate_series(1, 25) i;
select gin_clean_pending_list('gin_list_a');
alter index gin_list_a set (fastupdate = off);
insert into gin_list select array(select generate_series(1, 24)) from generate_series(1, 300);
delete from gin_list where ctid::text like '%7)'; vacuum gin_list;
insert into gin_list select array(select generate_series(1, 24)) from generate_series(1, 300);
create table gin_tree(id int, a int[]);
\copy (select i, array[1,2,3,4,5,6,7,8,9,10,11,12] from generate_series(1, 40000) i) to 'gin.txt'
\copy gin_tree from 'gin.txt'
create index gin_tree_a on gin_tree using gin(a);
\copy (select i, array[1,2,3,4,5,6,7,8,9,10,11,12] from generate_series(40001, 64000) i) to 'gin.txt'
\copy gin_tree from 'gin.txt'
select gin_clean_pending_list('gin_tree_a');
delete from gin_tree where id % 3 = 0 and id < 8000; vacuum (index_cleanup on) gin_tree;
insert into gin_tree select i, array[1,2,3,4,5,6,7,8,9,10,11,12] from generate_series(1, 900) i;
select gin_clean_pending_list('gin_tree_a');
delete from gin_tree where id between 9000 and 60000; vacuum (index_cleanup on) gin_tree;
vacuum (index_cleanup on) gin_tree;
insert into gin_tree select i, array[1,2,3,4,5,6,7,8,9,10,11,12] from generate_series(1, 9000) i;
vacuum gin_tree;
-- A tree of long entries, so that it is high.
create table gin_long(k text[]);
create index gin_long_k on gin_long using gin(k) with (fastupdate = off);
insert into gin_long select array[(select string_agg(md5(i::text || j), '') from generate_series(1, 80) j)]
    from generate_series(1, 1500) i;
delete from gin_long where substr(k[1], 1, 1) < '8'; vacuum (index_cleanup on) gin_long;
-- Trees whose one page splits.
create table gin_root(k text[]);
select 'create index on gin_root using gin(k) with (fastupdate = off)' from generate_series(1, 12) \gexec
insert into gin_root select k from gin_long limit 20;
