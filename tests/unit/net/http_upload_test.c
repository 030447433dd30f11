// SPDX-License-Identifier: Apache-2.0
//
// Streamed uploads: paused and resumed, answered early, drained, dropped.
#include <criterion/criterion.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/net/http_fixture.h"

static void upload_head(struct peer *peer, const char *mode, size_t size)
{
    peer_print(peer,
               "POST /v1/upload HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: %zu\r\nX-Mode: %s\r\n\r\n",
               HTTP_STREAM, size, mode);
}

static struct reply upload(struct peer *peer, const char *mode, size_t size)
{
    char *data = calloc(1, size);
    upload_head(peer, mode, size);
    cr_assert(peer_send(peer, data, size));
    free(data);
    return peer_reply(peer, false);
}

static void expect_code(struct reply reply, int code, const char *word)
{
    cr_assert_eq(reply.code, code, "%d", reply.code);
    cr_assert(reply.whole);
    cr_assert(memmem(reply.body, reply.size, word, strlen(word)), "%.*s", (int)reply.size, reply.body);
    reply_release(&reply);
}

Test(http_upload, streams_to_the_owner_with_a_length_or_in_chunks)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    expect_code(upload(&peer, "", 10 * MIB), 200, "10485760");
    peer_print(&peer,
               "POST /v1/upload HTTP/1.1\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
               "3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n1\r\nz\r\n0\r\nTrailer: t\r\n\r\n",
               HTTP_STREAM);
    expect_code(peer_reply(&peer, false), 200, "20");
    peer_print(&peer,
               "POST /v1/upload HTTP/1.1\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
               HTTP_STREAM);
    expect_code(peer_reply(&peer, false), 200, "0");
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_upload, what_the_owner_does_not_take_is_offered_again_after_its_wake)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    for (int round = 0; round < 3; round++) // a thousand bytes a wake
        expect_code(upload(&peer, "pause", 2000123), 200, "2000123");
    peer_print(
        &peer,
        "POST /v1/upload HTTP/1.1\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\nX-Mode: pause\r\n\r\n",
        HTTP_STREAM);
    for (int i = 0; i < 2000; i++)
        peer_print(&peer, "3\r\nabc\r\n");
    peer_print(&peer, "0\r\n\r\n");
    expect_code(peer_reply(&peer, false), 200, "6000");
    peer_close(&peer);
    fixture_stop(&fixture);
}

static void *upload_thread(void *context)
{
    struct fixture *fixture = context;
    struct peer peer;
    peer_open(&peer, fixture_address(fixture));
    for (int i = 0; i < 20; i++)
        expect_code(upload(&peer, i % 4 == 3 ? "fail" : "pause", 300000), i % 4 == 3 ? 409 : 200,
                    i % 4 == 3 ? "enough" : "300000");
    peer_close(&peer);
    return NULL;
}

Test(http_upload, many_are_paused_and_resumed_at_once)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    pthread_t threads[8];
    for (size_t i = 0; i < ARRAY_COUNT(threads); i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, upload_thread, &fixture), 0);
    for (size_t i = 0; i < ARRAY_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    cr_assert(fixture_wait_closed(&fixture, 160));
    fixture_stop(&fixture);
}

