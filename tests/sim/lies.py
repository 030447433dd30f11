# SPDX-License-Identifier: Apache-2.0
"""A network that lies: clients work while tests/lib/fault_proxy.py stands between all of them and the daemons, and between
pagestore and metastore."""
import functools
import random
import time

from fault_proxy import KINDS, Network
from scenarios import scenario
from workloads import WORKLOADS, Simulation

SECONDS = 5
# A schedule goes on until there were so many acknowledged pushes and requests, and fails after half a minute without a
# push.
PUSHES_MIN, REQUESTS_MIN = 8, 50
DEADLINE_MS = 1500  # below the longest stall
# What a kind's probability per request may be at most. A partition holds everything for a while, so it is rarer.
STRENGTH = {kind: 0.06 for kind in KINDS} | {"delay": 0.2, "corrupt_request": 0.2, "corrupt_reply": 0.2,
                                             "stall_request": 0.02, "stall_reply": 0.02, "partition": 0.01,
                                             "partition_out": 0.01, "partition_back": 0.01}
# A watch is one request for long, and many pieces.
ON_STREAMS = {"drop_request": 0.1, "duplicate": 0.1, "replay": 0.1, "cut_request": 0.1, "stall_request": 0.05, "drop_reply": 0.06,
              "delay": 0.1, "cut_reply": 0.06, "corrupt_reply": 0.1, "stall_reply": 0.03, "partition": 0.02,
              "partition_out": 0.02, "partition_back": 0.02}
# A page whose bytes changed on the way is reported as such to who asked for it: that is what was promised.
ALLOWED = {"corrupt_request": "corruption reported", "corrupt_reply": "corruption reported"}


def faults_of(seed, strength=STRENGTH, share=0.6):
    """A mixture: such a share of the kinds, each more or less strong."""
    dice = random.Random(f"mixture {seed}")
    return {kind: strength[kind] * dice.uniform(0.2, 1) for kind in strength if dice.random() < share}


def lie(name, seed, seconds=SECONDS):
    """The report of one workload on such a network. Its last act: the network heals, who syncs in the background gets in step
    by itself, and everything settles."""
    network = Network(seed, faults_of(seed), stall_max=DEADLINE_MS / 1000 * 1.5,
                      stream_faults=faults_of(f"{seed} of watch", ON_STREAMS, 0.85))
    try:
        def between(metastore):
            return network.link("pagestore-metastore", metastore.port())

        with Simulation(f"lies {name}", seed, between=between) as simulation:
            network.lying = False  # while the first state is made
            workload = simulation.workload(name, deadline_ms=DEADLINE_MS)
            metastore, pagestore = simulation.cluster.metastore, simulation.cluster.pagestore
            workload.servers = {
                client.name: (network.link(f"{client.name}-metastore", metastore.port(), metastore.port("watch")),
                              network.link(f"{client.name}-pagestore", pagestore.port())) for client in workload.clients}
            network.lying = True
            began = time.monotonic()
            workload.run(seconds)
            acknowledged = workload.acknowledged()
            while acknowledged < PUSHES_MIN or network.requests < REQUESTS_MIN:
                acknowledged += workload.wait_for_progress()
            took = time.monotonic() - began
            network.heal()
            converged = workload.converge()
            report = simulation.check([ALLOWED[kind] for kind in network.fired if kind in ALLOWED])
        for kind, count in network.fired.items():
            report.inject(kind, count)
        for kind, count in network.fired_on_streams.items():
            report.inject(f"{kind} of watch", count)
        report.count(watches=sum(link.seen["watch"] for link in network.links),
                     milliseconds_to_converge=round(1000 * max(converged, default=0)), requests=network.requests, milliseconds=round(took * 1000), acknowledged_while_lying=acknowledged)
        return report
    finally:
        network.close()


for name in WORKLOADS:
    scenario(f"lies-{name}")(functools.partial(lie, name))
