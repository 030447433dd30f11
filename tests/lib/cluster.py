# SPDX-License-Identifier: Apache-2.0
"""Real daemons and the real command line, for tests that look at Graft from outside.

The build folder comes from the environment (GRAFT_BUILD). Daemons get free ports and die with the test program.
"""
import ctypes
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(os.environ.get("GRAFT_BUILD", "build")).resolve()
CLI = BUILD / "cli" / "graft"
LIBC = ctypes.CDLL(None, use_errno=True)
IN_MOVED_TO = 0x80
PR_SET_PDEATHSIG = 1


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Daemon:
    """One daemon. `endpoints` maps each option that says where to listen to its name in the ready file."""

    def __init__(self, name, folder, arguments, endpoints):
        self.name, self.folder, self.arguments = name, folder, arguments
        self.endpoints = endpoints
        self.addresses = {}
        self.process = None
        self.log_path = folder / f"{name}.log"

    def launch(self, extra=()):
        """Starts it and returns at once."""
        self.ready = self.folder / f"{self.name}.ready"
        self.ready.unlink(missing_ok=True)
        command = [BUILD / self.name.split("-")[0] / f"graft-{self.name.split('-')[0]}", *self.arguments,
                   "--cluster-key", self.folder / "cluster.key", "--ready-file", self.ready, *extra]
        for option, endpoint in self.endpoints.items():
            command += [option, self.addresses.get(endpoint, "127.0.0.1:0")]
        with open(self.log_path, "ab") as log:
            self.process = self.spawn(command, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)

    def spawn(self, command, **options):
        return subprocess.Popen(command, **options)

    def start(self, extra=()):
        """Starts it and waits until it serves; an AssertionError with its log if it does not."""
        watch = LIBC.inotify_init1(os.O_CLOEXEC)
        LIBC.inotify_add_watch(watch, bytes(self.folder), IN_MOVED_TO)
        self.launch(extra)
        pidfd = os.pidfd_open(self.process.pid)
        poller = select.poll()
        poller.register(watch, select.POLLIN)
        poller.register(pidfd, select.POLLIN)
        try:
            while not self.ready.exists():
                events = poller.poll(30_000)
                if not events or any(fd == pidfd for fd, _ in events):
                    raise AssertionError(f"{self.name} did not start:\n{self.log()}")
                os.read(watch, 4096)
        finally:
            os.close(watch)
            os.close(pidfd)
        self.addresses = dict(line.split("=", 1) for line in self.ready.read_text().split())
        return self

    def url(self, endpoint="listen"):
        return "http://" + self.addresses[endpoint]

    def port(self, endpoint="listen"):
        return int(self.addresses[endpoint].rsplit(":", 1)[1])

    def stop(self):
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(20)

    def kill(self):
        self.process.kill()
        return self.process.wait(20)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


class Cluster:
    """Both daemons with their data under `folder`; `extra`: more arguments for each; `between`: a function that gives the
    URL at which the pagestore sees the metastore."""

    def __init__(self, folder, extra=(), between=Daemon.url):
        self.folder = pathlib.Path(folder)
        self.segments = self.folder / "segments"
        key = self.folder / "cluster.key"
        key.touch(mode=0o600)
        key.write_text(os.urandom(32).hex())
        self.metastore = Daemon("metastore", self.folder, ["--store", f"rocksdb:{self.folder}/metastore", *extra],
                                {"--listen": "listen", "--watch-listen": "watch"}).start()
        self.pagestore = Daemon("pagestore", self.folder,
                                ["--store", f"fs:{self.segments}", "--cache", self.folder / "cache",
                                 "--metastore", between(self.metastore), *extra], {"--listen": "listen"}).start()

    def stop(self):
        for daemon in (self.pagestore, self.metastore):
            if daemon.process.poll() is None:
                daemon.stop()

    def environment(self, data):
        return {**os.environ, "GRAFT_DATA": str(self.folder / data), "GRAFT_METASTORE": self.metastore.url(),
                "GRAFT_PAGESTORE": self.pagestore.url()}


class GraftTest(unittest.TestCase):
    """One cluster for a class of tests; `self.graft(…)` runs the command line."""

    cluster = None

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="graft-test-")
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.cluster = Cluster(cls.folder)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()
        cls.temporary.cleanup()

    def graft(self, *arguments, data="a", code=0, stdin=b"", env=None):
        """Runs `graft`, checks its exit code (None: any), returns what it printed."""
        environment = {**self.cluster.environment(data), **(env or {})}
        result = subprocess.run([CLI, *map(str, arguments)], env=environment, input=stdin, capture_output=True,
                                timeout=120)
        if code is not None:
            self.assertEqual(result.returncode, code,
                             f"graft {arguments}:\n{result.stdout[-2000:]}\n{result.stderr.decode()}")
        self.stderr = result.stderr.decode()
        return result.stdout

    def graft_text(self, *arguments, **options):
        return self.graft(*arguments, **options).decode().strip()

    def graft_json(self, *arguments, **options):
        return json.loads(self.graft(*arguments, "--json", **options))

    def write_file(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        return path


class TapResult(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.count = 0

    def line(self, ok, test, rest=""):
        self.count += 1
        print(f"{'ok' if ok else 'not ok'} {self.count} {str(test).split(' ')[0]}{rest}", flush=True)

    def addSuccess(self, test):
        self.line(True, test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.line(True, test, f" # SKIP {reason}")

    def broken(self, test, error):
        print(self._exc_info_to_string(error, test), file=sys.stderr, flush=True)
        self.line(False, test)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.broken(test, error)

    def addError(self, test, error):
        super().addError(test, error)
        self.broken(test, error)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error:
            self.broken(subtest, error)


def main():
    """Runs the calling module's tests and speaks TAP."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    result = TapResult()
    suite.run(result)
    print(f"1..{result.count}")
    sys.exit(not result.wasSuccessful())
