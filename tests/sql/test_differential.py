# SPDX-License-Identifier: Apache-2.0
"""The same random statements on native SQLite and on a volume, while a replica follows: equal after each round.

GRAFT_SQL_SEED repeats a seed, GRAFT_SQL_STATEMENTS says how many statements (the soak runs more than the tests).
"""
import os
import subprocess
import tempfile
import urllib.parse

import cluster

PROGRAM = cluster.BUILD / "tests" / "sql" / "differential"
EXTENSION = cluster.BUILD / "sqlite" / "graft_sqlite"
STATEMENTS = os.environ.get("GRAFT_SQL_STATEMENTS", "1000")
SEEDS = [os.environ["GRAFT_SQL_SEED"]] if "GRAFT_SQL_SEED" in os.environ else ["1", "2"]


class Differential(cluster.GraftTest):
    def uri(self, name, data):
        parameters = {"vfs": "graft", "stubs": 1, "data": data, "metastore": self.cluster.metastore.url(),
                      "pagestore": self.cluster.pagestore.url()}
        return f"file:{name}?{urllib.parse.urlencode(parameters)}"

    def compare(self, seed):
        with tempfile.TemporaryDirectory(dir=self.folder) as tmp, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
            command = [PROGRAM, "--load", EXTENSION, "--seed", seed, "--statements", STATEMENTS, f"file:{memory}/native",
                       self.uri(f"{tmp}/db", f"{tmp}/data"), self.uri(f"{tmp}/db", f"{tmp}/replica")]
            result = subprocess.run(command, text=True, capture_output=True, timeout=3600)
            self.assertEqual(result.returncode, 0, f"seed {seed}:\n{result.stdout[-4000:]}\n{result.stderr}")


for number in SEEDS:
    setattr(Differential, f"test_seed_{number}", lambda self, seed=number: self.compare(seed))

if __name__ == "__main__":
    cluster.main()
