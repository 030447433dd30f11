# SPDX-License-Identifier: Apache-2.0
"""The checker: what clients say that they did (events), held against what the servers have (remote).

    report = history.check(history.load(paths), cluster)
    report.require()                      # an AssertionError that lists the anomalies
"""
from history.events import load
from history.judge import judge
from history.remote import SNAPSHOTS, examine, fetch
from history.report import Report

__all__ = ["Report", "check", "judge", "load"]


def check(events, cluster, allow=(), every_segment=True, snapshots=SNAPSHOTS, records=None,
          earlier=()):
    """Judges `events` against the servers of `cluster`, which must be serving. `allow`: names of anomalies to leave out,
    for scenarios that make them (status corrupt after a restore). `snapshots`: how many of each volume are read whole
    through the pagestore, the head among them. `records`: see remote.fetch(); `earlier`: see judge.judge()."""
    report = Report(allow)
    volumes = fetch(cluster, events.vids(), report, records)
    pages = judge(events, volumes, report, earlier)
    examine(cluster, volumes, pages, report, every_segment, snapshots)
    return report
