# SPDX-License-Identifier: Apache-2.0
"""Test programs as scenarios: lost power, and the sweep over all failpoints, each time with another seed."""
import os
import pathlib
import re
import subprocess
import sys

import cluster
import history
from scenarios import scenario

TESTS = pathlib.Path(__file__).resolve().parent.parent
FAILPOINTS = cluster.BUILD.parent / "build-failpoints"


def run(name, program, seed, count, fault, **environment):
    """A program's report: `count` finds how many faults it injected in what it prints."""
    done = subprocess.run([sys.executable, TESTS / program], capture_output=True, text=True, check=False,
                          env={**os.environ, "GRAFT_SIM_SEED": str(seed), "GRAFT_TEST_SEED": str(seed), **environment})
    report = history.Report()
    for found in re.findall(count, done.stdout):
        report.inject(fault, int(found))
    if done.returncode != 0:
        report.add(f"{name} failed", done.stdout[-4000:] + done.stderr[-4000:])
    elif not report.faults[fault]:
        report.add(f"{name} did nothing", done.stdout[-4000:])
    return report


@scenario("power-store")
def lose_power_of_the_store(seed):
    return run("power-store", "powerloss/test_store.py", seed, r"(\d+) losses,", "losses of power", GRAFT_SIM_LOSSES="220")


@scenario("power-cluster")
def lose_power_of_the_cluster(seed):
    return run("power-cluster", "powerloss/test_cluster.py", seed, r"(\d+) losses,", "losses of power", GRAFT_SIM_LOSSES="800")


@scenario("sweep")
def sweep(seed):
    return run("sweep", "sweep/test_sweep.py", seed, r"failpoints, (\d+) runs", "failpoints fired", GRAFT_BUILD=str(FAILPOINTS))


@scenario("store")
def local_store(seed):
    """A million pages in 20 volumes for ten minutes."""
    return run("store", "sim/test_store.py", seed, r"(\d+) openings", "openings of a local store",
               GRAFT_STORE_SECONDS=os.environ.get("GRAFT_STORE_SECONDS", "600"),
               GRAFT_STORE_PAGES=os.environ.get("GRAFT_STORE_PAGES", "1000000"))
