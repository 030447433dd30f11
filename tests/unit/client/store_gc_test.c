// SPDX-License-Identifier: Apache-2.0
//
// What nobody needs goes, what somebody needs stays, and no work grows with the number of commits.
#include <criterion/criterion.h>
#include <rocksdb/c.h>
#include <stdlib.h>

#include "client/store_internal.h"
#include "tests/unit/client/store_fixture.h"

static struct store_fixture fixture;

static void begin(void)
{
    // Many commits, and none of these tests is about the disk: memory syncs for nothing.
    setenv("TMPDIR", "/dev/shm", 0);
    memset(&fixture, 0, sizeof fixture);
    fixture_begin(&fixture);
}

static void end(void)
{
    fixture_end(&fixture);
}

TestSuite(store_gc, .init = begin, .fini = end, .timeout = 240);

static struct store_pin *pin_head(struct store_volume *volume)
{
    struct store_pin *pin;
    expect_ok(store_pin_open(volume, &pin, &err));
    return pin;
}

// Live keys of a volume in a family.
static unsigned count_keys(struct store_volume *volume, struct rocks *rocks, unsigned family)
{
    struct store_key prefix = store_key_number(volume->number);
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = store_scan(rocks, family, &prefix);
    unsigned count = 0;
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator))
        count++;
    return count;
}

static unsigned count_local(struct store_volume *volume, unsigned family)
{
    return count_keys(volume, fixture.store->local, family);
}

static void expect_versions(struct store_volume *volume, unsigned versions)
{
    cr_assert_eq(count_local(volume, FAMILY_INDEX), versions, "%u versions",
                 count_local(volume, FAMILY_INDEX));
    expect_exact_accounts(&fixture);
}

static void truncate_to(struct store_volume *volume, uint32_t page_count)
{
    struct store_writer *writer;
    expect_ok(store_writer_begin(volume, &writer, &err));
    expect_ok(store_writer_truncate(writer, page_count, &err));
    expect_ok(store_writer_commit(writer, NULL, &err));
}

Test(store_gc, an_overwritten_page_goes_at_once)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    for (uint32_t tag = 1; tag <= 50; tag++)
        fixture_commit(volume, 1, 10, tag);
    expect_versions(volume, 10);
    cr_assert_eq(count_local(volume, FAMILY_SUPERSEDED), 0);
    store_volume_close(volume);
}

Test(store_gc, a_pin_keeps_what_it_shows_and_nothing_else)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 10, 1);
    struct store_pin *pin = pin_head(volume);
    for (uint32_t tag = 2; tag <= 50; tag++)
        fixture_commit(volume, 1, 10, tag);
    expect_versions(volume, 20);
    struct store_pin *second = pin_head(volume);
    fixture_commit(volume, 1, 10, 51);
    expect_versions(volume, 30);
    for (uint32_t pageidx = 1; pageidx <= 10; pageidx++)
        expect_page(pin, pageidx, 1);
    store_pin_release(pin);
    expect_versions(volume, 20);
    for (uint32_t pageidx = 1; pageidx <= 10; pageidx++)
        expect_page(second, pageidx, 50);
    store_pin_release(second);
    expect_versions(volume, 10);
    cr_assert_eq(count_local(volume, FAMILY_SUPERSEDED), 0);
    store_volume_close(volume);
}

Test(store_gc, a_release_removes_a_bounded_number_and_later_commits_the_rest)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 5000, 1);
    struct store_pin *pin = pin_head(volume);
    fixture_commit(volume, 1, 5000, 2);
    expect_versions(volume, 10000);
    store_pin_release(pin);
    unsigned left = count_local(volume, FAMILY_INDEX);
    cr_assert(left > 5000 && left < 10000, "%u versions", left);
    for (uint32_t tag = 3; tag < 40; tag++)
        fixture_commit(volume, 1, 1, tag);
    expect_versions(volume, 5000);
    store_volume_close(volume);
}

