// SPDX-License-Identifier: Apache-2.0
//
// Invariants:
//   1. At most one job of a stream is with the pool; only that job touches `reader`.
//   2. `ready` holds whole frames from the position `sent` on; once `ended`, its last is the closing frame.
#include "metastore/log_stream.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"

#define READY_LOW_SIZE (128 * KIB)

struct log_stream {
    struct job job;
    struct pool *readers;
    struct http_request *request;
    struct log_reader reader; // the job's

    struct mutex lock; // for what follows
    struct buffer ready;
    size_t sent;
    uint64_t count; // commits in all
    bool filling;   // the job is with the pool
    bool ended;     // nothing comes behind `ready`
    bool closed;    // the exchange is over
};

static void log_stream_free(struct log_stream *stream)
{
    log_reader_release(&stream->reader);
    buffer_release(&stream->ready);
    mutex_release(&stream->lock);
    http_request_unref(stream->request);
    free(stream);
}

static void append_end_locked(struct log_stream *stream, const struct graft_error *error)
{
    mutex_assert_held(&stream->lock);
    Graft__StreamEnd end = GRAFT__STREAM_END__INIT;
    Graft__Error message = GRAFT__ERROR__INIT;
    Graft__CommitsFrame frame = GRAFT__COMMITS_FRAME__INIT;
    end.status = error->status;
    end.count = stream->count;
    if (error->status != GRAFT_OK) {
        error_to_message(error, &message);
        end.error = &message;
    }
    frame.frame_case = GRAFT__COMMITS_FRAME__FRAME_END;
    frame.end = &end;
    CHECK(message_encode_frame(&frame.base, &stream->ready, NULL) == GRAFT_OK);
    stream->ended = true;
}

// On a reader thread: one more piece.
static void fill(struct job *job)
{
    struct log_stream *stream = CONTAINER_OF(job, struct log_stream, job);
    _cleanup_(buffer_release) struct buffer piece = BUFFER_INIT(2 * COMMIT_RECORD_SIZE_MAX);
    struct graft_error error = {.status = GRAFT_OK};
    uint64_t count = 0;
    if (!log_reader_is_done(&stream->reader))
        log_reader_next(&stream->reader, &piece, &count, &error);

    mutex_lock(&stream->lock);
    buffer_consume(&stream->ready, stream->sent);
    stream->sent = 0;
    if (error.status == GRAFT_OK)
        buffer_append(&stream->ready, piece.data, piece.size, &error);
    if (error.status == GRAFT_OK)
        stream->count += count;
    if (error.status != GRAFT_OK || log_reader_is_done(&stream->reader))
        append_end_locked(stream, &error);
    stream->filling = false;
    bool closed = stream->closed;
    struct http_request *request = http_request_ref(stream->request);
    mutex_unlock(&stream->lock);
    if (closed)
        log_stream_free(stream);
    else
        http_request_wake(request);
    http_request_unref(request);
}

// Sends the reader for more where it is time. Called without the lock: the job may run at once.
static void want_more(struct log_stream *stream)
{
    struct graft_error error;
    mutex_lock(&stream->lock);
    bool want = !stream->filling && !stream->ended && stream->ready.size - stream->sent < READY_LOW_SIZE;
    stream->filling |= want;
    mutex_unlock(&stream->lock);
    if (!want || pool_submit(stream->readers, &stream->job, &error) == GRAFT_OK)
        return;
    mutex_lock(&stream->lock);
    stream->filling = false;
    error.status = GRAFT_UNAVAILABLE;
    append_end_locked(stream, &error);
    mutex_unlock(&stream->lock);
}

static enum http_source_result source(struct http_request *request, void *to, size_t size, size_t *ret_size)
{
    struct log_stream *stream = http_request_state(request);
    want_more(stream);
    LOCK_GUARD(&stream->lock);
    size_t left = stream->ready.size - stream->sent;
    if (left == 0)
        return stream->ended ? HTTP_SOURCE_END : HTTP_SOURCE_WAIT;
    FAILPOINT("commits.piece");
    *ret_size = MIN(left, size);
    memcpy(to, stream->ready.data + stream->sent, *ret_size);
    stream->sent += *ret_size;
    if (stream->sent == stream->ready.size) {
        buffer_clear(&stream->ready);
        stream->sent = 0;
    }
    return HTTP_SOURCE_DATA;
}

void log_stream_start(struct http_request *request, struct objstore *store, struct pool *readers,
                      const struct gid *vid, uint64_t first_lsn, uint64_t last_lsn)
{
    FAILPOINT("commits.begin");
    struct log_stream *stream = calloc(1, sizeof *stream);
    CHECK(stream);
    stream->job.run = fill;
    stream->readers = readers;
    stream->request = http_request_ref(request);
    mutex_init(&stream->lock, RANK_META_STREAM);
    // What is nearly sent, one piece, and the closing frame.
    buffer_init(&stream->ready, READY_LOW_SIZE + 3 * COMMIT_RECORD_SIZE_MAX);
    log_reader_init(&stream->reader, store, vid, first_lsn, last_lsn);
    http_request_set_state(request, stream);
    http_respond_stream(request, HTTP_STREAM, source);
}

void log_stream_closed(struct http_request *request)
{
    struct log_stream *stream = http_request_state(request);
    if (!stream)
        return;
    mutex_lock(&stream->lock);
    stream->closed = true;
    bool filling = stream->filling; // then the job frees it
    mutex_unlock(&stream->lock);
    if (!filling)
        log_stream_free(stream);
}
