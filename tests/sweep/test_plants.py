#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the sweep must not pass over: an anomaly is planted in a run of it, and the run has to fail with its name."""
import pathlib
import shutil
import sys
import tempfile
import unittest

import cluster
import wire
from history.hashes import chain
from history.remote import page_set
from intruder import Intruder
from test_sweep import Failure, Lane, Run, armed, new_report, start_worker, wait_for_any

# A run in which nothing happens to the workload, and one in which it dies and goes on.
CALM = Run("sync", None, None, None, 0)
KILLED = Run("sync", "sweep-worker", "commit.publish.after", "exit", 2)


class Planted(Lane):
    """`plant(lane, events)` is called before the checker."""

    def __init__(self, folder, plant=None):
        super().__init__(folder)
        self.plant, self.intruders = plant, {}

    def intrude(self, daemon, call, rule):
        """From now on the workload's calls are answered by `rule` (intruder.py)."""
        self.intruders[daemon] = Intruder(daemon)
        self.intruders[daemon].rules[call] = rule

    def command(self, run, folder):
        urls = {daemon.url(): intruder.url() for daemon, intruder in self.intruders.items()}
        return [urls.get(word, word) for word in super().command(run, folder)]

    def check(self, events):
        if self.plant:
            self.plant(self, events)
        super().check(events)

    def close(self):
        for intruder in self.intruders.values():
            intruder.close()
        super().close()


class RolledBack(Planted):
    """An older copy of a client's directory is put in place while its process is down."""

    def work(self, run, folder):
        first = run._replace(hit=1)
        with armed(first, new_report(folder)):
            worker = start_worker(self.command(first, folder))
        wait_for_any([worker], 20)
        worker.stderr.close()
        shutil.copytree(folder / "client-0", folder / "copy")
        return super().work(run, folder)

    def before_restart(self, folder):
        shutil.rmtree(folder / "client-0")
        shutil.copytree(folder / "copy", folder / "client-0")


def log_of(lane, events):
    """A volume that lives on, with two commits at least: its VID, its head, its log by LSN."""
    caller = wire.Caller(lane.cluster.metastore)
    for vid in events.vids():
        head = caller.head(vid)
        if vid not in events.deletions and vid not in events.forks and head[2] >= 2:
            log = {commit[2][0]: commit for commit in caller.commits(vid, 1)}
            caller.close()
            return vid, head, log
    raise AssertionError("no such volume")


class PlantTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="graft-plants-", dir="/dev/shm")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def lane(self, kind=Planted, plant=None):
        lane = kind(self.folder, plant)
        self.addCleanup(lane.close)
        return lane

    def run_lane(self, lane, run):
        lane.run(run, new_report(self.folder))

    def expect(self, lane, run, *names):
        with self.assertRaises(Failure) as caught:
            self.run_lane(lane, run)
        for name in names:
            self.assertIn(f"{name}: ", str(caught.exception))

    def test_nothing_planted_nothing_found(self):
        lane = self.lane()
        self.run_lane(lane, KILLED)
        self.run_lane(lane, CALM)

    def test_a_lost_local_commit(self):
        self.expect(self.lane(RolledBack), KILLED, "lost local commit")

    def test_a_lost_acknowledgement(self):
        lane = self.lane()

        def forge(body, forward):
            request = {number: values[0] for number, values in wire.decode(body).items()}
            vid, token, digest, count = request[1], request[4], request[5], request[7]
            chained = chain(request.get(3, bytes(16)), vid, 1, token, digest, count)
            snapshot = {1: vid, 2: 1, 3: count, 4: chained, 5: 4096, 6: 1, 7: 1}
            return 200, wire.encode({1: wire.encode(snapshot), 2: token, 3: digest})

        lane.intrude(lane.cluster.metastore, "commit", forge)
        lane.missing = lane.work  # its reads would miss the commit
        self.expect(lane, CALM._replace(script="missing"), "lost acknowledgement")

    def test_a_token_that_nobody_sent(self):
        def commit(lane, events):
            vid, head, _ = log_of(lane, events)
            answer = wire.Caller(lane.cluster.metastore).post("commit", {
                1: vid, 2: head[2], 3: head[4], 4: bytes(range(16)), 5: bytes(16), 6: wire.gid(0x83), 7: head[3], 8: head[3]})
            self.assertEqual(answer.code, 200, answer.text)
        self.expect(self.lane(plant=commit), KILLED, "token that nobody sent")

    def test_a_missing_segment(self):
        def remove(lane, events):
            _, _, log = log_of(lane, events)
            sid = wire.gid_text(wire.decode(log[1][11][0])[1][0])
            lane.cluster.pagestore.stop()
            (lane.cluster.segments / "objects" / "segments@" / sid).unlink()
            lane.cluster.pagestore.start()
        self.expect(self.lane(plant=remove), KILLED, "missing segment")

    def test_a_mixed_snapshot(self):
        """One page is served as it was at LSN 1."""
        lane = self.lane()
        planted = []

        def rule(body, forward):
            asked = wire.decode(body)
            vid, lsn = asked[1][0], asked[2][0]
            code, answer = forward()
            caller = wire.Caller(lane.cluster.metastore)
            log = {commit[2][0]: commit for commit in caller.commits(vid, 1)}
            caller.close()
            both = page_set(asked[4][0]) & self.pages(log[1]) & self.pages(log[lsn])
            if code != 200 or lsn == 1 or not both:
                return code, answer
            page = min(both)
            then = {**{number: values[0] for number, values in asked.items()}, 2: 1, 3: log[1][12][0], 4: wire.page_set((page, 1))}
            old, = (frame for frame in wire.frames(forward(wire.encode(then))[1]) if 3 in frame)
            spliced = b""
            for frame in wire.frames(answer):
                same = 3 in frame and wire.decode(frame[3][0])[1][0] == page
                encoded = wire.encode(old if same else frame)
                spliced += wire.varint(len(encoded)) + encoded
            planted.append(page)
            return code, spliced

        lane.intrude(lane.cluster.pagestore, "read_pages", rule)
        self.expect(lane, CALM, "mixed snapshot")
        self.assertTrue(planted)

    def pages(self, commit):
        return set().union(*(page_set(wire.decode(reference)[3][0]) for reference in commit.get(11, [])))


if __name__ == "__main__":
    sys.exit(cluster.main())
