// SPDX-License-Identifier: Apache-2.0
//
// Peers that do not play by the rules. After each the server answers a good one, and nothing of the bad one
// is left.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/random.h"
#include "tests/unit/net/http_fixture.h"

static void expect_sane(struct fixture *fixture)
{
    struct peer peer;
    peer_open(&peer, fixture_address(fixture));
    struct reply reply = peer_post(&peer, "/v1/echo", HTTP_PROTOBUF, "sane", 4);
    cr_assert_eq(reply.code, 200);
    cr_assert_eq(reply.size, 4);
    reply_release(&reply);
    peer_close(&peer);
}

static unsigned connections(struct fixture *fixture)
{
    LOCK_GUARD(&fixture->server->lock);
    unsigned count = 0;
    struct http_connection *connection;
    TAILQ_FOREACH (connection, &fixture->server->connections, entry)
        count++;
    return count;
}

static void expect_none_left(struct fixture *fixture)
{
    expect_sane(fixture); // whoever connected before it has been accepted by then
    uint64_t deadline_us = http_now_us() + 10000000;
    while (connections(fixture) > 0 && http_now_us() < deadline_us)
        usleep(1000);
    cr_assert_eq(connections(fixture), 0);
    cr_assert(fixture_wait_closed(fixture, fixture->begun));
    cr_assert_eq(atomic_load(&fixture->server->budget_left), RECEIVE_BUDGET_SIZE);
}

Test(http_robust, headers_that_trickle_for_ever_are_cut)
{
    struct fixture fixture;
    // Each byte counts as activity for the idle timeout; the headers as a whole have their own limit.
    fixture_start(&fixture, &(struct fixture_settings){.idle_timeout_ms = 1000, .timing = {.head_ms = 500}});
    struct peer peers[20];
    for (size_t i = 0; i < ARRAY_COUNT(peers); i++) {
        peer_open(&peers[i], fixture_address(&fixture));
        peer_print(&peers[i], "GET /healthz HTTP/1.1\r\nX-Slow: ");
    }
    while (connections(&fixture) < ARRAY_COUNT(peers))
        usleep(1000);
    uint64_t start_us = http_now_us();
    while (connections(&fixture) > 0 && http_now_us() - start_us < 10000000) {
        for (size_t i = 0; i < ARRAY_COUNT(peers); i++)
            peer_print(&peers[i], "x");
        usleep(50000);
    }
    uint64_t took_us = http_now_us() - start_us;
    cr_assert(took_us > 1000000 && took_us < 5000000, "%llu µs", (unsigned long long)took_us);
    for (size_t i = 0; i < ARRAY_COUNT(peers); i++)
        peer_close(&peers[i]);
    expect_sane(&fixture);
    fixture_stop(&fixture);
}

Test(http_robust, a_connection_that_says_nothing_is_closed)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.idle_timeout_ms = 1000});
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    cr_assert(peer_is_closed(&peer));
    peer_close(&peer);
    peer_open(&peer, fixture_address(&fixture));
    struct reply reply = peer_get(&peer, "/healthz");
    cr_assert_eq(reply.code, 200);
    reply_release(&reply);
    cr_assert(peer_is_closed(&peer));
    peer_close(&peer);
    expect_sane(&fixture);
    fixture_stop(&fixture);
}

Test(http_robust, garbage_gets_an_error_or_nothing)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct rng rng;
    rng_seed(&rng, 7);
    for (int round = 0; round < 300; round++) {
        char data[2000];
        size_t size = 1 + rng_below(&rng, sizeof data - 4);
        for (size_t i = 0; i < size; i++)
            data[i] =
                round % 3 == 0 ? (char)rng_next(&rng) : "GET /v1 HTP:1.\r\n\t;,0\0"[rng_below(&rng, 22)];
        memcpy(data + size, "\r\n\r\n", 4);
        struct peer peer;
        peer_open(&peer, fixture_address(&fixture));
        peer_send(&peer, data, size + 4);
        shutdown(peer.socket, SHUT_WR);
        struct reply reply = peer_reply(&peer, false);
        cr_assert(reply.code == 0 || reply.code / 100 >= 4, "round %d: %d", round, reply.code);
        reply_release(&reply);
        peer_close(&peer);
    }
    expect_none_left(&fixture);
    fixture_stop(&fixture);
}

Test(http_robust, a_good_request_with_bytes_changed_never_harms_the_next)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.timing = {.drain_idle_ms = 20}});
    static const char good[] =
        "POST /v1/upload HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-graft-stream\r\n"
        "Transfer-Encoding: chunked\r\nX-Mode: pause\r\n\r\n"
        "5\r\nhello\r\n10;ext=1\r\n0123456789abcdef\r\n0\r\n\r\n";
    struct rng rng;
    rng_seed(&rng, 11);
    for (int round = 0; round < 300; round++) {
        char data[sizeof good];
        memcpy(data, good, sizeof good);
        for (unsigned i = 0; i <= rng_below(&rng, 3); i++)
            data[rng_below(&rng, sizeof good - 1)] = (char)rng_next(&rng);
        struct peer peer;
        peer_open(&peer, fixture_address(&fixture));
        peer_send(&peer, data, sizeof good - 1 - rng_below(&rng, 2) * rng_below(&rng, 40));
        if (round % 2)
            usleep(1000);
        peer_close(&peer);
    }
    expect_none_left(&fixture);
    fixture_stop(&fixture);
}

