// SPDX-License-Identifier: Apache-2.0
//
// The catch-up against a server that plays the metastore: it answers `commits` from a history that the test sets, at once
// or when the test says so.
#include "pagestore/catchup.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "common/net/http_server.h"
#include "common/net/message.h"
#include "tests/lib/daemon.h"

#define LSNS 32u
#define DIE_S 60

// Commit n writes page n.
struct history {
    struct token tokens[LSNS + 1];
    struct hash128 chains[LSNS + 1];
};

struct fixture {
    char *folder;
    struct gid vid, sid;
    struct disk_reserve reserve;
    struct metrics *metrics;
    struct page_index *index;
    struct index_volume *volume;
    struct http_server *server;
    struct catchup *catchup;

    struct mutex lock; // for what follows
    struct cond changed;
    const struct history *history;
    uint64_t head;
    bool hold;
    struct http_request *held;
};

struct wait {
    struct catchup_wait base;
    bool is_answered; // under the fixture's lock
    struct graft_error error;
};

static struct fixture fixture;

static void history_make(struct history *history, uint8_t seed)
{
    memset(history, 0, sizeof *history);
    for (uint64_t lsn = 1; lsn <= LSNS; lsn++) {
        history->tokens[lsn].bytes[0] = (uint8_t)lsn;
        history->tokens[lsn].bytes[1] = seed;
        history->chains[lsn] = chain_next(&history->chains[lsn - 1], &fixture.vid, lsn, &history->tokens[lsn],
                                          &(struct hash128){{0}}, (uint32_t)lsn);
    }
}

static void append_commit(const struct history *history, uint64_t lsn, struct buffer *to)
{
    Graft__CommitsFrame frame = GRAFT__COMMITS_FRAME__INIT;
    Graft__Commit commit = GRAFT__COMMIT__INIT;
    Graft__SegmentRef reference = GRAFT__SEGMENT_REF__INIT, *references[] = {&reference};
    uint8_t pages[2 * VARINT_SIZE_MAX];
    struct hash128 digest = {{0}};
    size_t size = varint_put(pages, lsn - 1);
    size += varint_put(pages + size, 1);
    reference.sid = binary_of(fixture.sid.bytes, GID_SIZE);
    reference.owner = binary_of(fixture.vid.bytes, GID_SIZE);
    reference.pages = binary_of(pages, size);
    reference.object_size = 1000;
    reference.index_offset = 900;
    commit.vid = binary_of(fixture.vid.bytes, GID_SIZE);
    commit.lsn = lsn;
    commit.base_lsn = lsn - 1;
    commit.base_chain = binary_of(&history->chains[lsn - 1], HASH_SIZE);
    commit.token = binary_of(&history->tokens[lsn], TOKEN_SIZE);
    commit.digest = binary_of(&digest, HASH_SIZE);
    commit.chain = binary_of(&history->chains[lsn], HASH_SIZE);
    commit.page_count = (uint32_t)lsn;
    commit.cut = (uint32_t)lsn - 1;
    commit.segments = references;
    commit.n_segments = 1;
    frame.frame_case = GRAFT__COMMITS_FRAME__FRAME_COMMIT;
    frame.commit = &commit;
    cr_assert_eq(message_encode_frame(&frame.base, to, NULL), GRAFT_OK);
}

static void respond_commits(struct http_request *request, uint64_t from)
{
    struct buffer body = BUFFER_INIT(1 * MIB);
    struct graft_error err;
    LOCK_GUARD(&fixture.lock);
    if (from > fixture.head) {
        error_set(&err, GRAFT_NOT_FOUND, GRAFT_DETAIL_BEYOND_HEAD, "beyond");
        http_respond_error(request, &err, 0);
        return;
    }
    for (uint64_t lsn = from; lsn <= fixture.head; lsn++)
        append_commit(fixture.history, lsn, &body);
    Graft__CommitsFrame frame = GRAFT__COMMITS_FRAME__INIT;
    Graft__StreamEnd end = GRAFT__STREAM_END__INIT;
    frame.frame_case = GRAFT__COMMITS_FRAME__FRAME_END;
    frame.end = &end;
    cr_assert_eq(message_encode_frame(&frame.base, &body, NULL), GRAFT_OK);
    http_respond(request, 200, HTTP_STREAM, &body);
}

static uint64_t from_of(struct bytes body)
{
    ProtobufCMessage *message;
    cr_assert_eq(message_decode(&graft__commits_request__descriptor, body, 4096, &message, NULL), GRAFT_OK);
    uint64_t from = ((Graft__CommitsRequest *)message)->from_lsn;
    message_free(message);
    return from;
}

static void call_commits(struct http_request *request, struct bytes body)
{
    {
        LOCK_GUARD(&fixture.lock);
        if (fixture.hold) {
            fixture.held = http_request_ref(request);
            cond_broadcast(&fixture.changed);
            return;
        }
    }
    respond_commits(request, from_of(body));
}

