# SPDX-License-Identifier: Apache-2.0
"""The memory of each process while a large volume of incompressible pages is imported, pushed, cloned and exported.

512 MiB by default, 2 GiB with GRAFT_TEST_LARGE=1. Peaks are those that the kernel keeps: ru_maxrss of the command line,
VmHWM of the daemons.
"""
import hashlib
import os
import shutil
import subprocess
import time
import unittest

import cluster

MIB = 1 << 20
LARGE = bool(os.environ.get("GRAFT_TEST_LARGE"))
SIZE = (2048 if LARGE else 512) * MIB
PEAK_MAX = 256 * MIB
# Input, the importer's store, segments, then the clone's store and its output; RocksDB holds some of it twice for a while.
SPACE_NEEDED = 6 * SIZE
SANITIZED = "address" in os.environ.get("GRAFT_SANITIZE", "") or "thread" in os.environ.get("GRAFT_SANITIZE", "")


def write_random(path, size):
    digest = hashlib.blake2b()
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    return digest.digest()


def digest_of(path):
    digest = hashlib.blake2b()
    with open(path, "rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.digest()


def peak_of_daemon(daemon):
    with open(f"/proc/{daemon.process.pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@unittest.skipIf(SANITIZED, "a sanitizer's shadow memory is not ours to bound")
class MemoryTest(cluster.GraftTest):
    def step(self, what, *arguments, data):
        """Runs the command line and holds its peak against the bound."""
        started = time.monotonic()
        process = subprocess.Popen([cluster.CLI, *map(str, arguments)], env=self.cluster.environment(data),
                                   stdout=subprocess.PIPE, preexec_fn=cluster.die_with_parent)
        output = process.stdout.read().decode().strip()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0, f"graft {arguments}: {output}")
        seconds = time.monotonic() - started
        self.peaks[f"graft {what}"] = usage.ru_maxrss * 1024
        for daemon in (self.cluster.metastore, self.cluster.pagestore):
            self.peaks[f"{daemon.name} up to {what}"] = peak_of_daemon(daemon)
        print(f"# {what}: {seconds:.1f} s, " + ", ".join(
            f"{name.split(' up to')[0]} {peak // MIB} MiB" for name, peak in list(self.peaks.items())[-3:]), flush=True)
        return output

    def test_stays_bounded_whatever_a_volume_weighs(self):
        free = shutil.disk_usage(self.folder).free
        if free < SPACE_NEEDED:
            self.skipTest(f"needs {SPACE_NEEDED // MIB} MiB under {self.folder}, {free // MIB} MiB are free")
        self.peaks = {}
        source, copy = self.folder / "source", self.folder / "copy"
        expected = write_random(source, SIZE)
        vid = self.step("import", "import", source, data="a")
        source.unlink()
        self.step("push", "push", vid, data="a")
        shutil.rmtree(self.folder / "a")
        self.step("clone", "clone", vid, data="b")
        self.step("export", "export", vid, copy, data="b")
        self.assertEqual(copy.stat().st_size, SIZE)
        self.assertEqual(digest_of(copy), expected)
        for name, peak in self.peaks.items():
            self.assertLess(peak, PEAK_MAX, f"{name}: {peak // MIB} MiB")


if __name__ == "__main__":
    cluster.main()
