// SPDX-License-Identifier: Apache-2.0
//
// The page log by itself, as the workload of a program that is killed or loses power and is started again. Commits 1, 2, … of a
// few pages each, some in pairs that belong together, some synced only by a later one, some after a try that was taken back
// or failed; the last few are live, so that extents become empty and are filled again. The index is one file, replaced with
// each claim. What a commit has follows from the seed and its number.
//
//     log_history_open → log_history_commit … → log_history_close
#ifndef TESTS_LIB_LOG_HISTORY_H
#define TESTS_LIB_LOG_HISTORY_H

#include <stdint.h>

#include "common/base/error.h"

// Opens and replays; checks that at least the commits that were acknowledged are there, none in part, and that every live page
// reads as it was written. Returns how many there are.
uint64_t log_history_open(const char *directory, uint64_t seed, uint64_t acknowledged);
// The next commit, or a pair; the last one's number.
uint64_t log_history_commit(uint64_t number);
void log_history_resize(void); // two files more, and away with them
void log_history_close(void);

// The program's: commits up to this are durable; a call failed; something is not as it should be. The last two do not return.
void log_history_acknowledged(uint64_t number);
void log_history_failed(const struct graft_error *err);
void log_history_wrong(const char *what, uint64_t number);

#endif
