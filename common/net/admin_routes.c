// SPDX-License-Identifier: Apache-2.0
#include "common/net/admin_routes.h"

#include "common/base/limits.h"

#define METRICS_TEXT_SIZE_MAX (4 * MIB)
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

static void answer_text(struct http_request *request, unsigned code, const char *text)
{
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(GRAFT_ERROR_MESSAGE_SIZE + 1);
    struct graft_error error;
    if (buffer_printf(&body, &error, "%s\n", text) != GRAFT_OK)
        http_respond_error(request, &error, 0);
    else
        http_respond(request, code, HTTP_TEXT, &body);
}

static void healthz(struct http_request *request, struct bytes whole)
{
    (void)whole;
    answer_text(request, 200, "ok");
}

static void readyz(struct http_request *request, struct bytes whole)
{
    (void)whole;
    const struct admin *admin = http_request_route_data(request);
    struct graft_error error;
    if (admin->readiness && admin->readiness(admin->context, &error) != GRAFT_OK)
        answer_text(request, 503, error.message);
    else
        answer_text(request, 200, "ok");
}

static void metrics(struct http_request *request, struct bytes whole)
{
    (void)whole;
    const struct admin *admin = http_request_route_data(request);
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(METRICS_TEXT_SIZE_MAX);
    struct graft_error error;
    if (admin->metrics && metrics_print(admin->metrics, &body, &error) != GRAFT_OK)
        http_respond_error(request, &error, 0);
    else
        http_respond(request, 200, METRICS_TYPE, &body);
}

void admin_routes(const struct admin *admin, struct http_route ret_routes[ADMIN_ROUTES])
{
    const struct http_route routes[ADMIN_ROUTES] = {
        {.method = "GET", .path = "/healthz", .ready = healthz, .while_draining = true},
        {.method = "GET", .path = "/readyz", .ready = readyz},
        {.method = "GET", .path = "/metrics", .ready = metrics, .while_draining = true},
    };
    for (size_t i = 0; i < ADMIN_ROUTES; i++) {
        ret_routes[i] = routes[i];
        ret_routes[i].data = admin;
    }
}
