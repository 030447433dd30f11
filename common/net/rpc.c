// SPDX-License-Identifier: Apache-2.0
#include "common/net/rpc.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "common/base/random.h"
#include "common/net/http_server.h"

#define URL_SIZE_MAX 2048
#define RETRY_BASE_MS 50
#define RETRY_CAP_MS 2000
// A decoded answer takes its own bytes again and a little for each field.
#define RESPONSE_MEMORY_MAX (2 * UNARY_RESPONSE_SIZE_MAX)

static enum graft_status build_url(const struct rpc_target *target, const char *call, char url[URL_SIZE_MAX],
                                   struct graft_error *err)
{
    int size = snprintf(url, URL_SIZE_MAX, "%s/v1/%s", target->url, call);
    if (size < 0 || size >= URL_SIZE_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "the URL of %s is longer than %d characters", call, URL_SIZE_MAX);
    return GRAFT_OK;
}

// Token and snapshot of a server's own Error message; what is malformed in it is left out.
static void read_error_body(struct bytes body, struct rpc_failure *failure)
{
    ProtobufCMessage *message = NULL;
    if (message_decode(&graft__error__descriptor, body, 4 * ERROR_RESPONSE_SIZE_MAX, &message, NULL) !=
        GRAFT_OK)
        return;
    const Graft__Error *error = (const Graft__Error *)message;
    failure->has_token =
        token_from_bytes(bytes_of(&error->token), "token", &failure->token, NULL) == GRAFT_OK;
    failure->has_snapshot =
        error->snapshot && snapshot_from_message(error->snapshot, &failure->snapshot, NULL) == GRAFT_OK;
    message_free(message);
}

static void fill_failure(const struct http_outcome *outcome, struct bytes body,
                         struct rpc_failure *ret_failure)
{
    if (!ret_failure)
        return;
    *ret_failure = (struct rpc_failure){
        .answered = outcome->answered,
        .sent = outcome->sent,
        .retry_after_ms = outcome->retry_after_ms,
    };
    if (outcome->answered)
        read_error_body(body, ret_failure);
}

// ---- calls --------------------------------------------------------------------------------------------

enum graft_status rpc_call_bytes(const struct rpc_target *target, const char *call, struct bytes request,
                                 const ProtobufCMessageDescriptor *response, ProtobufCMessage **ret_response,
                                 struct rpc_failure *ret_failure, struct graft_error *err)
{
    char url[URL_SIZE_MAX];
    struct graft_error cause = {0};
    struct http_outcome outcome = {0};
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(0);
    enum graft_status status = build_url(target, call, url, err);
    if (status != GRAFT_OK)
        return status;
    struct http_exchange_spec spec = {
        .method = "POST",
        .url = url,
        .content_type = HTTP_PROTOBUF,
        .accept = HTTP_PROTOBUF,
        .bearer = target->bearer,
        .deadline_ms = target->deadline_ms,
        .body = request,
        .response_max = UNARY_RESPONSE_SIZE_MAX,
    };
    status = http_client_call(target->http, &spec, &body, &outcome, &cause);
    if (status == GRAFT_OK) {
        status = message_decode(response, buffer_bytes(&body), RESPONSE_MEMORY_MAX, ret_response, &cause);
        if (status == GRAFT_OK)
            return GRAFT_OK;
        cause.detail = GRAFT_DETAIL_PROTOCOL;
        error_context(&cause, status, "the answer to %s from %s", call, target->url);
    }
    fill_failure(&outcome, buffer_bytes(&body), ret_failure);
    if (outcome.answered)
        error_context(&cause, status, "%s at %s", call, target->url);
    else if (outcome.sent)
        cause.status = GRAFT_UNKNOWN;
    return error_copy(err, &cause);
}

enum graft_status rpc_call(const struct rpc_target *target, const char *call, const ProtobufCMessage *request,
                           const ProtobufCMessageDescriptor *response, ProtobufCMessage **ret_response,
                           struct rpc_failure *ret_failure, struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(COMMIT_REQUEST_SIZE_MAX);
    enum graft_status status = message_encode(request, &bytes, err);
    if (status != GRAFT_OK) {
        if (ret_failure)
            *ret_failure = (struct rpc_failure){0};
        return error_context(err, status, "calling %s", call);
    }
    return rpc_call_bytes(target, call, buffer_bytes(&bytes), response, ret_response, ret_failure, err);
}

