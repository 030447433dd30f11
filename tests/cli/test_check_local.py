# SPDX-License-Identifier: Apache-2.0
"""graft check --local: what lies in a data directory is verified against its index, and every byte accounted for."""
import json
import os

import cluster

PAGE = 4096
PAGES = 700
RUN_MAGIC = b"GRFTRUN1"


class CheckLocalTest(cluster.GraftTest):
    def setUp(self):
        self.data = os.urandom(4).hex()
        self.source = os.urandom(PAGES * PAGE)
        self.vid = self.graft_text("import", self.write_file("source", self.source), data=self.data)

    def files(self, kind="pages", data=None):
        return sorted((self.folder / (data or self.data) / kind).glob("????????"))

    def check(self, code=0, data=None):
        answer = self.graft_json("check", "--local", data=data or self.data, code=code)
        count = answer["bytes"]
        self.assertEqual(count["size"], sum(count[part] for part in ("live", "dead", "headers", "unused", "free")))
        self.assertEqual(count["size"], sum(path.stat().st_size for kind in ("pages", "cache")
                                            for path in self.files(kind, data)))
        self.assertEqual(code != 0, bool(answer["damaged"]))
        return answer

    def find(self, content, kind="pages", data=None):
        for path in self.files(kind, data):
            at = path.read_bytes().find(content)
            if at >= 0:
                return path, at
        self.fail("the bytes are in no page file")

    def flip(self, path, at):
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x10]))

    def page(self, number):
        return self.source[(number - 1) * PAGE:number * PAGE]

    def test_a_sound_directory_is_sound(self):
        answer = self.check()
        self.assertEqual((answer["volumes"], answer["pages_checked"], answer["bytes"]["live"]), (1, PAGES, PAGES * PAGE))
        text = self.graft_text("check", "--local", data=self.data)
        self.assertIn("all sound", text)
        for number in range(1, 40):
            self.graft("write", self.vid, number, stdin=os.urandom(PAGE), data=self.data)
        answer = self.check()
        self.assertEqual((answer["pages_checked"], answer["bytes"]["live"]), (PAGES, PAGES * PAGE))
        self.assertGreaterEqual(answer["bytes"]["dead"] + answer["bytes"]["free"], 39 * PAGE)

    def test_a_flipped_bit_is_named_with_its_place(self):
        planted = {}
        for number in (1, 333, PAGES):
            path, at = self.find(self.page(number))
            self.flip(path, at + 1234)
            planted[number] = (str(path), at)
        answer = self.check(code=1)
        found = {entry["pageidx"]: (entry["file"], entry["offset"]) for entry in answer["damaged"]}
        self.assertEqual(found, planted)
        for entry in answer["damaged"]:
            self.assertEqual((entry["vid"], entry["fetchable"]), (self.vid, False))
            self.assertIn(f"page {entry['pageidx']}", entry["message"])
            self.assertIn(entry["file"], entry["message"])
        text = self.graft_text("check", "--local", data=self.data, code=1)
        self.assertIn("with damage", text)
        self.assertEqual(len(text.splitlines()), len(planted) + 2)
        # The others can be read, these say what they are.
        self.assertEqual(self.graft("read", self.vid, 2, data=self.data), self.page(2))
        error = json.loads(self.graft("read", self.vid, 333, "--json", data=self.data, code=1))["error"]
        self.assertEqual(error["status"], "CORRUPT")

    def test_a_damaged_header_loses_no_page(self):
        path = self.files()[0]
        content = path.read_bytes()
        at = content.index(RUN_MAGIC)
        self.flip(path, at + 40)
        answer = self.check(code=1)
        self.assertEqual([(entry["vid"], entry["file"], entry["offset"]) for entry in answer["damaged"]][:1],
                         [(None, str(path), at)])
        self.assertGreater(answer["unnamed"], 0)
        self.assertEqual(self.graft("export", self.vid, "-", data=self.data), self.source)

    def test_a_pushed_page_is_fetched_again(self):
        self.graft("push", self.vid, data=self.data)
        path, at = self.find(self.page(77))
        self.flip(path, at)
        (entry,) = self.check(code=1)["damaged"]
        self.assertEqual((entry["pageidx"], entry["fetchable"]), (77, True))
        self.assertEqual(self.graft("read", self.vid, 77, data=self.data), self.page(77))
        self.check()

    def test_fetched_pages_are_verified_as_well(self):
        self.graft("push", self.vid, data=self.data)
        other = self.data + "-b"
        self.graft("clone", self.vid, data=other)
        self.assertEqual(self.graft("export", self.vid, "-", data=other), self.source)
        answer = self.check(data=other)
        self.assertEqual((answer["pages_checked"], answer["fetched_checked"]), (0, PAGES))
        path, at = self.find(self.page(5), "cache", other)
        self.flip(path, at + PAGE - 1)
        (entry,) = self.check(code=1, data=other)["damaged"]
        self.assertEqual((entry["pageidx"], entry["file"], entry["offset"], entry["fetchable"]), (5, str(path), at, True))
        self.assertEqual(self.graft("read", self.vid, 5, data=other), self.page(5))
        self.check(data=other)

    def test_a_missing_file_is_told_at_the_opening(self):
        path = self.files()[-1]
        os.rename(path, self.folder / "away")
        error = json.loads(self.graft("check", "--local", "--json", data=self.data, code=1))["error"]
        self.assertEqual(error["status"], "CORRUPT")
        self.assertIn(path.name, error["message"])
        os.rename(self.folder / "away", path)
        self.check()

    def test_needs_no_server(self):
        nowhere = {"GRAFT_METASTORE": "http://127.0.0.1:1", "GRAFT_PAGESTORE": "http://127.0.0.1:1"}
        self.graft("check", "--local", data=self.data, env=nowhere)

    def test_either_a_volume_or_the_directory(self):
        self.graft("check", data=self.data, code=2)
        self.graft("check", "--local", self.vid, data=self.data, code=2)
        self.graft("check", "--local", "--lsn", 1, data=self.data, code=2)


if __name__ == "__main__":
    cluster.main()
