// SPDX-License-Identifier: Apache-2.0
//
// Routes, refusals, limits and the life of a connection.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/net/message.h"
#include "tests/unit/net/http_fixture.h"

static struct graft_error error_of(const struct reply *reply)
{
    char type[64] = "";
    cr_assert(reply_header(reply, "Content-Type", type, sizeof type));
    cr_assert_str_eq(type, HTTP_PROTOBUF);
    struct bytes wire = {(const uint8_t *)reply->body, reply->size};
    ProtobufCMessage *message = NULL;
    struct graft_error error;
    cr_assert_eq(message_decode(&graft__error__descriptor, wire, 65536, &message, &error), GRAFT_OK);
    error_from_message((const Graft__Error *)message, &error);
    message_free(message);
    return error;
}

static void expect_error(struct reply reply, int code, enum graft_status status, enum graft_detail detail,
                         const char *word)
{
    cr_assert_eq(reply.code, code, "%d instead of %d", reply.code, code);
    cr_assert(reply.whole);
    struct graft_error error = error_of(&reply);
    cr_assert_eq(error.status, status);
    cr_assert_eq(error.detail, detail);
    cr_assert(strstr(error.message, word), "%s", error.message);
    reply_release(&reply);
}

static void expect_ok(struct reply reply, const char *body)
{
    cr_assert_eq(reply.code, 200, "%d", reply.code);
    cr_assert(reply.whole);
    cr_assert_eq(reply.size, strlen(body));
    cr_assert(reply.size == 0 || memcmp(reply.body, body, reply.size) == 0);
    reply_release(&reply);
}

Test(http_server, a_whole_body_comes_to_ready_and_the_answer_goes_back)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    expect_ok(peer_post(&peer, "/v1/echo", HTTP_PROTOBUF, "hello", 5), "hello");
    expect_ok(peer_post(&peer, "/v1/later", HTTP_PROTOBUF, "hello", 5), "later");
    expect_ok(peer_post(&peer, "/v1/echo", HTTP_PROTOBUF "; v=1", "again", 5), "again");
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_server, refusals_leave_the_connection_usable)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peer;
    char allow[64];
    peer_open(&peer, fixture_address(&fixture));
    for (int round = 0; round < 3; round++) {
        expect_error(peer_get(&peer, "/v1/nothing"), 404, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "/v1/nothing");
        expect_error(peer_post(&peer, "/v1/nothing", HTTP_PROTOBUF, "body", 4), 404, GRAFT_NOT_FOUND,
                     GRAFT_DETAIL_NONE, "/v1/nothing");
        struct reply reply = peer_get(&peer, "/v1/echo");
        cr_assert_not_null(reply_header(&reply, "Allow", allow, sizeof allow));
        cr_assert_str_eq(allow, "POST");
        expect_error(reply, 405, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "takes POST, not GET");
        reply = peer_post(&peer, "/healthz", HTTP_TEXT, "x", 1);
        cr_assert_not_null(reply_header(&reply, "Allow", allow, sizeof allow));
        cr_assert_str_eq(allow, "GET, HEAD");
        expect_error(reply, 405, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "takes GET, HEAD, not POST");
        expect_error(peer_post(&peer, "/v1/echo", "text/plain", "body", 4), 415, GRAFT_INVALID,
                     GRAFT_DETAIL_BAD_ARGUMENT, "not text/plain");
        peer_print(&peer,
                   "POST /v1/echo HTTP/1.1\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "4\r\nbody\r\n0\r\n\r\n",
                   HTTP_PROTOBUF);
        expect_error(peer_reply(&peer, false), 411, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                     "Content-Length");
        char large[64 * 1024 + 1] = {0};
        expect_error(peer_post(&peer, "/v1/echo", HTTP_PROTOBUF, large, sizeof large), 413, GRAFT_LIMIT,
                     GRAFT_DETAIL_TOO_LARGE, "at most 65536");
        expect_ok(peer_post(&peer, "/v1/echo", HTTP_PROTOBUF, "sane", 4), "sane");
    }
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_server, pipelined_refusals_are_answered_in_order)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    for (int i = 0; i < 20; i++) {
        peer_print(&peer, "POST /none%d HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", i);
        peer_print(&peer, "POST /v1/echo HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: 2\r\n\r\n%02d",
                   HTTP_PROTOBUF, i);
    }
    for (int i = 0; i < 20; i++) {
        char text[16];
        snprintf(text, sizeof text, "/none%d ", i);
        expect_error(peer_reply(&peer, false), 404, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, text);
        snprintf(text, sizeof text, "%02d", i);
        expect_ok(peer_reply(&peer, false), text);
    }
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_server, a_refused_body_that_never_comes_is_not_waited_for)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.timing = {.drain_idle_ms = 100}});
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    peer_print(&peer, "POST /none HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc");
    expect_error(peer_reply(&peer, false), 404, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "/none");
    cr_assert(peer_is_closed(&peer));
    peer_close(&peer);

    peer_open(&peer, fixture_address(&fixture));
    peer_print(&peer, "POST /v1/echo HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: 1000000000\r\n\r\n",
               HTTP_PROTOBUF);
    expect_error(peer_reply(&peer, false), 413, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "1000000000");
    cr_assert(peer_is_closed(&peer));
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_server, expect_100_is_honoured_or_refused_at_the_headers)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    peer_print(
        &peer,
        "POST /v1/echo HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
        HTTP_PROTOBUF);
    struct reply reply = peer_reply(&peer, false);
    cr_assert_eq(reply.code, 100);
    reply_release(&reply);
    peer_print(&peer, "good");
    expect_ok(peer_reply(&peer, false), "good");

    peer_print(
        &peer,
        "POST /v1/echo HTTP/1.1\r\nContent-Type: x/y\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    expect_error(peer_reply(&peer, false), 415, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "x/y");
    cr_assert(peer_is_closed(&peer));
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_server, a_request_with_two_ends_is_refused_and_the_connection_closed)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    static const char *const heads[] = {"Content-Length: 4\r\nTransfer-Encoding: chunked",
                                        "Transfer-Encoding: gzip", "Content-Length: 4\r\nContent-Length: 5",
                                        "Content-Length: 0\r\nContent-Length: 0"};
    for (size_t i = 0; i < ARRAY_COUNT(heads); i++) {
        struct peer peer;
        peer_open(&peer, fixture_address(&fixture));
        peer_print(&peer, "POST /v1/echo HTTP/1.1\r\nContent-Type: %s\r\n%s\r\n\r\n", HTTP_PROTOBUF,
                   heads[i]);
        expect_error(peer_reply(&peer, false), 400, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
                     "one Content-Length");
        cr_assert(peer_is_closed(&peer));
        peer_close(&peer);
    }
    fixture_stop(&fixture);
}

