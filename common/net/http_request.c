// SPDX-License-Identifier: Apache-2.0
//
// A request from its first call to its end: the body, `ready`, deadlines, and what its owner may ask of it.
// The phases and their locks are in http_internal.h.
#include <stdlib.h>
#include <sys/socket.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/http_internal.h"

// ---- the beginning --------------------------------------------------------------------------------------

static void refuse(struct http_request *request, unsigned code, unsigned retry_after_s,
                   const struct graft_error *error)
{
    LOCK_GUARD(&request->connection->lock);
    http_refuse_locked(request, code, error, retry_after_s);
}

static struct http_request *request_new(struct http_connection *connection, struct MHD_Connection *mhd)
{
    struct http_request *request = calloc(1, sizeof *request);
    if (!request)
        return NULL;
    request->connection = connection;
    request->mhd = mhd;
    request->references = 1;
    request->started_us = http_now_us();
    LOCK_GUARD(&connection->lock);
    CHECK(!connection->request);
    if (connection->cut) {
        free(request);
        return NULL;
    }
    atomic_fetch_add(&connection->references, 1);
    connection->request = request;
    return request;
}

// The rate's window, or what is left of it, from now on.
static void window_begin_locked(struct http_request *request, uint64_t now_us, uint64_t left_us)
{
    struct http_connection *connection = request->connection;
    request->window_end_us = now_us + left_us;
    request->looked_received = request->received;
    http_connection_set_deadline_locked(connection,
                                        now_us + MIN(left_us, connection->server->timing.look_ms * 1000ull));
}

static enum MHD_Result request_begin(struct http_connection *connection, struct MHD_Connection *mhd,
                                     const char *path, const char *method, void **ret_request)
{
    if (!connection)
        return MHD_NO; // there was no memory for it
    struct http_request *request = request_new(connection, mhd);
    if (!request)
        return MHD_NO;
    struct http_server *server = connection->server;
    http_server_enter(server);
    *ret_request = request;

    struct http_head head = http_head_read(mhd);
    request->body_size = head.body_size;
    struct graft_error error;
    unsigned code = http_head_check(request, &head, method, path, &error);
    metric_add(request->metrics->in_flight, 1);
    if (code != 0) {
        refuse(request, code, code == MHD_HTTP_SERVICE_UNAVAILABLE ? 1 : 0, &error);
    } else {
        request->begun = true;
        if (request->route->begin)
            request->route->begin(request, server->settings.context);
    }
    if (head.body_size == 0 && !head.is_ambiguous)
        return MHD_YES; // the next call comes at once, and an answer then leaves the connection usable

    mutex_lock(&connection->lock);
    bool is_refused = request->answer.given;
    if (!is_refused)
        window_begin_locked(request, request->started_us, server->timing.rate_window_ms * 1000ull);
    mutex_unlock(&connection->lock);
    // An answer queued here closes the connection, and the kernel takes it back from a peer that is still
    // sending: it must be one that waits for a 100, or whose body is too long to be read for politeness, or
    // has no certain end.
    bool is_endless =
        head.is_ambiguous || (head.body_size != HTTP_LENGTH_CHUNKED && head.body_size > DRAIN_SIZE_MAX);
    if (is_refused && (head.has_expect || is_endless))
        return http_answer_send(request);
    return MHD_YES;
}

// ---- suspending and going on ----------------------------------------------------------------------------

bool http_request_park_locked(struct http_request *request, uint64_t deadline_us)
{
    struct http_connection *connection = request->connection;
    mutex_assert_held(&connection->lock);
    CHECK(request->run != HTTP_SUSPENDED);
    if (request->run == HTTP_WOKEN || connection->cut) {
        request->run = HTTP_RUNNING;
        return false;
    }
    request->run = HTTP_SUSPENDED;
    http_connection_set_deadline_locked(connection, deadline_us);
    MHD_suspend_connection(request->mhd);
    return true;
}

void http_request_wake_locked(struct http_request *request)
{
    mutex_assert_held(&request->connection->lock);
    if (request->phase == HTTP_OVER)
        return;
    enum http_run before = request->run;
    request->run = HTTP_WOKEN;
    if (before == HTTP_SUSPENDED)
        MHD_resume_connection(request->mhd);
}

