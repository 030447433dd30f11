# SPDX-License-Identifier: Apache-2.0
"""Counts the test cases in meson's JUnit reports and prints `N passed, M failed`, with the skipped where there are any.

A later report is of programs that were run once more: what it says of a program takes the place of all that was known.
"""
import sys
import xml.etree.ElementTree as tree

DIED = ""  # stands for a program that ended badly without naming a case

programs = {}
for path in sys.argv[1:]:
    for suite in tree.parse(path).getroot().iter("testsuite"):
        program = suite.get("name")
        states = {}
        for case in suite.findall("testcase"):
            bad = case.find("failure") is not None or case.find("error") is not None
            state = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
            # In TAP a case's name begins with its number in this run and ends with the time that it took.
            states[case.get("name").split(" - ", 1)[-1].rsplit("  (", 1)[0]] = state
        died = int(suite.get("failures", 0)) + int(suite.get("errors", 0)) > 0 and "failed" not in states.values()
        if died:
            states[DIED] = "failed"
        programs[program] = states

cases = {(program, name): state for program, states in programs.items() for name, state in states.items()}
for (program, name), state in cases.items():
    if state == "failed":
        print(f"failed: {program} / {name}")
count = {state: list(cases.values()).count(state) for state in ("passed", "failed", "skipped")}
print(f"{count['passed']} passed, {count['failed']} failed" + (f", {count['skipped']} skipped" if count["skipped"] else ""))
sys.exit(count["failed"] > 0 or count["passed"] == 0)
