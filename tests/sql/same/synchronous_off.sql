-- With synchronous=OFF SQLite never asks for a sync; what is committed is committed all the same.
@A open ${a}
PRAGMA synchronous = OFF;
CREATE TABLE t(id INTEGER PRIMARY KEY, v);
INSERT INTO t VALUES(1, 'a');
@B open ${a}
SELECT * FROM t;
@A
BEGIN;
INSERT INTO t VALUES(2, 'b');
UPDATE t SET v = 'A' WHERE id = 1;
COMMIT;
@B
SELECT * FROM t ORDER BY id;
@A
PRAGMA cache_size = 5;
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO t SELECT i, zeroblob(500) FROM n;
COMMIT;
@B
SELECT count(*), sum(id) FROM t;
PRAGMA integrity_check;
