-- VACUUM INTO and ATTACH by path make and use ordinary files of the host.
@A open ${a}
CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);
INSERT INTO t VALUES(1, 'one'), (2, 'two');
VACUUM INTO '${tmp}/copy.db';
ATTACH '${tmp}/copy.db' AS copy;
SELECT * FROM copy.t ORDER BY id;
INSERT INTO copy.t VALUES(3, 'three');
SELECT * FROM t ORDER BY id;
INSERT INTO t SELECT * FROM copy.t WHERE id = 3;
DETACH copy;
SELECT * FROM t ORDER BY id;
PRAGMA integrity_check;
