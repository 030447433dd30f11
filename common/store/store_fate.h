// SPDX-License-Identifier: Apache-2.0
//
// Whether a store has failed for good: after a failed write or sync nobody knows what its files hold, so nothing is written
// to them any more, and who owns the store is told to end. It starts again on what was durable.
//
//     if (write failed && store_fate_seal(&fate, &error)) {
//         … complete what is under way …
//         store_fate_tell(&fate);
//     }
//
// Threads: any.
#ifndef COMMON_STORE_STORE_FATE_H
#define COMMON_STORE_STORE_FATE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "common/base/error.h"
#include "common/base/mutex.h"

struct store_fate {
    struct mutex lock; // RANK_LEAF; guards error
    atomic_bool failed;
    struct graft_error error; // the first failure
    void (*on_fatal)(void *context, const struct graft_error *error);
    void *context;
};

// `on_fatal` is called once at most, from any thread, and may be NULL.
void store_fate_init(struct store_fate *fate,
                     void (*on_fatal)(void *context, const struct graft_error *error), void *context);
void store_fate_release(struct store_fate *fate);
// Marks the store as failed; true for the call that did. Its caller completes what is under way and then calls
// store_fate_tell().
bool store_fate_seal(struct store_fate *fate, const struct graft_error *error);
void store_fate_tell(struct store_fate *fate);
// UNAVAILABLE, with the failure's detail and message, once it has failed.
enum graft_status store_fate_check(struct store_fate *fate, struct graft_error *err);

#endif
