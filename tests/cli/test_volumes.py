# SPDX-License-Identifier: Apache-2.0
"""volume create, list and delete; status; --help everywhere."""
import re

import cluster


class Volumes(cluster.GraftTest):
    def test_create_prints_the_vid_alone(self):
        vid = self.graft("volume", "create").decode()
        self.assertRegex(vid, r"^[1-9A-HJ-NP-Za-km-z]{22}\n$")

    def test_create_takes_sizes_and_kinds(self):
        answer = self.graft_json("volume", "create", "--page-size", "64K", "--variable")
        self.assertEqual((answer["page_size"], answer["kind"]), (65536, "variable"))
        self.graft("volume", "create", "--page-size", "5000", code=1)
        self.assertIn("power of two", self.stderr)
        self.graft("volume", "create", "--page-size", "128", code=2)
        self.assertIn("page-size", self.stderr)

    def test_list_shows_what_is_here(self):
        vids = {self.graft_text("volume", "create", data="list") for _ in range(3)}
        self.assertEqual(set(self.graft_text("volume", "list", data="list").split()), vids)
        self.assertEqual({row["vid"] for row in self.graft_json("volume", "list", data="list")}, vids)

    def test_list_remote_shows_what_was_pushed(self):
        vid = self.graft_text("volume", "create")
        self.assertNotIn(vid, self.graft_text("volume", "list", "--remote"))
        self.graft("write", vid, 1, stdin=b"x" * 4096)
        self.graft("push", vid)
        rows = {row["vid"]: row for row in self.graft_json("volume", "list", "--remote")}
        self.assertEqual((rows[vid]["lsn"], rows[vid]["page_count"]), (1, 1))

    def test_delete_forgets_the_replica_only(self):
        vid = self.graft_text("volume", "create", data="delete")
        self.graft("write", vid, 1, stdin=b"y" * 4096, data="delete")
        self.graft("push", vid, data="delete")
        self.graft("volume", "delete", vid, data="delete")
        self.graft("status", vid, data="delete", code=1)
        self.graft("clone", vid, data="delete")
        self.assertEqual(self.graft("read", vid, 1, data="delete"), b"y" * 4096)

    def test_delete_remote_ends_the_volume(self):
        vid = self.graft_text("volume", "create", data="end")
        self.graft("write", vid, 1, stdin=b"z" * 4096, data="end")
        self.graft("push", vid, data="end")
        self.graft("volume", "delete", vid, "--remote", data="end")
        self.assertNotIn(vid, self.graft_text("volume", "list", "--remote", data="end"))
        self.graft("clone", vid, data="other", code=1)
        self.assertIn("deleted", self.stderr)
        self.graft("write", vid, 2, stdin=b"z" * 4096, data="end")
        self.graft("push", vid, data="end", code=1)

    def test_status_has_the_keys_that_programs_read(self):
        vid = self.graft_text("volume", "create", data="status")
        self.graft("write", vid, 3, stdin=b"s" * 4096, data="status")
        rows = self.graft_json("status", data="status")
        self.assertIsInstance(rows, list)
        row = rows[0]
        for key in ("vid page_size page_count local_lsn remote_lsn pending_commits status pages_available "
                    "pages_pending fetch").split():
            self.assertIn(key, row)
        self.assertEqual(set(row["fetch"]), {"requests", "pages", "bytes"})
        self.assertEqual((row["page_count"], row["local_lsn"], row["pending_commits"], row["status"]), (3, 1, 1, "ok"))
        self.assertEqual((row["pages_available"], row["pages_pending"]), (1, 0))

    def test_every_command_explains_itself(self):
        overview = self.graft_text("--help")
        commands = re.findall(r"^  ((?:volume|segment) \w+|[a-z]+) ", overview.split("Commands:")[1], re.M)
        self.assertEqual(len(commands), 20)
        for command in commands:
            with self.subTest(command):
                text = self.graft_text(*command.split(), "--help")
                self.assertIn(f"graft {command}", text)
                self.assertIn("--json", text)

    def test_version(self):
        self.assertRegex(self.graft_text("--version"), r"^graft \d+\.\d+\.\d+$")


if __name__ == "__main__":
    cluster.main()
