# SPDX-License-Identifier: Apache-2.0
"""The page log by itself loses power: while commits are written, synced, applied and taken off the claims, extents grow, are
emptied and filled again, and while it opens. What was acknowledged is there, what was under way is there whole or not at all
and in order, pairs as one, and every live page reads as it was written.
"""
import pathlib
import tempfile
import unittest

import cluster
import powerloss

VICTIM = powerloss.BUILD / "tests/powerloss/log_victim"
SETTINGS = powerloss.Settings(700)
OPENING_CALLS = 8  # about as many has an opening that finds something


def histories(folder, lie=False):
    return powerloss.Histories(VICTIM, folder, SETTINGS.seed, OPENING_CALLS, 400, lie)


class LogTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="graft-powerloss-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def test_what_was_acknowledged_survives(self):
        log = histories(self.folder)
        try:
            for _ in range(SETTINGS.losses):
                log.lose_once()
        except powerloss.Anomaly as anomaly:
            self.fail(powerloss.keep(self.folder, anomaly))
        finally:
            log.totals.show("page log")
        losses = SETTINGS.losses
        log.totals.at_least(acknowledged=5 * losses, torn=losses // 8)
        self.assertGreater(log.totals.counts["losses while opening"], losses // 20)

    def test_a_disk_that_only_says_it_synced_is_found_out(self):
        log = histories(self.folder, lie=True)
        with self.assertRaises(powerloss.Anomaly):
            for _ in range(60):
                log.lose_once()
        print(f"# found out after {log.totals.counts['losses']} losses", flush=True)


if __name__ == "__main__":
    cluster.main()
