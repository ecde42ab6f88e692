-- Records that do more than change pages, up to a transaction that is prepared.
CREATE TABLE a (id int PRIMARY KEY, t text);
INSERT INTO a SELECT n FROM generate_series(1, 5000) n;
CREATE TABLE b (id int);
CREATE UNLOGGED TABLE c (id int);
CREATE SEQUENCE s;
SELECT nextval('s');
BEGIN; SAVEPOINT s; INSERT INTO b VALUES (1); SAVEPOINT t; INSERT INTO b VALUES (2);
ROLLBACK TO t; INSERT INTO b VALUES (3); COMMIT;
BEGIN; SAVEPOINT s; CREATE TABLE gone (id int); ROLLBACK;
INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING;
INSERT INTO a VALUES (5001) ON CONFLICT DO NOTHING;
-- Leaf pages are deleted, then recyclable, then used again.
DELETE FROM a WHERE id BETWEEN 101 AND 5001;
VACUUM a;
SELECT 'next' FROM pg_current_xact_id();
VACUUM a;
INSERT INTO a SELECT n FROM generate_series(101, 3000) n;
DELETE FROM a WHERE id > 100;
VACUUM a;
TRUNCATE b;
-- 33,000 transactions, each ended by a record of its parent: past the end of a page of pg_xact.
DO $$ BEGIN FOR n IN 1..33000 LOOP
  BEGIN INSERT INTO b VALUES (n); EXCEPTION WHEN division_by_zero THEN END;
END LOOP; END $$;
BEGIN; SELECT FROM a WHERE id = 1 FOR SHARE; SAVEPOINT s; DROP TABLE b;
CREATE TABLE e (id int); PREPARE TRANSACTION 'first';
SELECT FROM a WHERE id = 1 FOR SHARE;
SELECT FROM a WHERE id = 1 FOR KEY SHARE;
