// SPDX-License-Identifier: Apache-2.0
//
// Forks against a replay of the origin's log from its beginning.
#include "tests/unit/metastore/log_fixture.h"

#include <stdlib.h>

#include "metastore/fork.h"
#include "metastore/keys.h"
#include "metastore/summary.h"

#define PAGES_MAX 3100u

struct origin {
    struct log_fixture *fixture;
    struct metrics *metrics;
    struct gid vid;
    uint64_t count;
    struct hash128 *chains; // [lsn]
    struct rng rng;
    uint32_t page_count;
};

// Grows, shrinks and writes here and there.
static struct history_commit random_commit(void *context, uint64_t lsn)
{
    struct origin *origin = context;
    struct rng *rng = &origin->rng;
    uint32_t before = lsn > 1 ? origin->page_count : 0;
    struct history_commit commit = {.page_count = before};
    if (rng_below(rng, 4) == 0 || before == 0)
        commit.page_count = (uint32_t)(1 + rng_below(rng, PAGES_MAX - 100));
    uint32_t least = MIN(before, commit.page_count);
    commit.cut = rng_below(rng, 50) == 0 ? (uint32_t)rng_below(rng, least + 1) : least;
    uint32_t next = 1;
    while (commit.run_count < ARRAY_COUNT(commit.runs) && rng_below(rng, 4) != 0) {
        uint32_t first = next + (uint32_t)rng_below(rng, 900), count = 1 + (uint32_t)rng_below(rng, 60);
        if (first + count - 1 > commit.page_count)
            break;
        commit.runs[commit.run_count++] = (struct page_run){first, count};
        next = first + count + 1;
    }
    origin->page_count = commit.page_count;
    return commit;
}

static struct origin *origin_new(uint64_t count, uint64_t seed,
                                 struct history_commit (*commit)(void *context, uint64_t lsn))
{
    struct origin *origin = calloc(1, sizeof *origin);
    origin->metrics = metrics_new();
    origin->fixture = calloc(1, sizeof *origin->fixture);
    fixture_init(origin->fixture, fixture_store_new_counted(origin->metrics), false, 100);
    origin->fixture->owns_store = true;
    origin->vid = fixture_create_volume(origin->fixture->store);
    origin->count = count;
    origin->chains = calloc(count + 1, sizeof *origin->chains);
    rng_seed(&origin->rng, seed);
    fixture_write_history(origin->fixture->store, &origin->vid, count, commit, origin, origin->chains);
    return origin;
}

static void origin_free(struct origin *origin)
{
    if (!origin)
        return;
    fixture_free(origin->fixture);
    metrics_free(origin->metrics);
    free(origin->chains);
    free(origin);
}
DEFINE_CLEANUP(struct origin, origin_free)

static struct fork_request request_at(struct origin *origin, uint64_t lsn)
{
    struct fork_request request = {.store = origin->fixture->store,
                                   .clock = &origin->fixture->clock.clock,
                                   .origin = {.vid = origin->vid, .lsn = lsn, .chain = origin->chains[lsn]},
                                   .vid = gid_make(GID_VOLUME, 1)};
    cr_assert_eq(fixture_state(origin->fixture, &origin->vid, false, &request.state, NULL), GRAFT_OK);
    return request;
}

static struct snapshot fork_ok(const struct fork_request *request)
{
    struct snapshot snapshot;
    struct graft_error error;
    cr_assert_eq(fork_volume(request, &snapshot, &error), GRAFT_OK, "%s", error.message);
    cr_assert(gid_equal(&snapshot.vid, &request->vid) && !snapshot.deleted);
    return snapshot;
}

static void refused(const struct fork_request *request, enum graft_status status, enum graft_detail detail)
{
    struct snapshot snapshot;
    struct graft_error error;
    cr_assert_eq(fork_volume(request, &snapshot, &error), status, "%s", error.message);
    cr_assert_eq(error.detail, detail, "%s", error.message);
}

static Graft__Commit *commit_at(struct origin *origin, const struct gid *vid, uint64_t lsn)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(RECORD_SIZE_MAX);
    struct commit_facts facts;
    Graft__Commit *commit;
    struct graft_error error;
    cr_assert_eq(objstore_get_wait(origin->fixture->store, key_commit(vid, lsn).text, 0, RECORD_SIZE_MAX,
                                   &record, &error),
                 GRAFT_OK, "%s", error.message);
    cr_assert_eq(commit_record_open(buffer_bytes(&record), vid, lsn, &facts, &commit, &error), GRAFT_OK, "%s",
                 error.message);
    return commit;
}

struct version {
    bool there;
    uint8_t sid[GID_SIZE], owner[GID_SIZE];
    uint64_t object_size;
    bool structural;
};

