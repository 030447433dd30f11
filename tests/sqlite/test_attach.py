# SPDX-License-Identifier: Apache-2.0
"""Transactions on several volumes and native files, and processes that are killed in the middle of them."""
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys

import cluster
import sqlite_volume

KILLS = int(os.environ.get("GRAFT_TEST_KILLS", "40"))
SEED = int(os.environ.get("GRAFT_TEST_SEED", int.from_bytes(os.urandom(4), "big")))

# Moves one from an account to another, over and over, and tells what was acknowledged.
WRITER = """
import sqlite3, sys
loader = sqlite3.connect(":memory:"); loader.enable_load_extension(True); loader.load_extension(sys.argv[1])
db = sqlite3.connect(sys.argv[2], uri=True, isolation_level=None)
schemas = ["main"]
for i, name in enumerate(sys.argv[3:]):
    db.execute(f"ATTACH ? AS d{i}", (name,))
    schemas.append(f"d{i}")
db.execute("PRAGMA cache_size = 8")
number = db.execute("SELECT max(number) FROM t").fetchone()[0]
while True:
    number += 1
    db.execute("BEGIN")
    for schema in schemas:
        db.execute(f"INSERT INTO {schema}.t VALUES(?, randomblob(?))", (number, number * 7919 % 20000))
        db.execute(f"DELETE FROM {schema}.t WHERE number < ? AND number > 0", (number - 20,))
    db.execute("COMMIT")
    print(number, flush=True)
"""


