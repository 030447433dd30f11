# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments, of any process, while clients work."""
import collections
import functools
import signal
import time

from scenarios import scenario
from workloads import READER, WORKLOADS, Simulation

# How often each is the victim. The data stays; what was killed starts again at once.
VICTIMS = {"client": 35, "reader": 5, "metastore": 25, "pagestore": 25, "daemons": 5, "everything": 5}
DELAY_MAX = 0.08  # seconds from a sign of progress to the kill
STALL_PATIENCE_MS = 100


def kill(workload, victim):
    """Kills and starts again."""
    cluster = workload.cluster
    writers = [client for client in workload.clients if not client.is_a(READER)]
    readers = [client for client in workload.clients if client.is_a(READER)] or writers
    victims = {"client": [workload.random.choice(writers)], "reader": [workload.random.choice(readers)],
               "metastore": [cluster.metastore], "pagestore": [cluster.pagestore],
               "daemons": [cluster.pagestore, cluster.metastore],
               "everything": [*workload.clients, cluster.pagestore, cluster.metastore]}[victim]
    for process in victims:
        process.kill()
    for process in reversed(victims):
        process.start()


def kill_cycles(name, seed, cycles):
    """The report of `cycles` kills over one workload. Each kill comes after an acknowledged push, so that there is
    progress between any two; a client that makes none in half a minute fails the run."""
    with Simulation(f"kills {name}", seed) as simulation:
        workload = simulation.workload(name)
        began = time.monotonic()
        workload.start()
        kills = collections.Counter()
        for _ in range(cycles):
            workload.wait_for_progress()
            time.sleep(workload.random.uniform(0, DELAY_MAX))
            workload.revive()
            victim = workload.random.choices(list(VICTIMS), list(VICTIMS.values()))[0]
            kill(workload, victim)
            kills[victim] += 1
        seconds = time.monotonic() - began
        workload.revive()
        workload.converge()
        report = simulation.check()
    report.count(cycles=cycles, milliseconds=round(seconds * 1000))
    for victim, count in kills.items():
        report.inject(f"kill -9 of {victim}", count)
    return report


def stalls(seed, cycles=40):
    """Daemons stand still for longer than the clients have patience: pushes stay without an answer, land late, and are
    given up in between. Resets then need a fence."""
    with Simulation("stalls", seed) as simulation:
        cluster = simulation.cluster
        workload = simulation.workload("writers", deadline_ms=STALL_PATIENCE_MS)
        workload.start()
        for _ in range(cycles):
            workload.wait_for_progress()
            daemon = workload.random.choices([cluster.metastore, cluster.pagestore], [4, 1])[0]
            daemon.process.send_signal(signal.SIGSTOP)
            time.sleep(workload.random.uniform(0, 4) * STALL_PATIENCE_MS / 1000)
            daemon.process.send_signal(signal.SIGCONT)
        report = simulation.check()
    report.count(cycles=cycles)
    report.inject("stall", cycles)
    return report


scenario("stalls")(stalls)
for name in WORKLOADS:
    scenario(f"kills-{name}")(functools.partial(kill_cycles, name, cycles=20))
