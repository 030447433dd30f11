# SPDX-License-Identifier: Apache-2.0
"""30 schedules of network faults, over each workload in turn, several at a time."""
import collections
import concurrent.futures
import multiprocessing
import os
import random
import sys
import unittest

import cluster
from fault_proxy import KINDS
from lies import PUSHES_MIN, REQUESTS_MIN, lie
from workloads import WORKLOADS

SEED = int(os.environ.get("GRAFT_SIM_SEED", random.getrandbits(32)))
SCHEDULES = int(os.environ.get("GRAFT_SIM_SCHEDULES", 30))
AT_ONCE = 5  # most of the time their clients wait
# Under this the run says nothing and counts as failed: each kind of fault, over all schedules.
FIRED = 5
# The same of watch streams, of which there are fewer.
ON_STREAMS = {"lost": ("drop_request", "drop_reply"), "cut": ("cut_request", "cut_reply"), "corrupt": ("corrupt_reply",),
              "late": ("delay", "stall_request", "stall_reply"),
              "parted or repeated": ("partition", "partition_out", "partition_back", "duplicate", "replay")}


def schedule(number):
    """GRAFT_SIM_SEED + number with one schedule runs it alone."""
    return list(WORKLOADS)[(SEED + number) % len(WORKLOADS)], SEED + number


class LieTest(unittest.TestCase):
    fired = collections.Counter()

    @classmethod
    def setUpClass(cls):
        context = multiprocessing.get_context("spawn")
        cls.pool = concurrent.futures.ProcessPoolExecutor(AT_ONCE, mp_context=context)
        cls.runs = {number: cls.pool.submit(lie, *schedule(number)) for number in range(SCHEDULES)}

    @classmethod
    def tearDownClass(cls):
        cls.pool.shutdown(cancel_futures=True)

    def run_one(self, number):
        name, seed = schedule(number)
        try:
            report = self.runs[number].result()
        except Exception as error:
            raise AssertionError(f"{name}, GRAFT_SIM_SEED={seed} GRAFT_SIM_SCHEDULES=1: {error}") from error
        text = f"{name}, GRAFT_SIM_SEED={seed} GRAFT_SIM_SCHEDULES=1: {report}"
        print(*(f"# {line}" for line in text.splitlines()), sep="\n", flush=True)
        self.fired.update(report.faults)
        self.assertFalse(report.anomalies, text)
        self.assertGreaterEqual(report.figures["acknowledged_while_lying"], PUSHES_MIN, text)
        self.assertGreaterEqual(report.figures["requests"], REQUESTS_MIN, text)

    def test_z_every_kind_of_fault_came(self):
        print(f"# {SCHEDULES} schedules, GRAFT_SIM_SEED={SEED}: {dict(self.fired)}", flush=True)
        if SCHEDULES < 30:
            self.skipTest("needs 30 schedules")
        for kind in KINDS:
            self.assertGreaterEqual(self.fired[kind], FIRED, kind)
        for group, kinds in ON_STREAMS.items():
            self.assertGreater(sum(self.fired[f"{kind} of watch"] for kind in kinds), 0, f"streams that were {group}")


for number in range(SCHEDULES):
    setattr(LieTest, f"test_schedule_{number:02}", lambda self, number=number: self.run_one(number))


if __name__ == "__main__":
    sys.exit(cluster.main())
