# SPDX-License-Identifier: Apache-2.0
"""The metastore, the pagestore and two writing clients, each on a disk of its own, lose power over and over, while the
others go on. Of what was acknowledged nothing is lost: a writer finds its commits when it is opened again; a client that
clones the volume meanwhile sees a commit that was pushed, or a later one, with every byte of every page, at the head and at
an LSN before it. Some runs of each meet a failed sync first.
"""
import os
import pathlib
import random
import selectors
import shutil
import signal
import subprocess
import tempfile
import unittest

import cluster
import powerloss

VICTIM = powerloss.BUILD / "tests/powerloss/writer_victim"
SETTINGS = powerloss.Settings(200)
PATIENCE_S = 60  # without any loss or answer


class Machine:
    """A process on a disk that loses power, started again and again."""

    opening_calls = 120  # about as many has an opening of it
    running_calls = 400

    def __init__(self, test, name):
        self.test, self.name, self.folder = test, name, test.folder
        self.root = test.folder / f"{name}-disk"
        self.root.mkdir()
        self.random = random.Random(f"{test.seed} {name}")
        self.running = None  # the powerloss.Process
        self.last_options = None
        self.asked_to_end = False

    def options(self):
        """Of the next run: when the power fails."""
        options = {"seed": self.random.randrange(1 << 63), "lie": self.name in self.test.liars}
        dice = self.random.random()
        if self.test.calm:
            return options
        if dice < 0.35:
            return {**options, "at": self.random.randint(1, self.opening_calls)}
        if dice < 0.5:
            return {**options, "at": 3 * self.running_calls, "fail_sync": self.random.randint(1, self.opening_calls)}
        return {**options, "at": self.random.randint(self.opening_calls, self.running_calls)}

    def spawn(self, command, **options):
        self.options_before, self.last_options = self.last_options, self.options()
        self.asked_to_end = False
        self.test.totals.counts["failed syncs"] += "fail_sync" in self.last_options
        self.running = powerloss.Process(command, self.root, **self.last_options, **options)
        return self.running.process

    def check_end(self, loss, log):
        try:
            powerloss.check_end(loss, self.running.process.returncode, self.last_options, log[-3000:],
                                may_exit=self.asked_to_end)
        except powerloss.Anomaly as anomaly:
            raise powerloss.Anomaly(f"{self.name}: {anomaly}\nthe run before had {self.options_before}") from None


class LosingDaemon(cluster.Daemon):
    def __init__(self, machine, *arguments):
        super().__init__(machine.name, machine.folder, *arguments)
        self.machine = machine

    def spawn(self, command, **options):
        return self.machine.spawn(command, **options)


class Server(Machine):
    def __init__(self, test, name, calls, arguments, endpoints):
        super().__init__(test, name)
        self.opening_calls, self.running_calls = calls
        self.daemon = LosingDaemon(self, arguments, endpoints)

    def start(self):
        self.daemon.launch()

    def stop(self):
        self.asked_to_end = True
        self.running.process.terminate()
        loss = self.running.loss()
        if loss or self.running.process.returncode != -signal.SIGTERM:  # asked before it could be
            self.ended(loss)

    def wait_until_ready(self):
        """For the first time, when its addresses are not known yet."""
        self.daemon.start()

    def ended(self, loss):
        self.check_end(loss, self.daemon.log())

    def events(self):
        return []


