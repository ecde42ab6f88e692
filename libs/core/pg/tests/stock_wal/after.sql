COMMIT PREPARED 'first';
BEGIN; SAVEPOINT s; CREATE TABLE f (id int); PREPARE TRANSACTION 'second';
ROLLBACK PREPARED 'second';
DROP TABLE c;
\if :since_15
CREATE DATABASE logged STRATEGY wal_log;
CREATE DATABASE copied STRATEGY file_copy;
\else
CREATE DATABASE logged;
CREATE DATABASE copied;
\endif
DROP DATABASE copied;
-- A catalogue that is rewritten tells logical decoding where its rows went.
SELECT 'ready' FROM pg_create_logical_replication_slot('slot', 'pgoutput');
CREATE TABLE young (id int);
VACUUM FULL pg_class;
SELECT pg_drop_replication_slot('slot');
SELECT 1 FROM pg_logical_emit_message(true, 'prefix', 'text'), pg_create_restore_point('here');
SELECT 1 FROM pg_replication_origin_create('o'), pg_replication_origin_advance('o', '1/23');
SELECT pg_replication_origin_session_setup('o');
BEGIN;
SELECT pg_replication_origin_xact_setup('2/34', '2020-01-01');
INSERT INTO a VALUES (9999);
COMMIT;
SELECT pg_replication_origin_session_reset();
SELECT pg_replication_origin_drop('o');
CREATE TABLESPACE other LOCATION :'space';
CREATE TABLE elsewhere (id int) TABLESPACE other;
INSERT INTO elsewhere VALUES (1);
DROP TABLE elsewhere;
DROP TABLESPACE other;
\if :since_15
SELECT 1 FROM pg_backup_start('here', true);
SELECT 1 FROM pg_backup_stop(false);
\else
SELECT 1 FROM pg_start_backup('here', true, false);
SELECT 1 FROM pg_stop_backup(false, false);
\endif
ALTER SYSTEM SET full_page_writes = off;
SELECT pg_reload_conf();
SELECT pg_sleep(0.2);
INSERT INTO a VALUES (9998);
CHECKPOINT;
ALTER SYSTEM RESET full_page_writes;
SELECT pg_reload_conf();
SELECT pg_sleep(0.2);
CHECKPOINT;
-- The first to read a row after its transaction sets a hint bit: on a page that is clean here.
SELECT count(*) FROM a;
-- Stays prepared: the checkpoint at shutdown writes its state file.
BEGIN; SAVEPOINT s; INSERT INTO a VALUES (10000); DROP TABLE e;
PREPARE TRANSACTION 'kept';