void http_request_wake(struct http_request *request)
{
    LOCK_GUARD(&request->connection->lock);
    http_request_wake_locked(request);
}

// ---- the body -------------------------------------------------------------------------------------------

// Drops what an upload still brings after its answer. NO: it brings too much.
static enum MHD_Result drain_locked(struct http_request *request, size_t size)
{
    request->received += size;
    if (request->received - request->drain_received <= DRAIN_SIZE_MAX)
        return MHD_YES;
    http_last_words_locked(request);
    return MHD_NO;
}

static enum MHD_Result collect(struct http_request *request, const char *data, size_t size)
{
    CHECK(size <= request->body_size - request->received);
    struct graft_error error;
    enum graft_status status = buffer_reserve(&request->body, request->body_size - request->received, &error);
    if (status == GRAFT_OK)
        status = buffer_append(&request->body, data, size, &error);
    LOCK_GUARD(&request->connection->lock);
    if (status != GRAFT_OK)
        http_refuse_locked(request, http_code_of(&error), &error, 0);
    if (request->answer.given)
        return drain_locked(request, size);
    request->received += size;
    return MHD_YES;
}

// After the owner took `taken` of what it was offered. True: offer the rest again.
static bool offered(struct http_request *request, size_t taken, size_t *rest, enum MHD_Result *ret_result)
{
    struct http_connection *connection = request->connection;
    LOCK_GUARD(&connection->lock);
    request->received += taken;
    *rest -= taken;
    *ret_result = MHD_YES;
    if (request->answer.given) {
        *ret_result = drain_locked(request, *rest);
        *rest = 0;
        return false;
    }
    if (*rest == 0)
        return false;
    uint64_t now_us = http_now_us(), deadline_ms = request->route->deadline_ms;
    if (http_request_park_locked(request, deadline_ms ? now_us + deadline_ms * 1000 : 0)) {
        request->window_end_us -= MIN(now_us, request->window_end_us);
        request->was_parked = true;
        return false;
    }
    *ret_result = MHD_NO;
    return !connection->cut;
}

static enum MHD_Result offer(struct http_request *request, const char *data, size_t *size)
{
    if (*size > request->route->body_max - request->received) {
        struct graft_error error;
        error_set(&error, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "%s takes a body of at most %llu bytes",
                  request->route->path, (unsigned long long)request->route->body_max);
        LOCK_GUARD(&request->connection->lock);
        http_refuse_locked(request, http_code_of(&error), &error, 0);
        enum MHD_Result result = drain_locked(request, *size);
        *size = 0;
        return result;
    }
    enum MHD_Result result;
    size_t rest = *size, taken;
    do {
        taken = request->route->body(request, data + (*size - rest), rest);
        CHECK(taken <= rest);
    } while (offered(request, taken, &rest, &result));
    *size = rest;
    return result;
}

static enum MHD_Result request_body(struct http_request *request, const char *data, size_t *size)
{
    struct http_connection *connection = request->connection;
    mutex_lock(&connection->lock);
    if (request->was_parked && request->phase == HTTP_UPLOAD)
        window_begin_locked(request, http_now_us(), request->window_end_us);
    request->was_parked = false;
    request->run = HTTP_RUNNING;
    if (connection->cut || request->answer.given) {
        enum MHD_Result result = connection->cut ? MHD_NO : drain_locked(request, *size);
        mutex_unlock(&connection->lock);
        *size = 0;
        return result;
    }
    mutex_unlock(&connection->lock);
    if (request->route->body)
        return offer(request, data, size);
    enum MHD_Result result = collect(request, data, *size);
    *size = 0;
    return result;
}

// ---- the answer -----------------------------------------------------------------------------------------

static void body_release(struct http_request *request)
{
    buffer_release(&request->body);
    atomic_fetch_add(&request->connection->server->budget_left, request->budget);
    request->budget = 0;
}

