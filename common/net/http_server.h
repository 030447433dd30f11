// SPDX-License-Identifier: Apache-2.0
//
// An HTTP/1.1 server over libmicrohttpd: routes, limits, bodies streamed both ways, answers given later from any thread.
//
// Rules:
// - Handlers run on the server's few threads and never block: no sync, no network, no wait for a worker. What takes time
//   is handed to a thread of its owner, which answers with http_respond() or http_respond_stream().
// - A request is answered once; what comes after the first answer is dropped. From `ready` (or within `begin` and `body`,
//   for a refusal) until the answer it stays valid, even if the peer has gone or the deadline has passed; `closed` is the
//   last call for it and comes after the answer. A peer that goes before `ready` has `closed` called without an answer.
// - `closed` runs on a thread of the server, with no lock held.
// - The server suspends a connection before it starts anything that could resume it, keeps a deadline for each suspended
//   request, and drains what is left of an upload after an early answer: at most DRAIN_SIZE_MAX, DRAIN_TIME_MAX_MS, and
//   DRAIN_IDLE_MAX_MS without a byte. Then the answer goes out in the middle of the upload, and the connection closes.
// - Refusals known from the headers (404, 405 with Allow, 411, 413, 415, 503) are answered by the server itself, as
//   protobuf Error messages, and reach no handler. A peer that waits for `100 Continue` gets them at once; from any
//   other the body is drained first, for an answer beside unread bytes is lost with the connection's reset.
#ifndef COMMON_NET_HTTP_SERVER_H
#define COMMON_NET_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/metrics.h"

struct http_server;
struct http_request;

#define HTTP_PROTOBUF "application/x-protobuf"
#define HTTP_STREAM "application/x-graft-stream"
#define HTTP_TEXT "text/plain; charset=utf-8"

struct http_route {
    const char *method; // "GET", "POST"
    const char *path;   // exact
    // What the request's Content-Type must be; NULL: no body expected.
    const char *content_type;
    // Unary routes (body == NULL): the server collects the body, at most body_max bytes, within the receive budget, and
    // needs a Content-Length. Streaming routes: body_max bounds the whole stream.
    uint64_t body_max;

    // All may be NULL but `ready`. `context` is the settings' context.
    // begin: the headers are in. A streaming route sets up here and may refuse by answering.
    void (*begin)(struct http_request *request, void *context);
    // body: bytes of a streaming upload. Returns how many were taken; fewer than `size` suspends the upload until
    // http_request_wake(). What it does not take is offered again. After an early answer it is no longer called.
    size_t (*body)(struct http_request *request, const void *data, size_t size);
    // ready: the body is complete (`whole` is empty for streaming routes; borrowed for the call). Answer now or later.
    // Not called once an early answer was given.
    void (*ready)(struct http_request *request, struct bytes whole);
    // closed: the exchange is over, sent or not. Release what http_request_set_state() gave.
    void (*closed)(struct http_request *request);
    // How long an answer may take after `ready`, and a stream may stand still for want of data from its source, before
    // the server answers 503 / cuts the stream. 0: no bound (watch).
    uint32_t deadline_ms;
    // Served even while draining (health, metrics).
    bool while_draining;
    // Of the route, for handlers that several servers share: http_request_route_data().
    const void *data;
};

struct http_server_settings {
    const char *listen; // "127.0.0.1:3001", "[::1]:0"; port 0 takes a free one
    const struct http_route *routes;
    size_t route_count;
    void *context;
    unsigned threads;
    unsigned connections_max;
    size_t connection_memory; // bytes a connection: libmicrohttpd's pool
    uint32_t idle_timeout_ms; // of a kept-alive connection and of a peer that sends or takes nothing
    const char *metrics_name; // prefix of labels: server="<name>"
    struct metrics *metrics;
};

// Starts to listen and to serve. Errors name the address.
enum graft_status http_server_start(const struct http_server_settings *settings,
                                    struct http_server **ret_server, struct graft_error *err);
// "127.0.0.1:40123": the address really bound. Lives as long as the server.
const char *http_server_address(const struct http_server *server);
// Answers 503 / STOPPING to what comes from now on, on new connections too, and waits until the accepted requests are
// done, at most `wait_ms`; then cuts the rest. Owners wake or end their streams meanwhile.
void http_server_drain(struct http_server *server, uint32_t wait_ms);
// After the drain: closes the listening socket and all connections. Waits for the answers that owners still owe (at most
// STOP_TIME_MAX_MS, then it logs and leaves the memory to them), so that none comes to freed memory. NULL is fine.
void http_server_stop(struct http_server *server);

// ---- one request --------------------------------------------------------------------------------------------------

void *http_request_context(const struct http_request *request); // the settings' context
void http_request_set_state(struct http_request *request, void *state);
void *http_request_state(const struct http_request *request);
// NULL if absent. The text lives until the answer: copy it where the deadline may answer first.
const char *http_request_header(const struct http_request *request, const char *name);
const void *http_request_route_data(const struct http_request *request);
bool http_request_answered(const struct http_request *request); // by the owner, a deadline, or a refusal

// Goes on with a suspended upload (body took less than it was offered) or a stream whose source had nothing. Any thread,
// any number of times; a wake that comes early is not lost. The caller holds a reference or knows the request unclosed.
void http_request_wake(struct http_request *request);

// Keeps the memory (not the connection) alive so that a late wake is harmless.
struct http_request *http_request_ref(struct http_request *request);
void http_request_unref(struct http_request *request);

// ---- answers, from any thread ---------------------------------------------------------------------------------------

// Content types and the strings of routes are literals: they are read until the server has stopped.

// Takes the buffer's bytes (moved out). `body` may be NULL.
void http_respond(struct http_request *request, unsigned code, const char *content_type, struct buffer *body);
// An Error message with the HTTP code that fits its status; Retry-After where given (seconds, 0: none).
void http_respond_error(struct http_request *request, const struct graft_error *error,
                        unsigned retry_after_s);

enum http_source_result {
    HTTP_SOURCE_DATA,  // *ret_size bytes were written, > 0
    HTTP_SOURCE_WAIT,  // nothing now: suspended until http_request_wake()
    HTTP_SOURCE_END,   // the body is complete
    HTTP_SOURCE_ABORT, // cut the connection: the peer must see a broken body
};

// Writes at most `size` bytes to `to`. Runs on a server thread, never blocks.
typedef enum http_source_result http_source_fn(struct http_request *request, void *to, size_t size,
                                               size_t *ret_size);

// Answers 200 with a chunked body.
void http_respond_stream(struct http_request *request, const char *content_type, http_source_fn *source);

// status → HTTP code: INVALID 400, DENIED 403, NOT_FOUND 404, CONFLICT and BUSY 409, GONE 410, LIMIT 413, UNAVAILABLE 503,
// CORRUPT, UNKNOWN and INTERNAL 500, CANCELLED 503; NO_SPACE 507.
unsigned http_code_of(const struct graft_error *error);

#endif
