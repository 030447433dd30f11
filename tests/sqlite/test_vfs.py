# SPDX-License-Identifier: Apache-2.0
"""The VFS: transactions, locks, sizes and names, with the servers' help where that is needed."""
import os
import pathlib
import sqlite3
import subprocess
import sys
import time

import cluster
import sqlite_volume

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "


class Transactions(sqlite_volume.SqliteTest):
    def table(self, rows=1000, **options):
        db = self.open(**options)
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body)")
        db.execute(NUMBERS + "INSERT INTO t SELECT i, randomblob(300) FROM n", (rows,))
        return db

    def test_what_is_committed_is_there_when_it_is_opened_again(self):
        db = self.table()
        vid = self.vid(db)
        rows = db.execute("SELECT * FROM t").fetchall()
        self.close(db)
        db = self.open(vid)
        self.assertEqual(db.execute("SELECT * FROM t").fetchall(), rows)
        self.check(db)

    def test_a_transaction_is_one_local_commit(self):
        db = self.table(10)
        vid = self.vid(db)
        self.close(db)
        before = self.lsn(vid)
        db = self.open(vid)
        db.execute("BEGIN")
        for i in range(50):
            db.execute("INSERT INTO t(body) VALUES(randomblob(3000))")
        db.execute("COMMIT")
        self.close(db)
        self.assertEqual(self.lsn(vid), before + 1)

    def test_a_rollback_leaves_no_trace_also_after_a_spill(self):
        db = self.table()
        vid = self.vid(db)
        rows = db.execute("SELECT * FROM t").fetchall()
        self.close(db)
        before = self.lsn(vid)
        db = self.open(vid)
        db.execute("PRAGMA cache_size = 10")
        db.execute("BEGIN")
        db.execute("UPDATE t SET body = zeroblob(2000)")
        db.execute("ROLLBACK")
        self.assertEqual(db.execute("SELECT * FROM t").fetchall(), rows)
        self.check(db)
        self.close(db)
        self.assertEqual(self.lsn(vid), before)

    def test_savepoints_under_every_journal_mode(self):
        for mode in ("delete", "truncate", "persist", "memory", "off", "wal"):
            with self.subTest(mode):
                db = self.table(2000)
                self.assertEqual(db.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0],
                                 "delete" if mode in ("off", "wal") else mode)
                db.execute("PRAGMA cache_size = 10")
                rows = db.execute("SELECT * FROM t").fetchall()
                db.execute("BEGIN")
                db.execute("INSERT INTO t(body) VALUES('kept')")
                db.execute("SAVEPOINT one")
                db.execute("UPDATE t SET body = zeroblob(900)")
                db.execute("DELETE FROM t WHERE id % 3 = 0")
                db.execute("ROLLBACK TO one")
                db.execute("COMMIT")
                self.assertEqual(db.execute("SELECT * FROM t").fetchall(), [*rows, (2001, "kept")])
                self.check(db)

    def test_large_transactions_spill(self):
        db = self.table(10)
        db.execute(NUMBERS + "INSERT INTO t(body) SELECT randomblob(4000) FROM n", (10_000,))
        vid = self.vid(db)
        total = db.execute("SELECT count(*), sum(length(body)) FROM t").fetchone()
        self.close(db)
        db = self.open(vid)
        self.assertEqual(db.execute("SELECT count(*), sum(length(body)) FROM t").fetchone(), total)
        self.check(db)

    def test_vacuum_makes_it_shorter(self):
        db = self.table(5000)
        before = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute("DELETE FROM t WHERE id > 10")
        db.execute("VACUUM")
        after = db.execute("PRAGMA page_count").fetchone()[0]
        self.assertLess(after, before / 10)
        self.check(db)
        vid = self.vid(db)
        self.close(db)
        self.assertEqual(self.graft_json("status", vid)[0]["page_count"], after)
        db = self.open(vid)
        self.check(db)
        db.execute(NUMBERS + "INSERT INTO t(body) SELECT randomblob(300) FROM n", (5000,))
        self.check(db)
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (5010,))

    def test_auto_vacuum(self):
        db = self.open()
        db.execute("PRAGMA auto_vacuum = full")
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body)")
        db.execute(NUMBERS + "INSERT INTO t SELECT i, randomblob(300) FROM n", (3000,))
        before = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute("DELETE FROM t WHERE id % 10")
        self.assertLess(db.execute("PRAGMA page_count").fetchone()[0], before / 2)
        self.check(db)

    def test_every_page_size(self):
        for page_size in (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536):
            with self.subTest(page_size):
                db = self.open()
                db.execute(f"PRAGMA page_size = {page_size}")
                db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body)")
                db.execute(NUMBERS + "INSERT INTO t SELECT i, randomblob(i % 3000) FROM n", (500,))
                rows = db.execute("SELECT * FROM t").fetchall()
                vid = self.vid(db)
                self.close(db)
                self.assertEqual(self.graft_json("status", vid)[0]["page_size"], page_size)
                db = self.open(vid)
                self.assertEqual(db.execute("PRAGMA page_size").fetchone(), (page_size,))
                self.assertEqual(db.execute("SELECT * FROM t").fetchall(), rows)
                db.execute("DELETE FROM t")
                db.execute("VACUUM")
                self.check(db)
                self.close(db)

    def test_an_empty_volume_gives_its_page_size(self):
        vid = self.graft_text("volume", "create", "--page-size", "16K")
        db = self.open(vid)
        db.execute("PRAGMA page_size = 1024")
        db.execute("CREATE TABLE t(a)")
        self.assertEqual(db.execute("PRAGMA page_size").fetchone(), (16384,))
        self.check(db)

    def test_a_backup_of_another_page_size_is_refused_and_harmless(self):
        db = self.table()
        rows = db.execute("SELECT * FROM t").fetchall()
        source = sqlite3.connect(":memory:")
        source.execute("PRAGMA page_size = 1024")
        source.execute("CREATE TABLE other(a)")
        source.commit()
        with self.assertRaises(sqlite3.Error):
            source.backup(db)
        source.close()
        vid = self.vid(db)
        self.close(db)
        db = self.open(vid)
        self.assertEqual(db.execute("SELECT * FROM t").fetchall(), rows)
        self.check(db)

    def test_a_backup_of_a_wal_database_can_be_opened(self):
        path = self.folder / "wal.db"
        source = sqlite3.connect(path)
        source.execute("PRAGMA journal_mode = wal")
        source.execute("CREATE TABLE other AS SELECT 7 AS a")
        source.commit()
        db = self.table(10)
        source.backup(db)
        source.close()
        self.assertEqual(db.execute("SELECT a FROM other").fetchall(), [(7,)])
        db.execute("INSERT INTO other VALUES(8)")
        vid = self.vid(db)
        self.close(db)
        db = self.open(vid)
        self.assertEqual(db.execute("SELECT a FROM other").fetchall(), [(7,), (8,)])

    def test_pragmas_that_a_volume_cannot_follow(self):
        db = self.table(10)
        self.assertEqual(db.execute("PRAGMA locking_mode = exclusive").fetchone(), ("normal",))
        self.assertEqual(db.execute("PRAGMA mmap_size = 1000000").fetchone(), ("0",))
        db.execute("PRAGMA synchronous = off")
        db.execute("INSERT INTO t(body) VALUES(1)")
        other = self.open(self.vid(db))
        self.assertEqual(other.execute("SELECT count(*) FROM t").fetchone(), (11,))

    def test_exclusive_mode_and_wal_by_way_of_another_main_database(self):
        db = self.table(10)
        vid = self.vid(db)
        self.close(db)
        native = sqlite3.connect(self.folder / "native.db", isolation_level=None)
        self.connections.append(native)
        native.execute("CREATE TABLE n(a)")
        native.execute("ATTACH ? AS v", (self.uri(vid),))
        native.execute("PRAGMA locking_mode = exclusive")
        self.fails(native, "PRAGMA journal_mode = wal", "disk I/O error")
        native.execute("INSERT INTO v.t(body) VALUES(1)")
        native.execute("INSERT INTO v.t(body) VALUES(2)")
        self.close(native)
        db = self.open(vid)
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (12,))
        db.execute("INSERT INTO t(body) VALUES(3)")
        self.check(db)


