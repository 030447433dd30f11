// SPDX-License-Identifier: Apache-2.0
//
// Bodies that stream, in both directions, with pauses, refusals and cuts.
#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "common/net/http_client.h"
#include "common/net/http_server.h"
#include "common/net/message.h"
#include "tests/unit/net/fake_server.h"

#define UPLOAD_SIZE (3 * MIB)

static uint8_t pattern(size_t position)
{
    return (uint8_t)(position * 7 + position / 251);
}

// An exchange and what its callbacks do. Pauses are ended by the test's own thread, like a producer or
// consumer would.
struct flow {
    struct http_client *client;
    struct http_exchange *exchange;

    // the client's thread
    size_t upload_size, uploaded;
    size_t abort_at;   // of the download; 0: never
    size_t pause_each; // pause before each so many bytes; 0: never
    size_t pause_next;
    size_t received;
    bool bytes_differ;
    bool endless_pause; // never goes on by itself

    struct mutex lock;
    struct cond changed;
    unsigned pauses; // lock
    bool may_go_on;  // lock
    bool done;       // lock
    struct http_outcome outcome;
};

static void flow_init(struct flow *flow)
{
    memset(flow, 0, sizeof *flow);
    mutex_init(&flow->lock, RANK_LEAF);
    cond_init(&flow->changed);
    cr_assert_eq(http_client_new(&(struct http_client_settings){0}, &flow->client, NULL), GRAFT_OK);
}

static void flow_release(struct flow *flow)
{
    http_client_free(flow->client);
    http_exchange_unref(flow->exchange);
    cond_release(&flow->changed);
    mutex_release(&flow->lock);
}

// True if the callback must pause now. Each pause is ended by the waiting test.
static bool must_pause(struct flow *flow, size_t position)
{
    if (flow->pause_each == 0 || position < flow->pause_next)
        return false;
    LOCK_GUARD(&flow->lock);
    if (flow->may_go_on) {
        flow->may_go_on = false;
        flow->pause_next += flow->pause_each;
        return false;
    }
    flow->pauses++;
    cond_broadcast(&flow->changed);
    return true;
}

static long read_upload(void *context, void *to, size_t size)
{
    struct flow *flow = context;
    uint8_t *bytes = to;
    if (must_pause(flow, flow->uploaded))
        return HTTP_PAUSE;
    if (flow->abort_at && flow->uploaded >= flow->abort_at)
        return HTTP_ABORT;
    size_t count = MIN(size, flow->upload_size - flow->uploaded);
    for (size_t i = 0; i < count; i++)
        bytes[i] = pattern(flow->uploaded + i);
    flow->uploaded += count;
    return (long)count;
}

static long take_download(void *context, const void *data, size_t size)
{
    struct flow *flow = context;
    const uint8_t *bytes = data;
    if (must_pause(flow, flow->received))
        return HTTP_PAUSE;
    if (flow->abort_at && flow->received >= flow->abort_at)
        return HTTP_ABORT;
    for (size_t i = 0; i < size; i++)
        flow->bytes_differ |= bytes[i] != pattern(flow->received + i);
    flow->received += size;
    return (long)size;
}

static void note_done(void *context, const struct http_outcome *outcome)
{
    struct flow *flow = context;
    LOCK_GUARD(&flow->lock);
    cr_assert_not(flow->done);
    flow->outcome = *outcome;
    flow->done = true;
    cond_broadcast(&flow->changed);
}

// Runs the exchange to its end, going on after each pause.
static const struct graft_error *flow_run(struct flow *flow, struct http_exchange_spec *spec)
{
    unsigned pauses_seen = 0;
    spec->on_done = note_done;
    spec->context = flow;
    cr_assert_eq(http_client_start(flow->client, spec, &flow->exchange, NULL), GRAFT_OK);
    mutex_lock(&flow->lock);
    while (!flow->done) {
        if (flow->pauses == pauses_seen || flow->endless_pause) {
            cond_wait(&flow->changed, &flow->lock);
            continue;
        }
        pauses_seen = flow->pauses;
        flow->may_go_on = true;
        mutex_unlock(&flow->lock);
        http_exchange_resume(flow->exchange);
        mutex_lock(&flow->lock);
    }
    mutex_unlock(&flow->lock);
    return &flow->outcome.error;
}

