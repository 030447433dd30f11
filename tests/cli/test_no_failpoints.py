#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is shipped holds no failpoint: no symbol, no name, no setting."""
import re
import subprocess
import sys
import unittest

import cluster

BINARIES = [cluster.CLI, cluster.BUILD / "metastore/graft-metastore", cluster.BUILD / "pagestore/graft-pagestore",
            cluster.BUILD / "client/libgraft.so"]
# "push.begin.before" and the like, from the sources themselves.
SOURCES = cluster.pathlib.Path(__file__).resolve().parents[2]
NAMES = {name for folder in ("client", "common", "metastore", "pagestore") for path in (SOURCES / folder).rglob("*.c")
         for name in re.findall(r'FAILPOINT(?:_ERROR)?\("([^"]+)"', path.read_text())}


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class NoFailpoints(unittest.TestCase):
    def test_there_are_some_to_look_for(self):
        self.assertGreaterEqual(len(NAMES), 60)

    def test_no_binary_has_a_trace_of_them(self):
        for binary in BINARIES:
            self.assertNotIn("failpoint", output_of("nm", binary).lower(), binary)
            strings = set(output_of("strings", "--data", "--bytes=6", binary).splitlines())
            self.assertEqual(strings & NAMES, set(), binary)
            self.assertFalse([text for text in strings if "FAILPOINT" in text], binary)

    def test_the_setting_means_nothing(self):
        result = subprocess.run([cluster.CLI, "--version"], env={"GRAFT_FAILPOINTS": "malformed"}, capture_output=True)
        self.assertEqual(result.returncode, 0, result.stderr)


if __name__ == "__main__":
    sys.exit(cluster.main())