static void await_held(void)
{
    LOCK_GUARD(&fixture.lock);
    while (!fixture.held)
        cond_wait(&fixture.changed, &fixture.lock);
}

// Answers what is held from LSN `from` on, and holds nothing from now on.
static void release_held(uint64_t from)
{
    struct http_request *held;
    {
        LOCK_GUARD(&fixture.lock);
        fixture.hold = false;
        held = TAKE(fixture.held);
    }
    respond_commits(held, from);
    http_request_unref(held);
}

static void set_history(const struct history *history, uint64_t head)
{
    LOCK_GUARD(&fixture.lock);
    fixture.history = history;
    fixture.head = head;
}

static void setup(void)
{
    static const struct http_route routes[] = {{.method = "POST",
                                                .path = "/v1/commits",
                                                .content_type = HTTP_PROTOBUF,
                                                .body_max = UNARY_REQUEST_SIZE_MAX,
                                                .ready = call_commits}};
    struct graft_error err;
    char path[4096], url[128];
    alarm(DIE_S);
    fixture = (struct fixture){.folder = test_folder_new(),
                               .vid = gid_make(GID_VOLUME, 1),
                               .sid = gid_make(GID_SEGMENT, 1),
                               .metrics = metrics_new()};
    mutex_init(&fixture.lock, RANK_CLIENT);
    cond_init(&fixture.changed);
    snprintf(path, sizeof path, "%s/index", fixture.folder);
    disk_reserve_init(&fixture.reserve, fixture.folder, 0);
    cr_assert_eq(page_index_open(path, fixture.metrics, &fixture.index, &err), GRAFT_OK, "%s", err.message);
    cr_assert_eq(page_index_volume(fixture.index, &fixture.vid, &fixture.volume, &err), GRAFT_OK);
    struct http_server_settings settings = {.listen = "127.0.0.1:0",
                                            .routes = routes,
                                            .route_count = 1,
                                            .threads = 1,
                                            .connections_max = 16,
                                            .connection_memory = 64 * KIB,
                                            .idle_timeout_ms = 30000,
                                            .metrics_name = "test",
                                            .metrics = fixture.metrics};
    cr_assert_eq(http_server_start(&settings, &fixture.server, &err), GRAFT_OK, "%s", err.message);
    snprintf(url, sizeof url, "http://%s", http_server_address(fixture.server));
    cr_assert_eq(catchup_new(fixture.index, url, &fixture.reserve, fixture.metrics, &fixture.catchup, &err),
                 GRAFT_OK, "%s", err.message);
}

static void teardown(void)
{
    catchup_free(fixture.catchup);
    http_server_stop(fixture.server);
    index_volume_release(fixture.volume);
    page_index_close(fixture.index);
    disk_reserve_release(&fixture.reserve);
    metrics_free(fixture.metrics);
    test_folder_free(fixture.folder);
}

static void answered(struct catchup_wait *base, const struct graft_error *error)
{
    struct wait *wait = CONTAINER_OF(base, struct wait, base);
    LOCK_GUARD(&fixture.lock);
    cr_assert(!wait->is_answered);
    wait->error = *error;
    wait->is_answered = true;
    cond_broadcast(&fixture.changed);
}

static void begin_wait(struct wait *wait, uint64_t lsn, const struct hash128 *chain)
{
    *wait = (struct wait){.base = {.volume = fixture.volume, .lsn = lsn, .chain = *chain, .done = answered}};
    catchup_wait(fixture.catchup, &wait->base);
}

static enum graft_status await(struct wait *wait)
{
    LOCK_GUARD(&fixture.lock);
    while (!wait->is_answered)
        cond_wait(&fixture.changed, &fixture.lock);
    return wait->error.status;
}

static bool is_answered(struct wait *wait)
{
    LOCK_GUARD(&fixture.lock);
    return wait->is_answered;
}

static enum graft_detail expect(uint64_t lsn, const struct hash128 *chain, enum graft_status status)
{
    struct wait wait;
    begin_wait(&wait, lsn, chain);
    cr_assert_eq(await(&wait), status, "LSN %llu: %s", (unsigned long long)lsn, wait.error.message);
    return wait.error.detail;
}

static int64_t rounds(void)
{
    return metric_value(metrics_counter(fixture.metrics, "graft_catchup_rounds_total", NULL, ""));
}

// Whatever `history` wrote up to `lsn` is there, and nothing beyond it.
static void expect_applied(uint64_t lsn)
{
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    struct page_version versions[LSNS];
    struct graft_error err;
    pageset_add_run(pages, 1, LSNS);
    cr_assert_eq(index_volume_state(fixture.volume).lsn, lsn);
    cr_assert_eq(index_volume_resolve(fixture.volume, lsn, pages, versions, &err), GRAFT_OK, "%s",
                 err.message);
    for (uint32_t i = 0; i < LSNS; i++)
        cr_assert_eq(versions[i].segment != 0, i < lsn, "page %u", i + 1);
}

