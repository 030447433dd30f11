# SPDX-License-Identifier: Apache-2.0
"""The call fork, end to end: a fork reads as its origin did at that LSN, and the two go separate ways."""
import os
import shutil

import cluster
import wire
from wire import page_set

PAGE = 4096


class ForkTest(cluster.GraftTest):
    def setUp(self):
        self.meta = wire.Caller(self.cluster.metastore)
        self.pages = wire.Caller(self.cluster.pagestore)

    def tearDown(self):
        self.meta.close()
        self.pages.close()

    def make_origin(self, name):
        """A volume that is written, rewritten, cut and grown; [LSN] → its bytes there."""
        def block(count):
            return bytearray(os.urandom(count * PAGE))

        data = block(600)
        contents = [b"", bytes(data)]
        vid = self.graft_text("import", self.write_file(name + ".bin", data), data=name)
        self.graft("push", vid, data=name)
        steps = [lambda: data.__setitem__(slice(10 * PAGE, 200 * PAGE), block(190)),  # rewritten
                 lambda: data.__delitem__(slice(150 * PAGE, None)),                    # cut
                 lambda: data.extend(bytes(100 * PAGE) + block(50)),                   # grown, with zeros
                 lambda: data.__setitem__(slice(0, PAGE), block(1)),
                 lambda: data.__delitem__(slice(120 * PAGE, None)),                    # cut and grown at once
                 lambda: data.extend(block(7))]
        for number, change in enumerate(steps):
            change()
            if number != 4:
                self.graft("import", self.write_file(name + ".bin", data), vid, data=name)
                self.graft("push", vid, data=name)
                contents.append(bytes(data))
        return vid, contents

    def fork(self, vid_text, lsn, new_vid=None):
        """The fork's VID as text and its snapshot's fields."""
        vid, new_vid = wire.gid_bytes(vid_text), new_vid or wire.gid(wire.VOLUME)
        answer = self.meta.post("fork", {1: vid, 2: lsn, 3: self.meta.head(vid, lsn)[4], 4: new_vid})
        self.assertEqual(answer.code, 200, answer.text)
        snapshot = {number: values[0] for number, values in wire.decode(answer.message[1][0]).items()}
        self.assertEqual(snapshot[1], new_vid)
        return wire.gid_text(new_vid), snapshot

    def expect(self, vid, content, data, lsn=None):
        if not self.has(vid, data):
            self.graft("clone", vid, data=data)
        options = ["--lsn", lsn] if lsn else []
        self.assertTrue(self.graft("export", vid, "-", *options, data=data) == content, f"{vid} in {data}")

    def has(self, vid, data):
        return vid in self.graft_text("volume", "list", data=data).split()

    def test_a_fork_reads_as_its_origin_did(self):
        vid, contents = self.make_origin("origin")
        self.assertEqual(self.meta.head(wire.gid_bytes(vid))[2], len(contents) - 1)
        forks = [self.fork(vid, lsn)[0] for lsn in range(1, len(contents))]
        for lsn, fork in enumerate(forks, 1):
            self.expect(fork, contents[lsn], f"fork-{lsn}")
            self.assertEqual(self.graft_json("log", fork, data=f"fork-{lsn}")[0]["lsn"], 1)
        # They go on by themselves, and their origin too.
        for lsn, fork in enumerate(forks, 1):
            changed = bytearray(contents[lsn])
            changed[3 * PAGE:5 * PAGE] = os.urandom(2 * PAGE)
            changed += os.urandom(PAGE * lsn)
            self.graft("import", self.write_file("changed", changed), fork, data=f"fork-{lsn}")
            self.graft("push", fork, data=f"fork-{lsn}")
            self.expect(fork, bytes(changed), "other")
            self.expect(fork, contents[lsn], "other", lsn=1)
            self.graft("check", fork, data="other")
        self.graft("write", vid, 2, stdin=b"o" * PAGE, data="origin")
        self.graft("push", vid, data="origin")
        self.expect(vid, contents[-1][:PAGE] + b"o" * PAGE + contents[-1][2 * PAGE:], "other")
        for lsn in range(1, len(contents)):
            self.expect(vid, contents[lsn], "other", lsn=lsn)
            self.assertEqual(self.graft("export", forks[lsn - 1], "-", "--lsn", 1, data="other"), contents[lsn])
        self.forks_of_forks(forks, contents)
        # Nothing of all that was only in memory.
        for daemon in (self.cluster.pagestore, self.cluster.metastore):
            daemon.stop()
        shutil.rmtree(self.folder / "cache")
        self.cluster.metastore.start()
        self.cluster.pagestore.start()
        for lsn in (1, len(contents) - 1):
            self.expect(forks[lsn - 1], contents[lsn], "late", lsn=1)

    def forks_of_forks(self, forks, contents):
        first, _ = self.fork(forks[2], 1)
        self.expect(first, contents[3], "grandchild")
        second, _ = self.fork(forks[2], 2)
        self.expect(second, self.graft("export", forks[2], "-", data="other"), "grandchild")

    def test_a_fork_of_a_deleted_volume_lives_on(self):
        vid, contents = self.make_origin("doomed")
        fork, snapshot = self.fork(vid, 3)
        self.graft("volume", "delete", vid, "--remote", data="doomed")
        answer = self.meta.post("fork", {1: wire.gid_bytes(vid), 2: 3, 3: b"\0" * 16, 4: wire.gid(wire.VOLUME)})
        self.assertEqual((answer.status, answer.detail), (wire.GONE, wire.DELETED), answer.text)
        self.assertIn(vid, answer.text)
        self.expect(fork, contents[3], "heir")
        # A commit of a fork may bring pages of its own and no others.
        commit = self.meta.commits(snapshot[1], 1)[0]
        owners = {wire.decode(reference)[2][0] for reference in commit[11]}
        self.assertEqual(owners, {wire.gid_bytes(vid)})

    def test_the_same_call_gives_the_same_answer(self):
        vid, contents = self.make_origin("again")
        new_vid = wire.gid(wire.VOLUME)
        fork, snapshot = self.fork(vid, 2, new_vid)
        self.assertEqual(self.fork(vid, 2, new_vid)[1], snapshot)
        self.expect(fork, contents[2], "again-fork")
        self.graft("write", fork, 1, stdin=b"f" * PAGE, data="again-fork")
        self.graft("push", fork, data="again-fork")
        self.assertEqual(self.fork(vid, 2, new_vid)[1], snapshot)
        self.assertEqual(snapshot[2], 1)
        self.cluster.metastore.kill()
        self.cluster.metastore.start()
        self.assertEqual(self.fork(vid, 2, new_vid)[1], snapshot)
        # It is there for lists and creates like any other.
        self.assertIn(fork, self.graft_text("volume", "list", "--remote"))
        self.assertEqual(self.meta.post("create_volume", {1: new_vid, 2: PAGE, 3: 1}).code, 200)
        self.graft("volume", "delete", fork, "--remote")
        answer = self.meta.post("fork", {1: wire.gid_bytes(vid), 2: 2, 3: self.meta.head(wire.gid_bytes(vid), 2)[4],
                                         4: new_vid})
        self.assertEqual((answer.status, answer.detail), (wire.GONE, wire.DELETED), answer.text)

    def test_what_makes_no_fork_is_refused(self):
        vid_text, _ = self.make_origin("refused")
        vid, new_vid = wire.gid_bytes(vid_text), wire.gid(wire.VOLUME)
        chain = self.meta.head(vid, 2)[4]
        taken = wire.gid(wire.VOLUME)
        self.meta.post("create_volume", {1: taken, 2: PAGE, 3: 1})
        for fields, status, detail, word in (
                ({1: vid, 2: 0, 3: chain, 4: new_vid}, wire.INVALID, wire.BAD_ARGUMENT, "lsn"),
                ({1: vid, 2: 2, 3: chain[1:], 4: new_vid}, wire.INVALID, wire.BAD_ARGUMENT, "chain"),
                ({1: vid, 2: 2, 3: chain}, wire.INVALID, wire.BAD_ARGUMENT, "new_vid"),
                ({1: vid, 2: 2, 3: chain, 4: vid}, wire.INVALID, wire.BAD_ARGUMENT, "new_vid"),
                ({1: vid, 2: 2, 3: chain, 4: wire.gid(wire.SEGMENT)}, wire.INVALID, wire.BAD_ARGUMENT, "new_vid"),
                ({1: vid, 2: 99, 3: chain, 4: new_vid}, wire.NOT_FOUND, wire.BEYOND_HEAD, "99"),
                ({1: vid, 2: 3, 3: chain, 4: new_vid}, wire.CORRUPT, wire.CHAIN_MISMATCH, "restored"),
                ({1: wire.gid(wire.VOLUME), 2: 2, 3: chain, 4: new_vid}, wire.NOT_FOUND, wire.NO_SUCH_VOLUME, "volume"),
                ({1: vid, 2: 2, 3: chain, 4: taken}, wire.CONFLICT, wire.EXISTS, "another")):
            with self.subTest(word):
                answer = self.meta.post("fork", fields)
                self.assertEqual((answer.status, answer.detail), (status, detail), answer.text)
                self.assertIn(word, answer.text)
        listed = self.graft_text("volume", "list", "--remote").split()
        self.assertNotIn(wire.gid_text(new_vid), listed)
        # Pages of another volume cannot be slipped into a fork's own commits.
        _, snapshot = self.fork(vid_text, 2)
        stolen = self.meta.commits(vid, 1, 1)[0][11][0]
        commit = {1: snapshot[1], 2: snapshot[2], 3: snapshot[4], 4: os.urandom(16), 5: os.urandom(16),
                  6: wire.gid(0x83), 7: snapshot[3], 8: snapshot[3], 9: stolen}
        answer = self.meta.post("commit", commit)
        self.assertEqual((answer.status, answer.detail), (wire.INVALID, wire.BAD_RECEIPT), answer.text)

    def test_pages_say_who_owns_them(self):
        vid_text, contents = self.make_origin("owned")
        fork, snapshot = self.fork(vid_text, 2)
        found = self.pages.read_pages(wire.gid_bytes(fork), snapshot[2], snapshot[4], page_set((1, 600)), first=7)
        self.assertIsInstance(found, dict, getattr(found, "text", ""))
        for page, frame in found.items():
            self.assertEqual(frame[2][0], wire.PAGE_STORED)
            self.assertEqual(frame[15][0], contents[2][(page - 1) * PAGE:page * PAGE], f"page {page}")


if __name__ == "__main__":
    cluster.main()
