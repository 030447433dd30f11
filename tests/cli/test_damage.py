# SPDX-License-Identifier: Apache-2.0
"""Segments that are damaged, and a metastore that was restored from an older copy: reported with what and where, never
other bytes."""
import http.server
import json
import os
import shutil
import threading

import cluster
import wire
from wire import page_set

PAGE = 4096
FOOTER = 64


class Front:
    """A metastore in front of the real one, whose answers to `commits` are as the test wants them."""

    def __init__(self, metastore, references=None, refusal=None):
        """`references`: {LSN: the SegmentRefs that its commit names now}; `refusal`: (code, status, detail)."""
        front = self
        self.metastore, self.references, self.refusal, self.asked = metastore, references or {}, refusal, []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                code, content_type, body = front.answer(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path, body):
        if path == "/v1/commits" and self.refusal:
            code, status, detail = self.refusal
            return code, wire.PROTOBUF, wire.encode({1: status, 2: detail, 3: b"no longer kept"})
        caller = wire.Caller(self.metastore)
        answer = caller.request("POST", path, body, {"Content-Type": wire.PROTOBUF})
        caller.close()
        content = answer.body
        if path == "/v1/commits":
            content = b"".join(self.frame(frame) for frame in wire.frames(answer.body))
        return answer.code, answer.headers["Content-Type"], content

    def frame(self, frame):
        if 1 in frame:
            commit = wire.decode(frame[1][0])
            lsn = commit[2][0]
            self.asked.append(lsn)
            if lsn in self.references:
                commit[11] = self.references[lsn]
                frame = {1: wire.encode(commit)}
        encoded = wire.encode(frame)
        return wire.varint(len(encoded)) + encoded

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class TellingTest(cluster.GraftTest):
    def refused(self, *arguments, data):
        """The command fails with CORRUPT; its message and detail."""
        error = json.loads(self.graft(*arguments, "--json", data=data, code=1))["error"]
        self.assertEqual(error["status"], "CORRUPT", error)
        return error


class SegmentsTest(TellingTest):
    """A volume of two segments, the first of `first` pages, the second of `second`."""

    def make_volume(self, first=600, second=40):
        self.source = os.urandom((first + second) * PAGE)
        name = os.urandom(4).hex()
        vid = self.graft_text("import", self.write_file(name, self.source[:first * PAGE]), data="w-" + name)
        self.graft("push", vid, data="w-" + name)
        self.graft("import", self.write_file(name, self.source), vid, data="w-" + name)
        self.graft("push", vid, data="w-" + name)
        self.writer = "w-" + name
        self.first, self.second, self.vid_text, self.vid = first, second, vid, wire.gid_bytes(vid)
        meta = wire.Caller(self.cluster.metastore)
        self.head = meta.head(self.vid)
        commits = meta.commits(self.vid, 1)
        self.first_reference = commits[0][11][0]
        self.sids = [wire.decode(commit[11][0])[1][0] for commit in commits]
        self.assertEqual((self.head[2], self.head[3], len(set(self.sids))), (2, first + second, 2))
        pagestore = wire.Caller(self.cluster.pagestore)
        self.index = {}  # page: (offset, size) in the first segment
        answer = pagestore.post("segment", {1: self.sids[0]}).message
        self.index_place = answer[2][0], answer[3][0]
        for page in wire.decode(answer[4][0])[2]:
            fields = wire.decode(page)
            self.index[fields[1][0]] = fields[2][0], fields[3][0]
        pagestore.close()
        meta.close()

    def path_of(self, sid):
        found = [path for path in (self.folder / "segments").rglob("*") if path.name == wire.gid_text(sid)]
        self.assertEqual(len(found), 1)
        return found[0]

    def damaged_with(self, change):
        """Changes the first segment's file behind the pagestore's back, with nothing of it in a cache."""
        self.cluster.pagestore.stop()
        path = self.path_of(self.sids[0])
        self.kept = path.read_bytes()
        os.chmod(path, 0o600)
        change(path)
        self.cluster.pagestore.start()

    def repair(self):
        path = self.folder / "segments" / "kept"
        path.write_bytes(self.kept)
        self.cluster.pagestore.stop()
        target = [p for p in (self.folder / "segments").rglob("*") if p.name == wire.gid_text(self.sids[1])][0].parent
        path.rename(target / wire.gid_text(self.sids[0]))
        self.cluster.pagestore.start()

    def read_all(self):
        caller = wire.Caller(self.cluster.pagestore)
        count = self.first + self.second
        found = caller.read_pages(self.vid, self.head[2], self.head[4], page_set((1, count)))
        self.assertIsInstance(found, dict, getattr(found, "text", ""))
        self.assertEqual(set(found), set(range(1, count + 1)))
        caller.close()
        return found


