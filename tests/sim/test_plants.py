# SPDX-License-Identifier: Apache-2.0
"""The checker is tested on the running system: each anomaly is planted between real clients and real daemons, in their
messages or in what they keep, and has to be found under its own name.

Each test follows one script; `expect` takes the anomaly's name and those that are bound to come with it.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import cluster as graft
import history
import wire
from history.hashes import chain
from history.remote import page_set
from intruder import Intruder
from workloads import BROKEN, DONE, FAILED, METASTORE, NORMAL, OBJECTS, Client, Workload, replace_by_older, stored_commits


class PlantTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="graft-plants-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.cluster = graft.Cluster(self.folder)
        self.addCleanup(self.cluster.stop)
        self.intruders = Intruder(self.cluster.metastore), Intruder(self.cluster.pagestore)
        for intruder in self.intruders:
            self.addCleanup(intruder.close)
        self.meta, self.pages = (intruder.rules for intruder in self.intruders)
        self.caller = wire.Caller(self.cluster.metastore)
        self.addCleanup(self.caller.close)
        self.sent = []  # CommitRequests
        self.meta["commit"] = self.listen
        self.begin("grow")

    def begin(self, name):
        """The volume is at LSN 1, and both clients know it."""
        self.workload = Workload(name, self.cluster, 7, tuple(intruder.url() for intruder in self.intruders))
        self.a, self.b = self.workload.clients[:2]
        self.vid = wire.gid_bytes(self.workload.vid)

    def listen(self, body, forward):
        self.sent.append(wire.decode(body))
        return forward()

    def script(self, client, steps, code=DONE):
        got, _ = client.run("--vid", self.workload.vid, "--script", steps)
        self.assertEqual(got, code, client.why())

    def newcomer(self):
        client = Client(self.workload, "newcomer")
        self.workload.clients.append(client)
        return client

    def head(self):
        return self.caller.head(self.vid)

    def commit(self, request):
        """Sends a request that no client would, on the head."""
        head = self.head()
        fields = {number: values if number == 9 else values[0] for number, values in request.items()}
        answer = self.caller.post("commit", {**fields, 2: head[2], 3: head[4]})
        self.assertEqual(answer.code, 200, answer.text)

    def forge(self, request, lsn, digest=None):
        """The answer that says: it landed as `lsn`."""
        token, digest = request[4][0], digest or request[5][0]
        count = request.get(7, [0])[0]
        chained = chain(request.get(3, [bytes(16)])[0], self.vid, lsn, token, digest, count)
        snapshot = {1: self.vid, 2: lsn, 3: count, 4: chained, 5: 1024, 6: 2, 7: 1}
        return 200, wire.encode({1: wire.encode(snapshot), 2: token, 3: digest})

    def report(self):
        return history.check(self.workload.events(), self.cluster, records=lambda vids: stored_commits(self.cluster, vids))

    def expect(self, name, *companions):
        report = self.report()
        self.assertIn(name, report.names(), str(report))
        self.assertLessEqual(report.names(), {name, *companions}, str(report))

    # ---- in the metastore's messages

    def test_nothing_planted_nothing_found(self):
        self.script(self.a, "commit,push,commit,commit,push")
        self.script(self.b, "pull,read,past")
        self.script(self.b, "commit,push,pull,read")
        self.script(self.a, "commit,push", FAILED)
        self.script(self.a, "reset,commit,push,read")
        self.report().require()

    def test_lost_acknowledgement(self):
        self.meta["commit"] = lambda body, forward: self.forge(wire.decode(body), 2)
        self.script(self.a, "commit,push")
        self.expect("lost acknowledgement")

    def test_duplicate_commit(self):
        self.script(self.a, "write=3,push")
        self.commit(self.sent[-1])
        self.script(self.b, "pull,read")
        self.expect("duplicate commit")

    def test_token_that_nobody_sent(self):
        self.script(self.a, "write=3,push")
        self.commit({**self.sent[-1], 4: [os.urandom(16)]})
        self.script(self.b, "pull,read")
        self.expect("token that nobody sent")

    def test_discarded_commit_that_came_back(self):
        self.script(self.a, "write=3,push")
        self.script(self.b, "write=4,push", FAILED)
        self.script(self.b, "reset,read")
        self.commit(self.sent[-1])
        self.script(self.b, "pull,read")
        self.expect("discarded commit came back")

    def test_rejected_commit_that_landed(self):
        self.script(self.a, "write=3,push")
        self.script(self.b, "write=4,push", FAILED)
        self.commit(self.sent[-1])
        self.expect("rejected commit landed")

    def test_reordered_acknowledgements(self):
        def hold(body, forward):
            self.sent.append(wire.decode(body))
            return self.forge(self.sent[-1], 2)
        self.meta["commit"] = hold
        self.script(self.a, "write=3,push")
        self.meta["commit"] = self.listen
        self.script(self.b, "write=4,push")
        self.commit(self.sent[0])
        self.expect("reordered acknowledgements", "wrong LSN")

    def test_wrong_digest(self):
        def change(body, forward):
            request = wire.decode(body)
            flat = {number: values if number == 9 else values[0] for number, values in request.items()}
            code, _ = forward(wire.encode({**flat, 5: b"another digest.."}))
            self.assertEqual(code, 200)
            return self.forge(request, 2)
        self.meta["commit"] = change
        self.script(self.a, "write=3,push")
        self.expect("wrong digest")

    def test_stale_read_by_pull(self):
        answers = []

        def remember(body, forward):
            answers.append(forward())
            return answers[0]
        self.meta["pull"] = remember
        self.script(self.b, "pull,read")
        self.script(self.a, "write=3,push")
        self.script(self.b, "pull,read")
        self.expect("stale read")

    # ---- in the pagestore's messages

    def splice(self, victims, other):
        """The pages `victims` are served as they were at LSN `other`, whatever is asked for."""
        commits = {commit[2][0]: commit for commit in self.caller.commits(self.vid, 1)}

        def rule(body, forward):
            asked = wire.decode(body)
            wanted = page_set(asked[4][0])
            code, answer = forward()
            if code != 200 or not wanted & victims:
                return code, answer
            then = dict(asked)
            then.update({2: [other], 3: commits[other][12]})
            earlier = {}
            for frame in wire.frames(forward(wire.encode({k: v[0] for k, v in then.items()}))[1]):
                if 3 in frame:
                    earlier[wire.decode(frame[3][0])[1][0]] = frame
            spliced = b""
            for frame in wire.frames(answer):
                page = wire.decode(frame[3][0])[1][0] if 3 in frame else None
                encoded = wire.encode(earlier[page] if page in victims else frame)
                spliced += wire.varint(len(encoded)) + encoded
            return code, spliced
        self.pages["read_pages"] = rule

    def test_mixed_snapshot(self):
        self.script(self.a, "write=1,write=2,write=3,push")
        self.script(self.a, "write=1,write=2,write=3,push")
        self.splice({2}, 2)
        self.script(self.b, "pull,read")
        self.expect("mixed snapshot")

    def test_stale_read(self):
        self.script(self.a, "cut=0,write=1,write=2,write=3,push")
        self.script(self.a, "write=1,write=2,write=3,push")
        self.splice({1, 2, 3}, 2)
        self.script(self.b, "pull,read")
        self.expect("stale read")

    def test_resurrected_page(self):
        self.script(self.a, "cut=0,write=5,push")
        self.script(self.a, "cut=2,write=6,push")
        self.splice({5}, 2)
        self.script(self.newcomer(), "read")
        self.expect("resurrected page")

    def test_bank_counts_its_money(self):
        self.begin("bank")
        self.script(self.a, "commit,push")
        changed = wire.decode(self.caller.commits(self.vid, 2)[0][11][0])
        self.splice({min(page_set(changed[3][0]))}, 1)
        self.script(self.newcomer(), "read")
        self.expect("money made or lost", "mixed snapshot")

    # ---- forks and deletions

    def test_forks_and_deletions_with_nothing_planted(self):
        self.script(self.a, "write=1,write=2,push,write=3,cut=2,write=4,fork,read,at=last,read,write=9,push,read")
        self.script(self.b, "visit,visit,visit,visit,pull,read")
        self.script(self.a, "at=last,fork,delete,pull", FAILED)
        self.script(self.a, "at=last,read,write=2,push,read")
        self.report().require()

    def test_fork_of_another_state(self):
        """The servers fork what the volume was two commits ago."""
        def older(body, forward):
            request = wire.decode(body)
            commits = {commit[2][0]: commit for commit in self.caller.commits(self.vid, 1)}
            request.update({2: [2], 3: commits[2][12]})
            return forward(wire.encode({number: values[0] for number, values in request.items()}))
        self.script(self.a, "cut=0,write=1,write=2,push,write=1,push,write=1,push,write=2")
        self.meta["fork"] = older
        self.script(self.a, "fork,at=last,read")
        self.expect("lost acknowledgement", "token that nobody sent", "stale read", "mixed snapshot", "wrong bytes")

    def test_fork_that_serves_other_pages(self):
        self.script(self.a, "cut=0,write=1,write=2,write=3,push")
        self.script(self.a, "write=1,write=2,push,fork")
        vids = sorted(wire.gid_text(volume) for volume in self.volumes())
        fork = next(vid for vid in vids if vid != self.workload.vid)

        def origin_as_it_was(body, forward):
            asked = wire.decode(body)
            if wire.gid_text(asked[1][0]) != fork:
                return forward()
            commits = {commit[2][0]: commit for commit in self.caller.commits(self.vid, 1)}
            then = wire.encode({1: self.vid, 2: 2, 3: commits[2][12][0], 4: asked[4][0]})
            code, answer = forward(then)
            begin = wire.encode({1: wire.encode({1: asked[1][0], 2: asked[2][0], 3: asked[3][0]})})
            owner = wire.encode({2: wire.encode({1: self.vid})})
            frames = [wire.encode(frame) for frame in list(wire.frames(answer))[1:]]
            return code, b"".join(wire.varint(len(frame)) + frame for frame in [begin, owner, *frames])
        self.pages["read_pages"] = origin_as_it_was
        self.script(self.newcomer(), f"at={fork},read")
        self.expect("wrong bytes", "mixed snapshot", "stale read")

    def volumes(self):
        answer = self.caller.post("list_volumes", {})
        return [wire.decode(head)[1][0] for head in answer.message.get(1, [])]

    def make_a_fork(self):
        """Both clients know it; its VID."""
        self.script(self.a, "write=1,push,fork")
        fork = next(vid for vid in self.volumes() if vid != self.vid)
        for client in (self.a, self.b):
            self.script(client, f"at={wire.gid_text(fork)},read")
        return fork

    def test_deletion_that_was_not_done(self):
        fork = self.make_a_fork()

        def swallow(body, forward):
            head = {**self.caller.head(fork), 8: 1}
            return 200, wire.encode({1: wire.encode(head)})
        self.meta["delete_volume"] = swallow
        self.script(self.a, f"at={wire.gid_text(fork)},delete")
        self.expect("deleted volume came back")

    def test_deletion_that_somebody_is_not_told_of(self):
        fork = wire.gid_text(self.make_a_fork())
        answers = []

        def remember(body, forward):
            answers.append(forward())
            return answers[0]
        self.meta["pull"] = remember
        self.script(self.b, f"at={fork},pull")
        self.script(self.a, f"at={fork},delete")
        self.script(self.b, f"at={fork},pull,read")
        self.expect("deletion not learned")

    def test_deletion_that_nobody_asked_for(self):
        fork = self.make_a_fork()
        answer = self.caller.post("delete_volume", {1: fork, 2: os.urandom(16)})
        self.assertEqual(answer.code, 200, answer.text)
        self.expect("volume lost")

    # ---- restores

    def restore(self):
        """a pushes page 3 twice more after the backup."""
        self.begin("restored")
        self.script(self.a, "write=1,write=2,write=3,push,write=1,push")
        backup = self.folder / "backup"
        subprocess.run([METASTORE, "--backup", backup, "--store", f"rocksdb:{self.folder}/metastore", "--listen",
                        self.cluster.metastore.addresses["listen"]], check=True, capture_output=True)
        self.script(self.a, "write=3,push,write=3,push")
        self.script(self.b, "pull,read")
        self.earlier = [replace_by_older(self.cluster, backup, [self.vid])]
        self.caller.close()

    def expect_restored(self, name, *companions):
        report = history.check(self.workload.events(), self.cluster, ("status corrupt", "corruption reported"),
                               earlier=self.earlier)
        self.assertLessEqual(report.names(), {name, *companions} - {None}, str(report))
        if name:
            self.assertIn(name, report.names(), str(report))

    def test_restore_with_nothing_planted(self):
        self.restore()
        self.script(self.a, "pull", FAILED)
        self.script(self.a, "reattach,read,write=2,push,read")
        self.script(self.b, "reattach,read,past,pull,read")
        self.expect_restored(None)

    def test_pages_of_a_lost_history(self):
        """Somebody still serves what was pushed before."""
        pages = []

        def remember(body, forward):
            code, answer = forward()
            pages.extend(frame for frame in wire.frames(answer) if 3 in frame)
            return code, answer
        self.pages["read_pages"] = remember
        self.restore()
        kept = {wire.decode(frame[3][0])[1][0]: frame for frame in pages}

        def old_page(body, forward):
            code, answer = forward()
            spliced = b""
            for frame in wire.frames(answer):
                page = wire.decode(frame[3][0])[1][0] if 3 in frame else None
                encoded = wire.encode(kept[3] if page == 3 else frame)
                spliced += wire.varint(len(encoded)) + encoded
            return code, spliced
        self.assertIn(3, kept)
        self.pages["read_pages"] = old_page
        self.script(self.newcomer(), "read")
        self.expect_restored("mixed history")

    def test_head_of_a_lost_history(self):
        answers = []

        def remember(body, forward):
            answers.append(forward())
            return answers[-1]
        self.meta["pull"] = remember
        self.restore()
        self.meta["pull"] = lambda body, forward: answers[-1]
        self.script(self.b, "pull,read")
        self.expect_restored("mixed history", "stale read")

    # ---- in what is kept

    def objects(self, *arguments):
        subprocess.run([OBJECTS, f"rocksdb:{self.folder}/metastore", *arguments], check=True)

    def test_hole_in_lsns(self):
        """Below a summary: from there on the metastore looks for its head."""
        self.script(self.a, ",".join(f"write={1 + i % 9},push" for i in range(260)))
        self.cluster.metastore.stop()
        volume = f"volumes/{self.workload.vid}"
        self.objects("remove", f"{volume}/commits/{100:016x}")
        self.objects("remove", f"{volume}/pack/256/{0:016x}")
        self.cluster.metastore.start()
        self.expect("hole in LSNs", "lost acknowledgement", "wrong page", "unreadable snapshot")

    def test_missing_head(self):
        self.script(self.a, "write=1,push,write=2,push")
        self.cluster.metastore.stop()
        self.objects("remove", f"volumes/{self.workload.vid}/commits/{3:016x}")
        self.cluster.metastore.start()
        self.expect("lost acknowledgement")

    def segment_of(self, lsn):
        commit = self.caller.commits(self.vid, lsn, lsn)[0]
        sid = wire.gid_text(wire.decode(commit[11][0])[1][0])
        return self.folder / "segments" / "objects" / "segments@" / sid

    def test_missing_segment(self):
        self.script(self.a, "write=1,push")
        self.cluster.pagestore.stop()
        self.segment_of(2).unlink()
        self.cluster.pagestore.start()
        self.expect("missing segment", "damaged page", "unreadable snapshot")

    def test_damaged_segment(self):
        self.script(self.a, "write=1,push")
        self.cluster.pagestore.stop()
        path = self.segment_of(2)
        data = bytearray(path.read_bytes())
        data[12] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)
        self.cluster.pagestore.start()
        self.expect("damaged segment", "damaged page")

    def put_back(self, client, between):
        """What a client kept before `between` takes the place of what it keeps after."""
        copy = self.folder / "copy"
        shutil.copytree(client.data, copy)
        between()
        shutil.rmtree(client.data)
        copy.rename(client.data)

    def lose_a_local_commit(self):
        def crash():
            self.a.start("--script", "write=3")
            self.a.process.wait(20)
        self.put_back(self.a, crash)
        self.script(self.a, "read")
        self.expect("lost local commit")

    def test_lost_local_commit_after_a_crash(self):
        self.begin("register")
        self.assertFalse(self.a.is_a(NORMAL))
        self.lose_a_local_commit()

    def test_lost_local_commit_after_a_crash_with_normal_durability(self):
        self.assertTrue(self.a.is_a(NORMAL))
        self.lose_a_local_commit()

    def test_non_monotonic_read(self):
        def move_on():
            self.script(self.a, "write=3,push")
            self.script(self.b, "pull,read")
        self.put_back(self.b, move_on)
        self.script(self.b, "read")
        self.expect("non-monotonic read", "lost local commit", "mapping went back")

    def test_metastore_restored_from_an_older_copy(self):
        def move_on():
            self.cluster.metastore.start()
            self.script(self.a, "write=3,push")
            self.cluster.metastore.stop()
        self.cluster.metastore.stop()
        self.cluster.metastore.data = self.folder / "metastore"
        self.put_back(self.cluster.metastore, move_on)
        self.cluster.metastore.start()
        self.script(self.a, "pull", BROKEN)
        self.expect("lost acknowledgement", "status corrupt", "corruption reported")


if __name__ == "__main__":
    sys.exit(graft.main())
