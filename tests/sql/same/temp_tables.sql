-- TEMP tables and sorting lie beside the database and leave no trace in it.
@A open ${a}
PRAGMA temp_store = FILE;
CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO t SELECT i, (i * 7919) % 20011 FROM n;
CREATE TEMP TABLE s AS SELECT v FROM t ORDER BY v DESC;
CREATE TEMP TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO s VALUES(-new.id); END;
INSERT INTO t VALUES(20001, 0);
SELECT count(*), min(v) FROM s;
BEGIN;
INSERT INTO s VALUES(1), (2);
INSERT INTO t VALUES(20002, 0);
ROLLBACK;
SELECT count(*), min(v) FROM s;
@B open ${a}
SELECT count(*) FROM t;
SELECT count(*) FROM s;
SELECT name FROM sqlite_schema ORDER BY name;
