-- What the other workload leaves out: pages of generic WAL, a clean-up of btrees, rows that are
-- updated in their page, partitions, a copy of a copied database.
CREATE EXTENSION bloom;
CREATE TABLE many (id bigserial PRIMARY KEY, k int, v text, w int);
CREATE INDEX many_k ON many (k);
CREATE INDEX many_w ON many (w) WITH (deduplicate_items = off);
CREATE INDEX many_v ON many (v);
CREATE INDEX many_bloom ON many USING bloom (k, w);
INSERT INTO many (k, v, w)
    SELECT i % 50, repeat(md5(i::text), 10), (i * 7919) % 3000 FROM generate_series(1, 4000) i;
DELETE FROM many WHERE id % 3 = 0;
VACUUM many;
UPDATE many SET w = w + 1 WHERE id % 7 = 0;
DELETE FROM many WHERE id BETWEEN 500 AND 2500;
VACUUM many;
VACUUM (FREEZE) many;
INSERT INTO many (k, v, w) SELECT i % 50, 'again ' || i, i FROM generate_series(1, 1500) i;
DELETE FROM many WHERE v < 'c';
VACUUM many;
VACUUM many;
CREATE TABLE hot (a int PRIMARY KEY, b int, c text) WITH (fillfactor = 50);
INSERT INTO hot SELECT i, i, 'h' FROM generate_series(1, 400) i;
DO $$ BEGIN FOR r IN 1..20 LOOP UPDATE hot SET c = 'h' || r; COMMIT; END LOOP; END $$;
DO $$ BEGIN FOR r IN 1..20 LOOP UPDATE hot SET b = b + 1 WHERE a < 50; COMMIT; END LOOP; END $$;
CREATE INDEX ON hot (b);
VACUUM FULL hot;
CREATE TABLE parts (id int, t text) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (1000);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (1000) TO (9000);
INSERT INTO parts SELECT i, repeat('p', i % 50) FROM generate_series(1, 3000) i;
DROP TABLE parts_low;
ALTER TABLE parts ADD COLUMN z int DEFAULT random() * 1000;
CREATE DATABASE within TEMPLATE copied STRATEGY wal_log;
ANALYZE;
