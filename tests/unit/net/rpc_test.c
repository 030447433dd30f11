// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <sys/socket.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/net/http_server.h"
#include "common/net/rpc.h"
#include "tests/unit/net/fake_server.h"

// ---- servers ------------------------------------------------------------------------------------------

struct script {
    const char *status_line, *content_type, *headers;
    struct buffer body;
    atomic_uint refusals; // 503s before the answer
    char head[FAKE_HEAD_MAX];
};

static void serve_script(struct fake_server *server, int fd)
{
    struct script *script = server->context;
    char body[4096];
    while (fake_read_head(server, fd, script->head)) {
        fake_read_body(fd, script->head, body, sizeof body);
        if (atomic_load(&script->refusals) > 0) {
            atomic_fetch_sub(&script->refusals, 1);
            fake_answer(fd, "503 Busy\r\nRetry-After: 0", "text/html", "", 0);
            continue;
        }
        fake_answer(fd, script->status_line, script->content_type, script->body.data, script->body.size);
    }
}

struct setup {
    struct fake_server server;
    struct script script;
    struct rpc_target target;
    struct gid vid;
};

static void setup_init(struct setup *setup, const char *status_line, const char *content_type)
{
    memset(setup, 0, sizeof *setup);
    setup->script.status_line = status_line;
    setup->script.content_type = content_type;
    buffer_init(&setup->script.body, 1 << 20);
    setup->vid = gid_make(GID_VOLUME, 1700000000000);
    fake_start(&setup->server, serve_script, &setup->script);
    setup->target.url = setup->server.url;
    setup->target.deadline_ms = 10000;
    cr_assert_eq(http_client_new(&(struct http_client_settings){0}, &setup->target.http, NULL), GRAFT_OK);
}

static void setup_release(struct setup *setup)
{
    http_client_free(setup->target.http);
    fake_stop(&setup->server);
    buffer_release(&setup->script.body);
}

static struct snapshot sample_snapshot(const struct gid *vid)
{
    return (struct snapshot){.vid = *vid, .lsn = 3, .page_count = 5, .page_size = 4096, .chain = {{1}}};
}

static enum graft_status call_snapshot(struct setup *setup, Graft__SnapshotResponse **ret_response,
                                       struct rpc_failure *ret_failure, struct graft_error *err)
{
    Graft__SnapshotRequest request = GRAFT__SNAPSHOT_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    request.vid = binary_of(setup->vid.bytes, GID_SIZE);
    enum graft_status status = rpc_call(&setup->target, "snapshot", &request.base,
                                        &graft__snapshot_response__descriptor, &response, ret_failure, err);
    *ret_response = (Graft__SnapshotResponse *)response;
    return status;
}

// ---- calls --------------------------------------------------------------------------------------------

Test(rpc, a_call_gives_the_answers_message)
{
    struct setup setup;
    struct snapshot before, after;
    Graft__SnapshotResponse answer = GRAFT__SNAPSHOT_RESPONSE__INIT, *response;
    Graft__Snapshot wire;
    struct graft_error err;
    setup_init(&setup, "200 OK", HTTP_PROTOBUF);
    before = sample_snapshot(&setup.vid);
    snapshot_to_message(&before, &wire);
    answer.snapshot = &wire;
    cr_assert_eq(message_encode(&answer.base, &setup.script.body, NULL), GRAFT_OK);
    cr_assert_eq(call_snapshot(&setup, &response, NULL, &err), GRAFT_OK, "%s", err.message);
    cr_assert_eq(snapshot_from_message(response->snapshot, &after, NULL), GRAFT_OK);
    cr_assert_eq(after.lsn, 3);
    cr_assert(gid_equal(&after.vid, &setup.vid));
    message_free(&response->base);
    setup_release(&setup);
    cr_assert(fake_head_has(setup.script.head, "POST /v1/snapshot HTTP/1.1\r\n"), "%s", setup.script.head);
}

Test(rpc, a_servers_error_keeps_status_detail_token_and_snapshot)
{
    struct setup setup;
    struct rpc_failure failure;
    struct graft_error error, err;
    struct token token = {{9, 9, 9}};
    Graft__Error message;
    Graft__Snapshot wire;
    Graft__SnapshotResponse *response;
    setup_init(&setup, "409 Conflict", HTTP_PROTOBUF);
    struct snapshot head = sample_snapshot(&setup.vid);
    error_set(&error, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, "another commit came first");
    error_to_message(&error, &message);
    snapshot_to_message(&head, &wire);
    message.token = binary_of(token.bytes, TOKEN_SIZE);
    message.snapshot = &wire;
    cr_assert_eq(message_encode(&message.base, &setup.script.body, NULL), GRAFT_OK);
    cr_assert_eq(call_snapshot(&setup, &response, &failure, &err), GRAFT_CONFLICT);
    cr_assert_null(response);
    cr_assert_eq(err.status, GRAFT_CONFLICT);
    cr_assert_eq(err.detail, GRAFT_DETAIL_NOT_HEAD);
    cr_assert(strstr(err.message, "snapshot at http://127.0.0.1:"), "%s", err.message);
    cr_assert(strstr(err.message, "another commit came first"), "%s", err.message);
    cr_assert(failure.answered && failure.sent && failure.has_token && failure.has_snapshot);
    cr_assert(token_equal(&failure.token, &token));
    cr_assert_eq(failure.snapshot.lsn, 3);
    setup_release(&setup);
}

