#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The sweep: every failpoint, in every process that passes it, at its first, second and third time.

The process ends there (and, where the place can fail, fails there once), is started again without the failpoint, and the
workload goes on to its end. Then the checker of tests/sim/history holds all that its clients did against the metastore's log
and the pagestore's pages: what was acknowledged must be there, each push exactly once, and nothing else.

    test_sweep.py [NAME…]     only these failpoints

GRAFT_TEST_SEED repeats a run's seed, GRAFT_TEST_LANES says how many clusters work side by side.
"""
import collections
import http.client
import multiprocessing
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import cluster
import history
import wire
from history.events import lines_of, tell
from history.hashes import digest

WORKER = cluster.BUILD / "tests/sweep/sweep-worker"
DAEMONS = {"graft-metastore": "metastore", "graft-pagestore": "pagestore"}
EXIT_CODE, AGAIN = 86, 3
HITS = 3
RESTARTS_MAX = 4
LANES = int(os.environ.get("GRAFT_TEST_LANES", os.cpu_count() + 1))
SEED = int(os.environ.get("GRAFT_TEST_SEED", int.from_bytes(os.urandom(4), "big")))
HISTORY_COMMITS = HITS * 256  # so many summaries of the lowest level
LAGGING_CLOCK = cluster.BUILD / "tests/sweep/liblagging_clock.so"
METASTORE = cluster.BUILD / "metastore/graft-metastore"
# Programs that do one thing and end. Where a process of theirs reaches a place once, the second and third hit are those of
# the processes after it.
ONE_SHOTS = ("backup", "restore")
NEWCOMER = "client-2"  # who clones what was restored
LSN, SEGMENTS = 2, 11  # of a Commit (proto/graft.proto)
SNAPSHOTS = 3  # of each volume are read through the pagestore at the end
# A script with all that it takes and the programs in which it may be interrupted; the cheapest comes first.
SCRIPTS = {"objects": ["sweep-worker"], "pages": ["sweep-worker"], "space": ["sweep-worker"], "sync": ["sweep-worker", *DAEMONS], "large": ["sweep-worker", *DAEMONS],
           "history": ["graft-metastore"], "missing": ["graft-pagestore"], "restore": [*DAEMONS, *ONE_SHOTS]}

Run = collections.namedtuple("Run", "script program name action hit")


class Failure(Exception):
    pass


class Lane:
    """One cluster, used for one run after the other; each run has clients and volumes of its own."""

    def __init__(self, folder, report=None):
        self.temporary = tempfile.TemporaryDirectory(dir=folder)
        self.folder = pathlib.Path(self.temporary.name)
        self.runs = 0
        self.last_volume = b""
        self.ended = False  # the daemon in question, at its failpoint
        self.one_shot_reached, self.one_shot_fired = 0, False
        os.environ["LAGGING_CLOCK"] = str(self.folder / "pagestore-lags")
        with armed(None, report):
            self.cluster = cluster.Cluster(self.folder)

    def close(self):
        self.cluster.stop()
        self.temporary.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def daemon(self, program):
        return getattr(self.cluster, DAEMONS[program])

    def revive(self):
        """Starts the daemons that have ended; what they ended with."""
        codes = {}
        for program in DAEMONS:
            daemon = self.daemon(program)
            if daemon.process.poll() is not None:
                codes[program] = daemon.process.returncode
                daemon.start()
        return codes

    # ---- the parts of a run

    def run(self, run, report):
        """Returns nothing; raises what is wrong."""
        self.runs += 1
        folder = self.folder / f"run-{self.runs}"
        folder.mkdir()
        self.run_spec, self.report, self.ended, self.one_shot_fired = run, report, False, False
        if run.script != "restore":
            self.run_within(run, report, folder)
            return
        with Lane(folder, report if run.name is None else None) as own:  # its metastores come and go
            try:
                own.run_within(run, report, folder)
            finally:
                self.one_shot_fired = own.one_shot_fired

    def run_within(self, run, report, folder):
        self.run_spec, self.report = run, report
        os.environ["LAGGING_CLOCK"] = str(self.folder / "pagestore-lags")
        if run.program in DAEMONS:
            self.arm_daemon(run)
        if run.script == "restore":
            events = self.restored(folder)
        elif run.script == "history":
            events = self.history()
        else:
            events = self.missing(run, folder) if run.script == "missing" else self.work(run, folder)
        if run.program in DAEMONS:
            self.await_end(run)
        self.check(events)
        if not self.fired():
            raise Failure("it never fired")

    def fired(self):
        run = self.run_spec
        return run.name is None or self.one_shot_fired or any(
            line.split()[2:] == [run.action, run.name, str(run.hit)] for line in self.report.read_text().splitlines())

    def arm_daemon(self, run):
        daemon = self.daemon(run.program)
        daemon.stop()
        with armed(run, self.report):
            try:
                daemon.start()
            except AssertionError:
                if not self.fired():
                    raise
        self.ended = run.program in self.revive()

    def await_end(self, run):
        """What a daemon does in the background may come after the workload's end."""
        if not self.fired() and run.script == "history":
            wait_for_any([self.daemon(run.program).process], 10)
        if self.fired() and run.action == "exit" and not self.ended:
            wait_for_any([self.daemon(run.program).process], 10)
        self.check_codes(self.revive())

    def check_codes(self, codes):
        for program, code in codes.items():
            expected = (EXIT_CODE,) if self.run_spec.action == "exit" else (0, 1)
            if program != self.run_spec.program or code not in expected:
                raise Failure(f"{program} ended with {code}:\n{self.daemon(program).log()[-2000:]}")
            self.ended = True

    def command(self, run, folder):
        return [WORKER, run.script, folder, self.cluster.metastore.url(), self.cluster.pagestore.url(), str(SEED)]

    def before_restart(self, folder):
        """The workload is about to go on."""

    def work(self, run, folder):
        """Runs the workload to its end; what its clients did."""
        command, lines = self.command(run, folder), folder / "history.jsonl"
        with armed(run if run.program == "sweep-worker" else None, self.report if run.program in ("sweep-worker", None) else None):
            worker = start_worker(command)
        starts = 1
        while True:
            processes = [worker, *(self.daemon(program).process for program in DAEMONS)]
            wait_for_any(processes, 60)
            self.check_codes(self.revive())
            if worker.poll() is None:
                continue
            errors = worker.stderr.read().decode(errors="replace")
            worker.stderr.close()
            if worker.returncode == 0:
                break
            expected = (run.program == "sweep-worker" and run.action == "exit" and worker.returncode == EXIT_CODE) or \
                (run.action == "error" and worker.returncode == AGAIN)
            starts += 1
            if not expected or starts > RESTARTS_MAX:
                found = "".join(f"\n{name}: {text}" for name, text in history.load([lines] if lines.exists() else []).anomalies[:5])
                raise Failure(f"the workload ended with {worker.returncode} (start {starts - 1}): {errors[-1500:]}{found}")
            self.before_restart(folder)
            with armed(None, None):
                worker = start_worker(command)
        return history.load([lines] if lines.exists() else [])  # a script may have no client

    def history(self):
        """Hundreds of commits without pages, and a few forks, each sent until it is answered."""
        caller = wire.Caller(self.cluster.metastore)
        vid = wire.gid(wire.VOLUME)
        lines = Lines("wire", vid)
        self.insist(caller, "create_volume", {1: vid, 2: 4096, 3: 1})
        chain = bytes(16)
        for base in range(HISTORY_COMMITS):
            token, content = os.urandom(16), digest(vid, base, 0, 0, {})
            lines.add("note", "begin", token=token.hex(), base=base, cut=0, pushes=0)
            lines.add("note", "send", token=token.hex(), digest=content.hex(), base=base, cut=0, pushes=0)
            head = self.insist(caller, "commit", {1: vid, 2: base, 3: chain, 4: token, 5: content, 6: wire.gid(0x83)})
            snapshot = wire.decode(head[1][0])
            lines.add("note", "settle", token=token.hex(), lsn=snapshot[2][0])
            chain = snapshot[4][0]
        for number in range(1, HITS + 1):
            fork = wire.gid(wire.VOLUME)
            lines.add("invoke", "fork", number)
            lines.add("note", "forking", fork=wire.gid_text(fork), local=0, mapped=0, remote=HISTORY_COMMITS)
            self.insist(caller, "fork", {1: vid, 2: HISTORY_COMMITS, 3: chain, 4: fork})
            lines.add("ok", "fork", number, fork=wire.gid_text(fork))
        caller.close()
        return tell(lines.lines)

    def missing(self, run, folder):
        """Reads of pages whose segment is away for a while: damaged, never other bytes, and well again after it."""
        segments = self.folder / "segments"
        before = set(segments.rglob("*"))
        events = self.work(run, folder)
        vid, = map(wire.gid_text, events.vids())
        ours = {path: folder / path.name for path in set(segments.rglob("*")) - before if path.is_file()}
        head = wire.Caller(self.cluster.metastore).head(wire.gid_bytes(vid))
        for path, away in ours.items():
            path.rename(away)
        for _ in range(HITS):
            self.expect_pages(vid, head, wire.PAGE_DAMAGED)
        for path, away in ours.items():
            away.rename(path)
        self.expect_pages(vid, head, wire.PAGE_STORED)
        for _ in range(HITS):
            self.expect_refusal(vid, head)
        return events

    def expect_refusal(self, vid, head):
        """Of pages at an LSN that is not there yet."""
        caller = wire.Caller(self.cluster.pagestore)

        def read():
            answer = caller.read_pages(wire.gid_bytes(vid), head[2] + 1, head[4], wire.page_set((1, 1)))
            if not isinstance(answer, wire.Answer):
                raise Failure(f"{vid}: there are pages at LSN {head[2] + 1}")
            return (200, None) if answer.code == 404 else (answer.code, answer.text)

        self.until_answered(caller, "read_pages", read)
        caller.close()

    def expect_pages(self, vid, head, state):
        caller = wire.Caller(self.cluster.pagestore)

        def read():
            found = caller.read_pages(wire.gid_bytes(vid), head[2], head[4], wire.page_set((1, head[3])))
            return (found.code, found.text) if isinstance(found, wire.Answer) else (200, found)

        found = self.until_answered(caller, "read_pages", read)
        caller.close()
        states = {page: frame[2][0] for page, frame in found.items()}
        if states != {page: state for page in range(1, head[3] + 1)}:
            raise Failure(f"{vid}: pages have the states {states}, not {state}")

    # ---- backups and restores

    def restored(self, folder):
        """Three backups, each brought back; one of these stores takes the place of the one that was lost. A client and the
        pagestore had seen more of that one. What the program in question has no part in is done once. Returned is what was
        done before the backups, and by who comes at the end."""
        metastore, program = self.cluster.metastore, self.run_spec.program
        backups = HITS if program in (None, "backup", "graft-metastore") else 1
        restores = HITS if program in (None, "restore") else 1
        vids = self.work(self.run_spec._replace(script="restore-backed"), folder).vids()
        backed = len(list(lines_of(folder / "history.jsonl")))
        backup = self.first_disturbed(backups, lambda number: self.back_up(folder / f"backup-{number}"))
        self.work(self.run_spec._replace(script="restore-lost"), folder)
        store = self.first_disturbed(restores, lambda number: self.restore(folder / f"backup-{backup}", folder / f"store-{number}"))
        metastore.stop()
        metastore.arguments[1] = f"rocksdb:{folder / f'store-{store}'}"
        metastore.start()
        caller = wire.Caller(metastore)
        for vid in vids:
            log = caller.commits(vid, 1)
            if [commit[LSN][0] for commit in log] != [1, 2] or SEGMENTS in log[1]:
                raise Failure(f"{wire.gid_text(vid)}: after the restore the log is {log}")
        caller.close()
        self.work(self.run_spec._replace(script="restore-served"), folder)
        lines = list(lines_of(folder / "history.jsonl"))
        return tell([*lines[:backed], *(line for line in lines[backed:] if line["c"] == NEWCOMER)])

    def first_disturbed(self, count, act):
        """Does something so often: the number of that in which the run's failpoint fired, or the last."""
        chosen = None
        for number in range(count):
            act(number)
            self.check_codes(self.revive())
            if chosen is None and self.fired():
                chosen = number
        return count - 1 if chosen is None else chosen

    def one_shot(self, victim, *arguments):
        """Runs such a program once: its exit code and what it said. The hit is counted over all of its processes."""
        run, report, armed_run = self.run_spec, new_report(self.folder), None
        if run.program == victim and not self.one_shot_fired:
            armed_run = run._replace(hit=run.hit - self.one_shot_reached)
        with armed(armed_run, report):
            result = subprocess.run([METASTORE, *map(str, arguments)], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        lines = [line.split() for line in report.read_text().splitlines()]
        if armed_run:
            self.one_shot_reached += sum(line[2:4] == ["reached", run.name] for line in lines)
            self.one_shot_fired = any(line[2:4] == [run.action, run.name] for line in lines)
        if run.name is None:
            with open(self.report, "a", encoding="utf-8") as whole:
                whole.writelines(" ".join([victim, *line[1:]]) + "\n" for line in lines)
        said = result.stderr.decode()
        expected = (0, EXIT_CODE if run.action == "exit" else 1) if armed_run and self.one_shot_fired else (0, 1)
        if result.returncode not in expected:
            raise Failure(f"{victim} ended with {result.returncode}: {said}")
        self.check_codes(self.revive())
        return result.returncode, said

    def back_up(self, target):
        """Until it is there; what a backup that was cut off leaves is refused by a daemon, and to be removed."""
        metastore, partial = self.cluster.metastore, pathlib.Path(f"{target}.partial")
        for _ in range(RESTARTS_MAX):
            code, said = self.one_shot("backup", "--backup", target, "--store", metastore.arguments[1],
                                       "--listen", metastore.addresses["listen"])
            if code == 0:
                return
            if not self.fired():
                raise Failure(f"backup: {said}")
            if target.exists() != (target / "BACKUP").exists():
                raise Failure("a backup is there in part")
            if target.exists():
                self.expect_no_daemon(target, "is a backup")
                if "the folder is not empty" in said:
                    return  # whole
            if partial.exists():
                self.expect_no_daemon(partial, "a backup leaves that was cut off")
                if "was cut off; remove it" in said:
                    shutil.rmtree(partial)
        raise Failure(f"no backup after {RESTARTS_MAX} starts: {said}")

    def restore(self, backup, target):
        """Until it is there: what was cut off is refused by a daemon, and goes on when it is run again."""
        for _ in range(RESTARTS_MAX):
            code, said = self.one_shot("restore", "restore", "--from", backup, "--store", f"rocksdb:{target}")
            if code == 0:
                return
            if not self.fired():
                raise Failure(f"restore: {said}")
            if (target / "RESTORE").exists():
                self.expect_no_daemon(target, "was cut off; run the same graft-metastore restore again")
            elif "is not empty; a backup is brought back into a new folder" in said:
                return  # it had ended: what it holds is looked at by who serves it
        raise Failure(f"no restore after {RESTARTS_MAX} starts: {said}")

    def expect_no_daemon(self, store, why):
        with armed(None, None):
            result = subprocess.run([METASTORE, "--store", f"rocksdb:{store}", "--listen", "127.0.0.1:0", "--watch-listen",
                                     "127.0.0.1:0", "--cluster-key", self.folder / "cluster.key"],
                                    capture_output=True, timeout=20, stdin=subprocess.DEVNULL)
        if result.returncode != 1 or why not in result.stderr.decode():
            raise Failure(f"a daemon on {store.name} ended with {result.returncode}: {result.stderr.decode()}")

    def insist(self, caller, call, fields):
        def post():
            answer = caller.post(call, fields)
            return answer.code, answer.message if answer.code == 200 else answer.text

        return self.until_answered(caller, call, post)

    def until_answered(self, caller, name, call):
        """Repeats a call while a daemon is away; what it answered."""
        deadline = time.monotonic() + 20
        while True:
            try:
                code, answer = call()
                if code == 200:
                    return answer
                problem = f"{code}: {answer}"
                if code < 500:
                    raise Failure(f"{name}: {problem}")
            except (OSError, AssertionError, http.client.HTTPException) as error:
                problem = str(error)
            caller.close()
            wait_for_any([caller.daemon.process], 0.1)
            self.check_codes(self.revive())
            if time.monotonic() > deadline:
                raise Failure(f"{name}: {problem}")

    def check(self, events):
        """By the checker; and the metastore lists the volumes that it must, and no other."""
        report = history.check(events, self.cluster, snapshots=SNAPSHOTS)
        caller = wire.Caller(self.cluster.metastore)
        found = {wire.decode(head)[1][0] for head in caller.post(
            "list_volumes", {1: self.last_volume} if self.last_volume else {}).message.get(1, [])}
        caller.close()
        self.last_volume = max([self.last_volume, *found])
        if report.anomalies:
            raise Failure(str(report))
        pushed = {token.vid for token in events.tokens.values() if token.settled} | events.forks.keys()
        if found != pushed - events.deletions.keys():
            raise Failure(f"volumes {[wire.gid_text(vid) for vid in found ^ (pushed - events.deletions.keys())]} are not what "
                          "was acknowledged")


class Lines:
    """The lines of a client that has no replica (tests/sim/recorder.h)."""

    def __init__(self, client, vid):
        self.lines, self.client, self.vid = [], client, wire.gid_text(vid)

    def add(self, event, op, number=0, **fields):
        self.lines.append({"t": time.monotonic_ns(), "c": self.client, "r": 1, "i": number, "e": event, "op": op,
                           "vid": self.vid, **fields})


class armed:
    """The environment in which a process is started."""

    def __init__(self, run, report):
        self.values = {"GRAFT_FAILPOINTS": f"{run.name}={run.action}@{run.hit}" if run and run.name else None,
                       "GRAFT_FAILPOINTS_REPORT": str(report) if report else None}

    def __enter__(self):
        os.environ.update({name: value for name, value in self.values.items() if value})

    def __exit__(self, *_):
        for name in self.values:
            os.environ.pop(name, None)


def start_worker(command):
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, preexec_fn=cluster.die_with_parent)


