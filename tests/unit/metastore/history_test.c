// SPDX-License-Identifier: Apache-2.0
//
// Summaries, pulls and the stream of commits over one history, against what the history says when each
// commit is looked at.
#include "tests/unit/metastore/log_fixture.h"

#include <stdlib.h>

#include "metastore/keys.h"
#include "metastore/log_reader.h"
#include "metastore/pull.h"
#include "metastore/summary.h"

struct history {
    struct log_fixture *fixture;
    struct gid vid;
    uint64_t count;
    struct history_commit *commits; // [lsn]
    struct hash128 *chains;         // [lsn]
    struct rng rng;
};

// A random commit on what the volume was: it grows, shrinks and writes here and there.
static struct history_commit random_commit(void *context, uint64_t lsn)
{
    struct history *history = context;
    struct rng *rng = &history->rng;
    uint32_t before = lsn > 1 ? history->commits[lsn - 1].page_count : 0;
    struct history_commit commit = {.page_count = before};
    if (rng_below(rng, 4) == 0 || before == 0)
        commit.page_count = (uint32_t)(1 + rng_below(rng, 3000));
    uint32_t least = before < commit.page_count ? before : commit.page_count;
    commit.cut = rng_below(rng, 50) == 0 ? (uint32_t)rng_below(rng, least + 1) : least;
    uint32_t next = 1;
    while (commit.run_count < ARRAY_COUNT(commit.runs) && rng_below(rng, 4) != 0) {
        uint32_t first = next + (uint32_t)rng_below(rng, 900);
        uint32_t count = 1 + (uint32_t)rng_below(rng, 5);
        if (first + count - 1 > commit.page_count)
            break;
        commit.runs[commit.run_count++] = (struct page_run){first, count};
        next = first + count + 1;
    }
    history->commits[lsn] = commit;
    return commit;
}

static struct history *history_new(uint64_t count, uint64_t seed)
{
    struct history *history = calloc(1, sizeof *history);
    history->fixture = fixture_new();
    history->vid = fixture_create_volume(history->fixture->store);
    history->count = count;
    history->commits = calloc(count + 1, sizeof *history->commits);
    history->chains = calloc(count + 1, sizeof *history->chains);
    rng_seed(&history->rng, seed);
    fixture_write_history(history->fixture->store, &history->vid, count, random_commit, history,
                          history->chains);
    return history;
}

static void history_free(struct history *history)
{
    if (!history)
        return;
    fixture_free(history->fixture);
    free(history->commits);
    free(history->chains);
    free(history);
}
DEFINE_CLEANUP(struct history, history_free)

static struct volume_state state_of(struct history *history)
{
    struct volume_state state;
    struct graft_error error;
    cr_assert_eq(fixture_state(history->fixture, &history->vid, false, &state, &error), GRAFT_OK, "%s",
                 error.message);
    return state;
}

// The state as it was when `head_lsn` was the head.
static struct volume_state state_at(struct history *history, uint64_t head_lsn)
{
    struct volume_state state = state_of(history);
    state.head.lsn = head_lsn;
    state.head.chain = history->chains[head_lsn];
    state.head.page_count = history->commits[head_lsn].page_count;
    return state;
}

static void assert_pull(struct history *history, uint64_t after, uint64_t head_lsn, unsigned *ret_united)
{
    struct volume_state state = state_at(history, head_lsn);
    struct pull_result result;
    struct graft_error error;
    _cleanup_(pageset_free_p) struct pageset *expected = pageset_new();
    uint32_t cut = state.head.page_count;
    for (uint64_t lsn = after + 1; lsn <= head_lsn; lsn++) {
        const struct history_commit *commit = &history->commits[lsn];
        for (unsigned i = 0; i < commit->run_count; i++)
            pageset_add_run(expected, commit->runs[i].first, commit->runs[i].count);
        cut = MIN(cut, commit->cut);
    }
    pageset_remove_above(expected, state.head.page_count);
    cr_assert_eq(pull(history->fixture->store, &state, after, &history->chains[after], &result, &error),
                 GRAFT_OK, "%s", error.message);
    cr_assert(pageset_equal(result.changed, expected), "pages changed in (%llu, %llu]",
              (unsigned long long)after, (unsigned long long)head_lsn);
    cr_assert_eq(result.cut, cut);
    cr_assert(!result.everything);
    pageset_free(result.changed);
    if (ret_united)
        *ret_united = result.united;
}

static void make_summaries(struct history *history, uint64_t upto)
{
    struct graft_error error;
    cr_assert_eq(summarise(history->fixture->store, &history->vid, upto, &error), GRAFT_OK, "%s",
                 error.message);
}