class Writer(Machine):
    def __init__(self, test, name):
        super().__init__(test, name)
        self.seed = self.random.randrange(1, 1 << 32)
        self.vid = None
        self.acknowledged = 0  # commits
        self.pushed = (0, 0)   # LSN, commit
        self.text = b""

    def start(self):
        self.errors = open(self.folder / f"{self.name}.log", "ab")
        self.text = b""
        self.spawn([VICTIM, "write", self.root / "data", *self.test.urls(), self.seed], stdout=subprocess.PIPE,
                   stderr=self.errors, preexec_fn=cluster.die_with_parent)
        self.errors.close()

    def events(self):
        return [self.running.process.stdout]

    def read(self):
        """What it says; False at the end."""
        data = os.read(self.running.process.stdout.fileno(), 65536)
        *lines, self.text = (self.text + data).split(b"\n")
        for line in lines:
            self.heard(*line.decode().split())
        return bool(data)

    def heard(self, what, *words):
        counts = self.test.totals.counts
        if what == "volume":
            if self.vid not in (None, words[0]):
                raise powerloss.Anomaly(f"{self.name}: the volume {self.vid} is gone")
            self.vid = words[0]
        elif what == "at":
            number = int(words[0])
            if not self.acknowledged <= number <= self.acknowledged + 1:
                raise powerloss.Anomaly(f"{self.name}: reopened at commit {number}, and {self.acknowledged} was acknowledged")
            self.acknowledged = number
        elif what == "did":
            self.acknowledged = int(words[0])
            counts["commits"] += 1
        elif what == "pushed":
            lsn, number = map(int, words)
            if lsn < self.pushed[0]:
                raise powerloss.Anomaly(f"{self.name}: pushed as LSN {lsn} after {self.pushed[0]}")
            self.pushed = (lsn, number)
            counts["pushes"] += 1
        elif what == "stopped":
            counts["clients stopped"] += 1

    def drain(self):
        while self.read():
            pass
        self.running.process.stdout.close()

    def ended(self, loss):
        self.drain()
        self.check_end(loss, (self.folder / f"{self.name}.log").read_text(errors="replace"))


