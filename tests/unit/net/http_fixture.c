// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/net/http_fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

#define ROUTES 5
#define PIECE_SIZE 700
#define PAUSE_SIZE 1000
#define FAIL_SIZE 100000

struct exchange {
    struct fixture *fixture;
    struct http_request *request;
    atomic_uint references; // of `closed`, and of a job under way
    char mode[16];
    uint64_t received, sent, size;
    atomic_bool failing; // the owner answers
    atomic_uint granted; // pieces that the owner allows
    unsigned used;       // of them
    atomic_bool job_busy;
    struct job job;
};

static void exchange_unref(struct exchange *exchange)
{
    if (atomic_fetch_sub(&exchange->references, 1) == 1)
        free(exchange);
}

char fixture_pattern(size_t position)
{
    return (char)('a' + (position * 7 + position / 1000) % 26);
}

// ---- the owner's thread ---------------------------------------------------------------------------------

static void grant_run(struct job *job)
{
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    struct http_request *request = exchange->request;
    atomic_store(&exchange->job_busy, false);
    atomic_fetch_add(&exchange->granted, 1);
    http_request_wake(request);
    http_request_unref(request);
    exchange_unref(exchange);
}

static void fail_run(struct job *job)
{
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    struct http_request *request = exchange->request;
    struct graft_error error;
    error_set(&error, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, "enough of this");
    http_respond_error(request, &error, 0);
    http_request_unref(request);
    exchange_unref(exchange);
}

static void echo_later_run(struct job *job)
{
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    struct buffer body = BUFFER_INIT(64);
    CHECK(buffer_printf(&body, NULL, "later") == GRAFT_OK);
    http_respond(exchange->request, 200, HTTP_TEXT, &body);
}

static void submit(struct exchange *exchange, void (*run)(struct job *))
{
    exchange->job.run = run;
    CHECK(pool_submit(exchange->fixture->owner, &exchange->job, NULL) == GRAFT_OK);
}

// For a job that may outlive the exchange.
static void submit_shared(struct exchange *exchange, void (*run)(struct job *))
{
    http_request_ref(exchange->request);
    atomic_fetch_add(&exchange->references, 1);
    submit(exchange, run);
}

// ---- handlers -------------------------------------------------------------------------------------------

static void begin(struct http_request *request, void *context)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);
    CHECK(exchange);
    exchange->fixture = context;
    exchange->request = request;
    exchange->references = 1;
    const char *mode = http_request_header(request, "X-Mode"), *size = http_request_header(request, "X-Size");
    snprintf(exchange->mode, sizeof exchange->mode, "%s", mode ? mode : "");
    exchange->size = size ? strtoull(size, NULL, 10) : 0;
    atomic_fetch_add(&exchange->fixture->begun, 1);
    http_request_set_state(request, exchange);
    if (strcmp(exchange->mode, "refuse") == 0) {
        struct graft_error error;
        error_set(&error, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, "not this one");
        http_respond_error(request, &error, 0);
    }
}

static void closed(struct http_request *request)
{
    struct exchange *exchange = http_request_state(request);
    struct fixture *fixture = exchange->fixture;
    exchange_unref(exchange);
    mutex_lock(&fixture->lock);
    atomic_fetch_add(&fixture->closed, 1);
    mutex_unlock(&fixture->lock);
    cond_broadcast(&fixture->changed);
}

static void echo(struct http_request *request, struct bytes whole)
{
    struct buffer body = BUFFER_INIT(64 * KIB);
    CHECK(buffer_append(&body, whole.data, whole.size, NULL) == GRAFT_OK);
    http_respond(request, 200, HTTP_PROTOBUF, &body);
}

static void later(struct http_request *request, struct bytes whole)
{
    (void)whole;
    submit(http_request_state(request), echo_later_run);
}

static void hold(struct http_request *request, struct bytes whole)
{
    (void)whole;
    struct fixture *fixture = http_request_context(request);
    mutex_lock(&fixture->lock);
    CHECK(fixture->held_count < ARRAY_COUNT(fixture->held));
    fixture->held[fixture->held_count++] = request;
    mutex_unlock(&fixture->lock);
    cond_broadcast(&fixture->changed);
}