// The body is complete: asks the owner, once. On return the lock is held.
static void ask_owner(struct http_request *request)
{
    struct http_connection *connection = request->connection;
    request->phase = HTTP_WAIT;
    request->owner_asked = true;
    http_connection_set_deadline_locked(connection, 0);
    http_request_ref(request);
    mutex_unlock(&connection->lock);
    request->route->ready(request, buffer_bytes(&request->body));
    body_release(request);
    mutex_lock(&connection->lock);
}

static enum MHD_Result request_complete(struct http_request *request)
{
    struct http_connection *connection = request->connection;
    mutex_lock(&connection->lock);
    request->run = HTTP_RUNNING;
    uint64_t deadline_us = connection->deadline_us; // an early wake does not put it off
    if (!connection->cut && !request->answer.given && request->phase == HTTP_UPLOAD) {
        ask_owner(request);
        deadline_us = request->route->deadline_ms ? http_now_us() + request->route->deadline_ms * 1000ull : 0;
    }
    bool is_parked = false;
    while (!is_parked && !connection->cut && !request->answer.given)
        is_parked = http_request_park_locked(request, deadline_us);
    bool is_cut = connection->cut;
    mutex_unlock(&connection->lock);
    if (is_parked)
        return MHD_YES;
    return is_cut ? MHD_NO : http_answer_send(request);
}

enum MHD_Result http_request_handle(void *server, struct MHD_Connection *mhd, const char *url,
                                    const char *method, const char *version, const char *upload,
                                    size_t *upload_size, void **state)
{
    (void)server, (void)version;
    struct http_request *request = *state;
    if (!request) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
        return request_begin(info->socket_context, mhd, url, method, state);
    }
    if (*upload_size > 0)
        return request_body(request, upload, upload_size);
    return request_complete(request);
}

// ---- deadlines ------------------------------------------------------------------------------------------

// libmicrohttpd does not see an end that comes together with bytes: its socket is edge-triggered, and it
// takes a short read for the last.
static bool peer_has_gone(const struct http_connection *connection)
{
    char byte;
    return recv(connection->socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void upload_due_locked(struct http_request *request, uint64_t now_us)
{
    struct http_connection *connection = request->connection;
    const struct http_timing *timing = &connection->server->timing;
    struct graft_error error;
    if (request->run == HTTP_SUSPENDED) {
        error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TIMEOUT,
                  "the server could not go on with this upload for %u ms, try again later",
                  request->route->deadline_ms);
        http_refuse_locked(request, http_code_of(&error), &error, 1);
        return;
    }
    if (request->received == request->looked_received && peer_has_gone(connection)) {
        shutdown(connection->socket, SHUT_RDWR);
        return;
    }
    if (now_us < request->window_end_us) {
        window_begin_locked(request, now_us, request->window_end_us - now_us);
        return;
    }
    uint64_t needed = timing->rate_min * timing->rate_window_ms / 1000;
    if (request->received - request->window_received >= needed) {
        request->window_received = request->received;
        window_begin_locked(request, now_us, timing->rate_window_ms * 1000ull);
        return;
    }
    error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TIMEOUT,
              "the upload brought fewer than %llu bytes in %u s, try again over a faster link",
              (unsigned long long)needed, timing->rate_window_ms / 1000);
    http_refuse_locked(request, http_code_of(&error), &error, 0);
    http_last_words_locked(request);
}

static void drain_due_locked(struct http_request *request, uint64_t now_us)
{
    struct http_connection *connection = request->connection;
    if (request->received == request->looked_received || now_us >= request->drain_until_us) {
        http_last_words_locked(request);
        return;
    }
    request->looked_received = request->received;
    uint64_t next_us = now_us + connection->server->timing.drain_idle_ms * 1000ull;
    http_connection_set_deadline_locked(connection, MIN(next_us, request->drain_until_us));
}