def wait_for_any(processes, seconds):
    """Until one of them has ended."""
    poller, descriptors = select.poll(), []
    try:
        for process in processes:
            if process.poll() is not None:
                return
            descriptors.append(os.pidfd_open(process.pid))
            poller.register(descriptors[-1], select.POLLIN)
        if not poller.poll(seconds * 1000) and seconds > 20:
            raise Failure(f"nothing happened for {seconds} s")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


# ---- all of it

def listed():
    """{program: {failpoint: whether it can fail}}, without reaching one."""
    programs = {}
    for program, path in {"sweep-worker": WORKER, **{program: cluster.BUILD / name / program for program, name in DAEMONS.items()},
                          "graft": cluster.CLI}.items():
        lines = subprocess.run([path, "--failpoints"], capture_output=True, text=True, check=True).stdout.splitlines()
        programs[program] = {line.split()[0]: line.split()[1] == "error" for line in lines}
        if len(programs[program]) != len(lines):
            raise Failure(f"{program} has two failpoints of one name")
    return {**programs, **{victim: programs["graft-metastore"] for victim in ONE_SHOTS}}


def new_report(folder):
    descriptor, path = tempfile.mkstemp(prefix="report-", dir=folder)
    os.close(descriptor)
    return pathlib.Path(path)


