# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around the command line: a clear message, the right exit code, nothing lost."""
import json
import os
import pathlib
import subprocess
import unittest

import cluster


class Failures(cluster.GraftTest):
    def test_usage_errors_are_2(self):
        for arguments in ([], ["fly"], ["push"], ["push", "a", "b"], ["--no-such-option"], ["push", "--lsn", "1", "x"],
                          ["export", "x", "y", "--lsn", "0"], ["read", "x", "0"], ["read", "x", "4294967296"],
                          ["--deadline", "soon", "status"]):
            with self.subTest(arguments):
                self.graft(*arguments, code=2)
                self.assertTrue(self.stderr.strip())

    def test_a_malformed_vid_is_explained(self):
        self.graft("push", "not-a-vid", code=1)
        self.assertIn("not-a-vid", self.stderr)

    def test_an_unknown_volume_is_not_found(self):
        other = self.graft_text("volume", "create", data="elsewhere")
        self.graft("push", other, code=1)
        self.assertIn(other, self.stderr)
        self.graft("clone", other, code=1)
        self.assertIn(other, self.stderr)

    def test_no_daemon_is_4_and_nothing_is_lost(self):
        vid = self.graft_text("volume", "create", data="offline")
        self.graft("write", vid, 1, stdin=b"o" * 4096, data="offline")
        nowhere = {"GRAFT_METASTORE": "http://127.0.0.1:9", "GRAFT_PAGESTORE": "http://127.0.0.1:9"}
        for command in ("push", "pull", "sync", "clone"):
            with self.subTest(command):
                target = vid if command != "clone" else self.graft_text("volume", "create", data="another")
                self.graft(command, target, data="offline", code=4, env=nowhere)
                self.assertIn("127.0.0.1:9", self.stderr)
        self.assertEqual(self.graft("read", vid, 1, data="offline", env=nowhere), b"o" * 4096)
        self.graft("push", vid, data="offline")
        self.assertEqual(self.graft_json("status", vid, data="offline")[0]["pending_commits"], 0)

    def test_a_wrong_url_is_named(self):
        vid = self.graft_text("volume", "create")
        self.graft("write", vid, 1, stdin=b"u" * 4096)
        self.graft("push", vid, env={"GRAFT_METASTORE": self.cluster.pagestore.url()}, code=1)
        self.assertIn(self.cluster.pagestore.url(), self.stderr)
        self.graft("push", vid, env={"GRAFT_METASTORE": "http://no-such-host.invalid"}, code=4)
        self.assertIn("no-such-host.invalid", self.stderr)
        self.graft("push", vid)

    def test_an_answer_that_cannot_be_written_is_a_failure(self):
        vid = self.graft_text("volume", "create", data="full")
        for command in (["status"], ["status", "--json"], ["volume", "list"], ["volume", "list", "--json"],
                        ["volume", "create"], ["status", vid]):
            with self.subTest(command), open("/dev/full", "wb") as full:
                done = subprocess.run([cluster.CLI, *command], env=self.cluster.environment("full"), stdout=full,
                                      stderr=subprocess.PIPE)
                self.assertEqual(done.returncode, 1)
                self.assertIn(b"No space left", done.stderr)

    def test_lists_are_json_arrays_of_any_length(self):
        self.assertEqual(self.graft_json("volume", "list", data="lists"), [])
        self.assertEqual(self.graft_json("status", data="lists"), [])
        vids = sorted(self.graft_text("volume", "create", data="lists") for _ in range(3))
        self.assertEqual(sorted(item["vid"] for item in self.graft_json("volume", "list", data="lists")), vids)
        self.assertEqual(len(self.graft_json("status", data="lists")), 3)
        for i in range(3):
            self.graft("write", vids[0], 1, stdin=bytes([i]) * 4096, data="lists")
            self.graft("push", vids[0], data="lists")
        self.assertEqual([c["lsn"] for c in self.graft_json("log", vids[0], data="lists")], [3, 2, 1])
        self.assertEqual(len(self.graft_json("log", vids[0], "--limit", "2", data="lists")), 2)
        self.assertGreaterEqual(len(self.graft_json("segment", "list", data="lists")), 3)

    def test_a_data_directory_in_use_names_its_holder(self):
        vid = self.graft_text("volume", "create", data="used")
        self.graft("write", vid, 1, stdin=b"h" * 4096, data="used")
        self.graft("push", vid, data="used")
        holder = subprocess.Popen([cluster.CLI, "watch", vid], env=self.cluster.environment("used"),
                                  stdout=subprocess.PIPE, preexec_fn=cluster.die_with_parent)
        try:
            holder.stdout.readline()
            self.graft("status", data="used", code=1)
            self.assertIn(str(holder.pid), self.stderr)
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()
        self.graft("status", data="used")

    def test_errors_are_json_where_asked(self):
        error = json.loads(self.graft("push", "not-a-vid", "--json", code=1))["error"]
        self.assertEqual(error["status"], "INVALID")
        self.assertIn("not-a-vid", error["message"])

    def test_a_read_beyond_the_end_says_so(self):
        vid = self.graft_text("volume", "create")
        self.graft("write", vid, 2, stdin=b"e" * 4096)
        self.graft("read", vid, 3, code=1)
        self.assertIn("2 pages", self.stderr)
        self.assertEqual(self.graft("read", vid, 1), b"\0" * 4096)

    def test_a_page_of_the_wrong_size_is_refused(self):
        vid = self.graft_text("volume", "create")
        self.graft("write", vid, 1, stdin=b"short", code=1)
        self.assertIn("--pad", self.stderr)
        self.graft("write", vid, 1, stdin=b"l" * 5000, code=1)
        self.assertIn("4096", self.stderr)
        self.graft("write", vid, 1, "--pad", stdin=b"short")
        self.assertEqual(self.graft("read", vid, 1), b"short" + b"\0" * 4091)

    def test_a_full_disk_loses_nothing(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("mounting a tmpfs needs root")
        small = self.folder / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(small)])
        if mounted.returncode:
            raise unittest.SkipTest("no tmpfs can be mounted here")
        try:
            env = {"GRAFT_DATA": str(small / "data")}
            vid = self.graft_text("import", self.write_file("one", b"1" * 409_600), env=env)
            big = self.write_file("big", os.urandom(102_400_000))
            self.graft("import", big, vid, code=1, env=env)
            self.assertIn("no room", self.stderr)
            self.assertEqual(self.graft("export", vid, "-", env=env), b"1" * 409_600)
            self.graft("push", vid, env=env)
        finally:
            subprocess.run(["umount", str(small)], check=True)
        self.graft("clone", vid, data="after")
        self.assertEqual(self.graft("export", vid, "-", data="after"), b"1" * 409_600)

    def test_a_second_metastore_on_the_directory_names_the_first(self):
        first = self.cluster.metastore
        second = cluster.Daemon("metastore-2", pathlib.Path(self.folder), first.arguments, first.endpoints)
        second.launch()
        self.assertEqual(second.process.wait(20), 1)
        self.assertIn(str(first.process.pid), second.log())


if __name__ == "__main__":
    cluster.main()
