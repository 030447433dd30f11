# SPDX-License-Identifier: Apache-2.0
"""Runs the models of this folder to exhaustion, and their mutants until they fail. Speaks TAP.

A run that must pass has to visit the whole state space, of at least the stated size: a model in which something can no
longer happen would pass more easily. A mutant has to break the property that is named for it, and no other first.

    run.py [--deep] [name…]      --deep: larger worlds, minutes and up to 4 GiB each
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import typing

HERE = pathlib.Path(__file__).resolve().parent
MEMORY_MIB = 900
DEEP_MEMORY_MIB = 4096
TIMEOUT_S = 540
DEEP_TIMEOUT_S = 3600
SMALL = "LOCALS=1"


class Run(typing.NamedTuple):
    name: str
    model: str
    switches: str
    states: int = 0    # at least so many; 0: it must fail
    broken: str = ""   # the property that a mutant breaks


RUNS = [
    Run("push", "push", SMALL, states=216_000),
    Run("push: refused segments", "push", f"{SMALL} REFUSALS LSNS=2 TOKENS=3 SERVER_CRASHES=0", states=1_010_000),
    Run("push: resets behind a fence", "push", f"{SMALL} FENCE LSNS=2 TOKENS=3 CLIENT_CRASHES=0", states=577_000),
    Run("push: a restored metastore", "push", f"{SMALL} RESTORE CLIENT_CRASHES=0", states=427_000),
    Run("push: a copied directory", "push", f"{SMALL} CLONE", states=24_000),
    Run("append", "append", "", states=19_000),
    Run("append: merging", "append", "MERGE", states=217_000),
    Run("append: retirement", "append", "RETIRE", states=46_000),
    Run("delete: barrier", "delete", "", states=220),
    Run("delete: claim", "delete", "CLAIM", states=290),
    Run("push: all can go well", "push", f"{SMALL} WITNESS", broken="all_goes_well"),
    Run("mutant: acknowledge before sync", "push", f"{SMALL} NO_SYNC_ACK", broken="acknowledged_stays"),
    Run("mutant: a duplicate's OK before sync", "push", f"{SMALL} NO_SYNC_DUPLICATE", broken="acknowledged_stays"),
    Run("mutant: a conflict before sync", "push", f"{SMALL} NO_SYNC_CONFLICT", broken="rejected_never_lands"),
    Run("mutant: a pull before sync", "push", f"{SMALL} NO_SYNC_PULL", broken="client_follows_the_log"),
    Run("mutant: send before the state is synced", "push", f"{SMALL} NO_SYNC_SEND", broken="discarded_never_lands"),
    Run("mutant: match by client", "push", f"{SMALL} MATCH_CLIENT", broken="acknowledged_stays"),
    Run("mutant: refusal taken as rejection", "push", f"{SMALL} REFUSED_IS_REJECTED", broken="rejected_never_lands"),
    Run("mutant: reset at any time", "push", f"{SMALL} RESET_ANYTIME", broken="discarded_never_lands"),
    Run("mutant: reset of a push that was sent", "push", f"{SMALL} REFUSALS RESET_UPLOADING", broken="discarded_never_lands"),
    Run("mutant: pull over local work", "push", f"{SMALL} PULL_OVER_LOCAL", broken="commit_lands_on_its_base"),
    Run("mutant: pull over a push", "push", f"{SMALL} PULL_OVER_PUSH", broken="commit_lands_on_its_base"),
    Run("mutant: a restore without chains", "push", f"{SMALL} RESTORE NO_CHAIN", broken="commit_lands_on_its_base"),
    Run("mutant: a restore without a void commit", "push", f"{SMALL} RESTORE NO_VOID", broken="rejected_never_lands"),
    Run("mutant: retired history judged", "append", "RETIRE NO_GONE", broken="rejected_never_lands"),
    Run("mutant: the mark read first", "append", "RETIRE MARK_FIRST", broken="rejected_never_lands"),
    Run("mutant: the mark not read after", "append", "RETIRE NO_LOOK_AFTER", broken="acknowledged_stays"),
    Run("mutant: a lost race is a conflict", "append", "BLIND", broken="rejected_never_lands"),
    Run("mutant: absent is rejected", "append", "ABSENT_IS_REJECTED", broken="rejected_never_lands"),
    Run("mutant: delete without a barrier", "delete", "NO_BARRIER", broken="logged_segment_exists"),
    Run("mutant: delete without a last look", "delete", "NO_SCAN", broken="logged_segment_exists"),
    Run("mutant: delete, and look afterwards", "delete", "RECHECK", broken="logged_segment_exists"),
]
DEEP_RUNS = [
    Run("deep push: refused segments", "push", f"{SMALL} REFUSALS", states=2_344_000),
    Run("deep push: resets behind a fence", "push", f"{SMALL} FENCE LSNS=2 TOKENS=3", states=2_791_000),
]


def say(command, folder, timeout_s=None):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_s)
    return done.returncode, done.stdout + done.stderr


def explore(run, deep):
    """What the checker says of one run."""
    defines = [f"-D{switch}" for switch in run.switches.split()]
    optimize = "-O2" if run.states > 100_000 else "-O0"  # a small run is over before an optimizer is
    with tempfile.TemporaryDirectory(prefix="graft-model-") as folder:
        for command in (["spin", "-a", *defines, HERE / f"{run.model}.pml"],
                        ["gcc", optimize, "-w", "-DSAFETY", "-DNOFAIR", "-DCOLLAPSE", "-DVECTORSZ=1024",
                         f"-DMEMLIM={DEEP_MEMORY_MIB if deep else MEMORY_MIB}", "-o", "pan", "pan.c"],
                        ["./pan", "-m200000", "-E"]):
            code, output = say(command, folder, DEEP_TIMEOUT_S if deep else TIMEOUT_S)
            if code != 0:
                raise AssertionError(f"{command[0]} ended with {code}:\n{output}")
        return output


def judge(run, output):
    """None if the run went as it must; how many states it had."""
    count = re.search(r"(\d+) states, stored", output)
    states = int(count.group(1)) if count else 0
    broken = re.search(r"(?:assertion violated|pan:1:) *(.*)", output)
    property_ = re.search(r"assertion violated \((\w+)\|\|", output)
    if run.broken:
        if not property_:
            return "found nothing, though it must break " + run.broken, states
        return (None if property_.group(1) == run.broken else f"broke {property_.group(1)}, not {run.broken}"), states
    if broken or "errors: 0" not in output:
        return f"failed: {broken.group(1) if broken else output}", states
    for sign in ("Search not completed", "max search depth too small", "MEMLIM", "out of memory", "truncated"):
        if sign in output:
            return f"did not see everything ({sign})", states
    return (None if states >= run.states else f"only {states} states, {run.states} at least"), states


def main(arguments):
    deep = "--deep" in arguments
    names = [argument for argument in arguments if argument != "--deep"]
    runs = [run for run in (DEEP_RUNS if deep else RUNS) if not names or any(name in run.name for name in names)]
    print(f"1..{len(runs) + (not names)}", flush=True)
    # The longest first.
    order = sorted(runs, key=lambda run: -run.states)
    failed = total = 0
    with concurrent.futures.ThreadPoolExecutor(1 if deep else min(2, os.cpu_count())) as pool:
        under_way = {pool.submit(explore, run, deep): run for run in order}
        for number, future in enumerate(concurrent.futures.as_completed(under_way), 1):
            run = under_way[future]
            try:
                wrong, states = judge(run, future.result())
            except (AssertionError, subprocess.TimeoutExpired) as error:
                wrong, states = str(error), 0
            total += states if not run.broken else 0
            failed += wrong is not None
            print(f"{'not ok' if wrong else 'ok'} {number} {run.name} ({states:,} states)", flush=True)
            if wrong:
                print(*(f"# {line}" for line in wrong.splitlines()), sep="\n", flush=True)
    if not names:
        enough = total >= 1_000_000
        failed += not enough
        print(f"{'ok' if enough else 'not ok'} {len(runs) + 1} in all at least a million states ({total:,})")
    sys.exit(failed > 0)


main(sys.argv[1:])
