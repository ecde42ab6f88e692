-- What changes more than the pages that it names: tablespaces, copies of databases, files that go
-- with a transaction, and pages of SLRUs that begin.
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE elsewhere LOCATION '';
CREATE TABLESPACE unused LOCATION '';
CREATE TABLESPACE dropped LOCATION '';
CREATE TABLE remote TABLESPACE elsewhere AS SELECT i AS id FROM generate_series(1, 5000) i;
CREATE INDEX remote_id ON remote (id) TABLESPACE elsewhere;
CREATE UNLOGGED TABLE remote_unlogged (id int PRIMARY KEY) TABLESPACE elsewhere;
INSERT INTO remote_unlogged SELECT generate_series(1, 500);
CREATE TABLE moved AS SELECT i AS id FROM generate_series(1, 3000) i;
ALTER TABLE moved SET TABLESPACE elsewhere;
CREATE TABLE brief TABLESPACE dropped AS SELECT i AS id FROM generate_series(1, 1000) i;
DROP TABLE brief;
DROP TABLESPACE dropped;
CREATE DATABASE remote_base TABLESPACE elsewhere STRATEGY wal_log;
\c remote_base
CREATE TABLE inside AS SELECT i AS id FROM generate_series(1, 2000) i;
VACUUM inside;
\c postgres
CREATE DATABASE remote_copy TEMPLATE remote_base STRATEGY file_copy;
CREATE DATABASE brought_home TEMPLATE remote_base TABLESPACE pg_default STRATEGY file_copy;
ALTER DATABASE remote_copy SET TABLESPACE pg_default;
DROP DATABASE brought_home;
\c remote_base
CREATE TABLE at_home TABLESPACE pg_default AS SELECT i AS id FROM generate_series(1, 500) i;
\c postgres
CREATE DATABASE two_places TEMPLATE remote_base STRATEGY file_copy;
-- Multixacts over the borders of pages of offsets and members.
CREATE TABLE locked (id int PRIMARY KEY, n int);
INSERT INTO locked SELECT i, 0 FROM generate_series(1, 50) i;
DO $$ BEGIN
    FOR r IN 1..2300 LOOP
        PERFORM 1 FROM locked WHERE id = 1 + r % 50 FOR KEY SHARE;
        BEGIN
            UPDATE locked SET n = r WHERE id = 1 + r % 50;
        EXCEPTION WHEN division_by_zero THEN NULL;
        END;
        COMMIT;
    END LOOP;
END $$;
-- Transactions over the border of a page of their status, and of segments of their times.
CREATE TABLE counted (n int);
DO $$ BEGIN
    FOR r IN 1..33000 LOOP
        BEGIN
            INSERT INTO counted VALUES (r);
        EXCEPTION WHEN division_by_zero THEN NULL;
        END;
    END LOOP;
END $$;
-- Files that go with the end of a transaction.
BEGIN;
DROP TABLE moved;
CREATE TABLE never_there AS SELECT i AS id FROM generate_series(1, 1000) i;
PREPARE TRANSACTION 'drops';
BEGIN;
SAVEPOINT one;
CREATE TABLE rolled_back AS SELECT i AS id FROM generate_series(1, 1000) i;
ROLLBACK TO one;
DROP TABLE remote_unlogged;
COMMIT;
COMMIT PREPARED 'drops';
BEGIN;
CREATE TABLE undone TABLESPACE elsewhere AS SELECT i AS id FROM generate_series(1, 1000) i;
PREPARE TRANSACTION 'undone';
ROLLBACK PREPARED 'undone';
CREATE TABLE half AS SELECT i AS id, repeat('h', 200) AS h FROM generate_series(1, 20000) i;
VACUUM half;
DELETE FROM half WHERE id > 9000;
VACUUM half;
BEGIN;
TRUNCATE counted;
INSERT INTO counted VALUES (1);
COMMIT;
TRUNCATE half, counted;
