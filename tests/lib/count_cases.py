# SPDX-License-Identifier: Apache-2.0
"""Counts the test cases in meson's logs (testlog.json) and prints `N passed, M failed`, with the skipped where there are any.

A program that meson calls bad counts as failed even if all cases that it told of are well: it hung, crashed or leaked at its
end. A later log is of programs that were run once more: what it says of a program takes the place of all that was known.
"""
import json
import re
import sys

CASE = re.compile(r"(not )?ok\b(?: \d+)?(?: -)? *(.*?)(?:  \([\d.]+s\))?( # SKIP\b.*)?$")
STATES = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}  # of a program; any other has failed


def cases_of(run):
    """(name, state) of each case of a program's run; of the program itself, if it told of none or is bad by itself."""
    cases = []
    for line in run.get("stdout", "").splitlines():
        case = CASE.match(line)
        if case:
            cases.append((case[2], "failed" if case[1] else "skipped" if case[3] else "passed"))
    state = STATES.get(run["result"], "failed")
    if not cases or (state == "failed" and all(state != "failed" for _, state in cases)):
        cases.append((run["result"], state))
    return cases


programs = {}
for path in sys.argv[1:]:
    with open(path) as log:
        runs = [json.loads(line) for line in log]
    programs.update({run["name"]: [] for run in runs})
    for run in runs:  # more than one of a program with --repeat
        programs[run["name"]] += cases_of(run)

count = {"passed": 0, "failed": 0, "skipped": 0}
for program, cases in programs.items():
    for name, state in cases:
        count[state] += 1
        if state == "failed":
            print(f"failed: {program} / {name}")
print(f"{count['passed']} passed, {count['failed']} failed" + (f", {count['skipped']} skipped" if count["skipped"] else ""))
sys.exit(count["failed"] > 0 or count["passed"] == 0)