Test(rpc, no_status_of_a_stranger_settles_anything)
{
    static const struct {
        const char *status_line, *content_type, *body;
        enum graft_detail detail;
    } cases[] = {
        {"200 OK", "text/html", "", GRAFT_DETAIL_PROTOCOL},
        {"200 OK", HTTP_PROTOBUF, "\xff\xff", GRAFT_DETAIL_PROTOCOL},
        {"400 Bad Request", "text/html", "", GRAFT_DETAIL_PROTOCOL},
        {"401 Unauthorized", "text/html", "", GRAFT_DETAIL_PROTOCOL},
        {"404 Not Found", HTTP_PROTOBUF, "", GRAFT_DETAIL_PROTOCOL},
        {"409 Conflict", HTTP_PROTOBUF, "\xff\xff", GRAFT_DETAIL_PROTOCOL},
        {"410 Gone", "text/html", "", GRAFT_DETAIL_PROTOCOL},
        {"413 Too Large", "text/html", "", GRAFT_DETAIL_TOO_LARGE},
        {"503 Busy", "text/html", "", GRAFT_DETAIL_OVERLOADED},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct setup setup;
        struct rpc_failure failure;
        struct graft_error err;
        Graft__SnapshotResponse *response;
        setup_init(&setup, cases[i].status_line, cases[i].content_type);
        cr_assert_eq(buffer_append(&setup.script.body, cases[i].body, strlen(cases[i].body), NULL), GRAFT_OK);
        cr_assert_eq(call_snapshot(&setup, &response, &failure, &err), GRAFT_UNKNOWN, "%s: %s",
                     cases[i].status_line, err.message);
        cr_assert_eq(err.status, GRAFT_UNKNOWN);
        cr_assert_eq(err.detail, cases[i].detail, "%s: %s", cases[i].status_line, err.message);
        cr_assert(failure.sent && !failure.answered && !failure.has_token && !failure.has_snapshot);
        cr_assert(rpc_is_transient(&err));
        cr_assert(strstr(err.message, setup.server.url), "%s", err.message);
        setup_release(&setup);
    }
}

Test(rpc, what_was_not_sent_is_unavailable)
{
    struct setup setup;
    struct rpc_failure failure;
    struct graft_error err;
    Graft__SnapshotResponse *response;
    setup_init(&setup, "200 OK", HTTP_PROTOBUF);
    fake_stop(&setup.server);
    cr_assert_eq(call_snapshot(&setup, &response, &failure, &err), GRAFT_UNAVAILABLE);
    cr_assert_eq(err.detail, GRAFT_DETAIL_UNREACHABLE);
    cr_assert_not(failure.sent);
    http_client_free(setup.target.http);
}

static enum graft_status retry_snapshot(struct setup *setup, unsigned attempts,
                                        struct rpc_failure *ret_failure, struct graft_error *err)
{
    Graft__SnapshotRequest request = GRAFT__SNAPSHOT_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    enum graft_status status =
        rpc_call_retry(&setup->target, "snapshot", &request.base, &graft__snapshot_response__descriptor,
                       attempts, &response, ret_failure, err);
    message_free(response);
    return status;
}

Test(rpc, retries_until_the_answer_comes)
{
    struct setup setup;
    struct graft_error err;
    setup_init(&setup, "200 OK", HTTP_PROTOBUF);
    setup.script.refusals = 2;
    cr_assert_eq(retry_snapshot(&setup, 3, NULL, &err), GRAFT_OK, "%s", err.message);
    cr_assert_eq(setup.server.requests, 3);
    setup.script.refusals = 3;
    cr_assert_eq(retry_snapshot(&setup, 3, NULL, &err), GRAFT_UNKNOWN);
    cr_assert_eq(setup.server.requests, 6);
    setup_release(&setup);
}

