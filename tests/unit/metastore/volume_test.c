// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/metastore/log_fixture.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "metastore/keys.h"

Test(volume, finds_the_newest_commit_of_any_history)
{
    static const uint64_t counts[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 100, 255, 256, 257, 1000};
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
        struct gid vid = fixture_create_volume(fixture->store);
        struct hash128 *chains = calloc(counts[i] + 1, sizeof *chains);
        fixture_write_history(fixture->store, &vid, counts[i], NULL, NULL, chains);
        struct snapshot head = fixture_head(fixture, &vid);
        cr_assert_eq(head.lsn, counts[i]);
        cr_assert(hash_equal(&head.chain, &chains[counts[i]]));
        free(chains);
    }
}

Test(volume, begins_its_search_at_the_retirement_mark)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct hash128 chains[101];
    fixture_write_history(fixture->store, &vid, 100, NULL, NULL, chains);
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(4096);
    _cleanup_(pageset_free_p) struct pageset *none = pageset_new();
    struct summary mark = {.vid = vid, .first_lsn = 1, .last_lsn = 70, .chain = chains[70]};
    cr_assert_eq(summary_encode(&mark, none, &record, NULL), GRAFT_OK);
    objstore_create_wait(fixture->store, key_retired(&vid).text, buffer_bytes(&record), NULL);
    for (uint64_t lsn = 1; lsn <= 70; lsn++)
        objstore_remove_wait(fixture->store, key_commit(&vid, lsn).text, NULL);
    struct volume_state state;
    cr_assert_eq(fixture_state(fixture, &vid, false, &state, NULL), GRAFT_OK);
    cr_assert_eq(state.head.lsn, 100);
    cr_assert_eq(state.retired_lsn, 70);
    cr_assert(hash_equal(&state.retired_chain, &chains[70]));
}

Test(volume, reads_little_however_long_the_history)
{
    static const struct {
        uint64_t commits;
        int64_t gets_max;
    } cases[] = {{20, 20}, {20000, 40}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct metrics *metrics = metrics_new();
        struct objstore *store = fixture_store_new_counted(metrics);
        struct log_fixture fixture;
        struct gid vid = fixture_create_volume(store);
        fixture_write_history(store, &vid, cases[i].commits, NULL, NULL, NULL);
        fixture_init(&fixture, store, false, 10);
        int64_t before = fixture_gets(metrics);
        cr_assert_eq(fixture_head(&fixture, &vid).lsn, cases[i].commits);
        cr_assert_leq(fixture_gets(metrics) - before, cases[i].gets_max);
        cr_assert_gt(fixture_gets(metrics) - before, 3);
        fixture_release(&fixture);
        objstore_close(store);
        metrics_free(metrics);
    }
}

Test(volume, loads_once_for_all_who_ask)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    const struct objstore_fault hold = {
        .op = "get", .key_prefix = "catalog/", .count = UINT32_MAX, .kind = FAULT_HOLD};
    objstore_faulty_add(fixture->store, &hold);
    struct snapshot start = {.vid = vid};
    struct pending_answer *pending[20];
    for (unsigned i = 0; i < ARRAY_COUNT(pending); i++) {
        struct commit_plan plan = plan_on(&start, i + 1, 1, 1);
        pending[i] = fixture_commit_begin(fixture, &plan);
    }
    fixture_await_faults(fixture, 1);
    objstore_faulty_release(fixture->store);
    unsigned landed = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(pending); i++)
        landed += fixture_await(pending[i]).error.status == GRAFT_OK;
    cr_assert_eq(landed, 1);
    cr_assert_eq(fixture->heads_loaded, 1);
    cr_assert_eq(objstore_faulty_fired(fixture->store), 1);
}

Test(volume, tries_again_after_a_load_that_failed)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct objstore_fault fault = {.op = "get", .key_prefix = "volumes/", .count = 1, .kind = FAULT_ERROR};
    error_set(&fault.error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TIMEOUT, "the disk is asleep");
    objstore_faulty_add(fixture->store, &fault);
    struct volume_state state;
    struct graft_error error;
    cr_assert_eq(fixture_state(fixture, &vid, false, &state, &error), GRAFT_UNAVAILABLE);
    cr_assert(strstr(error.message, gid_format(&vid).text) && strstr(error.message, "asleep"), "%s",
              error.message);
    cr_assert_eq(fixture_state(fixture, &vid, false, &state, &error), GRAFT_OK);
}

Test(volume, reports_damage)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct volume_state state;
    struct graft_error error;
    const struct bytes junk = {(const uint8_t *)"junk", 4};
    objstore_create_wait(fixture->store, key_commit(&vid, 1).text, junk, NULL);
    cr_assert_eq(fixture_state(fixture, &vid, false, &state, &error), GRAFT_CORRUPT);
    cr_assert(strstr(error.message, gid_format(&vid).text), "%s", error.message);
}

static void lose(struct objstore *store, const struct gid *vid, uint64_t first, uint64_t last)
{
    for (uint64_t lsn = first; lsn <= last; lsn++)
        objstore_remove_wait(store, key_commit(vid, lsn).text, NULL);
}

// Of a log of `commits`, those from `first` to `last` are lost.
static enum graft_status load_with_hole(uint64_t commits, uint64_t first, uint64_t last, uint64_t *ret_head,
                                        struct graft_error *err)
{
    struct objstore *store = fixture_store_new();
    struct log_fixture fixture;
    struct gid vid = fixture_create_volume(store);
    struct volume_state state = {0};
    fixture_write_history(store, &vid, commits, NULL, NULL, NULL);
    lose(store, &vid, first, last);
    fixture_init(&fixture, store, true, 10);
    enum graft_status status = fixture_state(&fixture, &vid, false, &state, err);
    *ret_head = state.head.lsn;
    fixture_release(&fixture);
    objstore_close(store);
    return status;
}