Test(store_gc, what_a_pin_of_the_last_opening_kept_goes)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 10, 1);
    struct store_pin *pin = pin_head(volume);
    fixture_commit(volume, 1, 10, 2);
    expect_versions(volume, 20);
    // As after a crash: the pin goes and nothing is removed.
    mutex_lock(&fixture.store->lock);
    volume->sweep.running = true;
    mutex_unlock(&fixture.store->lock);
    store_pin_release(pin);
    expect_versions(volume, 20);
    store_volume_close(volume);
    fixture_close(&fixture);
    fixture_open(&fixture);
    struct gid vid = fixture_vid(1);
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
    fixture_commit(volume, 1, 1, 3);
    expect_versions(volume, 10);
    store_volume_close(volume);
}

Test(store_gc, a_push_keeps_its_range)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 10, 1);
    struct token token = {.bytes = {1}};
    struct store_push push;
    expect_ok(store_push_begin(volume, &token, &push, &err));
    for (uint32_t tag = 2; tag <= 20; tag++)
        fixture_commit(volume, 1, 10, tag);
    expect_versions(volume, 20);
    struct hash128 digest = {.bytes = {1}};
    struct store_remote landed = fixture_remote(1, 10);
    expect_ok(store_push_committing(volume, &digest, (struct bytes){(const uint8_t *)"x", 1}, &err));
    expect_ok(store_push_settle(volume, &landed, &err));
    expect_versions(volume, 10);
    cr_assert_eq(count_local(volume, FAMILY_COMMITS), 19); // what was not pushed yet
    store_volume_close(volume);
}

Test(store_gc, pages_cut_off_go_and_the_cut_is_forgotten)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 20, 1);
    truncate_to(volume, 5);
    expect_versions(volume, 5);
    cr_assert_eq(count_local(volume, FAMILY_CUTS), 0);
    cr_assert_eq(count_local(volume, FAMILY_SUPERSEDED), 0);
    fixture_commit(volume, 20, 1, 2);
    struct store_pin *pin = pin_head(volume);
    truncate_to(volume, 2);
    truncate_to(volume, 30);
    fixture_commit(volume, 4, 1, 3);
    for (uint32_t pageidx = 1; pageidx <= 5; pageidx++)
        expect_page(pin, pageidx, 1);
    expect_page(pin, 20, 2);
    expect_versions(volume, 7); // 1 to 5 and 20 of the pin, 4 of the head
    struct store_pin *head = pin_head(volume);
    expect_state(head, 3, STORE_PAGE_EMPTY);
    expect_state(head, 20, STORE_PAGE_EMPTY);
    expect_page(head, 4, 3);
    store_pin_release(head);
    store_pin_release(pin);
    fixture_commit(volume, 1, 1, 4);
    expect_versions(volume, 3);
    cr_assert_eq(count_local(volume, FAMILY_CUTS), 0);
    cr_assert_eq(count_local(volume, FAMILY_SUPERSEDED), 0);
    store_volume_close(volume);
}

Test(store_gc, fetched_bytes_go_with_their_mark)
{
    struct gid vid = fixture_vid(1);
    struct store_remote head = fixture_remote(5, 30);
    struct store_volume *volume;
    expect_ok(store_volume_clone(fixture.store, &vid, 512, GRAFT_FIXED, &head, &volume, &err));
    struct store_arrivals *arrivals;
    uint8_t page[512] = {1};
    expect_ok(store_arrivals_new(volume, &arrivals, &err));
    for (uint32_t pageidx = 1; pageidx <= 30; pageidx++)
        expect_ok(store_arrivals_add(arrivals, pageidx, 1, page, sizeof page, &err));
    expect_ok(store_arrivals_flush(arrivals, &err));
    store_arrivals_free(arrivals);
    struct rocks *fetched = fixture.store->fetched;
    cr_assert_eq(count_keys(volume, fetched, FETCHED_ARRIVED), 30);
    _cleanup_(pageset_free_p) struct pageset *changed = pageset_new();
    pageset_add_run(changed, 1, 4);
    struct store_pull pull = {.after_lsn = 5, .head = fixture_remote(6, 20), .changed = changed, .cut = 20};
    expect_ok(store_apply_pull(volume, &pull, &err));
    cr_assert_eq(count_keys(volume, fetched, FETCHED_ARRIVED), 16);
    fixture_commit(volume, 5, 2, 1);
    cr_assert_eq(count_keys(volume, fetched, FETCHED_ARRIVED), 14);
    struct store_cache_usage usage;
    store_cache_usage(fixture.store, &usage);
    cr_assert_eq(usage.live, 14 * 512);
    cr_assert_eq(count_local(volume, FAMILY_SUPERSEDED), 0);
    store_volume_close(volume);
}

