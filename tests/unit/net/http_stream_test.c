// SPDX-License-Identifier: Apache-2.0
//
// Streamed answers, sources that wait, and stopping while something is under way.
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/net/http_fixture.h"

static void ask(struct peer *peer, const char *mode, size_t size)
{
    peer_print(peer, "GET /v1/stream HTTP/1.1\r\nX-Mode: %s\r\nX-Size: %zu\r\n\r\n", mode, size);
}

static void expect_pattern(struct reply reply, size_t size)
{
    cr_assert_eq(reply.code, 200, "%d", reply.code);
    cr_assert(reply.whole);
    cr_assert_eq(reply.size, size, "%zu", reply.size);
    for (size_t i = 0; i < size; i++)
        if (reply.body[i] != fixture_pattern(i))
            cr_assert_fail("byte %zu", i);
    reply_release(&reply);
}

Test(http_stream, a_source_fills_the_answer)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    static const size_t sizes[] = {0, 1, 700, 65536, 5000000};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        ask(&peer, "flat", sizes[i]);
        expect_pattern(peer_reply(&peer, false), sizes[i]);
    }
    peer_close(&peer);
    fixture_stop(&fixture);
}

static void *wait_thread(void *context)
{
    struct fixture *fixture = context;
    struct peer peer;
    peer_open(&peer, fixture_address(fixture));
    for (int i = 0; i < 5; i++) {
        ask(&peer, "wait", 700 * 1000); // a thousand waits, each woken by another thread as soon as it may
        expect_pattern(peer_reply(&peer, false), 700 * 1000);
    }
    peer_close(&peer);
    return NULL;
}

Test(http_stream, no_wake_is_lost_in_twenty_thousand)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_COUNT(threads); i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, wait_thread, &fixture), 0);
    for (size_t i = 0; i < ARRAY_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    fixture_stop(&fixture);
}

struct waker {
    struct fixture *fixture;
    atomic_bool stop;
};

// Wakes what is held without an answer, as often as it can.
static void *wake_thread(void *context)
{
    struct waker *waker = context;
    while (!atomic_load(&waker->stop)) {
        mutex_lock(&waker->fixture->lock);
        if (waker->fixture->held_count > 0)
            http_request_wake(http_request_ref(waker->fixture->held[0]));
        struct http_request *request = waker->fixture->held_count > 0 ? waker->fixture->held[0] : NULL;
        mutex_unlock(&waker->fixture->lock);
        if (request)
            http_request_unref(request);
    }
    return NULL;
}

Test(http_stream, a_wake_without_an_answer_neither_answers_nor_puts_off_the_deadline)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.deadline_ms = 500});
    struct waker waker = {.fixture = &fixture};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, wake_thread, &waker), 0);
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    uint64_t start_us = http_now_us();
    struct reply reply = peer_post(&peer, "/v1/hold", HTTP_PROTOBUF, "x", 1);
    uint64_t took_us = http_now_us() - start_us;
    cr_assert_eq(reply.code, 503);
    cr_assert(took_us >= 490000 && took_us < 5000000, "%llu µs", (unsigned long long)took_us);
    reply_release(&reply);
    waker.stop = true;
    pthread_join(thread, NULL);
    fixture_release_held(&fixture);
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_stream, a_source_that_aborts_or_stands_still_breaks_the_body)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.deadline_ms = 800});
    static const char *const modes[] = {"abort", "stall"};
    for (size_t i = 0; i < ARRAY_COUNT(modes); i++) {
        struct peer peer;
        peer_open(&peer, fixture_address(&fixture));
        ask(&peer, modes[i], 100000);
        struct reply reply = peer_reply(&peer, false);
        cr_assert_eq(reply.code, 200);
        cr_assert_not(reply.whole);
        cr_assert(reply.size >= 50000 && reply.size < 51000, "%zu", reply.size);
        reply_release(&reply);
        cr_assert(peer.ended);
        peer_close(&peer);
        cr_assert(fixture_wait_closed(&fixture, (int)i + 1));
    }
    fixture_stop(&fixture);
}

Test(http_stream, a_peer_that_aborts_has_closed_called_once)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    static const char *const modes[] = {"flat", "wait"};
    for (int i = 0; i < 60; i++) {
        struct peer peer;
        peer_open(&peer, fixture_address(&fixture));
        ask(&peer, modes[i % 2], 50000000);
        char byte;
        cr_assert_eq(recv(peer.socket, &byte, 1, 0), 1);
        peer_close(&peer);
    }
    cr_assert(fixture_wait_closed(&fixture, 60));
    fixture_stop(&fixture);
}

Test(http_stream, a_peer_that_takes_nothing_is_dropped_after_the_idle_timeout)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.idle_timeout_ms = 1000});
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    ask(&peer, "flat", 500000000);
    cr_assert(fixture_wait_closed(&fixture, 1));
    peer_close(&peer);
    fixture_stop(&fixture);
}

// ---- stopping -------------------------------------------------------------------------------------------

struct drainer {
    struct fixture *fixture;
    uint32_t wait_ms;
    atomic_bool done;
};