// Applies a commit to what every page is.
static void apply(const Graft__Commit *commit, struct version *pages, bool once)
{
    for (uint32_t page = commit->cut + 1; page < PAGES_MAX; page++)
        pages[page].there = false;
    for (size_t i = 0; i < commit->n_segments; i++) {
        const Graft__SegmentRef *segment = commit->segments[i];
        _cleanup_(pageset_free_p) struct pageset *set = NULL, *structural = NULL;
        uint32_t page;
        cr_assert_eq(pageset_decode(bytes_of(&segment->pages), PAGES_MAX, "pages", &set, NULL), GRAFT_OK);
        cr_assert_eq(pageset_decode(bytes_of(&segment->structural), PAGES_MAX, "s", &structural, NULL),
                     GRAFT_OK);
        cr_assert(!pageset_is_empty(set) && pageset_is_subset(structural, set));
        cr_assert_leq(pageset_max(set), commit->page_count);
        for (struct pageset_cursor cursor = pageset_cursor(set); pageset_next(&cursor, &page);) {
            cr_assert(!once || !pages[page].there, "page %u has two versions in a fork", page);
            pages[page] = (struct version){.there = true,
                                           .object_size = segment->object_size,
                                           .structural = pageset_contains(structural, page)};
            memcpy(pages[page].sid, segment->sid.data, GID_SIZE);
            memcpy(pages[page].owner, segment->owner.data, GID_SIZE);
        }
    }
}

static void replay(struct origin *origin, const struct gid *vid, uint64_t first, uint64_t last,
                   struct version *pages, bool once)
{
    for (uint64_t lsn = first; lsn <= last; lsn++) {
        Graft__Commit *commit = commit_at(origin, vid, lsn);
        apply(commit, pages, once);
        message_free(&commit->base);
    }
}

static void assert_same(const struct version *expected, const struct version *found)
{
    for (uint32_t page = 1; page < PAGES_MAX; page++) {
        cr_assert_eq(found[page].there, expected[page].there, "page %u", page);
        if (!found[page].there)
            continue;
        cr_assert_eq(memcmp(found[page].sid, expected[page].sid, GID_SIZE), 0, "page %u", page);
        cr_assert_eq(memcmp(found[page].owner, expected[page].owner, GID_SIZE), 0, "page %u", page);
        cr_assert_eq(found[page].object_size, expected[page].object_size);
        cr_assert_eq(found[page].structural, expected[page].structural, "page %u", page);
    }
}

static void assert_fork(struct origin *origin, uint64_t lsn, const struct version *expected)
{
    struct version found[PAGES_MAX] = {0};
    struct fork_request request = request_at(origin, lsn);
    struct snapshot snapshot = fork_ok(&request);
    replay(origin, &request.vid, 1, snapshot.lsn, found, true);
    assert_same(expected, found);
    struct volume_state state;
    cr_assert_eq(fixture_state(origin->fixture, &request.vid, false, &state, NULL), GRAFT_OK);
    cr_assert_eq(state.head.lsn, snapshot.lsn);
    cr_assert_eq(state.record.origin.lsn, lsn);
    Graft__Commit *commit = commit_at(origin, &origin->vid, lsn);
    cr_assert_eq(snapshot.page_count, commit->page_count);
    message_free(&commit->base);
}

Test(fork, is_what_its_origin_was_with_and_without_summaries, .timeout = 120)
{
    _cleanup_(origin_free_p) struct origin *origin = origin_new(1500, 1, random_commit);
    struct version pages[PAGES_MAX] = {0};
    struct graft_error error;
    cr_assert_eq(summarise(origin->fixture->store, &origin->vid, 900, &error), GRAFT_OK, "%s", error.message);
    uint64_t done = 0;
    while (done < origin->count) {
        uint64_t lsn = MIN(done + 1 + rng_below(&origin->rng, done < 20 ? 1 : 25), origin->count);
        replay(origin, &origin->vid, done + 1, lsn, pages, false);
        assert_fork(origin, lsn, pages);
        done = lsn;
    }
}

// ---- cost

static struct history_commit long_commit(void *context, uint64_t lsn)
{
    (void)context;
    struct history_commit commit = {.page_count = 1000, .cut = lsn == 1 ? 0 : 1000, .run_count = 1};
    commit.runs[0] = (struct page_run){lsn == 5 ? 900 : 1 + (uint32_t)(lsn % 100), 1};
    return commit;
}

