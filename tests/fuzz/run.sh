#!/bin/sh
# Runs each fuzzer of a fuzz build for so many seconds, from the committed corpus; what it finds by the way stays in the
# build folder. Ends with the lines covered in each file of ours. Fails at the first input that crashes a target.
#
#     tests/fuzz/run.sh BUILD-FOLDER SECONDS
set -eu
[ $# = 2 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
corpora=$(dirname "$0")/corpus
found=$1/tests/fuzz/found
mkdir -p "$found/crashes"
rm -f "$found"/*.profraw

objects=
for program in "$1"/tests/fuzz/fuzz-*; do
    [ -f "$program" ] && [ -x "$program" ] || continue
    name=${program##*/fuzz-}
    mkdir -p "$found/$name"
    echo "fuzz: $name, $2 s"
    LLVM_PROFILE_FILE=$found/$name.profraw "$program" -max_total_time="$2" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$found/crashes/$name-" "$found/$name" "$corpora/$name" \
        >"$found/$name.log" 2>&1 || { tail -n 60 "$found/$name.log"; echo "fuzz: $name failed" >&2; exit 1; }
    grep -E '^stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb)|DONE' "$found/$name.log"
    objects="$objects -object $program"
done
[ -n "$objects" ] || { echo "fuzz: no fuzzers in $1: meson setup -Dfuzz=true, with CC=clang-14" >&2; exit 1; }

llvm-profdata-14 merge -o "$found/all.profdata" "$found"/*.profraw
echo "fuzz: lines covered, of the files that any target reaches:"
# shellcheck disable=SC2086
llvm-cov-14 export -summary-only -instr-profile "$found/all.profdata" $objects |
    python3 -c '
import json, os, sys
for file in json.load(sys.stdin)["data"][0]["files"]:
    lines = file["summary"]["lines"]
    if lines["covered"] and "/tests/" not in file["filename"]:
        print("%6.1f %%  %5d lines  %s" % (lines["percent"], lines["count"], os.path.relpath(file["filename"])))'
