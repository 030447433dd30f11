# SPDX-License-Identifier: Apache-2.0
"""What ./dev soak runs in turn. A scenario takes a seed and gives a history.Report, in which it has counted the faults that
it injected (report.inject). To add one: decorate it, and name its module here.

    @scenario("kills-bank")
    def kill_the_bank(seed):
        …
        return report
"""
import importlib

MODULES = ["kills", "lies", "programs", "restores"]
SCENARIOS = {}


def scenario(name):
    def register(function):
        SCENARIOS[name] = function
        return function
    return register


def load():
    for module in MODULES:
        importlib.import_module(module)
    return SCENARIOS
