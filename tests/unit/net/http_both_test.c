// SPDX-License-Identifier: Apache-2.0
//
// The client against the server: what each promises must hold with the other at the far end.
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "common/net/http_client.h"
#include "common/net/http_server.h"

#define FAIL_AT (1 * MIB)
#define STREAM_SIZE (16 * MIB)

// ---- the server ---------------------------------------------------------------------------------------

static void echo(struct http_request *request, struct bytes whole)
{
    struct buffer body = BUFFER_INIT(64 * KIB);
    cr_assert_eq(buffer_append(&body, whole.data, whole.size, NULL), GRAFT_OK);
    http_respond(request, 200, HTTP_PROTOBUF, &body);
    buffer_release(&body);
}

static void answer_conflict(struct http_request *request)
{
    struct graft_error error;
    error_set(&error, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, "no");
    http_respond_error(request, &error, 0);
}

struct upload {
    uint64_t size;
};

static void begin_upload(struct http_request *request, void *context)
{
    (void)context;
    http_request_set_state(request, calloc(1, sizeof(struct upload)));
}

static void begin_refusal(struct http_request *request, void *context)
{
    begin_upload(request, context);
    answer_conflict(request);
}

static size_t take_upload(struct http_request *request, const void *data, size_t size)
{
    struct upload *upload = http_request_state(request);
    (void)data;
    upload->size += size;
    return size;
}

static size_t take_and_fail(struct http_request *request, const void *data, size_t size)
{
    struct upload *upload = http_request_state(request);
    uint64_t before = upload->size;
    take_upload(request, data, size);
    if (before < FAIL_AT && upload->size >= FAIL_AT)
        answer_conflict(request);
    return size;
}

static void answer_size(struct http_request *request, struct bytes whole)
{
    struct upload *upload = http_request_state(request);
    struct buffer body = BUFFER_INIT(64);
    (void)whole;
    cr_assert_eq(buffer_printf(&body, NULL, "%llu", (unsigned long long)upload->size), GRAFT_OK);
    http_respond(request, 200, HTTP_PROTOBUF, &body);
    buffer_release(&body);
}

static void close_upload(struct http_request *request)
{
    free(http_request_state(request));
}

static enum http_source_result stream_source(struct http_request *request, void *to, size_t size,
                                             size_t *ret_size)
{
    struct upload *sent = http_request_state(request);
    size_t count = MIN(size, STREAM_SIZE - sent->size);
    if (count == 0)
        return HTTP_SOURCE_END;
    memset(to, 'x', count);
    sent->size += count;
    *ret_size = count;
    return HTTP_SOURCE_DATA;
}

static void stream(struct http_request *request, struct bytes whole)
{
    (void)whole;
    http_respond_stream(request, HTTP_STREAM, stream_source);
}

static struct http_server *start_server(void)
{
    static const struct http_route routes[] = {
        {.method = "POST", .path = "/echo", .content_type = HTTP_PROTOBUF, .body_max = 4096, .ready = echo},
        {.method = "POST",
         .path = "/count",
         .content_type = HTTP_STREAM,
         .body_max = 32 * MIB,
         .begin = begin_upload,
         .body = take_upload,
         .ready = answer_size,
         .closed = close_upload},
        {.method = "POST",
         .path = "/refuse",
         .content_type = HTTP_STREAM,
         .body_max = 32 * MIB,
         .begin = begin_refusal,
         .body = take_upload,
         .ready = answer_size,
         .closed = close_upload},
        {.method = "POST",
         .path = "/fail",
         .content_type = HTTP_STREAM,
         .body_max = 64 * MIB,
         .begin = begin_upload,
         .body = take_and_fail,
         .ready = answer_size,
         .closed = close_upload},
        {.method = "GET", .path = "/stream", .begin = begin_upload, .ready = stream, .closed = close_upload},
    };
    struct http_server_settings settings = {
        .listen = "127.0.0.1:0",
        .routes = routes,
        .route_count = ARRAY_COUNT(routes),
        .threads = 2,
        .connections_max = 64,
        .connection_memory = 64 * KIB,
        .idle_timeout_ms = 10000,
        .metrics_name = "test",
    };
    struct http_server *server;
    struct graft_error err;
    cr_assert_eq(http_server_start(&settings, &server, &err), GRAFT_OK, "%s", err.message);
    return server;
}

// ---- the client ---------------------------------------------------------------------------------------

struct pair {
    struct http_server *server;
    struct http_client *client;
};

static struct pair start_pair(void)
{
    struct pair pair = {.server = start_server()};
    cr_assert_eq(http_client_new(&(struct http_client_settings){0}, &pair.client, NULL), GRAFT_OK);
    return pair;
}

static void stop_pair(struct pair *pair)
{
    http_client_free(pair->client);
    http_server_drain(pair->server, 5000);
    http_server_stop(pair->server);
}

// A source or sink of so many bytes.
struct flow {
    uint64_t left, moved;
};

static long produce(void *context, void *to, size_t size)
{
    struct flow *flow = context;
    size_t count = MIN(size, flow->left);
    memset(to, 'x', count);
    flow->left -= count;
    flow->moved += count;
    return (long)count;
}

static long consume(void *context, const void *data, size_t size)
{
    struct flow *flow = context;
    (void)data;
    flow->moved += size;
    return (long)size;
}

