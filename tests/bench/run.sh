#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# run.sh BUILD [NAME…]: runs the benchmarks (all, or the named groups of rows) and prints one table. See docs/BENCHMARKS.md.
set -eu
build=$1
shift

# On a real disk: /tmp may lie in memory, where syncing costs nothing.
export TMPDIR="${TMPDIR:-/var/tmp}"
table=$(mktemp)
trap 'rm -f "$table"' EXIT

echo "$(date -u '+%Y-%m-%d %H:%M UTC'), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1) × $(nproc), kernel $(uname -r), load $(cut -d' ' -f1 /proc/loadavg)"
# A program's failure must not hide behind column's success.
"$build/tests/bench/graft-bench" "$@" >"$table"
column -t -s "$(printf '\t')" "$table"
