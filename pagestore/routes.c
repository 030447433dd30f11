// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "pagestore/info.h"
#include "pagestore/page_read.h"
#include "pagestore/pagestore.h"
#include "pagestore/segment_calls.h"
#include "pagestore/write_pages.h"

#define CALL_DEADLINE_MS 30000u
#define WRITE_DEADLINE_MS 60000u // from the end of the body to the answer: a wait for a slot and a sync

static void read_pages_ready(struct http_request *request, struct bytes whole)
{
    struct pagestore *pagestore = http_request_context(request);
    page_read_ready(pagestore->reader, request, whole);
}

static const struct http_route calls[] = {
    {.method = "GET", .path = "/v1/info", .ready = info_ready, .deadline_ms = CALL_DEADLINE_MS},
    {.method = "POST",
     .path = "/v1/segments",
     .content_type = HTTP_PROTOBUF,
     .body_max = UNARY_REQUEST_SIZE_MAX,
     .ready = segments_ready,
     .deadline_ms = CALL_DEADLINE_MS},
    {.method = "POST",
     .path = "/v1/segment",
     .content_type = HTTP_PROTOBUF,
     .body_max = UNARY_REQUEST_SIZE_MAX,
     .ready = segment_ready,
     .deadline_ms = CALL_DEADLINE_MS},
    {.method = "POST",
     .path = "/v1/write_pages",
     .content_type = HTTP_STREAM,
     .body_max = WRITE_PAGES_SIZE_MAX,
     .begin = write_pages_begin,
     .body = write_pages_body,
     .ready = write_pages_ready,
     .closed = write_pages_closed,
     .deadline_ms = WRITE_DEADLINE_MS},
    {.method = "POST",
     .path = "/v1/read_pages",
     .content_type = HTTP_PROTOBUF,
     .body_max = READ_PAGES_REQUEST_SIZE_MAX,
     .ready = read_pages_ready,
     .closed = page_read_closed,
     .deadline_ms = CALL_DEADLINE_MS},
};

_Static_assert(ARRAY_COUNT(calls) + ADMIN_ROUTES <= PAGESTORE_ROUTES_MAX,
               "more routes than there is room for");

size_t pagestore_routes(const struct pagestore *pagestore, struct http_route ret_routes[PAGESTORE_ROUTES_MAX])
{
    memcpy(ret_routes, calls, sizeof calls);
    admin_routes(&pagestore->admin, &ret_routes[ARRAY_COUNT(calls)]);
    return ARRAY_COUNT(calls) + ADMIN_ROUTES;
}