// True: a piece may go now. Otherwise the owner has been asked for one, and will wake.
static bool take_grant(struct exchange *exchange)
{
    if (exchange->used < atomic_load(&exchange->granted)) {
        exchange->used++;
        return true;
    }
    if (!atomic_exchange(&exchange->job_busy, true))
        submit_shared(exchange, grant_run);
    return false;
}

static size_t upload_body(struct http_request *request, const void *data, size_t size)
{
    (void)data;
    struct exchange *exchange = http_request_state(request);
    if (strcmp(exchange->mode, "stall") == 0)
        return 0;
    if (strcmp(exchange->mode, "pause") == 0) {
        size_t taken = 0;
        while (taken < size && take_grant(exchange))
            taken += MIN(size - taken, (size_t)PAUSE_SIZE);
        size = taken;
    }
    exchange->received += size;
    if (strcmp(exchange->mode, "fail") == 0 && exchange->received >= FAIL_SIZE &&
        !atomic_exchange(&exchange->failing, true))
        submit_shared(exchange, fail_run);
    return size;
}

static void upload_ready(struct http_request *request, struct bytes whole)
{
    cr_assert_eq(whole.size, 0);
    struct exchange *exchange = http_request_state(request);
    if (atomic_load(&exchange->failing))
        return; // the owner's answer is under way
    struct buffer body = BUFFER_INIT(64);
    CHECK(buffer_printf(&body, NULL, "%llu", (unsigned long long)exchange->received) == GRAFT_OK);
    http_respond(request, 200, HTTP_TEXT, &body);
}

static enum http_source_result stream_source(struct http_request *request, void *to, size_t size,
                                             size_t *ret_size)
{
    struct exchange *exchange = http_request_state(request);
    if (exchange->sent == exchange->size)
        return HTTP_SOURCE_END;
    bool is_half = exchange->sent >= exchange->size / 2;
    if (is_half && strcmp(exchange->mode, "stall") == 0)
        return HTTP_SOURCE_WAIT;
    if (is_half && strcmp(exchange->mode, "abort") == 0)
        return HTTP_SOURCE_ABORT;
    if (strcmp(exchange->mode, "wait") == 0 && !take_grant(exchange))
        return HTTP_SOURCE_WAIT;
    size_t piece = MIN(size, exchange->size - exchange->sent);
    if (strcmp(exchange->mode, "flat") != 0)
        piece = MIN(piece, (size_t)PIECE_SIZE);
    char *text = to;
    for (size_t i = 0; i < piece; i++)
        text[i] = fixture_pattern(exchange->sent + i);
    exchange->sent += piece;
    *ret_size = piece;
    return HTTP_SOURCE_DATA;
}

static void stream(struct http_request *request, struct bytes whole)
{
    (void)whole;
    http_respond_stream(request, HTTP_STREAM, stream_source);
}

// ---- start and stop -------------------------------------------------------------------------------------

static enum graft_status readiness(void *context, struct graft_error *err)
{
    struct fixture *fixture = context;
    if (atomic_load(&fixture->is_ready))
        return GRAFT_OK;
    return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_NONE, "still warming up");
}

