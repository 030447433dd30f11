# SPDX-License-Identifier: Apache-2.0
"""Transactions on several databases whose process ends at a given place: all members decide alike, whichever is opened first.
For the build with failpoints."""
import itertools
import os
import sqlite3
import subprocess
import sys

import cluster
import sqlite_volume

EXIT_CODE = 86
WRITER = """
import sqlite3, sys
loader = sqlite3.connect(":memory:"); loader.enable_load_extension(True); loader.load_extension(sys.argv[1])
db = sqlite3.connect(sys.argv[2], uri=True, isolation_level=None)
db.execute("ATTACH ? AS other", (sys.argv[3],))
db.execute("BEGIN")
for schema in ("main", "other"):
    db.execute(f"INSERT INTO {schema}.t VALUES(1, zeroblob(20000))")
db.execute("COMMIT")
"""

# Where the process ends, how often it comes there at most, and whether the transaction is committed then.
PLACES = [("prepare.sync.before", 2, False), ("prepare.renamed", 2, False), ("files.replace.renamed", 2, False),
          ("commit.publish.before", 2, True), ("commit.publish.after", 2, True), ("prepare.committed", 2, True),
          ("prepare.remove", 2, True)]


class Decided(sqlite_volume.SqliteTest):
    def volume(self, data="a"):
        db = self.open(data=data)
        vid = self.vid(db)
        db.execute("CREATE TABLE t(number INTEGER PRIMARY KEY, body)")
        self.close(db)
        return self.uri(vid, data)

    def native(self, folder=None):
        path = str((folder or self.folder) / f"native-{os.urandom(8).hex()}.db")
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE t(number INTEGER PRIMARY KEY, body)")
        db.close()
        return path

    def count(self, name):
        db = sqlite3.connect(name, uri=True)
        try:
            self.check(db)
            return db.execute("SELECT count(*) FROM t").fetchone()[0]
        finally:
            db.close()

    def ended(self, place, hit, names):
        result = subprocess.run([sys.executable, "-c", WRITER, str(sqlite_volume.EXTENSION), *names], timeout=60,
                                capture_output=True, env={**os.environ, "GRAFT_FAILPOINTS": f"{place}=exit@{hit}"})
        self.assertIn(result.returncode, (0, EXIT_CODE), result.stderr)
        return result.returncode == EXIT_CODE

    def test_all_decide_alike(self):
        fired = 0
        for (place, hits, committed), kinds in itertools.product(PLACES, ("vn", "nv", "vv")):
            for hit, order in itertools.product(range(1, hits + 1), (1, -1)):
                with self.subTest(f"{place} {hit} {kinds} {order}"):
                    names = [self.volume() if kind == "v" else self.native() for kind in kinds]
                    if not self.ended(place, hit, names):
                        continue
                    fired += 1
                    found = [self.count(name) for name in names[::order]]
                    self.assertEqual(found, [committed] * 2)
        print(f"# {fired} ends", flush=True)
        self.assertGreater(fired, 50)

    def test_nothing_is_left_of_them(self):
        folder = self.folder / "left"
        folder.mkdir()
        for kinds in ("vv", "nv"):
            for place, hit in (("prepare.sync.before", 1), ("prepare.renamed", 1), ("prepare.committed", 1)):
                with self.subTest(f"{kinds} {place}"):
                    names = [self.volume("left") if kind == "v" else self.native(folder) for kind in kinds]
                    self.assertTrue(self.ended(place, hit, names))
                    found = [self.count(name) for name in names]
                    self.assertEqual(len(set(found)), 1)
                    left = [path.name for path in folder.rglob("*")
                            if "-mj" in path.name or path.name.endswith("-journal") or path.parent.name == "prepared"]
                    self.assertEqual(left, [])


if __name__ == "__main__":
    cluster.main()
