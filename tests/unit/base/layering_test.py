#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Includes point down: what a folder may include is listed here, and nothing else may be."""
import os
import re
import sys

root = sys.argv[1]
below_daemons = {'common/include', 'common/base', 'common/store', 'common/net', 'proto'}
may_include = {
    'common/include': set(),
    'common/base': {'common/include'},
    'common/store': {'common/include', 'common/base'},
    'common/net': {'common/include', 'common/base', 'proto'},
    'metastore': below_daemons,
    'pagestore': below_daemons,
    'client': below_daemons,
    'cli': below_daemons | {'client'},
    'sqlite': below_daemons | {'client'},
}
# Headers of common/base are read by everybody: they bring in nothing but the C library.
system_headers = {
    'assert.h', 'endian.h', 'errno.h', 'limits.h', 'pthread.h', 'stdarg.h', 'stdatomic.h', 'stdbool.h', 'stddef.h',
    'stdint.h', 'stdio.h', 'stdlib.h', 'string.h', 'sys/queue.h', 'sys/types.h', 'time.h',
}
# These are on the include path by their bare names, as in an installed tree.
public_headers = {'graft_status.h': 'common/include', 'graft.h': 'client'}

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')


def folder_of(path):
    """The layer that a path belongs to, None for what is in none (tests)."""
    return next((layer for layer in may_include if path.startswith(layer + '/')),
                'proto' if path.startswith('proto/') else None)


def sources(layer):
    for folder, _, files in os.walk(os.path.join(root, layer)):
        for name in sorted(files):
            if name.endswith(('.c', '.h')):
                yield os.path.relpath(os.path.join(folder, name), root)


def complaint(path, layer, quote, header):
    if quote == '<':
        if layer == 'common/base' and path.endswith('.h') and header not in system_headers:
            return 'a header of common/base includes <%s>, which is not the C library\'s' % header
        return None
    target = public_headers.get(header) or folder_of(header)
    if target is None:
        return '"%s" is no path from the root of the tree' % header
    if target != layer and target not in may_include[layer]:
        return '%s may not include "%s"' % (layer, header)
    return None


def check(path, layer):
    complaints = []
    with open(os.path.join(root, path), encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            match = INCLUDE.match(line)
            reason = match and complaint(path, layer, *match.groups())
            if reason:
                complaints.append('%s:%d: %s' % (path, number, reason))
    return complaints


layers = [layer for layer in may_include if os.path.isdir(os.path.join(root, layer))]
print('1..%d' % (len(layers) + 1))
checked = 0
for number, layer in enumerate(layers, 1):
    paths = list(sources(layer))
    checked += len(paths)
    complaints = [text for path in paths for text in check(path, layer)]
    for text in complaints:
        print('# ' + text)
    print('%s %d - %s includes only what lies below it' % ('not ok' if complaints else 'ok', number, layer))
print('%s %d - sources were found' % ('ok' if checked > 30 else 'not ok', len(layers) + 1))
