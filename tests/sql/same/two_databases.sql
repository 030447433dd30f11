-- One transaction over two databases: both change or neither does.
@A open ${a}
ATTACH '${b}' AS b;
CREATE TABLE main.t(id INTEGER PRIMARY KEY, v);
CREATE TABLE b.u(id INTEGER PRIMARY KEY, v);
BEGIN;
INSERT INTO t VALUES(1, 'here');
INSERT INTO u VALUES(1, 'there');
COMMIT;
BEGIN;
INSERT INTO t VALUES(2, 'here');
INSERT INTO u VALUES(2, 'there');
ROLLBACK;
SELECT * FROM t;
SELECT * FROM u;
PRAGMA foreign_keys = ON;
CREATE TABLE b.p(id INTEGER PRIMARY KEY);
CREATE TABLE b.c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED);
BEGIN;
INSERT INTO t VALUES(3, 'here');
INSERT INTO c VALUES(99);
COMMIT;
ROLLBACK;
SELECT * FROM t;
SELECT count(*) FROM c;
@B open ${b}
SELECT * FROM u;
PRAGMA integrity_check;
