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
import urllib.parse

import cluster

HERE = pathlib.Path(__file__).parent
RUNNER = cluster.BUILD / "tests" / "sql" / "sql_script"
EXTENSION = cluster.BUILD / "sqlite" / "graft_sqlite"
URL = re.compile(r"http://127\.0\.0\.1:\d+")
VID = re.compile(r"\b[1-9A-HJ-NP-Za-km-z]{22}\b")


class Sql(cluster.GraftTest):
    maxDiff = None

    def uri(self, name, data):
        parameters = {"vfs": "graft", "stubs": 1, "data": data, "metastore": self.cluster.metastore.url(),
                      "pagestore": self.cluster.pagestore.url()}
        return f"file:{name}?{urllib.parse.urlencode(parameters)}"

    def run_script(self, text, values, volumes=True, tmp=None):
        command = [RUNNER, *(["--load", EXTENSION] if volumes else []), *(f"{k}={v}" for k, v in values.items())]
        result = subprocess.run(command, input=text, text=True, capture_output=True, timeout=200, cwd=tmp,
                                env=self.cluster.environment("unused"))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout

    def on_volumes(self, script):
        with tempfile.TemporaryDirectory(dir=self.folder) as tmp:
            data = f"{tmp}/data"
            values = {"a": self.uri(f"{tmp}/a.db", data), "b": self.uri(f"{tmp}/b.db", data),
                      "replica": self.uri(f"{tmp}/a.db", f"{tmp}/replica"), "data": data, "tmp": tmp,
                      "random": self.uri("random", data), "main": self.uri("main", data), "graft": str(cluster.CLI)}
            out = self.run_script(script.read_text(), values, tmp=tmp)
            return URL.sub("URL", VID.sub("VID", out.replace(tmp, "TMP")))

    def on_native(self, script):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
            return self.run_script(script.read_text(), {"a": f"file:{tmp}/a.db", "b": f"file:{tmp}/b.db", "tmp": tmp},
                                   volumes=False, tmp=tmp)


def add_test(script, native):
    expected = script.with_suffix(".out")

    def test(self):
        out = self.on_volumes(script)
        if os.environ.get("SQL_ACCEPT"):  # writes what is printed as what is expected: to be read before it is committed
            expected.write_text(out)
        if native:
            self.assertEqual(self.on_native(script), expected.read_text(), "native SQLite")
        self.assertEqual(out, expected.read_text(), "on volumes")

    setattr(Sql, f"test_{script.parent.name}_{script.stem}", test)


for path in sorted(HERE.glob("*/*.sql")):
    add_test(path, path.parent.name == "same")

if __name__ == "__main__":
    cluster.main()
