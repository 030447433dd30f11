-- Rows go in, change, go away, and another connection sees what was committed.
@A open ${a}
CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT NOT NULL, size REAL, data BLOB);
INSERT INTO t VALUES(1, 'one', 1.5, x'0102'), (2, 'two', NULL, NULL);
INSERT INTO t(name) VALUES('three');
SELECT * FROM t ORDER BY id;
UPDATE t SET size = id * 2 WHERE size IS NULL;
DELETE FROM t WHERE id = 1;
@B open ${a}
SELECT id, name, size FROM t ORDER BY id;
CREATE INDEX t_name ON t(name);
EXPLAIN QUERY PLAN SELECT id FROM t WHERE name = 'two';
SELECT id FROM t WHERE name = 'two';
INSERT INTO t(id, name) VALUES(2, 'again');
INSERT INTO t(name) VALUES(NULL);
SELECT count(*) FROM t;
@A
SELECT name FROM t ORDER BY name;
DROP TABLE t;
@B
SELECT count(*) FROM t;
PRAGMA integrity_check;
SELECT count(*) FROM sqlite_schema;
