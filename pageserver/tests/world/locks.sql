\set row random(1, 40)
BEGIN;
SELECT id FROM rows WHERE id = :row FOR SHARE;
SELECT pg_sleep(0.001);
COMMIT;
