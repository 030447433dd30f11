-- Readers keep their snapshot while others commit; one writer at a time; a reader that was overtaken cannot write.
@A open ${a}
CREATE TABLE t(id INTEGER PRIMARY KEY, v);
INSERT INTO t VALUES(1, 'a'), (2, 'b'), (3, 'c');
@B open ${a}
@ step B 1 SELECT v FROM t ORDER BY id
@A
UPDATE t SET v = v || '!';
SELECT v FROM t;
@ finish B
@B
SELECT v FROM t;
BEGIN;
SELECT count(*) FROM t;
@A
INSERT INTO t VALUES(4, 'd');
@B
SELECT count(*) FROM t;
INSERT INTO t VALUES(5, 'e');
ROLLBACK;
BEGIN IMMEDIATE;
@A
BEGIN IMMEDIATE;
INSERT INTO t VALUES(6, 'f');
SELECT count(*) FROM t;
@B
INSERT INTO t VALUES(5, 'e');
COMMIT;
@A
INSERT INTO t VALUES(6, 'f');
SELECT id FROM t;
PRAGMA integrity_check;
