// SPDX-License-Identifier: Apache-2.0
//
// Answers: stored by whoever gives them, queued by libmicrohttpd's thread, streamed chunk by chunk straight
// from the source into libmicrohttpd's buffer.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/http_internal.h"
#include "common/net/message.h"

// What a stream's response object sets aside for peers that know no chunked encoding.
#define PLAIN_STREAM_BLOCK_SIZE 4096

unsigned http_code_of(const struct graft_error *error)
{
    if (error->detail == GRAFT_DETAIL_NO_SPACE)
        return MHD_HTTP_INSUFFICIENT_STORAGE;
    switch (error->status) {
    case GRAFT_OK:
        return MHD_HTTP_OK;
    case GRAFT_INVALID:
        return MHD_HTTP_BAD_REQUEST;
    case GRAFT_DENIED:
        return MHD_HTTP_FORBIDDEN;
    case GRAFT_NOT_FOUND:
        return MHD_HTTP_NOT_FOUND;
    case GRAFT_CONFLICT:
    case GRAFT_BUSY:
        return MHD_HTTP_CONFLICT;
    case GRAFT_GONE:
        return MHD_HTTP_GONE;
    case GRAFT_LIMIT:
        return MHD_HTTP_CONTENT_TOO_LARGE;
    case GRAFT_UNAVAILABLE:
    case GRAFT_CANCELLED:
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    case GRAFT_CORRUPT:
    case GRAFT_UNKNOWN:
    case GRAFT_INTERNAL:
        break;
    }
    return MHD_HTTP_INTERNAL_SERVER_ERROR;
}

// An answer without memory for its body still has its code.
static struct http_answer error_answer(unsigned code, const struct graft_error *error, unsigned retry_after_s)
{
    struct http_answer answer = {
        .code = code,
        .content_type = HTTP_PROTOBUF,
        .body = BUFFER_INIT(ERROR_RESPONSE_SIZE_MAX),
        .retry_after_s = retry_after_s,
    };
    Graft__Error message;
    error_to_message(error, &message);
    if (message_encode(&message.base, &answer.body, NULL) != GRAFT_OK)
        answer.content_type = NULL;
    return answer;
}

void http_answer_release(struct http_answer *answer)
{
    buffer_release(&answer->body);
}

// ---- giving an answer -----------------------------------------------------------------------------------

// What is left of the upload is dropped from now on, for so long and so much of it.
static void drain_begin_locked(struct http_request *request)
{
    struct http_connection *connection = request->connection;
    const struct http_timing *timing = &connection->server->timing;
    uint64_t now_us = http_now_us();
    request->phase = HTTP_DRAIN;
    request->drain_received = request->looked_received = request->received;
    request->drain_until_us = now_us + timing->drain_ms * 1000ull;
    http_connection_set_deadline_locked(connection, now_us + timing->drain_idle_ms * 1000ull);
}

// Moves *answer into the request, or releases it where it comes too late.
static void give_locked(struct http_request *request, struct http_answer *answer)
{
    mutex_assert_held(&request->connection->lock);
    if (request->answer.given || request->phase >= HTTP_SEND) {
        http_answer_release(answer);
        return;
    }
    request->answer = *answer;
    request->answer.given = true;
    if (request->phase == HTTP_UPLOAD)
        drain_begin_locked(request);
    http_request_wake_locked(request);
}

void http_refuse_locked(struct http_request *request, unsigned code, const struct graft_error *error,
                        unsigned retry_after_s)
{
    struct http_answer answer = error_answer(code, error, retry_after_s);
    give_locked(request, &answer);
}

// The owner's answer. If the exchange ended before it (a deadline answered, or the connection was cut),
// `closed` has waited for it; it runs on the timers' thread, for the caller may hold locks.
static void give(struct http_request *request, struct http_answer answer)
{
    struct http_connection *connection = request->connection;
    mutex_lock(&connection->lock);
    bool was_asked = request->owner_asked;
    bool is_late = was_asked && request->phase == HTTP_OVER;
    request->owner_asked = false;
    give_locked(request, &answer);
    mutex_unlock(&connection->lock);
    if (is_late)
        http_request_close_later(request);
    else if (was_asked)
        http_request_unref(request);
}

void http_respond(struct http_request *request, unsigned code, const char *content_type, struct buffer *body)
{
    struct http_answer answer = {.code = code, .content_type = content_type};
    if (body)
        answer.body = buffer_take(body);
    give(request, answer);
}

void http_respond_error(struct http_request *request, const struct graft_error *error, unsigned retry_after_s)
{
    give(request, error_answer(http_code_of(error), error, retry_after_s));
}

