# SPDX-License-Identifier: Apache-2.0
"""No work grows with the number of commits: the same calls on a volume of 20 and of 20,000 commits, compared by what both
daemons and the command line count, not by time."""
import os
import random
import shutil

import cluster
import wire
from wire import page_set

PAGES = 1000
PUSHES = 8
FEW, MANY = 20, 20_000 if os.environ.get("GRAFT_SANITIZE", "none") == "none" else 2_000
SUMMARY = 256
PAGE = 4096
READ = (101, 100), (701, 28)
READ_PAGES = 128
# What tells of work done. Times, sizes of processes and the like are left out.
COUNTED = ("objstore_calls_total", "objstore_bytes_total", "graft_metastore_pagesets_united_total",
           "graft_metastore_volume_loads_total", "graft_index_", "graft_catchup_rounds_total", "graft_cache_",
           "graft_read_", "graft_http_requests_total", "graft_http_client_exchanges_total")
LEFT_OUT = ("graft_cache_bytes", 'path="/metrics"')


class HistoryTest(cluster.GraftTest):
    def setUp(self):
        self.meta, self.pages = wire.Caller(self.cluster.metastore), wire.Caller(self.cluster.pagestore)
        self.rng = random.Random(7)
        self.key = wire.cluster_key(self.folder)
        self.make_volume()

    def tearDown(self):
        self.meta.close()
        self.pages.close()

    def make_volume(self):
        """PUSHES segments of real pages; all later commits refer to them, page by page."""
        source = os.urandom(PAGES * PAGE)
        vid = None
        for number in range(1, PUSHES + 1):
            path = self.write_file("source", source[:number * PAGES // PUSHES * PAGE])
            vid = self.graft_text("import", path, *([vid] if vid else [])) or vid
            self.graft("push", vid)
        self.source, self.vid_text, self.vid = source, vid, wire.gid_bytes(vid)
        self.references = {}
        for number, commit in enumerate(self.meta.commits(self.vid, 1)):
            stored = wire.decode(commit[11][0])
            for page in range(number * PAGES // PUSHES + 1, (number + 1) * PAGES // PUSHES + 1):
                self.references[page] = {field: values[0] for field, values in stored.items() if field not in (4, 9)}
        self.assertEqual(set(self.references), set(range(1, PAGES + 1)))
        self.head = self.meta.head(self.vid)

    def commit(self):
        page = self.rng.randrange(PAGES) + 1
        reference = wire.with_receipt({**self.references[page], 3: page_set((page, 1)), 8: 1 << 42}, self.key)
        answer = self.meta.post("commit", {1: self.vid, 2: self.head[2], 3: self.head[4], 4: os.urandom(16),
                                           5: os.urandom(16), 6: b"\x83" + bytes(15), 7: PAGES, 8: PAGES,
                                           9: wire.encode(reference)})
        self.assertEqual(answer.code, 200, answer.text)
        self.head = {field: values[0] for field, values in wire.decode(answer.message[1][0]).items()}

    def grow(self, lsn):
        while self.head[2] < lsn:
            self.commit()

    def pull(self, after):
        chain = self.meta.head(self.vid, after)[4] if after else bytes(16)
        return lambda: self.assertEqual(self.meta.post("pull", {1: self.vid, 2: after, 3: chain}).code, 200)

    def read(self):
        found = self.pages.read_pages(self.vid, self.head[2], self.head[4], page_set(*READ))
        self.assertEqual(len(found), READ_PAGES)
        for page, frame in found.items():
            self.assertEqual(frame[15][0], self.source[(page - 1) * PAGE:page * PAGE])

    def counts(self):
        values = {}
        for caller in (self.meta, self.pages):
            for name, value in caller.metrics().items():
                if name.startswith(COUNTED) and not any(text in name for text in LEFT_OUT):
                    values[f"{caller.daemon.name} {name}"] = value
        return values

    def work_of(self, call):
        """What the call makes both daemons count."""
        before = self.counts()
        call()
        return {name: value - before.get(name, 0) for name, value in self.counts().items() if value != before.get(name, 0)}

    @staticmethod
    def total(work, name):
        return sum(value for key, value in work.items() if name in key)

    def commit_and_read(self):
        self.commit()
        self.read()

    def client_follows(self, data):
        def run():
            self.graft("pull", self.vid_text, data=data)
            self.graft("read", self.vid_text, 150, data=data)
        return run

    def await_summaries(self):
        """They are made in the background: until a pull of everything has no more than their rest to unite."""
        for _ in range(2000):
            work = self.work_of(self.pull(0))
            united = self.total(work, "pagesets_united")
            if united <= self.head[2] // SUMMARY + self.head[2] % SUMMARY:
                return work
        self.fail(f"{united} page sets united")

    def measure(self, lsn):
        self.grow(lsn - 2)
        data = f"client-{lsn}"
        self.graft("clone", self.vid_text, data=data)
        self.graft("read", self.vid_text, 1, data=data)
        self.read()
        self.grow(lsn)
        self.read()
        return {
            "read_pages": self.work_of(self.read),
            "snapshot": self.work_of(lambda: self.meta.head(self.vid)),
            "snapshot of an LSN": self.work_of(lambda: self.meta.head(self.vid, 10)),
            "pull of 5 commits": self.work_of(self.pull(lsn - 5)),
            "pull of nothing": self.work_of(self.pull(lsn)),
            "the client's pull and read": self.work_of(self.client_follows(data)),
            "commit": self.work_of(self.commit),
            "read_pages after a commit": self.work_of(self.read),
            "commit and read_pages": self.work_of(self.commit_and_read),
        }

    def test_work_is_the_same_after_20_and_after_20000_commits(self):
        few = self.measure(FEW)
        many = self.measure(MANY)
        for name in few:
            print(f"# {name}: objstore calls {self.total(few[name], 'objstore_calls'):.0f}, "
                  f"seeks {self.total(few[name], 'graft_index_seeks'):.0f}, "
                  f"page sets {self.total(few[name], 'united'):.0f}", flush=True)
            # Records hold their LSN as a varint: a few bytes more. All else is equal.
            for key in set(few[name]) | set(many[name]):
                before, after = few[name].get(key, 0), many[name].get(key, 0)
                if "graft_index_seeks" in key:
                    # One a page, or fewer: where a page has few versions, the next page is reached by a step.
                    self.assertLessEqual(max(before, after), READ_PAGES, f"{name}: {key}")
                    continue
                slack = 2 + before // 20 if "bytes" in key else 0
                self.assertLessEqual(abs(after - before), slack, f"{name}: {key}: {before} and {after}")

        work = self.await_summaries()
        self.say("pull of everything", work)
        self.assertLessEqual(self.total(work, "objstore_calls"), self.head[2] // SUMMARY + SUMMARY + 10)

        def all_commits():
            self.assertEqual(len(self.meta.commits(self.vid, 1)), self.head[2])
        work = self.work_of(all_commits)
        self.say("the stream of all commits", work)
        self.assertLessEqual(self.total(work, "objstore_calls"), self.head[2] // SUMMARY + SUMMARY + 10)

        self.cluster.metastore.stop()
        self.cluster.metastore.start()
        self.meta.close()
        work = self.work_of(lambda: self.meta.head(self.vid))
        self.say("the first look at the volume after a restart", work)
        self.assertLessEqual(self.total(work, "objstore_calls"), SUMMARY + 50)

        self.cluster.pagestore.stop()
        shutil.rmtree(self.folder / "cache")
        self.cluster.pagestore.start()
        self.pages.close()
        work = self.work_of(self.read)
        self.say("the first read of a pagestore without its index", work)
        self.assertLessEqual(self.total(work, "objstore_calls"), self.head[2] // SUMMARY + SUMMARY + 50)

    def say(self, name, work):
        print(f"# {name}: objstore calls {self.total(work, 'objstore_calls'):.0f}, page sets "
              f"{self.total(work, 'united'):.0f}", flush=True)


if __name__ == "__main__":
    cluster.main()