class Connections(sqlite_volume.SqliteTest):
    def pair(self):
        one = self.open()
        one.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body)")
        return one, self.open(self.vid(one))

    def test_a_commit_shows_in_another_connection_at_its_next_transaction(self):
        one, two = self.pair()
        two.execute("BEGIN")
        self.assertEqual(two.execute("SELECT count(*) FROM t").fetchone(), (0,))
        one.execute("INSERT INTO t(body) VALUES('x')")
        self.assertEqual(two.execute("SELECT count(*) FROM t").fetchone(), (0,))
        two.execute("COMMIT")
        self.assertEqual(two.execute("SELECT count(*) FROM t").fetchone(), (1,))
        two.execute("CREATE TABLE u(a)")
        one.execute("INSERT INTO u VALUES(1)")
        self.assertEqual(two.execute("SELECT a FROM u").fetchall(), [(1,)])

    def test_one_writer_at_a_time(self):
        one, two = self.pair()
        one.execute("BEGIN IMMEDIATE")
        self.fails(two, "BEGIN IMMEDIATE", "locked")
        self.assertEqual(two.execute("SELECT count(*) FROM t").fetchone(), (0,))
        one.execute("COMMIT")
        two.execute("BEGIN IMMEDIATE")
        two.execute("COMMIT")

    def test_a_reader_with_an_old_snapshot_cannot_begin_to_write(self):
        one, two = self.pair()
        two.execute("BEGIN")
        two.execute("SELECT count(*) FROM t").fetchone()
        one.execute("INSERT INTO t(body) VALUES('x')")
        self.fails(two, "INSERT INTO t(body) VALUES('y')", "locked")
        two.execute("ROLLBACK")
        two.execute("INSERT INTO t(body) VALUES('y')")
        self.assertEqual(one.execute("SELECT body FROM t").fetchall(), [("x",), ("y",)])

    def test_a_second_process_is_told_that_the_directory_is_taken(self):
        one, _ = self.pair()
        result = subprocess.run([cluster.CLI, "status", self.vid(one)],
                                env=self.cluster.environment("a"), capture_output=True, timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertIn(str(os.getpid()), result.stderr.decode())
        script = f".log stderr\n.load {sqlite_volume.EXTENSION}\n.open {self.uri(self.vid(one))}\nSELECT 1 FROM t;\n"
        result = subprocess.run(["sqlite3"], input=script, capture_output=True, text=True, timeout=60)
        self.assertIn("database is locked", result.stderr)
        self.assertIn(f"process {os.getpid()}", result.stderr)

    def test_a_child_of_fork_gets_errors_and_harms_nothing(self):
        one, _ = self.pair()
        pid = os.fork()
        if pid == 0:
            try:
                one.execute("INSERT INTO t(body) VALUES('child')")
                os._exit(1)
            except sqlite3.Error:
                os._exit(0)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        one.execute("INSERT INTO t(body) VALUES('parent')")
        self.assertEqual(one.execute("SELECT body FROM t").fetchall(), [("parent",)])


class Settings(sqlite_volume.SqliteTest):
    """In processes of their own, for the environment is read there."""

    def python(self, program, **environment):
        head = ("import sqlite3, os, sys\n"
                "loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True)\n"
                f"loader.load_extension({str(sqlite_volume.EXTENSION)!r})\n")
        result = subprocess.run([sys.executable, "-c", head + program], capture_output=True, text=True, timeout=60,
                                cwd=self.folder, env={**self.cluster.environment("s"), **environment})
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.strip()

    def test_the_default_for_programs_that_cannot_name_one(self):
        vid = self.python("db = sqlite3.connect('file:random?vfs=graft', uri=True)\n"
                          "db.execute('CREATE TABLE t AS SELECT 5 AS a'); db.commit()\n"
                          "print(db.execute('PRAGMA database_list').fetchone()[2].rsplit('/', 1)[1])")
        said = self.python(f"db = sqlite3.connect({vid!r})\nprint(db.execute('SELECT a FROM t').fetchone()[0])",
                           GRAFT_MAKE_DEFAULT="1")
        self.assertEqual(said, "5")
        self.assertFalse((self.folder / vid).exists())

    def test_stub_files_for_new_databases(self):
        program = ("db = sqlite3.connect('made.db')\n"
                   "db.execute('PRAGMA page_size = 8192')\n"
                   "{}; db.commit()\n"
                   "print(db.execute('PRAGMA page_size').fetchone()[0])")
        options = {"GRAFT_MAKE_DEFAULT": "1", "GRAFT_STUBS": "1"}
        self.python("db = sqlite3.connect('made.db'); db.execute('SELECT 1 FROM sqlite_schema')", **options)
        self.assertTrue((self.folder / "made.db").read_text().startswith("graft volume "))
        self.assertEqual(self.python(program.format("db.execute('CREATE TABLE t(a)')"), **options), "8192")
        self.assertEqual(self.python(program.format("db.execute('INSERT INTO t VALUES(1)')"), **options), "8192")
        self.assertEqual(list((self.folder / "s" / "sqlite").glob("*.new")), [])

    def test_a_configuration_file(self):
        config = self.write_file("graft.conf", f"data = {self.folder}/by-file\n".encode())
        self.python("db = sqlite3.connect('file:random?vfs=graft', uri=True); db.execute('CREATE TABLE t(a)')",
                    GRAFT_DATA="", GRAFT_CONFIG=str(config))
        self.assertTrue((self.folder / "by-file" / "sqlite").is_dir())

    def test_settings_that_cannot_be(self):
        with self.assertRaisesRegex(AssertionError, "GRAFT_MAKE_DEFAULT"):
            self.python("", GRAFT_MAKE_DEFAULT="perhaps")
        for name, value in (("durability", "maybe"), ("deadline", "soon"), ("lsn", "x"), ("lsn", "0")):
            with self.subTest(f"{name}={value}"), self.assertRaises(sqlite3.OperationalError):
                self.open(data="fresh", **{name: value}).execute("SELECT 1 FROM sqlite_schema").fetchall()

    def test_background_sync(self):
        db = self.open(data="sync-a", autosync=1)
        db.execute("CREATE TABLE t(a)")
        vid = self.vid(db)
        db.execute("INSERT INTO t VALUES(1)")
        other = self.until(lambda: self.open(vid, data="sync-b", autosync=1))
        self.until(lambda: other.execute("SELECT a FROM t").fetchall() == [(1,)])
        other.execute("INSERT INTO t VALUES(2)")
        self.until(lambda: db.execute("SELECT a FROM t").fetchall() == [(1,), (2,)])

    def until(self, holds, seconds=30):
        """Asks again until it is so: nothing tells an application when background sync has done something."""
        end = time.monotonic() + seconds
        while True:
            try:
                answer = holds()
                if answer:
                    return answer
            except sqlite3.Error as error:
                answer = error
            self.assertLess(time.monotonic(), end, answer)
            time.sleep(0.02)


class Replicas(sqlite_volume.SqliteTest):
    def replicated(self, rows=100):
        one = self.open()
        one.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body)")
        one.execute(NUMBERS + "INSERT INTO t SELECT i, randomblob(300) FROM n", (rows,))
        vid = self.vid(one)
        self.close(one)
        self.graft("push", vid)
        return vid

    def test_a_clone_reads_lazily_and_writes(self):
        vid = self.replicated(3000)
        db = self.open(vid, data="b")
        self.assertEqual(db.execute("SELECT id FROM t WHERE id = 1234").fetchone(), (1234,))
        db.execute("UPDATE t SET body = 'b' WHERE id = 7")
        self.close(db)
        status = self.graft_json("status", vid, data="b")[0]
        self.assertGreater(status["pages_pending"], status["page_count"] * 0.9)
        self.graft("push", vid, data="b")
        self.graft("pull", vid)
        db = self.open(vid)
        self.assertEqual(db.execute("SELECT body FROM t WHERE id = 7").fetchone(), ("b",))
        self.check(db)

    def test_pulls_land_under_readers_and_wait_for_writers(self):
        vid = self.replicated()
        other = self.open(vid, data="b")
        db = self.open(vid, autosync=1)
        db.execute("BEGIN")
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (100,))
        other.execute("DELETE FROM t WHERE id > 50")
        self.close(other)
        self.graft("push", vid, data="b")
        Settings.until(self, lambda: self.open(vid).execute("SELECT count(*) FROM t").fetchone() == (50,))
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (100,), "inside a transaction")
        self.fails(db, "INSERT INTO t VALUES(1000, 1)", "locked")
        db.execute("COMMIT")
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (50,))
        # under a lock that writes
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN EXCLUSIVE")
        other = self.open(vid, data="b")
        other.execute("DELETE FROM t WHERE id > 10")
        self.close(other)
        self.graft("push", vid, data="b")
        reader = self.open(vid)
        time.sleep(0.5)  # a pull that must not be
        self.assertEqual(reader.execute("SELECT count(*) FROM t").fetchone(), (50,))
        db.execute("ROLLBACK")
        Settings.until(self, lambda: reader.execute("SELECT count(*) FROM t").fetchone() == (10,))
        self.check(db)

    def test_after_a_reset_open_connections_see_the_other_schema(self):
        vid = self.replicated()
        remote = self.open(vid, data="b")
        remote.execute("CREATE TABLE x(a, b)")
        self.close(remote)
        self.graft("push", vid, data="b")
        # As many changes of the schema, so that the cookies are equal.
        db, other = self.open(vid), self.open(vid)
        db.execute("CREATE TABLE y(a, b)")
        insert = "INSERT INTO y VALUES(1, 2)"
        db.execute(insert)
        cookies = [db.execute("PRAGMA schema_version").fetchone()[0]]
        other.execute("SELECT graft_reset()").fetchall()
        self.fails(db, insert, "no such table: y")
        cookies.append(db.execute("PRAGMA schema_version").fetchone()[0])
        self.assertGreater(cookies[1], cookies[0], "no cookie comes twice in a connection")
        self.assertEqual(db.execute("SELECT count(*) FROM x").fetchone(), (0,))
        db.execute("CREATE TABLE z(a)")
        self.check(db)
        self.close(db, other)
        # What was added for the connection was taken off again.
        fresh = self.open(vid)
        self.assertEqual(fresh.execute("PRAGMA schema_version").fetchone()[0], cookies[0] + 1)
        fresh.execute("SELECT graft_push()").fetchall()
        self.close(fresh)
        remote = self.open(vid, data="b")
        remote.execute("SELECT graft_pull()").fetchall()
        self.assertEqual(remote.execute("SELECT count(*) FROM z").fetchone(), (0,))
        self.check(remote)

    def test_a_pull_moves_open_connections_to_the_new_schema(self):
        vid = self.replicated()
        db, other = self.open(vid), self.open(vid)
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (100,))
        remote = self.open(vid, data="b")
        remote.execute("ALTER TABLE t ADD COLUMN more DEFAULT 5")
        self.close(remote)
        self.graft("push", vid, data="b")
        other.execute("SELECT graft_pull()").fetchall()
        self.assertEqual(db.execute("SELECT * FROM t WHERE id = 1").fetchone()[2], 5)

    def test_a_rejected_volume_is_read_only_until_it_is_reset(self):
        vid = self.replicated()
        remote = self.open(vid, data="b")
        remote.execute("DELETE FROM t WHERE id = 1")
        self.close(remote)
        self.graft("push", vid, data="b")
        db, other = self.open(vid), self.open(vid)
        db.execute("DELETE FROM t WHERE id > 1")
        self.fails(other, "SELECT graft_push()", "")
        self.fails(db, "DELETE FROM t", "readonly")
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (1,))
        other.execute("SELECT graft_reset()").fetchall()
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (99,))
        db.execute("DELETE FROM t WHERE id = 2")
        self.check(db)

    def test_a_missing_page_without_servers_is_an_error_and_nothing_worse(self):
        vid = self.replicated()
        self.close(self.open(vid, data="c"))
        nowhere = {"metastore": "http://127.0.0.1:1", "pagestore": "http://127.0.0.1:1", "deadline": "500ms"}
        db = self.open(vid, data="c", **nowhere)
        self.fails(db, "SELECT count(*) FROM t", "disk I/O error")
        self.close(db)
        db = self.open(vid, data="c")
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (100,))
        self.check(db)

    def test_a_snapshot_by_lsn_is_read_only(self):
        vid = self.replicated()
        db = self.open(vid)
        db.execute("DELETE FROM t")
        self.close(db)
        self.graft("push", vid)
        old = self.open(vid, lsn=1)
        self.assertEqual(old.execute("SELECT count(*) FROM t").fetchone(), (100,))
        self.fails(old, "DELETE FROM t", "readonly")
        self.assertEqual(self.open(vid).execute("SELECT count(*) FROM t").fetchone(), (0,))


