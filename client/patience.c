// SPDX-License-Identifier: Apache-2.0
#include "client/patience.h"

#include "common/base/clock.h"
#include "common/base/compiler.h"
#include "common/base/random.h"
#include "common/net/rpc.h"

#define PAUSE_BASE_MS 20u
#define PAUSE_CAP_MS 2000u

void patience_init(struct patience *patience, struct http_client *http, uint32_t deadline_ms)
{
    *patience = (struct patience){
        .http = http,
        .deadline_us = clock_monotonic_us(clock_system()) + (uint64_t)deadline_ms * 1000,
        .backoff = {.base_ms = PAUSE_BASE_MS, .cap_ms = PAUSE_CAP_MS},
    };
    random_bytes(&patience->backoff.seed, sizeof patience->backoff.seed);
}

bool patience_wait(struct patience *patience, const struct graft_error *error, uint32_t at_least_ms)
{
    if (!rpc_is_transient(error) || error->detail == GRAFT_DETAIL_UNREACHABLE)
        return false;
    uint64_t pause_ms = MAX(backoff_next_ms(&patience->backoff), at_least_ms);
    uint64_t now_us = clock_monotonic_us(clock_system());
    if (now_us + pause_ms * 1000 >= patience->deadline_us)
        return false;
    return http_client_wait(patience->http, (uint32_t)pause_ms);
}
