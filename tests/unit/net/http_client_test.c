// SPDX-License-Identifier: Apache-2.0
//
// Unary calls against a server that behaves and misbehaves. Streams are in http_streams_test.c.
#include <criterion/criterion.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/net/http_client.h"
#include "common/net/http_server.h"
#include "common/net/message.h"
#include "tests/unit/net/fake_server.h"

// What a test knows of a call that is over.
struct result {
    enum graft_status status;
    struct http_outcome outcome;
    struct graft_error err;
    struct buffer body;
};

static struct http_client *new_client(void)
{
    struct http_client *client;
    cr_assert_eq(http_client_new(&(struct http_client_settings){0}, &client, NULL), GRAFT_OK);
    return client;
}

static struct result call(struct http_client *client, const struct http_exchange_spec *spec)
{
    struct result result = {0};
    result.status = http_client_call(client, spec, &result.body, &result.outcome, &result.err);
    cr_assert_eq(result.status, result.outcome.error.status);
    return result;
}

static struct http_exchange_spec post(const struct fake_server *server, const char *body)
{
    return (struct http_exchange_spec){
        .method = "POST",
        .url = server->url,
        .content_type = HTTP_PROTOBUF,
        .accept = HTTP_PROTOBUF,
        .deadline_ms = 10000,
        .body = {(const uint8_t *)body, strlen(body)},
        .response_max = 4096,
    };
}

static uint64_t now_ms(void)
{
    return clock_monotonic_ms(clock_system());
}

// ---- peers --------------------------------------------------------------------------------------------

// Answers every request with what was sent to it.
static void serve_echo(struct fake_server *server, int fd)
{
    static char body[4 * MIB];
    char head[FAKE_HEAD_MAX];
    while (fake_read_head(server, fd, head)) {
        if (fake_head_has(head, "Expect: 100-continue"))
            fake_print(fd, "HTTP/1.1 100 Continue\r\n\r\n");
        size_t size = fake_read_body(fd, head, body, sizeof body);
        if (server->context)
            memcpy(server->context, head, FAKE_HEAD_MAX);
        fake_answer(fd, "200 OK", HTTP_PROTOBUF, body, size);
    }
}

// Reads one request and sends the text in the context, then closes.
static void serve_text(struct fake_server *server, int fd)
{
    char head[FAKE_HEAD_MAX], body[4096];
    if (!fake_read_head(server, fd, head))
        return;
    fake_read_body(fd, head, body, sizeof body);
    fake_print(fd, "%s", (const char *)server->context);
    shutdown(fd, SHUT_WR);
    fake_drain(fd);
}

// Reads requests and never answers.
static void serve_silence(struct fake_server *server, int fd)
{
    char head[FAKE_HEAD_MAX];
    if (fake_read_head(server, fd, head))
        fake_drain(fd);
}

// ---- answers ------------------------------------------------------------------------------------------

Test(http_client, a_call_brings_the_answer)
{
    static char head[FAKE_HEAD_MAX];
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_echo, head);
    struct http_exchange_spec spec = post(&server, "hello");
    spec.bearer = "secret";
    struct result result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_OK, "%s", result.err.message);
    cr_assert_eq(result.outcome.code, 200);
    cr_assert(result.outcome.sent);
    cr_assert_eq(result.body.size, 5);
    cr_assert_eq(memcmp(result.body.data, "hello", 5), 0);
    cr_assert_eq(result.outcome.sent_size, 5);
    cr_assert_eq(result.outcome.received_size, 5);
    buffer_release(&result.body);
    http_client_free(client);
    fake_stop(&server);
    cr_assert(fake_head_has(head, "POST / HTTP/1.1\r\n"), "%s", head);
    cr_assert(fake_head_has(head, "Content-Type: application/x-protobuf\r\n"));
    cr_assert(fake_head_has(head, "Accept: application/x-protobuf\r\n"));
    cr_assert(fake_head_has(head, "Authorization: Bearer secret\r\n"));
    cr_assert(fake_head_has(head, "User-Agent: graft/"));
    cr_assert(fake_head_has(head, "Content-Length: 5\r\n"));
    cr_assert_not(fake_head_has(head, "Expect"));
}