static struct http_exchange_spec upload_to(const struct fake_server *server)
{
    return (struct http_exchange_spec){
        .url = server->url,
        .content_type = HTTP_STREAM,
        .accept = HTTP_PROTOBUF,
        .deadline_ms = 20000,
        .read_body = read_upload,
        .response_max = 64,
    };
}

static struct http_exchange_spec download_from(const struct fake_server *server)
{
    return (struct http_exchange_spec){
        .method = "POST",
        .url = server->url,
        .accept = HTTP_STREAM,
        .deadline_ms = 20000,
        .on_data = take_download,
    };
}

// ---- uploads ------------------------------------------------------------------------------------------

// Takes an upload, checks it, and answers "whole" or "broken".
static void serve_upload(struct fake_server *server, int fd)
{
    static uint8_t body[UPLOAD_SIZE + 1];
    char head[FAKE_HEAD_MAX];
    while (fake_read_head(server, fd, head)) {
        if (server->context)
            memcpy(server->context, head, FAKE_HEAD_MAX);
        fake_print(fd, "HTTP/1.1 100 Continue\r\n\r\n");
        size_t size = fake_read_body(fd, head, (char *)body, sizeof body);
        bool whole = size == UPLOAD_SIZE;
        for (size_t i = 0; i < size; i++)
            whole &= body[i] == pattern(i);
        fake_answer(fd, "200 OK", HTTP_PROTOBUF, whole ? "whole" : "broken", whole ? 5 : 6);
    }
}

static void check_upload(size_t pause_each, unsigned pauses_min)
{
    static char head[FAKE_HEAD_MAX];
    struct fake_server server;
    struct flow flow;
    flow_init(&flow);
    flow.upload_size = UPLOAD_SIZE;
    flow.pause_each = pause_each;
    fake_start(&server, serve_upload, head);
    struct http_exchange_spec spec = upload_to(&server);
    const struct graft_error *error = flow_run(&flow, &spec);
    cr_assert_eq(error->status, GRAFT_OK, "%s", error->message);
    cr_assert_eq(flow.outcome.received_size, 5); // "whole"
    cr_assert_geq(flow.outcome.sent_size, UPLOAD_SIZE);
    cr_assert_geq(flow.pauses, pauses_min);
    flow_release(&flow);
    fake_stop(&server);
    cr_assert(fake_head_has(head, "POST / HTTP/1.1\r\n"));
    cr_assert(fake_head_has(head, "Expect: 100-continue\r\n"), "%s", head);
    cr_assert(fake_head_has(head, "Transfer-Encoding: chunked\r\n"), "%s", head);
    cr_assert_not(fake_head_has(head, "Content-Length"), "%s", head);
}

Test(http_streams, an_upload_arrives)
{
    check_upload(0, 0);
}

Test(http_streams, an_upload_that_pauses_arrives)
{
    check_upload(200000, 10);
}

static void answer_refusal(int fd)
{
    struct graft_error error;
    Graft__Error message;
    _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(4096);
    error_set(&error, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "too much of it");
    error_to_message(&error, &message);
    cr_assert_eq(message_encode(&message.base, &bytes, NULL), GRAFT_OK);
    fake_answer(fd, "413 Too Large", HTTP_PROTOBUF, bytes.data, bytes.size);
    fake_drain(fd);
}

static void serve_refusal(struct fake_server *server, int fd)
{
    char head[FAKE_HEAD_MAX];
    if (fake_read_head(server, fd, head))
        answer_refusal(fd);
}