bool rpc_is_transient(const struct graft_error *error)
{
    return error->status == GRAFT_UNAVAILABLE || error->status == GRAFT_UNKNOWN;
}

enum graft_status rpc_call_retry(const struct rpc_target *target, const char *call,
                                 const ProtobufCMessage *request, const ProtobufCMessageDescriptor *response,
                                 unsigned attempts, ProtobufCMessage **ret_response,
                                 struct rpc_failure *ret_failure, struct graft_error *err)
{
    struct backoff backoff = {.base_ms = RETRY_BASE_MS, .cap_ms = RETRY_CAP_MS};
    struct rpc_failure failure = {0};
    struct graft_error error = {0};
    random_bytes(&backoff.seed, sizeof backoff.seed);
    for (unsigned attempt = 1;; attempt++) {
        enum graft_status status = rpc_call(target, call, request, response, ret_response, &failure, &error);
        if (status == GRAFT_OK)
            return GRAFT_OK;
        if (!rpc_is_transient(&error) || attempt >= attempts)
            break;
        uint32_t wait_ms = backoff_next_ms(&backoff);
        if (!http_client_wait(target->http, MAX(wait_ms, failure.retry_after_ms))) {
            error_set(&error, GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING,
                      "%s at %s was not tried again: stopping", call, target->url);
            break;
        }
    }
    if (ret_failure)
        *ret_failure = failure;
    return error_copy(err, &error);
}

// ---- streams ------------------------------------------------------------------------------------------

struct rpc_stream {
    char *call, *url; // of the target, for messages
    struct http_exchange *exchange;
    rpc_frame_fn *on_frame;
    void *context;

    // the HTTP client's thread, then (once done) whoever finishes
    struct frame_reader frames;
    bool end_seen;
    struct graft_error frame_error; // ended the stream from our side
    struct graft_error error;       // the exchange's
    struct rpc_failure failure;

    struct mutex lock;
    struct cond done_changed;
    bool ended;                    // lock: on_end is called by whoever sets it
    bool done;                     // lock
    void (*on_end)(void *context); // lock
    void *end_context;             // lock
};

static enum graft_status take_frames(struct rpc_stream *stream, struct bytes input)
{
    struct graft_error *err = &stream->frame_error;
    for (;;) {
        struct bytes frame;
        bool whole;
        if (stream->end_seen && input.size > 0)
            return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                             "the stream goes on after its end");
        enum graft_status status = frame_reader_next(&stream->frames, &input, &frame, &whole, err);
        if (status != GRAFT_OK) {
            err->status = GRAFT_UNAVAILABLE;
            err->detail = GRAFT_DETAIL_PROTOCOL;
            return err->status;
        }
        if (!whole)
            return GRAFT_OK;
        status = stream->on_frame(stream->context, frame, &stream->end_seen, err);
        if (status != GRAFT_OK)
            return status;
    }
}

static long on_stream_data(void *context, const void *data, size_t size)
{
    struct rpc_stream *stream = context;
    enum graft_status status = take_frames(stream, (struct bytes){data, size});
    if (status == GRAFT_OK)
        return (long)size;
    error_context(&stream->frame_error, status, "%s at %s", stream->call, stream->url);
    return HTTP_ABORT;
}

static void on_stream_done(void *context, const struct http_outcome *outcome)
{
    struct rpc_stream *stream = context;
    stream->error = outcome->error;
    fill_failure(outcome, outcome->body, &stream->failure);
    mutex_lock(&stream->lock);
    void (*on_end)(void *) = stream->on_end;
    void *end_context = stream->end_context;
    stream->ended = true;
    mutex_unlock(&stream->lock);
    // Whoever finishes the stream may free what on_end works on: that comes after it.
    if (on_end)
        on_end(end_context);
    LOCK_GUARD(&stream->lock);
    stream->done = true;
    // The stream is freed as soon as its owner can take the lock: signal while holding it.
    cond_signal(&stream->done_changed);
}