Test(http_client, empty_bodies_both_ways)
{
    static char head[FAKE_HEAD_MAX];
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_echo, head);
    struct http_exchange_spec spec = post(&server, "");
    struct result result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_OK, "%s", result.err.message);
    cr_assert_eq(result.body.size, 0);
    http_client_free(client);
    fake_stop(&server);
    cr_assert(fake_head_has(head, "Content-Length: 0\r\n"), "%s", head);
}

Test(http_client, connections_are_kept)
{
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_echo, NULL);
    for (int i = 0; i < 20; i++) {
        struct http_exchange_spec spec = post(&server, "again");
        struct result result = call(client, &spec);
        cr_assert_eq(result.status, GRAFT_OK, "%s", result.err.message);
        buffer_release(&result.body);
    }
    http_client_free(client);
    fake_stop(&server);
    cr_assert_eq(server.connections, 1);
    cr_assert_eq(server.requests, 20);
}

Test(http_client, a_large_body_asks_first)
{
    static char head[FAKE_HEAD_MAX];
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_echo, head);
    char *large = malloc(MIB + 2);
    memset(large, 'x', MIB + 1);
    large[MIB + 1] = 0;
    struct http_exchange_spec spec = post(&server, large);
    spec.response_max = 2 * MIB;
    struct result result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_OK, "%s", result.err.message);
    cr_assert_eq(result.body.size, MIB + 1);
    buffer_release(&result.body);
    free(large);
    http_client_free(client);
    fake_stop(&server);
    cr_assert(fake_head_has(head, "Expect: 100-continue\r\n"), "%s", head);
}

Test(http_client, an_answer_beyond_its_limit_is_refused)
{
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_echo, NULL);
    struct http_exchange_spec spec = post(&server, "12345");
    spec.response_max = 4;
    struct result result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_LIMIT);
    cr_assert_eq(result.err.detail, GRAFT_DETAIL_TOO_LARGE);
    buffer_release(&result.body);
    spec.response_max = 5;
    result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_OK);
    buffer_release(&result.body);
    http_client_free(client);
    fake_stop(&server);
}

// ---- errors that a server answers ---------------------------------------------------------------------

static void serve_error(struct fake_server *server, int fd)
{
    char head[FAKE_HEAD_MAX], body[4096];
    while (fake_read_head(server, fd, head)) {
        struct graft_error error;
        Graft__Error message;
        _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(4096);
        fake_read_body(fd, head, body, sizeof body);
        error_set(&error, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, "the base is not the head");
        error_to_message(&error, &message);
        cr_assert_eq(message_encode(&message.base, &bytes, NULL), GRAFT_OK);
        fake_answer(fd, "409 Conflict", HTTP_PROTOBUF, bytes.data, bytes.size);
    }
}

Test(http_client, a_servers_error_comes_through_whole)
{
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_error, NULL);
    struct http_exchange_spec spec = post(&server, "x");
    struct result result = call(client, &spec);
    cr_assert(result.outcome.answered);
    cr_assert_eq(result.status, GRAFT_CONFLICT);
    cr_assert_eq(result.err.detail, GRAFT_DETAIL_NOT_HEAD);
    cr_assert_str_eq(result.err.message, "the base is not the head");
    cr_assert_eq(result.outcome.code, 409);
    cr_assert_gt(result.body.size, 0);
    buffer_release(&result.body);
    http_client_free(client);
    fake_stop(&server);
}

// What came is in `text`; what it is taken for is in the rest.
struct answer_case {
    const char *text;
    enum graft_status status;
    enum graft_detail detail;
    int code;
    uint32_t retry_after_ms;
};

static void check_answer(const struct answer_case *answer)
{
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_text, (void *)answer->text);
    struct http_exchange_spec spec = post(&server, "x");
    struct result result = call(client, &spec);
    cr_assert_eq(result.status, answer->status, "%s\n→ %s: %s", answer->text,
                 graft_status_name(result.status), result.err.message);
    cr_assert_eq(result.err.detail, answer->detail, "%s\n→ %s: %s", answer->text,
                 graft_detail_name(result.err.detail), result.err.message);
    cr_assert_not(result.outcome.answered);
    cr_assert(result.outcome.sent);
    cr_assert_eq(result.outcome.code, answer->code, "%s\n→ %d", answer->text, result.outcome.code);
    cr_assert_eq(result.outcome.retry_after_ms, answer->retry_after_ms);
    cr_assert(strstr(result.err.message, server.url), "'%s' does not name the URL", result.err.message);
    buffer_release(&result.body);
    http_client_free(client);
    fake_stop(&server);
}

