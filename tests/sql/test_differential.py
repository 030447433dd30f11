# SPDX-License-Identifier: Apache-2.0
"""The same random statements on native SQLite and on a volume, while a replica follows: equal after each round.

GRAFT_SQL_SEED repeats a seed, GRAFT_SQL_STATEMENTS says how many statements (the soak runs more than the tests).
"""
import os
import subprocess
import tempfile

import cluster
import sqlite_volume

PROGRAM = cluster.BUILD / "tests" / "sql" / "differential"
STATEMENTS = os.environ.get("GRAFT_SQL_STATEMENTS", "1000")
SEEDS = [os.environ["GRAFT_SQL_SEED"]] if "GRAFT_SQL_SEED" in os.environ else ["1", "2"]


class Differential(sqlite_volume.VolumeTest):
    def compare(self, seed):
        with tempfile.TemporaryDirectory(dir=self.folder) as tmp, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
            command = [PROGRAM, "--load", sqlite_volume.EXTENSION, "--seed", seed, "--statements", STATEMENTS, f"file:{memory}/native",
                       self.uri(f"{tmp}/db", f"{tmp}/data", stubs=1), self.uri(f"{tmp}/db", f"{tmp}/replica")]
            result = subprocess.run(command, text=True, capture_output=True, timeout=3600)
            self.assertEqual(result.returncode, 0, f"seed {seed}:\n{result.stdout[-4000:]}\n{result.stderr}")


for number in SEEDS:
    setattr(Differential, f"test_seed_{number}", lambda self, seed=number: self.compare(seed))

if __name__ == "__main__":
    cluster.main()