Test(store_gc, an_aborted_large_commit_leaves_nothing)
{
    fixture_close(&fixture);
    fixture.settings.writer_memory_size = 4096;
    fixture_open(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 50, 1);
    struct store_writer *writer;
    uint8_t page[512] = {0};
    expect_ok(store_writer_begin(volume, &writer, &err));
    for (uint32_t pageidx = 1; pageidx <= 100; pageidx++)
        expect_ok(store_writer_write(writer, pageidx, page, sizeof page, &err));
    cr_assert_gt(count_local(volume, FAMILY_INDEX), 100);
    store_writer_abort(writer);
    expect_versions(volume, 50);
    cr_assert_eq(count_local(volume, FAMILY_SUPERSEDED), 0);
    store_volume_close(volume);
}

Test(store_gc, what_a_crash_left_staged_goes_at_the_next_opening)
{
    fixture_close(&fixture);
    fixture.settings.writer_memory_size = 4096;
    fixture_open(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 5, 1);
    struct store_writer *writer;
    uint8_t page[512] = {0};
    expect_ok(store_writer_begin(volume, &writer, &err));
    for (uint32_t pageidx = 1; pageidx <= 100; pageidx++)
        expect_ok(store_writer_write(writer, pageidx, page, sizeof page, &err));
    // As after a crash: what is staged stays.
    error_set(&fixture.store->failure, GRAFT_INTERNAL, GRAFT_DETAIL_IO, "a crash");
    atomic_store(&fixture.store->failed, true);
    store_writer_abort(writer);
    cr_assert_gt(count_local(volume, FAMILY_INDEX), 50);
    store_volume_close(volume);
    fixture_close(&fixture);
    fixture_open(&fixture);
    struct gid vid = fixture_vid(1);
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
    expect_versions(volume, 5);
    cr_assert_eq(count_local(volume, FAMILY_COMMITS), 1);
    cr_assert_eq(count_local(volume, FAMILY_SUPERSEDED), 0);
    store_volume_close(volume);
}

Test(store_gc, bytes_whose_mark_goes_while_they_wait_are_not_kept)
{
    struct gid vid = fixture_vid(1);
    struct store_remote head = fixture_remote(5, 30);
    struct store_volume *volume;
    expect_ok(store_volume_clone(fixture.store, &vid, 512, GRAFT_FIXED, &head, &volume, &err));
    struct store_arrivals *arrivals;
    uint8_t page[512] = {1};
    expect_ok(store_arrivals_new(volume, &arrivals, &err));
    for (uint32_t pageidx = 1; pageidx <= 10; pageidx++)
        expect_ok(store_arrivals_add(arrivals, pageidx, 1, page, sizeof page, &err));
    fixture_commit(volume, 3, 2, 1);
    expect_ok(store_arrivals_flush(arrivals, &err));
    store_arrivals_free(arrivals);
    struct store_cache_usage usage;
    store_cache_usage(fixture.store, &usage);
    cr_assert_eq(usage.live, 8 * 512);
    cr_assert_eq(count_keys(volume, fixture.store->fetched, FETCHED_ARRIVED), 8);
    store_volume_close(volume);
}

Test(store_gc, rewriting_a_page_for_ever_does_not_grow_the_store)
{
    fixture_close(&fixture);
    fixture.settings.memory_size = STORE_MEMORY_MIN;
    fixture_open(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 4096);
    uint64_t peak = 0;
    for (uint32_t tag = 1; tag <= 20000; tag++) {
        fixture_commit(volume, 1, 1, tag);
        if (tag % 500 == 0)
            peak = MAX(peak, fixture_disk_size(&fixture));
    }
    // 80 MB were written. Space is claimed 4 MiB at a time.
    cr_assert_lt(peak, 32 * MIB, "%lu bytes", peak);
    expect_versions(volume, 1);
    store_volume_close(volume);
}

