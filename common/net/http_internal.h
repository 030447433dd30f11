// SPDX-License-Identifier: Apache-2.0
//
// What the files of the HTTP server share: http_server.c (start, stop, connections and their deadlines),
// http_listen.c, http_head.c (what the headers decide), http_request.c (the body, `ready`, the end) and
// http_response.c (answers).
//
// A request is in one phase at a time:
//
//      first call of the handler
//            │ request_begin()
//            ▼
//         UPLOAD ──body complete: route->ready()──▶ WAIT ──answered──▶ SEND ──▶ OVER
//            │                                                          ▲        ▲
//            └──answered early──▶ DRAIN ──body complete─────────────────┘        │
//                                   └──too much, too long: last words, then cut──┘
//
// and, apart from that, libmicrohttpd either runs its connection or not:
//
//                    park: nothing to go on with
//         RUNNING ──────────────────────────────▶ SUSPENDED
//         ▲     │ wake                                │ wake: MHD_resume_connection()
//         │     ▼                                     ▼
//         └── WOKEN ◀─────────────────────────────────┘
//          re-entry, or park: look again instead
//
// Invariants:
// 1. MHD_suspend_connection() and MHD_resume_connection() are called under the connection's lock, the first
//    only on the way to SUSPENDED, the second only out of it. So no resume comes before its suspend
//    (libmicrohttpd would lose it) and none comes twice.
// 2. Responses are queued by libmicrohttpd's own thread, within a call of its handler. Other threads store an
//    answer and wake the connection.
// 3. A request is freed with its last reference: one is held by the exchange (until OVER), one for the
//    owner's answer from `ready` on, one for each http_request_ref().
// 4. `closed` runs once for each request whose `begin` was due: when the exchange is OVER and the owner, if
//    it was asked, has answered.
// 5. Once a connection is `cut`, it does not suspend again, so that the daemon can be stopped.
// 6. The socket is touched (last words, shutdown) only under the lock while the connection is `open`.
#ifndef COMMON_NET_HTTP_INTERNAL_H
#define COMMON_NET_HTTP_INTERNAL_H

#include <microhttpd.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/timer.h"
#include "common/net/http_server.h"

// The times that tests shorten.
struct http_timing {
    uint32_t head_ms;        // beyond the idle timeout, until the headers of a request must be in
    uint32_t rate_window_ms; // over which an upload must reach rate_min
    uint64_t rate_min;       // bytes a second
    uint32_t look_ms;        // how often an upload that stands still is looked at: has its peer gone?
    uint32_t drain_ms;       // an upload that was answered early is read for so long at most
    uint32_t drain_idle_ms;  // and given up when so long nothing comes
};

struct http_route_metrics {
    struct metric *by_class[6]; // [2] is 2xx; [0]: cut before an answer was sent
    struct metric *latency, *in_flight, *received, *sent;
};

struct http_server {
    struct http_server_settings settings;
    struct http_timing timing;
    struct http_route *routes;          // a copy
    struct http_route_metrics *metrics; // of each route; the last is for what no route took
    struct MHD_Daemon *daemon;
    struct timers *timers;
    char address[80];
    atomic_bool draining;
    _Atomic uint64_t budget_left; // bytes of whole bodies that may still be received at once

    struct mutex lock; // RANK_HTTP_SERVER
    struct cond changed;
    TAILQ_HEAD(, http_connection) connections; // lock
    bool cut;                                  // lock; connections that come now are born cut
    unsigned unclosed; // lock; requests begun and not yet closed, and late answers under way
};

struct http_connection {
    struct http_server *server;
    TAILQ_ENTRY(http_connection) entry; // server->lock
    atomic_uint references;
    int socket;
    struct mutex lock; // RANK_HTTP_REQUEST; guards all below and the request's fields that say so
    bool open;
    bool cut;
    struct http_request *request; // the one that is under way
    struct timer timer;
    uint64_t deadline_us; // when http_connection_due() must look, 0: never
    uint64_t armed_us;    // when the timer fires, 0: not armed; it is not armed anew for a later deadline
};

enum http_phase {
    HTTP_UPLOAD,
    HTTP_DRAIN,
    HTTP_WAIT,
    HTTP_SEND,
    HTTP_OVER,
};

enum http_run {
    HTTP_RUNNING,
    HTTP_SUSPENDED,
    HTTP_WOKEN,
};

