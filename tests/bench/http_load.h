// SPDX-License-Identifier: Apache-2.0
//
// The one client behind every row that goes over HTTP, whichever server answers: kept-alive connections, driven by one
// thread, plain sockets, so that little of what is measured is the client's own. Requests are bytes made beforehand; of an
// answer at most body_max bytes are kept, the rest is read and dropped.
//
//     struct http_load *load = http_load_open("127.0.0.1:3000", 4, 0);
//     http_load_run(load, next, answered, context); // until `next` has no more for any connection
//     http_load_free(load);
//
// What cannot go on ends the program with a message (bench_fail). Not thread-safe.
#ifndef TESTS_BENCH_HTTP_LOAD_H
#define TESTS_BENCH_HTTP_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buffer.h"

struct http_load;

struct http_load *http_load_open(const char *address, unsigned connections, size_t body_max);
void http_load_free(struct http_load *load); // NULL is fine
DEFINE_CLEANUP(struct http_load, http_load_free)

// The head of a request; the body, if any, follows it. POST with a body of `size` bytes, else GET.
void http_load_head(struct buffer *to, const char *path, const char *content_type, size_t size);

struct http_answer_seen {
    int code;
    uint64_t size;     // of the body
    struct bytes body; // its first body_max bytes
};

// The next request of a connection, which must live until its answer. False: none is left for it.
typedef bool http_load_next_fn(void *context, unsigned connection, struct bytes *ret_request);
typedef void http_load_answered_fn(void *context, unsigned connection, const struct http_answer_seen *answer);

void http_load_run(struct http_load *load, http_load_next_fn *next, http_load_answered_fn *answered,
                   void *context);

// One call on the first connection. The answer's body lives until the next call.
struct http_answer_seen http_load_call(struct http_load *load, struct bytes request);

#endif