def reached_by(folder, script):
    """How often each program reaches each failpoint in a run of the script that nobody disturbs."""
    report = new_report(folder)
    lane = Lane(folder, report)
    try:
        lane.run(Run(script, None, None, None, 0), report)
    finally:
        lane.close()
    lines = [line.split() for line in report.read_text().splitlines()]
    return collections.Counter((program, name) for program, _, what, name, _ in lines if what == "reached")


def work_through(folder, jobs, results):
    cluster.die_with_parent()
    lane = None
    for run in iter(jobs.get, None):
        problem = fired = None
        try:
            lane = lane or Lane(folder)
            lane.run(run, new_report(folder))
        except Exception as error:  # pylint: disable=broad-except
            problem = str(error) if isinstance(error, Failure) else traceback.format_exc()
        if lane:
            fired = lane.fired()
        if problem and lane:  # whatever it left behind is not for the next run
            lane.close()
            lane = None
        results.put((run, fired, problem))
    if lane:
        lane.close()


def plan(programs, counts, only):
    """The runs, and the failpoints that no script reaches often enough."""
    runs, unreached = [], []
    for name in sorted({name for program in programs for name in programs[program]}):
        if only and name not in only:
            continue
        places = {}
        for script, victims in SCRIPTS.items():
            for program in victims:
                if program not in places and counts[script][program, name] >= HITS:
                    places[program] = script
        if not places:
            unreached.append(name)
        for program, script in places.items():
            runs += [Run(script, program, name, "exit", hit) for hit in range(1, HITS + 1)]
            if programs[program][name]:
                runs.append(Run(script, program, name, "error", 1))
    # The slow ones first: then the lanes end together.
    return sorted(runs, key=lambda run: -list(SCRIPTS).index(run.script)), unreached


