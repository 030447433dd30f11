-- Modes that a volume does not have are declined, and everything goes on as before.
@A open ${a}
CREATE TABLE t(v);
PRAGMA journal_mode = WAL;
PRAGMA journal_mode = OFF;
PRAGMA journal_mode;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA locking_mode;
PRAGMA mmap_size = 1000000;
PRAGMA page_size = 8192;
VACUUM;
PRAGMA page_size;
INSERT INTO t VALUES(1);
@B open ${a}
INSERT INTO t VALUES(2);
SELECT v FROM t;
PRAGMA integrity_check;
@C open ${random}&nolock=1
@D open file:no-such-tag?vfs=graft&data=${data}
@E open ${a}&mode=ro
INSERT INTO t VALUES(3);
SELECT v FROM t;
@F open ${a}&immutable=1&mode=ro
SELECT v FROM t;