class Witness:
    """Clones a writer's volume into a new folder and compares all of it."""

    def __init__(self, test, writer):
        self.test, self.writer = test, writer
        self.floor = writer.pushed
        self.data = test.folder / f"witness-{test.totals.counts['witnesses']}"
        self.process = subprocess.Popen(
            list(map(str, [VICTIM, "verify", self.data, *test.urls(), writer.seed, writer.vid])),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.text = b""
        test.totals.counts["witnesses"] += 1

    def read(self):
        """What it says; False at the end."""
        data = os.read(self.process.stdout.fileno(), 65536)
        self.text += data
        return bool(data)

    def finish(self):
        while self.read():
            pass
        _, err = self.process.communicate(timeout=PATIENCE_S)
        if self.process.returncode != 0:
            raise powerloss.Anomaly(f"{self.writer.name}'s volume, pushed as {self.floor}: {err.decode()}")
        _, lsn, number = self.text.decode().split("\n", 1)[0].split()
        if int(lsn) < self.floor[0] or int(number) < self.floor[1]:
            raise powerloss.Anomaly(f"the head is LSN {lsn}, commit {number}; acknowledged were {self.floor}")
        shutil.rmtree(self.data)


class ClusterTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="graft-powerloss-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        key = self.folder / "cluster.key"
        key.touch(mode=0o600)
        key.write_text(os.urandom(32).hex())
        self.totals = powerloss.Totals()
        self.selector = selectors.DefaultSelector()

    def begin(self, liars=()):
        self.seed, self.liars, self.calm = SETTINGS.seed, liars, True
        self.metastore = Server(self, "metastore", (60, 140), ["--store", f"rocksdb:{self.folder}/metastore-disk/store"],
                                {"--listen": "listen", "--watch-listen": "watch"})
        self.metastore.wait_until_ready()
        pagestore = self.folder / "pagestore-disk"
        self.pagestore = Server(self, "pagestore", (80, 300), ["--store", f"fs:{pagestore}/segments", "--cache", pagestore / "cache",
                                                    "--metastore", self.metastore.daemon.url()], {"--listen": "listen"})
        self.pagestore.wait_until_ready()
        self.writers = [Writer(self, name) for name in ("first", "second")]
        self.machines = [self.metastore, self.pagestore, *self.writers]
        self.addCleanup(self.end)
        self.witness = None
        self.calm = False
        # The daemons have their addresses and keep them.
        for machine in self.machines[:2]:
            machine.stop()
        for machine in self.machines:
            machine.start()
            self.watch(machine)

    def urls(self):
        return self.metastore.daemon.url(), self.pagestore.daemon.url()

    def watch(self, machine):
        self.selector.register(machine.running.report, selectors.EVENT_READ, (machine, "lost"))
        for stream in machine.events():
            self.selector.register(stream, selectors.EVENT_READ, (machine, "said"))

    def unwatch(self, machine):
        for key in list(self.selector.get_map().values()):
            if key.data[0] is machine:
                self.selector.unregister(key.fileobj)

    def end(self):
        """Whatever still runs is killed; its disk is nobody's any more."""
        for machine in self.machines:
            if machine.running and machine.running.process.poll() is None:
                machine.running.process.kill()
                machine.running.process.wait()
        if self.witness:
            self.witness.process.kill()
            self.witness.process.communicate()

    def lost(self, machine):
        self.unwatch(machine)
        loss = machine.running.loss()
        machine.ended(loss)
        self.totals.add(loss)
        self.totals.counts[f"of {machine.name}"] += 1
        machine.start()
        self.watch(machine)

    def handle(self, key):
        machine, what = key.data
        if what == "lost":
            self.lost(machine)
        elif what == "said" and not machine.read():
            self.selector.unregister(key.fileobj)
        elif what == "witness" and not machine.read():
            self.selector.unregister(key.fileobj)
            witness, self.witness = self.witness, None
            witness.finish()

    def call_a_witness(self):
        writer = self.writers[self.totals.counts["witnesses"] % len(self.writers)]
        if self.witness is None and writer.pushed[0] > 0:
            self.witness = Witness(self, writer)
            self.selector.register(self.witness.process.stdout, selectors.EVENT_READ, (self.witness, "witness"))

    def turn(self):
        self.call_a_witness()
        events = self.selector.select(PATIENCE_S)
        if not events:
            raise powerloss.Anomaly(f"nothing happens any more:\n{self.metastore.daemon.log()[-1500:]}\n{self.pagestore.daemon.log()[-1500:]}")
        # One at a time: handling it may end others, and give their file numbers to new ones.
        self.handle(random.choice(events)[0])

    def test_what_was_acknowledged_survives(self):
        self.begin()
        try:
            while self.totals.counts["losses"] < SETTINGS.losses:
                self.turn()
            self.settle()
        except powerloss.Anomaly as anomaly:
            self.end()
            self.fail(powerloss.keep(self.folder, anomaly))
        finally:
            self.totals.show("cluster")
        losses = SETTINGS.losses
        self.totals.at_least(pushes=losses, witnesses=losses // 50, torn=losses // 10, names_lost=losses // 10)
        for machine in self.machines:
            self.assertGreater(self.totals.counts[f"of {machine.name}"], losses // 20, machine.name)

    def settle(self):
        """Once more with no failure any more, each volume is looked at."""
        self.calm = True
        for writer in self.writers:
            self.unwatch(writer)
            writer.running.process.kill()
            writer.running.loss()
            writer.drain()
        for machine in self.machines[:2]:
            self.unwatch(machine)
            machine.stop()
        if self.witness:
            self.selector.unregister(self.witness.process.stdout)
            self.witness.process.kill()
            self.witness.process.communicate()
            self.witness = None
        for machine in self.machines[:2]:
            machine.wait_until_ready()
        for writer in self.writers:
            Witness(self, writer).finish()

    def test_a_disk_that_only_says_it_synced_is_found_out(self):
        self.begin(liars=("metastore",))
        with self.assertRaises(powerloss.Anomaly):
            while self.totals.counts["losses"] < 200:
                self.turn()
        print(f"# found out after {self.totals.counts['losses']} losses", flush=True)


if __name__ == "__main__":
    cluster.main()
