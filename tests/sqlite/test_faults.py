# SPDX-License-Identifier: Apache-2.0
"""Databases whose servers are away, whose pages are damaged, whose disk is full; and how little a look-up fetches."""
import contextlib
import json
import os
import sqlite3
import subprocess

import cluster
import sqlite_volume

MIB = 1 << 20
BLOCK = 4096
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
NOWHERE = {"metastore": "http://127.0.0.1:1", "pagestore": "http://127.0.0.1:1", "deadline": "500ms"}


class Faults(sqlite_volume.SqliteTest):
    def fill(self, rows, size, data, **options):
        db = self.open(data=data, **options)
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body)")
        db.execute(NUMBERS + "INSERT INTO t SELECT i, hex(i) || zeroblob(?) FROM n", (rows, size))
        return db, self.vid(db)

    def error_of(self, db, sql):
        with self.assertRaises(sqlite3.Error) as raised:
            db.execute(sql).fetchall()
        return raised.exception.sqlite_errorname

    def causes(self):
        with contextlib.closing(sqlite3.connect(":memory:")) as db:
            db.enable_load_extension(True)
            db.load_extension(str(sqlite_volume.EXTENSION))
            return json.loads(db.execute("SELECT graft_errors()").fetchone()[0])

    def damage(self, data):
        """Changes a byte in each block of the page files but the first ones, which are the schema's."""
        for path in sorted((self.folder / data / "pages").iterdir()):
            with open(path, "r+b") as file:
                for offset in range(64 * BLOCK, path.stat().st_size, BLOCK):
                    file.seek(offset + 1000)
                    byte = file.read(1)
                    file.seek(offset + 1000)
                    file.write(bytes([byte[0] ^ 1]))

    def test_damage_that_only_this_machine_could_mend_is_told(self):
        db, vid = self.fill(3000, 500, "damaged")
        self.close(db)
        self.damage("damaged")
        db = self.open(vid, data="damaged")
        self.assertEqual(self.error_of(db, "SELECT sum(length(body)) FROM t"), "SQLITE_IOERR_DATA")
        cause = self.causes()[-1]
        self.assertEqual((cause["vid"], cause["status"]), (vid, "CORRUPT"))
        self.assertIn("pages/0000", cause["message"])
        db.execute("SELECT name FROM sqlite_schema").fetchall()

    def test_damage_to_what_was_pushed_mends_itself(self):
        db, vid = self.fill(3000, 500, "mending")
        rows = db.execute("SELECT id, body FROM t").fetchall()
        db.execute("SELECT graft_push()")
        self.close(db)
        self.damage("mending")
        db = self.open(vid, data="mending")
        self.assertEqual(db.execute("SELECT id, body FROM t").fetchall(), rows)
        self.check(db)
        self.assertGreater(json.loads(db.execute("SELECT graft_fetch_stats()").fetchone()[0])["pages"], 300)

    def test_servers_that_are_away(self):
        db, vid = self.fill(2000, 500, "home")
        db.execute("SELECT graft_push()")
        self.close(db)
        self.close(self.open(vid, data="far"))
        db = self.open(vid, data="far", **NOWHERE)
        self.assertEqual(self.error_of(db, "SELECT sum(length(body)) FROM t"), "SQLITE_IOERR_READ")
        cause = self.causes()[-1]
        self.assertEqual((cause["vid"], cause["status"]), (vid, "UNAVAILABLE"))
        self.close(db)
        db = self.open(vid, data="far")
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (2000,))

    def test_a_look_up_in_a_fresh_replica_fetches_its_path(self):
        db, vid = self.fill(110_000, 600, "large", cache_limit="0")
        size = db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()[0]
        self.assertGreater(size, 70 * MIB)
        db.execute("SELECT graft_push()")
        self.close(db)
        db = self.open(vid, data="fresh")
        self.assertEqual(db.execute("SELECT id FROM t WHERE id = 77777").fetchone(), (77777,))
        self.assertLessEqual(json.loads(db.execute("SELECT graft_fetch_stats()").fetchone()[0])["pages"], 4)
        db.execute("SELECT graft_hydrate()")
        self.close(db)
        db = self.open(vid, data="fresh", **NOWHERE)
        self.assertEqual(db.execute("SELECT count(*), sum(id) FROM t").fetchone(), (110_000, 110_000 * 110_001 // 2))
        self.check(db)

    def test_a_full_disk(self):
        if os.geteuid() != 0:
            self.skipTest("mounting a tmpfs needs root")
        disk = self.folder / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)]).returncode:
            self.skipTest("no tmpfs can be mounted here")
        self.addCleanup(subprocess.run, ["umount", str(disk)], check=True)
        db, vid = self.fill(500, 1000, "disk/data")
        error = None
        for _ in range(60):
            try:
                db.execute("INSERT INTO t(body) " + NUMBERS.replace("?", "1000") + "SELECT randomblob(2000) FROM n")
            except sqlite3.Error as raised:
                error = raised
                break
        self.assertEqual(error and error.sqlite_errorname, "SQLITE_FULL")
        self.assertEqual(db.execute("SELECT count(*) % 1000 FROM t").fetchone(), (500,))
        self.check(db)
        self.close(db)


if __name__ == "__main__":
    cluster.main()
