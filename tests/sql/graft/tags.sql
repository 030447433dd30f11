-- A tag is a name for a volume in this data directory.
@A open ${random}
CREATE TABLE t(v);
INSERT INTO t VALUES('tagged');
PRAGMA graft_tag = 'main';
@B open ${main}
SELECT v FROM t;
@A close
@B close
@C open ${main}
SELECT v FROM t;
@D open ${random}
PRAGMA graft_tag = 'main';
CREATE TABLE u(v);
@E open ${main}
SELECT name FROM sqlite_schema;
@C
SELECT v FROM t;
