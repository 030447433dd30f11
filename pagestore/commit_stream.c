// SPDX-License-Identifier: Apache-2.0
#include "pagestore/commit_stream.h"

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/net/http_server.h"

#define STALL_MS 10000u
#define FRAME_SIZE_MAX (COMMIT_RECORD_SIZE_MAX + 64)
#define FRAME_MEMORY_MAX (2 * COMMIT_RECORD_SIZE_MAX)

// What cannot be decoded is the metastore's fault (or a proxy's), not that of whoever waits for the commits.
static enum graft_status garbled(struct graft_error *err)
{
    if (err->status == GRAFT_INTERNAL)
        return err->status;
    err->status = GRAFT_UNAVAILABLE;
    err->detail = GRAFT_DETAIL_PROTOCOL;
    return error_context(err, GRAFT_UNAVAILABLE, "the metastore's commits");
}

static enum graft_status take_commit(struct commit_stream *stream, const Graft__Commit *commit,
                                     struct graft_error *err)
{
    if (commit->lsn != stream->next || (stream->to && commit->lsn > stream->to))
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                         "the metastore sent commit %llu out of order", (unsigned long long)commit->lsn);
    stream->next++;
    return stream->on_commit(stream, commit, err);
}

static enum graft_status take_end(struct commit_stream *stream, const Graft__StreamEnd *end,
                                  struct graft_error *err)
{
    struct graft_error error;
    stream->ended = true;
    if (end->status == GRAFT_OK)
        return GRAFT_OK;
    if (!end->error)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                         "the metastore's commits ended with status %d and no error", (int)end->status);
    error_from_message(end->error, &error);
    return error_copy(err, &error);
}

static enum graft_status take_frame(struct commit_stream *stream, struct bytes wire, struct graft_error *err)
{
    ProtobufCMessage *message;
    enum graft_status status =
        message_decode(&graft__commits_frame__descriptor, wire, FRAME_MEMORY_MAX, &message, err);
    if (status != GRAFT_OK)
        return garbled(err);
    const Graft__CommitsFrame *frame = (const Graft__CommitsFrame *)message;
    FAILPOINT("catchup.frame");
    if (stream->ended)
        status =
            error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL, "the metastore sent more after the end");
    else if (frame->frame_case == GRAFT__COMMITS_FRAME__FRAME_COMMIT)
        status = take_commit(stream, frame->commit, err);
    else if (frame->frame_case == GRAFT__COMMITS_FRAME__FRAME_END)
        status = take_end(stream, frame->end, err);
    message_free(message);
    return status;
}

static long on_data(void *context, const void *data, size_t size)
{
    struct commit_stream *stream = context;
    struct bytes input = {data, size}, frame;
    struct graft_error err, piece_err;
    enum graft_status status, piece = GRAFT_OK;
    bool whole;
    do {
        status = frame_reader_next(&stream->frames, &input, &frame, &whole, &err);
        if (status != GRAFT_OK)
            status = garbled(&err);
        else if (whole)
            status = take_frame(stream, frame, &err);
    } while (status == GRAFT_OK && whole);
    if (stream->on_piece)
        piece = stream->on_piece(stream, &piece_err);
    if (status == GRAFT_OK && piece == GRAFT_OK)
        return (long)size;
    stream->error = status != GRAFT_OK ? err : piece_err;
    return HTTP_ABORT;
}

static void on_done(void *context, const struct http_outcome *outcome)
{
    struct commit_stream *stream = context;
    struct graft_error error = stream->error;
    if (error.status == GRAFT_OK && outcome->error.status != GRAFT_OK)
        error = outcome->error;
    if (error.status == GRAFT_OK && !stream->ended)
        error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TRUNCATED,
                  "the metastore's commits ended without their closing frame");
    // A call that was sent and not answered is no mystery here: reading changes nothing.
    if (error.status == GRAFT_UNKNOWN)
        error.status = GRAFT_UNAVAILABLE;
    stream->on_end(stream, &error);
}

enum graft_status commit_stream_start(struct commit_stream *stream,
                                      const struct commit_stream_request *request, struct graft_error *err)
{
    Graft__CommitsRequest message = GRAFT__COMMITS_REQUEST__INIT;
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(UNARY_REQUEST_SIZE_MAX);
    frame_reader_release(&stream->frames);
    frame_reader_init(&stream->frames, FRAME_SIZE_MAX);
    stream->next = request->from;
    stream->to = request->to;
    stream->ended = false;
    stream->error = (struct graft_error){.status = GRAFT_OK};
    message.vid = binary_of(request->vid->bytes, GID_SIZE);
    message.from_lsn = request->from;
    message.to_lsn = request->to;
    enum graft_status status = message_encode(&message.base, &body, err);
    if (status != GRAFT_OK)
        return status;
    struct http_exchange_spec spec = {
        .url = request->url,
        .content_type = HTTP_PROTOBUF,
        .accept = HTTP_STREAM,
        .deadline_ms = request->deadline_ms,
        .stall_ms = STALL_MS,
        .body = buffer_bytes(&body),
        .on_data = on_data,
        .on_done = on_done,
        .context = stream,
    };
    return http_client_start(request->http, &spec, NULL, err);
}

void commit_stream_release(struct commit_stream *stream)
{
    frame_reader_release(&stream->frames);
}
