# SPDX-License-Identifier: Apache-2.0
"""Each workload, undisturbed: it makes progress, and the checker has nothing to say."""
import os
import random
import sys
import unittest

import cluster as graft
from workloads import WORKLOADS, Simulation

SEED = int(os.environ.get("GRAFT_SIM_SEED", random.getrandbits(32)))
SECONDS = 2
FLOOR = {"acknowledged_pushes": 10, "commit_ok": 10, "read_ok": 10, "pull_ok": 5, "past_ok": 5}
MORE = {
    "family": {"fork_ok": 3, "delete_ok": 1, "forget_ok": 1, "deleted_volumes": 1, "rejected_pushes": 3, "reset_ok": 3},
    "writers": {"rejected_pushes": 3, "reset_ok": 3},
    "synced": {"rejected_pushes": 1, "pull_ok": 2},  # the clients pull when they settle
}


class WorkloadTest(unittest.TestCase):
    def run_one(self, name):
        with Simulation(name, SEED) as simulation:
            simulation.workload(name).run(SECONDS)
            report = simulation.check()
        print(f"# {name}, GRAFT_SIM_SEED={SEED}: {report}", flush=True)
        self.assertFalse(report.anomalies, f"GRAFT_SIM_SEED={SEED}: {report}")
        floor = {**FLOOR, **MORE.get(name, {})}
        for figure, least in floor.items():
            self.assertGreaterEqual(report.figures[figure], least, figure)


for name in WORKLOADS:
    setattr(WorkloadTest, f"test_{name}", lambda self, name=name: self.run_one(name))


if __name__ == "__main__":
    sys.exit(graft.main())
