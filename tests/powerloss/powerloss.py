# SPDX-License-Identifier: Apache-2.0
"""Programs under a disk that loses power (layer.h), and what a test of many losses counts."""
import collections
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

BUILD = pathlib.Path(os.environ.get("GRAFT_BUILD", "build")).resolve()
LAYER = BUILD / "tests/powerloss/libpowerloss.so"
SUMS = ("changes", "sectors_kept", "sectors_lost", "torn", "sizes_lost", "names", "names_lost", "renames_lost")


class Anomaly(AssertionError):
    """What a loss of power must not do."""


class Settings:
    """From the command line and the environment: --seed N (or GRAFT_SIM_SEED), GRAFT_SIM_LOSSES."""

    def __init__(self, losses, seed=None):
        arguments = sys.argv[1:]
        given = arguments[arguments.index("--seed") + 1] if "--seed" in arguments else os.environ.get("GRAFT_SIM_SEED")
        self.seed = int(given or seed or time.time_ns() // 1_000_000 % 1_000_000_000)
        # The number is that of all suites together; each has its part of 2,000.
        self.losses = max(1, losses * int(os.environ.get("GRAFT_SIM_LOSSES", "2000")) // 2000)
        print(f"# seed {self.seed}: --seed {self.seed}, or GRAFT_SIM_SEED={self.seed}", flush=True)


class Totals:
    def __init__(self):
        self.counts = collections.Counter()
        self.calls = collections.Counter()
        self.started = time.monotonic()

    def add(self, loss):
        self.counts["losses"] += 1
        self.calls[loss["call"]] += 1
        for name in SUMS:
            self.counts[name] += loss[name]

    def show(self, title):
        counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in self.counts.items())
        calls = ", ".join(f"{value} at {name}" for name, value in self.calls.most_common())
        print(f"# {title}: {counts}; {calls}; {time.monotonic() - self.started:.1f} s", flush=True)

    def at_least(self, **floors):
        """A run that lost less than this has shown nothing."""
        for name, floor in floors.items():
            if self.counts[name] < floor:
                raise AssertionError(f"only {self.counts[name]} {name}, not {floor}")


class Process:
    """One run of a program on the disk `root`, which must exist."""

    def __init__(self, command, root, seed, at=0, fail_sync=0, lie=False, at_exit=True, **options):
        self.report, report = os.pipe()
        environment = {**os.environ, "LD_PRELOAD": str(LAYER), "POWERLOSS_ROOT": str(root),
                       "POWERLOSS_SEED": str(seed), "POWERLOSS_AT": str(at), "POWERLOSS_FAIL_SYNC": str(fail_sync),
                       "POWERLOSS_LIE": str(int(lie)), "POWERLOSS_AT_EXIT": str(int(at_exit)),
                       "POWERLOSS_REPORT_FD": str(report)}
        try:
            self.process = subprocess.Popen(list(map(str, command)), env=environment, pass_fds=[report],
                                            **{"stdin": subprocess.DEVNULL, **options})
        finally:
            os.close(report)

    def loss(self):
        """What was lost, once that has happened; None if the program ended without."""
        with os.fdopen(self.report) as pipe:
            text = pipe.read()
        self.process.wait(60)
        return json.loads(text) if text else None


def run(command, root, seed, timeout=60, **options):
    """Runs a program to its loss: the lines that it printed, the loss or None, its exit code, its stderr."""
    started = Process(command, root, seed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    try:
        out, err = started.process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        started.process.kill()
        raise Anomaly(f"still running after {timeout} s: {command}") from None
    return out.splitlines(), started.loss(), started.process.returncode, err


def check_end(loss, code, options, said, may_exit=False):
    """A program ends by losing power. Where a sync failed it may also stop by itself, or be stopped by RocksDB, whose
    assertions are on; the power fails then, too."""
    failed_sync = bool(options.get("fail_sync"))
    if (loss is None or (loss["call"] == "exit" and not (may_exit or failed_sync)) or
            (loss["call"] == "abort" and not (failed_sync and "rocksdb::" in said))):
        raise Anomaly(f"it ended with {code} and {loss} ({options}):\n{said[-3000:]}")


class Histories:
    """One history of a victim after another, each on one disk. The victim is called with a folder, the history's seed and how
    many of its steps were acknowledged, and says how far it is (store_victim.c). Power fails while it opens, which are its
    first `opening_calls`, or up to `calls` of them, or after a sync that failed."""

    def __init__(self, victim, folder, seed, opening_calls, calls, lie=False):
        self.victim, self.opening_calls, self.calls = victim, opening_calls, calls
        self.folder, self.root, self.lie = folder, folder / "disk", lie
        self.random = random.Random(seed)
        self.totals = Totals()
        self.begin_history()

    def begin_history(self):
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        self.history = self.random.randrange(1 << 32)
        self.done = 0
        self.totals.counts["histories"] += 1

    def settings(self):
        dice = self.random.random()
        options = {"seed": self.random.randrange(1 << 63), "lie": self.lie}
        if dice < 0.4:
            return {**options, "at": self.random.randint(1, self.opening_calls)}
        if dice < 0.6:
            return {**options, "at": 3 * self.calls, "fail_sync": self.random.randint(1, 120)}
        return {**options, "at": self.random.randint(self.opening_calls, self.calls)}

    def lose_once(self):
        options = self.settings()
        lines, loss, code, err = run([self.victim, self.root / "data", self.history, self.done], self.root, **options)
        said = [(what, int(number)) for what, number in map(str.split, lines)]
        try:
            check_end(loss, code, options, err, may_exit=True)
        except Anomaly as anomaly:
            raise Anomaly(f"history {self.history}, {self.done} steps acknowledged: {anomaly}") from None
        self.totals.add(loss)
        counts = self.totals.counts
        counts["losses while opening"] += not said
        counts["failed syncs"] += options.get("fail_sync", 0) > 0
        counts["stopped by it"] += ("stopped", 0) in said
        numbers = [number for what, number in said if what != "stopped"]
        counts["acknowledged"] += numbers[-1] - self.done if numbers else 0
        self.done = max([self.done, *numbers])
        if loss["call"] == "exit":
            self.begin_history()


def keep(folder, why):
    """Says where what an anomaly was found in is kept."""
    place = pathlib.Path(os.environ.get("GRAFT_SIM_KEEP", BUILD / "sim-failures")) / f"powerloss-{os.getpid()}-{time.time_ns()}"
    shutil.copytree(folder, place)
    return f"{why}\nthe disk is kept in {place}"