#define HTML "Content-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"
#define PROTO "Content-Type: application/x-protobuf\r\n"

Test(http_client, what_no_server_of_ours_says_is_never_answered)
{
    static const struct answer_case cases[] = {
        {"HTTP/1.1 404 Not Found\r\n" HTML, GRAFT_NOT_FOUND, GRAFT_DETAIL_PROTOCOL, 404, 0},
        {"HTTP/1.1 403 Forbidden\r\n" HTML, GRAFT_DENIED, GRAFT_DETAIL_PROTOCOL, 403, 0},
        {"HTTP/1.1 409 Conflict\r\n" PROTO "Content-Length: 2\r\n\r\n\xff\xff", GRAFT_CONFLICT,
         GRAFT_DETAIL_PROTOCOL, 409, 0},
        {"HTTP/1.1 409 Conflict\r\n" PROTO "Content-Length: 0\r\n\r\n", GRAFT_CONFLICT, GRAFT_DETAIL_PROTOCOL,
         409, 0},
        // A well-formed Error, but not by its type.
        {"HTTP/1.1 409 Conflict\r\nContent-Type: application/x-protobuffer\r\nContent-Length: 2\r\n\r\n\x08\x02",
         GRAFT_CONFLICT, GRAFT_DETAIL_PROTOCOL, 409, 0},
        {"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n" HTML, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED, 503,
         7000},
        {"HTTP/1.1 503 Busy\r\nRetry-After: 999999999999\r\n" HTML, GRAFT_UNAVAILABLE,
         GRAFT_DETAIL_OVERLOADED, 503, 3600000},
        {"HTTP/1.1 503 Busy\r\nRetry-After: soon\r\n" HTML, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED, 503,
         0},
        {"HTTP/1.1 502 Bad Gateway\r\n" HTML, GRAFT_UNKNOWN, GRAFT_DETAIL_PROTOCOL, 502, 0},
        {"HTTP/1.1 500 Oops\r\n" HTML, GRAFT_UNKNOWN, GRAFT_DETAIL_PROTOCOL, 500, 0},
        {"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n" HTML, GRAFT_UNAVAILABLE,
         GRAFT_DETAIL_PROTOCOL, 302, 0},
        // 2xx with the wrong type, or with none
        {"HTTP/1.1 200 OK\r\n" HTML, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL, 200, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL, 200, 0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        check_answer(&cases[i]);
}

Test(http_client, broken_answers_leave_the_outcome_unknown)
{
    static const struct answer_case cases[] = {
        {"", GRAFT_UNKNOWN, GRAFT_DETAIL_TRUNCATED, 0, 0},
        {"HTTP/1.1 200 OK\r\nContent-Le", GRAFT_UNKNOWN, GRAFT_DETAIL_TRUNCATED, 0, 0},
        {"HTTP/1.1 204 No Content\r\n" PROTO, GRAFT_UNKNOWN, GRAFT_DETAIL_TRUNCATED, 0, 0},
        {"HTTP/1.1 200 OK\r\n" PROTO "Content-Length: 0\r\n", GRAFT_UNKNOWN, GRAFT_DETAIL_TRUNCATED, 0, 0},
        {"HTTP/1.1 200 OK\r\n" PROTO "\r\nno length", GRAFT_UNKNOWN, GRAFT_DETAIL_TRUNCATED, 200, 0},
        {"HTTP/1.1 200 OK\r\n" PROTO "\r\n", GRAFT_UNKNOWN, GRAFT_DETAIL_TRUNCATED, 200, 0},
        {"HTTP/1.1 409 Conflict\r\n" PROTO "\r\n\x08\x02", GRAFT_UNKNOWN, GRAFT_DETAIL_TRUNCATED, 409, 0},
        {"HTTP/1.1 200 OK\r\n" PROTO "Content-Length: 10\r\n\r\nfive!", GRAFT_UNKNOWN, GRAFT_DETAIL_TRUNCATED,
         200, 0},
        {"HTTP/1.1 200 OK\r\n" PROTO "Transfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n", GRAFT_UNKNOWN,
         GRAFT_DETAIL_TRUNCATED, 200, 0},
        {"HTTP/1.1 200 OK\r\n" PROTO "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", GRAFT_UNKNOWN,
         GRAFT_DETAIL_TRUNCATED, 200, 0},
        {"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u2\r\n", GRAFT_UNKNOWN, GRAFT_DETAIL_PROTOCOL, 0, 0},
        {"220 mail.example.org ESMTP\r\n", GRAFT_UNKNOWN, GRAFT_DETAIL_PROTOCOL, 0, 0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        check_answer(&cases[i]);
}

static void serve_long_error(struct fake_server *server, int fd)
{
    char head[FAKE_HEAD_MAX];
    static const char page[64 * KIB] = {'x'};
    if (!fake_read_head(server, fd, head))
        return;
    fake_answer(fd, "400 Bad Request", HTTP_PROTOBUF, page, sizeof page);
    fake_drain(fd);
}

Test(http_client, of_an_endless_error_page_only_the_code_counts)
{
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_long_error, NULL);
    struct http_exchange_spec spec = post(&server, "");
    struct result result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_INVALID);
    cr_assert_eq(result.outcome.code, 400);
    cr_assert_not(result.outcome.answered);
    cr_assert_leq(result.body.size, ERROR_RESPONSE_SIZE_MAX);
    buffer_release(&result.body);
    http_client_free(client);
    fake_stop(&server);
}

static void serve_endless_headers(struct fake_server *server, int fd)
{
    char head[FAKE_HEAD_MAX];
    if (!fake_read_head(server, fd, head))
        return;
    fake_print(fd, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 20000; i++)
        fake_print(fd, "X-Number-%d: a header as good as any other\r\n", i);
    fake_drain(fd);
}

Test(http_client, endless_headers_are_refused)
{
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_endless_headers, NULL);
    struct http_exchange_spec spec = post(&server, "");
    struct result result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_UNKNOWN, "%s", result.err.message);
    cr_assert_eq(result.err.detail, GRAFT_DETAIL_PROTOCOL);
    http_client_free(client);
    fake_stop(&server);
}