struct http_answer {
    bool given;
    unsigned code;
    const char *content_type;
    struct buffer body;
    http_source_fn *source;
    unsigned retry_after_s;
};

struct http_request {
    struct http_connection *connection; // a reference
    struct MHD_Connection *mhd;         // libmicrohttpd's thread, or the lock and SUSPENDED
    const struct http_route *route;     // NULL: none matched
    const struct http_route_metrics *metrics;
    atomic_uint references;
    void *state; // the owner's

    enum http_phase phase;     // the connection's lock
    enum http_run run;         // the connection's lock
    struct http_answer answer; // the connection's lock; libmicrohttpd's thread alone from SEND on
    bool last_words;           // the connection's lock; the answer was written past libmicrohttpd
    bool owner_asked;          // the connection's lock; `ready` was called and the owner has not answered
    bool begun;                // `closed` is due
    char allow[32];            // of a 405

    // the connection's lock
    uint64_t received;        // body bytes taken or dropped
    uint64_t looked_received; // `received` at the last look
    uint64_t window_received; // `received` when the rate's window began
    uint64_t window_end_us;   // of the rate's window; while the upload is suspended: how much of it was left
    bool was_parked;          // the upload was suspended since it was last offered
    uint64_t drain_received;  // `received` when the drain began
    uint64_t drain_until_us;

    // libmicrohttpd's thread
    uint64_t started_us;
    uint64_t sent;
    uint64_t body_size; // Content-Length; UINT64_MAX: chunked
    struct buffer body; // unary
    uint64_t budget;    // taken from the server's
    struct timer closing;
};

static inline uint64_t http_now_us(void)
{
    return clock_monotonic_us(clock_system());
}

// http_listen.c
// Binds and listens; *ret_text gets the address really bound.
enum graft_status http_listen(const char *address, int *ret_listener, char *ret_text, size_t size,
                              struct graft_error *err);

// http_head.c
#define HTTP_LENGTH_CHUNKED UINT64_MAX
struct http_head {
    const char *content_type;
    const char *length, *encoding;
    bool has_expect;
    bool is_ambiguous; // two lengths, or a length and an encoding: where the request ends is a matter of
                       // opinion
    uint64_t body_size;
};
struct http_head http_head_read(struct MHD_Connection *mhd);
// Finds the route and takes the budget for its body. Returns the code of the refusal, or 0.
unsigned http_head_check(struct http_request *request, const struct http_head *head, const char *method,
                         const char *path, struct graft_error *error);

// http_server.c
enum graft_status http_server_start_timed(const struct http_server_settings *settings,
                                          const struct http_timing *timing, struct http_server **ret_server,
                                          struct graft_error *err);
void http_connection_unref(struct http_connection *connection);
void http_connection_set_deadline_locked(struct http_connection *connection, uint64_t deadline_us);
void http_server_enter(struct http_server *server); // one more unclosed
void http_server_leave(struct http_server *server); // one less: the caller's last touch of the server

// http_request.c
enum MHD_Result http_request_handle(void *server, struct MHD_Connection *mhd, const char *url,
                                    const char *method, const char *version, const char *upload,
                                    size_t *upload_size, void **state);
void http_request_completed(void *server, struct MHD_Connection *mhd, void **state,
                            enum MHD_RequestTerminationCode code);
// True: suspended, with that deadline. False: woken meanwhile, or cut: look again.
bool http_request_park_locked(struct http_request *request, uint64_t deadline_us);
void http_request_wake_locked(struct http_request *request);
// Runs `closed` on the timers' thread and gives up the caller's reference.
void http_request_close_later(struct http_request *request);
// A request whose deadline has come.
void http_request_due_locked(struct http_request *request, uint64_t now_us);

// http_response.c
// The server's own answer to what it does not pass on; dropped if there is an answer.
void http_refuse_locked(struct http_request *request, unsigned code, const struct graft_error *error,
                        unsigned retry_after_s);
// Queues the answer that was given. On libmicrohttpd's thread, within the handler.
enum MHD_Result http_answer_send(struct http_request *request);
// Writes the answer past libmicrohttpd, which queues none in the middle of an upload, and cuts the
// connection.
void http_last_words_locked(struct http_request *request);
void http_answer_release(struct http_answer *answer);

#endif