// Refuses when some of the body is there.
static void serve_late_refusal(struct fake_server *server, int fd)
{
    static char waste[100000];
    char head[FAKE_HEAD_MAX];
    if (!fake_read_head(server, fd, head))
        return;
    fake_print(fd, "HTTP/1.1 100 Continue\r\n\r\n");
    cr_assert_eq(recv(fd, waste, sizeof waste, MSG_WAITALL), sizeof waste);
    answer_refusal(fd);
}

// Refuses when the upload has paused.
static void serve_refusal_at_pause(struct fake_server *server, int fd)
{
    struct flow *flow = server->context;
    char head[FAKE_HEAD_MAX];
    if (!fake_read_head(server, fd, head))
        return;
    fake_print(fd, "HTTP/1.1 100 Continue\r\n\r\n");
    mutex_lock(&flow->lock);
    while (flow->pauses == 0)
        cond_wait(&flow->changed, &flow->lock);
    mutex_unlock(&flow->lock);
    answer_refusal(fd);
}

Test(http_streams, a_refusal_before_the_body_is_read_saves_the_upload)
{
    struct fake_server server;
    struct flow flow;
    flow_init(&flow);
    flow.upload_size = UPLOAD_SIZE;
    fake_start(&server, serve_refusal, NULL);
    struct http_exchange_spec spec = upload_to(&server);
    const struct graft_error *error = flow_run(&flow, &spec);
    cr_assert_eq(error->status, GRAFT_LIMIT, "%s", error->message);
    cr_assert(flow.outcome.answered);
    cr_assert_str_eq(error->message, "too much of it");
    cr_assert_eq(flow.uploaded, 0);
    flow_release(&flow);
    fake_stop(&server);
}

Test(http_streams, an_error_in_the_middle_of_an_upload_comes_through)
{
    struct fake_server server;
    struct flow flow;
    flow_init(&flow);
    flow.upload_size = 1024 * MIB;
    fake_start(&server, serve_late_refusal, NULL);
    struct http_exchange_spec spec = upload_to(&server);
    const struct graft_error *error = flow_run(&flow, &spec);
    cr_assert_eq(error->status, GRAFT_LIMIT, "%s", error->message);
    cr_assert(flow.outcome.answered);
    cr_assert_gt(flow.uploaded, 0);
    cr_assert_lt(flow.uploaded, flow.upload_size);
    flow_release(&flow);
    fake_stop(&server);
}

Test(http_streams, an_error_reaches_an_upload_that_waits_for_its_source)
{
    struct fake_server server;
    struct flow flow;
    flow_init(&flow);
    flow.upload_size = UPLOAD_SIZE;
    flow.pause_each = flow.pause_next = 150000;
    flow.endless_pause = true;
    fake_start(&server, serve_refusal_at_pause, &flow);
    struct http_exchange_spec spec = upload_to(&server);
    const struct graft_error *error = flow_run(&flow, &spec);
    cr_assert_eq(error->status, GRAFT_LIMIT, "%s", error->message);
    http_client_stop(flow.client);
    fake_stop(&server);
    flow_release(&flow);
}

static void serve_upload_cut(struct fake_server *server, int fd)
{
    static char waste[100000];
    char head[FAKE_HEAD_MAX];
    if (!fake_read_head(server, fd, head))
        return;
    fake_print(fd, "HTTP/1.1 100 Continue\r\n\r\n");
    cr_assert_eq(recv(fd, waste, sizeof waste, MSG_WAITALL), sizeof waste);
    // Closed with unread bytes: the client gets a reset.
}

Test(http_streams, an_upload_cut_by_the_server_is_unknown)
{
    struct fake_server server;
    struct flow flow;
    flow_init(&flow);
    flow.upload_size = 64 * MIB;
    fake_start(&server, serve_upload_cut, NULL);
    struct http_exchange_spec spec = upload_to(&server);
    const struct graft_error *error = flow_run(&flow, &spec);
    cr_assert_eq(error->status, GRAFT_UNKNOWN, "%s", error->message);
    cr_assert_eq(error->detail, GRAFT_DETAIL_TRUNCATED);
    cr_assert(flow.outcome.sent);
    flow_release(&flow);
    fake_stop(&server);
}

