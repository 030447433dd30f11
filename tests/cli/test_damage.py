# SPDX-License-Identifier: Apache-2.0
"""Segments that are damaged, and a metastore that was restored from an older copy: reported with what and where, never
other bytes."""
import json
import os
import shutil

import cluster
import wire
from wire import page_set

PAGE = 4096
FOOTER = 64


class TellingTest(cluster.GraftTest):
    def refused(self, *arguments, data):
        """The command fails with CORRUPT; its message and detail."""
        error = json.loads(self.graft(*arguments, "--json", data=data, code=1))["error"]
        self.assertEqual(error["status"], "CORRUPT", error)
        return error


class DamageTest(TellingTest):
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
        self.sids = [wire.decode(commit[11][0])[1][0] for commit in meta.commits(self.vid, 1)]
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
