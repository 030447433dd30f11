// SPDX-License-Identifier: Apache-2.0
#include "tests/sweep/pages.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/log_history.h"
#include "tests/sweep/ledger.h"

#define ROUNDS 4u
#define COMMITS_OF_ROUND 40u

// The step is how many commits are acknowledged, in tens.
static uint64_t acknowledged;

void log_history_acknowledged(uint64_t number)
{
    while (acknowledged + 10 <= number) {
        struct step *step = ledger_begin(0);
        if (!step->done)
            ledger_done(step, "-");
        acknowledged += 10;
    }
}

void log_history_failed(const struct graft_error *err)
{
    ledger_fail(LEDGER_EXIT_AGAIN, "%s", err->message);
}

void log_history_wrong(const char *what, uint64_t number)
{
    ledger_fail(LEDGER_EXIT_FAILED, "%s: commit %llu", what, (unsigned long long)number);
}

void pages_script(const char *folder, uint64_t seed)
{
    char directory[4096];
    snprintf(directory, sizeof directory, "%s/pages", folder);
    for (const struct step *next = ledger_peek(); next && next->done; next = ledger_peek()) {
        ledger_begin(0);
        acknowledged += 10;
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t number = log_history_open(directory, seed, acknowledged),
                 end = (round + 1) * COMMITS_OF_ROUND;
        while (number < end)
            number = log_history_commit(number + 1);
        log_history_resize();
        log_history_close();
    }
}
