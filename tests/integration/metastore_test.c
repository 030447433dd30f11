// SPDX-License-Identifier: Apache-2.0
//
// The metastore as a process: its calls on the wire, restarts, refusals, the end.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "tests/integration/meta_client.h"

struct bench {
    char *folder;
    struct daemon *metastore;
    struct meta_client client;
};

static struct bench *bench_new_with(const char *const *extra)
{
    struct bench *bench = calloc(1, sizeof *bench);
    bench->folder = test_folder_new();
    bench->metastore = metastore_start(bench->folder, extra);
    meta_client_init(&bench->client, bench->folder, bench->metastore);
    return bench;
}

static struct bench *bench_new(void)
{
    return bench_new_with(NULL);
}

static void bench_free(struct bench *bench)
{
    if (!bench)
        return;
    meta_client_release(&bench->client);
    daemon_free(bench->metastore);
    test_folder_free(bench->folder);
    free(bench);
}
DEFINE_CLEANUP(struct bench, bench_free)

static struct snapshot head_of(struct bench *bench, const struct gid *vid)
{
    struct snapshot head;
    struct graft_error error;
    cr_assert_eq(meta_snapshot(&bench->client, vid, 0, &head, &error), GRAFT_OK, "%s", error.message);
    return head;
}

// ---- calls

Test(metastore, creates_a_volume_once_whoever_asks_again)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct graft_error error;
    struct gid vid = meta_create_volume(&bench->client);
    cr_assert_eq(meta_create(&bench->client, &vid, 4096, false, &error), GRAFT_OK);
    cr_assert_eq(meta_create(&bench->client, &vid, 8192, false, &error), GRAFT_CONFLICT);
    cr_assert_eq(error.detail, GRAFT_DETAIL_EXISTS);
    cr_assert_eq(meta_create(&bench->client, &vid, 4096, true, &error), GRAFT_CONFLICT);
    struct gid other = gid_make(GID_VOLUME, 1);
    cr_assert_eq(meta_create(&bench->client, &other, 5000, false, &error), GRAFT_INVALID);
    cr_assert(strstr(error.message, "page_size"), "%s", error.message);
    struct snapshot head = head_of(bench, &vid);
    cr_assert_eq(head.lsn, 0);
    cr_assert_eq(head.page_size, 4096);
}

