# SPDX-License-Identifier: Apache-2.0
"""The bank in SQL on two nodes, whose network lies and which are killed: no money is made or lost, every transfer that was
acknowledged is in the ledger once, and none that was rejected or never tried.

GRAFT_TEST_SEED repeats a seed; GRAFT_TEST_TRANSFERS says how many transfers each node tries.
"""
import os
import random
import subprocess
import sys
import threading

import cluster
import fault_proxy
import sqlite_volume

TRANSFERS = int(os.environ.get("GRAFT_TEST_TRANSFERS", "120"))
SEED = int(os.environ.get("GRAFT_TEST_SEED", int.from_bytes(os.urandom(4), "big")))
FAULTS = {"drop_request": 0.03, "drop_reply": 0.05, "delay": 0.1, "duplicate": 0.05, "replay": 0.03, "cut_request": 0.02,
          "cut_reply": 0.03}
KILLS = 15  # of each node
BALANCE = 100
NODE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bank_node.py")


class Node:
    """One node, started again after each kill. What it said: the tokens that it tried, and what became of them."""

    def __init__(self, uri, seed):
        self.uri, self.random = uri, random.Random(seed)
        self.said = {"try": set(), "ok": set(), "rejected": set()}
        self.kills, self.failure = 0, None

    def run(self):
        while len(self.said["ok"]) + len(self.said["rejected"]) < TRANSFERS and not self.failure:
            kill_after = self.random.randrange(1, 8) if self.kills < KILLS else None
            self.run_once(kill_after)

    def run_once(self, kill_after):
        left = TRANSFERS - len(self.said["ok"]) - len(self.said["rejected"])
        command = [sys.executable, NODE, sqlite_volume.EXTENSION, self.uri, str(self.random.getrandbits(32)), str(left)]
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True,
                              preexec_fn=cluster.die_with_parent) as process:
            for number, line in enumerate(process.stdout, 1):
                what, *token = line.split()
                if token:
                    self.said[what].add(token[0])
                if number == kill_after:
                    process.kill()
                    self.kills += 1
            if process.wait() not in (0, -9):
                self.failure = f"a node ended with {process.returncode}"


class Bank(sqlite_volume.SqliteTest):
    def make(self):
        db = self.open("random", data="first")
        db.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL CHECK(balance >= 0))")
        db.execute("CREATE TABLE ledger(token TEXT PRIMARY KEY, source REFERENCES account(id), target REFERENCES account(id), "
                   "amount INTEGER)")
        db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) "
                   "INSERT INTO account SELECT i, ? FROM n", (BALANCE,))
        db.execute("SELECT graft_push()")
        vid = self.vid(db)
        self.close(db)
        return vid

    def links(self, network, name):
        return {"metastore": network.link(f"{name}-metastore", self.cluster.metastore.port()),
                "pagestore": network.link(f"{name}-pagestore", self.cluster.pagestore.port()), "deadline": "2s"}

    def run_nodes(self, vid):
        network = fault_proxy.Network(SEED, FAULTS)
        try:
            nodes = [Node(self.uri(vid, name, **self.links(network, name)), f"{SEED} {name}")
                     for name in ("first", "second")]
            threads = [threading.Thread(target=node.run) for node in nodes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(200)
                self.assertFalse(thread.is_alive(), f"seed {SEED}: a node is stuck")
            return nodes, sum(network.fired.values())
        finally:
            network.close()

    def test_two_nodes(self):
        vid = self.make()
        nodes, fired = self.run_nodes(vid)
        for node in nodes:
            self.assertIsNone(node.failure, f"seed {SEED}")
        tried, ok, rejected = (set().union(*(node.said[what] for node in nodes)) for what in ("try", "ok", "rejected"))
        print(f"# seed {SEED}: {len(tried)} tried, {len(ok)} acknowledged, {len(rejected)} rejected, "
              f"{sum(node.kills for node in nodes)} kills, {fired} faults", flush=True)
        self.assertGreater(len(ok), 10)
        db = self.open(vid, data="judge")
        ledger = [row[0] for row in db.execute("SELECT token FROM ledger")]
        self.assertEqual(ok - set(ledger), set(), f"seed {SEED}: acknowledged and lost")
        self.assertEqual(set(ledger) & rejected, set(), f"seed {SEED}: rejected and there")
        self.assertEqual(set(ledger) - tried, set(), f"seed {SEED}: never tried and there")
        self.assertEqual(db.execute("SELECT sum(balance) FROM account").fetchone(), (20 * BALANCE,))
        self.assertEqual(db.execute(
            "SELECT id FROM account WHERE balance <> ? - (SELECT total(amount) FROM ledger WHERE source = id) "
            "+ (SELECT total(amount) FROM ledger WHERE target = id)", (BALANCE,)).fetchall(), [])
        self.check(db)
        self.assertEqual(db.execute("PRAGMA foreign_key_check").fetchall(), [])


if __name__ == "__main__":
    cluster.main()
