# SPDX-License-Identifier: Apache-2.0
"""A sync or a write that fails ends the daemon whose store it was, in order and with the reason; nothing acknowledged is lost, and
nothing is tried again on the file whose state nobody knows."""
import os
import unittest

import cluster
import wire

PAGE = 4096
PRELOAD = cluster.BUILD / "tests" / "lib" / "libfailing_sync.so"


@unittest.skipIf(os.environ.get("GRAFT_SANITIZE", "none") != "none", "sanitizers want to be loaded first")
class FailedSync(cluster.GraftTest):
    def start_failing(self, daemon, writes_to=None):
        """Starts it again so that its syncs fail while the returned file exists, or its writes to a folder."""
        trigger = self.folder / f"{daemon.name}.fails"
        daemon.stop()
        variables = {"LD_PRELOAD": str(PRELOAD), "FAILING_SYNC": str(trigger)}
        if writes_to:
            variables["FAILING_WRITE"] = str(writes_to)
        os.environ.update(variables)
        daemon.start()
        for name in variables:
            del os.environ[name]
        return trigger

    def expect_end(self, daemon, trigger):
        self.assertEqual(daemon.process.wait(20), 1)
        self.assertIn("event=store_failed", daemon.log())
        self.assertIn("Input/output error", daemon.log())
        self.assertRegex(daemon.log(), "event=stopping asked=(no|0)")  # it left in order
        trigger.unlink()
        daemon.start()

    def test_of_the_metastore(self):
        trigger = self.start_failing(self.cluster.metastore)
        caller, vid = wire.Caller(self.cluster.metastore), wire.gid(wire.VOLUME)

        def commit(base, token):
            return caller.post("commit", {1: vid, 2: base.get(2, 0), 3: base.get(4) or bytes(16), 4: token, 5: bytes(16),
                                          6: wire.gid(0x83), 7: 0, 8: 0})

        self.assertEqual(caller.post("create_volume", {1: vid, 2: PAGE, 3: 1}).code, 200)
        self.assertEqual(commit(caller.head(vid), b"a" * 16).code, 200)
        base = caller.head(vid)
        trigger.touch()
        answer = commit(base, b"b" * 16)
        self.assertEqual(answer.status, wire.UNKNOWN, answer.text)  # nobody can tell
        self.assertIn("Input/output error", answer.text)
        self.expect_end(self.cluster.metastore, trigger)
        caller.close()
        self.assertEqual(commit(base, b"b" * 16).code, 200)
        self.assertEqual([commit[5][0] for commit in caller.commits(vid, 1)], [b"a" * 16, b"b" * 16])
        caller.close()

    def test_of_the_pagestore(self):
        trigger = self.start_failing(self.cluster.pagestore)
        content = os.urandom(20 * PAGE)
        vid = self.graft_text("import", self.write_file("first", content), data="a")
        self.graft("push", vid, data="a")
        self.graft("import", self.write_file("more", content + content), vid, data="a")
        trigger.touch()
        self.graft("push", vid, data="a", code=1)
        self.assertIn("Input/output error", self.stderr)
        self.expect_end(self.cluster.pagestore, trigger)
        self.graft("clone", vid, data="b")
        self.assertEqual(self.graft("export", vid, "-", data="b"), content)
        self.graft("push", vid, data="a")
        self.graft("pull", vid, data="b")
        self.assertEqual(self.graft("export", vid, "-", data="b"), content + content)

    def test_of_the_pagestores_index(self):
        """It is not synced: a write of it fails."""
        content = os.urandom(20 * PAGE)
        vid = self.graft_text("import", self.write_file("indexed", content), data="c")
        self.graft("push", vid, data="c")
        trigger = self.start_failing(self.cluster.pagestore, self.folder / "cache" / "index")
        self.graft("clone", vid, data="d")
        trigger.touch()
        error = self.graft_json("export", vid, "-", "--deadline", "1s", data="d", code=4)["error"]
        self.assertEqual(error["status"], "UNAVAILABLE", error)  # ask again: nothing of what is read is damaged
        self.assertIn("page-version index", self.cluster.pagestore.log())
        self.expect_end(self.cluster.pagestore, trigger)
        self.assertEqual(self.graft("export", vid, "-", data="d"), content)


if __name__ == "__main__":
    cluster.main()