// ---- work

struct work {
    uint64_t compared; // keys
    uint64_t skipped;  // keys that a scan walked over
};

static void work_begin(rocksdb_perfcontext_t *context)
{
    rocksdb_set_perf_level(rocksdb_enable_count);
    rocksdb_perfcontext_reset(context);
}

static struct work work_end(rocksdb_perfcontext_t *context)
{
    return (struct work){
        .compared = rocksdb_perfcontext_metric(context, rocksdb_user_key_comparison_count),
        .skipped = rocksdb_perfcontext_metric(context, rocksdb_internal_delete_skipped_count) +
                   rocksdb_perfcontext_metric(context, rocksdb_internal_key_skipped_count),
    };
}

// What one commit, one pull and one read of each page cost at this moment.
static void measure(struct store_volume *volume, uint64_t *remote_lsn, struct work *ret_commit,
                    struct work *ret_pull, struct work *ret_read)
{
    rocksdb_perfcontext_t *context = rocksdb_perfcontext_create();
    struct token token = {.bytes = {1}};
    struct hash128 digest = {.bytes = {1}};
    struct store_push push;
    work_begin(context);
    fixture_commit(volume, 5, 3, (uint32_t)*remote_lsn);
    *ret_commit = work_end(context);
    struct store_remote landed = fixture_remote(++*remote_lsn, 20);
    expect_ok(store_push_begin(volume, &token, &push, &err));
    expect_ok(store_push_committing(volume, &digest, (struct bytes){(const uint8_t *)"x", 1}, &err));
    expect_ok(store_push_settle(volume, &landed, &err));

    _cleanup_(pageset_free_p) struct pageset *changed = pageset_new();
    pageset_add_run(changed, 8, 2);
    struct store_pull pull = {
        .after_lsn = *remote_lsn, .head = fixture_remote(*remote_lsn + 1, 20), .changed = changed, .cut = 20};
    ++*remote_lsn;
    work_begin(context);
    expect_ok(store_apply_pull(volume, &pull, &err));
    *ret_pull = work_end(context);

    struct store_pin *pin = pin_head(volume);
    work_begin(context);
    for (uint32_t pageidx = 1; pageidx <= 20; pageidx++) {
        struct store_page found;
        uint8_t page[512];
        expect_ok(store_read(pin, pageidx, page, sizeof page, &found, &err));
    }
    *ret_read = work_end(context);
    store_pin_release(pin);
    rocksdb_perfcontext_destroy(context);
}

static void expect_no_more(const struct work *few, const struct work *many, const char *what)
{
    // More files and a deeper memtable to seek in cost some comparisons; a walk through history would cost 1,000 a page.
    cr_assert_leq(many->compared, 10 * few->compared + 200,
                  "%s: %lu keys compared after 20 commits, %lu after 20,000", what, few->compared,
                  many->compared);
    cr_assert_leq(many->skipped, few->skipped + 100,
                  "%s: %lu keys skipped after 20 commits, %lu after 20,000", what, few->skipped,
                  many->skipped);
}

Test(store_gc, work_does_not_grow_with_the_number_of_commits)
{
    struct gid vid = fixture_vid(1);
    struct store_remote head = fixture_remote(1, 20);
    struct store_volume *volume;
    expect_ok(store_volume_clone(fixture.store, &vid, 512, GRAFT_FIXED, &head, &volume, &err));
    uint64_t remote_lsn = 1;
    struct work few[3], many[3];
    for (uint32_t tag = 1; tag <= 20; tag++)
        fixture_commit(volume, 1 + tag % 20, 1, tag);
    measure(volume, &remote_lsn, &few[0], &few[1], &few[2]);
    for (uint32_t tag = 21; tag <= 20000; tag++)
        fixture_commit(volume, 1 + tag % 20, 1, tag);
    measure(volume, &remote_lsn, &many[0], &many[1], &many[2]);
    expect_no_more(&few[0], &many[0], "a commit");
    expect_no_more(&few[1], &many[1], "a pull");
    expect_no_more(&few[2], &many[2], "reads");
    store_volume_close(volume);
}