Test(http_server, ten_thousand_requests_go_over_one_connection)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    for (int i = 0; i < 10000; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        if (i % 4 == 3)
            expect_ok(peer_post(&peer, "/v1/later", HTTP_PROTOBUF, text, strlen(text)), "later");
        else
            expect_ok(peer_post(&peer, "/v1/echo", HTTP_PROTOBUF, text, strlen(text)), text);
    }
    peer_close(&peer);
    cr_assert(fixture_wait_closed(&fixture, 2500));
    fixture_stop(&fixture);
}

Test(http_server, connections_beyond_the_limit_wait_for_one_to_close)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.threads = 1, .connections_max = 4});
    struct peer peers[5];
    for (size_t i = 0; i < 4; i++) {
        peer_open(&peers[i], fixture_address(&fixture));
        expect_ok(peer_get(&peers[i], "/healthz"), "ok\n");
    }
    peer_open(&peers[4], fixture_address(&fixture));
    peer_print(&peers[4], "GET /healthz HTTP/1.1\r\n\r\n");
    usleep(100000);
    char byte;
    cr_assert_eq(recv(peers[4].socket, &byte, 1, MSG_DONTWAIT), -1);
    peer_close(&peers[0]);
    expect_ok(peer_reply(&peers[4], false), "ok\n");
    for (size_t i = 1; i < 5; i++)
        peer_close(&peers[i]);
    fixture_stop(&fixture);
}

Test(http_server, bodies_beyond_the_budget_get_503_until_there_is_room)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.threads = 1});
    size_t size = 4 * MIB;
    char *body = calloc(1, size), value[16];
    struct peer peers[8], late;
    for (size_t i = 0; i < ARRAY_COUNT(peers); i++) {
        peer_open(&peers[i], fixture_address(&fixture));
        peer_print(&peers[i],
                   "POST /v1/hold HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                   "Expect: 100-continue\r\n\r\n",
                   HTTP_PROTOBUF, size);
        struct reply reply = peer_reply(&peers[i], false);
        cr_assert_eq(reply.code, 100);
        reply_release(&reply);
    }
    peer_open(&late, fixture_address(&fixture));
    struct reply reply = peer_post(&late, "/v1/echo", HTTP_PROTOBUF, "x", 1);
    cr_assert_not_null(reply_header(&reply, "Retry-After", value, sizeof value));
    expect_error(reply, 503, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED, "32 MiB");

    // One gives up, seven go on: both give their share back, the latter while their owner still holds them.
    peer_close(&peers[0]);
    cr_assert(fixture_wait_closed(&fixture, 1));
    expect_ok(peer_post(&late, "/v1/echo", HTTP_PROTOBUF, "x", 1), "x");
    for (size_t i = 1; i < ARRAY_COUNT(peers); i++)
        cr_assert(peer_send(&peers[i], body, size));
    fixture_wait_held(&fixture, 7);
    // The share is given back behind the owner's call; on the only thread, an answer shows that the calls
    // have returned.
    expect_ok(peer_post(&late, "/v1/echo", HTTP_PROTOBUF, "x", 1), "x");
    cr_assert_eq(atomic_load(&fixture.server->budget_left), RECEIVE_BUDGET_SIZE);
    fixture_release_held(&fixture);
    for (size_t i = 1; i < ARRAY_COUNT(peers); i++) {
        expect_ok(peer_reply(&peers[i], false), "");
        peer_close(&peers[i]);
    }
    peer_close(&late);
    free(body);
    fixture_stop(&fixture);
}

