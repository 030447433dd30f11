-- What changes nothing makes no commit: rollbacks, also after a spill over free pages that were used again, and writes of what
-- is there already.
@A open ${a}
PRAGMA cache_size = 10;
CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO t SELECT i, zeroblob(1000) FROM n;
DELETE FROM t WHERE id > 5;
CREATE TEMP TABLE before AS SELECT graft_snapshot() ->> 'local_lsn' AS lsn;
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 6 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
INSERT INTO t SELECT i, zeroblob(1000) FROM n;
ROLLBACK;
BEGIN;
COMMIT;
BEGIN IMMEDIATE;
COMMIT;
UPDATE t SET v = v WHERE id = 99999;
SELECT graft_snapshot() ->> 'local_lsn' - lsn FROM before;
INSERT INTO t VALUES(6, x'06');
SELECT graft_snapshot() ->> 'local_lsn' - lsn FROM before;
PRAGMA integrity_check;