void fixture_start(struct fixture *fixture, const struct fixture_settings *settings)
{
    static const struct fixture_settings defaults = {0};
    if (!settings)
        settings = &defaults;
    memset(fixture, 0, sizeof *fixture);
    mutex_init(&fixture->lock, RANK_CLIENT);
    cond_init(&fixture->changed);
    fixture->metrics = metrics_new();
    fixture->is_ready = true;
    fixture->admin = (struct admin){fixture->metrics, readiness, fixture};
    struct graft_error error = {0};
    cr_assert_eq(pool_new("owner", 2, 4096, &fixture->owner, &error), GRAFT_OK, "%s", error.message);

    uint32_t deadline_ms = settings->deadline_ms;
    struct http_route routes[ROUTES + ADMIN_ROUTES] = {
        {.method = "POST",
         .path = "/v1/echo",
         .content_type = HTTP_PROTOBUF,
         .body_max = 64 * KIB,
         .ready = echo},
        {.method = "POST",
         .path = "/v1/later",
         .content_type = HTTP_PROTOBUF,
         .body_max = 64 * KIB,
         .begin = begin,
         .ready = later,
         .closed = closed,
         .deadline_ms = 10000},
        {.method = "POST",
         .path = "/v1/hold",
         .content_type = HTTP_PROTOBUF,
         .body_max = 4 * MIB,
         .begin = begin,
         .ready = hold,
         .closed = closed,
         .deadline_ms = deadline_ms},
        {.method = "POST",
         .path = "/v1/upload",
         .content_type = HTTP_STREAM,
         .body_max = 256 * MIB,
         .begin = begin,
         .body = upload_body,
         .ready = upload_ready,
         .closed = closed,
         .deadline_ms = deadline_ms},
        {.method = "GET",
         .path = "/v1/stream",
         .begin = begin,
         .ready = stream,
         .closed = closed,
         .deadline_ms = deadline_ms},
    };
    admin_routes(&fixture->admin, &routes[ROUTES]);
    struct http_server_settings server = {
        .listen = "127.0.0.1:0",
        .routes = routes,
        .route_count = ARRAY_COUNT(routes),
        .context = fixture,
        .threads = settings->threads ? settings->threads : 2,
        .connections_max = settings->connections_max ? settings->connections_max : 64,
        .connection_memory = settings->connection_memory ? settings->connection_memory : 64 * KIB,
        .idle_timeout_ms = settings->idle_timeout_ms ? settings->idle_timeout_ms : 60000,
        .metrics_name = "test",
        .metrics = fixture->metrics,
    };
    struct http_timing timing = settings->timing;
    if (!timing.head_ms)
        timing.head_ms = 10000;
    if (!timing.rate_window_ms)
        timing.rate_window_ms = UPLOAD_RATE_WINDOW_MS;
    if (!timing.rate_min)
        timing.rate_min = UPLOAD_RATE_MIN;
    if (!timing.look_ms)
        timing.look_ms = 100;
    if (!timing.drain_ms)
        timing.drain_ms = DRAIN_TIME_MAX_MS;
    if (!timing.drain_idle_ms)
        timing.drain_idle_ms = 1000;
    cr_assert_eq(http_server_start_timed(&server, &timing, &fixture->server, &error), GRAFT_OK, "%s",
                 error.message);
}

void fixture_stop(struct fixture *fixture)
{
    http_server_drain(fixture->server, 5000);
    http_server_stop(fixture->server);
    pool_free(fixture->owner);
    cr_assert_eq(fixture->begun, fixture->closed, "%d begun, %d closed", fixture->begun, fixture->closed);
    metrics_free(fixture->metrics);
    cond_release(&fixture->changed);
    mutex_release(&fixture->lock);
}

const char *fixture_address(const struct fixture *fixture)
{
    return http_server_address(fixture->server);
}

void fixture_wait_held(struct fixture *fixture, unsigned count)
{
    LOCK_GUARD(&fixture->lock);
    while (fixture->held_count < count)
        cond_wait(&fixture->changed, &fixture->lock);
}

void fixture_release_held(struct fixture *fixture)
{
    struct http_request *held[ARRAY_COUNT(fixture->held)];
    mutex_lock(&fixture->lock);
    unsigned count = fixture->held_count;
    memcpy(held, fixture->held, sizeof held);
    fixture->held_count = 0;
    mutex_unlock(&fixture->lock);
    for (unsigned i = 0; i < count; i++)
        http_respond(held[i], 200, HTTP_TEXT, NULL);
}

bool fixture_wait_closed(struct fixture *fixture, int count)
{
    uint64_t deadline_us = http_now_us() + 10000000;
    LOCK_GUARD(&fixture->lock);
    bool is_time_left = true;
    while (fixture->closed < count && is_time_left)
        is_time_left = cond_wait_until(&fixture->changed, &fixture->lock, deadline_us);
    return fixture->closed >= count;
}
