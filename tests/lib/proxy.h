// SPDX-License-Identifier: Apache-2.0
//
// A TCP proxy in front of a daemon that stops where a test wants it to: at a byte of a request or of its answer. It knows
// as much of HTTP as it needs to tell which call a connection carries. One thread serves all connections and blocks where a
// peer does not read: it is for one client and a stop that a test waits for. Random faults: tests/lib/fault_proxy.py.
//
//     struct proxy *proxy = proxy_new(address);
//     proxy_stop_at(proxy, &(struct proxy_stop){"/v1/commit", PROXY_ANSWER, 0});
//     … a thread makes the call …
//     proxy_await_stop(proxy);   // the call has come to that point; its bytes are held back
//     daemon_kill(daemon);
//     proxy_go_on(proxy);        // held connections are cut
#ifndef TESTS_LIB_PROXY_H
#define TESTS_LIB_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/compiler.h"

struct proxy;

enum proxy_direction {
    PROXY_REQUEST,
    PROXY_ANSWER,
};

struct proxy_stop {
    const char *path; // "/v1/commit"
    enum proxy_direction direction;
    size_t after; // bytes of that call, in that direction, which still pass
};

// Forwards to `address` ("127.0.0.1:3001"). Aborts where the system refuses.
struct proxy *proxy_new(const char *address);
void proxy_free(struct proxy *proxy); // cuts everything; NULL is fine
DEFINE_CLEANUP(struct proxy, proxy_free)
const char *proxy_url(const struct proxy *proxy);

// The next call that comes to this point is held there. One stop at a time.
void proxy_stop_at(struct proxy *proxy, const struct proxy_stop *stop);
// Waits until a call is held. False after timeout_ms.
bool proxy_await_stop(struct proxy *proxy, unsigned timeout_ms);
// Cuts every connection, forgets the stop and serves on.
void proxy_go_on(struct proxy *proxy);

#endif
