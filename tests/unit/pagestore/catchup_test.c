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
    uint64_t
        broken_at; // the LSN whose commit has `broken_chain`, though the next one continues chains[]; 0: none
    struct hash128 broken_chain;
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
    uint64_t head, retired;
    struct gid moved_sid; // of the segment that commits from `moved_from` on name; 0: all name `sid`
    uint64_t moved_from;
    unsigned calls;
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
    bool moved = fixture.moved_from && lsn >= fixture.moved_from;
    reference.sid = binary_of((moved ? &fixture.moved_sid : &fixture.sid)->bytes, GID_SIZE);
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
    commit.chain =
        binary_of(lsn == history->broken_at ? &history->broken_chain : &history->chains[lsn], HASH_SIZE);
    commit.page_count = (uint32_t)lsn;
    commit.cut = (uint32_t)lsn - 1;
    commit.segments = references;
    commit.n_segments = 1;
    frame.frame_case = GRAFT__COMMITS_FRAME__FRAME_COMMIT;
    frame.commit = &commit;
    cr_assert_eq(message_encode_frame(&frame.base, to, NULL), GRAFT_OK);
}

static void respond_commits(struct http_request *request, uint64_t from, uint64_t to)
{
    struct buffer body = BUFFER_INIT(1 * MIB);
    struct graft_error err;
    LOCK_GUARD(&fixture.lock);
    if (from > fixture.head) {
        error_set(&err, GRAFT_NOT_FOUND, GRAFT_DETAIL_BEYOND_HEAD, "beyond");
        http_respond_error(request, &err, 0);
        return;
    }
    if (from <= fixture.retired) {
        error_set(&err, GRAFT_GONE, GRAFT_DETAIL_RETIRED, "retired");
        http_respond_error(request, &err, 0);
        return;
    }
    for (uint64_t lsn = from; lsn <= (to ? to : fixture.head); lsn++)
        append_commit(fixture.history, lsn, &body);
    Graft__CommitsFrame frame = GRAFT__COMMITS_FRAME__INIT;
    Graft__StreamEnd end = GRAFT__STREAM_END__INIT;
    frame.frame_case = GRAFT__COMMITS_FRAME__FRAME_END;
    frame.end = &end;
    cr_assert_eq(message_encode_frame(&frame.base, &body, NULL), GRAFT_OK);
    http_respond(request, 200, HTTP_STREAM, &body);
}

static void call_commits(struct http_request *request, struct bytes body)
{
    ProtobufCMessage *message;
    {
        LOCK_GUARD(&fixture.lock);
        fixture.calls++;
        if (fixture.hold) {
            fixture.held = http_request_ref(request);
            cond_broadcast(&fixture.changed);
            return;
        }
    }
    cr_assert_eq(message_decode(&graft__commits_request__descriptor, body, 4096, &message, NULL), GRAFT_OK);
    const Graft__CommitsRequest *asked = (const Graft__CommitsRequest *)message;
    respond_commits(request, asked->from_lsn, asked->to_lsn);
    message_free(message);
}

static void await_held(void)
{
    LOCK_GUARD(&fixture.lock);
    while (!fixture.held)
        cond_wait(&fixture.changed, &fixture.lock);
}

// Answers what is held from LSN `from` on, and holds nothing from now on.
static void release_held_to(uint64_t from, uint64_t to)
{
    struct http_request *held;
    {
        LOCK_GUARD(&fixture.lock);
        fixture.hold = false;
        held = TAKE(fixture.held);
    }
    respond_commits(held, from, to);
    http_request_unref(held);
}

static void release_held(uint64_t from)
{
    release_held_to(from, 0);
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
    struct page_index_settings index_settings = {.path = path, .metrics = fixture.metrics};
    cr_assert_eq(page_index_open(&index_settings, &fixture.index, &err), GRAFT_OK, "%s", err.message);
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
    respond_commits(held, 1, 0);
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

// A log that is broken in its middle is no other history: what comes before it is served, and not built again and again.
Test(catchup, a_broken_log_costs_what_lies_behind_the_break)
{
    struct history history, broken;
    history_make(&history, 1);
    history_make(&broken, 2);
    // From commit 8 on it continues a chain that is not the one of commit 7.
    memcpy(&broken.tokens[1], &history.tokens[1], 7 * sizeof broken.tokens[1]);
    memcpy(&broken.chains[1], &history.chains[1], 6 * sizeof broken.chains[1]);
    broken.broken_at = 7;
    broken.broken_chain = history.chains[7];
    set_history(&broken, 12);
    expect(7, &history.chains[7], GRAFT_OK);
    expect_applied(7);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(expect(8, &broken.chains[8], GRAFT_CORRUPT), GRAFT_DETAIL_CHAIN_MISMATCH);
        expect_applied(7);
    }
    cr_assert_eq(metric_value(metrics_counter(fixture.metrics, "graft_index_dropped_total", NULL, "")), 0);
    expect(5, &history.chains[5], GRAFT_OK);
}

// ---- reading a commit again

struct reread {
    struct reread_wait base;
    bool is_answered; // under the fixture's lock
    struct graft_error error;
};

static void reread_answered(struct reread_wait *base, const struct graft_error *error)
{
    struct reread *reread = CONTAINER_OF(base, struct reread, base);
    LOCK_GUARD(&fixture.lock);
    cr_assert(!reread->is_answered);
    reread->error = *error;
    reread->is_answered = true;
    cond_broadcast(&fixture.changed);
}