// ---- connections and time -----------------------------------------------------------------------------

Test(http_client, nobody_listening_means_nothing_was_sent)
{
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_echo, NULL);
    fake_stop(&server);
    struct http_exchange_spec spec = post(&server, "x");
    struct result result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_UNAVAILABLE);
    cr_assert_eq(result.err.detail, GRAFT_DETAIL_UNREACHABLE);
    cr_assert_not(result.outcome.sent);
    spec.url = "http://nowhere.invalid:80/v1/commit";
    result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_UNAVAILABLE);
    cr_assert_eq(result.err.detail, GRAFT_DETAIL_UNREACHABLE);
    cr_assert_not(result.outcome.sent);
    http_client_free(client);
}

Test(http_client, requests_that_cannot_be_made_are_invalid)
{
    struct http_client *client = new_client();
    struct http_exchange_spec spec = {.url = "gopher://127.0.0.1/"};
    struct result result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_INVALID, "%s", result.err.message);
    spec.url = "http://127.0.0.1:port/";
    result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_INVALID, "%s", result.err.message);
    spec.url = "http://127.0.0.1:1/";
    spec.bearer = "a\r\nX-Injected: 1";
    result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_INVALID, "%s", result.err.message);
    cr_assert_not(result.outcome.sent);
    http_client_free(client);
}

// True once the server has read `count` requests' heads.
static bool await_requests(struct fake_server *server, unsigned count)
{
    uint64_t until_ms = now_ms() + 10000;
    while (atomic_load(&server->requests) < count && now_ms() < until_ms)
        sched_yield();
    return atomic_load(&server->requests) == count;
}

