# SPDX-License-Identifier: Apache-2.0
"""Scripts of SQL with what they must print.

same/NAME.sql runs on native SQLite and on volumes, and gives NAME.out on both. graft/NAME.sql is about what only volumes do.
A script's values: ${a}, ${b}: URIs of two new databases, by stub files that their first opening makes; ${replica}: a, from
another data directory; ${random}, ${main}: URIs of those names; ${data}: the data directory; ${graft}: the command line, with
both daemons in its environment; ${tmp}: a folder of the script's own.
"""
import os
import pathlib
import re
import subprocess
import tempfile

import cluster
import sqlite_volume

HERE = pathlib.Path(__file__).parent
RUNNER = cluster.BUILD / "tests" / "sql" / "sql_script"
URL = re.compile(r"http://127\.0\.0\.1:\d+")
VID = re.compile(r"\b[1-9A-HJ-NP-Za-km-z]{22}\b")


class Sql(sqlite_volume.VolumeTest):
    maxDiff = None

    def run_script(self, text, values, volumes=True, tmp=None):
        command = [RUNNER, *(["--load", sqlite_volume.EXTENSION] if volumes else []), *(f"{k}={v}" for k, v in values.items())]
        result = subprocess.run(command, input=text, text=True, capture_output=True, timeout=200, cwd=tmp,
                                env=self.cluster.environment("unused"))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout

    def on_volumes(self, text):
        with tempfile.TemporaryDirectory(dir=self.folder) as tmp:
            data = f"{tmp}/data"
            values = {"a": self.uri(f"{tmp}/a.db", data, stubs=1), "b": self.uri(f"{tmp}/b.db", data, stubs=1),
                      "replica": self.uri(f"{tmp}/a.db", f"{tmp}/replica"), "data": data, "tmp": tmp,
                      "random": self.uri("random", data), "main": self.uri("main", data), "graft": str(cluster.CLI)}
            out = self.run_script(text, values, tmp=tmp)
            return URL.sub("URL", VID.sub("VID", out.replace(tmp, "TMP")))

    def on_native(self, text):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
            return self.run_script(text, {"a": f"file:{tmp}/a.db", "b": f"file:{tmp}/b.db", "tmp": tmp},
                                   volumes=False, tmp=tmp)


def add_test(script, name, journal):
    expected = script.with_suffix(".out")

    def test(self):
        text = script.read_text().replace("${journal}", journal)
        out = self.on_volumes(text)
        if os.environ.get("SQL_ACCEPT"):  # writes what is printed as what is expected: to be read before it is committed
            expected.write_text(out)
        wanted = expected.read_text().replace("${journal}", journal)
        if script.parent.name == "same":
            self.assertEqual(self.on_native(text), wanted, "native SQLite")
        self.assertEqual(out, wanted, "on volumes")

    setattr(Sql, f"test_{script.parent.name}_{name}", test)


for path in sorted(HERE.glob("*/*.sql")):
    by_mode = "${journal}" in path.read_text()  # such a script runs in each journal mode
    for mode in ("delete", "truncate", "persist", "memory") if by_mode else ("",):
        add_test(path, path.stem + (f"_{mode}" if mode else ""), mode)

if __name__ == "__main__":
    cluster.main()
