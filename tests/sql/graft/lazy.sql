-- A replica in another data directory knows the pages and has none of them; it fetches what it reads, and hydrates.
@A open ${a}
CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO t SELECT i, zeroblob(500) FROM n;
SELECT graft_push() IS NOT NULL;
@B open ${replica}
PRAGMA graft_pages;
SELECT length(v) FROM t WHERE id = 1234;
SELECT available BETWEEN 1 AND 60, pending > 300 FROM (SELECT graft_pages() ->> 'available' AS available, graft_pages() ->> 'pending' AS pending);
SELECT count(*) > 1, min(first), sum(count) FROM graft_pages;
SELECT graft_hydrate() ->> 'fetched' > 300;
SELECT state, first FROM graft_pages;
PRAGMA integrity_check;
@A
INSERT INTO t VALUES(5000, x'01');
SELECT graft_push() IS NOT NULL;
@B
SELECT count(*) FROM t WHERE id = 5000;
SELECT graft_pull() ->> 'pages_changed' BETWEEN 1 AND 5;
SELECT count(*) FROM t WHERE id = 5000;
SELECT count(*) FROM t;
