# SPDX-License-Identifier: Apache-2.0
"""The client's local store loses power: local commits small and staged, pulls, resets and the states of a push. What was
acknowledged is there, what was under way is there whole or not at all, what a reopened store has shown stays, and the store
opens. Power also fails while it is opened, again and again; and some runs meet a failed sync first.

With durability `normal` the latest local commits may be gone, but what is there is what there was at one moment, with all
pages, and that moment is not before the last pull, reset or step of a push, nor before what a reopened store has shown.

The victim itself compares every page with a model. Beside it the checker of tests/sim follows, from what the victim says
that it does, where the volume may stand when it is opened again.
"""
import pathlib
import random
import shutil
import tempfile
import unittest

import cluster
import history
import powerloss

VICTIM = powerloss.BUILD / "tests/powerloss/store_victim"
SETTINGS = powerloss.Settings(1100)
ATTEMPTS = 20
OPENING_CALLS = 120  # about as many has an opening


class Store:
    """One model's history after another, each on one disk."""

    def __init__(self, folder, seed, lie=False, normal=False):
        self.folder, self.root, self.lie, self.normal = folder, folder / "disk", lie, normal
        self.random = random.Random(seed)
        self.totals = powerloss.Totals()
        self.report = history.Report()
        self.log = None
        self.begin_history()

    def check(self):
        """What the checker says of the history so far."""
        events = history.load([self.log], power_fails=True)
        report = history.Report()
        report.count(**events.figures)
        for name, text in events.anomalies:
            report.add(name, f"history {self.history}: {text}")
        self.report.merge(report)

    def begin_history(self):
        if self.log:
            self.check()
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        self.history = self.random.randrange(1 << 32)
        self.log = self.folder / f"history-{self.history}.jsonl"
        self.log.touch()
        self.done = self.kept = 0
        self.totals.counts["histories"] += 1

    def settings(self):
        dice = self.random.random()
        # A disk that lies does so once there is something to lose: a store that was never there tells nothing.
        options = {"seed": self.random.randrange(1 << 63), "lie": self.lie and self.done > 0}
        if dice < 0.4:
            return {**options, "at": self.random.randint(1, OPENING_CALLS)}
        if dice < 0.6:
            return {**options, "at": 2000, "fail_sync": self.random.randint(1, 120)}
        return {**options, "at": self.random.randint(OPENING_CALLS, 700)}

    def lose_once(self):
        options = self.settings()
        command = [VICTIM, self.root / "data", self.history, self.done, self.log, *([self.kept] if self.normal else [])]
        lines, loss, code, err = powerloss.run(command, self.root, **options)
        said = [(what, int(number)) for what, number in map(str.split, lines)]
        try:
            powerloss.check_end(loss, code, options, err, may_exit=True)
        except powerloss.Anomaly as anomaly:
            raise powerloss.Anomaly(f"history {self.history}, {self.done} steps acknowledged: {anomaly}") from None
        self.totals.add(loss)
        counts = self.totals.counts
        counts["losses while opening"] += not said
        counts["failed syncs"] += options.get("fail_sync", 0) > 0
        counts["stopped by it"] += ("stopped", 0) in said
        counts["acknowledged"] += sum(what == "did" for what, _ in said)
        for what, number in said:
            if what == "at":
                counts["steps lost"] += max(0, self.done - number)
                self.done = self.kept = number
            elif what == "did":
                self.done = number
            elif what == "kept":
                self.kept = number
        if loss["call"] == "exit":
            self.begin_history()


class StoreTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="graft-powerloss-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def lose(self, title, losses, **options):
        store = Store(self.folder, SETTINGS.seed, **options)
        try:
            for _ in range(losses):
                store.lose_once()
            store.check()
            print(f"# {store.report}", flush=True)
            if store.report.anomalies:
                raise powerloss.Anomaly(store.report)
        except powerloss.Anomaly as anomaly:
            self.fail(powerloss.keep(self.folder, anomaly))
        finally:
            store.totals.show(title)
        return store

    def test_with_normal_durability_only_the_latest_commits_are_lost(self):
        losses = SETTINGS.losses // 3
        store = self.lose("local store, durability normal", losses, normal=True)
        store.totals.at_least(acknowledged=5 * losses)
        self.assertGreaterEqual(store.report.figures["lost_with_normal"], losses // 20)

    def test_what_was_acknowledged_survives(self):
        losses = SETTINGS.losses - SETTINGS.losses // 3
        store = self.lose("local store", losses)
        self.assertEqual(store.totals.counts["steps lost"], 0)
        store.totals.at_least(acknowledged=5 * losses, torn=losses // 5, sizes_lost=losses // 5, names_lost=losses // 5,
                              renames_lost=1 if losses >= 100 else 0)
        self.assertGreater(store.totals.counts["losses while opening"], losses // 10)
        self.assertGreater(store.report.figures["interrupted_operations"], losses // 10)

    def test_a_disk_that_only_says_it_synced_is_found_out(self):
        """By the victim, and by the checker, unless the store does not even open."""
        for normal in (False, True):
            self.find_out(normal)

    def find_out(self, normal):
        for attempt in range(ATTEMPTS):
            store = Store(self.folder / f"{normal}-{attempt}", f"{SETTINGS.seed} {attempt}", lie=True, normal=normal)
            with self.assertRaises(powerloss.Anomaly):
                for _ in range(60 if normal else 30):
                    store.lose_once()
            store.check()
            print(f"# found out after {store.totals.counts['losses']} losses: {sorted(store.report.names())}", flush=True)
            if store.report.names() & {"lost local commit", "mapping went back"}:
                return
        self.fail("the checker found nothing")


if __name__ == "__main__":
    cluster.main()
