# SPDX-License-Identifier: Apache-2.0
"""graft-metastore --backup and restore: consistent under writers, brought back as another history, cut off anywhere."""
import json
import os
import select
import shutil
import subprocess
import threading

import cluster
import wire
from wire import page_set

PAGE = 4096
PROGRAM = cluster.BUILD / "metastore" / "graft-metastore"


def chain_of(commit):
    return commit[12][0]


class Writer(threading.Thread):
    """Commits without pages to one volume, one after the other; notes what was acknowledged."""

    def __init__(self, daemon, vid):
        super().__init__()
        self.caller, self.vid = wire.Caller(daemon), vid
        self.acknowledged = []  # (LSN, chain)
        self.first, self.stopping = threading.Event(), threading.Event()

    def run(self):
        head = self.caller.head(self.vid)
        while not self.stopping.is_set():
            count = head.get(3, 0)
            answer = self.caller.post("commit", {1: self.vid, 2: head.get(2, 0), 3: head.get(4) or bytes(16), 4: os.urandom(16),
                                                 5: os.urandom(16), 6: wire.gid(0x83), 7: count, 8: count})
            assert answer.code == 200, answer.text
            head = {number: values[0] for number, values in wire.decode(answer.message[1][0]).items()}
            self.acknowledged.append((head[2], head[4]))
            self.first.set()
        self.caller.close()

    def stop(self):
        self.stopping.set()
        self.join()


