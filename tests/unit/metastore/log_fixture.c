// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/metastore/log_fixture.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "common/base/mutex.h"
#include "metastore/keys.h"

#define NOW_MS 1700000000000ull

struct pending_answer {
    struct mutex lock;
    struct cond answered;
    bool is_answered;
    struct commit_answer answer;
};

static void count_head(void *context, const struct snapshot *head, bool loaded)
{
    struct log_fixture *fixture = context;
    (void)head;
    atomic_fetch_add(loaded ? &fixture->heads_loaded : &fixture->head_moves, 1);
}

struct objstore *fixture_store_new_counted(struct metrics *metrics)
{
    struct objstore *inner, *store;
    const struct objstore_settings settings = {.metrics = metrics};
    cr_assert_eq(objstore_open("mem:", &settings, &inner, NULL), GRAFT_OK);
    cr_assert_eq(objstore_faulty_open(inner, &store, NULL), GRAFT_OK);
    return store;
}

struct objstore *fixture_store_new(void)
{
    return fixture_store_new_counted(NULL);
}

int64_t fixture_gets(struct metrics *metrics)
{
    return metric_value(metrics_counter(metrics, "objstore_calls_total", "store=\"mem\",op=\"get\"", ""));
}

void fixture_init(struct log_fixture *fixture, struct objstore *store, bool shared, unsigned volumes_max)
{
    *fixture = (struct log_fixture){.store = store};
    manual_clock_init(&fixture->clock, NOW_MS * 1000);
    memset(fixture->key.bytes, 7, sizeof fixture->key.bytes);
    fixture->volumes = volume_table_new(&(struct volume_table_settings){.store = store,
                                                                        .shared = shared,
                                                                        .volumes_max = volumes_max,
                                                                        .on_head = count_head,
                                                                        .context = fixture});
    fixture->sequencer = sequencer_new(&(struct sequencer_settings){.store = store,
                                                                    .shared = shared,
                                                                    .volumes = fixture->volumes,
                                                                    .clock = &fixture->clock.clock,
                                                                    .key = &fixture->key});
}

struct log_fixture *fixture_new(void)
{
    struct log_fixture *fixture = calloc(1, sizeof *fixture);
    fixture_init(fixture, fixture_store_new(), false, 100);
    fixture->owns_store = true;
    return fixture;
}

void fixture_release(struct log_fixture *fixture)
{
    volume_table_free(fixture->volumes);
    sequencer_free(fixture->sequencer);
    if (fixture->owns_store)
        objstore_close(fixture->store);
}

void fixture_free(struct log_fixture *fixture)
{
    if (!fixture)
        return;
    fixture_release(fixture);
    free(fixture);
}

struct gid fixture_create_volume(struct objstore *store)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(4096);
    struct volume_record volume = {
        .vid = gid_make(GID_VOLUME, NOW_MS), .page_size = 4096, .variable = false, .created_ms = NOW_MS};
    cr_assert_eq(volume_record_encode(&volume, &record, NULL), GRAFT_OK);
    cr_assert_eq(objstore_create_wait(store, key_catalog(&volume.vid).text, buffer_bytes(&record), NULL),
                 GRAFT_OK);
    return volume.vid;
}

// ---- requests

static void answered(void *context, const struct commit_answer *answer)
{
    struct pending_answer *pending = context;
    LOCK_GUARD(&pending->lock);
    cr_assert(!pending->is_answered, "a second answer");
    pending->answer = *answer;
    pending->is_answered = true;
    cond_signal(&pending->answered);
}

static struct pending_answer *pending_new(void)
{
    struct pending_answer *pending = calloc(1, sizeof *pending);
    mutex_init(&pending->lock, RANK_LEAF);
    cond_init(&pending->answered);
    return pending;
}

static struct pending_answer *begin(struct log_fixture *fixture, const struct commit_plan *plan,
                                    void (*spoil)(Graft__CommitRequest *request))
{
    struct built_commit commit;
    commit_build(&fixture->key, plan, &commit);
    if (spoil)
        spoil(&commit.request);
    struct pending_answer *pending = pending_new();
    sequencer_commit(fixture->sequencer, &commit.request, answered, pending);
    return pending;
}

struct pending_answer *fixture_commit_begin(struct log_fixture *fixture, const struct commit_plan *plan)
{
    return begin(fixture, plan, NULL);
}

bool fixture_is_answered(struct pending_answer *pending)
{
    LOCK_GUARD(&pending->lock);
    return pending->is_answered;
}

void fixture_await_faults(struct log_fixture *fixture, unsigned count)
{
    // An answer leaves before the turn is given on, so what was begun may still wait for its turn.
    objstore_faulty_await(fixture->store, count);
}

struct commit_answer fixture_await(struct pending_answer *pending)
{
    mutex_lock(&pending->lock);
    while (!pending->is_answered)
        cond_wait(&pending->answered, &pending->lock);
    mutex_unlock(&pending->lock);
    struct commit_answer answer = pending->answer;
    cond_release(&pending->answered);
    mutex_release(&pending->lock);
    free(pending);
    return answer;
}

struct commit_answer fixture_commit(struct log_fixture *fixture, const struct commit_plan *plan)
{
    return fixture_await(begin(fixture, plan, NULL));
}

struct commit_answer fixture_commit_spoilt(struct log_fixture *fixture, const struct commit_plan *plan,
                                           void (*spoil)(Graft__CommitRequest *request))
{
    return fixture_await(begin(fixture, plan, spoil));
}

