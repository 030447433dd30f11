# SPDX-License-Identifier: Apache-2.0
"""push, pull, conflicts, reset, log, watch, lazy reads, check, segments: two clients and one volume."""
import json
import os
import pathlib
import signal
import subprocess
import urllib.request

import cluster
from fault_proxy import Network


class Syncing(cluster.GraftTest):
    def volume(self, pages=20, data="a"):
        vid = self.graft_text("import", self.write_file("file", os.urandom(4096 * pages)), data=data)
        self.graft("push", vid, data=data)
        return vid

    def test_a_read_fetches_one_page(self):
        vid = self.volume(pages=500)
        self.graft("clone", vid, data="lazy")
        row = self.graft_json("status", vid, data="lazy")[0]
        self.assertEqual((row["pages_available"], row["pages_pending"], row["fetch"]["pages"]), (0, 500, 0))
        page = self.graft("read", vid, 250, data="lazy")
        self.assertEqual(page, self.graft("read", vid, 250))
        row = self.graft_json("status", vid, data="lazy")[0]
        self.assertEqual((row["pages_available"], row["pages_pending"]), (1, 499))
        self.assertEqual((row["fetch"]["requests"], row["fetch"]["pages"]), (1, 1))
        self.assertLess(row["fetch"]["bytes"], 5000)
        self.assertEqual(self.graft("read", vid, 250, data="lazy"), page)
        self.assertEqual(self.graft_json("status", vid, data="lazy")[0]["fetch"]["requests"], 1)

    def test_a_pull_tells_what_changed_and_downloads_nothing(self):
        vid = self.volume(pages=50)
        self.graft("clone", vid, data="puller")
        self.graft("export", vid, "-", data="puller")
        for pageidx in (3, 30):
            self.graft("write", vid, pageidx, stdin=bytes([pageidx]) * 4096)
        self.graft("push", vid)
        before = self.graft_json("status", vid, data="puller")[0]
        self.assertEqual(self.graft_json("pull", vid, data="puller")["pages_changed"], 2)
        after = self.graft_json("status", vid, data="puller")[0]
        self.assertEqual(after["fetch"], before["fetch"])
        self.assertEqual((after["pages_available"], after["pages_pending"], after["remote_lsn"]), (48, 2, 2))
        self.assertEqual(self.graft("read", vid, 30, data="puller"), bytes([30]) * 4096)

    def test_the_second_pusher_is_rejected_and_resets(self):
        vid = self.volume()
        self.graft("clone", vid, data="second")
        self.graft("write", vid, 1, stdin=b"A" * 4096)
        self.graft("write", vid, 1, stdin=b"B" * 4096, data="second")
        self.graft("push", vid)
        self.graft("push", vid, data="second", code=3)
        row = self.graft_json("status", vid, data="second")[0]
        self.assertEqual((row["status"], row["pending_commits"]), ("rejected", 1))
        self.assertEqual(self.graft("read", vid, 1, data="second"), b"B" * 4096)
        self.graft("pull", vid, data="second", code=3)
        self.assertEqual(self.graft_json("reset", vid, data="second")["dropped_commits"], 1)
        self.assertEqual(self.graft("read", vid, 1, data="second"), b"A" * 4096)
        self.graft("write", vid, 1, stdin=b"C" * 4096, data="second")
        self.graft("sync", vid, data="second")
        self.graft("sync", vid)
        self.assertEqual(self.graft("read", vid, 1), b"C" * 4096)

    def test_several_local_commits_become_one(self):
        vid = self.volume()
        for value in (b"1", b"2", b"3"):
            self.graft("write", vid, 5, stdin=value * 4096)
        self.assertEqual(self.graft_json("status", vid)[0]["pending_commits"], 3)
        self.graft("push", vid)
        log = self.graft_json("log", vid)
        self.assertEqual([(row["lsn"], row["pages_changed"]) for row in log], [(2, 1), (1, 20)])
        self.assertEqual(self.graft("push", vid), self.graft("push", vid))
        self.assertEqual(len(self.graft_json("log", vid)), 2)

    def test_log_has_a_limit(self):
        vid = self.volume()
        for _ in range(4):
            self.graft("write", vid, 1, stdin=os.urandom(4096))
            self.graft("push", vid)
        self.assertEqual([row["lsn"] for row in self.graft_json("log", vid, "--limit", 2)], [5, 4])
        self.assertEqual(len(self.graft_json("log", vid, "--limit", 0)), 5)

    def test_watch_prints_a_line_whenever_a_head_moves(self):
        vid = self.volume()
        watch = subprocess.Popen([cluster.CLI, "watch", vid, "--json"], env=self.cluster.environment("watcher"),
                                 stdout=subprocess.PIPE, preexec_fn=cluster.die_with_parent)
        try:
            self.assertEqual(json.loads(watch.stdout.readline())["lsn"], 1)
            self.graft("write", vid, 1, stdin=os.urandom(4096))
            self.graft("push", vid)
            self.assertEqual(json.loads(watch.stdout.readline())["lsn"], 2)
        finally:
            watch.kill()
            watch.wait()
            watch.stdout.close()

    def follow(self, *arguments, data):
        return subprocess.Popen([cluster.CLI, "sync", "--watch", *arguments], env=self.cluster.environment(data),
                                stdout=subprocess.PIPE, text=True, preexec_fn=cluster.die_with_parent)

    def test_sync_watch_keeps_every_volume_in_step_until_it_is_interrupted(self):
        vids = sorted([self.volume(), self.volume()])
        for vid in vids:
            self.graft("clone", vid, data="follower")
        self.graft("write", vids[0], 1, stdin=b"f" * 4096, data="follower")
        follower = self.follow("--json", data="follower")
        events = {}
        while {vid: events.get(vid, {}).get("remote_lsn") for vid in vids} != {vids[0]: 2, vids[1]: 1}:
            event = json.loads(follower.stdout.readline())
            events[event["vid"]] = event
        self.assertEqual(events[vids[0]]["pending_commits"], 0)
        self.graft("write", vids[1], 1, stdin=b"w" * 4096)
        self.graft("push", vids[1])
        event = json.loads(follower.stdout.readline())
        self.assertEqual((event["vid"], event["remote_lsn"], event["status"]), (vids[1], 2, "ok"))
        follower.send_signal(signal.SIGINT)
        self.assertEqual(follower.wait(20), 0)
        follower.stdout.close()
        self.assertEqual(self.graft("read", vids[1], 1, data="follower"), b"w" * 4096)

    def test_the_watch_is_where_the_operator_says(self):
        metastore, front = self.cluster.metastore, Network(0, {})
        self.addCleanup(front.close)
        url = front.link("front", metastore.port("watch"))
        metastore.stop()
        metastore.start(("--watch-url", url))
        self.addCleanup(lambda: (metastore.stop(), metastore.start()))
        with urllib.request.urlopen(metastore.url() + "/v1/info") as answer:
            self.assertEqual(json.load(answer)["watch"], url)
        vid = self.volume()
        watch = subprocess.Popen([cluster.CLI, "watch", vid, "--json"], env=self.cluster.environment("watcher"),
                                 stdout=subprocess.PIPE)
        try:
            self.assertEqual(json.loads(watch.stdout.readline())["lsn"], 1)
            self.graft("write", vid, 1, stdin=b"w" * 4096)
            self.graft("push", vid)
            self.assertEqual(json.loads(watch.stdout.readline())["lsn"], 2)
        finally:
            watch.kill()
            watch.wait()
            watch.stdout.close()
        self.assertEqual(front.links[0].seen["watch"], 1)

    def test_a_watch_url_that_is_none_is_refused(self):
        for url in ("balancer:3002", "http://", "https:///watch", "ftp://balancer", "http://" + "x" * 1024):
            result = subprocess.run([cluster.BUILD / "metastore" / "graft-metastore", "--store", "rocksdb:/nowhere",
                                     "--cluster-key", self.folder / "cluster.key", "--watch-url", url],
                                    capture_output=True, text=True, timeout=30)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("--watch-url", result.stderr)

    def test_sync_watch_tells_of_servers_that_went_away_and_came_back(self):
        vid = self.volume()
        self.graft("clone", vid, data="patient")
        follower = self.follow(vid, data="patient")
        self.assertIn("in step: remote LSN 1", follower.stdout.readline())
        self.cluster.metastore.kill()
        self.assertIn("connect to server", follower.stdout.readline())
        self.cluster.metastore.start()
        self.assertIn("in step: remote LSN 1", follower.stdout.readline())
        follower.terminate()
        self.assertEqual(follower.wait(20), 0)
        follower.stdout.close()

    def test_sync_takes_a_volume_or_watch(self):
        self.graft("sync", code=2)
        self.graft("sync", "--watch", data="nothing", code=1)

    def test_daemons_restart_between_everything(self):
        vid = self.volume()
        for daemon in (self.cluster.pagestore, self.cluster.metastore):
            self.assertEqual(daemon.stop(), 0)
            daemon.start()
        self.graft("clone", vid, data="restarted")
        self.assertEqual(self.graft("export", vid, "-", data="restarted"), self.graft("export", vid, "-"))
        self.graft("write", vid, 1, stdin=b"r" * 4096)
        self.graft("push", vid)
        self.graft("pull", vid, data="restarted")
        self.assertEqual(self.graft("read", vid, 1, data="restarted"), b"r" * 4096)

    def test_segments_can_be_looked_at(self):
        vid = self.volume(pages=7)
        found = []
        for row in self.graft_json("segment", "list"):
            segment = self.graft_json("segment", "show", row["sid"])
            self.assertEqual(segment["size"], row["size"])
            found += [page["pageidx"] for volume in segment["volumes"] if volume["vid"] == vid
                      for page in volume["pages"]]
        self.assertEqual(found, list(range(1, 8)))

    def test_check_names_the_damaged_page_and_export_refuses_it(self):
        vid = self.volume(pages=10)
        self.assertEqual(self.graft_json("check", vid)["pages_checked"], 10)
        for row in self.graft_json("segment", "list"):
            segment = self.graft_json("segment", "show", row["sid"])
            pages = {page["pageidx"]: page for volume in segment["volumes"] if volume["vid"] == vid
                     for page in volume["pages"]}
            if 6 in pages:
                break
        path = next(path for path in pathlib.Path(self.folder / "segments").rglob("*") if path.name == row["sid"])
        self.cluster.pagestore.stop()
        content = bytearray(path.read_bytes())
        content[pages[6]["offset"] + 100] ^= 1
        path.chmod(0o600)
        path.write_bytes(content)
        self.cluster.pagestore.start()
        answer = self.graft_json("check", vid, code=1)
        self.assertEqual([page["pageidx"] for page in answer["damaged"]], [6])
        self.assertIn(row["sid"], answer["damaged"][0]["message"])
        self.graft("clone", vid, data="damaged")
        self.graft("read", vid, 6, data="damaged", code=1)
        self.assertIn("page 6", self.stderr)
        self.assertEqual(self.graft("read", vid, 5, data="damaged"), self.graft("read", vid, 5))

    def test_metrics_and_health(self):
        for daemon in (self.cluster.metastore, self.cluster.pagestore):
            for path in ("/healthz", "/readyz", "/metrics", "/v1/info"):
                with urllib.request.urlopen(daemon.url() + path, timeout=10) as answer:
                    body = answer.read().decode()
                    self.assertEqual(answer.status, 200, path)
                if path == "/metrics":
                    self.assertIn("# TYPE", body)
                if path == "/v1/info":
                    self.assertIn("version", json.loads(body))


if __name__ == "__main__":
    cluster.main()
