// SPDX-License-Identifier: Apache-2.0
//
// Deadlines: one thread that calls functions when their time has come. Callbacks are short and never block.
#ifndef COMMON_BASE_TIMER_H
#define COMMON_BASE_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

struct timers;

// Embedded in what it times; zeroed before its first use.
struct timer {
    uint64_t due_us;
    size_t place; // in the heap, from 1; 0: not armed
    void (*fire)(struct timer *timer);
};

enum graft_status timers_new(const char *name, struct timers **ret_timers, struct graft_error *err);
void timers_free(struct timers *timers); // armed timers never fire; NULL is fine

// Fires once, `after_ms` from now, on the timers' thread. Arms again if it was armed.
void timer_arm(struct timers *timers, struct timer *timer, uint64_t after_ms,
               void (*fire)(struct timer *timer));
// After it returns the callback does not run and will not run; called from the callback itself it only disarms.
void timer_cancel(struct timers *timers, struct timer *timer);

#endif
