// SPDX-License-Identifier: Apache-2.0
//
// A server with a route for each way to behave, and a thread ("the owner") that answers, wakes and gives up.
#ifndef TESTS_UNIT_NET_HTTP_FIXTURE_H
#define TESTS_UNIT_NET_HTTP_FIXTURE_H

#include <stdatomic.h>

#include "common/base/limits.h"
#include "common/base/worker.h"
#include "common/net/admin_routes.h"
#include "common/net/http_internal.h"
#include "tests/unit/net/http_peer.h"

// POST /v1/echo        whole body up to 64 KiB, comes back at once
// POST /v1/later       the same, by the owner's thread
// POST /v1/hold        up to 4 MiB; answered by fixture_release_held(), the server's deadline is
// hold_deadline_ms POST /v1/upload      a stream; the answer says how many bytes came. Query by header
// X-Mode:
//                        "pause"    takes 1,000 bytes for each wake of the owner
//                        "refuse"   answers CONFLICT in begin
//                        "fail"     answers CONFLICT once 100,000 bytes have come, from the owner's thread
//                        "stall"    takes nothing, ever
// GET  /v1/stream      X-Size bytes of a pattern in pieces, with X-Mode "flat", "wait" (the source waits
// before each
//                      piece until the owner wakes it), "stall" (stops in the middle), "abort"
// and the routes of admin_routes.h
struct fixture {
    struct http_server *server;
    struct metrics *metrics;
    struct admin admin;
    struct pool *owner;
    atomic_bool is_ready;
    atomic_int begun, closed;
    struct mutex lock;
    struct cond changed;
    struct http_request *held[64]; // lock
    unsigned held_count;           // lock
};

struct fixture_settings {
    unsigned threads, connections_max; // 0: 2, 64
    size_t connection_memory;          // 0: 64 KiB
    uint32_t idle_timeout_ms;          // 0: 10,000
    uint32_t deadline_ms;              // of hold, upload and stream; 0: none
    struct http_timing timing;         // zero fields: the limits of limits.h
};

void fixture_start(struct fixture *fixture, const struct fixture_settings *settings); // NULL: defaults
void fixture_stop(struct fixture *fixture); // drain, stop, and check the counts
const char *fixture_address(const struct fixture *fixture);
void fixture_wait_held(struct fixture *fixture, unsigned count); // until that many requests are held
void fixture_release_held(struct fixture *fixture);              // answers them, 200
bool fixture_wait_closed(struct fixture *fixture, int count);    // false: not within 10 s

char fixture_pattern(size_t position); // of /v1/stream

#endif
