-- Blobs of many pages, changed in place and in size; overflow chains are reused.
@A open ${a}
CREATE TABLE b(id INTEGER PRIMARY KEY, data BLOB);
INSERT INTO b VALUES(1, zeroblob(3000000)), (2, x'00'), (3, zeroblob(100000));
SELECT id, length(data) FROM b;
UPDATE b SET data = zeroblob(500) WHERE id = 1;
UPDATE b SET data = zeroblob(2000000) WHERE id = 2;
BEGIN;
DELETE FROM b WHERE id = 3;
INSERT INTO b VALUES(4, zeroblob(1000000));
ROLLBACK;
SELECT id, length(data) FROM b;
INSERT INTO b SELECT 5, data || x'ff' FROM b WHERE id = 3;
SELECT length(data), substr(data, -1) FROM b WHERE id = 5;
PRAGMA integrity_check;
@B open ${a}
SELECT id, length(data) FROM b;
