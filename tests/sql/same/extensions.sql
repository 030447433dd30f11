-- Full-text search, R-trees, JSON, generated columns, WITHOUT ROWID, triggers, views, windows, upserts.
@A open ${a}
CREATE VIRTUAL TABLE docs USING fts5(title, body);
INSERT INTO docs VALUES('first', 'a quick brown fox'), ('second', 'jumps over lazy dogs'), ('third', 'quick dogs');
SELECT title FROM docs WHERE docs MATCH 'quick' ORDER BY title;
INSERT INTO docs(docs) VALUES('optimize');
DELETE FROM docs WHERE title = 'first';
SELECT title FROM docs WHERE docs MATCH 'quick OR lazy' ORDER BY title;
INSERT INTO docs(docs) VALUES('integrity-check');
CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
INSERT INTO boxes SELECT i, i, i + 5, i * 2, i * 2 + 5 FROM n;
SELECT count(*), min(id), max(id) FROM boxes WHERE x0 >= 100 AND x1 <= 200;
CREATE TABLE j(id INTEGER PRIMARY KEY, doc TEXT, n INTEGER GENERATED ALWAYS AS (json_extract(doc, '$.n')) STORED);
INSERT INTO j(doc) VALUES('{"n": 5, "l": [1, 2]}'), ('{"n": 7}');
SELECT id, n, json_array_length(doc, '$.l') FROM j;
CREATE TABLE w(k TEXT PRIMARY KEY, v INTEGER) WITHOUT ROWID;
INSERT INTO w VALUES('b', 2), ('a', 1), ('c', 3);
INSERT INTO w VALUES('a', 10) ON CONFLICT(k) DO UPDATE SET v = v + excluded.v;
SELECT *, sum(v) OVER (ORDER BY k) FROM w;
CREATE TABLE log(what);
CREATE TRIGGER w_log AFTER UPDATE ON w BEGIN INSERT INTO log VALUES(old.k || ':' || old.v || '>' || new.v); END;
UPDATE w SET v = v * 2;
SELECT what FROM log;
CREATE VIEW total AS SELECT sum(v) AS v FROM w;
SELECT v FROM total;
ALTER TABLE w ADD COLUMN extra DEFAULT 'x';
ALTER TABLE w RENAME COLUMN extra TO more;
ALTER TABLE w DROP COLUMN more;
ANALYZE;
SELECT count(*) > 0 FROM sqlite_stat1;
REINDEX;
PRAGMA integrity_check;
@B open ${a}
SELECT title FROM docs WHERE docs MATCH 'dogs' ORDER BY title;
SELECT k, v FROM w;
