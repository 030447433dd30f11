-- Two replicas write. The second push is rejected; its commits stay until a reset, or go on living in a fork.
@A open ${a}
CREATE TABLE t(id INTEGER PRIMARY KEY, v);
INSERT INTO t VALUES(1, 'both');
SELECT graft_push() ->> 'remote_lsn';
@B open ${replica}
SELECT * FROM t;
INSERT INTO t VALUES(2, 'B');
@A
INSERT INTO t VALUES(2, 'A');
SELECT graft_push() ->> 'remote_lsn';
@B
SELECT graft_push();
SELECT graft_status() ->> 'status', graft_status() ->> 'pending_commits';
SELECT * FROM t;
INSERT INTO t VALUES(3, 'not taken');
SELECT graft_pull();
SELECT graft_fork() ->> 'pages' > 0;
SELECT graft_reset() ->> 'commits_dropped';
SELECT * FROM t;
SELECT graft_status() ->> 'status', graft_status() ->> 'pending_commits';
INSERT INTO t VALUES(3, 'B again');
SELECT graft_push() ->> 'remote_lsn';
PRAGMA integrity_check;
SELECT count(*), sum(pages > 0) FROM graft_volumes;
@A
SELECT graft_pull() ->> 'pages_changed' > 0;
SELECT * FROM t;
PRAGMA integrity_check;
