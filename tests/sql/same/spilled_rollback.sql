-- A transaction larger than the cache, rolled back: pages that it spilled, free pages that it used again, and pages that it
-- added are as before.
@A open ${a}
PRAGMA cache_size = 10;
CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
CREATE TABLE junk(v BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
INSERT INTO junk SELECT zeroblob(1000) FROM n;
INSERT INTO t VALUES(1, x'01');
DELETE FROM junk;
SELECT freelist_count > 20 FROM pragma_freelist_count;
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
INSERT INTO t SELECT i, zeroblob(1000) FROM n;
SELECT count(*) FROM t;
ROLLBACK;
SELECT id, v FROM t;
SELECT freelist_count > 20 FROM pragma_freelist_count;
PRAGMA integrity_check;
@B open ${a}
SELECT id, v FROM t;
PRAGMA integrity_check;