class Attach(sqlite_volume.SqliteTest):
    def make(self, *names):
        """Databases with a table t that says which transactions they saw."""
        for name in names:
            db = sqlite3.connect(name, uri=True, isolation_level=None)
            db.execute("CREATE TABLE t(number INTEGER PRIMARY KEY, body)")
            db.execute("INSERT INTO t VALUES(0, '')")
            db.close()

    def volume(self):
        db = self.open()
        vid = self.vid(db)
        db.execute("CREATE TABLE t(number INTEGER PRIMARY KEY, body)")
        db.execute("INSERT INTO t VALUES(0, '')")
        self.close(db)
        return self.uri(vid)

    def native(self):
        path = str(self.folder / f"native-{random.getrandbits(64):x}.db")
        self.make(path)
        return path

    def connect(self, main, *attached):
        db = sqlite3.connect(main, uri=True, isolation_level=None)
        self.connections.append(db)
        for i, name in enumerate(attached):
            db.execute(f"ATTACH ? AS d{i}", (name,))
        return db

    def newest(self, name):
        db = sqlite3.connect(name, uri=True, isolation_level=None)
        try:
            self.check(db)
            return db.execute("SELECT max(number) FROM t").fetchone()[0]
        finally:
            db.close()

    def pairs(self):
        yield "two volumes", [self.volume(), self.volume()]
        yield "a volume, a native file", [self.volume(), self.native()]
        yield "a native file, a volume", [self.native(), self.volume()]
        yield "a native file, two volumes", [self.native(), self.volume(), self.volume()]
        yield "all of it", [self.volume(), self.native(), self.volume(), self.native()]

    def left_over(self):
        return sorted(path.name for path in self.folder.rglob("*")
                      if "-mj" in path.name or path.name.endswith("-journal") or path.parent.name == "prepared")

    def test_all_of_them_commit(self):
        for what, names in self.pairs():
            with self.subTest(what):
                db = self.connect(*names)
                for mode in ("delete", "persist", "truncate", "memory"):
                    db.execute(f"PRAGMA journal_mode = {mode}")
                    number = self.newest(names[0]) + 1
                    db.execute("BEGIN")
                    for schema in ["main"] + [f"d{i}" for i in range(len(names) - 1)]:
                        db.execute(f"INSERT INTO {schema}.t VALUES(?, zeroblob(10000))", (number,))
                    db.execute("COMMIT")
                    self.assertEqual({self.newest(name) for name in names}, {number}, mode)
                    db.execute("INSERT INTO main.t VALUES(?, 1)", (number + 1,))
                    db.execute("DELETE FROM main.t WHERE number = ?", (number + 1,))
                db.execute("PRAGMA journal_mode = delete")
                self.close(db)
                self.assertEqual(self.left_over(), [])

    def test_a_volume_that_shrinks_in_such_a_transaction(self):
        names = [self.volume(), self.native()]
        db = self.connect(names[0])
        db.execute("PRAGMA auto_vacuum = full")
        db.execute("VACUUM")
        db.execute("INSERT INTO t VALUES(1, zeroblob(1000000))")
        before = db.execute("PRAGMA page_count").fetchone()[0]
        self.close(db)
        db = self.connect(*names)
        db.execute("BEGIN")
        db.execute("DELETE FROM main.t WHERE number = 1")
        db.execute("INSERT INTO d0.t VALUES(1, 1)")
        db.execute("COMMIT")
        self.assertLess(db.execute("PRAGMA main.page_count").fetchone()[0], before / 10)
        self.check(db)
        self.close(db)
        self.assertEqual((self.newest(names[0]), self.newest(names[1])), (0, 1))

    def test_when_the_second_fails_nothing_is_committed(self):
        for first in ("volume", "native"):
            with self.subTest(first):
                names = [self.volume() if first == "volume" else self.native(), self.volume()]
                vid = names[1].split("?")[0][5:]
                obstacle = self.folder / "a" / "prepared" / f"{vid}.part"
                obstacle.mkdir(parents=True)
                db = self.connect(*names)
                db.execute("BEGIN")
                for schema in ("main", "d0"):
                    db.execute(f"INSERT INTO {schema}.t VALUES(1, zeroblob(50000))")
                self.fails(db, "COMMIT", "disk I/O error|full")
                if db.in_transaction:
                    db.execute("ROLLBACK")
                for schema in ("main", "d0"):
                    self.assertEqual(db.execute(f"SELECT max(number) FROM {schema}.t").fetchone(), (0,))
                obstacle.rmdir()
                self.assertEqual([self.newest(name) for name in names], [0, 0])
                db.execute("BEGIN IMMEDIATE")
                for schema in ("main", "d0"):
                    db.execute(f"INSERT INTO {schema}.t VALUES(2, zeroblob(50000))")
                db.execute("COMMIT")
                self.close(db)
                self.assertEqual([self.newest(name) for name in names], [2, 2])

    def test_a_rollback_of_many_members(self):
        names = [self.volume(), self.native(), self.native(), self.volume(), self.native(), self.volume()]
        vid = names[-1].split("?")[0][5:]
        obstacle = self.folder / "a" / "prepared" / f"{vid}.part"
        obstacle.mkdir(parents=True)
        db = self.connect(*names)
        db.execute("BEGIN")
        for schema in ["main"] + [f"d{i}" for i in range(len(names) - 1)]:
            db.execute(f"INSERT INTO {schema}.t VALUES(1, zeroblob(50000))")
        self.fails(db, "COMMIT", "disk I/O error")
        if db.in_transaction:
            db.execute("ROLLBACK")
        obstacle.rmdir()
        self.close(db)
        self.assertEqual([self.newest(name) for name in names], [0] * 6)
        self.assertEqual(self.left_over(), [])

    def kill_while_writing(self, names, rng):
        """What was acknowledged last when it was killed."""
        acknowledged = self.acknowledged
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(sqlite_volume.EXTENSION), *names],
                                   stdout=subprocess.PIPE, preexec_fn=cluster.die_with_parent)
        for _ in range(rng.randrange(1, 6)):
            line = process.stdout.readline()
            self.assertTrue(line, "the writer ended by itself")
            acknowledged = int(line)
        select.select([], [], [], rng.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        self.acknowledged = max([acknowledged, *map(int, rest)])

    def test_kills_in_the_middle(self):
        print(f"# seed {SEED}, {KILLS} kills for each", flush=True)
        rng = random.Random(SEED)
        for what, names in [("a volume", [self.volume()]), *self.pairs()]:
            with self.subTest(what):
                self.acknowledged = 0
                for _ in range(max(1, KILLS // 6)):
                    self.kill_while_writing(names, rng)
                    order = rng.sample(names, len(names))  # whoever is opened first, all decide alike
                    found = [self.newest(name) for name in order]
                    self.assertEqual(len(set(found)), 1, f"{order} have {found}")
                    self.assertIn(found[0], (self.acknowledged, self.acknowledged + 1))


if __name__ == "__main__":
    cluster.main()
