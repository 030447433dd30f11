# SPDX-License-Identifier: Apache-2.0
"""Runs the scenarios in turn, each time with another seed, and prints what came together so far.

    soak.py [MINUTES [SCENARIO…]]     without minutes: until it is interrupted

GRAFT_SIM_SEED is the first seed; a round's seed is printed, and starting with it runs that round again. Exit code 1 if
anything was found; what it was, and logs and histories, stay in GRAFT_SIM_KEEP.
"""
import os
import random
import signal
import sys
import time
import traceback

import history
import scenarios


class Interrupted(Exception):
    pass


def interrupt(*_):
    raise Interrupted


def summary(rounds, total, failures, seconds):
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(total.faults.items()))
    figures = total.figures
    return (f"{seconds / 60:.1f} min: {rounds} rounds, {figures['cycles']} cycles, {figures['commit_ok']} local commits, "
            f"{figures['acknowledged_pushes']} acknowledged pushes, {figures['pages_read']} pages read, faults: "
            f"{faults or 'none'}; {len(total.anomalies)} anomalies, {failures} failed rounds")


def soak(minutes, chosen, seed):
    began = time.monotonic()
    total, rounds, failures = history.Report(), 0, 0
    try:
        while not minutes or time.monotonic() - began < minutes * 60:
            for name, run in chosen.items():
                if minutes and time.monotonic() - began >= minutes * 60:
                    break
                try:
                    report = run(seed)
                except Exception:
                    traceback.print_exc()
                    print(f"FAILED {name}, GRAFT_SIM_SEED={seed}", flush=True)
                    failures += 1
                else:
                    total.merge(report)
                    if report.anomalies:
                        print(f"FOUND by {name}, GRAFT_SIM_SEED={seed}: {report}", flush=True)
                rounds += 1
                print(f"{name} {seed} | {summary(rounds, total, failures, time.monotonic() - began)}", flush=True)
            seed += 1
    except Interrupted:
        print("interrupted")
    print(summary(rounds, total, failures, time.monotonic() - began), flush=True)
    return not total.anomalies and not failures and rounds > 0


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 0
    known = scenarios.load()
    wanted = sys.argv[2:] or list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.exit(f"soak: no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    seed = int(os.environ.get("GRAFT_SIM_SEED", random.getrandbits(32)))
    sys.exit(0 if soak(minutes, {name: known[name] for name in wanted}, seed) else 1)


if __name__ == "__main__":
    main()