// Whether the search ends below the hole or jumps over it: below, it does not go on from there.
Test(volume, does_not_go_on_from_below_a_lost_commit)
{
    static const struct {
        uint64_t commits, first, last;
    } holes[] = {{300, 290, 290}, {300, 299, 299}, {2, 1, 1}, {300, 270, 284}, {20, 1, 9}, {600, 256, 300}};
    unsigned below = 0;
    for (size_t i = 0; i < ARRAY_COUNT(holes); i++) {
        struct graft_error error;
        uint64_t head;
        enum graft_status status =
            load_with_hole(holes[i].commits, holes[i].first, holes[i].last, &head, &error);
        if (status == GRAFT_OK) {
            cr_assert_eq(head, holes[i].commits, "hole %zu: goes on from LSN %llu", i,
                         (unsigned long long)head);
            continue;
        }
        char missing[64];
        snprintf(missing, sizeof missing, "commit %llu is missing", (unsigned long long)holes[i].first);
        cr_assert_eq(status, GRAFT_CORRUPT, "%s", error.message);
        cr_assert(strstr(error.message, missing), "%s", error.message);
        below++;
    }
    cr_assert_geq(below, 3);
}

// Nothing tells of it: the head is the newest that is there.
Test(volume, a_log_without_its_end_has_no_hole)
{
    struct graft_error error;
    uint64_t head;
    cr_assert_eq(load_with_hole(300, 291, 300, &head, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(head, 290);
}

Test(volume, keeps_a_bounded_number_in_memory)
{
    struct objstore *store = fixture_store_new();
    struct log_fixture fixture;
    struct gid vids[10];
    struct volume_state state;
    fixture_init(&fixture, store, false, 3);
    for (unsigned i = 0; i < ARRAY_COUNT(vids); i++) {
        vids[i] = fixture_create_volume(store);
        cr_assert_eq(fixture_state(&fixture, &vids[i], false, &state, NULL), GRAFT_OK);
    }
    cr_assert_eq(fixture.heads_loaded, 10);
    for (unsigned i = 7; i < 10; i++) // the last three are there
        cr_assert_eq(fixture_state(&fixture, &vids[i], false, &state, NULL), GRAFT_OK);
    cr_assert_eq(fixture.heads_loaded, 10);
    cr_assert_eq(fixture_state(&fixture, &vids[0], false, &state, NULL), GRAFT_OK);
    cr_assert_eq(fixture.heads_loaded, 11);
    // 7 was used least recently.
    cr_assert_eq(fixture_state(&fixture, &vids[8], false, &state, NULL), GRAFT_OK);
    cr_assert_eq(fixture_state(&fixture, &vids[9], false, &state, NULL), GRAFT_OK);
    cr_assert_eq(fixture.heads_loaded, 11);
    cr_assert_eq(fixture_state(&fixture, &vids[7], false, &state, NULL), GRAFT_OK);
    cr_assert_eq(fixture.heads_loaded, 12);
    fixture_release(&fixture);
    objstore_close(store);
}

Test(volume, refuses_more_while_all_are_in_use)
{
    struct objstore *store = fixture_store_new();
    struct log_fixture fixture;
    struct gid vids[3];
    struct pending_answer *pending[2];
    struct volume_state state;
    struct graft_error error;
    fixture_init(&fixture, store, false, 2);
    for (unsigned i = 0; i < ARRAY_COUNT(vids); i++)
        vids[i] = fixture_create_volume(store);
    const struct objstore_fault hold = {.op = "create", .count = 2, .kind = FAULT_HOLD};
    objstore_faulty_add(store, &hold);
    for (unsigned i = 0; i < 2; i++) {
        struct snapshot start = {.vid = vids[i]};
        cr_assert_eq(fixture_state(&fixture, &vids[i], false, &state, NULL), GRAFT_OK);
        struct commit_plan plan = plan_on(&start, 1, 1, 1);
        pending[i] = fixture_commit_begin(&fixture, &plan);
    }
    fixture_await_faults(&fixture, 2);
    cr_assert_eq(fixture_state(&fixture, &vids[2], false, &state, &error), GRAFT_UNAVAILABLE);
    cr_assert_eq(error.detail, GRAFT_DETAIL_OVERLOADED);
    objstore_faulty_release(store);
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(fixture_await(pending[i]).error.status, GRAFT_OK);
    // A commit's reference goes back just after its answer.
    while (fixture_state(&fixture, &vids[2], false, &state, &error) == GRAFT_UNAVAILABLE)
        sched_yield();
    cr_assert(gid_equal(&state.record.vid, &vids[2]));
    fixture_release(&fixture);
    objstore_close(store);
}

Test(volume, walks_a_long_way_on_without_a_deep_stack)
{
    struct objstore *store = fixture_store_new();
    struct log_fixture stale;
    struct gid vid = fixture_create_volume(store);
    fixture_init(&stale, store, true, 10);
    cr_assert_eq(fixture_head(&stale, &vid).lsn, 0);
    fixture_write_history(store, &vid, 5000, NULL, NULL, NULL);
    cr_assert_eq(fixture_head(&stale, &vid).lsn, 5000);
    fixture_release(&stale);
    objstore_close(store);
}