static void stream_free(struct rpc_stream *stream)
{
    http_exchange_unref(stream->exchange);
    frame_reader_release(&stream->frames);
    cond_release(&stream->done_changed);
    mutex_release(&stream->lock);
    free(stream->call);
    free(stream->url);
    free(stream);
}

static struct rpc_stream *stream_new(const struct rpc_target *target, const char *call, size_t frame_max)
{
    struct rpc_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    mutex_init(&stream->lock, RANK_LEAF);
    cond_init(&stream->done_changed);
    frame_reader_init(&stream->frames, frame_max);
    stream->call = strdup(call);
    stream->url = strdup(target->url);
    if (stream->call && stream->url)
        return stream;
    stream_free(stream);
    return NULL;
}

enum graft_status rpc_stream_start(const struct rpc_target *target, const char *call,
                                   const ProtobufCMessage *request, size_t frame_max, uint32_t stall_ms,
                                   rpc_frame_fn *on_frame, void *context, struct rpc_stream **ret_stream,
                                   struct graft_error *err)
{
    char url[URL_SIZE_MAX];
    _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(COMMIT_REQUEST_SIZE_MAX);
    enum graft_status status = build_url(target, call, url, err);
    if (status == GRAFT_OK)
        status = message_encode(request, &bytes, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "calling %s", call);
    struct rpc_stream *stream = stream_new(target, call, frame_max);
    if (!stream)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to call %s", call);
    stream->on_frame = on_frame;
    stream->context = context;
    struct http_exchange_spec spec = {
        .method = "POST",
        .url = url,
        .content_type = HTTP_PROTOBUF,
        .accept = HTTP_STREAM,
        .bearer = target->bearer,
        .stall_ms = stall_ms,
        .body = buffer_bytes(&bytes),
        .on_data = on_stream_data,
        .on_done = on_stream_done,
        .context = stream,
    };
    status = http_client_start(target->http, &spec, &stream->exchange, err);
    if (status != GRAFT_OK) {
        stream_free(stream);
        return status;
    }
    *ret_stream = stream;
    return GRAFT_OK;
}

void rpc_stream_on_end(struct rpc_stream *stream, void (*on_end)(void *context), void *context)
{
    mutex_lock(&stream->lock);
    CHECK(!stream->on_end);
    stream->on_end = on_end;
    stream->end_context = context;
    bool ended = stream->ended;
    mutex_unlock(&stream->lock);
    if (ended)
        on_end(context);
}

void rpc_stream_cancel(struct rpc_stream *stream)
{
    http_exchange_cancel(stream->exchange);
}

// What a stream that is over amounts to. The closing frame makes it whole, whatever became of the connection
// after it.
static enum graft_status stream_result(const struct rpc_stream *stream, struct graft_error *err)
{
    if (stream->frame_error.status != GRAFT_OK)
        return error_copy(err, &stream->frame_error);
    if (stream->end_seen)
        return GRAFT_OK;
    if (stream->error.status == GRAFT_OK)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TRUNCATED,
                         "%s at %s: the stream stops without its closing frame", stream->call, stream->url);
    struct graft_error cause = stream->error;
    if (stream->failure.answered)
        error_context(&cause, cause.status, "%s at %s", stream->call, stream->url);
    else if (cause.status != GRAFT_CANCELLED)
        cause.status = GRAFT_UNAVAILABLE;
    return error_copy(err, &cause);
}

enum graft_status rpc_stream_finish(struct rpc_stream *stream, struct rpc_failure *ret_failure,
                                    struct graft_error *err)
{
    mutex_lock(&stream->lock);
    while (!stream->done)
        cond_wait(&stream->done_changed, &stream->lock);
    mutex_unlock(&stream->lock);
    enum graft_status status = stream_result(stream, err);
    if (status != GRAFT_OK && ret_failure)
        *ret_failure = stream->failure;
    stream_free(stream);
    return status;
}