Test(fork, steps_over_history_that_is_not_live, .timeout = 120)
{
    _cleanup_(origin_free_p) struct origin *origin = origin_new(70000, 2, long_commit);
    struct graft_error error;
    struct version expected[PAGES_MAX] = {0};
    replay(origin, &origin->vid, 1, 5, expected, false);
    replay(origin, &origin->vid, 69800, 70000, expected, false);
    cr_assert_eq(summarise(origin->fixture->store, &origin->vid, 70000, &error), GRAFT_OK, "%s",
                 error.message);
    int64_t before = fixture_gets(origin->metrics);
    struct fork_request request = request_at(origin, 70000);
    fork_ok(&request);
    // 112 commits, two objects for each of 17 + 255 windows, the large one in vain, and the 256 with LSN 5.
    int64_t gets = fixture_gets(origin->metrics) - before;
    cr_assert_leq(gets, 112 + 2 * (17 + 255) + 1 + 256 + 60, "%lld gets", (long long)gets);
    assert_fork(origin, 70000, expected);
}

Test(fork, is_not_kept_waiting_by_pages_that_were_never_written, .timeout = 120)
{
    _cleanup_(origin_free_p) struct origin *origin = origin_new(70000, 3, long_commit);
    struct graft_error error;
    cr_assert_eq(summarise(origin->fixture->store, &origin->vid, 70000, &error), GRAFT_OK);
    struct fork_request request = request_at(origin, 70000);
    // Page 900 is rewritten, so nothing of the first 65,536 commits is live; 899 pages never were.
    struct snapshot base = fixture_head(origin->fixture, &origin->vid);
    struct commit_plan plan = plan_on(&base, 80000, 900, 1);
    struct commit_answer answer = fixture_commit(origin->fixture, &plan);
    cr_assert_eq(answer.error.status, GRAFT_OK, "%s", answer.error.message);
    cr_assert_eq(fixture_state(origin->fixture, &origin->vid, false, &request.state, NULL), GRAFT_OK);
    request.origin.lsn = answer.snapshot.lsn;
    request.origin.chain = answer.snapshot.chain;
    int64_t before = fixture_gets(origin->metrics);
    fork_ok(&request);
    int64_t gets = fixture_gets(origin->metrics) - before;
    cr_assert_leq(gets, 113 + 2 * 17 + 2 + 40, "%lld gets", (long long)gets);
}

// ---- many references

static struct history_commit one_page(void *context, uint64_t lsn)
{
    (void)context;
    struct history_commit commit = {.page_count = (uint32_t)lsn, .cut = (uint32_t)lsn - 1, .run_count = 1};
    commit.runs[0] = (struct page_run){(uint32_t)lsn, 1};
    return commit;
}

Test(fork, of_more_references_than_a_commit_holds_is_seen_whole_or_not_at_all, .timeout = 120)
{
    enum { COUNT = 2 * 8192 + 5 };
    _cleanup_(origin_free_p) struct origin *origin = origin_new(COUNT, 4, one_page);
    struct fork_request request = request_at(origin, COUNT);
    struct objstore_fault fault = {.op = "create", .skip = 1, .count = 1, .kind = FAULT_ERROR};
    struct volume_state state;
    struct graft_error error;
    error_set(&fault.error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_NONE, "not now");
    objstore_faulty_add(origin->fixture->store, &fault);
    refused(&request, GRAFT_UNAVAILABLE, GRAFT_DETAIL_NONE);
    cr_assert_eq(fixture_state(origin->fixture, &request.vid, false, &state, &error), GRAFT_NOT_FOUND);
    // The next try finds the first commit and goes on; another fork to the same VID is refused.
    struct fork_request other = request_at(origin, COUNT - 1);
    other.vid = request.vid;
    refused(&other, GRAFT_CONFLICT, GRAFT_DETAIL_EXISTS);
    struct snapshot snapshot = fork_ok(&request);
    cr_assert_eq(snapshot.lsn, 3);
    cr_assert_eq(snapshot.page_count, COUNT);
    _cleanup_(pageset_free_p) struct pageset *all = pageset_new();
    size_t references = 0;
    for (uint64_t lsn = 1; lsn <= 3; lsn++) {
        Graft__Commit *commit = commit_at(origin, &request.vid, lsn);
        references += commit->n_segments;
        cr_assert_eq(commit->page_count, COUNT);
        cr_assert_eq(commit->cut, lsn == 1 ? 0 : COUNT);
        for (size_t i = 0; i < commit->n_segments; i++) {
            _cleanup_(pageset_free_p) struct pageset *pages = NULL;
            cr_assert_eq(pageset_decode(bytes_of(&commit->segments[i]->pages), 10, "p", &pages, NULL),
                         GRAFT_OK);
            cr_assert(!pageset_intersects(all, pages));
            pageset_union(all, pages);
        }
        message_free(&commit->base);
    }
    cr_assert_eq(references, COUNT);
    cr_assert_eq(pageset_count(all), COUNT);
    struct snapshot again = fork_ok(&request);
    cr_assert(hash_equal(&again.chain, &snapshot.chain) && again.lsn == 3);
}

