# SPDX-License-Identifier: Apache-2.0
"""Daemons on a disk that fills up: writes are refused while the reserve is still there, reads go on, nothing that was
acknowledged is lost, and once there is room writes go on."""
import json
import os
import subprocess
import time

import cluster
import wire

MIB = 1 << 20
DISK, RESERVE = 192, 64  # MiB; the reserve is the default
PUSH = 6  # MiB
PAGE = 4096


class FullDiskTest(cluster.GraftTest):
    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest("mounting a tmpfs needs root")
        self.disk = self.folder / self.id().split(".")[-1]
        self.disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(self.disk)]).returncode:
            self.skipTest("no tmpfs can be mounted here")
        self.addCleanup(subprocess.run, ["umount", str(self.disk)], check=True)
        roomy, self.cluster = self.cluster, cluster.Cluster(self.disk, ["--disk-reserve", f"{RESERVE}M"])
        self.addCleanup(self.cluster.stop)
        self.cluster.folder = roomy.folder  # of the clients' data

    def fill_to(self, free_mib):
        """Leaves so much of the disk free, by a file that somebody else put there."""
        (self.disk / "filler").unlink(missing_ok=True)
        stat = os.statvfs(self.disk)
        size = stat.f_bavail * stat.f_frsize - free_mib * MIB
        if size > 0:
            with open(self.disk / "filler", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)

    def expect_refused(self, *arguments, data):
        error = json.loads(self.graft(*arguments, "--json", "--deadline", "1s", data=data, code=1))["error"]
        self.assertEqual(error["detail"], "NO_SPACE", error)
        return error["message"]

    def test_writes_are_refused_and_reads_go_on(self):
        first = os.urandom(500 * PAGE)
        vid = self.graft_text("import", self.write_file("first", first))
        self.graft("push", vid)
        head = wire.Caller(self.cluster.metastore).head(wire.gid_bytes(vid))

        self.fill_to(RESERVE - 1)
        time.sleep(1.1)  # a daemon looks how full the disk is once a second at most
        second = os.urandom(500 * PAGE)
        self.graft("import", self.write_file("second", second), vid)
        for _ in range(5):
            self.expect_refused("push", vid, data="a")
        other = self.graft_text("import", self.write_file("other", second), data="another")
        self.expect_refused("push", other, data="another")
        stat = os.statvfs(self.disk)
        self.assertGreater(stat.f_bavail * stat.f_frsize, (RESERVE - 4) * MIB, "the reserve was used up")
        self.assertEqual(list((self.disk / "segments" / "tmp").glob("*")), [])
        # Reads, by clients old and new, and the daemons' own restart.
        for round_number in range(2):
            data = f"reader-{round_number}"
            self.graft("clone", vid, data=data)
            self.assertEqual(self.graft("export", vid, "-", data=data), first)
            self.assertEqual(wire.Caller(self.cluster.metastore).head(wire.gid_bytes(vid)), head)
            for daemon in (self.cluster.metastore, self.cluster.pagestore):
                self.assertEqual(daemon.stop(), 0)
                daemon.start()

        self.fill_to(DISK)
        self.graft("push", vid)
        self.graft("push", other, data="another")
        self.graft("clone", vid, data="after")
        self.assertEqual(self.graft("export", vid, "-", data="after"), second)

    def test_a_disk_that_fills_up_by_what_is_pushed_keeps_all_of_it(self):
        self.fill_to(DISK)
        pushed, refused = {}, None
        for number in range(DISK // PUSH):
            data = f"filling-{number}"
            source = os.urandom(PUSH * MIB)
            vid = self.graft_text("import", self.write_file("source", source), data=data)
            output = self.graft_any("push", vid, "--deadline", "10s", "--json", data=data)
            if output.returncode:
                refused = json.loads(output.stdout)["error"]
                break
            pushed[vid] = source
        self.assertEqual(refused["detail"], "NO_SPACE", refused)
        self.assertGreater(len(pushed) * PUSH, (DISK - RESERVE) // 2)
        stat = os.statvfs(self.disk)
        self.assertGreater(stat.f_bavail * stat.f_frsize, (RESERVE - 8) * MIB)
        for vid, source in pushed.items():
            self.graft("clone", vid, data="all")
            self.assertEqual(self.graft("export", vid, "-", data="all"), source)
        print(f"# {len(pushed) * PUSH} MiB went onto a disk of {DISK} MiB with {RESERVE} in reserve", flush=True)

    def graft_any(self, *arguments, data):
        return subprocess.run([cluster.CLI, *map(str, arguments)], env=self.cluster.environment(data),
                              capture_output=True, timeout=60)


if __name__ == "__main__":
    cluster.main()