Test(http_robust, headers_beyond_the_connections_memory_are_refused)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.connection_memory = 16 * KIB});
    static const char *const starts[] = {
        "GET /", "GET /healthz HTTP/1.1\r\nX-Long: ", "GET /healthz HTTP/1.1\r\nX-A: b\r\n"};
    char *junk = malloc(100000);
    for (size_t i = 0; i < ARRAY_COUNT(starts); i++) {
        memset(junk, 'a', 100000);
        if (i == 2) // many small ones instead of a long one
            for (size_t j = 0; j + 8 <= 100000; j += 8)
                memcpy(junk + j, "Xy: ab\r\n", 8);
        struct peer peer;
        peer_open(&peer, fixture_address(&fixture));
        peer_print(&peer, "%s", starts[i]);
        peer_send(&peer, junk, 100000);
        struct reply reply = peer_reply(&peer, false);
        cr_assert(reply.code == 0 || reply.code == 414 || reply.code == 431 || reply.code == 413, "%d",
                  reply.code);
        reply_release(&reply);
        peer_close(&peer);
    }
    free(junk);
    expect_none_left(&fixture);
    fixture_stop(&fixture);
}

Test(http_robust, a_body_that_ends_too_early_is_never_handed_on)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    static const char *const requests[] = {
        "POST /v1/upload HTTP/1.1\r\nContent-Type: application/x-graft-stream\r\nContent-Length: 10\r\n\r\n123456789",
        "POST /v1/upload HTTP/1.1\r\nContent-Type: application/x-graft-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        "a\r\n123456789",
        "POST /v1/upload HTTP/1.1\r\nContent-Type: application/x-graft-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        "a\r\n0123456789\r\n",
        "POST /v1/upload HTTP/1.1\r\nContent-Type: application/x-graft-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        "a\r\n0123456789\r\n0\r\n",
        "POST /v1/echo HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Length: 10\r\n\r\n123456789",
        "POST /v1/echo HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Length: 10\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(requests); i++) {
        struct peer peer;
        peer_open(&peer, fixture_address(&fixture));
        peer_print(&peer, "%s", requests[i]);
        shutdown(peer.socket, SHUT_WR);
        struct reply reply = peer_reply(&peer, false);
        cr_assert_eq(reply.code, 0, "request %zu: %d", i, reply.code);
        reply_release(&reply);
        cr_assert(peer.ended);
        peer_close(&peer);
    }
    expect_none_left(&fixture);
    fixture_stop(&fixture);
}

Test(http_robust, malformed_chunks_and_lengths_are_refused)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    static const char *const chunks[] = {"xyz\r\nabc\r\n", "-1\r\nabc\r\n", "3\r\nabcdef\r\n",
                                         "fffffffffffffffff\r\nabc", "\r\n\r\n"};
    for (size_t i = 0; i < ARRAY_COUNT(chunks); i++) {
        struct peer peer;
        peer_open(&peer, fixture_address(&fixture));
        peer_print(&peer,
                   "POST /v1/upload HTTP/1.1\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%s",
                   HTTP_STREAM, chunks[i]);
        struct reply reply = peer_reply(&peer, false);
        cr_assert(reply.code == 400 || reply.code == 413, "%s: %d", chunks[i], reply.code);
        reply_release(&reply);
        cr_assert(peer_is_closed(&peer));
        peer_close(&peer);
    }
    static const char *const lengths[] = {"-1", "1x", "0x10", "99999999999999999999999", "1, 1", " "};
    for (size_t i = 0; i < ARRAY_COUNT(lengths); i++) {
        struct peer peer;
        peer_open(&peer, fixture_address(&fixture));
        peer_print(&peer, "POST /v1/echo HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: %s\r\n\r\n",
                   HTTP_PROTOBUF, lengths[i]);
        struct reply reply = peer_reply(&peer, false);
        cr_assert(reply.code == 400 || reply.code == 413, "%s: %d", lengths[i], reply.code);
        reply_release(&reply);
        peer_close(&peer);
    }
    expect_none_left(&fixture);
    fixture_stop(&fixture);
}

Test(http_robust, memory_stays_flat_under_abuse)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip_test("a sanitizer's own memory grows");
#endif
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.timing = {.drain_idle_ms = 20}});
    long pages[3] = {0};
    for (int phase = 0; phase < 3; phase++) {
        for (int i = 0; i < 500; i++) {
            struct peer peer;
            peer_open(&peer, fixture_address(&fixture));
            static const char *const paths[] = {"/v1/hold", "/v1/echo", "/v1/none"};
            peer_print(&peer, "POST %s HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: 65000\r\n\r\nabc",
                       paths[i % 3], HTTP_PROTOBUF);
            peer_close(&peer);
        }
        expect_none_left(&fixture);
        FILE *file = fopen("/proc/self/statm", "r");
        cr_assert_eq(fscanf(file, "%*d %ld", &pages[phase]), 1);
        fclose(file);
    }
    cr_assert_lt(pages[2] - pages[1], 512, "%ld pages more", pages[2] - pages[1]);
    expect_sane(&fixture);
    fixture_stop(&fixture);
}
