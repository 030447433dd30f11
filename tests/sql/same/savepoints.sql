-- Nested savepoints, rolled back to and released, with each journal mode.
@A open ${a}
PRAGMA cache_size = 20;
CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
INSERT INTO t VALUES(1, x'01');
PRAGMA journal_mode = ${journal};
BEGIN;
INSERT INTO t VALUES(2, zeroblob(900)), (3, zeroblob(900));
SAVEPOINT one;
WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 399)
INSERT INTO t SELECT i, randomblob(900) FROM n;
SELECT count(*) FROM t;
SAVEPOINT two;
DELETE FROM t WHERE id % 2 = 0;
UPDATE t SET v = zeroblob(50) WHERE id % 3 = 0;
SELECT count(*), sum(length(v)) FROM t;
ROLLBACK TO two;
SELECT count(*), sum(length(v)) FROM t;
RELEASE two;
SAVEPOINT three;
DELETE FROM t;
ROLLBACK TO three;
ROLLBACK TO one;
SELECT count(*), sum(length(v)) FROM t;
INSERT INTO t VALUES(7, x'07');
RELEASE one;
COMMIT;
SELECT count(*), sum(length(v)) FROM t;
PRAGMA integrity_check;
@B open ${a}
SELECT id, length(v) FROM t ORDER BY id;