Test(http_client, a_deadline_ends_a_silent_call_and_its_connection)
{
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_silence, NULL);
    struct http_exchange_spec spec = post(&server, "x");
    spec.deadline_ms = 300;
    for (unsigned i = 1; i <= 2; i++) {
        uint64_t start_ms = now_ms();
        struct result result = call(client, &spec);
        cr_assert_eq(result.status, GRAFT_UNKNOWN);
        cr_assert_eq(result.err.detail, GRAFT_DETAIL_TIMEOUT);
        cr_assert(result.outcome.sent);
        cr_assert_geq(now_ms() - start_ms, 300);
        cr_assert_lt(now_ms() - start_ms, 5000);
        // The server serves one connection at a time: the second call gets through only if the first was
        // closed.
        cr_assert(await_requests(&server, i));
    }
    fake_stop(&server); // returns because the last connection is closed as well
    http_client_free(client);
}

Test(http_client, a_server_that_answers_nothing_stalls)
{
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_silence, NULL);
    struct http_exchange_spec spec = post(&server, "x");
    spec.stall_ms = 300;
    struct result result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_UNKNOWN);
    cr_assert_eq(result.err.detail, GRAFT_DETAIL_TIMEOUT);
    cr_assert(strstr(result.err.message, "stood still"), "%s", result.err.message);
    http_client_free(client);
    fake_stop(&server);
}

// Answers the first request of its first connection, then closes at the next without a word.
static void serve_fickle(struct fake_server *server, int fd)
{
    char head[FAKE_HEAD_MAX], body[4096];
    bool first_connection = server->connections == 1;
    for (int i = 0; fake_read_head(server, fd, head); i++) {
        size_t size = fake_read_body(fd, head, body, sizeof body);
        if (first_connection && i == 1)
            return;
        fake_answer(fd, "200 OK", HTTP_PROTOBUF, body, size);
    }
}

Test(http_client, a_request_that_dies_on_a_kept_connection_is_sent_again)
{
    // That is libcurl's doing, and ours to know: such a call may reach the server twice.
    struct fake_server server;
    struct http_client *client = new_client();
    fake_start(&server, serve_fickle, NULL);
    for (int i = 0; i < 2; i++) {
        struct http_exchange_spec spec = post(&server, "x");
        struct result result = call(client, &spec);
        cr_assert_eq(result.status, GRAFT_OK, "%s", result.err.message);
        buffer_release(&result.body);
    }
    http_client_free(client);
    fake_stop(&server);
    cr_assert_eq(server.connections, 2);
    cr_assert_eq(server.requests, 3);
}

struct pending {
    atomic_uint done;
    _Atomic enum graft_status status;
    _Atomic enum graft_detail detail;
};

static void note_done(void *context, const struct http_outcome *outcome)
{
    struct pending *pending = context;
    atomic_store(&pending->status, outcome->error.status);
    atomic_store(&pending->detail, outcome->error.detail);
    atomic_fetch_add(&pending->done, 1);
}

static void wait_done(struct pending *pending)
{
    uint64_t until_ms = now_ms() + 10000;
    while (atomic_load(&pending->done) == 0 && now_ms() < until_ms)
        sched_yield();
    cr_assert_eq(atomic_load(&pending->done), 1);
}

Test(http_client, a_cancelled_exchange_ends_once)
{
    struct fake_server server;
    struct pending pending = {0};
    struct http_exchange *exchange;
    struct http_client *client = new_client();
    fake_start(&server, serve_silence, NULL);
    struct http_exchange_spec spec = post(&server, "x");
    spec.on_done = note_done;
    spec.context = &pending;
    cr_assert_eq(http_client_start(client, &spec, &exchange, NULL), GRAFT_OK);
    http_exchange_cancel(exchange);
    http_exchange_resume(exchange);
    http_exchange_cancel(exchange);
    wait_done(&pending);
    cr_assert_eq(pending.status, GRAFT_CANCELLED);
    http_exchange_cancel(exchange);
    http_client_free(client);
    cr_assert_eq(pending.done, 1);
    http_exchange_unref(exchange);
    fake_stop(&server);
}