void http_respond_stream(struct http_request *request, const char *content_type, http_source_fn *source)
{
    CHECK(source);
    give(request, (struct http_answer){.code = MHD_HTTP_OK, .content_type = content_type, .source = source});
}

// ---- putting it on the wire -----------------------------------------------------------------------------

// On entry libmicrohttpd runs the connection; false once it is cut.
static bool stream_enter(struct http_request *request)
{
    LOCK_GUARD(&request->connection->lock);
    request->run = HTTP_RUNNING;
    http_connection_set_deadline_locked(request->connection, 0);
    return !request->connection->cut;
}

// True: suspended until there is a wake. False: it came already, or the connection is cut.
static bool stream_wait(struct http_request *request)
{
    LOCK_GUARD(&request->connection->lock);
    uint64_t deadline_ms = request->route->deadline_ms;
    return http_request_park_locked(request, deadline_ms ? http_now_us() + deadline_ms * 1000 : 0);
}

static ssize_t stream_read(void *context, uint64_t position, char *to, size_t size)
{
    (void)position;
    struct http_request *request = context;
    while (stream_enter(request)) {
        size_t written = 0;
        switch (request->answer.source(request, to, size, &written)) {
        case HTTP_SOURCE_DATA:
            CHECK(written > 0 && written <= size);
            request->sent += written;
            return (ssize_t)written;
        case HTTP_SOURCE_WAIT:
            if (stream_wait(request))
                return 0;
            break;
        case HTTP_SOURCE_END:
            return MHD_CONTENT_READER_END_OF_STREAM;
        case HTTP_SOURCE_ABORT:
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
    }
    return MHD_CONTENT_READER_END_WITH_ERROR;
}

static struct MHD_Response *response_new(struct http_request *request)
{
    struct http_answer *answer = &request->answer;
    if (answer->source)
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, PLAIN_STREAM_BLOCK_SIZE, stream_read,
                                                 request, NULL);
    request->sent = answer->body.size;
    if (answer->body.size == 0)
        return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(answer->body.size, answer->body.data, MHD_RESPMEM_MUST_FREE);
    if (response) // it owns the bytes now
        answer->body = (struct buffer){0};
    return response;
}

static bool add_headers(struct MHD_Response *response, const struct http_request *request)
{
    const struct http_answer *answer = &request->answer;
    bool has_allow = answer->code == MHD_HTTP_METHOD_NOT_ALLOWED && request->allow[0];
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%u", answer->retry_after_s);
    return (!answer->content_type || MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
                                                             answer->content_type) == MHD_YES) &&
           (answer->retry_after_s == 0 ||
            MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, seconds) == MHD_YES) &&
           (!has_allow ||
            MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, request->allow) == MHD_YES);
}

enum MHD_Result http_answer_send(struct http_request *request)
{
    mutex_lock(&request->connection->lock);
    CHECK(request->answer.given && request->phase < HTTP_SEND && request->run != HTTP_SUSPENDED);
    request->phase = HTTP_SEND;
    http_connection_set_deadline_locked(request->connection, 0);
    mutex_unlock(&request->connection->lock);

    struct MHD_Response *response = response_new(request);
    if (!response)
        return MHD_NO;
    enum MHD_Result result = MHD_NO;
    if (add_headers(response, request))
        result = MHD_queue_response(request->mhd, request->answer.code, response);
    MHD_destroy_response(response); // the connection has its own reference
    return result;
}

void http_last_words_locked(struct http_request *request)
{
    struct http_connection *connection = request->connection;
    mutex_assert_held(&connection->lock);
    CHECK(connection->open && request->answer.given && request->phase < HTTP_SEND);
    const struct http_answer *answer = &request->answer;
    if (!answer->source && answer->body.size <= ERROR_RESPONSE_SIZE_MAX) {
        char head[256];
        int length =
            snprintf(head, sizeof head,
                     "HTTP/1.1 %u %s\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n",
                     answer->code, MHD_get_reason_phrase_for(answer->code),
                     answer->content_type ? answer->content_type : HTTP_TEXT, answer->body.size);
        CHECK(length > 0 && (size_t)length < sizeof head);
        struct iovec parts[] = {{head, (size_t)length}, {answer->body.data, answer->body.size}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = ARRAY_COUNT(parts)};
        // Nothing else of this exchange is in the socket's buffer, so this much goes in whole, or the peer is
        // gone.
        ssize_t sent = sendmsg(connection->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        request->last_words = sent == (ssize_t)((size_t)length + answer->body.size);
    }
    // libmicrohttpd sees the end of its input and closes the connection.
    connection->cut = true;
    shutdown(connection->socket, SHUT_RDWR);
}
