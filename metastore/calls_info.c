// SPDX-License-Identifier: Apache-2.0
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "metastore/calls.h"
#include "metastore/reply.h"

#define HTTP_JSON "application/json"
#define URL_SIZE 300

// ---- info

// Where the peer finds watch: bound to every address, under the name that the peer used for us.
static void watch_url(struct http_request *request, const char *bound, char ret_url[URL_SIZE])
{
    const char *port = strrchr(bound, ':');
    const char *host = http_request_header(request, "Host");
    bool any = strncmp(bound, "0.0.0.0:", 8) == 0 || strncmp(bound, "[::]:", 5) == 0;
    CHECK(port);
    if (!any || !host) {
        snprintf(ret_url, URL_SIZE, "http://%s", bound);
        return;
    }
    // "name", "name:port", "[::1]", "[::1]:port"
    const char *end = host[0] == '[' ? strchr(host, ']') : NULL;
    size_t size = end ? (size_t)(end - host) + 1 : strcspn(host, ":");
    snprintf(ret_url, URL_SIZE, "http://%.*s%s", (int)MIN(size, (size_t)200), host, port);
}

static json_t *limits_json(void)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}",                          //
                     "page_size_min", (json_int_t)PAGE_SIZE_MIN,                     //
                     "page_size_max", (json_int_t)PAGE_SIZE_MAX,                     //
                     "commit_request_size_max", (json_int_t)COMMIT_REQUEST_SIZE_MAX, //
                     "commit_segments_max", (json_int_t)COMMIT_SEGMENTS_MAX,         //
                     "unary_request_size_max", (json_int_t)UNARY_REQUEST_SIZE_MAX,   //
                     "watch_volumes_max", (json_int_t)WATCH_VOLUMES_MAX,             //
                     "list_limit_max", (json_int_t)LIST_LIMIT_MAX);
}

static void call_info(struct http_request *request, struct bytes body)
{
    (void)body;
    const struct calls *calls = http_request_context(request);
    char url[URL_SIZE];
    watch_url(request, calls->watch_address, url);
    json_t *info = json_pack("{s:s, s:s, s:s, s:I, s:o}", "program", "graft-metastore", "version",
                             GRAFT_VERSION, "watch", calls->watch_url ? calls->watch_url : url,
                             "watch_heartbeat_ms", (json_int_t)WATCH_HEARTBEAT_MS, "limits", limits_json());
    // A host that is no text makes no JSON.
    char *text = info ? json_dumps(info, JSON_INDENT(2)) : NULL;
    json_decref(info);
    struct graft_error error;
    _cleanup_(buffer_release) struct buffer answer = BUFFER_INIT(ERROR_RESPONSE_SIZE_MAX);
    if (!text)
        error_set(&error, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "the header Host is not UTF-8");
    if (text && buffer_printf(&answer, &error, "%s\n", text) == GRAFT_OK)
        http_respond(request, 200, HTTP_JSON, &answer);
    else
        reply_error(request, &error);
    free(text);
}

void calls_info_routes(struct http_route ret_routes[CALLS_INFO])
{
    ret_routes[0] = (struct http_route){
        .method = "GET", .path = "/v1/info", .ready = call_info, .deadline_ms = CALL_DEADLINE_MS};
}

// ---- watch

static void call_watch(struct http_request *request, struct bytes body)
{
    struct calls *calls = http_request_context(request);
    ProtobufCMessage *message = request_message(request, body, &graft__watch_request__descriptor);
    if (!message)
        return;
    watch_start(calls->hub, calls->volumes, request, (const Graft__WatchRequest *)message);
    message_free(message);
}

struct http_route calls_watch_route(void)
{
    return (struct http_route){.method = "POST",
                               .path = "/v1/watch",
                               .content_type = HTTP_PROTOBUF,
                               .body_max = WATCH_REQUEST_SIZE_MAX,
                               .ready = call_watch,
                               .closed = watch_closed};
}
