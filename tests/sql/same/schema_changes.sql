-- A schema that changes under an open connection is read anew.
@A open ${a}
CREATE TABLE t(a, b);
INSERT INTO t VALUES(1, 2);
@B open ${a}
SELECT * FROM t;
@A
ALTER TABLE t ADD COLUMN c DEFAULT 3;
@B
SELECT * FROM t;
DROP TABLE t;
CREATE TABLE u(x);
INSERT INTO u VALUES(5);
@A
SELECT * FROM t;
SELECT * FROM u;
PRAGMA user_version = 12;
PRAGMA application_id = 77;
@B
PRAGMA user_version;
PRAGMA application_id;
