// SPDX-License-Identifier: Apache-2.0
//
// The calls of the pagestore: one upload of pages, one download.
#include <stdio.h>
#include <stdlib.h>

#include "client/remote.h"
#include "client/remote_internal.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/net/http_server.h"

enum graft_status remote_write_pages(const struct remote *remote,
                                     long (*read)(void *context, void *to, size_t size), void *context,
                                     Graft__WritePagesResponse **ret_response, uint32_t *ret_retry_after_ms,
                                     struct graft_error *err)
{
    struct rpc_target target;
    char url[URL_SIZE_MAX + 32];
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(COMMIT_REQUEST_SIZE_MAX);
    struct http_outcome outcome = {0};
    struct graft_error why;
    ProtobufCMessage *message;

    enum graft_status status = remote_target(remote, remote->pagestore, "pagestore", &target, err);
    if (status != GRAFT_OK)
        return status;
    snprintf(url, sizeof url, "%s/v1/write_pages", remote->pagestore);
    struct http_exchange_spec spec = {.method = "POST",
                                      .url = url,
                                      .content_type = HTTP_STREAM,
                                      .accept = HTTP_PROTOBUF,
                                      .bearer = remote->bearer,
                                      .stall_ms = remote->deadline_ms,
                                      .response_max = COMMIT_REQUEST_SIZE_MAX,
                                      .read_body = read,
                                      .context = context};
    status = FAILPOINT_ERROR("remote.write_pages.before", err);
    if (status == GRAFT_OK)
        status = http_client_call(remote->http, &spec, &body, &outcome, err);
    *ret_retry_after_ms = outcome.retry_after_ms;
    if (status != GRAFT_OK)
        return error_context(err, status, "write_pages at %s", remote->pagestore);
    FAILPOINT("remote.write_pages.after");
    if (message_decode(&graft__write_pages_response__descriptor, buffer_bytes(&body),
                       4 * COMMIT_REQUEST_SIZE_MAX, &message, &why) != GRAFT_OK)
        return remote_protocol_error(err, "write_pages", why.message);
    *ret_response = (Graft__WritePagesResponse *)message;
    return GRAFT_OK;
}

// One read_pages exchange; lives from its start until its `done` has run.
struct read_call {
    struct remote_pages_sink sink;
    void *context;
    struct page_decoder *decoder;
    struct gid vid, owner;
    uint64_t lsn;
    struct hash128 chain;
    bool ended;
    struct graft_error error; // what ended the stream early, or what its End says; .status GRAFT_OK: nothing
};

static void read_call_free(struct read_call *call)
{
    if (!call)
        return;
    page_decoder_free(call->decoder);
    free(call);
}
DEFINE_CLEANUP(struct read_call, read_call_free)

static enum graft_status read_event(struct read_call *call, const struct page_event *event,
                                    struct graft_error *err)
{
    switch (event->type) {
    case PAGE_EVENT_BEGIN:
        if (!gid_equal(&event->vid, &call->vid) || event->lsn != call->lsn || !event->has_chain ||
            !hash_equal(&event->chain, &call->chain))
            return error_set(
                err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                "read_pages: asked for LSN %llu of volume %s, the pagestore answers for LSN %llu of %s or "
                "for another history",
                (unsigned long long)call->lsn, gid_format(&call->vid).text, (unsigned long long)event->lsn,
                gid_format(&event->vid).text);
        return GRAFT_OK;
    case PAGE_EVENT_OWNER:
        call->owner = event->owner;
        return GRAFT_OK;
    case PAGE_EVENT_PAGE:
        FAILPOINT("remote.read_pages.page");
        return call->sink.page(call->context, &call->owner, &event->page, event->data,
                               event->page.state == PAGE_STATE_DAMAGED ? &event->error : NULL, err);
    case PAGE_EVENT_END:
        call->ended = true;
        return event->error.status == GRAFT_OK ? GRAFT_OK : error_copy(err, &event->error);
    case PAGE_EVENT_NEED_MORE:
        break;
    }
    return GRAFT_OK;
}

