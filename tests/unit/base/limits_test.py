#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/LIMITS.md states each constant of common/base/limits.h, with its value, and no other; each is used."""
import os
import re
import sys

root = sys.argv[1]
header = open(os.path.join(root, 'common/base/limits.h'), encoding='utf-8').read()
page = open(os.path.join(root, 'docs/LIMITS.md'), encoding='utf-8').read()

names = {}
for name, text in re.findall(r'^#define (\w+) (.+?)(?://.*)?$', header, re.M):
    plain = re.sub(r'\b(\d+)(?:ull|u)\b', r'\1', text)
    names[name] = eval(plain, {'__builtins__': {}}, dict(names))  # constants of constants above them
constants = {name: value for name, value in names.items() if name not in ('KIB', 'MIB')}

units = {'': 1, 'ms': 1, 'KiB': 1024, 'MiB': 1024 * 1024}
rows = re.findall(r'^\| `(\w+)` \| ([\d,]+)(?: (\w+))? \| (.+?) \| (.+?) \|$', page, re.M)
stated = {name: int(number.replace(',', '')) * units[unit] for name, number, unit, _, _ in rows}

cases = []
for name, value in constants.items():
    cases.append((stated.get(name) == value,
                  '%s is stated as it is: the header has %s, the page %s' % (name, value, stated.get(name))))
for name in stated:
    if name not in constants:
        cases.append((False, '%s is stated but no constant' % name))
sources = ''
for folder in ('common', 'client', 'metastore', 'pagestore', 'cli', 'sqlite'):
    for path, _, files in os.walk(os.path.join(root, folder)):
        for name in files:
            if name.endswith(('.c', '.h')) and name != 'limits.h':
                sources += re.sub(r'//.*', '', open(os.path.join(path, name), encoding='utf-8').read())
used = set(re.findall(r'\w+', sources))
for name in constants:
    cases.append((name in used, '%s is used' % name))
cases.append((len(rows) == len(stated), 'no constant is stated twice'))
cases.append((len(constants) > 30, 'the header was understood'))

print('1..%d' % len(cases))
for number, (good, text) in enumerate(cases, 1):
    print('%s %d - %s' % ('ok' if good else 'not ok', number, text))