Test(rpc, definitive_answers_are_not_tried_again)
{
    struct setup setup;
    struct rpc_failure failure;
    struct graft_error error, err;
    Graft__Error message;
    setup_init(&setup, "404 Not Found", HTTP_PROTOBUF);
    error_set(&error, GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME, "no such volume");
    error_to_message(&error, &message);
    cr_assert_eq(message_encode(&message.base, &setup.script.body, NULL), GRAFT_OK);
    cr_assert_eq(retry_snapshot(&setup, 5, &failure, &err), GRAFT_NOT_FOUND);
    cr_assert(failure.answered);
    cr_assert_eq(setup.server.requests, 1);
    setup_release(&setup);
}

static void *stop_client(void *context)
{
    struct http_client *client = context;
    http_client_wait(client, 100);
    http_client_stop(client);
    return NULL;
}

Test(rpc, stopping_the_client_ends_the_wait_for_another_try)
{
    struct setup setup;
    struct graft_error err;
    pthread_t stopper;
    uint64_t start_ms = clock_monotonic_ms(clock_system());
    setup_init(&setup, "503 Busy\r\nRetry-After: 60", "text/html");
    cr_assert_eq(pthread_create(&stopper, NULL, stop_client, setup.target.http), 0);
    cr_assert_eq(retry_snapshot(&setup, 5, NULL, &err), GRAFT_CANCELLED, "%s", err.message);
    cr_assert_eq(err.detail, GRAFT_DETAIL_STOPPING);
    cr_assert_lt(clock_monotonic_ms(clock_system()) - start_ms, 10000);
    pthread_join(stopper, NULL);
    setup_release(&setup);
}

// ---- streams ------------------------------------------------------------------------------------------

struct frames {
    unsigned commits;
    uint64_t refuse_lsn; // 0: none
};

static enum graft_status take_commit(void *context, struct bytes bytes, bool *ret_end,
                                     struct graft_error *err)
{
    struct frames *frames = context;
    ProtobufCMessage *message;
    enum graft_status status =
        message_decode(&graft__commits_frame__descriptor, bytes, COMMIT_RECORD_SIZE_MAX, &message, err);
    if (status != GRAFT_OK)
        return status;
    const Graft__CommitsFrame *frame = (const Graft__CommitsFrame *)message;
    if (frame->frame_case == GRAFT__COMMITS_FRAME__FRAME_END)
        *ret_end = true;
    else if (frames->refuse_lsn && frame->commit->lsn == frames->refuse_lsn)
        status = error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH, "the chain breaks");
    else
        cr_assert_eq(frame->commit->lsn, ++frames->commits);
    message_free(message);
    return status;
}

static void append_commit(struct buffer *to, uint64_t lsn)
{
    Graft__Commit commit = GRAFT__COMMIT__INIT;
    Graft__CommitsFrame frame = GRAFT__COMMITS_FRAME__INIT;
    commit.lsn = lsn;
    frame.frame_case = GRAFT__COMMITS_FRAME__FRAME_COMMIT;
    frame.commit = &commit;
    cr_assert_eq(message_encode_frame(&frame.base, to, NULL), GRAFT_OK);
}

static void append_end(struct buffer *to, uint64_t count)
{
    Graft__StreamEnd end = GRAFT__STREAM_END__INIT;
    Graft__CommitsFrame frame = GRAFT__COMMITS_FRAME__INIT;
    end.count = count;
    frame.frame_case = GRAFT__COMMITS_FRAME__FRAME_END;
    frame.end = &end;
    cr_assert_eq(message_encode_frame(&frame.base, to, NULL), GRAFT_OK);
}

static enum graft_status run_stream(struct setup *setup, struct frames *frames,
                                    struct rpc_failure *ret_failure, struct graft_error *err)
{
    Graft__CommitsRequest request = GRAFT__COMMITS_REQUEST__INIT;
    struct rpc_stream *stream;
    cr_assert_eq(rpc_stream_start(&setup->target, "commits", &request.base, 4096, 5000, take_commit, frames,
                                  &stream, NULL),
                 GRAFT_OK);
    return rpc_stream_finish(stream, ret_failure, err);
}

Test(rpc, a_stream_brings_its_frames_and_its_end)
{
    struct setup setup;
    struct frames frames = {0};
    struct graft_error err;
    setup_init(&setup, "200 OK", HTTP_STREAM);
    for (uint64_t lsn = 1; lsn <= 20000; lsn++)
        append_commit(&setup.script.body, lsn);
    append_end(&setup.script.body, 20000);
    cr_assert_eq(run_stream(&setup, &frames, NULL, &err), GRAFT_OK, "%s", err.message);
    cr_assert_eq(frames.commits, 20000);
    setup_release(&setup);
}

Test(rpc, a_stream_without_its_end_is_truncated)
{
    struct setup setup;
    struct frames frames = {0};
    struct rpc_failure failure;
    struct graft_error err;
    setup_init(&setup, "200 OK", HTTP_STREAM);
    append_commit(&setup.script.body, 1);
    cr_assert_eq(run_stream(&setup, &frames, &failure, &err), GRAFT_UNAVAILABLE);
    cr_assert_eq(err.detail, GRAFT_DETAIL_TRUNCATED);
    cr_assert_eq(frames.commits, 1);
    cr_assert_not(failure.answered);
    setup_release(&setup);
}

