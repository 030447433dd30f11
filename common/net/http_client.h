// SPDX-License-Identifier: Apache-2.0
//
// An HTTP/1.1 client over libcurl's multi interface: one thread drives all exchanges, connections are kept alive,
// bodies stream both ways, every exchange has a deadline. After a timeout its connection is closed, not reused.
//
// Bodies above 1 MiB and all streamed ones are sent with Expect: 100-continue. A request that dies on a kept-alive
// connection before any byte of an answer came is sent once more on a fresh connection, by libcurl, POST as well: a call
// must bear to be seen twice. Proxies of the environment are not used, redirects are not followed.
//
// An exchange that ends without an answer is UNAVAILABLE if nothing was sent or if it is a mere download (GET, or a
// streamed answer to a request that was not streamed), else UNKNOWN; details TIMEOUT, TRUNCATED, UNREACHABLE, PROTOCOL.
//
// Callbacks of an exchange run on the client's thread, one at a time, and must not block for long nor call
// http_client_free(). `on_done` is the last of them and comes exactly once for each exchange that started.
#ifndef COMMON_NET_HTTP_CLIENT_H
#define COMMON_NET_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/metrics.h"

struct http_client;
struct http_exchange;

struct http_client_settings {
    unsigned connections_per_host_max; // 0: 8
    uint32_t connect_timeout_ms;       // 0: 5,000
    const char *user_agent;            // NULL: "graft/<version>"
    struct metrics *metrics;
};

enum graft_status http_client_new(const struct http_client_settings *settings,
                                  struct http_client **ret_client, struct graft_error *err);
// Cancels what is under way (their on_done runs with CANCELLED, blocked callers return) and refuses what comes later with
// CANCELLED / STOPPING. Any thread; the first step of stopping threads that make calls.
void http_client_stop(struct http_client *client);
// Stops, joins the thread. Nobody uses the client or resumes or cancels its exchanges any more; giving back references is
// fine. NULL is fine.
void http_client_free(struct http_client *client);
// Waits before another try; returns false at once when the client is stopped.
bool http_client_wait(struct http_client *client, uint32_t wait_ms);

// What reading an upload or taking a download answers, besides a count of bytes.
#define HTTP_PAUSE ((long)-1) // nothing now: go on after http_exchange_resume()
#define HTTP_ABORT ((long)-2) // end the exchange with CANCELLED

struct http_outcome {
    struct graft_error error; // .status GRAFT_OK: an answer with a 2xx code came, whole
    int code;                 // HTTP code, 0: no answer
    bool answered; // the error is the server's own well-formed Error message (not a proxy's, not ours)
    bool sent;     // false: certainly nothing of the request reached the server
    uint32_t retry_after_ms;           // from Retry-After, 0: none
    struct bytes body;                 // unary answers, and every error's body; borrowed for the call
    uint64_t sent_size, received_size; // body bytes
};

struct http_exchange_spec {
    const char *method; // NULL: "POST" with a body, "GET" without
    const char *url;
    const char *content_type; // of the body
    const char *accept; // what a 2xx answer's type must be; otherwise UNAVAILABLE / PROTOCOL. NULL: anything.
                        // At most 63 characters
    const char *bearer; // NULL: none
    uint32_t deadline_ms; // for the whole exchange; 0: none
    uint32_t stall_ms; // the longest time without a byte in either direction while neither is paused; 0: none

    struct bytes body; // copied
    long (*read_body)(void *context, void *to,
                      size_t size); // a streamed upload instead: bytes written, 0 at the end
    uint64_t response_max;          // of a unary answer; more gives LIMIT
    long (*on_data)(void *context, const void *data,
                    size_t size); // a streamed 2xx answer: returns `size`, or PAUSE
                                  // (the same bytes come again), or ABORT
    void (*on_done)(void *context, const struct http_outcome *outcome);
    void *context;
};

// Returns at once. On success `on_done` will come, perhaps before this returns. *ret_exchange (may be NULL) is a
// reference for resume and cancel: give it back with http_exchange_unref().
enum graft_status http_client_start(struct http_client *client, const struct http_exchange_spec *spec,
                                    struct http_exchange **ret_exchange, struct graft_error *err);
void http_exchange_resume(struct http_exchange *exchange); // any thread; an early one is not lost
void http_exchange_cancel(
    struct http_exchange *exchange); // any thread; on_done comes with CANCELLED, or had come
void http_exchange_unref(struct http_exchange *exchange); // NULL is fine

// Blocks until done (not on the client's thread). on_done must be NULL. *ret_body is initialised and gets a unary answer's
// body (its cap is response_max) or an error's, *ret_outcome the rest (its body is empty). Returns the outcome's status.
enum graft_status http_client_call(struct http_client *client, const struct http_exchange_spec *spec,
                                   struct buffer *ret_body, struct http_outcome *ret_outcome,
                                   struct graft_error *err);

// Jittered exponential backoff: base, doubling, capped; each delay uniform in [delay/2, delay].
struct backoff {
    uint32_t base_ms, cap_ms;
    unsigned attempt;
    uint64_t seed; // any; advanced at each use
};
uint32_t backoff_next_ms(struct backoff *backoff);
void backoff_reset(struct backoff *backoff);

#endif
