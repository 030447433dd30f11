// SPDX-License-Identifier: Apache-2.0
//
// What a workload has begun and what was acknowledged to it, in a file that outlives the process: a workload that is started
// again passes over the steps that are done and learns which one was under way.
//
//     STEP begin FACT        before anything is asked; the fact is the caller's (where the volume stood)
//     STEP done TEXT         once it was acknowledged
#ifndef TESTS_SWEEP_LEDGER_H
#define TESTS_SWEEP_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#define LEDGER_EXIT_FAILED 1 // what was promised was not kept
#define LEDGER_EXIT_AGAIN 3  // a call failed: start the workload again

struct step {
    unsigned number;
    bool begun;    // in this process or an earlier one
    bool doubtful; // begun in an earlier one and not done
    bool done;
    uint64_t fact;
    char text[32];
};

void ledger_open(const char *path);
// The next step. Where it is not done, it is written down as begun, with `fact` if it was not begun before.
struct step *ledger_begin(uint64_t fact);
void ledger_done(struct step *step, const char *text);
// The step that comes next, as it stands.
const struct step *ledger_peek(void);
// True once: the step that comes next is the first one that an earlier process left undone.
bool ledger_resuming(void);
// Ends the process with a message.
void ledger_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

#endif
