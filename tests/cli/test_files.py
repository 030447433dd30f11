# SPDX-License-Identifier: Apache-2.0
"""import and export: what comes out equals what went in."""
import os
import random
import sqlite3
import subprocess

import cluster


class Files(cluster.GraftTest):
    def round_trip(self, data, *options):
        path = self.write_file("in", data)
        vid = self.graft_text("import", path, *options)
        self.graft("push", vid)
        self.graft("clone", vid, data="b")
        for where in ("a", "b"):
            out = self.folder / "out"
            self.graft("export", vid, out, data=where)
            self.assertEqual(out.read_bytes(), data, f"exported from {where}")
            self.assertEqual(self.graft("export", vid, "-", data=where), data)
        return vid

    def test_every_size_survives(self):
        source = random.Random(1)
        for size in (0, 1, 511, 512, 4095, 4096, 4097, 8192, 100_001, 1_048_576, 1_048_577, 5_000_000):
            with self.subTest(size=size):
                self.round_trip(source.randbytes(size))

    def test_a_cache_limit_bounds_what_is_fetched(self):
        data = random.Random(2).randbytes(20_480_000)
        vid = self.graft_text("import", self.write_file("in", data))
        self.graft("push", vid)
        limit = {"GRAFT_CACHE_LIMIT": "8M"}
        self.graft("clone", vid, data="limited", env=limit)
        for _ in range(2):
            self.assertEqual(self.graft("export", vid, "-", data="limited", env=limit), data)
            cached = sum(path.stat().st_size for path in (self.folder / "limited/cache").iterdir())
            self.assertLessEqual(cached, 8 << 20)
        row = self.graft_json("status", vid, data="limited")[0]
        self.assertEqual(row["cache"]["size"], cached)
        self.assertEqual(row["cache"]["live"], row["pages_available"] * 4096)
        self.assertEqual(row["pages_available"] + row["pages_pending"], row["page_count"])
        self.assertGreater(row["pages_available"], 1024)
        # Without a limit all of it stays, until one is given.
        self.graft("export", vid, self.folder / "out", data="limited")
        self.assertEqual(self.graft_json("status", vid, data="limited")[0]["pages_pending"], 0)
        row = self.graft_json("status", vid, "--cache-limit", "10M", data="limited")[0]
        self.assertGreater(row["cache"]["evicted_pages"], 2000)
        self.assertLessEqual(row["cache"]["size"], 10 << 20)
        self.assertEqual(row["cache"]["limit"], 10 << 20)
        self.assertIn(b"cache: ", self.graft("status", data="limited"))
        self.graft("status", "--cache-limit", "1M", data="limited", code=1)
        self.assertIn("too little", self.stderr)

    def test_page_size_can_be_chosen(self):
        vid = self.round_trip(os.urandom(200_000), "--page-size", "64K")
        row = self.graft_json("status", vid)[0]
        self.assertEqual((row["page_size"], row["kind"], row["page_count"]), (65536, "variable", 4))

    def test_zeros_survive(self):
        self.round_trip(b"\0" * 40_960)

    def database(self, name, page_size=4096, rows=2000):
        path = self.folder / name
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA page_size = {page_size}")
            db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT)")
            db.executemany("INSERT INTO t VALUES(?, ?)", ((i, f"row {i} " * 20) for i in range(rows)))
        db.close()
        return path

    def test_a_database_gives_its_page_size(self):
        for page_size in (512, 1024, 8192, 65536):
            with self.subTest(page_size):
                path = self.database("sized.db", page_size)
                vid = self.graft_text("import", path)
                self.assertEqual(self.graft_json("status", vid)[0]["page_size"], page_size)

    def test_an_exported_database_works(self):
        path = self.database("app.db")
        vid = self.round_trip(path.read_bytes())
        self.graft("export", vid, self.folder / "copy.db", data="b")
        with sqlite3.connect(self.folder / "copy.db") as db:
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchone(), ("ok",))
            self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (2000,))
        db.close()

    def test_a_second_import_commits_only_what_differs(self):
        path = self.database("changing.db")
        vid = self.graft_text("import", path)
        self.graft("push", vid)
        with sqlite3.connect(path) as db:
            db.execute("UPDATE t SET body = upper(body) WHERE id = 1000")
        db.close()
        answer = self.graft_json("import", path, vid)
        self.assertGreater(answer["pages_changed"], 0)
        self.assertLess(answer["pages_changed"], 5)
        self.graft("push", vid)
        self.assertEqual(self.graft_json("log", vid)[0]["pages_changed"], answer["pages_changed"])
        self.assertEqual(self.graft_json("import", path, vid)["pages_changed"], 0)
        # the same from a replica that has none of the pages
        self.graft("clone", vid, data="c")
        self.assertEqual(self.graft_json("import", path, vid, data="c")["pages_changed"], 0)

    def test_a_shorter_file_truncates_and_older_commits_stay(self):
        long, short = os.urandom(40_960), os.urandom(8192)
        vid = self.round_trip(long)
        self.graft("import", self.write_file("short", short), vid)
        self.assertEqual(self.graft("export", vid, "-"), short)
        self.graft("push", vid)
        self.graft("pull", vid, data="b")
        self.assertEqual(self.graft("export", vid, "-", data="b"), short)
        self.assertEqual(self.graft("export", vid, "-", "--lsn", 1, data="b"), long)
        again = short + b"\0" * 8192 + short
        self.graft("import", self.write_file("again", again), vid)
        self.graft("push", vid)
        self.graft("clone", vid, data="d")
        self.assertEqual(self.graft("export", vid, "-", data="d"), again)

    def test_a_hot_journal_is_refused(self):
        for suffix in ("-wal", "-journal"):
            with self.subTest(suffix):
                path = self.database("hot.db")
                journal = self.write_file("hot.db" + suffix, b"hot")
                self.graft("import", path, code=1)
                self.assertIn("hot.db" + suffix, self.stderr)
                journal.write_bytes(b"")
                self.graft("import", path)
                journal.unlink()

    def test_a_fixed_volume_takes_whole_pages_only(self):
        vid = self.graft_text("import", self.write_file("whole", b"w" * 8192))
        self.graft("import", self.write_file("part", b"w" * 8000), vid, code=1)
        self.assertIn("multiple", self.stderr)
        self.assertEqual(self.graft("export", vid, "-"), b"w" * 8192)

    def test_a_failed_import_leaves_nothing(self):
        before = self.graft_text("volume", "list")
        self.graft("import", self.folder / "not-there", code=1)
        self.assertIn("not-there", self.stderr)
        self.graft("import", self.folder, code=1)
        self.assertEqual(self.graft_text("volume", "list"), before)

    def test_a_failed_export_leaves_no_file(self):
        vid = self.graft_text("import", self.write_file("x", os.urandom(100_000)))
        target = self.folder / "no-such-folder" / "file"
        self.graft("export", vid, target, code=1)
        self.assertIn("no-such-folder", self.stderr)
        with open("/dev/full", "wb") as full:
            result = subprocess.run([cluster.CLI, "export", vid, "-"], env=self.cluster.environment("a"), stdout=full,
                                    stderr=subprocess.PIPE)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"No space left", result.stderr)


if __name__ == "__main__":
    cluster.main()
