// SPDX-License-Identifier: Apache-2.0
//
// What every daemon serves for its operators: GET /healthz (always 200 "ok": the process answers), GET
// /readyz (200 "ok", or 503 and why not; 503 while draining), GET /metrics (Prometheus text).
//
//     struct http_route routes[CALLS + ADMIN_ROUTES];
//     admin_routes(&admin, &routes[CALLS]);
#ifndef COMMON_NET_ADMIN_ROUTES_H
#define COMMON_NET_ADMIN_ROUTES_H

#include "common/net/http_server.h"

#define ADMIN_ROUTES 3

struct admin {
    struct metrics *metrics;
    // OK, or why no requests should come here now. Runs on the server's threads, so it does not block. NULL:
    // always ready.
    enum graft_status (*readiness)(void *context, struct graft_error *err);
    void *context;
};

// `admin` outlives the server.
void admin_routes(const struct admin *admin, struct http_route ret_routes[ADMIN_ROUTES]);

#endif
