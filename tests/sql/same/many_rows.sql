-- 100,000 rows with two indices, looked up, changed and removed in part.
@A open ${a}
CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b TEXT);
CREATE INDEX t_a ON t(a);
CREATE INDEX t_b ON t(b);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
INSERT INTO t SELECT i, (i * 7919) % 10007, printf('name-%06d', (i * 31) % 100000) FROM n;
COMMIT;
SELECT count(*), sum(a), min(b), max(b) FROM t;
@B open ${a}
SELECT id FROM t WHERE b = 'name-000031';
SELECT count(*) FROM t WHERE a BETWEEN 100 AND 200;
DELETE FROM t WHERE id % 3 = 0;
UPDATE t SET b = b || '!' WHERE a < 100;
SELECT count(*), sum(a), count(DISTINCT b) FROM t;
@A
SELECT count(*), sum(id) FROM t;
SELECT count(*) FROM t WHERE b LIKE '%!';
PRAGMA integrity_check;