TestSuite(catchup, .init = setup, .fini = teardown);

Test(catchup, commits_are_applied_in_order_and_asked_for_once)
{
    struct history history;
    history_make(&history, 1);
    set_history(&history, 20);
    expect(10, &history.chains[10], GRAFT_OK);
    expect(20, &history.chains[20], GRAFT_OK);
    expect_applied(20);
    int64_t before = rounds();
    expect(5, &history.chains[5], GRAFT_OK);
    cr_assert_eq(rounds(), before);
    set_history(&history, 30);
    expect(30, &history.chains[30], GRAFT_OK);
    cr_assert_eq(rounds(), before + 1);
    expect_applied(30);
}

Test(catchup, what_lies_beyond_the_head_is_not_found)
{
    struct history history;
    history_make(&history, 1);
    set_history(&history, 0);
    cr_assert_eq(expect(1, &history.chains[1], GRAFT_NOT_FOUND), GRAFT_DETAIL_BEYOND_HEAD);
    set_history(&history, 4);
    cr_assert_eq(expect(5, &history.chains[5], GRAFT_NOT_FOUND), GRAFT_DETAIL_BEYOND_HEAD);
    expect_applied(4);
}

Test(catchup, another_history_is_indexed_anew)
{
    struct history one, two;
    history_make(&one, 1);
    history_make(&two, 2);
    set_history(&one, 10);
    expect(10, &one.chains[10], GRAFT_OK);
    set_history(&two, 12);
    expect(12, &two.chains[12], GRAFT_OK);
    expect_applied(12);
    expect(10, &two.chains[10], GRAFT_OK);
    cr_assert_eq(expect(10, &one.chains[10], GRAFT_CORRUPT), GRAFT_DETAIL_CHAIN_MISMATCH);
    // A head below what was indexed is another history too.
    set_history(&one, 6);
    cr_assert_eq(expect(13, &two.chains[13], GRAFT_NOT_FOUND), GRAFT_DETAIL_BEYOND_HEAD);
    expect_applied(6);
    expect(6, &one.chains[6], GRAFT_OK);
}

Test(catchup, a_read_does_not_wait_long_and_the_catch_up_goes_on)
{
    struct history history;
    struct wait wait;
    history_make(&history, 1);
    set_history(&history, 10);
    fixture.hold = true;
    begin_wait(&wait, 10, &history.chains[10]);
    await_held();
    cr_assert_eq(await(&wait), GRAFT_UNAVAILABLE); // CATCHUP_WAIT_MS
    cr_assert_eq(wait.error.detail, GRAFT_DETAIL_BEHIND);
    cr_assert(strstr(wait.error.message, "LSN 0 of 10"), "%s", wait.error.message);
    begin_wait(&wait, 10, &history.chains[10]);
    release_held(1);
    cr_assert_eq(await(&wait), GRAFT_OK, "%s", wait.error.message);
    expect_applied(10);
}

Test(catchup, waits_that_join_a_round_get_one_of_their_own)
{
    struct history history;
    struct wait first, second, third;
    history_make(&history, 1);
    set_history(&history, 5);
    fixture.hold = true;
    begin_wait(&first, 5, &history.chains[5]);
    await_held();
    begin_wait(&second, 8, &history.chains[8]);
    begin_wait(&third, 9, &history.chains[9]);
    cr_assert_eq(rounds(), 1);
    cr_assert(!is_answered(&first) && !is_answered(&second));
    // The first round sees 5 commits. By the second one there are 8.
    struct http_request *held;
    {
        LOCK_GUARD(&fixture.lock);
        held = TAKE(fixture.held);
    }
    respond_commits(held, 1);
    http_request_unref(held);
    cr_assert_eq(await(&first), GRAFT_OK);
    await_held();
    set_history(&history, 8);
    release_held(5);
    cr_assert_eq(await(&second), GRAFT_OK, "%s", second.error.message);
    cr_assert_eq(await(&third), GRAFT_NOT_FOUND, "%s", third.error.message);
    cr_assert_eq(rounds(), 2);
}

Test(catchup, stopping_answers_those_that_wait)
{
    struct history history;
    struct wait first, second;
    history_make(&history, 1);
    set_history(&history, 5);
    fixture.hold = true;
    begin_wait(&first, 5, &history.chains[5]);
    await_held();
    begin_wait(&second, 4, &history.chains[4]);
    catchup_free(TAKE(fixture.catchup));
    cr_assert(is_answered(&first) && is_answered(&second));
    cr_assert_eq(first.error.status, GRAFT_CANCELLED, "%s", first.error.message);
    cr_assert_eq(second.error.status, GRAFT_CANCELLED, "%s", second.error.message);
    release_held(1);
}

Test(catchup, without_a_metastore_reads_are_told_so)
{
    struct history history;
    history_make(&history, 1);
    http_server_stop(TAKE(fixture.server));
    expect(5, &history.chains[5], GRAFT_UNAVAILABLE);
}