Test(rpc, nothing_follows_a_streams_end)
{
    struct setup setup;
    struct frames frames = {0};
    struct graft_error err;
    setup_init(&setup, "200 OK", HTTP_STREAM);
    append_end(&setup.script.body, 0);
    append_commit(&setup.script.body, 1);
    cr_assert_eq(run_stream(&setup, &frames, NULL, &err), GRAFT_UNAVAILABLE);
    cr_assert_eq(err.detail, GRAFT_DETAIL_PROTOCOL);
    cr_assert_eq(frames.commits, 0);
    setup_release(&setup);
}

Test(rpc, an_overlong_frame_ends_a_stream)
{
    struct setup setup;
    struct frames frames = {0};
    struct graft_error err;
    setup_init(&setup, "200 OK", HTTP_STREAM);
    append_commit(&setup.script.body, 1);
    cr_assert_eq(buffer_append(&setup.script.body, "\x81\x20", 2, NULL), GRAFT_OK); // 4,097 bytes
    cr_assert_eq(run_stream(&setup, &frames, NULL, &err), GRAFT_UNAVAILABLE);
    cr_assert_eq(err.detail, GRAFT_DETAIL_PROTOCOL);
    setup_release(&setup);
}

Test(rpc, a_frame_that_its_reader_refuses_ends_the_stream_with_its_error)
{
    struct setup setup;
    struct frames frames = {.refuse_lsn = 2};
    struct graft_error err;
    setup_init(&setup, "200 OK", HTTP_STREAM);
    for (uint64_t lsn = 1; lsn <= 3; lsn++)
        append_commit(&setup.script.body, lsn);
    cr_assert_eq(run_stream(&setup, &frames, NULL, &err), GRAFT_CORRUPT);
    cr_assert_eq(err.detail, GRAFT_DETAIL_CHAIN_MISMATCH);
    cr_assert(strstr(err.message, "commits at http"), "%s", err.message);
    cr_assert_eq(frames.commits, 1);
    setup_release(&setup);
}

Test(rpc, a_refused_stream_has_the_servers_error)
{
    struct setup setup;
    struct frames frames = {0};
    struct rpc_failure failure;
    struct graft_error error, err;
    Graft__Error message;
    setup_init(&setup, "410 Gone", HTTP_PROTOBUF);
    error_set(&error, GRAFT_GONE, GRAFT_DETAIL_RETIRED, "retired");
    error_to_message(&error, &message);
    cr_assert_eq(message_encode(&message.base, &setup.script.body, NULL), GRAFT_OK);
    cr_assert_eq(run_stream(&setup, &frames, &failure, &err), GRAFT_GONE);
    cr_assert(failure.answered);
    setup_release(&setup);
}

Test(rpc, strangers_errors_leave_a_stream_unavailable)
{
    static const char *const answers[] = {"404 Not Found", "500 Oops", "200 OK"};
    for (size_t i = 0; i < ARRAY_COUNT(answers); i++) {
        struct setup setup;
        struct frames frames = {0};
        struct graft_error err;
        setup_init(&setup, answers[i], "text/html");
        cr_assert_eq(run_stream(&setup, &frames, NULL, &err), GRAFT_UNAVAILABLE, "%s", answers[i]);
        setup_release(&setup);
    }
}

static void serve_open_stream(struct fake_server *server, int fd)
{
    struct script *script = server->context;
    char body[4096];
    if (!fake_read_head(server, fd, script->head))
        return;
    fake_read_body(fd, script->head, body, sizeof body);
    fake_print(fd, "HTTP/1.1 200 OK\r\nContent-Type: " HTTP_STREAM "\r\nTransfer-Encoding: chunked\r\n\r\n");
    fake_drain(fd);
}

Test(rpc, a_stream_can_be_cancelled_while_it_waits)
{
    struct setup setup;
    struct frames frames = {0};
    struct graft_error err;
    Graft__CommitsRequest request = GRAFT__COMMITS_REQUEST__INIT;
    struct rpc_stream *stream;
    setup_init(&setup, "", "");
    setup.server.serve = serve_open_stream; // nobody has connected yet
    cr_assert_eq(rpc_stream_start(&setup.target, "commits", &request.base, 4096, 0, take_commit, &frames,
                                  &stream, NULL),
                 GRAFT_OK);
    rpc_stream_cancel(stream);
    cr_assert_eq(rpc_stream_finish(stream, NULL, &err), GRAFT_CANCELLED);
    setup_release(&setup);
}