def sweep(folder, runs):
    jobs, results = multiprocessing.Queue(), multiprocessing.Queue()
    lanes = [multiprocessing.Process(target=work_through, args=(folder, jobs, results)) for _ in range(min(LANES, len(runs)))]
    for run in [*runs, *[None] * len(lanes)]:
        jobs.put(run)
    for lane in lanes:
        lane.start()
    outcomes = []
    while len(outcomes) < len(runs):
        outcomes.append(results.get(timeout=300))
        run, _, problem = outcomes[-1]
        if problem:
            print(f"{run}: {problem}", file=sys.stderr, flush=True)
    for lane in lanes:
        lane.join()
    return outcomes


def main():
    begun = time.monotonic()
    print(f"# seed {SEED}", flush=True)
    programs = listed()
    os.environ["LD_PRELOAD"] = str(LAGGING_CLOCK)  # for daemons to come
    shm = pathlib.Path("/dev/shm")  # processes are killed here, not machines: a disk that forgets does as well
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leaves by way of what follows
    with tempfile.TemporaryDirectory(prefix="graft-sweep-", dir=shm if os.access(shm, os.W_OK) else None) as folder:
        counts = {script: reached_by(folder, script) for script in SCRIPTS}
        runs, unreached = plan(programs, counts, sys.argv[1:])
        outcomes = sweep(folder, runs)
    by_name = collections.defaultdict(list)
    for outcome in outcomes:
        by_name[outcome[0].name].append(outcome)
    number = bad = 0
    for name in sorted([*by_name, *unreached]):
        problems = [(run, problem) for run, _, problem in by_name[name] if problem]
        number += 1
        good = not problems and name not in unreached
        bad += not good
        print(f"{'ok' if good else 'not ok'} {number} {name}", flush=True)
        if name in unreached:
            print(f"{name}: no script reaches it {HITS} times:",
                  {(script, *key): count for script in counts for key, count in counts[script].items() if key[1] == name},
                  file=sys.stderr)
    fired = sum(outcome[1] for outcome in outcomes)
    whole = fired == len(outcomes) and not unreached
    print(f"# {number} failpoints, {len(outcomes)} runs, {100 if whole else min(99, 100 * fired // max(1, len(outcomes)))} % fired, "
          f"{time.monotonic() - begun:.0f} s")
    print(f"1..{number}")
    sys.exit(bad > 0 or not whole)


if __name__ == "__main__":
    main()
