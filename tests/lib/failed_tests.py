# SPDX-License-Identifier: Apache-2.0
"""Prints the names of the tests that failed, from meson's testlog.json."""
import json
import sys

with open(sys.argv[1]) as log:
    for line in log:
        test = json.loads(line)
        if test["result"] not in ("OK", "SKIP", "EXPECTEDFAIL"):
            print(test["name"].split(" / ")[-1])
