# SPDX-License-Identifier: Apache-2.0
"""Simulated clients at work on one volume of a cluster, while somebody makes trouble.

    events = run_workload("bank", cluster, seed, seconds)      # undisturbed, or disturbed from another thread
    history.check(events, cluster).require()

or step by step:

    workload = Workload("bank", cluster, seed)    # makes the volume; every client knows it
    workload.start()
    …kill, cut, delay…                            # client.kill() and client.start() too; workload.revive()
    events = workload.finish()                    # faults are over: every client settles

The workloads are those of tests/sim/workload.h. Everything random comes from the seed, but for what threads and the
machine add.
"""
import json
import os
import pathlib
import random
import select
import shutil
import signal
import subprocess
import tempfile
import time

import cluster as graft
import history
import wire
from history.hashes import digest

CLIENT = graft.BUILD / "tests" / "sim" / "sim-client"
METASTORE = graft.BUILD / "metastore" / "graft-metastore"
OBJECTS = graft.BUILD / "tests" / "sim" / "sim-objects"
RECORD_HEAD, RECORD_TAIL = 16, 8  # around a record's message (docs/FORMATS.md)
IN_MODIFY = 2
SETTLED = b'"op":"settle"'
# What each workload's clients write (tests/sim/workload.h), and how they are.
READER, SYNCED, NORMAL, REATTACHING = ("--reader",), ("--sync",), ("--normal",), ("--reattach",)
WORKLOADS = {
    "bank": ("bank", {"teller": (), "auditor": READER}),
    "register": ("register", {"writer": (), "reader": READER}),
    "writers": ("writers", {"left": (), "right": NORMAL}),
    "family": ("family", {"left": (), "right": NORMAL}),
    "grow": ("grow", {"writer": NORMAL, "reader": READER}),
    "synced": ("writers", {"left": SYNCED, "right": SYNCED + NORMAL}),
}
# Not in the suites of every workload.
LARGE = {"bulk": ("bulk", {"writer": ()}),
         "restored": ("writers", {"left": REATTACHING, "right": REATTACHING + NORMAL, "reader": READER + REATTACHING})}
CONVERGE_SECONDS = 30
CLIENT_KIND = 0x83
TAIL = 16 << 10  # bytes at the end of a history, more than a calm client writes
READERS_THINK_US, SYNCED_THINK_US = 4000, 2000
DONE, FAILED, USAGE, UNSETTLED, BROKEN = range(5)  # exit codes


class Simulation:
    """A cluster in a folder of its own, for one scenario. If the checker finds something, or the scenario fails, logs and
    histories are kept under GRAFT_SIM_KEEP, if that is set.

        with Simulation("bank kills", seed) as simulation:
            workload = simulation.workload("bank")
            …
            return simulation.check()
    """

    def __init__(self, name, seed, **cluster):
        self.name, self.seed, self.bad, self.options = name, seed, False, cluster
        self.workloads = []

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="graft-sim-")
        self.folder = pathlib.Path(self.temporary.name)
        self.cluster = graft.Cluster(self.folder, **self.options)
        return self

    def workload(self, name, **options):
        self.workloads.append(Workload(name, self.cluster, self.seed, **options))
        return self.workloads[-1]

    def check(self, allow=(), earlier=()):
        """Settles the workloads and checks each; one report."""
        report = history.Report()
        for workload in self.workloads:
            report.merge(history.check(workload.finish(), self.cluster, allow, records=self.records,
                                       earlier=earlier))
        self.bad = bool(report.anomalies)
        return report

    def records(self, vids):
        """{vid: commits} of deleted volumes, from the metastore's store."""
        return stored_commits(self.cluster, vids)

    def __exit__(self, kind, error, traceback):
        for client in [client for workload in self.workloads for client in workload.clients]:
            if client.process and client.process.poll() is None:
                client.kill()
        self.cluster.stop()
        keep = os.environ.get("GRAFT_SIM_KEEP")
        if keep and (kind or self.bad):
            to = pathlib.Path(keep) / f"{self.name.replace(' ', '-')}-{self.seed}"
            to.mkdir(parents=True, exist_ok=True)
            for path in self.folder.iterdir():
                if path.is_file():
                    shutil.copy(path, to)
        self.temporary.cleanup()


def stored_commits(cluster, vids):
    """{vid: the messages of its commits}, read from the store of the metastore, which is stopped meanwhile."""
    cluster.metastore.stop()
    try:
        return dump_commits(cluster, vids)
    finally:
        cluster.metastore.start()


