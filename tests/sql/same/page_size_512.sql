-- A database with pages of 512 bytes.
@A open ${a}
PRAGMA page_size = 512;
CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
PRAGMA page_size;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
INSERT INTO t SELECT i, zeroblob(i * 3) FROM n;
CREATE INDEX t_v ON t(length(v));
@B open ${a}
PRAGMA page_size;
SELECT count(*), sum(length(v)) FROM t;
DELETE FROM t WHERE id % 2;
VACUUM;
@A
SELECT count(*), sum(length(v)) FROM t;
SELECT count(*) FROM t WHERE length(v) > 600;
PRAGMA integrity_check;