static void serve_deaf(struct fake_server *server, int fd)
{
    char head[FAKE_HEAD_MAX], byte;
    if (!fake_read_head(server, fd, head))
        return;
    fake_print(fd, "HTTP/1.1 100 Continue\r\n\r\n");
    // Reads nothing, but notices the end: a peek that would wait for it sees data first, so wait for the
    // reset.
    for (int error = 0; error == 0;) {
        socklen_t size = sizeof error;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0 || atomic_load((atomic_bool *)server->context))
            break;
    }
}

Test(http_streams, an_upload_that_nobody_reads_stalls)
{
    atomic_bool over = false;
    struct fake_server server;
    struct flow flow;
    flow_init(&flow);
    flow.upload_size = 1024 * MIB;
    fake_start(&server, serve_deaf, &over);
    struct http_exchange_spec spec = upload_to(&server);
    spec.stall_ms = 200;
    const struct graft_error *error = flow_run(&flow, &spec);
    cr_assert_eq(error->status, GRAFT_UNKNOWN, "%s", error->message);
    cr_assert_eq(error->detail, GRAFT_DETAIL_TIMEOUT);
    over = true;
    flow_release(&flow);
    fake_stop(&server);
}

Test(http_streams, an_upload_given_up_is_cancelled)
{
    struct fake_server server;
    struct flow flow;
    flow_init(&flow);
    flow.upload_size = UPLOAD_SIZE;
    flow.abort_at = 1;
    fake_start(&server, serve_upload, NULL);
    struct http_exchange_spec spec = upload_to(&server);
    const struct graft_error *error = flow_run(&flow, &spec);
    cr_assert_eq(error->status, GRAFT_CANCELLED, "%s", error->message);
    flow_release(&flow);
    fake_stop(&server);
}

// ---- downloads ----------------------------------------------------------------------------------------

// What the server does with its 2 MiB body.
enum download_mode {
    DOWNLOAD_WHOLE,
    DOWNLOAD_CUT,
    DOWNLOAD_STALL,
    DOWNLOAD_DRIP,
};

static void serve_download(struct fake_server *server, int fd)
{
    enum download_mode mode = *(enum download_mode *)server->context;
    uint8_t piece[1000];
    size_t pieces = mode == DOWNLOAD_DRIP ? 20 : 2 * MIB / sizeof piece;
    char head[FAKE_HEAD_MAX];
    if (!fake_read_head(server, fd, head))
        return;
    fake_print(fd, "HTTP/1.1 200 OK\r\nContent-Type: " HTTP_STREAM "\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (size_t k = 0; k < pieces; k++) {
        for (size_t i = 0; i < sizeof piece; i++)
            piece[i] = pattern(k * sizeof piece + i);
        if (mode != DOWNLOAD_WHOLE && mode != DOWNLOAD_DRIP && k == 500) {
            if (mode == DOWNLOAD_STALL)
                fake_drain(fd);
            return;
        }
        if (mode == DOWNLOAD_DRIP)
            usleep(60000); // the peer's slowness is what is tested
        fake_print(fd, "%zx\r\n", sizeof piece);
        fake_send(fd, piece, sizeof piece);
        fake_send(fd, "\r\n", 2);
    }
    fake_print(fd, "0\r\n\r\n");
    fake_drain(fd);
}