Test(http_upload, an_early_answer_comes_after_the_rest_and_the_connection_stays)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    for (int round = 0; round < 10; round++) {
        expect_code(upload(&peer, "fail", 20 * MIB), 409, "enough of this");
        expect_code(upload(&peer, "refuse", 1 * MIB), 409, "not this one");
        expect_code(upload(&peer, "", 1000), 200, "1000");
    }
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_upload, an_early_answer_gives_up_on_a_peer_that_sends_too_much)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    size_t size = 200 * MIB, piece = 64 * KIB, sent = 0;
    char *data = calloc(1, piece);
    upload_head(&peer, "fail", size);
    while (sent < size && peer_send(&peer, data, piece))
        sent += piece;
    cr_assert_gt(sent, DRAIN_SIZE_MAX);
    cr_assert_lt(sent, DRAIN_SIZE_MAX + 32 * MIB);
    // The answer was written in the middle of the upload. What the kernel keeps of it after the reset that
    // follows is its affair; what comes is ours.
    struct reply reply = peer_reply(&peer, false);
    cr_assert(reply.code == 409 || reply.code == 0, "%d", reply.code);
    reply_release(&reply);
    cr_assert(fixture_wait_closed(&fixture, 1));
    free(data);
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_upload, an_early_answer_is_given_to_a_peer_that_pauses)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.timing = {.drain_idle_ms = 200}});
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    char *data = calloc(1, 200000);
    upload_head(&peer, "fail", 10 * MIB);
    cr_assert(peer_send(&peer, data, 200000));
    expect_code(peer_reply(&peer, false), 409, "enough of this");
    cr_assert(peer_is_closed(&peer));
    peer_close(&peer);
    free(data);
    cr_assert(fixture_wait_closed(&fixture, 1));
    fixture_stop(&fixture);
}

Test(http_upload, an_early_answer_is_given_to_a_peer_that_goes_on_too_long)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.timing = {.drain_idle_ms = 800, .drain_ms = 1500}});
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    upload_head(&peer, "refuse", 10 * MIB);
    uint64_t start_us = http_now_us();
    while (peer_print(&peer, "x") && http_now_us() - start_us < 10000000)
        usleep(20000);
    uint64_t took_us = http_now_us() - start_us;
    cr_assert(took_us >= 1400000 && took_us < 8000000, "%llu µs", (unsigned long long)took_us);
    expect_code(peer_reply(&peer, false), 409, "not this one");
    peer_close(&peer);
    cr_assert(fixture_wait_closed(&fixture, 1));
    fixture_stop(&fixture);
}

Test(http_upload, one_below_the_minimum_rate_is_dropped_with_the_reason)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.timing = {.rate_window_ms = 600, .rate_min = 5000}});
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    upload_head(&peer, "", 10 * MIB);
    for (int i = 0; i < 200 && peer_print(&peer, "slow"); i++)
        usleep(20000);
    expect_code(peer_reply(&peer, false), 503, "fewer than 3000 bytes");
    peer_close(&peer);
    cr_assert(fixture_wait_closed(&fixture, 1));

    // Fast enough over three windows.
    char data[1000] = {0};
    peer_open(&peer, fixture_address(&fixture));
    upload_head(&peer, "", 100 * sizeof data);
    for (int i = 0; i < 100; i++) {
        cr_assert(peer_send(&peer, data, sizeof data));
        usleep(20000);
    }
    expect_code(peer_reply(&peer, false), 200, "100000");
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_upload, an_owner_that_stands_still_is_answered_for)
{
    struct fixture fixture;
    // The window ends long before the deadline: a pause of the owner's making does not count as slow.
    fixture_start(&fixture,
                  &(struct fixture_settings){.deadline_ms = 500,
                                             .timing = {.rate_window_ms = 100, .drain_idle_ms = 5000}});
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    expect_code(upload(&peer, "stall", 300000), 503, "could not go on with this upload for 500 ms");
    expect_code(upload(&peer, "", 1000), 200, "1000");
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_upload, a_stream_beyond_its_limit_is_refused_where_it_exceeds_it)
{
    struct fixture fixture;
    fixture_start(&fixture, &(struct fixture_settings){.timing = {.drain_idle_ms = 200}});
    struct peer peer;
    peer_open(&peer, fixture_address(&fixture));
    upload_head(&peer, "", 256 * MIB + 1);
    expect_code(peer_reply(&peer, false), 413, "at most 268435456");
    peer_close(&peer);

    peer_open(&peer, fixture_address(&fixture));
    peer_print(&peer, "POST /v1/upload HTTP/1.1\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n",
               HTTP_STREAM);
    size_t piece = 1 * MIB;
    char *data = calloc(1, piece);
    for (size_t sent = 0; sent < 256 * MIB + piece; sent += piece) {
        cr_assert(peer_print(&peer, "%zx\r\n", piece));
        cr_assert(peer_send(&peer, data, piece) && peer_print(&peer, "\r\n"));
    }
    cr_assert(peer_print(&peer, "0\r\n\r\n"));
    expect_code(peer_reply(&peer, false), 413, "at most 268435456");
    free(data);
    peer_close(&peer);
    fixture_stop(&fixture);
}