class BackupTest(cluster.GraftTest):
    def run_program(self, *arguments, code=0):
        result = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, timeout=120)
        self.assertEqual(result.returncode, code, result.stderr.decode() + self.cluster.metastore.log())
        self.said = result.stderr.decode()
        return result.stdout.decode()

    def back_up(self, name, code=0, store=None, listen=None):
        self.run_program("--backup", self.folder / name, "--store", store or self.cluster.metastore.arguments[1],
                         "--listen", listen or self.cluster.metastore.addresses["listen"], code=code)
        return self.folder / name

    def restore(self, backup, name, code=0):
        return self.run_program("restore", "--from", backup, "--store", f"rocksdb:{self.folder / name}", code=code)

    def serve(self, name):
        """The metastore starts on another store, at the same address."""
        self.cluster.metastore.stop()
        self.cluster.metastore.arguments[1] = f"rocksdb:{self.folder / name}"
        self.cluster.metastore.start()

    def new_volume(self, meta):
        vid = wire.gid(wire.VOLUME)
        answer = meta.post("create_volume", {1: vid, 2: PAGE, 3: 1})
        self.assertEqual(answer.code, 200, answer.text)
        return vid

    def import_and_push(self, data, content, vid=None):
        path = self.write_file(f"{data}.bin", content)
        text = self.graft_text("import", path, *([vid] if vid else []), data=data) or vid
        self.graft("push", text, data=data)
        return text

    def refused(self, *arguments, data):
        error = json.loads(self.graft(*arguments, "--json", data=data, code=1))["error"]
        self.assertEqual((error["status"], error["detail"]), ("CORRUPT", "CHAIN_MISMATCH"), error)
        return error["message"]

    def expect_prefix_and_void(self, meta, writer, must_have):
        """The volume's log is the writer's up to some LSN, `must_have` at least, and one commit without pages on top."""
        commits = meta.commits(writer.vid, 1)
        kept = [(commit[2][0], chain_of(commit)) for commit in commits[:-1]]
        self.assertGreaterEqual(len(kept), must_have)
        self.assertEqual(kept, writer.acknowledged[:len(kept)])
        last = commits[-1]
        self.assertNotIn(11, last)
        self.assertNotIn((last[2][0], chain_of(last)), writer.acknowledged)
        return len(kept)

    def test_a_backup_under_writers_is_brought_back_as_another_history(self):
        contents = [os.urandom(40 * PAGE), os.urandom(50 * PAGE), os.urandom(30 * PAGE)]
        kept = self.import_and_push("a", contents[0])
        gone = self.import_and_push("gone", contents[1])
        self.graft("volume", "delete", gone, "--remote", data="gone")
        meta, pages = wire.Caller(self.cluster.metastore), wire.Caller(self.cluster.pagestore)
        writers = [Writer(self.cluster.metastore, self.new_volume(meta)) for _ in range(6)]
        quiet = self.new_volume(meta)
        for writer in writers:
            writer.start()
            self.assertTrue(writer.first.wait(30))
        before = [len(writer.acknowledged) for writer in writers]
        backup = self.back_up("under-writers")
        after = [len(writer.acknowledged) for writer in writers]
        self.assertTrue(all(late > early for early, late in zip(before, after)), "nobody wrote meanwhile")
        # What comes after the backup is lost with the store.
        self.import_and_push("a", contents[1], kept)
        self.graft("clone", kept, data="b")
        self.assertEqual(self.graft("read", kept, 1, data="b"), contents[1][:PAGE])
        lost = meta.head(wire.gid_bytes(kept))
        self.import_and_push("a", contents[2], kept)
        younger = self.import_and_push("younger", contents[0])
        for writer in writers:
            writer.stop()

        self.assertIn("8 volumes, and 1 that were deleted", self.restore(backup, "restored"))
        self.serve("restored")
        meta.close()
        for writer, must_have in zip(writers, before):
            self.expect_prefix_and_void(meta, writer, must_have)
        self.assertEqual(meta.head(quiet)[2], 1)
        self.assertNotIn(gone, self.graft_text("volume", "list", "--remote"))
        self.graft("clone", younger, data="late", code=1)
        # One client is at the LSN of the void commit, one beyond it: both are told what happened and what to do.
        now = meta.head(wire.gid_bytes(kept))
        self.assertEqual((lost[2], now[2]), (2, 2))
        self.assertNotEqual(lost[4], now[4])
        for data in ("b", "a"):
            told = self.refused("pull", kept, data=data)
            self.assertIn("restored from an older copy", told)
            self.assertIn("reset --reattach", told)
            self.assertEqual(self.graft_json("status", kept, data=data)[0]["status"], "corrupt")
        # The pagestore serves the new history, and the lost one no more; the volume goes on.
        self.graft("clone", kept, data="c")
        self.assertEqual(self.graft("export", kept, "-", data="c"), contents[0])
        answer = pages.read_pages(wire.gid_bytes(kept), lost[2], lost[4], page_set((1, 50)))
        self.assertEqual((answer.status, answer.detail), (wire.CORRUPT, wire.CHAIN_MISMATCH), answer.text)
        self.assertEqual(self.graft("read", kept, 1, data="b"), contents[1][:PAGE])  # as it was
        self.import_and_push("c", contents[2] + contents[0], kept)
        self.graft("clone", kept, data="d")
        self.assertEqual(self.graft("export", kept, "-", data="d"), contents[2] + contents[0])
        self.graft("reset", kept, "--reattach", data="b")
        self.assertEqual(self.graft("export", kept, "-", data="b"), contents[2] + contents[0])
        self.graft("check", kept, data="c")
        self.assertGreaterEqual(pages.metrics().get("graft_index_dropped_total", 0), 1)
        meta.close()
        pages.close()
        # The backup is still what it was, and of the stopped store one can be made, too.
        self.assertIn("8 volumes", self.restore(backup, "again"))
        self.cluster.metastore.stop()
        offline = self.back_up("offline", store=f"rocksdb:{self.folder}/restored")
        self.assertIn("8 volumes", self.restore(offline, "offline-restored"))
        self.serve_stopped("offline-restored")
        meta = wire.Caller(self.cluster.metastore)
        self.assertEqual(meta.head(wire.gid_bytes(kept))[2], 4)
        meta.close()

    def serve_stopped(self, name):
        self.cluster.metastore.arguments[1] = f"rocksdb:{self.folder / name}"
        self.cluster.metastore.start()

    def test_a_restore_that_is_cut_off_goes_on(self):
        meta = wire.Caller(self.cluster.metastore)
        vids = [self.new_volume(meta) for _ in range(3000)]
        ended = vids.pop()
        meta.post("delete_volume", {1: ended, 2: os.urandom(16)})
        heads = {vid: meta.head(vid).get(2, 0) for vid in vids[:50]}
        backup = self.back_up("cut-off")
        total = int(self.restore(backup, "whole").split(": ")[1].split()[0])
        self.assertGreaterEqual(total, len(vids))
        cut_off = 0
        for steps, pause in ((1, 0), (2, 0), (2, 0.02), (2, 0.1), (2, 0.2)):
            with self.subTest(steps=steps, pause=pause):
                shutil.rmtree(self.folder / "cut", ignore_errors=True)
                if not self.kill_restore(backup, steps, pause):
                    continue  # it was faster
                cut_off += 1
                done = int(self.restore(backup, "cut").split(": ")[1].split()[0])
                self.assertEqual(done, total)
        self.assertGreaterEqual(cut_off, 3)
        self.serve("cut")
        meta.close()
        for vid, lsn in heads.items():
            self.assertEqual(meta.head(vid)[2], lsn + 1)  # exactly one more
        meta.close()

    def kill_restore(self, backup, steps, pause):
        """Kills a restore once its file of progress was written `steps` times, and `pause` s later. True: it was cut off."""
        folder = self.folder / "cut"
        folder.mkdir()
        watch = cluster.LIBC.inotify_init1(os.O_CLOEXEC)
        cluster.LIBC.inotify_add_watch(watch, bytes(folder), cluster.IN_MOVED_TO)
        process = subprocess.Popen([PROGRAM, "restore", "--from", backup, "--store", f"rocksdb:{folder}"],
                                   stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        pidfd = os.pidfd_open(process.pid)
        poller = select.poll()
        poller.register(watch, select.POLLIN)
        poller.register(pidfd, select.POLLIN)
        seen = 0
        while seen < steps and not any(fd == pidfd for fd, _ in poller.poll(30_000)):
            seen += os.read(watch, 4096).count(b"RESTORE\0")
        select.select([pidfd], [], [], pause)
        process.kill()
        process.communicate()
        os.close(watch)
        os.close(pidfd)
        cut_off = (folder / "RESTORE").exists()
        if cut_off:
            self.assertIn("cut off", self.start_fails(folder))
        return cut_off

    def start_fails(self, store):
        (self.folder / "other.key").touch(mode=0o600)
        (self.folder / "other.key").write_text("00" * 32)
        result = subprocess.run([PROGRAM, "--store", f"rocksdb:{store}", "--cluster-key", self.folder / "other.key",
                                 "--listen", "127.0.0.1:0", "--watch-listen", "127.0.0.1:0"], capture_output=True,
                                timeout=60)
        self.assertEqual(result.returncode, 1)
        return result.stderr.decode()

    def test_what_makes_no_backup_or_restore_is_refused(self):
        backup = self.back_up("fine")
        self.assertIn("restore --from", self.start_fails(backup))
        self.back_up("fine", code=1)
        self.assertIn("not empty", self.said)
        self.back_up("none", store=f"rocksdb:{self.folder}/nothing", code=1)
        self.assertFalse((self.folder / "nothing").exists())
        self.back_up("none", store=f"fs:{self.folder}/segments", code=1)
        self.assertIn("rocksdb:DIR", self.said)
        self.back_up("none", listen="127.0.0.1:1", code=1)
        self.assertIn("--listen", self.said)
        self.assertFalse((self.folder / "none").exists())
        self.run_program("--backup", self.folder / "none", code=2)
        self.run_program("restore", "--store", f"rocksdb:{self.folder}/x", code=2)
        self.run_program("--from", backup, "--store", f"rocksdb:{self.folder}/x", code=2)
        self.run_program("backwards", "--store", f"rocksdb:{self.folder}/x", code=2)
        self.restore(self.folder / "segments", "x", code=1)
        self.assertIn("is no backup", self.said)
        self.restore(backup, "cache", code=1)  # somebody else's folder
        self.assertIn("not empty", self.said)
        # Checkpoints that nobody takes away do not pile up.
        meta = wire.Caller(self.cluster.metastore)
        store = self.cluster.metastore.arguments[1].split(":", 1)[1]
        for _ in range(6):
            self.assertEqual(meta.post("backup", {}).code, 200)
        self.assertLessEqual(len(os.listdir(os.path.join(store, "backups"))), 3)
        meta.close()


if __name__ == "__main__":
    cluster.main()
