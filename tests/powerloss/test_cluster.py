# SPDX-License-Identifier: Apache-2.0
"""The metastore, the pagestore and three writing clients, each on a disk of its own, lose power over and over, while the
others go on. The clients are those of tests/sim, one with large commits and two on one volume, and the checker judges what
they did: of what was acknowledged nothing is lost, what is read when a client is opened again, or by one that clones a
volume meanwhile, is what the log says. Some runs of each meet a failed sync first.

That the checker would see it is tried on disks that acknowledge syncs and do not make them.
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
import history
import powerloss
import workloads

SETTINGS = powerloss.Settings(200)
PATIENCE_S = 60  # without any loss or answer
WITNESS_TRIES = 100
LIES_MAX, ATTEMPTS = 10, 12  # losses of a disk that lies, in one cluster after the other
DEADLINE_MS = 2000


class Machine:
    """A process on a disk that loses power, started again and again."""

    opening_calls = 120  # about as many has an opening of it
    running_calls = 400

    def __init__(self, test, name, root):
        self.test, self.name, self.folder, self.root = test, name, test.folder, root
        self.root.mkdir(exist_ok=True)
        self.random = random.Random(f"{test.seed} {name}")
        self.running = None  # the powerloss.Process
        self.alive = False   # and is watched
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
        self.alive = True
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
        super().__init__(test, name, test.folder / f"{name}-disk")
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


class Writer(Machine):
    """A client of tests/sim. Its history lies on a disk that keeps everything."""

    def __init__(self, test, client):
        super().__init__(test, f"{client.workload.name}-{client.name}", client.data)
        self.client = client

    def start(self):
        with open(self.client.errors, "ab") as errors:
            self.spawn(self.client.command("--vid", self.client.workload.vid), stdout=subprocess.DEVNULL, stderr=errors,
                       preexec_fn=cluster.die_with_parent)

    def stop(self):
        self.running.process.kill()
        self.running.loss()

    def ended(self, loss):
        self.check_end(loss, self.client.why())


class Witness:
    """Clones a volume into a new folder and reads it, at the head and at an LSN before; again while servers are away."""

    def __init__(self, test, workload):
        self.test, self.tries = test, 0
        self.client = workloads.Client(workload, f"witness-{test.totals.counts['witnesses']}", workloads.READER)
        workload.clients.append(self.client)
        test.totals.counts["witnesses"] += 1
        self.start()

    def start(self):
        self.tries += 1
        self.client.start("--script", "pull,read,past")
        self.ended = os.pidfd_open(self.client.process.pid)

    def finish(self):
        """False: it was started again."""
        os.close(self.ended)
        self.ended = None
        code = self.client.process.wait(PATIENCE_S)
        if code == workloads.DONE:
            shutil.rmtree(self.client.data)
            return True
        if code == workloads.BROKEN or self.tries == WITNESS_TRIES:
            raise powerloss.Anomaly(f"{self.client.name} ended with {code}: {self.client.why()}")
        self.start()
        return False

    def kill(self):
        if self.ended is not None:
            self.client.kill()
            os.close(self.ended)


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

    def begin(self, seed, liars=()):
        """`liars`: names of machines whose disks acknowledge syncs and do not make them, once there is something to lose."""
        self.seed, self.liars, self.calm = seed, (), True
        store = Server(self, "metastore", (60, 140), ["--store", f"rocksdb:{self.folder}/metastore-disk/store"],
                       {"--listen": "listen", "--watch-listen": "watch"})
        store.wait_until_ready()
        self.segments = self.folder / "pagestore-disk/segments"
        pages = Server(self, "pagestore", (80, 300), ["--store", f"fs:{self.segments}", "--cache", self.folder / "pagestore-disk/cache",
                                                      "--metastore", store.daemon.url()], {"--listen": "listen"})
        pages.wait_until_ready()
        self.servers = [store, pages]
        self.metastore, self.pagestore = store.daemon, pages.daemon
        self.workloads = [workloads.Workload(name, self, self.seed, deadline_ms=DEADLINE_MS) for name in ("bulk", "writers")]
        for workload in self.workloads:
            workload.power_fails = True
        self.writers = [Writer(self, client) for workload in self.workloads for client in workload.clients]
        self.machines = [*self.servers, *self.writers]
        self.addCleanup(self.end)
        self.witness = None
        self.liars = liars
        self.go_on()

    def go_on(self):
        """The servers serve undisturbed; they have their addresses and keep them."""
        for machine in self.servers:
            machine.stop()
        self.calm = False
        for machine in self.machines:
            machine.start()
            self.watch(machine)

    def watch(self, machine):
        self.selector.register(machine.running.report, selectors.EVENT_READ, machine)

    def end(self):
        """Whatever still runs is killed; its disk is nobody's any more."""
        for machine in self.machines:
            if machine.running and machine.running.process.poll() is None:
                machine.running.process.kill()
                machine.running.process.wait()
        if self.witness:
            self.witness.kill()
            self.witness = None

    def lost(self, machine):
        self.selector.unregister(machine.running.report)
        machine.alive = False
        loss = machine.running.loss()
        machine.ended(loss)
        self.totals.add(loss)
        self.totals.counts[f"of {machine.name}"] += 1
        machine.start()
        self.watch(machine)

    def call_a_witness(self):
        if not self.witness:
            self.witness = Witness(self, self.workloads[self.totals.counts["witnesses"] % len(self.workloads)])
            self.selector.register(self.witness.ended, selectors.EVENT_READ, self.witness)

    def heard(self, witness):
        self.selector.unregister(witness.ended)
        if witness.finish():
            self.witness = None
        else:
            self.selector.register(witness.ended, selectors.EVENT_READ, witness)

    def turn(self):
        self.call_a_witness()
        events = self.selector.select(PATIENCE_S)
        if not events:
            raise powerloss.Anomaly(f"nothing happens any more:\n{self.metastore.log()[-1500:]}\n{self.pagestore.log()[-1500:]}")
        # One at a time: handling it may end others, and give their file numbers to new ones.
        machine = random.choice(events)[0].data
        if machine is self.witness:
            self.heard(machine)
        else:
            self.lost(machine)

    def stop(self):
        """From here on nothing fails any more; the servers serve, and no client is at work."""
        self.calm, anomalies = True, []
        for machine in reversed(self.machines):
            try:
                if machine.alive:
                    machine.alive = False
                    self.selector.unregister(machine.running.report)
                    machine.stop()
            except powerloss.Anomaly as anomaly:
                anomalies.append(anomaly)
        if self.witness:
            if self.witness.ended is not None:
                self.selector.unregister(self.witness.ended)
            self.witness.kill()
            self.witness = None
        for machine in self.servers:
            machine.wait_until_ready()
        if anomalies:
            raise anomalies[0]

    def check(self):
        report = history.Report()
        for workload in self.workloads:
            report.merge(history.check(workload.events(), self))
        return report

    def test_what_was_acknowledged_survives(self):
        self.begin(SETTINGS.seed)
        try:
            while self.totals.counts["losses"] < SETTINGS.losses:
                self.turn()
            self.stop()
            for writer in self.writers:
                writer.client.settle()
            report = self.check()
            print(f"# {report}", flush=True)
            if report.anomalies:
                raise powerloss.Anomaly(report)
        except powerloss.Anomaly as anomaly:
            self.end()
            self.fail(powerloss.keep(self.folder, anomaly))
        finally:
            self.totals.show("cluster")
        losses = SETTINGS.losses
        self.totals.at_least(witnesses=losses // 50, torn=losses // 10, names_lost=losses // 10)
        self.assertGreaterEqual(report.figures["acknowledged_pushes"], losses)
        self.assertGreaterEqual(report.figures["interrupted_operations"], losses // 10)
        self.assertGreaterEqual(report.figures["opens_with_normal"], losses // 20)
        for machine in self.machines:
            self.assertGreater(self.totals.counts[f"of {machine.name}"], losses // 20, machine.name)

    # ---- disks that lie

    def plant(self, liar, seed):
        """What the checker says of a cluster in which the disk of `liar` acknowledges syncs and does not make them. Nothing
        where it was left so that its program does not start."""
        self.begin(seed, liars=(liar,))
        report = history.Report()
        for losses in range(1, LIES_MAX + 1):
            try:
                while self.totals.counts[f"of {liar}"] < losses:
                    self.turn()
            except powerloss.Anomaly as anomaly:  # a client that knows what was lost says so itself
                print(f"# {str(anomaly).splitlines()[0][:300]}", flush=True)
            try:
                self.stop()
            except powerloss.Anomaly:
                pass
            except AssertionError as error:
                print(f"# {str(error).splitlines()[0]}", flush=True)
                break
            report = self.check()
            if report.anomalies:
                break
            self.go_on()
        return report

    def expect(self, liar, *names):
        for attempt in range(ATTEMPTS):
            report = self.plant(liar, f"{SETTINGS.seed} {attempt}")
            print(f"# a lying disk of {liar}, {self.totals.counts['losses']} losses: {sorted(report.names())}", flush=True)
            self.end()
            if report.names() & set(names):
                return
            self.setUp()
        self.fail(f"the checker found none of {names}")

    def test_a_metastore_whose_disk_lies_is_found_out(self):
        self.expect("metastore", "lost acknowledgement")

    def test_a_pagestore_whose_disk_lies_is_found_out(self):
        self.expect("pagestore", "missing segment", "damaged segment")

    def test_a_client_whose_disk_lies_is_found_out(self):
        self.expect("bulk-writer", "lost local commit")


if __name__ == "__main__":
    cluster.main()
