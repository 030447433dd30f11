-- What is rolled back was never there: for this connection, for another, and for one that opens later.
@A open ${a}
CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);
INSERT INTO t VALUES(1, 'kept');
BEGIN;
INSERT INTO t VALUES(2, 'dropped');
UPDATE t SET v = 'changed' WHERE id = 1;
SELECT * FROM t ORDER BY id;
@B open ${a}
SELECT * FROM t ORDER BY id;
@A
ROLLBACK;
SELECT * FROM t ORDER BY id;
@B
SELECT * FROM t ORDER BY id;
BEGIN IMMEDIATE;
DROP TABLE t;
CREATE TABLE u(x);
ROLLBACK;
SELECT name FROM sqlite_schema;
@B close
@C open ${a}
SELECT * FROM t ORDER BY id;
PRAGMA integrity_check;