void http_request_due_locked(struct http_request *request, uint64_t now_us)
{
    struct http_connection *connection = request->connection;
    mutex_assert_held(&connection->lock);
    struct graft_error error;
    switch (request->phase) {
    case HTTP_UPLOAD:
        upload_due_locked(request, now_us);
        return;
    case HTTP_DRAIN:
        drain_due_locked(request, now_us);
        return;
    case HTTP_WAIT:
        error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TIMEOUT,
                  "%s took longer than %u ms, try again later", request->route->path,
                  request->route->deadline_ms);
        http_refuse_locked(request, http_code_of(&error), &error, 1);
        return;
    case HTTP_SEND:
        // A source that stands still. The wake brings libmicrohttpd back, which finds the connection cut.
        connection->cut = true;
        http_request_wake_locked(request);
        return;
    case HTTP_OVER:
        return;
    }
}

// ---- the end --------------------------------------------------------------------------------------------

static void request_closed(struct http_request *request)
{
    struct http_server *server = request->connection->server;
    if (request->begun && request->route->closed)
        request->route->closed(request);
    http_request_unref(request);
    http_server_leave(server);
}

static void closing_fire(struct timer *timer)
{
    request_closed(CONTAINER_OF(timer, struct http_request, closing));
}

void http_request_close_later(struct http_request *request)
{
    struct http_server *server = request->connection->server;
    http_server_enter(server); // stays until the timers' lock is let go
    timer_arm(server->timers, &request->closing, 0, closing_fire);
    http_server_leave(server);
}

static void count_request(struct http_request *request, bool is_sent)
{
    const struct http_route_metrics *metrics = request->metrics;
    unsigned class = is_sent ? request->answer.code / 100 : 0;
    CHECK(class < ARRAY_COUNT(metrics->by_class));
    metric_add(metrics->by_class[class], 1);
    metric_observe_us(metrics->latency, http_now_us() - request->started_us);
    metric_add(metrics->in_flight, -1);
    metric_add(metrics->received, (int64_t)request->received);
    metric_add(metrics->sent, (int64_t)request->sent);
}

void http_request_completed(void *context, struct MHD_Connection *mhd, void **state,
                            enum MHD_RequestTerminationCode code)
{
    (void)mhd;
    struct http_server *server = context;
    struct http_request *request = *state;
    if (!request)
        return;
    *state = NULL;
    struct http_connection *connection = request->connection;
    mutex_lock(&connection->lock);
    CHECK(connection->request == request && request->run != HTTP_SUSPENDED);
    bool is_sent =
        request->last_words || (request->phase == HTTP_SEND && code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    bool is_asked = request->owner_asked;
    request->phase = HTTP_OVER;
    connection->request = NULL;
    http_connection_set_deadline_locked(
        connection,
        http_now_us() + (server->settings.idle_timeout_ms + (uint64_t)server->timing.head_ms) * 1000);
    mutex_unlock(&connection->lock);

    count_request(request, is_sent);
    http_answer_release(&request->answer);
    body_release(request);
    // The exchange's reference: given up here, or handed over to the owner's late answer.
    if (is_asked)
        http_request_unref(request); // the owner's own reference is left
    else
        request_closed(request);
}

// ---- what the owner asks --------------------------------------------------------------------------------

void *http_request_context(const struct http_request *request)
{
    return request->connection->server->settings.context;
}

void http_request_set_state(struct http_request *request, void *state)
{
    request->state = state;
}

void *http_request_state(const struct http_request *request)
{
    return request->state;
}

const void *http_request_route_data(const struct http_request *request)
{
    return request->route->data;
}

const char *http_request_header(const struct http_request *request, const char *name)
{
    LOCK_GUARD(&request->connection->lock);
    if (request->phase == HTTP_OVER)
        return NULL;
    return MHD_lookup_connection_value(request->mhd, MHD_HEADER_KIND, name);
}

bool http_request_answered(const struct http_request *request)
{
    LOCK_GUARD(&request->connection->lock);
    return request->answer.given || request->phase >= HTTP_SEND;
}

struct http_request *http_request_ref(struct http_request *request)
{
    atomic_fetch_add(&request->references, 1);
    return request;
}

void http_request_unref(struct http_request *request)
{
    if (!request || atomic_fetch_sub(&request->references, 1) != 1)
        return;
    http_connection_unref(request->connection);
    free(request);
}
