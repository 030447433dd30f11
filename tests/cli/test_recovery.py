# SPDX-License-Identifier: Apache-2.0
"""Pushes that are killed or get no answer, what `status` says of them, and how push, sync and reset go on."""
import os
import signal
import socket
import subprocess

import cluster
import wire


class Recovery(cluster.GraftTest):
    def volume(self):
        vid = self.graft_text("import", self.write_file("file", os.urandom(4096 * 10)))
        self.graft("push", vid)
        self.graft("write", vid, 2, stdin=b"2" * 4096)
        return vid

    def status(self, vid, data="a"):
        return self.graft_json("status", vid, data=data)[0]

    def killed_push(self, vid, command="push"):
        """Kills the command as its commit reaches the metastore, which does not see it."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            push = subprocess.Popen([cluster.CLI, command, vid],
                                    env={**self.cluster.environment("a"), "GRAFT_METASTORE": url},
                                    preexec_fn=cluster.die_with_parent)
            connection, _ = listener.accept()
            self.assertIn(b"/v1/commit", connection.recv(4096))
            push.kill()
            self.assertEqual(push.wait(20), -signal.SIGKILL)
            connection.close()

    def test_a_killed_push_goes_on(self):
        vid = self.volume()
        self.killed_push(vid)
        row = self.status(vid)
        self.assertEqual((row["status"], row["pending_commits"]), ("unknown", 1))
        self.assertIn("goes on", row["status_advice"])
        self.graft("write", vid, 3, stdin=b"3" * 4096)
        self.assertEqual(self.graft_json("push", vid)["pushed_commits"], 2)
        row = self.status(vid)
        self.assertEqual((row["status"], row["pending_commits"], row["remote_lsn"]), ("ok", 0, 3))
        self.assertEqual([(row["lsn"], row["pages_changed"]) for row in self.graft_json("log", vid)],
                         [(3, 1), (2, 1), (1, 10)])

    def test_a_killed_sync_goes_on(self):
        vid = self.volume()
        self.killed_push(vid, "sync")
        self.graft("write", vid, 3, stdin=b"3" * 4096)
        self.assertEqual(self.graft_json("sync", vid)["remote_lsn"], 3)
        self.assertEqual(self.status(vid)["status"], "ok")

    def test_a_push_without_an_answer_is_unknown_and_kept(self):
        vid = self.volume()
        process = self.cluster.metastore.process
        process.send_signal(signal.SIGSTOP)
        try:
            self.graft("push", vid, "--deadline", "300ms", code=4)
            self.assertEqual(self.status(vid)["status"], "unknown")
            self.graft("reset", vid, "--deadline", "300ms", code=1)
            self.assertIn("cannot be settled without the servers", self.stderr)
            self.assertEqual(self.status(vid)["pending_commits"], 1)
        finally:
            process.send_signal(signal.SIGCONT)
        self.graft("push", vid, code=None)
        self.assertIn(self.status(vid)["status"], ("ok", "rejected"))
        self.assertLessEqual(sum(row["pages_changed"] == 1 for row in self.graft_json("log", vid)), 1)

    def test_a_fork_keeps_the_local_commits_of_a_rejected_volume(self):
        vid = self.volume()
        self.graft("clone", vid, data="winner")
        self.graft("write", vid, 2, stdin=b"w" * 4096, data="winner")
        self.graft("push", vid, data="winner")
        self.graft("push", vid, code=3)
        answer = self.graft_json("fork", vid)
        fork = answer["vid"]
        self.assertEqual((answer["forked_from"], answer["pending_commits"], answer["page_count"]), (vid, 1, 10))
        self.assertEqual(self.status(fork)["fetch"], {"requests": 0, "pages": 0, "bytes": 0})
        self.graft("push", fork)
        self.graft("reset", vid)
        self.assertEqual(self.graft("read", vid, 2), b"w" * 4096)
        self.graft("clone", fork, data="winner")
        self.assertEqual(self.graft("read", fork, 2, data="winner"), b"2" * 4096)
        self.assertEqual(self.graft("read", fork, 1, data="winner"), self.graft("read", vid, 1))
        self.assertEqual(len(self.graft_text("fork", fork)), 22)

    def test_a_killed_fork_leaves_nothing_and_goes_on(self):
        vid = self.volume()
        before = self.graft_text("volume", "list").split()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            fork = subprocess.Popen([cluster.CLI, "fork", vid],
                                    env={**self.cluster.environment("a"), "GRAFT_METASTORE": url},
                                    preexec_fn=cluster.die_with_parent)
            connection, _ = listener.accept()
            request = connection.recv(4096)
            self.assertIn(b"/v1/fork", request)
            fork.kill()
            fork.wait(20)
            connection.close()
        self.assertEqual(self.graft_text("volume", "list").split(), before)
        made = self.graft_text("fork", vid)
        self.assertIn(wire.gid_bytes(made), request, "another VID than the one that was asked for first")
        self.assertEqual(self.graft("read", made, 2), b"2" * 4096)
        self.assertEqual(self.status(vid)["pending_commits"], 1)

    def test_durability_is_full_or_normal(self):
        vid = self.volume()
        self.graft("write", vid, 4, "--durability", "normal", stdin=b"4" * 4096)
        self.assertEqual(self.graft("read", vid, 4), b"4" * 4096)
        self.graft("push", vid, env={"GRAFT_DURABILITY": "normal"})
        self.graft("status", "--durability", "sometimes", code=1)
        self.assertIn("full or normal", self.stderr)

    def test_a_reset_settles_a_killed_push(self):
        vid = self.volume()
        self.killed_push(vid)
        self.graft("reset", vid)
        row = self.status(vid)
        self.assertEqual((row["status"], row["pending_commits"]), ("ok", 0))

    def test_a_rejected_volume_says_what_to_do(self):
        vid = self.volume()
        self.graft("clone", vid, data="other")
        self.graft("write", vid, 2, stdin=b"o" * 4096, data="other")
        self.graft("push", vid, data="other")
        self.graft("push", vid, code=3)
        self.assertIn("reset", self.graft_text("status", vid))
        self.assertIn("fork", self.graft_text("status", vid))
        self.graft("push", vid, code=3)
        self.assertIn("`reset` drops them, `fork` takes them", self.stderr)
        self.assertEqual(self.graft("read", vid, 2), b"2" * 4096)

    def test_a_corrupt_volume_says_what_to_do_and_is_reattached(self):
        vid = self.volume()
        metastore = self.cluster.metastore
        metastore.stop()
        store, backup = self.folder / "metastore", self.folder / "backup"
        subprocess.run(["cp", "-r", store, backup], check=True)
        metastore.start()
        self.graft("push", vid)
        metastore.stop()
        subprocess.run(["rm", "-r", store], check=True)
        subprocess.run(["cp", "-r", backup, store], check=True)
        metastore.start()
        self.graft("write", vid, 3, stdin=b"3" * 4096)
        self.graft("push", vid, code=1)
        self.assertEqual(self.status(vid)["status"], "corrupt")
        self.assertIn("--reattach", self.graft_text("status", vid))
        self.graft("reset", vid, code=1)
        self.assertIn("--reattach", self.stderr)
        self.assertEqual(self.graft_json("reset", vid, "--reattach")["dropped_commits"], 1)
        row = self.status(vid)
        self.assertEqual((row["status"], row["remote_lsn"], row["pages_pending"]), ("ok", 1, 10))
        self.assertNotEqual(self.graft("read", vid, 2), b"2" * 4096)


if __name__ == "__main__":
    cluster.main()