// The page, which commit `lsn` wrote, was looked for in vain where the index says.
static void begin_reread(struct reread *reread, uint64_t lsn, uint32_t pageidx)
{
    *reread = (struct reread){.base = {.volume = fixture.volume,
                                       .lsn = lsn,
                                       .sid = fixture.sid,
                                       .owner = fixture.vid,
                                       .pageidx = pageidx,
                                       .done = reread_answered}};
    catchup_reread(fixture.catchup, &reread->base);
}

static enum graft_status await_reread(struct reread *reread)
{
    LOCK_GUARD(&fixture.lock);
    while (!reread->is_answered)
        cond_wait(&fixture.changed, &fixture.lock);
    return reread->error.status;
}

static enum graft_status reread_once(uint64_t lsn, struct reread *reread)
{
    begin_reread(reread, lsn, (uint32_t)lsn);
    return await_reread(reread);
}

static void expect_filed_in(uint32_t pageidx, const struct gid *sid)
{
    struct page_version version;
    struct segment_place place;
    struct graft_error err;
    uint64_t lsn;
    cr_assert_eq(index_volume_resolve_one(fixture.volume, index_volume_state(fixture.volume).lsn, pageidx,
                                          &version, &lsn, &err),
                 GRAFT_OK, "%s", err.message);
    cr_assert_eq(lsn, pageidx);
    cr_assert_eq(page_index_segment(fixture.index, version.segment, &place, &err), GRAFT_OK);
    cr_assert(gid_equal(&place.sid, sid), "page %u", pageidx);
}

static void move_segments(uint64_t from)
{
    LOCK_GUARD(&fixture.lock);
    fixture.moved_sid = gid_make(GID_SEGMENT, 2);
    fixture.moved_from = from;
}

Test(catchup, a_commit_read_again_says_whether_it_names_the_segment_still)
{
    struct history history;
    struct reread reread;
    history_make(&history, 1);
    set_history(&history, 10);
    expect(10, &history.chains[10], GRAFT_OK);
    cr_assert_eq(reread_once(4, &reread), GRAFT_OK, "%s", reread.error.message);
    cr_assert(!reread.base.moved);
    // Rewritten from LSN 4 on: the index follows where it looks, and only there.
    move_segments(4);
    cr_assert_eq(reread_once(4, &reread), GRAFT_OK, "%s", reread.error.message);
    cr_assert(reread.base.moved);
    expect_filed_in(3, &fixture.sid);
    expect_filed_in(4, &fixture.moved_sid);
    expect_filed_in(5, &fixture.sid);
    expect_applied(10);
    expect(10, &history.chains[10], GRAFT_OK);
}

Test(catchup, a_commit_that_is_gone_or_another_one_now_is_told_from_one_that_cannot_be_read)
{
    struct history one, two;
    struct reread reread;
    history_make(&one, 1);
    history_make(&two, 2);
    set_history(&one, 10);
    expect(10, &one.chains[10], GRAFT_OK);
    fixture.retired = 3;
    cr_assert_eq(reread_once(3, &reread), GRAFT_GONE);
    cr_assert_eq(reread.error.detail, GRAFT_DETAIL_RETIRED);
    cr_assert_eq(reread_once(4, &reread), GRAFT_OK);
    move_segments(1);
    set_history(&two, 10);
    cr_assert_eq(reread_once(4, &reread), GRAFT_CORRUPT);
    cr_assert_eq(reread.error.detail, GRAFT_DETAIL_CHAIN_MISMATCH, "%s", reread.error.message);
    set_history(&two, 3);
    cr_assert_eq(reread_once(4, &reread), GRAFT_CORRUPT);
    cr_assert_eq(reread.error.detail, GRAFT_DETAIL_CHAIN_MISMATCH, "%s", reread.error.message);
    expect_filed_in(4, &fixture.sid);
    http_server_stop(TAKE(fixture.server));
    cr_assert_eq(reread_once(4, &reread), GRAFT_UNAVAILABLE);
}

Test(catchup, those_that_want_the_same_commit_again_share_a_call)
{
    struct history history;
    struct reread first, second, other;
    history_make(&history, 1);
    set_history(&history, 10);
    expect(10, &history.chains[10], GRAFT_OK);
    move_segments(1);
    fixture.calls = 0;
    fixture.hold = true;
    begin_reread(&first, 7, 7);
    await_held();
    begin_reread(&second, 7, 8); // a page that commit 7 does not have
    release_held_to(7, 7);
    cr_assert_eq(await_reread(&first), GRAFT_OK, "%s", first.error.message);
    cr_assert_eq(await_reread(&second), GRAFT_OK, "%s", second.error.message);
    cr_assert(first.base.moved && second.base.moved);
    cr_assert_eq(fixture.calls, 1);
    cr_assert_eq(reread_once(8, &other), GRAFT_OK);
    cr_assert_eq(fixture.calls, 2);
    // More than the commit asked for is a fault of the metastore's.
    fixture.hold = true;
    fixture.moved_from = 0;
    begin_reread(&first, 9, 9);
    await_held();
    release_held_to(9, 10);
    cr_assert_eq(await_reread(&first), GRAFT_UNAVAILABLE, "%s", first.error.message);
}

Test(catchup, stopping_answers_those_that_wait_for_a_commit_read_again)
{
    struct history history;
    struct reread first, second;
    history_make(&history, 1);
    set_history(&history, 5);
    expect(5, &history.chains[5], GRAFT_OK);
    fixture.hold = true;
    begin_reread(&first, 5, 5);
    await_held();
    catchup_stop(fixture.catchup);
    cr_assert_eq(await_reread(&first), GRAFT_CANCELLED);
    cr_assert_eq(reread_once(5, &second), GRAFT_CANCELLED);
    release_held(1);
}