class DamageTest(SegmentsTest):
    def expect_damage(self, damaged):
        """The pages of `damaged` are told to be, with segment and page; all others have their bytes."""
        for page, frame in self.read_all().items():
            if page in damaged:
                self.assertEqual(frame[2][0], wire.PAGE_DAMAGED, f"page {page}")
                self.assertNotIn(15, frame)
                error = wire.decode(frame[7][0])
                self.assertEqual(error[1][0], wire.CORRUPT)
                text = error[3][0].decode()
                self.assertIn(wire.gid_text(self.sids[0]), text)
            else:
                self.assertEqual(frame[2][0], wire.PAGE_STORED, f"page {page}")
                self.assertEqual(frame[15][0], self.source[(page - 1) * PAGE:page * PAGE], f"page {page}")
        return text

    def expect_client_sees(self, bad, good):
        data = "r-" + os.urandom(4).hex()
        self.graft("clone", self.vid_text, data=data)
        told = self.refused("read", self.vid_text, bad, data=data)["message"]
        self.assertIn(wire.gid_text(self.sids[0]), told)
        self.assertIn(f"page {bad}", told)
        page = self.graft("read", self.vid_text, good, data=data)
        self.assertEqual(page, self.source[(good - 1) * PAGE:good * PAGE])
        copy = self.folder / (data + "-copy")
        self.refused("export", self.vid_text, copy, data=data)
        self.assertFalse(copy.exists())
        self.graft("check", self.vid_text, data=data, code=1)
        return data

    def flip(self, offset):
        def change(path):
            with open(path, "r+b") as file:
                file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 0x10]))
        return change

    def test_a_flipped_byte_of_a_page_costs_that_page(self):
        for first in (600, 100):  # read in blocks; read whole
            self.make_volume(first=first)
            offset, size = self.index[50]
            self.damaged_with(self.flip(offset + size // 2))
            self.assertIn("page 50", self.expect_damage({50}))
            data = self.expect_client_sees(bad=50, good=51)
            found = self.graft_check(data)
            self.assertEqual([entry["pageidx"] for entry in found], [50])
            self.repair()
            self.expect_damage_gone(data)

    def graft_check(self, data):
        output = json.loads(self.graft("check", self.vid_text, "--json", data=data, code=1))
        self.assertEqual(output["pages_checked"], self.first + self.second)
        return output["damaged"]

    def expect_damage_gone(self, data):
        self.assertEqual(self.graft("export", self.vid_text, "-", data=data), self.source)
        self.graft("check", self.vid_text, data=data)

    def test_damage_of_what_describes_the_pages_costs_the_segment(self):
        self.make_volume()
        place, size = self.index_place
        everything = set(range(1, self.first + 1))
        for name, change in (("index", self.flip(place + size // 2)), ("index offset", self.flip(-FOOTER + 25)),
                             ("footer's SID", self.flip(-FOOTER + 15)), ("footer's end", self.flip(-1)),
                             ("magic of the footer", self.flip(-FOOTER)),
                             ("cut footer", lambda path: os.truncate(path, path.stat().st_size - 1)),
                             ("half of it", lambda path: os.truncate(path, path.stat().st_size // 2)),
                             ("empty", lambda path: os.truncate(path, 0)),
                             ("another segment", lambda path: shutil.copy(self.path_of(self.sids[1]), path)),
                             ("missing", os.unlink)):
            with self.subTest(name):
                self.damaged_with(change)
                try:
                    self.expect_damage(everything)
                    data = self.expect_client_sees(bad=50, good=self.first + 1)
                    self.assertEqual([entry["pageidx"] for entry in self.graft_check(data)], sorted(everything))
                finally:
                    self.repair()
                self.expect_damage_gone(data)


class MissingTest(SegmentsTest):
    """The first segment's object is gone, and the pagestore has its commit indexed. What the metastore says of that
    commit now decides."""

    def lose_segment(self, metastore=None):
        """The pagestore comes back without the object, and asks `metastore` (its URL)."""
        self.read_all()
        self.addCleanup(self.ask_metastore, self.cluster.metastore.url())
        self.damaged_with(os.unlink)
        if metastore:
            self.ask_metastore(metastore)

    def ask_metastore(self, url):
        arguments = self.cluster.pagestore.arguments
        arguments[arguments.index("--metastore") + 1] = url
        self.cluster.pagestore.stop()
        self.cluster.pagestore.start()

    def front(self, **answers):
        front = Front(self.cluster.metastore, **answers)
        self.addCleanup(front.close)
        return front

    def rereads(self):
        caller = wire.Caller(self.cluster.pagestore)
        value = caller.metrics().get("graft_catchup_rereads_total", 0)
        caller.close()
        return value

    def expect_lost(self, status, text):
        """The first segment's pages come with that error, naming segment and page; all others have their bytes."""
        for page, frame in self.read_all().items():
            if page > self.first:
                self.assertEqual(frame[15][0], self.source[(page - 1) * PAGE:page * PAGE], f"page {page}")
                continue
            self.assertEqual(frame[2][0], wire.PAGE_DAMAGED, f"page {page}")
            error = wire.decode(frame[7][0])
            message = error[3][0].decode()
            self.assertEqual(error[1][0], status, message)
            for part in (wire.gid_text(self.sids[0]), f"page {page} of {self.vid_text}", text):
                self.assertIn(part, message)

    def test_a_commit_that_still_names_it_means_damage_and_is_read_again_once(self):
        for first in (600, 100):  # its index alone; the whole segment
            self.make_volume(first=first)
            self.lose_segment()
            self.expect_lost(wire.CORRUPT, "though commit 1 names it")
            self.assertEqual(self.rereads(), 1)
            self.repair()
            self.assertEqual({frame[2][0] for frame in self.read_all().values()}, {wire.PAGE_STORED})

    def test_a_metastore_that_does_not_answer_is_no_damage(self):
        self.make_volume()
        self.lose_segment()
        self.cluster.metastore.stop()
        try:
            self.expect_lost(wire.UNAVAILABLE, "reading commit 1 again")
        finally:
            self.cluster.metastore.start()
        self.expect_lost(wire.CORRUPT, "though commit 1 names it")
        self.repair()

    def test_a_commit_that_is_retired_is_gone(self):
        self.make_volume()
        self.lose_segment(self.front(refusal=(410, wire.GONE, wire.RETIRED)).url())
        self.expect_lost(wire.GONE, "no longer kept")
        # To be gone is no damage: the check does not count such pages, it ends.
        self.graft("clone", self.vid_text, data="g")
        error = json.loads(self.graft("check", self.vid_text, "--json", data="g", code=1))["error"]
        self.assertEqual((error["status"], error["detail"]), ("GONE", "RETIRED"), error)

    def test_a_commit_that_names_another_segment_now_is_read_from_that_one(self):
        self.make_volume()
        # The same pages under another volume: what a rewritten commit could name.
        name = os.urandom(4).hex()
        copy = self.graft_text("import", self.write_file(name, self.source[:self.first * PAGE]), data="w-" + name)
        self.graft("push", copy, data="w-" + name)
        meta = wire.Caller(self.cluster.metastore)
        commits = meta.commits(wire.gid_bytes(copy), 1)
        meta.close()
        front = self.front(references={1: commits[0][11]})
        self.lose_segment(front.url())
        for _ in range(2):
            for page, frame in self.read_all().items():
                self.assertEqual(frame[2][0], wire.PAGE_STORED, f"page {page}")
                self.assertEqual(frame[15][0], self.source[(page - 1) * PAGE:page * PAGE], f"page {page}")
        self.assertEqual((front.asked, self.rereads()), ([1], 1))
        # The client takes them under their other owner, and the index remembers.
        self.ask_metastore(self.cluster.metastore.url())
        self.graft("clone", self.vid_text, data="m-" + name)
        self.assertEqual(self.graft("export", self.vid_text, "-", data="m-" + name), self.source)
        self.assertEqual(self.rereads(), 0)

    def test_a_commit_that_names_nothing_that_is_there_ends_with_damage(self):
        self.make_volume()
        reference = wire.decode(self.first_reference)
        lost = [wire.encode({**reference, 1: wire.gid(wire.SEGMENT)})]
        front = self.front(references={1: lost})
        self.lose_segment(front.url())
        found = self.read_all()
        self.assertEqual({frame[2][0] for page, frame in found.items() if page <= self.first}, {wire.PAGE_DAMAGED})
        self.assertEqual({frame[2][0] for page, frame in found.items() if page > self.first}, {wire.PAGE_STORED})
        self.assertLessEqual(len(front.asked), 2)
        # One that leaves the pages out is no better.
        front.references[1] = []
        self.assertEqual({frame[2][0] for page, frame in self.read_all().items() if page <= self.first},
                         {wire.PAGE_DAMAGED})


class RestoredTest(TellingTest):
    def restore_metastore(self, copy):
        self.cluster.metastore.stop()
        shutil.rmtree(self.folder / "metastore")
        shutil.copytree(copy, self.folder / "metastore")
        self.cluster.metastore.start()

    def test_a_metastore_from_an_older_copy_is_found_out(self):
        def put(data, count, letter, *vid):
            path = self.write_file("input", letter * PAGE * count)
            vid = self.graft_text("import", path, *vid, data=data) or vid[0]
            self.graft("push", vid, data=data)
            return vid

        vid_text = put("a", 20, b"a")
        vid = wire.gid_bytes(vid_text)
        self.cluster.metastore.stop()
        copy = self.folder / "older"
        shutil.copytree(self.folder / "metastore", copy)
        self.cluster.metastore.start()
        put("a", 30, b"b", vid_text)
        self.graft("clone", vid_text, data="b")
        self.assertEqual(self.graft("read", vid_text, 1, data="b"), b"b" * PAGE)
        meta, pages = wire.Caller(self.cluster.metastore), wire.Caller(self.cluster.pagestore)
        lost = meta.head(vid)
        self.assertEqual(lost[2], 2)

        self.restore_metastore(copy)
        # Whoever knows the lost commit is told; nothing of theirs changes.
        for command in ("pull", "sync"):
            told = self.refused(command, vid_text, data="b")["message"]
            self.assertIn("restored from an older copy", told, command)
        self.graft("import", self.write_file("more", b"c" * PAGE), vid_text, data="a")
        self.refused("push", vid_text, data="a")
        self.assertEqual(self.graft_json("status", vid_text, data="a")[0]["status"], "corrupt")
        self.assertEqual(meta.head(vid)[2], 1)
        self.assertEqual(self.graft("read", vid_text, 1, data="b"), b"b" * PAGE)

        # The history goes on another way, past where the pagestore's index and the others are.
        self.graft("clone", vid_text, data="c")
        for count, letter in ((25, b"d"), (20, b"e"), (40, b"f")):
            put("c", count, letter, vid_text)
            now = meta.head(vid)
            found = pages.read_pages(vid, now[2], now[4], page_set((1, count)))
            self.assertEqual({frame[2][0] for frame in found.values()}, {wire.PAGE_STORED})
            self.graft("clone", vid_text, data="d" + letter.decode())
            self.assertEqual(self.graft("export", vid_text, "-", data="d" + letter.decode()), letter * PAGE * count)
            # The lost snapshot is refused, not answered from the new history, as are its reader's missing pages.
            answer = pages.read_pages(vid, lost[2], lost[4], page_set((1, 30)))
            self.assertEqual((answer.code, answer.status, answer.detail), (500, wire.CORRUPT, wire.CHAIN_MISMATCH))
            self.refused("read", vid_text, 7, data="b")
            self.refused("pull", vid_text, data="b")
            self.assertEqual(self.graft("read", vid_text, 1, data="b"), b"b" * PAGE)
        self.assertGreaterEqual(pages.metrics().get("graft_index_dropped_total", 0), 1)
        # And back again to a copy that is older than what the index knows now.
        self.restore_metastore(copy)
        now = meta.head(vid)
        self.graft("clone", vid_text, data="e")
        self.assertEqual(self.graft("export", vid_text, "-", data="e"), b"a" * PAGE * 20)
        self.assertEqual(now[2], 1)


if __name__ == "__main__":
    cluster.main()