Test(http_client, stopping_cancels_what_is_under_way_and_refuses_the_rest)
{
    struct fake_server server;
    struct pending pending[3] = {0};
    struct http_client *client = new_client();
    fake_start(&server, serve_silence, NULL);
    for (int i = 0; i < 3; i++) {
        struct http_exchange_spec spec = post(&server, "x");
        spec.on_done = note_done;
        spec.context = &pending[i];
        cr_assert_eq(http_client_start(client, &spec, NULL, NULL), GRAFT_OK);
    }
    cr_assert(http_client_wait(client, 1));
    http_client_stop(client);
    cr_assert_not(http_client_wait(client, 1000000));
    for (int i = 0; i < 3; i++) {
        wait_done(&pending[i]);
        cr_assert_eq(pending[i].status, GRAFT_CANCELLED);
        cr_assert_eq(pending[i].detail, GRAFT_DETAIL_STOPPING);
    }
    struct http_exchange_spec spec = post(&server, "x");
    struct result result = call(client, &spec);
    cr_assert_eq(result.status, GRAFT_CANCELLED);
    cr_assert_eq(result.err.detail, GRAFT_DETAIL_STOPPING);
    http_client_free(client);
    fake_stop(&server);
}

Test(http_client, calls_beyond_the_connections_wait_their_turn)
{
    // The server serves one connection at a time, the client opens one: thirty threads' calls still all pass.
    struct fake_server server;
    struct pending pending[30] = {0};
    struct http_client *client;
    cr_assert_eq(
        http_client_new(&(struct http_client_settings){.connections_per_host_max = 1}, &client, NULL),
        GRAFT_OK);
    fake_start(&server, serve_echo, NULL);
    for (int i = 0; i < 30; i++) {
        struct http_exchange_spec spec = post(&server, "x");
        spec.on_done = note_done;
        spec.context = &pending[i];
        cr_assert_eq(http_client_start(client, &spec, NULL, NULL), GRAFT_OK);
    }
    for (int i = 0; i < 30; i++) {
        wait_done(&pending[i]);
        cr_assert_eq(pending[i].status, GRAFT_OK);
    }
    http_client_free(client);
    fake_stop(&server);
    cr_assert_eq(server.connections, 1);
}

// ---- many at once -------------------------------------------------------------------------------------

struct caller {
    pthread_t thread;
    struct http_client *client;
    const struct fake_server *server;
    unsigned ok;
};

static void *call_many(void *context)
{
    struct caller *caller = context;
    for (int i = 0; i < 100; i++) {
        struct http_exchange_spec spec = post(caller->server, "x");
        struct result result = call(caller->client, &spec);
        caller->ok += result.status == GRAFT_OK;
        buffer_release(&result.body);
    }
    return NULL;
}

Test(http_client, many_threads_share_one_client)
{
    struct fake_server server;
    struct caller callers[8];
    struct http_client *client;
    cr_assert_eq(
        http_client_new(&(struct http_client_settings){.connections_per_host_max = 1}, &client, NULL),
        GRAFT_OK);
    fake_start(&server, serve_echo, NULL);
    for (size_t i = 0; i < ARRAY_COUNT(callers); i++) {
        callers[i] = (struct caller){.client = client, .server = &server};
        cr_assert_eq(pthread_create(&callers[i].thread, NULL, call_many, &callers[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_COUNT(callers); i++) {
        pthread_join(callers[i].thread, NULL);
        cr_assert_eq(callers[i].ok, 100);
    }
    http_client_free(client);
    fake_stop(&server);
}

// ---- backoff ------------------------------------------------------------------------------------------

Test(backoff, doubles_up_to_its_cap_with_jitter)
{
    struct backoff backoff = {.base_ms = 100, .cap_ms = 1500, .seed = 5};
    static const uint32_t tops[] = {100, 200, 400, 800, 1500, 1500};
    bool varies = false;
    for (size_t i = 0; i < ARRAY_COUNT(tops); i++) {
        uint32_t delay = backoff_next_ms(&backoff);
        cr_assert(delay >= tops[i] / 2 && delay <= tops[i], "try %zu waits %u", i, delay);
        varies |= delay != tops[i];
    }
    cr_assert(varies);
    for (int i = 0; i < 1000; i++)
        cr_assert_leq(backoff_next_ms(&backoff), 1500);
    backoff_reset(&backoff);
    cr_assert_leq(backoff_next_ms(&backoff), 100);
}