static enum graft_status call(struct pair *pair, const char *path, struct http_exchange_spec spec,
                              struct http_outcome *ret_outcome, char ret_text[128])
{
    char url[128];
    struct graft_error err = {0};
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(0);
    snprintf(url, sizeof url, "http://%s%s", http_server_address(pair->server), path);
    spec.url = url;
    spec.deadline_ms = 30000;
    spec.response_max = 4096;
    enum graft_status status = http_client_call(pair->client, &spec, &body, ret_outcome, &err);
    snprintf(ret_text, 128, "%.*s", status == GRAFT_OK ? (int)body.size : 120,
             status == GRAFT_OK ? (const char *)body.data : err.message);
    return status;
}

static enum graft_status upload(struct pair *pair, const char *path, struct flow *flow,
                                struct http_outcome *ret_outcome, char ret_text[128])
{
    struct http_exchange_spec spec = {
        .content_type = HTTP_STREAM, .accept = HTTP_PROTOBUF, .read_body = produce, .context = flow};
    return call(pair, path, spec, ret_outcome, ret_text);
}

Test(http_both, an_upload_is_counted)
{
    struct pair pair = start_pair();
    static const uint64_t sizes[] = {0, 1, 100000, 20 * MIB};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct flow flow = {.left = sizes[i]};
        struct http_outcome outcome;
        char text[128], expected[32];
        snprintf(expected, sizeof expected, "%llu", (unsigned long long)sizes[i]);
        cr_assert_eq(upload(&pair, "/count", &flow, &outcome, text), GRAFT_OK, "%s", text);
        cr_assert_str_eq(text, expected);
    }
    stop_pair(&pair);
}

Test(http_both, a_refusal_at_the_headers_saves_the_body)
{
    struct pair pair = start_pair();
    struct flow flow = {.left = 20 * MIB};
    struct http_outcome outcome;
    char text[128];
    cr_assert_eq(upload(&pair, "/refuse", &flow, &outcome, text), GRAFT_CONFLICT, "%s", text);
    cr_assert(outcome.answered);
    cr_assert_eq(flow.moved, 0);
    stop_pair(&pair);
}

Test(http_both, a_refusal_in_the_middle_of_an_upload_arrives)
{
    struct pair pair = start_pair();
    for (int i = 0; i < 10; i++) {
        struct flow flow = {.left = 40 * MIB};
        struct http_outcome outcome;
        char text[128];
        cr_assert_eq(upload(&pair, "/fail", &flow, &outcome, text), GRAFT_CONFLICT, "%s", text);
        cr_assert(outcome.answered);
    }
    stop_pair(&pair);
}

Test(http_both, a_stream_beyond_its_limit_is_refused)
{
    struct pair pair = start_pair();
    struct flow flow = {.left = 33 * MIB};
    struct http_outcome outcome;
    char text[128];
    cr_assert_eq(upload(&pair, "/count", &flow, &outcome, text), GRAFT_LIMIT, "%s", text);
    cr_assert(outcome.answered);
    stop_pair(&pair);
}

Test(http_both, a_body_beyond_its_limit_is_refused)
{
    static const uint8_t body[2 * MIB];
    struct pair pair = start_pair();
    struct http_outcome outcome;
    char text[128];
    struct http_exchange_spec spec = {.content_type = HTTP_PROTOBUF, .body = {body, sizeof body}};
    cr_assert_eq(call(&pair, "/echo", spec, &outcome, text), GRAFT_LIMIT, "%s", text);
    cr_assert(outcome.answered);
    spec.content_type = HTTP_TEXT;
    spec.body.size = 1;
    cr_assert_eq(call(&pair, "/echo", spec, &outcome, text), GRAFT_INVALID, "%s", text);
    cr_assert(outcome.answered);
    cr_assert_eq(outcome.code, 415);
    cr_assert_eq(call(&pair, "/nothing", spec, &outcome, text), GRAFT_NOT_FOUND, "%s", text);
    cr_assert(outcome.answered);
    stop_pair(&pair);
}

Test(http_both, a_stream_comes_down_whole)
{
    struct pair pair = start_pair();
    struct flow flow = {0};
    struct http_outcome outcome;
    char text[128];
    struct http_exchange_spec spec = {.accept = HTTP_STREAM, .on_data = consume, .context = &flow};
    cr_assert_eq(call(&pair, "/stream", spec, &outcome, text), GRAFT_OK, "%s", text);
    cr_assert_eq(flow.moved, STREAM_SIZE);
    stop_pair(&pair);
}

static void *call_many(void *context)
{
    struct pair *pair = context;
    for (int i = 0; i < 100; i++) {
        struct http_exchange_spec spec = {
            .content_type = HTTP_PROTOBUF, .accept = HTTP_PROTOBUF, .body = {(const uint8_t *)"abc", 3}};
        struct http_outcome outcome;
        char text[128];
        cr_assert_eq(call(pair, "/echo", spec, &outcome, text), GRAFT_OK, "%s", text);
        cr_assert_str_eq(text, "abc");
    }
    return NULL;
}

Test(http_both, many_callers_at_once)
{
    pthread_t threads[16];
    struct pair pair = start_pair();
    for (size_t i = 0; i < ARRAY_COUNT(threads); i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, call_many, &pair), 0);
    for (size_t i = 0; i < ARRAY_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    stop_pair(&pair);
}
