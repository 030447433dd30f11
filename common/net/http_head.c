// SPDX-License-Identifier: Apache-2.0
//
// What the headers decide: the route, and what is refused before a body is read.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/limits.h"
#include "common/net/http_internal.h"

static enum MHD_Result head_note(void *context, enum MHD_ValueKind kind, const char *name, const char *value)
{
    (void)kind;
    struct http_head *head = context;
    if (!value)
        return MHD_YES;
    if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_TYPE) == 0) {
        head->content_type = value;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_EXPECT) == 0) {
        head->has_expect = strcasecmp(value, "100-continue") == 0;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
        head->is_ambiguous = head->is_ambiguous || head->length || head->encoding;
        head->length = value;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
        head->is_ambiguous =
            head->is_ambiguous || head->length || head->encoding || strcasecmp(value, "chunked") != 0;
        head->encoding = value;
    }
    return MHD_YES;
}

struct http_head http_head_read(struct MHD_Connection *mhd)
{
    struct http_head head = {0};
    MHD_get_connection_values(mhd, MHD_HEADER_KIND, head_note, &head);
    if (head.encoding)
        head.body_size = HTTP_LENGTH_CHUNKED;
    else if (head.length)
        head.body_size = strtoull(head.length, NULL, 10); // libmicrohttpd let only digits that fit pass
    return head;
}

static bool content_type_is(const char *value, const char *wanted)
{
    size_t length = strlen(wanted);
    if (!value || strncasecmp(value, wanted, length) != 0)
        return false;
    value += length;
    value += strspn(value, " \t");
    return *value == '\0' || *value == ';';
}

static bool route_takes(const struct http_route *route, const char *method)
{
    return strcmp(route->method, method) == 0 ||
           (strcmp(route->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

// The route, or NULL and what its path would allow ("": there is no such path).
static const struct http_route *route_find(const struct http_server *server, const char *method,
                                           const char *path, char *ret_allow, size_t allow_size)
{
    ret_allow[0] = '\0';
    for (size_t i = 0; i < server->settings.route_count; i++) {
        const struct http_route *route = &server->routes[i];
        if (strcmp(route->path, path) != 0)
            continue;
        if (route_takes(route, method))
            return route;
        size_t used = strlen(ret_allow);
        snprintf(ret_allow + used, allow_size - used, "%s%s", used ? ", " : "",
                 strcmp(route->method, "GET") == 0 ? "GET, HEAD" : route->method);
    }
    return NULL;
}

// All or nothing.
static bool budget_take(struct http_server *server, uint64_t size)
{
    uint64_t left = atomic_load(&server->budget_left);
    do {
        if (left < size)
            return false;
    } while (!atomic_compare_exchange_weak(&server->budget_left, &left, left - size));
    return true;
}

// What the body's announcement is refused for: a code, or 0.
static unsigned check_body(struct http_request *request, const struct http_head *head,
                           struct graft_error *error)
{
    const struct http_route *route = request->route;
    if (!route->content_type) {
        if (head->body_size == 0)
            return 0;
        error_set(error, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "%s takes no body", route->path);
        return MHD_HTTP_CONTENT_TOO_LARGE;
    }
    if (!content_type_is(head->content_type, route->content_type)) {
        error_set(error, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "%s takes Content-Type %s, not %s",
                  route->path, route->content_type, head->content_type ? head->content_type : "none");
        return MHD_HTTP_UNSUPPORTED_MEDIA_TYPE;
    }
    if (!route->body && !head->length) {
        error_set(error, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "%s needs a Content-Length", route->path);
        return MHD_HTTP_LENGTH_REQUIRED;
    }
    if (head->body_size != HTTP_LENGTH_CHUNKED && head->body_size > route->body_max) {
        error_set(error, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "a body of %llu bytes: %s takes at most %llu",
                  (unsigned long long)head->body_size, route->path, (unsigned long long)route->body_max);
        return MHD_HTTP_CONTENT_TOO_LARGE;
    }
    if (!route->body) {
        struct http_server *server = request->connection->server;
        if (!budget_take(server, head->body_size)) {
            error_set(error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                      "%llu MiB of request bodies are being received already, try again later",
                      RECEIVE_BUDGET_SIZE / MIB);
            return MHD_HTTP_SERVICE_UNAVAILABLE;
        }
        request->budget = head->body_size;
        buffer_init(&request->body, head->body_size);
    }
    return 0;
}

unsigned http_head_check(struct http_request *request, const struct http_head *head, const char *method,
                         const char *path, struct graft_error *error)
{
    struct http_server *server = request->connection->server;
    const char *allow = request->allow;
    request->route = route_find(server, method, path, request->allow, sizeof request->allow);
    request->metrics = &server->metrics[request->route ? (size_t)(request->route - server->routes)
                                                       : server->settings.route_count];
    if (head->is_ambiguous) {
        error_set(
            error, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
            "the request needs one Content-Length or Transfer-Encoding: chunked, not both nor another encoding");
        return MHD_HTTP_BAD_REQUEST;
    }
    if (!request->route && allow[0]) {
        error_set(error, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "%s takes %s, not %s", path, allow,
                  method);
        return MHD_HTTP_METHOD_NOT_ALLOWED;
    }
    if (!request->route) {
        error_set(error, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "there is no %s here", path);
        return MHD_HTTP_NOT_FOUND;
    }
    if (atomic_load(&server->draining) && !request->route->while_draining) {
        error_set(error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_STOPPING, "the server is stopping, try again later");
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    return check_body(request, head, error);
}