static void *drain_thread(void *context)
{
    struct drainer *drainer = context;
    http_server_drain(drainer->fixture->server, drainer->wait_ms);
    drainer->done = true;
    return NULL;
}

Test(http_stream, a_drain_finishes_what_was_accepted_and_refuses_the_rest)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer held, later;
    peer_open(&held, fixture_address(&fixture));
    peer_print(&held, "POST /v1/hold HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: 1\r\n\r\nx",
               HTTP_PROTOBUF);
    fixture_wait_held(&fixture, 1);
    struct drainer drainer = {.fixture = &fixture, .wait_ms = 10000};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, drain_thread, &drainer), 0);
    while (!atomic_load(&fixture.server->draining))
        usleep(1000);

    char value[16];
    peer_open(&later, fixture_address(&fixture));
    struct reply reply = peer_post(&later, "/v1/echo", HTTP_PROTOBUF, "x", 1);
    cr_assert_eq(reply.code, 503);
    cr_assert_not_null(reply_header(&reply, "Retry-After", value, sizeof value));
    cr_assert(memmem(reply.body, reply.size, "stopping", 8));
    reply_release(&reply);
    reply = peer_get(&later, "/healthz");
    cr_assert_eq(reply.code, 200);
    reply_release(&reply);
    reply = peer_get(&later, "/readyz");
    cr_assert_eq(reply.code, 503);
    reply_release(&reply);

    cr_assert_not(drainer.done);
    fixture_release_held(&fixture);
    reply = peer_reply(&held, false);
    cr_assert_eq(reply.code, 200);
    reply_release(&reply);
    pthread_join(thread, NULL);
    http_server_stop(fixture.server);
    cr_assert(peer_is_closed(&later));
    fixture.server = NULL;
    pool_free(fixture.owner);
    cr_assert_eq(fixture.begun, fixture.closed);
    metrics_free(fixture.metrics);
    peer_close(&held);
    peer_close(&later);
}

static void *release_thread(void *context)
{
    usleep(300000);
    fixture_release_held(context);
    return NULL;
}

Test(http_stream, a_stop_cuts_what_is_suspended_and_waits_for_owners)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peers[12];
    for (size_t i = 0; i < ARRAY_COUNT(peers); i++) {
        peer_open(&peers[i], fixture_address(&fixture));
        switch (i % 4) {
        case 0:
            peer_print(&peers[i], "POST /v1/hold HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: 1\r\n\r\nx",
                       HTTP_PROTOBUF);
            break;
        case 1:
            ask(&peers[i], "stall", 1000000);
            break;
        case 2:
            peer_print(
                &peers[i],
                "POST /v1/upload HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: 9999\r\nX-Mode: stall\r\n\r\nxyz",
                HTTP_STREAM);
            break;
        default:
            ask(&peers[i], "wait", 100000000);
        }
    }
    fixture_wait_held(&fixture, 3);
    while (fixture.begun < 12)
        usleep(1000);
    usleep(50000);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, release_thread, &fixture), 0);
    http_server_drain(fixture.server, 50);
    http_server_stop(fixture.server);
    cr_assert_eq(fixture.begun, 12);
    cr_assert_eq(fixture.closed, 12);
    pthread_join(thread, NULL);
    pool_free(fixture.owner);
    metrics_free(fixture.metrics);
    for (size_t i = 0; i < ARRAY_COUNT(peers); i++)
        peer_close(&peers[i]);
}

// Asks until the server cuts it off.
static void *busy_thread(void *context)
{
    struct peer *peer = context;
    static const char *const modes[] = {"wait", "flat", "stall", "wait"};
    for (int i = 0;; i++) {
        ask(peer, modes[i % 4], 30000);
        struct reply reply = peer_reply(peer, false);
        bool is_whole = reply.whole && reply.code == 200;
        reply_release(&reply);
        if (!is_whole)
            break;
    }
    return NULL;
}

Test(http_stream, a_stop_in_the_middle_of_wakes_neither_hangs_nor_panics)
{
    for (int round = 0; round < 24; round++) {
        struct fixture fixture;
        fixture_start(&fixture, NULL);
        struct peer peers[6];
        pthread_t threads[ARRAY_COUNT(peers)];
        for (size_t i = 0; i < ARRAY_COUNT(peers); i++)
            peer_open(&peers[i], fixture_address(&fixture));
        for (size_t i = 0; i < ARRAY_COUNT(peers); i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, busy_thread, &peers[i]), 0);
        // Each has two answers before it stalls: the stop comes after any number of the twelve.
        cr_assert(fixture_wait_closed(&fixture, round % 13));
        http_server_drain(fixture.server, 1);
        http_server_stop(fixture.server);
        for (size_t i = 0; i < ARRAY_COUNT(peers); i++) {
            pthread_join(threads[i], NULL);
            peer_close(&peers[i]);
        }
        pool_free(fixture.owner);
        cr_assert_eq(fixture.begun, fixture.closed);
        metrics_free(fixture.metrics);
    }
}