static void assert_commits(struct history *history, uint64_t first, uint64_t last)
{
    struct log_reader reader;
    struct graft_error error;
    uint64_t next = first;
    _cleanup_(buffer_release) struct buffer frames = BUFFER_INIT(16 * MIB);
    log_reader_init(&reader, history->fixture->store, &history->vid, first, last);
    while (!log_reader_is_done(&reader)) {
        uint64_t count = 0;
        buffer_clear(&frames);
        cr_assert_eq(log_reader_next(&reader, &frames, &count, &error), GRAFT_OK, "%s", error.message);
        cr_assert_gt(count, 0);
        cr_assert_leq(frames.size, LOG_PIECE_SIZE + COMMIT_RECORD_SIZE_MAX);
        struct frame_reader split;
        struct bytes input = buffer_bytes(&frames), frame;
        bool whole;
        frame_reader_init(&split, COMMIT_RECORD_SIZE_MAX);
        while (frame_reader_next(&split, &input, &frame, &whole, &error) == GRAFT_OK && whole) {
            ProtobufCMessage *message;
            cr_assert_eq(message_decode(&graft__commits_frame__descriptor, frame, MIB, &message, &error),
                         GRAFT_OK);
            const Graft__Commit *commit = ((Graft__CommitsFrame *)message)->commit;
            cr_assert_eq(commit->lsn, next);
            cr_assert_eq(memcmp(commit->chain.data, history->chains[next].bytes, HASH_SIZE), 0);
            next++;
            message_free(message);
        }
        cr_assert_eq(input.size, 0);
        frame_reader_release(&split);
    }
    cr_assert_eq(next, last + 1);
    log_reader_release(&reader);
}

Test(history, pulls_what_the_commits_say_with_and_without_summaries)
{
    _cleanup_(history_free_p) struct history *history = history_new(1500, 1);
    struct rng rng;
    rng_seed(&rng, 2);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t head = 1 + rng_below(&rng, 1500);
        assert_pull(history, rng_below(&rng, head + 1), head, NULL);
    }
    make_summaries(history, 1100); // four windows; the fifth and sixth are missing
    for (unsigned i = 0; i < 100; i++) {
        uint64_t head = 1 + rng_below(&rng, 1500);
        assert_pull(history, rng_below(&rng, head + 1), head, NULL);
    }
    unsigned united;
    assert_pull(history, 0, 1024, &united);
    cr_assert_eq(united, 4);
    assert_pull(history, 255, 1025, &united);
    cr_assert_eq(united, 1 + 3 + 1);
    assert_pull(history, 1500, 1500, &united);
    cr_assert_eq(united, 0);
}

Test(history, makes_up_for_a_summary_that_is_missing_in_the_middle)
{
    _cleanup_(history_free_p) struct history *history = history_new(1300, 3);
    make_summaries(history, 1300);
    objstore_remove_wait(history->fixture->store, key_summary(&history->vid, SUMMARY_SMALL, 2).text, NULL);
    unsigned united;
    assert_pull(history, 0, 1280, &united);
    cr_assert_eq(united, 4 + 256);
}

Test(history, resumes_summarising_where_it_ended)
{
    _cleanup_(history_free_p) struct history *history = history_new(256 * 9, 4);
    for (uint64_t upto = 0; upto <= history->count; upto += 100) {
        make_summaries(history, upto);
        for (uint64_t n = 0; n < 9; n++) {
            _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(MIB);
            enum graft_status expected = n < upto / 256 ? GRAFT_OK : GRAFT_NOT_FOUND;
            cr_assert_eq(objstore_get_wait(history->fixture->store,
                                           key_summary(&history->vid, SUMMARY_SMALL, n).text, 0, MIB, &record,
                                           NULL),
                         expected);
        }
    }
}

Test(history, streams_commits_with_and_without_packs)
{
    _cleanup_(history_free_p) struct history *history = history_new(1500, 5);
    struct rng rng;
    rng_seed(&rng, 6);
    for (unsigned round = 0; round < 2; round++) {
        assert_commits(history, 1, 1500);
        assert_commits(history, 256, 257);
        assert_commits(history, 257, 512);
        assert_commits(history, 1500, 1500);
        for (unsigned i = 0; i < 30; i++) {
            uint64_t last = 1 + rng_below(&rng, 1500);
            assert_commits(history, 1 + rng_below(&rng, last), last);
        }
        make_summaries(history, 1200);
    }
}

