# SPDX-License-Identifier: Apache-2.0
"""The disk that loses power itself (layer.h): what is synced stays, what is not is lost, torn or kept, in ways that programs
which sync too little, too late or in the wrong order meet within some losses.
"""
import pathlib
import shutil
import sys
import tempfile
import unittest

import cluster
import powerloss

SETTINGS = powerloss.Settings(0, seed=1)  # the same each time: what is asked for here is a matter of chance
SEEDS = 60
BEGIN = """
import os, sys
at = sys.argv[1]
def create(name): return os.open(at + "/" + name, os.O_RDWR | os.O_CREAT, 0o600)
def sync_folder():
    fd = os.open(at, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)
"""
OLD, NEW = b"o" * 4096, b"n" * 4096


class LayerTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="graft-powerloss-")
        self.addCleanup(temporary.cleanup)
        self.root = pathlib.Path(temporary.name) / "disk"

    def lose(self, program, seed, **options):
        """Runs a program on an empty disk until the power fails, at its end unless `options` say otherwise."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        lines, loss, code, err = powerloss.run([sys.executable, "-S", "-c", BEGIN + program, self.root], self.root,
                                               SETTINGS.seed + seed, **options)
        self.assertIsNotNone(loss, f"ended with {code}: {err}")
        return lines, loss

    def read(self, name):
        path = self.root / name
        return path.read_bytes() if path.exists() else None

    def outcomes(self, program, look, **options):
        found = []
        for seed in range(SEEDS):
            self.lose(program, seed, **options)
            found.append(look())
        return found

    def test_what_is_synced_survives(self):
        program = """
fd = create("file")
os.write(fd, b"o" * 3000)
os.pwrite(fd, b"n" * 3000, 1000)
os.fsync(fd)
sync_folder()
"""
        self.assertEqual(set(self.outcomes(program, lambda: self.read("file"))), {b"o" * 1000 + b"n" * 3000})

    def test_what_is_not_synced_is_torn_at_sectors(self):
        program = """
fd = create("file")
os.write(fd, b"o" * 4096)
os.fdatasync(fd)
sync_folder()
os.pwrite(fd, b"n" * 4096, 0)
"""
        found = self.outcomes(program, lambda: self.read("file"))
        for data in found:
            self.assertEqual(len(data), 4096)
            for at in range(0, 4096, 512):
                self.assertIn(data[at:at + 512], (OLD[:512], NEW[:512]))
        self.assertIn(OLD, found)
        self.assertIn(NEW, found)
        self.assertGreater(len(set(found)), 5)

    def test_sizes_that_are_not_synced_vary(self):
        program = """
fd = create("file")
os.write(fd, b"o" * 700)
os.fsync(fd)
sync_folder()
os.write(fd, b"n" * 2000)
os.ftruncate(fd, 100)
"""
        found = self.outcomes(program, lambda: self.read("file"))
        sizes = {len(data) for data in found}
        self.assertLessEqual({100, 700, 2700}, sizes)
        self.assertGreater(len(sizes), 3)
        for data in found:
            self.assertLessEqual(set(data), set(b"on\0"))

    def test_a_name_needs_its_folder_synced(self):
        program = """
fd = create("file")
os.write(fd, b"o" * 4096)
os.fsync(fd)
"""
        self.assertEqual(set(self.outcomes(program, lambda: self.read("file"))), {None, OLD})

    def test_a_rename_is_dropped_or_whole(self):
        program = """
for name, letter in (("file", b"o"), ("file.new", b"n")):
    fd = create(name)
    os.write(fd, letter * 4096)
    os.fsync(fd)
sync_folder()
os.rename(at + "/file.new", at + "/file")
"""
        found = self.outcomes(program, lambda: (self.read("file"), self.read("file.new")))
        self.assertEqual(set(found), {(OLD, NEW), (NEW, None)})

    def test_names_of_a_folder_come_in_their_order(self):
        program = """
for name in "abcd":
    os.close(create(name))
os.unlink(at + "/a")
os.mkdir(at + "/folder")
os.rename(at + "/b", at + "/folder/b")
"""
        states = [set(), {"a"}, {"a", "b"}, {"a", "b", "c"}, {"a", "b", "c", "d"}, {"b", "c", "d"}, {"b", "c", "d", "folder"},
                  {"c", "d", "folder", "folder/b"}]
        found = self.outcomes(program, lambda: {str(path.relative_to(self.root)) for path in self.root.rglob("*")})
        for names in found:
            self.assertIn(names, states)
        self.assertGreater(len(set(map(frozenset, found))), 4)

    def test_what_a_failed_sync_was_to_write_stays_unsure(self):
        program = """
fd = create("file")
sync_folder()
os.write(fd, b"o" * 4096)
try:
    os.fsync(fd)
    print("the sync did not fail")
except OSError:
    os.fsync(fd)
"""
        found = self.outcomes(program, lambda: self.read("file"), fail_sync=1)
        self.assertIn(OLD, found)
        self.assertTrue(any(data != OLD for data in found))

    def test_the_same_seed_loses_the_same(self):
        program = """
for name in "abcdef":
    fd = create(name)
    for i in range(5):
        os.write(fd, b"o" * 1500)
"""
        def look():
            return [(path.name, path.read_bytes()) for path in sorted(self.root.iterdir())]
        first = []
        for seed in range(10):
            self.lose(program, seed, at=20)
            first.append(look())
        self.assertGreater(len({str(state) for state in first}), 3)
        for seed in range(10):
            self.lose(program, seed, at=20)
            self.assertEqual(look(), first[seed])

    def log_writer(self, acknowledge_first):
        """Losses until a record that was acknowledged is missing; None: none is."""
        steps = ["os.fdatasync(fd)", "print(i, flush=True)"]
        first, second = reversed(steps) if acknowledge_first else steps
        program = f"""
fd = create("log")
sync_folder()
for i in range(1, 100):
    os.write(fd, bytes([i]) * 300)
    {first}
    {second}
"""
        for seed in range(SEEDS):
            lines, _ = self.lose(program, seed, at=5 + seed % 40)
            acknowledged = int(lines[-1]) if lines else 0
            expected = b"".join(bytes([i]) * 300 for i in range(1, acknowledged + 1))
            if not self.read("log").startswith(expected):
                return seed + 1
        return None

    def test_a_writer_that_acknowledges_before_it_syncs_is_caught(self):
        self.assertIsNone(self.log_writer(acknowledge_first=False))
        caught = self.log_writer(acknowledge_first=True)
        self.assertIsNotNone(caught)
        print(f"# caught after {caught} losses", flush=True)

    def test_what_cannot_be_modelled_is_refused(self):
        program = """
import mmap
fd = create("file")
os.ftruncate(fd, 4096)
mmap.mmap(fd, 4096)
"""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        _, loss, code, err = powerloss.run([sys.executable, "-c", BEGIN + program, self.root], self.root, 1)
        self.assertIsNone(loss)
        self.assertEqual(code, -6)
        self.assertIn("a shared mapping for writing", err)


if __name__ == "__main__":
    cluster.main()
