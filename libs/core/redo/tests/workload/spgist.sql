-- A root that is a leaf, and is emptied.
do $$ begin for r in 1..25 loop
    execute 'create table sr' || r || '(t text)';
    execute 'create index on sr' || r || ' using spgist(t)';
    execute 'insert into sr' || r || ' select md5(i::text) from generate_series(1, ' || 20 + r || ') i';
    execute 'delete from sr' || r || ' where t > ''' || case r % 3 when 0 then '' else '4' end || '''';
end loop; end $$;
vacuum;
-- A common prefix that later rows do not have: of a root, and below one.
do $$ begin for r in 1..25 loop
    execute 'create table sx' || r || '(t text)';
    execute 'create index on sx' || r || ' using spgist(t)';
    execute 'insert into sx' || r || ' select ''a common prefix of all'' || repeat(md5(i::text), 6) from generate_series(1, 60) i';
    execute 'insert into sx' || r || ' values (''a common thing''), (''another'')';
end loop; end $$;
create table sd(t text); create index on sd using spgist(t);
insert into sd select md5(g::text) || repeat(md5(i::text), 6) from generate_series(1, 40) g, generate_series(1, 60) i;
insert into sd select left(md5(g::text), k) || 'x' || k from generate_series(1, 40) g, generate_series(6, 24, 6) k;
insert into sd select md5(g::text) || chr(i) || repeat(md5(i::text), 4) from generate_series(1, 40) g, generate_series(40, 120) i;
-- Text: nodes are added, prefixes are split, chains move.
create table st(t text, n int); create index st_t on st using spgist(t);
insert into st select md5(i::text), i from generate_series(1, 6000) i;
insert into st select repeat(chr(97 + i % 7), 1 + i % 90) || i, i from generate_series(1, 3000) i;
insert into st select 'shared/prefix/' || repeat(md5((i % 50)::text), i % 4) || chr(40 + i % 80) || i, i from generate_series(1, 3000) i;
delete from st where n % 3 = 0; vacuum st;
insert into st select md5((i * 7)::text), i from generate_series(1, 2000) i;
delete from st where t < '8'; vacuum st;
insert into st select md5((i * 11)::text), i from generate_series(1, 3000) i;
vacuum st; delete from st where t like 'a%'; vacuum st; vacuum st;
insert into st select repeat(chr(97 + i % 7), 1 + i % 90) || i, i from generate_series(1, 1500) i;
-- Points, ranges and nulls; columns that are included.
create table sp(p point, n int); create index sp_q on sp using spgist(p); create index sp_k on sp using spgist(p kd_point_ops) include (n);
select setseed(0.25);
insert into sp select point(random(), random()), i from generate_series(1, 4000) i;
insert into sp select null, i from generate_series(1, 1500) i;
delete from sp where p[0] < 0.5 or n % 5 = 0; vacuum sp;
insert into sp select point(random(), random()), case when i % 2 = 0 then i end from generate_series(1, 3000) i;
insert into sp select point(0.5, 0.5), i from generate_series(1, 1000) i;
delete from sp where n % 2 = 0; vacuum sp;
create table sn(i inet); create index on sn using spgist(i);
insert into sn select ('10.' || i % 200 || '.' || i % 7 || '.' || i % 251)::inet from generate_series(1, 2500) i;
-- Built over rows.
create index st_again on st using spgist(t); insert into st select 'again ' || i, i from generate_series(1, 500) i;
create unlogged table su(t text); create index on su using spgist(t);