static void check_download(enum download_mode mode, size_t pause_each, uint32_t stall_ms,
                           enum graft_status status, enum graft_detail detail, size_t size_min)
{
    struct fake_server server;
    struct flow flow;
    flow_init(&flow);
    flow.pause_each = flow.pause_next = pause_each;
    fake_start(&server, serve_download, &mode);
    struct http_exchange_spec spec = download_from(&server);
    spec.stall_ms = stall_ms;
    const struct graft_error *error = flow_run(&flow, &spec);
    cr_assert_eq(error->status, status, "%s", error->message);
    cr_assert_eq(error->detail, detail, "%s", error->message);
    cr_assert_not(flow.bytes_differ);
    cr_assert_geq(flow.received, size_min);
    cr_assert_eq(flow.outcome.received_size, flow.received);
    cr_assert_eq(flow.outcome.code, 200);
    if (pause_each)
        cr_assert_geq(flow.pauses, 5);
    flow_release(&flow);
    fake_stop(&server);
}

Test(http_streams, a_download_arrives)
{
    check_download(DOWNLOAD_WHOLE, 0, 0, GRAFT_OK, GRAFT_DETAIL_NONE, 2 * MIB - 1000);
}

Test(http_streams, a_download_that_pauses_arrives_and_repeats_nothing)
{
    check_download(DOWNLOAD_WHOLE, 100000, 0, GRAFT_OK, GRAFT_DETAIL_NONE, 2 * MIB - 1000);
}

Test(http_streams, a_cut_download_is_truncated_and_changed_nothing)
{
    check_download(DOWNLOAD_CUT, 0, 0, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TRUNCATED, 0);
}

Test(http_streams, a_download_that_stands_still_is_given_up)
{
    check_download(DOWNLOAD_STALL, 0, 600, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TIMEOUT, 490000);
}

Test(http_streams, a_slow_download_does_not_stall)
{
    // 1200 ms in all, never 900 without a byte.
    check_download(DOWNLOAD_DRIP, 0, 900, GRAFT_OK, GRAFT_DETAIL_NONE, 20000);
}

Test(http_streams, a_paused_download_does_not_stall)
{
    enum download_mode mode = DOWNLOAD_WHOLE;
    struct fake_server server;
    struct flow flow;
    flow_init(&flow);
    flow.pause_each = flow.pause_next = 1000;
    flow.endless_pause = true;
    fake_start(&server, serve_download, &mode);
    struct http_exchange_spec spec = download_from(&server);
    spec.stall_ms = 50;
    spec.deadline_ms = 400;
    const struct graft_error *error = flow_run(&flow, &spec);
    cr_assert_eq(error->detail, GRAFT_DETAIL_TIMEOUT);
    cr_assert(strstr(error->message, "deadline of 400 ms"), "%s", error->message);
    flow_release(&flow);
    fake_stop(&server);
}

Test(http_streams, a_download_given_up_is_cancelled)
{
    enum download_mode mode = DOWNLOAD_WHOLE;
    struct fake_server server;
    struct flow flow;
    flow_init(&flow);
    flow.abort_at = 50000;
    fake_start(&server, serve_download, &mode);
    struct http_exchange_spec spec = download_from(&server);
    const struct graft_error *error = flow_run(&flow, &spec);
    cr_assert_eq(error->status, GRAFT_CANCELLED);
    cr_assert_lt(flow.received, 2 * MIB);
    flow_release(&flow);
    fake_stop(&server);
}

static void serve_error_page(struct fake_server *server, int fd)
{
    char head[FAKE_HEAD_MAX];
    while (fake_read_head(server, fd, head))
        fake_answer(fd, server->context, HTTP_TEXT, "no such thing", 13);
}

Test(http_streams, errors_and_other_types_never_reach_the_consumer)
{
    static const char *const answers[] = {"200 OK", "404 Not Found"};
    for (size_t i = 0; i < ARRAY_COUNT(answers); i++) {
        struct fake_server server;
        struct flow flow;
        flow_init(&flow);
        fake_start(&server, serve_error_page, (void *)answers[i]);
        struct http_exchange_spec spec = download_from(&server);
        const struct graft_error *error = flow_run(&flow, &spec);
        cr_assert_eq(error->detail, GRAFT_DETAIL_PROTOCOL);
        cr_assert_eq(flow.received, 0);
        flow_release(&flow);
        fake_stop(&server);
    }
}