static long read_data(void *context, const void *data, size_t size)
{
    struct read_call *call = context;
    struct bytes input = {data, size};
    enum graft_status status = GRAFT_OK;

    for (;;) {
        struct page_event event = {0};
        struct graft_error why;
        if (page_decoder_next(call->decoder, &input, &event, &why) != GRAFT_OK) {
            status = remote_protocol_error(&call->error, "read_pages", why.message);
            break;
        }
        if (event.type == PAGE_EVENT_NEED_MORE)
            break;
        status = read_event(call, &event, &call->error);
        if (status != GRAFT_OK)
            break;
    }
    // What arrived before an error is good and is kept.
    struct graft_error flush_error;
    enum graft_status flushed = call->sink.flush(call->context, &flush_error);
    if (status == GRAFT_OK && flushed != GRAFT_OK)
        status = error_copy(&call->error, &flush_error);
    return status == GRAFT_OK ? (long)size : HTTP_ABORT;
}

static void read_done(void *context, const struct http_outcome *outcome)
{
    _cleanup_(read_call_free_p) struct read_call *call = context;
    FAILPOINT("remote.read_pages.done");
    struct graft_error result = call->error;

    if (result.status == GRAFT_OK)
        result = outcome->error;
    if (result.status == GRAFT_OK && !call->ended)
        error_set(&result, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TRUNCATED,
                  "read_pages: the answer broke off before its end");
    if (result.status != GRAFT_OK)
        error_context(&result, result.status, "reading volume %s at LSN %llu", gid_format(&call->vid).text,
                      (unsigned long long)call->lsn);
    call->sink.done(call->context, &result, outcome->received_size);
}

enum graft_status remote_read_pages(const struct remote *remote, const struct gid *vid, uint64_t lsn,
                                    const struct hash128 *chain, const struct pageset *pages, uint32_t first,
                                    const struct remote_pages_sink *sink, void *context,
                                    struct http_exchange **ret_exchange, struct graft_error *err)
{
    struct rpc_target target;
    char url[URL_SIZE_MAX + 32];
    _cleanup_(buffer_release) struct buffer wire = BUFFER_INIT(READ_PAGES_REQUEST_SIZE_MAX);
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(READ_PAGES_REQUEST_SIZE_MAX);
    Graft__ReadPagesRequest request = GRAFT__READ_PAGES_REQUEST__INIT;

    CHECK(pageset_count(pages) > 0 && pageset_count(pages) <= READ_PAGES_MAX);
    CHECK(first == 0 || pageset_contains(pages, first));
    enum graft_status status = remote_target(remote, remote->pagestore, "pagestore", &target, err);
    if (status == GRAFT_OK)
        status = pageset_encode(pages, &wire, err);
    if (status != GRAFT_OK)
        return status;
    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.lsn = lsn;
    request.chain = binary_of(chain->bytes, HASH_SIZE);
    request.pages = binary_of(wire.data, wire.size);
    request.first = first;
    status = message_encode(&request.base, &body, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(read_call_free_p) struct read_call *call = calloc(1, sizeof *call);
    if (!call || !(call->decoder = page_decoder_new()))
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a request of pages");
    call->sink = *sink;
    call->context = context;
    call->vid = call->owner = *vid;
    call->lsn = lsn;
    call->chain = *chain;
    snprintf(url, sizeof url, "%s/v1/read_pages", remote->pagestore);
    struct http_exchange_spec spec = {.method = "POST",
                                      .url = url,
                                      .content_type = HTTP_PROTOBUF,
                                      .accept = HTTP_STREAM,
                                      .bearer = remote->bearer,
                                      .stall_ms = remote->deadline_ms,
                                      .body = buffer_bytes(&body),
                                      .response_max = ERROR_RESPONSE_SIZE_MAX,
                                      .on_data = read_data,
                                      .on_done = read_done,
                                      .context = call};
    status = FAILPOINT_ERROR("remote.read_pages.before", err);
    if (status == GRAFT_OK)
        status = http_client_start(remote->http, &spec, ret_exchange, err);
    if (status == GRAFT_OK)
        (void)TAKE(call);
    return status;
}