Test(http_server, the_deadline_answers_503_and_closed_waits_for_the_owner)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.deadline_ms = 100});
    struct peer peer;
    char value[16];
    peer_open(&peer, fixture_address(&fixture));
    struct reply reply = peer_post(&peer, "/v1/hold", HTTP_PROTOBUF, "x", 1);
    cr_assert_not_null(reply_header(&reply, "Retry-After", value, sizeof value));
    expect_error(reply, 503, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TIMEOUT, "longer than 100 ms");
    expect_ok(peer_post(&peer, "/v1/echo", HTTP_PROTOBUF, "sane", 4), "sane");
    fixture_wait_held(&fixture, 1);
    cr_assert(http_request_answered(fixture.held[0]));
    cr_assert_null(http_request_header(fixture.held[0], "Content-Type"));
    cr_assert_eq(fixture.closed, 0);
    fixture_release_held(&fixture);
    cr_assert(fixture_wait_closed(&fixture, 1));
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_server, a_peer_that_dies_while_it_waits_leaks_nothing)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    for (unsigned i = 0; i < 20; i++) {
        struct peer peer;
        peer_open(&peer, fixture_address(&fixture));
        peer_print(&peer, "POST /v1/hold HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: 2\r\n\r\nab",
                   HTTP_PROTOBUF);
        fixture_wait_held(&fixture, i + 1);
        peer_close(&peer);
    }
    cr_assert_eq(fixture.closed, 0);
    fixture_release_held(&fixture);
    cr_assert(fixture_wait_closed(&fixture, 20));
    fixture_stop(&fixture);
}

Test(http_server, admin_routes_tell_health_readiness_and_metrics)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    expect_ok(peer_get(&peer, "/healthz"), "ok\n");
    expect_ok(peer_get(&peer, "/readyz"), "ok\n");
    fixture.is_ready = false;
    struct reply reply = peer_get(&peer, "/readyz");
    cr_assert_eq(reply.code, 503);
    cr_assert_str_eq(reply.body, "still warming up\n");
    reply_release(&reply);
    peer_print(&peer, "HEAD /healthz HTTP/1.1\r\n\r\n");
    reply = peer_reply(&peer, true);
    cr_assert_eq(reply.code, 200);
    reply_release(&reply);

    expect_ok(peer_post(&peer, "/v1/echo", HTTP_PROTOBUF, "12345", 5), "12345");
    reply = peer_get(&peer, "/nothing");
    reply_release(&reply);
    reply = peer_get(&peer, "/metrics");
    cr_assert_eq(reply.code, 200);
    static const char *const lines[] = {
        "graft_http_requests_total{server=\"test\",path=\"/v1/echo\",code=\"2xx\"} 1\n",
        "graft_http_requests_total{server=\"test\",path=\"/readyz\",code=\"5xx\"} 1\n",
        "graft_http_requests_total{server=\"test\",path=\"other\",code=\"4xx\"} 1\n",
        "graft_http_received_bytes_total{server=\"test\",path=\"/v1/echo\"} 5\n",
        "graft_http_sent_bytes_total{server=\"test\",path=\"/v1/echo\"} 5\n",
        "graft_http_request_seconds_count{server=\"test\",path=\"/v1/echo\"} 1\n",
        "graft_http_in_flight{server=\"test\",path=\"/metrics\"} 1\n",
        "graft_http_in_flight{server=\"test\",path=\"/v1/echo\"} 0\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++)
        cr_assert(strstr(reply.body, lines[i]), "%s is missing in\n%s", lines[i], reply.body);
    reply_release(&reply);
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_server, an_address_that_is_taken_or_malformed_is_named)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct graft_error error;
    struct http_server *server;
    struct http_server_settings settings = {.listen = fixture_address(&fixture),
                                            .threads = 1,
                                            .connections_max = 1,
                                            .connection_memory = 16 * KIB,
                                            .idle_timeout_ms = 1000};
    cr_assert_neq(http_server_start(&settings, &server, &error), GRAFT_OK);
    cr_assert(strstr(error.message, fixture_address(&fixture)), "%s", error.message);
    static const char *const bad[] = {
        "3001", "127.0.0.1", ":3001", "127.0.0.1:", "::1:3001", "[::1]3001", "a:b"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        settings.listen = bad[i];
        cr_assert_eq(http_server_start(&settings, &server, &error), GRAFT_INVALID, "%s", bad[i]);
        cr_assert(strstr(error.message, bad[i]), "%s", error.message);
    }
    settings.listen = "[::1]:0";
    cr_assert_eq(http_server_start(&settings, &server, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(strncmp(http_server_address(server), "[::1]:", 6), 0);
    http_server_stop(server);
    fixture_stop(&fixture);
}
