# SPDX-License-Identifier: Apache-2.0
"""200 kills of client, metastore and pagestore over the bank, and some over each other workload."""
import os
import random
import sys
import unittest

import cluster
from kills import VICTIMS, kill_cycles, stalls
from restores import restores
from workloads import NORMAL, WORKLOADS

SEED = int(os.environ.get("GRAFT_SIM_SEED", random.getrandbits(32)))
CYCLES = int(os.environ.get("GRAFT_SIM_CYCLES", 200))
# Under these a run says nothing and counts as failed.
PUSHES_A_SECOND = 1
COMMITS_A_CYCLE = 2


class KillTest(unittest.TestCase):
    def run_cycles(self, name, cycles):
        report = kill_cycles(name, SEED, cycles)
        print(f"# {name}, GRAFT_SIM_SEED={SEED}: {report}", flush=True)
        self.assertFalse(report.anomalies, f"GRAFT_SIM_SEED={SEED}: {report}")
        figures = report.figures
        self.assertGreaterEqual(figures["acknowledged_pushes"], cycles)
        self.assertGreaterEqual(figures["acknowledged_pushes"], PUSHES_A_SECOND * figures["milliseconds"] / 1000)
        self.assertGreaterEqual(figures["commit_ok"], COMMITS_A_CYCLE * cycles)
        return report

    def test_the_bank_survives_kills_of_every_process(self):
        report = self.run_cycles("bank", CYCLES)
        for victim, weight in VICTIMS.items():
            self.assertGreaterEqual(report.faults[f"kill -9 of {victim}"], CYCLES * weight // sum(VICTIMS.values()) // 4)
        self.assertGreaterEqual(report.figures["interrupted_operations"], CYCLES // 10)

    def test_writers_and_truncations_survive_kills(self):
        for name in ("writers", "synced", "family", "grow", "register"):
            with self.subTest(name):
                report = self.run_cycles(name, CYCLES // 20)
                if any(set(NORMAL) <= set(options) for options in WORKLOADS[name][1].values()):
                    self.assertGreater(report.figures["opens_with_normal"], CYCLES // 60, name)

    def test_nobody_sees_a_mixture_when_the_metastore_is_restored(self):
        report = restores(SEED)
        print(f"# restores, GRAFT_SIM_SEED={SEED}: {report}", flush=True)
        self.assertFalse(report.anomalies, f"GRAFT_SIM_SEED={SEED}: {report}")
        self.assertGreaterEqual(report.figures["reattach_ok"], 3)
        self.assertGreaterEqual(report.figures["commits_lost"], 4)

    def test_pushes_without_an_answer_land_at_most_once_and_never_after_a_reset(self):
        report = stalls(SEED)
        print(f"# stalls, GRAFT_SIM_SEED={SEED}: {report}", flush=True)
        self.assertFalse(report.anomalies, f"GRAFT_SIM_SEED={SEED}: {report}")
        self.assertGreaterEqual(report.figures["push_info"], 10)
        self.assertGreaterEqual(report.figures["fences"], 1)


if __name__ == "__main__":
    sys.exit(cluster.main())