Test(history, reports_a_damaged_pack)
{
    _cleanup_(history_free_p) struct history *history = history_new(256, 7);
    make_summaries(history, 256);
    struct objstore *store = history->fixture->store;
    struct object_key key = key_pack(&history->vid, SUMMARY_SMALL, 0);
    _cleanup_(buffer_release) struct buffer pack = BUFFER_INIT(MIB);
    cr_assert_eq(objstore_get_wait(store, key.text, 0, MIB, &pack, NULL), GRAFT_OK);
    pack.data[pack.size / 2] ^= 1;
    objstore_remove_wait(store, key.text, NULL);
    cr_assert_eq(objstore_create_wait(store, key.text, buffer_bytes(&pack), NULL), GRAFT_OK);
    struct log_reader reader;
    struct graft_error error = {.status = GRAFT_OK};
    uint64_t count;
    _cleanup_(buffer_release) struct buffer frames = BUFFER_INIT(16 * MIB);
    log_reader_init(&reader, store, &history->vid, 1, 256);
    while (!log_reader_is_done(&reader) && log_reader_next(&reader, &frames, &count, &error) == GRAFT_OK)
        ;
    cr_assert_eq(error.status, GRAFT_CORRUPT);
    cr_assert(strstr(error.message, key.text), "%s", error.message);
    log_reader_release(&reader);
}

Test(history, notices_a_chain_that_is_not_its_own)
{
    _cleanup_(history_free_p) struct history *history = history_new(600, 8);
    make_summaries(history, 600);
    struct volume_state state = state_of(history);
    struct graft_error error;
    struct pull_result result;
    for (uint64_t after = 0; after <= 600; after += 100) {
        struct hash128 chain = history->chains[after];
        chain.bytes[5] ^= 4;
        cr_assert_eq(pull(history->fixture->store, &state, after, &chain, &result, &error), GRAFT_CORRUPT);
        cr_assert_eq(error.detail, GRAFT_DETAIL_CHAIN_MISMATCH);
    }
    cr_assert_eq(pull(history->fixture->store, &state, 601, &history->chains[600], &result, &error),
                 GRAFT_NOT_FOUND);
    cr_assert_eq(error.detail, GRAFT_DETAIL_BEYOND_HEAD);
    // A head that the commits do not lead to.
    state.head.chain.bytes[0] ^= 1;
    cr_assert_eq(pull(history->fixture->store, &state, 3, &history->chains[3], &result, &error),
                 GRAFT_CORRUPT);
}

Test(history, says_everything_where_history_was_retired)
{
    _cleanup_(history_free_p) struct history *history = history_new(50, 9);
    struct volume_state state = state_of(history);
    struct graft_error error;
    struct pull_result result;
    state.retired_lsn = 20;
    state.retired_chain = history->chains[20];
    cr_assert_eq(pull(history->fixture->store, &state, 10, &history->chains[10], &result, &error), GRAFT_OK);
    cr_assert(result.everything);
    pageset_free(result.changed);
    cr_assert_eq(pull(history->fixture->store, &state, 20, &history->chains[20], &result, &error), GRAFT_OK);
    cr_assert(!result.everything);
    pageset_free(result.changed);
    cr_assert_eq(pull(history->fixture->store, &state, 20, &history->chains[21], &result, &error),
                 GRAFT_CORRUPT);
}

Test(history, limits_the_runs_of_a_set_to_a_superset)
{
    struct pageset *set = pageset_new();
    for (uint32_t page = 1; page < 4000; page += 2 + page % 7)
        pageset_add(set, page);
    _cleanup_(pageset_free_p) struct pageset *before = pageset_copy(set);
    pageset_limit_runs(&set, 1000000);
    cr_assert(pageset_equal(set, before));
    pageset_limit_runs(&set, 100);
    cr_assert(pageset_is_subset(before, set));
    cr_assert_eq(pageset_max(set), pageset_max(before));
    cr_assert_eq(pageset_min(set), pageset_min(before));
    unsigned runs = 0;
    struct page_run run;
    struct pageset_cursor cursor = pageset_cursor(set);
    while (pageset_next_run(&cursor, &run))
        runs++;
    cr_assert_leq(runs, 100);
    pageset_free(set);
}

// Seventy thousand commits: large summaries and packs, and pulls that stay small.
Test(history, unites_little_of_a_long_history, .timeout = 300)
{
    _cleanup_(history_free_p) struct history *history = history_new(70000, 10);
    struct rng rng;
    rng_seed(&rng, 11);
    make_summaries(history, 70000);
    unsigned united;
    assert_pull(history, 0, 70000, &united);
    cr_assert_eq(united, 1 + 17 + 112); // 65,536 + 17 · 256 + 112
    assert_pull(history, 1, 70000, &united);
    cr_assert_eq(united, 255 + 255 + 17 + 112);
    for (unsigned i = 0; i < 200; i++) {
        uint64_t head = 1 + rng_below(&rng, 70000);
        assert_pull(history, rng_below(&rng, head + 1), head, &united);
        cr_assert_leq(united, 1 + 2 * 255 + 2 * 255);
    }
    assert_commits(history, 1, 70000);
    assert_commits(history, 65000, 66000);
}
