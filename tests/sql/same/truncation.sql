-- Files shrink by VACUUM and auto_vacuum and grow again; nothing of what was cut off comes back.
@A open ${a}
PRAGMA auto_vacuum = INCREMENTAL;
VACUUM;
CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO t SELECT i, zeroblob(2000) FROM n;
SELECT page_count > 150 FROM pragma_page_count;
DELETE FROM t WHERE id > 10;
PRAGMA incremental_vacuum;
SELECT page_count < 20 FROM pragma_page_count;
PRAGMA integrity_check;
@B open ${a}
SELECT count(*), sum(length(v)) FROM t;
WITH RECURSIVE n(i) AS (SELECT 11 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
INSERT INTO t SELECT i, randomblob(2000) FROM n;
DELETE FROM t WHERE id BETWEEN 5 AND 190;
@A
VACUUM;
SELECT page_count < 25 FROM pragma_page_count;
SELECT count(*), sum(length(v)), min(id), max(id) FROM t;
PRAGMA integrity_check;
PRAGMA auto_vacuum = NONE;
VACUUM;
PRAGMA auto_vacuum;
DELETE FROM t;
VACUUM;
SELECT page_count FROM pragma_page_count;
@B
SELECT count(*) FROM t;
PRAGMA integrity_check;
