# SPDX-License-Identifier: Apache-2.0
"""Databases on volumes, by Python's sqlite3 with the extension loaded, beside real daemons."""
import contextlib
import sqlite3
import urllib.parse

import cluster

EXTENSION = cluster.BUILD / "sqlite" / "graft_sqlite"


def load():
    """Loads the extension, once for the process: it stays."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.enable_load_extension(True)
        db.load_extension(str(EXTENSION))


class VolumeTest(cluster.GraftTest):
    def uri(self, name, data="a", **parameters):
        parameters = {"vfs": "graft", "data": self.folder / data, "metastore": self.cluster.metastore.url(),
                      "pagestore": self.cluster.pagestore.url(), **parameters}
        return f"file:{name}?{urllib.parse.urlencode(parameters)}"


class SqliteTest(VolumeTest):
    """`self.open(…)` gives a connection in autocommit mode; all are closed after each test."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        load()

    def setUp(self):
        self.connections = []

    def tearDown(self):
        for connection in self.connections:
            connection.close()

    def open(self, name="random", data="a", timeout=0, **parameters):
        db = sqlite3.connect(self.uri(name, data, **parameters), uri=True, isolation_level=None, timeout=timeout)
        self.connections.append(db)
        return db

    def close(self, *connections):
        for connection in connections:
            self.connections.remove(connection)
            connection.close()

    def vid(self, db):
        return db.execute("PRAGMA database_list").fetchone()[2].rsplit("/", 1)[1]

    def lsn(self, vid, data="a"):
        """The local LSN, by the command line; no connection is open."""
        return self.graft_json("status", vid, data=data)[0]["local_lsn"]

    def check(self, db):
        self.assertEqual(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)])

    def fails(self, db, sql, text, *arguments):
        with self.assertRaisesRegex(sqlite3.Error, text):
            db.execute(sql, *arguments).fetchall()