Test(metastore, answers_from_its_log)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct meta_client *client = &bench->client;
    struct graft_error error;
    struct gid vid = meta_create_volume(client);
    struct snapshot start = head_of(bench, &vid), five, ten, found;
    five = meta_grow(client, start, 5, 1);
    ten = meta_grow(client, five, 5, 6);
    cr_assert_eq(ten.lsn, 10);

    cr_assert_eq(meta_snapshot(client, &vid, 5, &found, &error), GRAFT_OK);
    cr_assert(hash_equal(&found.chain, &five.chain) && found.page_count == five.page_count);
    cr_assert_eq(meta_snapshot(client, &vid, 11, &found, &error), GRAFT_NOT_FOUND);
    cr_assert_eq(error.detail, GRAFT_DETAIL_BEYOND_HEAD);

    struct meta_pull pulled;
    cr_assert_eq(meta_pull(client, &vid, 5, &five.chain, &pulled, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(pulled.head.lsn, 10);
    cr_assert_eq(pageset_min(pulled.changed), 7); // token 6 changes pages 7 and 8
    cr_assert_eq(pageset_max(pulled.changed), 12);
    cr_assert_eq(pulled.cut, five.page_count);
    pageset_free(pulled.changed);
    cr_assert_eq(meta_pull(client, &vid, 10, &ten.chain, &pulled, &error), GRAFT_OK);
    cr_assert(pageset_is_empty(pulled.changed) && pulled.cut == ten.page_count);
    pageset_free(pulled.changed);
    cr_assert_eq(meta_pull(client, &vid, 5, &ten.chain, &pulled, &error), GRAFT_CORRUPT);
    cr_assert_eq(error.detail, GRAFT_DETAIL_CHAIN_MISMATCH);
    cr_assert_eq(meta_pull(client, &vid, 11, &ten.chain, &pulled, &error), GRAFT_NOT_FOUND);

    uint64_t count;
    cr_assert_eq(meta_commits(client, &vid, 1, 0, &count, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(count, 10);
    cr_assert_eq(meta_commits(client, &vid, 3, 7, &count, &error), GRAFT_OK);
    cr_assert_eq(count, 5);
    cr_assert_eq(meta_commits(client, &vid, 11, 0, &count, &error), GRAFT_NOT_FOUND);
    cr_assert_eq(error.detail, GRAFT_DETAIL_BEYOND_HEAD);
    cr_assert_eq(meta_commits(client, &vid, 3, 11, &count, &error), GRAFT_NOT_FOUND);
    cr_assert_eq(meta_commits(client, &vid, 0, 3, &count, &error), GRAFT_INVALID);
}

Test(metastore, echoes_the_token_and_shows_the_head_when_it_rejects)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct meta_client *client = &bench->client;
    struct graft_error error;
    struct rpc_failure failure;
    struct snapshot at;
    struct gid vid = meta_create_volume(client);
    struct snapshot start = head_of(bench, &vid);
    struct snapshot head = meta_grow(client, start, 2, 1);
    struct commit_plan plan = plan_on(&start, 50, 1, 1);
    struct token token = token_of(50);
    cr_assert_eq(meta_commit(client, &plan, &at, &failure, &error), GRAFT_CONFLICT);
    cr_assert_eq(error.detail, GRAFT_DETAIL_NOT_HEAD);
    cr_assert(failure.answered && failure.has_token && token_equal(&failure.token, &token));
    cr_assert(failure.has_snapshot && failure.snapshot.lsn == 2 &&
              hash_equal(&failure.snapshot.chain, &head.chain));
}

// A commit without pages settles what became of another on the same base.
Test(metastore, lets_a_void_commit_fence_its_base)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct meta_client *client = &bench->client;
    struct gid vid = meta_create_volume(client);
    struct snapshot head = meta_grow(client, head_of(bench, &vid), 2, 1), landed;
    struct rpc_failure failure;
    struct graft_error error;
    struct meta_pull pulled;

    // The void one lands: the other never will.
    struct commit_plan late = plan_on(&head, 50, 1, 3), fence = plan_on(&head, 60, 1, 1);
    fence.segment_count = 0;
    cr_assert_eq(meta_commit(client, &fence, &landed, &failure, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(landed.lsn, head.lsn + 1);
    cr_assert_eq(landed.page_count, head.page_count);
    cr_assert_eq(meta_commit(client, &late, &landed, &failure, &error), GRAFT_CONFLICT);
    cr_assert_eq(error.detail, GRAFT_DETAIL_NOT_HEAD);
    struct token token = token_of(50);
    cr_assert(failure.has_token && token_equal(&failure.token, &token));
    cr_assert_eq(meta_commit(client, &fence, &landed, &failure, &error), GRAFT_OK); // its own duplicate
    cr_assert_eq(meta_pull(client, &vid, head.lsn, &head.chain, &pulled, &error), GRAFT_OK);
    cr_assert_eq(pulled.head.lsn, head.lsn + 1);
    cr_assert(pageset_is_empty(pulled.changed));
    cr_assert_eq(pulled.cut, head.page_count);
    pageset_free(pulled.changed);

    // The other landed first: the void one is refused, and its token is asked for again.
    head = head_of(bench, &vid);
    late = plan_on(&head, 70, 1, 3);
    fence = plan_on(&head, 80, 1, 1);
    fence.segment_count = 0;
    cr_assert_eq(meta_commit(client, &late, &landed, &failure, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(meta_commit(client, &fence, &landed, &failure, &error), GRAFT_CONFLICT);
    cr_assert_eq(meta_commit(client, &late, &landed, &failure, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(landed.lsn, head.lsn + 1);
}

Test(metastore, forgets_a_deleted_volume_in_lists_and_nowhere_else)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct meta_client *client = &bench->client;
    struct graft_error error;
    struct gid vids[5], next;
    struct snapshot heads[5], found;
    size_t count;
    for (unsigned i = 0; i < ARRAY_COUNT(vids); i++)
        vids[i] = meta_create_volume(client);
    struct snapshot head = meta_grow(client, head_of(bench, &vids[2]), 3, 1);
    cr_assert_eq(meta_list(client, NULL, 5, heads, &count, &next, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(count, 5);
    cr_assert_eq(meta_delete(client, &vids[2], 9, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(meta_delete(client, &vids[2], 9, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(meta_delete(client, &vids[2], 10, &error), GRAFT_GONE);
    cr_assert_eq(meta_list(client, NULL, 5, heads, &count, &next, &error), GRAFT_OK);
    cr_assert_eq(count, 4);

    // Page by page.
    struct gid after;
    unsigned seen = 0, rounds = 0;
    bool more = true;
    memset(&after, 0, sizeof after);
    while (more) {
        cr_assert_eq(meta_list(client, rounds ? &after : NULL, 2, heads, &count, &next, &error), GRAFT_OK);
        seen += count;
        after = next;
        more = next.bytes[0] != 0;
        cr_assert_leq(++rounds, 3);
    }
    cr_assert_eq(seen, 4);

    uint64_t commits;
    struct meta_pull pulled;
    // The head says that it is the end; what was before is not shown any more.
    for (uint64_t lsn = 0; lsn <= 4; lsn += 4) {
        cr_assert_eq(meta_snapshot(client, &vids[2], lsn, &found, &error), GRAFT_OK, "%s", error.message);
        cr_assert(found.deleted && found.lsn == 4 && found.page_size == 4096);
    }
    cr_assert_eq(meta_snapshot(client, &vids[2], 3, &found, &error), GRAFT_GONE);
    cr_assert_eq(error.detail, GRAFT_DETAIL_DELETED);
    cr_assert_eq(meta_pull(client, &vids[2], 3, &head.chain, &pulled, &error), GRAFT_GONE);
    cr_assert_eq(error.detail, GRAFT_DETAIL_DELETED);
    cr_assert_eq(meta_commits(client, &vids[2], 1, 0, &commits, &error), GRAFT_GONE);
    cr_assert_eq(meta_create(client, &vids[2], 4096, false, &error), GRAFT_GONE);
    struct gid unknown = gid_make(GID_VOLUME, 1);
    cr_assert_eq(meta_snapshot(client, &unknown, 0, &found, &error), GRAFT_NOT_FOUND);
    cr_assert_eq(error.detail, GRAFT_DETAIL_NO_SUCH_VOLUME);
}

Test(metastore, summarises_and_pulls_little_from_much)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct meta_client *client = &bench->client;
    struct graft_error error;
    struct gid vid = meta_create_volume(client);
    struct snapshot start = head_of(bench, &vid);
    struct snapshot head = meta_grow(client, start, 1030, 1);
    // The summaries are made in the background; a restart makes up for what the end cut off.
    cr_assert_eq(daemon_stop(bench->metastore), 0);
    daemon_restart(bench->metastore);
    struct snapshot found = head_of(bench, &vid);
    cr_assert(hash_equal(&found.chain, &head.chain));
    struct meta_pull pulled;
    double united = 0;
    for (unsigned tries = 0; tries < 100000; tries++) {
        double before = meta_metric(client, "graft_metastore_pagesets_united_total");
        cr_assert_eq(meta_pull(client, &vid, 0, &start.chain, &pulled, &error), GRAFT_OK, "%s",
                     error.message);
        cr_assert_eq(pageset_count(pulled.changed), 1001);
        pageset_free(pulled.changed);
        united = meta_metric(client, "graft_metastore_pagesets_united_total") - before;
        if (united == 4 + 6)
            break;
    }
    cr_assert_eq(united, 4 + 6); // four summaries of 256 and six commits
    uint64_t count;
    cr_assert_eq(meta_commits(client, &vid, 1, 0, &count, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(count, 1030);
}

// What a call costs, by the store's own counts.
struct costs {
    double commit_creates, commit_gets, pull_gets, pull_united, snapshot_gets, commits_gets;
};

static double store_calls(struct bench *bench, const char *op)
{
    char name[100];
    snprintf(name, sizeof name, "objstore_calls_total{store=\"rocksdb\",op=\"%s\"}", op);
    return meta_metric(&bench->client, name);
}

static void await_summaries(struct bench *bench)
{
    while (meta_metric(&bench->client, "graft_metastore_summary_lag_volumes") > 0)
        ;
}

static struct costs costs_at(struct bench *bench, struct snapshot *head, uint64_t token)
{
    static const char *const united = "graft_metastore_pagesets_united_total";
    struct meta_client *client = &bench->client;
    struct graft_error error;
    struct costs costs;
    struct meta_pull pulled;
    struct snapshot found, before = *head;
    uint64_t count;
    await_summaries(bench);
    double gets = store_calls(bench, "get"), creates = store_calls(bench, "create"), sets;
    *head = meta_grow(client, *head, 10, token);
    costs.commit_creates = (store_calls(bench, "create") - creates) / 10;
    costs.commit_gets = (store_calls(bench, "get") - gets) / 10;

    gets = store_calls(bench, "get");
    sets = meta_metric(client, united);
    cr_assert_eq(meta_pull(client, &head->vid, before.lsn, &before.chain, &pulled, &error), GRAFT_OK);
    pageset_free(pulled.changed);
    costs.pull_gets = store_calls(bench, "get") - gets;
    costs.pull_united = meta_metric(client, united) - sets;

    gets = store_calls(bench, "get");
    cr_assert_eq(meta_snapshot(client, &head->vid, before.lsn, &found, &error), GRAFT_OK);
    costs.snapshot_gets = store_calls(bench, "get") - gets;

    gets = store_calls(bench, "get");
    cr_assert_eq(meta_commits(client, &head->vid, before.lsn + 1, head->lsn, &count, &error), GRAFT_OK);
    costs.commits_gets = store_calls(bench, "get") - gets;
    return costs;
}

// Nothing that a call does grows with the number of commits; loading the volume does so with its logarithm,
// and a pull of everything by a summary for 256 commits and one for 65,536.
Test(metastore, costs_the_same_after_20_and_after_20000_commits, .timeout = 280)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct meta_client *client = &bench->client;
    struct graft_error error;
    struct gid vid = meta_create_volume(client);
    struct snapshot start = head_of(bench, &vid);
    struct snapshot head = meta_grow(client, start, 20, 1);
    struct costs few = costs_at(bench, &head, 21);
    head = meta_grow(client, head, 20000 - head.lsn, head.lsn + 1);
    struct costs many = costs_at(bench, &head, head.lsn + 1);
    cr_assert_eq(few.commit_creates, 1);
    cr_assert_eq(few.commit_gets, 0);
    cr_assert_eq(few.pull_united, 10);
    cr_assert_eq(many.commit_creates, few.commit_creates);
    cr_assert_eq(many.commit_gets, few.commit_gets);
    cr_assert_eq(many.pull_gets, few.pull_gets);
    cr_assert_eq(many.pull_united, few.pull_united);
    cr_assert_eq(many.snapshot_gets, few.snapshot_gets);
    cr_assert_eq(many.commits_gets, few.commits_gets);

    struct meta_pull pulled;
    double gets = store_calls(bench, "get");
    cr_assert_eq(meta_pull(client, &vid, 0, &start.chain, &pulled, &error), GRAFT_OK);
    pageset_free(pulled.changed);
    cr_assert_leq(store_calls(bench, "get") - gets, 20010 / 256 + 255 + 32);

    cr_assert_eq(daemon_stop(bench->metastore), 0);
    daemon_restart(bench->metastore);
    gets = store_calls(bench, "get");
    head_of(bench, &vid);
    await_summaries(bench);
    cr_assert_leq(store_calls(bench, "get") - gets, 2 * 16 + 10);
}

static enum graft_status give_up_soon(void *context, struct bytes frame, bool *ret_end,
                                      struct graft_error *err)
{
    unsigned *frames = context;
    (void)frame, (void)ret_end;
    if (++*frames > 100)
        return error_set(err, GRAFT_CANCELLED, GRAFT_DETAIL_NONE, "enough");
    return GRAFT_OK;
}

Test(metastore, survives_readers_that_go_away, .timeout = 60)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct meta_client *client = &bench->client;
    struct gid vid = meta_create_volume(client);
    meta_grow(client, head_of(bench, &vid), 1500, 1);
    for (unsigned i = 0; i < 20; i++) {
        struct graft_error error;
        struct rpc_stream *stream;
        unsigned frames = 0;
        Graft__CommitsRequest request = GRAFT__COMMITS_REQUEST__INIT;
        request.vid = binary_of(vid.bytes, GID_SIZE);
        request.from_lsn = 1;
        cr_assert_eq(rpc_stream_start(&client->calls, "commits", &request.base, MIB, 20000, give_up_soon,
                                      &frames, &stream, &error),
                     GRAFT_OK);
        cr_assert_eq(rpc_stream_finish(stream, NULL, &error), GRAFT_CANCELLED, "%s", error.message);
    }
    uint64_t count;
    cr_assert_eq(meta_commits(client, &vid, 1, 0, &count, NULL), GRAFT_OK);
    cr_assert_eq(count, 1500);
    cr_assert_eq(daemon_stop(bench->metastore), 0);
}

// ---- watch

struct watching {
    struct mutex lock;
    struct cond changed;
    struct snapshot head;
    unsigned frames, heartbeats, troubles;
    bool ended;
    struct graft_error end;
};

static enum graft_status on_watch_frame(void *context, struct bytes frame, bool *ret_end,
                                        struct graft_error *err)
{
    struct watching *watching = context;
    ProtobufCMessage *decoded;
    enum graft_status status = message_decode(&graft__watch_frame__descriptor, frame, MIB, &decoded, err);
    if (status != GRAFT_OK)
        return status;
    const Graft__WatchFrame *message = (Graft__WatchFrame *)decoded;
    mutex_lock(&watching->lock);
    watching->frames++;
    watching->heartbeats += message->heartbeat;
    watching->troubles += message->n_troubles;
    for (size_t i = 0; i < message->n_heads; i++)
        cr_assert_eq(snapshot_from_message(message->heads[i], &watching->head, NULL), GRAFT_OK);
    if (message->end) {
        *ret_end = watching->ended = true;
        error_from_message(message->end->error, &watching->end);
    }
    cond_broadcast(&watching->changed);
    mutex_unlock(&watching->lock);
    message_free(decoded);
    return GRAFT_OK;
}

static struct rpc_stream *watch(struct bench *bench, struct watching *watching, const struct gid *vid,
                                uint64_t after)
{
    struct graft_error error;
    struct rpc_stream *stream;
    Graft__WatchItem item = GRAFT__WATCH_ITEM__INIT, *items[] = {&item};
    Graft__WatchRequest request = GRAFT__WATCH_REQUEST__INIT;
    mutex_init(&watching->lock, RANK_LEAF);
    cond_init(&watching->changed);
    item.vid = binary_of(vid->bytes, GID_SIZE);
    item.after_lsn = after;
    request.n_items = 1;
    request.items = items;
    cr_assert_eq(rpc_stream_start(&bench->client.watch, "watch", &request.base, MIB, 60000, on_watch_frame,
                                  watching, &stream, &error),
                 GRAFT_OK, "%s", error.message);
    return stream;
}

static void await_lsn(struct watching *watching, uint64_t lsn)
{
    LOCK_GUARD(&watching->lock);
    while (watching->head.lsn < lsn)
        cond_wait(&watching->changed, &watching->lock);
}

Test(metastore, tells_a_watcher_what_it_missed_and_what_comes, .timeout = 60)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct watching watching = {0};
    struct gid vid = meta_create_volume(&bench->client);
    struct snapshot head = meta_grow(&bench->client, head_of(bench, &vid), 3, 1);
    struct rpc_stream *stream = watch(bench, &watching, &vid, 1);
    await_lsn(&watching, 3);
    for (unsigned i = 0; i < 20; i++) {
        head = meta_grow(&bench->client, head, 1, 100 + i);
        await_lsn(&watching, head.lsn);
    }
    cr_assert(hash_equal(&watching.head.chain, &head.chain));
    cr_assert_eq(meta_delete(&bench->client, &vid, 9, NULL), GRAFT_OK);
    await_lsn(&watching, head.lsn + 1);
    cr_assert(watching.head.deleted);
    rpc_stream_cancel(stream);
    cr_assert_eq(rpc_stream_finish(stream, NULL, NULL), GRAFT_CANCELLED);
}

Test(metastore, tells_a_watcher_of_a_volume_that_comes_to_be, .timeout = 60)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct watching watching = {0};
    struct gid vid = gid_make(GID_VOLUME, 1);
    struct rpc_stream *stream = watch(bench, &watching, &vid, 0);
    mutex_lock(&watching.lock);
    while (watching.troubles == 0)
        cond_wait(&watching.changed, &watching.lock);
    mutex_unlock(&watching.lock);
    cr_assert_eq(meta_create(&bench->client, &vid, 4096, false, NULL), GRAFT_OK);
    meta_grow(&bench->client, head_of(bench, &vid), 2, 1);
    await_lsn(&watching, 2);
    rpc_stream_cancel(stream);
    rpc_stream_finish(stream, NULL, NULL);
}

Test(metastore, ends_streams_and_leaves_well_when_it_is_asked_to, .timeout = 60)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct watching watching = {0};
    struct gid vid = meta_create_volume(&bench->client);
    meta_grow(&bench->client, head_of(bench, &vid), 1, 1);
    struct rpc_stream *stream = watch(bench, &watching, &vid, 0);
    await_lsn(&watching, 1);
    cr_assert_eq(daemon_stop(bench->metastore), 0);
    rpc_stream_finish(stream, NULL, NULL);
    cr_assert(watching.ended);
    cr_assert_eq(watching.end.detail, GRAFT_DETAIL_STOPPING);
}

// ---- crashes

Test(metastore, keeps_every_acknowledged_commit_through_kills, .timeout = 120)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct meta_client *client = &bench->client;
    struct gid vid = meta_create_volume(client);
    struct snapshot head = head_of(bench, &vid);
    for (unsigned round = 0; round < 5; round++) {
        head = meta_grow(client, head, 50, 1 + round * 100);
        // One more whose answer may be lost: the same bytes again settle it.
        struct commit_plan plan = plan_on(&head, 90 + round * 100, 1, 1);
        struct graft_error error;
        struct rpc_failure failure;
        daemon_signal(bench->metastore, SIGKILL);
        struct snapshot landed;
        enum graft_status status = meta_commit(client, &plan, &landed, &failure, &error);
        daemon_wait(bench->metastore);
        daemon_restart(bench->metastore);
        struct snapshot found = head_of(bench, &vid);
        cr_assert_geq(found.lsn, head.lsn);
        if (status == GRAFT_OK)
            cr_assert_eq(found.lsn, landed.lsn);
        cr_assert_eq(meta_commit(client, &plan, &landed, &failure, &error), GRAFT_OK, "%s", error.message);
        cr_assert_eq(landed.lsn, head.lsn + 1);
        cr_assert_eq(head_of(bench, &vid).lsn, head.lsn + 1);
        head = landed;
    }
    uint64_t count;
    struct graft_error error;
    cr_assert_eq(meta_commits(client, &vid, 1, 0, &count, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(count, 255);
}

// ---- refusals

static void assert_ends(struct daemon *daemon, int code, const char *word)
{
    cr_assert(!daemon_await_ready(daemon), "it serves instead");
    cr_assert_eq(daemon_wait(daemon), code);
    char *log = daemon_log(daemon);
    cr_assert(strstr(log, word), "%s is not in: %s", word, log);
    free(log);
}

Test(metastore, refuses_a_store_that_another_one_has)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    char store[300], pid[20];
    snprintf(store, sizeof store, "rocksdb:%s/metastore", bench->folder);
    snprintf(pid, sizeof pid, "%d", (int)daemon_pid(bench->metastore));
    const struct daemon_spec spec = {.folder = bench->folder,
                                     .name = "second",
                                     .program = METASTORE_PROGRAM,
                                     .args = (const char *[]){"--store", store, NULL},
                                     .endpoints = {{"listen", "listen"}, {"watch-listen", "watch"}}};
    _cleanup_(daemon_free_p) struct daemon *second = daemon_launch(&spec);
    assert_ends(second, 1, pid);
    // The first is none the worse.
    meta_create_volume(&bench->client);
}

Test(metastore, refuses_to_listen_to_everybody_unless_told)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct daemon_spec spec = {.folder = folder,
                               .name = "open",
                               .program = METASTORE_PROGRAM,
                               .args = (const char *[]){"--store", "mem:", "--listen", "0.0.0.0:0",
                                                        "--watch-listen", "127.0.0.1:0", NULL}};
    _cleanup_(daemon_free_p) struct daemon *closed = daemon_launch(&spec);
    assert_ends(closed, 2, "--insecure");
    spec.name = "usage";
    spec.args = (const char *[]){"--stroe", "mem:", NULL};
    _cleanup_(daemon_free_p) struct daemon *usage = daemon_launch(&spec);
    assert_ends(usage, 2, "stroe");
    spec.name = "insecure";
    spec.args = (const char *[]){"--store",        "mem:",        "--listen",   "0.0.0.0:0",
                                 "--watch-listen", "127.0.0.1:0", "--insecure", NULL};
    _cleanup_(daemon_free_p) struct daemon *opened = daemon_start(&spec);
    cr_assert_eq(daemon_stop(opened), 0);
    char *log = daemon_log(opened);
    cr_assert(strstr(log, "insecure"), "%s", log);
    free(log);
}

Test(metastore, serves_reads_while_the_disk_is_too_full_for_writes)
{
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    struct graft_error error;
    struct snapshot found;
    struct gid vid = meta_create_volume(&bench->client);
    struct snapshot head = meta_grow(&bench->client, head_of(bench, &vid), 1, 1);
    cr_assert_eq(daemon_stop(bench->metastore), 0);
    meta_client_release(&bench->client);
    daemon_free(bench->metastore);
    bench->metastore = metastore_start(bench->folder, (const char *[]){"--disk-reserve", "900000G", NULL});
    meta_client_init(&bench->client, bench->folder, bench->metastore);
    cr_assert_eq(meta_snapshot(&bench->client, &vid, 1, &found, &error), GRAFT_OK, "%s", error.message);
    struct commit_plan plan = plan_on(&head, 2, 1, 1);
    cr_assert_eq(meta_commit(&bench->client, &plan, &found, NULL, &error), GRAFT_INTERNAL);
    cr_assert_eq(error.detail, GRAFT_DETAIL_NO_SPACE, "%s", error.message);
}

// ---- bad input

static int http_code(struct bench *bench, const char *method, const char *path, const char *type,
                     struct bytes body)
{
    char url[200];
    struct http_outcome outcome;
    _cleanup_(buffer_release) struct buffer answer = BUFFER_INIT(MIB);
    snprintf(url, sizeof url, "%s%s", bench->client.calls.url, path);
    const struct http_exchange_spec spec = {.method = method,
                                            .url = url,
                                            .content_type = type,
                                            .body = body,
                                            .deadline_ms = 20000,
                                            .response_max = MIB};
    http_client_call(bench->client.http, &spec, &answer, &outcome, NULL);
    return outcome.code;
}

Test(metastore, answers_bad_input_with_what_is_wrong)
{
    static const uint8_t noise[] = {0xff, 0xff, 0xff, 0xff, 0x07, 0x01};
    static uint8_t large[UNARY_REQUEST_SIZE_MAX + 1];
    const char *type = "application/x-protobuf";
    const struct bytes bad = {noise, sizeof noise}, nothing = {NULL, 0};
    _cleanup_(bench_free_p) struct bench *bench = bench_new();
    cr_assert_eq(http_code(bench, "POST", "/v1/nothing", type, bad), 404);
    cr_assert_eq(http_code(bench, "GET", "/v1/commit", NULL, nothing), 405);
    cr_assert_eq(http_code(bench, "POST", "/v1/commit", "text/plain", bad), 415);
    static const char *const calls[] = {"commit", "create_volume", "delete_volume", "snapshot",
                                        "pull",   "list_volumes",  "commits"};
    for (size_t i = 0; i < ARRAY_COUNT(calls); i++) {
        char path[64];
        snprintf(path, sizeof path, "/v1/%s", calls[i]);
        cr_assert_eq(http_code(bench, "POST", path, type, bad), 400, "%s", path);
        if (i > 0)
            cr_assert_eq(http_code(bench, "POST", path, type, (struct bytes){large, sizeof large}), 413, "%s",
                         path);
    }
    cr_assert_eq(http_code(bench, "GET", "/v1/info", NULL, nothing), 200);
    cr_assert_eq(http_code(bench, "GET", "/healthz", NULL, nothing), 200);
    cr_assert_eq(http_code(bench, "GET", "/readyz", NULL, nothing), 200);
    meta_create_volume(&bench->client);
}