def dump_commits(cluster, vids):
    found = {}
    for vid in vids:
        dumped = subprocess.run([OBJECTS, f"rocksdb:{cluster.folder}/metastore", "dump",
                                 f"volumes/{wire.gid_text(vid)}/commits/"], check=True, capture_output=True).stdout
        found[vid], at = [], 0
        while at < len(dumped):
            size = int.from_bytes(dumped[at:at + 8], "little")
            found[vid].append(dumped[at + 8 + RECORD_HEAD:at + 8 + size - RECORD_TAIL])
            at += 8 + size
    return found


def replace_by_older(cluster, backup, vids):
    """The metastore's store gives way to what a backup brings back. (When the old one had
    ended, the logs that were lost), as the checker takes them."""
    caller = wire.Caller(cluster.metastore)
    heads = {vid: caller.head(vid) for vid in vids}
    caller.close()
    cluster.metastore.stop()
    until, lost = time.monotonic_ns(), {}
    for vid, records in dump_commits(cluster, vids).items():
        commits = [history.remote.Commit(wire.decode(record)) for record in records]
        lost[vid] = history.remote.Volume(vid, max(commit.lsn for commit in commits), heads[vid][5], heads[vid][6] == 2)
        lost[vid].commits = {commit.lsn: commit for commit in commits}
    store = cluster.folder / "metastore"
    shutil.rmtree(store)
    subprocess.run([METASTORE, "restore", "--from", backup, "--store", f"rocksdb:{store}"], check=True, capture_output=True)
    cluster.metastore.start()
    return until, lost