struct commit_answer fixture_delete(struct log_fixture *fixture, const struct gid *vid, uint64_t token)
{
    struct pending_answer *pending = pending_new();
    struct token bytes = token_of(token);
    sequencer_delete(fixture->sequencer, vid, &bytes, answered, pending);
    return fixture_await(pending);
}

// ---- volumes

struct state_wait {
    struct volume_wait wait;
    struct mutex lock;
    struct cond ready;
    bool is_ready;
    struct volume_state state;
    struct graft_error error;
};

static void state_ready(struct volume_wait *base, struct volume *volume, const struct graft_error *error)
{
    struct state_wait *wait = CONTAINER_OF(base, struct state_wait, wait);
    struct volume_state state = {0};
    if (volume)
        volume_get_state(volume, &state);
    volume_unref(volume);
    LOCK_GUARD(&wait->lock);
    wait->state = state;
    if (!volume)
        wait->error = *error;
    wait->is_ready = true;
    cond_signal(&wait->ready);
}

enum graft_status fixture_state(struct log_fixture *fixture, const struct gid *vid, bool fresh,
                                struct volume_state *ret_state, struct graft_error *err)
{
    struct state_wait wait = {.wait = {.ready = state_ready, .fresh = fresh}};
    mutex_init(&wait.lock, RANK_LEAF);
    cond_init(&wait.ready);
    volume_table_get(fixture->volumes, vid, &wait.wait);
    mutex_lock(&wait.lock);
    while (!wait.is_ready)
        cond_wait(&wait.ready, &wait.lock);
    mutex_unlock(&wait.lock);
    cond_release(&wait.ready);
    mutex_release(&wait.lock);
    if (wait.error.status != GRAFT_OK)
        return error_copy(err, &wait.error);
    *ret_state = wait.state;
    return GRAFT_OK;
}

struct snapshot fixture_head(struct log_fixture *fixture, const struct gid *vid)
{
    struct volume_state state;
    struct graft_error error;
    cr_assert_eq(fixture_state(fixture, vid, true, &state, &error), GRAFT_OK, "%s", error.message);
    return snapshot_of(&state.record, &state.head);
}

static struct history_commit plain_commit(void *context, uint64_t lsn)
{
    (void)context;
    return (struct history_commit){
        .page_count = 100, .cut = lsn == 1 ? 0 : 100, .run_count = 1, .runs = {{lsn % 100 + 1, 1}}};
}

static void write_commit(struct objstore *store, struct commit_facts *facts,
                         const struct history_commit *change)
{
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    _cleanup_(buffer_release) struct buffer wire = BUFFER_INIT(1 << 20), record = BUFFER_INIT(1 << 20);
    Graft__SegmentRef segment = GRAFT__SEGMENT_REF__INIT, *segments[] = {&segment};
    struct gid sid = gid_make(GID_SEGMENT, NOW_MS);
    _cleanup_(pageset_free_p) struct pageset *thirds = pageset_new();
    _cleanup_(buffer_release) struct buffer structural = BUFFER_INIT(1 << 20);
    uint32_t pageidx;
    for (unsigned i = 0; i < change->run_count; i++)
        pageset_add_run(pages, change->runs[i].first, change->runs[i].count);
    for (struct pageset_cursor cursor = pageset_cursor(pages); pageset_next(&cursor, &pageidx);) {
        if (pageidx % 3 == 0)
            pageset_add(thirds, pageidx);
    }
    cr_assert_eq(pageset_encode(pages, &wire, NULL), GRAFT_OK);
    cr_assert_eq(pageset_encode(thirds, &structural, NULL), GRAFT_OK);
    segment.sid = binary_of(sid.bytes, GID_SIZE);
    segment.owner = binary_of(facts->vid.bytes, GID_SIZE);
    segment.pages = binary_of(wire.data, wire.size);
    segment.structural = binary_of(structural.data, structural.size);
    segment.object_size = 1000 + facts->lsn;
    cr_assert_eq(commit_record_encode(facts, NULL, segments, change->run_count > 0, &record, NULL), GRAFT_OK);
    cr_assert_eq(
        objstore_create_wait(store, key_commit(&facts->vid, facts->lsn).text, buffer_bytes(&record), NULL),
        GRAFT_OK);
}

void fixture_write_history(struct objstore *store, const struct gid *vid, uint64_t count,
                           struct history_commit (*commit)(void *context, uint64_t lsn), void *context,
                           struct hash128 *ret_chains)
{
    struct hash128 chain = {{0}};
    if (ret_chains)
        ret_chains[0] = chain;
    for (uint64_t lsn = 1; lsn <= count; lsn++) {
        struct history_commit change = commit ? commit(context, lsn) : plain_commit(NULL, lsn);
        struct commit_facts facts = {.vid = *vid,
                                     .lsn = lsn,
                                     .base_lsn = lsn - 1,
                                     .base_chain = chain,
                                     .token = token_of(lsn),
                                     .digest = digest_of(lsn),
                                     .page_count = change.page_count,
                                     .cut = change.cut,
                                     .time_ms = NOW_MS + lsn};
        facts.chain = chain = chain_next(&chain, vid, lsn, &facts.token, &facts.digest, facts.page_count);
        write_commit(store, &facts, &change);
        if (ret_chains)
            ret_chains[lsn] = chain;
    }
}
