// SPDX-License-Identifier: Apache-2.0
//
// Failpoints: named places at which a test ends, fails, delays or holds a process. They exist only in builds with
// -Dfailpoints=true; elsewhere the macros are nothing and the names are in no binary.
//
//     FAILPOINT("push.segments.uploaded");
//     …
//     enum graft_status status = FAILPOINT_ERROR("committer.sync.before", err);   // GRAFT_OK unless told otherwise
//     if (status == GRAFT_OK)
//         status = rocks_write(…, err);
//
// What happens is chosen by the environment, read before main():
//
//     GRAFT_FAILPOINTS         NAME=ACTION[@N] separated by ';': at the Nth time (1 unless told) that a process reaches the
//                              place. Names of other programs' failpoints are passed over, for the variable is inherited.
//         exit                 the process ends at once with FAILPOINT_EXIT_CODE, as by kill -9
//         error                the place fails with INTERNAL / IO (only places made with FAILPOINT_ERROR)
//         delay:MS             the thread sleeps
//         pause                the thread waits while the file named by GRAFT_FAILPOINTS_PAUSE exists
//     GRAFT_FAILPOINTS_REPORT  a file to which a line is appended for each of the first FAILPOINT_REPORTS_MAX times that a
//                              place is reached, and for each that fires: PROGRAM PID reached|exit|error|delay|pause NAME N
//
// A malformed setting is explained on stderr, and the program ends with 2. `--failpoints` as a program's only argument lists
// those that it has.
#ifndef COMMON_BASE_FAILPOINT_H
#define COMMON_BASE_FAILPOINT_H

#include "common/base/error.h"

#define FAILPOINT_EXIT_CODE 86
#define FAILPOINT_REPORTS_MAX 16u

#ifdef GRAFT_FAILPOINTS

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

enum failpoint_action {
    FAILPOINT_NONE,
    FAILPOINT_EXIT,
    FAILPOINT_FAIL,
    FAILPOINT_DELAY,
    FAILPOINT_PAUSE,
};

// One place. What is armed is set before main() and by tests, while no other thread is there.
struct failpoint {
    const char *name;
    const char *place; // file and line
    bool can_fail;
    enum failpoint_action action;
    unsigned at; // fires when reached so often
    unsigned delay_ms;
    atomic_uint reached;
};

extern bool failpoints_active; // something is armed or to be reported

// The linker gathers a pointer to each place in a section, so that no table has to be kept.
#define FAILPOINT_AT_(name_, can_fail_)                                                                    \
    ({                                                                                                     \
        static struct failpoint failpoint_ = {                                                             \
            .name = (name_), .place = __FILE__ ":" FAILPOINT_TEXT_(__LINE__), .can_fail = (can_fail_)};    \
        static struct failpoint *listed_ __attribute__((section("graft_failpoints"), used)) = &failpoint_; \
        &failpoint_;                                                                                       \
    })
#define FAILPOINT_TEXT_(line) FAILPOINT_TEXT_OF_(line)
#define FAILPOINT_TEXT_OF_(line) #line

#define FAILPOINT(name)                                                 \
    do {                                                                \
        struct failpoint *failpoint_here_ = FAILPOINT_AT_(name, false); \
        if (UNLIKELY(failpoints_active))                                \
            failpoint_reach(failpoint_here_, NULL);                     \
    } while (0)
#define FAILPOINT_ERROR(name, err)                                                        \
    ({                                                                                    \
        struct failpoint *failpoint_here_ = FAILPOINT_AT_(name, true);                    \
        UNLIKELY(failpoints_active) ? failpoint_reach(failpoint_here_, (err)) : GRAFT_OK; \
    })

enum graft_status failpoint_reach(struct failpoint *failpoint, struct graft_error *err);
// Arms as GRAFT_FAILPOINTS would. INVALID names what is malformed; nothing is armed then.
enum graft_status failpoints_arm(const char *setting, struct graft_error *err);
// A line for each, by name: the name, "error" where it can fail and "-" where not, its place.
void failpoints_print(FILE *to);

#else

#define FAILPOINT(name) ((void)0)
#define FAILPOINT_ERROR(name, err) GRAFT_OK

#endif

#endif