class Client:
    """One data directory; at most one process at a time works on it."""

    def __init__(self, workload, name, options=()):
        self.workload, self.name, self.options = workload, name, options
        self.log = workload.folder / f"{workload.name}-{name}.jsonl"
        self.errors = workload.folder / f"{workload.name}-{name}.stderr"
        self.data = workload.folder / f"{workload.name}-{name}"
        self.process = None
        self.log.touch()

    def command(self, *more):
        workload = self.workload
        metastore, pagestore = workload.urls(self)
        return [CLIENT, "--workload", workload.program, "--client", self.name, "--log", self.log, "--data", self.data,
                "--seed", str(workload.random.getrandbits(63)), "--metastore", metastore, "--pagestore", pagestore,
                "--deadline-ms", str(workload.deadline_ms),
                *(option for option in self.options if option in NORMAL + REATTACHING), *more]

    def run(self, *more):
        """To its end; its exit code and what it printed."""
        with open(self.errors, "ab") as errors:
            result = subprocess.run(self.command(*more), stdout=subprocess.PIPE, stderr=errors, text=True, timeout=300,
                                    preexec_fn=graft.die_with_parent)
        return result.returncode, result.stdout.strip()

    def is_a(self, kind):
        return set(kind) <= set(self.options)

    def create(self):
        """Makes the workload's volume and pushes its first state; the VID."""
        code, vid = self.run("--create", "--steps", "0")
        assert code == DONE, self.why()
        return vid

    def start(self, *more):
        arguments = ["--vid", self.workload.vid, *more]
        arguments += [option for option in self.options if option not in NORMAL + REATTACHING]
        if self.is_a(READER) or self.is_a(SYNCED):
            arguments += ["--think-us", str(READERS_THINK_US if self.is_a(READER) else SYNCED_THINK_US)]
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(self.command(*arguments), stdin=subprocess.DEVNULL, stderr=errors,
                                            preexec_fn=graft.die_with_parent)

    def kill(self):
        self.process.kill()
        return self.process.wait(20)

    def stop(self):
        """After the operation under way; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)

    def settle(self):
        """Pushes what is there (or resets what was rejected), pulls and reads everything."""
        for _ in range(3):
            code, _ = self.run("--vid", self.workload.vid, "--settle")
            if code == DONE:
                return
        raise AssertionError(f"{self.workload.name}'s {self.name} did not settle: {self.why()}")

    def stand(self):
        """Where its replica stood when it said so last, calm; None: it did not yet."""
        with open(self.log, "rb") as log:
            log.seek(max(0, self.log.stat().st_size - TAIL))
            lines = [line for line in log.read().split(b"\n")[:-1] if b'"op":"calm"' in line]
        return json.loads(lines[-1]) if lines else None

    def why(self):
        return self.errors.read_text()[-1000:]


class Workload:
    """`servers`: the URLs of metastore and pagestore as the clients are to see them (a proxy's), or a dictionary of such
    by client; the cluster's by default, and while the first state is pushed and when the clients settle."""

    def __init__(self, name, cluster, seed, servers=None, deadline_ms=5000):
        self.name, self.cluster, self.folder = name, cluster, cluster.folder
        self.random = random.Random(f"{name} {seed}")
        self.deadline_ms = deadline_ms
        self.power_fails = False  # where a client ends
        self.log = self.folder / f"{name}-mover.jsonl"  # of what it does itself
        self.log.touch()
        self.servers = None
        self.program, clients = {**WORKLOADS, **LARGE}[name]
        self.clients = [Client(self, client, options) for client, options in clients.items()]
        self.vid = self.clients[0].create()
        for client in self.clients[1:]:
            code, _ = client.run("--vid", self.vid, "--steps", "0")
            assert code == DONE, client.why()
        self.servers = servers
        self.seen = {client.log: client.log.stat().st_size for client in self.clients}

    def urls(self, client):
        servers = self.servers.get(client.name) if isinstance(self.servers, dict) else self.servers
        return servers or (self.cluster.metastore.url(), self.cluster.pagestore.url())

    def start(self):
        for client in self.clients:
            client.start()

    def run(self, seconds):
        self.start()
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self.revive()

    def revive(self):
        """Starts again what ended by itself: a client whose local store failed has to be opened anew."""
        for client in self.clients:
            if client.process.poll() is not None:
                client.start()

    def acknowledged(self):
        """How many pushes were acknowledged since the last call."""
        count = 0
        for client in self.clients:
            with open(client.log, "rb") as log:
                log.seek(self.seen[client.log])
                new = log.read()
            whole = new.rfind(b"\n") + 1
            self.seen[client.log] += whole
            count += new[:whole].count(SETTLED)
        return count

    def wait_for_progress(self, seconds=30):
        """Until a push was acknowledged; how many were since the last call. None in time: an AssertionError."""
        end = time.monotonic() + seconds
        watch = graft.LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            for client in self.clients:
                graft.LIBC.inotify_add_watch(watch, bytes(client.log), IN_MODIFY)
            while not (count := self.acknowledged()):
                left = end - time.monotonic()
                assert left > 0, f"no push of {self.name} was acknowledged in {seconds} s: {self.clients[0].why()}"
                if select.select([watch], [], [], min(left, 1))[0]:
                    os.read(watch, 65536)
                self.revive()
            return count
        finally:
            os.close(watch)

    def converge(self, seconds=CONVERGE_SECONDS):
        """There must be no faults any more. The clients that sync in the background stop changing anything, and are in step
        with the servers and with each other soon, without being told; and so once more after the head moved, of which
        the watch stream tells. How long the two took; an AssertionError if it is too long."""
        synced = [client for client in self.clients if client.is_a(SYNCED)]
        if not synced:
            return ()
        caller = wire.Caller(self.cluster.metastore)
        took = []
        for client in synced:
            client.process.send_signal(signal.SIGUSR1)
        for turn in range(2):
            if turn:
                self.move_the_head(caller)
            began = time.monotonic()
            head = caller.head(wire.gid_bytes(self.vid))[2]
            while True:
                for client in synced:
                    if client.process.poll() is not None:
                        client.start("--calm")
                stand = [client.stand() for client in synced]
                if all(at and at["remote"] == head and at["local"] == at["mapped"] and at["status"] == "ok" and
                       "token" not in at for at in stand):
                    break
                assert time.monotonic() - began < seconds, \
                    f"{self.name}: {seconds} s after the last fault, with the head at {head}, the clients stand at {stand}"
                time.sleep(0.01)
                head = caller.head(wire.gid_bytes(self.vid))[2]
            took.append(time.monotonic() - began)
        caller.close()
        return took

    def move_the_head(self, caller):
        """A commit without pages, by somebody else; that, too, is in the history."""
        vid = wire.gid_bytes(self.vid)
        head, token = caller.head(vid), os.urandom(16)
        count = head.get(3, 0)
        content = digest(vid, head[2], count, count, {})
        said = {"token": token.hex(), "base": head[2], "pushes": count, "cut": count, "digest": content.hex(), "segments": 0}
        self.note("begin", **said)
        self.note("send", **said)
        answer = caller.post("commit", {1: vid, 2: head[2], 3: head[4], 4: token, 5: content, 6: wire.gid(CLIENT_KIND),
                                        7: count, 8: count})
        assert answer.code == 200, answer.text
        self.note("settle", token=token.hex(), digest=content.hex(), lsn=wire.decode(answer.message[1][0])[2][0])

    def note(self, what, **fields):
        with open(self.log, "a") as log:
            print(json.dumps({"t": time.monotonic_ns(), "c": "mover", "r": 0, "i": 0, "e": "note", "op": what,
                              "vid": self.vid, **fields}), file=log)

    def finish(self):
        """Stops the clients, has each settle, and gives the history. There must be no faults any more."""
        self.servers = None
        for client in self.clients:
            client.stop()
        for client in self.clients:
            client.settle()
        return self.events()

    def events(self):
        return history.load([self.log, *(client.log for client in self.clients)], self.power_fails)


def run_workload(name, cluster, seed, seconds, servers=None):
    workload = Workload(name, cluster, seed, servers)
    workload.run(seconds)
    return workload.finish()