// ---- again, and refused

static bool same(const struct snapshot *a, const struct snapshot *b)
{
    return a->lsn == b->lsn && hash_equal(&a->chain, &b->chain) && a->page_count == b->page_count &&
           a->time_ms == b->time_ms;
}

Test(fork, asked_for_again_is_the_same)
{
    _cleanup_(origin_free_p) struct origin *origin = origin_new(60, 5, random_commit);
    struct fork_request request = request_at(origin, 50);
    struct snapshot first = fork_ok(&request);
    manual_clock_advance(&origin->fixture->clock, 5000000);
    struct snapshot again = fork_ok(&request);
    cr_assert(same(&first, &again));
    // Also when the fork has commits of its own, and when its origin is gone.
    struct commit_plan plan = plan_on(&first, 900, 1, 1);
    cr_assert_eq(fixture_commit(origin->fixture, &plan).error.status, GRAFT_OK);
    cr_assert_eq(fixture_delete(origin->fixture, &origin->vid, 901).error.status, GRAFT_OK);
    cr_assert_eq(fixture_state(origin->fixture, &origin->vid, false, &request.state, NULL), GRAFT_OK);
    again = fork_ok(&request);
    cr_assert(same(&first, &again));
    error_set(&request.state_error, GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME, "no such volume here");
    again = fork_ok(&request);
    cr_assert(same(&first, &again));
    // Another VID needs the origin.
    request.vid = gid_make(GID_VOLUME, 2);
    refused(&request, GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME);
    request.state_error.status = GRAFT_OK;
    refused(&request, GRAFT_GONE, GRAFT_DETAIL_DELETED);
}

Test(fork, survives_lost_answers_at_every_create)
{
    _cleanup_(origin_free_p) struct origin *origin = origin_new(60, 6, random_commit);
    for (unsigned skip = 0; skip < 2; skip++) {
        struct objstore_fault fault = {.op = "create", .skip = skip, .count = 1, .kind = FAULT_LOST_ANSWER};
        objstore_faulty_add(origin->fixture->store, &fault);
        struct fork_request request = request_at(origin, 40);
        struct snapshot first = fork_ok(&request), again = fork_ok(&request);
        cr_assert(same(&first, &again));
    }
    cr_assert_eq(objstore_faulty_fired(origin->fixture->store), 2);
}

Test(fork, refuses_what_it_cannot_be_made_of)
{
    _cleanup_(origin_free_p) struct origin *origin = origin_new(60, 7, random_commit);
    struct fork_request request = request_at(origin, 60);
    request.origin.lsn = 61;
    refused(&request, GRAFT_NOT_FOUND, GRAFT_DETAIL_BEYOND_HEAD);
    request = request_at(origin, 60);
    request.origin.chain = origin->chains[59];
    refused(&request, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH);
    request = request_at(origin, 20);
    request.state.retired_lsn = 20;
    refused(&request, GRAFT_GONE, GRAFT_DETAIL_RETIRED);
    request = request_at(origin, 60);
    request.vid = fixture_create_volume(origin->fixture->store);
    refused(&request, GRAFT_CONFLICT, GRAFT_DETAIL_EXISTS);
    atomic_bool stop = true;
    request = request_at(origin, 60);
    request.stop = &stop;
    refused(&request, GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING);
    // The same VID for another LSN.
    request = request_at(origin, 30);
    fork_ok(&request);
    request.origin.lsn = 31;
    request.origin.chain = origin->chains[31];
    refused(&request, GRAFT_CONFLICT, GRAFT_DETAIL_EXISTS);
}

Test(fork, reports_a_commit_that_is_missing_or_of_another_history)
{
    _cleanup_(origin_free_p) struct origin *origin = origin_new(60, 8, one_page);
    struct objstore *store = origin->fixture->store;
    cr_assert_eq(objstore_remove_wait(store, key_commit(&origin->vid, 30).text, NULL), GRAFT_OK);
    struct fork_request request = request_at(origin, 60);
    refused(&request, GRAFT_CORRUPT, GRAFT_DETAIL_NONE);
    struct commit_facts facts = {.vid = origin->vid,
                                 .lsn = 30,
                                 .base_lsn = 29,
                                 .base_chain = origin->chains[29],
                                 .page_count = 30,
                                 .cut = 29};
    facts.chain = chain_next(&facts.base_chain, &facts.vid, 30, &facts.token, &facts.digest, 30);
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(1 << 16);
    cr_assert_eq(commit_record_encode(&facts, NULL, NULL, 0, &record, NULL), GRAFT_OK);
    cr_assert_eq(objstore_create_wait(store, key_commit(&origin->vid, 30).text, buffer_bytes(&record), NULL),
                 GRAFT_OK);
    refused(&request, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH);
}
