// SPDX-License-Identifier: Apache-2.0
//
// How long a blocking call goes on trying: until its deadline, with growing, jittered pauses, and only where
// another try may help.
#ifndef CLIENT_PATIENCE_H
#define CLIENT_PATIENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/net/http_client.h"

struct patience {
    struct http_client *http;
    uint64_t deadline_us; // of CLOCK_MONOTONIC
    struct backoff backoff;
};

// deadline_ms 0: no second try.
void patience_init(struct patience *patience, struct http_client *http, uint32_t deadline_ms);
// Waits before another try, at least `at_least_ms` (what a server asked for). False, at once: the error is
// none that passes, no server was reached at all, the deadline is too near, or the client is being stopped.
bool patience_wait(struct patience *patience, const struct graft_error *error, uint32_t at_least_ms);

#endif