class Names(sqlite_volume.SqliteTest):
    def test_what_is_no_volume(self):
        for name in ("nothing", "x.db", "GvxPQtsxhuEeExdHytFfn"):
            with self.subTest(name), self.assertRaises(sqlite3.OperationalError):
                self.open(name).execute("SELECT 1 FROM sqlite_schema").fetchall()
        self.assertFalse(pathlib.Path("x.db").exists())

    def test_a_path_is_a_file_of_the_host(self):
        db = self.open()
        db.execute("CREATE TABLE t(a)")
        path = self.folder / "plain.db"
        db.execute("ATTACH ? AS plain", (str(path),))
        db.execute("CREATE TABLE plain.t(a)")
        self.assertTrue(path.read_bytes().startswith(b"SQLite format 3"))
        db.execute("DETACH plain")
        copy = self.folder / "copy.db"
        db.execute("INSERT INTO t VALUES(1)")
        db.execute("VACUUM INTO ?", (str(copy),))
        with sqlite3.connect(copy) as native:
            self.assertEqual(native.execute("SELECT a FROM t").fetchall(), [(1,)])
        native.close()

    def test_a_stub_file_opens_as_its_volume(self):
        db = self.open()
        db.execute("CREATE TABLE t(a)")
        vid = self.vid(db)
        self.close(db)
        stub = self.folder / "stub.db"
        self.graft("stub", vid, stub)
        db = self.open(stub)
        db.execute("INSERT INTO t VALUES(1)")
        self.assertEqual(db.execute("PRAGMA database_list").fetchone()[2], str(stub))
        self.assertEqual(self.open(vid).execute("SELECT a FROM t").fetchall(), [(1,)])
        self.assertEqual(sorted(p.name for p in self.folder.glob("stub.db*")), ["stub.db"])

    def test_nolock_and_immutable(self):
        db = self.open()
        db.execute("CREATE TABLE t(a)")
        vid = self.vid(db)
        with self.assertRaises(sqlite3.OperationalError):
            self.open(vid, nolock=1).execute("SELECT * FROM t").fetchall()
        for option in ("nolock", "immutable"):
            with self.subTest(option):
                still = self.open(vid, mode="ro", **{option: 1})
                before = still.execute("SELECT count(*) FROM t").fetchone()
                db.execute("INSERT INTO t VALUES(1)")
                self.assertEqual(still.execute("SELECT count(*) FROM t").fetchone(), before)
                self.fails(still, "INSERT INTO t VALUES(2)", "readonly")

    def test_read_only(self):
        db = self.open()
        db.execute("CREATE TABLE t(a)")
        other = self.open(self.vid(db), mode="ro")
        self.fails(other, "INSERT INTO t VALUES(2)", "readonly")
        db.execute("INSERT INTO t VALUES(1)")
        self.assertEqual(other.execute("SELECT a FROM t").fetchall(), [(1,)])


if __name__ == "__main__":
    cluster.main()
