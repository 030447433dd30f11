# SPDX-License-Identifier: Apache-2.0
"""The ways in which programs come to a database on a volume, as docs/SQLITE.md tells them."""
import shutil
import subprocess
import unittest

import cluster
import sqlite_volume

LINKED = cluster.BUILD / "tests" / "sqlite" / "linked_program"
NODE = """
const Database = require('better-sqlite3');
const loader = new Database(':memory:');
loader.loadExtension(process.argv[1]);
const db = new Database(process.argv[2]);
db.exec("CREATE TABLE t(v); INSERT INTO t VALUES('node')");
console.log(db.prepare('SELECT v FROM t').get().v, JSON.parse(db.prepare('SELECT graft_status() AS s').get().s).local_lsn);
"""


def has_better_sqlite3():
    node = shutil.which("node")
    return node and subprocess.run([node, "-e", "require('better-sqlite3')"], capture_output=True).returncode == 0


class Bindings(sqlite_volume.SqliteTest):
    def run_program(self, *command, data="program", **environment):
        result = subprocess.run(list(map(str, command)), text=True, capture_output=True, timeout=60, cwd=self.folder,
                                env={**self.cluster.environment(data), **environment})
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout.split("\n")[:-1]

    def test_the_shell(self):
        out = self.run_program("sqlite3", ":memory:", f".load {sqlite_volume.EXTENSION}", ".open file:random?vfs=graft",
                               "CREATE TABLE t(v);", "INSERT INTO t VALUES('shell');", "SELECT v FROM t;",
                               "PRAGMA graft_tag = 'shell';", "PRAGMA graft_push;", data="shell")
        self.assertEqual(out[0], "shell")
        vid = out[-3].split()[1]
        self.assertEqual(out[-2:], ["remote_lsn  1", "local_lsn   2"])
        out = self.run_program("sqlite3", ":memory:", f".load {sqlite_volume.EXTENSION}", f".open file:{vid}?vfs=graft",
                               "SELECT v FROM t;", data="shell-2")
        self.assertEqual(out, ["shell"])

    def test_the_shell_with_graft_as_the_default(self):
        self.run_program("sqlite3", ":memory:", f".load {sqlite_volume.EXTENSION}", ".open file:random",
                         "CREATE TABLE t(v);", "PRAGMA graft_tag = 'default';", data="default", GRAFT_MAKE_DEFAULT="1")
        out = self.run_program("sqlite3", ":memory:", f".load {sqlite_volume.EXTENSION}", ".open default",
                               "SELECT name FROM sqlite_schema;", ".vfsname", data="default", GRAFT_MAKE_DEFAULT="1")
        self.assertEqual(out, ["t", "graft"])

    def test_python(self):
        db = self.open("random")
        db.execute("CREATE TABLE t(v)")
        with db:
            db.executemany("INSERT INTO t VALUES(?)", [("a",), (2,), (b"\0",), (None,)])
        self.assertEqual(db.execute("SELECT v FROM t").fetchall(), [("a",), (2,), (b"\0",), (None,)])
        native = self.folder / "backup.db"
        with sqlite_volume.sqlite3.connect(native) as copy:
            db.backup(copy)
            self.assertEqual(copy.execute("SELECT count(*) FROM t").fetchone(), (4,))

    def test_a_program_that_links_with_it(self):
        self.assertEqual(self.run_program(LINKED, self.folder / "linked"), ["1", "linked", "2"])

    @unittest.skipUnless(has_better_sqlite3(), "node with better-sqlite3 is not here")
    def test_node(self):
        stub = self.folder / "node.db"
        out = self.run_program(shutil.which("node"), "-e", NODE, sqlite_volume.EXTENSION, stub, data="node",
                               GRAFT_MAKE_DEFAULT="1", GRAFT_STUBS="1")
        self.assertEqual(out, ["node 2"])


if __name__ == "__main__":
    cluster.main()
