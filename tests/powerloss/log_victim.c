// SPDX-License-Identifier: Apache-2.0
//
// The page log by itself as a victim of power losses:
//     log_victim DIRECTORY SEED DONE
// DONE commits of the history (tests/lib/log_history.h) were acknowledged before the power failed. Lines on stdout:
//     at N       commits 1 to N were found
//     did N      N commits are acknowledged
//     stopped    a write or sync failed, and so does every call from then on; the power fails here
// Exits with 4 where something is not as it should be.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/log_history.h"

#define COMMITS 300u

__attribute__((weak)) void powerloss_now(void);

static void say(const char *what, uint64_t number)
{
    printf("%s %llu\n", what, (unsigned long long)number);
    fflush(stdout);
}

void log_history_acknowledged(uint64_t number)
{
    say("did", number);
}

void log_history_failed(const struct graft_error *err)
{
    const char *planned = getenv("POWERLOSS_FAIL_SYNC");
    if (planned && strcmp(planned, "0") != 0 && err->detail == GRAFT_DETAIL_IO) {
        say("stopped", 0);
        powerloss_now();
    }
    fprintf(stderr, "%s\n", err->message);
    _exit(4);
}

void log_history_wrong(const char *what, uint64_t number)
{
    fprintf(stderr, "%s: commit %llu\n", what, (unsigned long long)number);
    _exit(4);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    uint64_t number = log_history_open(argv[1], strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    say("at", number);
    while (number < COMMITS)
        number = log_history_commit(number + 1);
    log_history_close();
    return 0;
}
