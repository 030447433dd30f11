// SPDX-License-Identifier: Apache-2.0
#ifndef TESTS_SWEEP_PAGES_H
#define TESTS_SWEEP_PAGES_H

#include <stdint.h>

// The page log by itself, with voids, failed writes, growth and removal of files (tests/lib/log_history.h).
void pages_script(const char *folder, uint64_t seed);

#endif
