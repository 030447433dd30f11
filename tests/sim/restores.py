# SPDX-License-Identifier: Apache-2.0
"""A metastore is replaced by a backup of itself, made while clients worked, which they go on with: what was acknowledged
since is gone, they find that out, reattach, and nobody ever sees a mixture."""
import subprocess

import wire
from scenarios import scenario
from workloads import METASTORE, Simulation, replace_by_older

# Who meets another history is told so.
ALLOWED = "status corrupt", "corruption reported"


def restores(seed, times=2):
    with Simulation("restores", seed) as simulation:
        cluster = simulation.cluster
        workload = simulation.workload("restored")
        workload.start()
        earlier = []
        for number in range(times):
            for _ in range(workload.random.randint(2, 6)):
                workload.wait_for_progress()
            backup = cluster.folder / f"backup-{number}"
            subprocess.run([METASTORE, "--backup", backup, "--store", f"rocksdb:{cluster.folder}/metastore", "--listen",
                            cluster.metastore.addresses["listen"]], check=True, capture_output=True)
            for _ in range(workload.random.randint(2, 6)):
                workload.wait_for_progress()
            earlier.append(replace_by_older(cluster, backup, [wire.gid_bytes(workload.vid)]))
        for _ in range(4):
            workload.wait_for_progress()
        report = simulation.check(ALLOWED, earlier)
        report.inject("restore", times)
        report.count(commits_lost=sum(len(volume.commits) for _, lost in earlier for volume in lost.values()))
        return report


scenario("restores")(restores)
