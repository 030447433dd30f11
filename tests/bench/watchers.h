// SPDX-License-Identifier: Apache-2.0
//
// 10,000 connections that watch one volume. Each has been told its head when watchers_open() returns, which makes it idle for
// as long as nobody commits to that volume.
#ifndef TESTS_BENCH_WATCHERS_H
#define TESTS_BENCH_WATCHERS_H

#include "tests/bench/bench.h"

#define WATCHERS 10000u

struct watchers;
struct watchers *watchers_open(const struct cluster *cluster, const struct gid *vid);
void watchers_close(struct watchers *watchers);
void watchers_raise_limit(void); // of open files, before the daemons are started

#endif