Test(http_upload, a_peer_that_aborts_has_closed_called_once)
{
    struct fixture fixture;
    // The idle timeout would hide it if the end of a peer went unseen.
    fixture_start(&fixture, &(struct fixture_settings){.idle_timeout_ms = 60000});
    static const char *const modes[] = {"", "pause", "fail", "refuse"};
    char *data = calloc(1, 150000);
    int count = 0;
    for (int round = 0; round < 25; round++) {
        for (size_t i = 0; i < ARRAY_COUNT(modes); i++, count++) {
            struct peer peer;
            peer_open(&peer, fixture_address(&fixture));
            upload_head(&peer, modes[i], 1 * MIB);
            peer_send(&peer, data, 1 + (size_t)round * 6000);
            peer_close(&peer);
        }
    }
    free(data);
    cr_assert(fixture_wait_closed(&fixture, fixture.begun));
    fixture_stop(&fixture);
    cr_assert_leq(fixture.closed, count);
}

// ---- libcurl's view -------------------------------------------------------------------------------------

struct source {
    size_t left;
};

static size_t source_read(char *to, size_t size, size_t count, void *context)
{
    struct source *source = context;
    size_t piece = MIN(size * count, source->left);
    memset(to, 'c', piece);
    source->left -= piece;
    return piece;
}

static size_t sink_write(char *data, size_t size, size_t count, void *context)
{
    (void)data;
    *(size_t *)context += size * count;
    return size * count;
}

static long curl_upload(CURL *curl, const char *address, const char *mode, size_t size, const char *expect)
{
    char url[128], header[64], error[CURL_ERROR_SIZE] = "";
    snprintf(url, sizeof url, "http://%s/v1/upload", address);
    snprintf(header, sizeof header, "X-Mode: %s", mode);
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: " HTTP_STREAM);
    headers = curl_slist_append(headers, header);
    headers = curl_slist_append(headers, expect);
    struct source source = {size};
    size_t received = 0;
    long code = 0;
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_POST, 1L);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size);
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, source_read);
    curl_easy_setopt(curl, CURLOPT_READDATA, &source);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, sink_write);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &received);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    CURLcode result = curl_easy_perform(curl);
    cr_assert_eq(result, CURLE_OK, "%s: %s", mode, error);
    cr_assert_gt(received, 0);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
    curl_slist_free_all(headers);
    return code;
}

Test(http_upload, libcurl_gets_every_answer_early_or_late)
{
    struct fixture fixture;
    fixture_start(&fixture, NULL);
    CURL *curl = curl_easy_init();
    const char *address = fixture_address(&fixture);
    static const char *const expects[] = {"Expect:", "Expect: 100-continue"};
    for (int round = 0; round < 10; round++) {
        for (size_t i = 0; i < ARRAY_COUNT(expects); i++) {
            cr_assert_eq(curl_upload(curl, address, "", 8 * MIB, expects[i]), 200);
            cr_assert_eq(curl_upload(curl, address, "fail", 8 * MIB, expects[i]), 409);
            cr_assert_eq(curl_upload(curl, address, "refuse", 8 * MIB, expects[i]), 409);
            cr_assert_eq(curl_upload(curl, address, "pause", 200000, expects[i]), 200);
        }
    }
    curl_easy_cleanup(curl);
    fixture_stop(&fixture);
}
