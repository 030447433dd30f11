// SPDX-License-Identifier: Apache-2.0
#include "pagestore/write_pages.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "pagestore/pagestore.h"
#include "pagestore/upload.h"

#define RETRY_AFTER_S 1

static void wake(void *context)
{
    http_request_wake(context);
}

static void done(void *context, const struct graft_error *error, struct buffer *response)
{
    struct http_request *request = context;
    FAILPOINT("write_pages.answer");
    if (response) {
        http_respond(request, 200, HTTP_PROTOBUF, response);
        return;
    }
    if (error->status == GRAFT_INTERNAL || error->status == GRAFT_UNKNOWN)
        log_error("write_pages_failed", "%s", log_format_error(error).text);
    http_respond_error(request, error, error->status == GRAFT_UNAVAILABLE ? RETRY_AFTER_S : 0);
}

static void release(void *context)
{
    http_request_unref(context);
}

// The server has checked the number against the route's limit; a chunked body has none.
static uint64_t announced_size(const struct http_request *request)
{
    const char *text = http_request_header(request, "Content-Length");
    char *end;
    errno = 0;
    unsigned long long size = text ? strtoull(text, &end, 10) : 0;
    return text && errno == 0 && end != text && *end == '\0' ? size : UPLOAD_SIZE_UNKNOWN;
}

void write_pages_begin(struct http_request *request, void *context)
{
    const struct pagestore *pagestore = context;
    FAILPOINT("write_pages.begin");
    struct upload_events events = {wake, done, release, http_request_ref(request)};
    struct graft_error error;
    struct upload *upload;
    if (upload_new(pagestore->uploads, announced_size(request), &events, &upload, &error) == GRAFT_OK) {
        http_request_set_state(request, upload);
        return;
    }
    http_respond_error(request, &error, RETRY_AFTER_S);
    http_request_unref(request);
}

size_t write_pages_body(struct http_request *request, const void *data, size_t size)
{
    return upload_take(http_request_state(request), data, size);
}

void write_pages_ready(struct http_request *request, struct bytes whole)
{
    FAILPOINT("write_pages.received");
    upload_finish(http_request_state(request));
}

void write_pages_closed(struct http_request *request)
{
    struct upload *upload = http_request_state(request);
    if (upload)
        upload_close(upload);
}
