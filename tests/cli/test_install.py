# SPDX-License-Identifier: Apache-2.0
"""What `meson install` puts where, and that a program from the documentation builds against it and runs."""
import os
import pathlib
import subprocess
import unittest

import cluster

SOURCE = pathlib.Path(__file__).resolve().parents[2]


class Install(cluster.GraftTest):
    @classmethod
    def setUpClass(cls):
        if os.environ["GRAFT_SANITIZE"] != "none":
            raise unittest.SkipTest("a build for a sanitizer is not for installing")
        super().setUpClass()
        cls.root = cls.folder / "root"
        subprocess.run(["meson", "install", "-C", str(cluster.BUILD), "--no-rebuild", "--quiet", "--destdir",
                        str(cls.root)], check=True, stdout=subprocess.DEVNULL)
        cls.prefix = cls.root / "usr/local"

    def find(self, name):
        found = [path for path in self.root.rglob(name)]
        self.assertEqual(len(found), 1, name)
        return found[0]

    def test_everything_is_where_it_belongs(self):
        for path in ("bin/graft", "bin/graft-metastore", "bin/graft-pagestore", "include/graft.h",
                     "include/graft_status.h", "share/man/man1/graft.1", "share/man/man8/graft-metastore.8",
                     "share/man/man8/graft-pagestore.8", "share/doc/graft/examples/metastore.conf",
                     "lib/systemd/system/graft-metastore.service"):
            self.assertTrue((self.prefix / path).is_file(), path)
        for name in ("libgraft.so.0", "graft.pc"):
            self.find(name)

    def test_the_library_exports_its_api_and_nothing_else(self):
        symbols = subprocess.run(["nm", "-D", "--defined-only", self.find("libgraft.so.0")], check=True,
                                 capture_output=True, text=True).stdout.split("\n")
        names = {line.split()[-1].split("@")[0] for line in symbols if line}
        self.assertTrue(all(name.startswith("graft_") or name.startswith("GRAFT") for name in names), names)
        header = (self.prefix / "include/graft.h").read_text()
        for name in names - {name for name in names if name.startswith("GRAFT")}:
            self.assertIn(name + "(", header)

    def test_the_example_of_the_documentation_runs(self):
        library = self.find("libgraft.so.0").parent
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "graft"], check=True, capture_output=True, text=True,
                               env={**os.environ, "PKG_CONFIG_PATH": str(library / "pkgconfig"),
                                    "PKG_CONFIG_SYSROOT_DIR": str(self.root)}).stdout.split()
        program = self.folder / "example"
        subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE / "docs/example.c", *flags],
                       check=True)
        result = subprocess.run([program, self.folder / "example-data"], capture_output=True, text=True,
                                env={**self.cluster.environment("a"), "LD_LIBRARY_PATH": str(library)})
        self.assertEqual((result.returncode, result.stdout), (0, "remote LSN 1: hello, replica\n"), result.stderr)

    def test_man_pages_name_every_option(self):
        for program, page in (("graft", "man1/graft.1"), ("graft-metastore", "man8/graft-metastore.8"),
                              ("graft-pagestore", "man8/graft-pagestore.8")):
            text = (self.prefix / "share/man" / page).read_text().replace("\\-", "-")
            usage = subprocess.run([self.prefix / "bin" / program, "--help"], check=True, capture_output=True,
                                   text=True).stdout
            for word in usage.split():
                if word.startswith("--"):
                    self.assertIn(word.rstrip(",;:`"), text, program)

    def test_sample_configurations_are_accepted(self):
        for name in ("metastore", "pagestore"):
            sample = self.prefix / f"share/doc/graft/examples/{name}.conf"
            program = self.prefix / f"bin/graft-{name}"
            subprocess.run([program, "--config", sample, "--print-config"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    cluster.main()
