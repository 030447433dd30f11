// SPDX-License-Identifier: Apache-2.0
//
// The local store's promises, one by one.
#include <criterion/criterion.h>
#include <stdlib.h>

#include "common/base/clock.h"

#include "tests/unit/client/store_fixture.h"

static struct store_fixture fixture;

static void begin(void)
{
    memset(&fixture, 0, sizeof fixture);
    fixture_begin(&fixture);
}

static void end(void)
{
    fixture_end(&fixture);
}

TestSuite(store, .init = begin, .fini = end);

static struct store_pin *pin_head(struct store_volume *volume)
{
    struct store_pin *pin;
    expect_ok(store_pin_open(volume, &pin, &err));
    return pin;
}

static struct store_volume *clone(unsigned number, uint64_t lsn, uint32_t page_count)
{
    struct gid vid = fixture_vid(number);
    struct store_remote head = fixture_remote(lsn, page_count);
    struct store_volume *volume;
    expect_ok(store_volume_clone(fixture.store, &vid, 512, GRAFT_FIXED, &head, &volume, &err));
    return volume;
}

static void arrive(struct store_volume *volume, uint32_t pageidx, uint64_t mark_lsn, uint32_t tag)
{
    struct store_arrivals *arrivals;
    uint8_t page[512];
    fixture_fill(page, sizeof page, pageidx, tag);
    expect_ok(store_arrivals_new(volume, &arrivals, &err));
    expect_ok(store_arrivals_add(arrivals, pageidx, mark_lsn, page, sizeof page, &err));
    expect_ok(store_arrivals_flush(arrivals, &err));
    store_arrivals_free(arrivals);
}

static struct store_page read_page(struct store_pin *pin, uint32_t pageidx)
{
    uint8_t page[PAGE_SIZE_MAX];
    struct store_page found;
    expect_ok(store_read(pin, pageidx, page, sizeof page, &found, &err));
    return found;
}

Test(store, keeps_a_commit_across_reopening)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 4096);
    cr_assert_eq(fixture_commit(volume, 1, 3, 7), 1);
    store_volume_close(volume);
    struct gid cid = *store_cid(fixture.store);
    fixture_close(&fixture);
    fixture_open(&fixture);
    cr_assert(gid_equal(&cid, store_cid(fixture.store)));
    struct gid vid = fixture_vid(1);
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
    struct store_pin *pin = pin_head(volume);
    cr_assert_eq(store_pin_page_count(pin), 3);
    for (uint32_t page = 1; page <= 3; page++)
        expect_page(pin, page, 7);
    expect_state(pin, 4, STORE_PAGE_EMPTY);
    store_pin_release(pin);
    store_volume_close(volume);
}

Test(store, shows_a_pinned_snapshot_unchanged)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 2, 1);
    struct store_pin *old = pin_head(volume);
    fixture_commit(volume, 2, 2, 2);
    struct store_pin *new = pin_head(volume);
    expect_page(old, 1, 1);
    expect_page(old, 2, 1);
    expect_state(old, 3, STORE_PAGE_EMPTY);
    expect_page(new, 1, 1);
    expect_page(new, 2, 2);
    expect_page(new, 3, 2);
    store_pin_release(old);
    store_pin_release(new);
    store_volume_close(volume);
}

Test(store, refuses_a_commit_on_an_old_head)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    struct store_writer *late;
    expect_ok(store_writer_begin(volume, &late, &err));
    fixture_commit(volume, 1, 1, 1);
    uint8_t page[512] = {0};
    expect_ok(store_writer_write(late, 1, page, sizeof page, &err));
    expect_error(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, store_writer_commit(late, NULL, &err));
    struct store_pin *pin = pin_head(volume);
    expect_page(pin, 1, 1);
    store_pin_release(pin);
    store_volume_close(volume);
}

Test(store, clones_lazily_and_keeps_what_arrives)
{
    struct store_volume *volume = clone(1, 5, 10);
    struct store_pin *pin = pin_head(volume);
    struct store_page page = read_page(pin, 3);
    cr_assert_eq(page.state, STORE_PAGE_PENDING);
    cr_assert_eq(page.ask.lsn, 5);
    cr_assert_eq(page.ask.chain.bytes[7], 5);
    arrive(volume, 3, page.mark_lsn, 9);
    expect_page(pin, 3, 9);
    expect_state(pin, 11, STORE_PAGE_EMPTY);
    struct store_counts counts;
    expect_ok(store_volume_counts(volume, &counts, &err));
    cr_assert_eq(counts.available, 1);
    cr_assert_eq(counts.pending, 9);
    store_pin_release(pin);
    store_volume_close(volume);
}

Test(store, asks_at_the_newest_commit_that_holds_a_page)
{
    struct store_volume *volume = clone(1, 5, 10);
    struct store_pin *old = pin_head(volume);
    _cleanup_(pageset_free_p) struct pageset *changed = pageset_new();
    pageset_add(changed, 3);
    struct store_pull pull = {.after_lsn = 5, .head = fixture_remote(8, 10), .changed = changed, .cut = 10};
    expect_ok(store_apply_pull(volume, &pull, &err));
    struct store_pin *new = pin_head(volume);
    cr_assert_eq(read_page(old, 3).ask.lsn, 5);
    cr_assert_eq(read_page(old, 4).ask.lsn, 8);
    cr_assert_eq(read_page(new, 3).ask.lsn, 8);
    cr_assert_neq(read_page(old, 3).mark_lsn, read_page(new, 3).mark_lsn);
    cr_assert_eq(read_page(old, 4).mark_lsn, read_page(new, 4).mark_lsn);
    store_pin_release(old);
    store_pin_release(new);
    store_volume_close(volume);
}

// ---- volumes

static bool count_vid(void *context, const struct gid *vid)
{
    unsigned *count = context;
    struct gid expected = fixture_vid(++*count);
    cr_assert(gid_equal(vid, &expected));
    return *count < 4;
}

Test(store, lists_volumes_in_order_until_told_to_stop)
{
    for (unsigned number = 6; number > 0; number--)
        store_volume_close(fixture_create(&fixture, number, 512));
    unsigned count = 0;
    expect_ok(store_volume_list(fixture.store, count_vid, &count, &err));
    cr_assert_eq(count, 4);
}

Test(store, refuses_a_second_volume_of_the_same_vid_and_bad_arguments)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512), *again;
    struct gid vid = fixture_vid(1), other = fixture_vid(2);
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_EXISTS,
                 store_volume_create(fixture.store, &vid, 512, GRAFT_FIXED, &again, &err));
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                 store_volume_create(fixture.store, &other, 1000, GRAFT_FIXED, &again, &err));
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                 store_volume_create(fixture.store, &other, 512, (enum graft_volume_kind)0, &again, &err));
    expect_error(GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME,
                 store_volume_open(fixture.store, &other, &again, &err));
    store_volume_close(volume);
}

Test(store, forgets_a_deleted_volume_and_what_was_fetched_for_it)
{
    struct store_volume *volume = clone(1, 5, 10);
    struct gid vid = fixture_vid(1);
    arrive(volume, 3, 1, 9);
    expect_error(GRAFT_BUSY, GRAFT_DETAIL_NONE, store_volume_delete(fixture.store, &vid, &err));
    store_volume_close(volume);
    expect_ok(store_volume_delete(fixture.store, &vid, &err));
    expect_error(GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME,
                 store_volume_open(fixture.store, &vid, &volume, &err));
    expect_status(GRAFT_NOT_FOUND, store_volume_delete(fixture.store, &vid, &err));
    // Cloned again, its marks have the same LSNs, and must not find the old bytes.
    volume = clone(1, 6, 10);
    struct store_pin *pin = pin_head(volume);
    expect_state(pin, 3, STORE_PAGE_PENDING);
    store_pin_release(pin);
    store_volume_close(volume);
}

Test(store, takes_pages_of_the_right_size_only)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    struct store_writer *writer;
    uint8_t page[1024] = {0};
    expect_ok(store_writer_begin(volume, &writer, &err));
    expect_error(GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, store_writer_write(writer, 1, page, 511, &err));
    expect_error(GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, store_writer_write(writer, 1, page, 513, &err));
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, store_writer_write(writer, 0, page, 512, &err));
    store_writer_abort(writer);
    struct store_pin *pin = pin_head(volume);
    struct store_page found;
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, store_read(pin, 0, page, 1024, &found, &err));
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, store_read(pin, 1, page, 511, &found, &err));
    store_pin_release(pin);
    store_volume_close(volume);
}

Test(store, keeps_short_and_empty_pages_of_a_variable_volume)
{
    struct gid vid = fixture_vid(1);
    struct store_volume *volume;
    expect_ok(store_volume_create(fixture.store, &vid, 4096, GRAFT_VARIABLE, &volume, &err));
    struct store_writer *writer;
    expect_ok(store_writer_begin(volume, &writer, &err));
    uint8_t page[4096];
    memset(page, 'x', sizeof page);
    expect_ok(store_writer_write(writer, 1, page, 4096, &err));
    expect_ok(store_writer_write(writer, 2, page, 0, &err));
    expect_ok(store_writer_write(writer, 3, page, 7, &err));
    expect_ok(store_writer_write(writer, 3, page, 9, &err));
    expect_ok(store_writer_commit(writer, NULL, &err));
    struct store_pin *pin = pin_head(volume);
    cr_assert_eq(read_page(pin, 1).size, 4096);
    cr_assert_eq(read_page(pin, 2).state, STORE_PAGE_AVAILABLE);
    cr_assert_eq(read_page(pin, 2).size, 0);
    cr_assert_eq(read_page(pin, 3).size, 9);
    store_pin_release(pin);
    store_volume_close(volume);
}

Test(store, keeps_a_volumes_status_and_what_it_heard_of)
{
    struct store_volume *volume = clone(1, 5, 10);
    struct graft_error why = {GRAFT_GONE, GRAFT_DETAIL_RETIRED, "the base was retired"};
    expect_ok(store_set_status(volume, GRAFT_VOLUME_GONE, &why, &err));
    expect_ok(store_note_remote(volume, 9, &err));
    expect_ok(store_note_remote(volume, 7, &err));
    store_volume_close(volume);
    fixture_close(&fixture);
    fixture_open(&fixture);
    struct gid vid = fixture_vid(1);
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
    struct store_state state;
    store_volume_state(volume, &state);
    cr_assert_eq(state.status, GRAFT_VOLUME_GONE);
    cr_assert_str_eq(state.status_error.message, "the base was retired");
    cr_assert_eq(state.status_error.detail, GRAFT_DETAIL_RETIRED);
    cr_assert_eq(state.remote_seen_lsn, 9);
    store_volume_close(volume);
}

static bool count_any(void *context, const struct gid *vid)
{
    ++*(unsigned *)context;
    return true;
}

Test(store, opens_at_once_with_ten_thousand_volumes)
{
    fixture_end(&fixture);
    setenv("TMPDIR", "/dev/shm", 1); // syncs for nothing
    memset(&fixture, 0, sizeof fixture);
    fixture_begin(&fixture);
    for (unsigned number = 1; number <= 10000; number++)
        store_volume_close(fixture_create(&fixture, number, 512));
    fixture_close(&fixture);
    uint64_t start_ms = clock_monotonic_ms(clock_system());
    fixture_open(&fixture);
    struct gid vid = fixture_vid(9999);
    struct store_volume *volume;
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
    cr_assert_lt(clock_monotonic_ms(clock_system()) - start_ms, 3000);
    unsigned count = 0;
    expect_ok(store_volume_list(fixture.store, count_any, &count, &err));
    cr_assert_eq(count, 10000);
    store_volume_close(volume);
}

// ---- large commits

Test(store, publishes_a_staged_commit_whole)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 65536);
    fixture_commit(volume, 1, 200, 1);
    struct store_pin *old = pin_head(volume);
    struct store_writer *writer;
    expect_ok(store_writer_begin(volume, &writer, &err));
    uint8_t page[65536];
    for (uint32_t pageidx = 1; pageidx <= 200; pageidx++) {
        fixture_fill(page, sizeof page, pageidx, 2);
        expect_ok(store_writer_write(writer, pageidx, page, sizeof page, &err));
    }
    struct store_pin *meanwhile = pin_head(volume);
    cr_assert_eq(store_pin_lsn(meanwhile), 1);
    expect_page(meanwhile, 10, 1);
    expect_ok(store_writer_commit(writer, NULL, &err));
    struct store_pin *new = pin_head(volume);
    for (uint32_t pageidx = 1; pageidx <= 200; pageidx += 13) {
        expect_page(old, pageidx, 1);
        expect_page(meanwhile, pageidx, 1);
        expect_page(new, pageidx, 2);
    }
    store_pin_release(old);
    store_pin_release(meanwhile);
    store_pin_release(new);
    store_volume_close(volume);
}

static enum graft_status write_many(struct store_writer *writer, uint32_t first, uint32_t count, uint32_t tag,
                                    struct graft_error *err)
{
    uint8_t page[512];
    for (uint32_t i = 0; i < count; i++) {
        fixture_fill(page, sizeof page, first + i, tag);
        enum graft_status status = store_writer_write(writer, first + i, page, sizeof page, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

Test(store, lets_one_writer_of_a_volume_stage)
{
    fixture_close(&fixture);
    fixture.settings.writer_memory_size = 4096;
    fixture_open(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    struct store_writer *first, *second;
    expect_ok(store_writer_begin(volume, &first, &err));
    expect_ok(store_writer_begin(volume, &second, &err));
    expect_ok(write_many(first, 1, 20, 1, &err));
    expect_error(GRAFT_BUSY, GRAFT_DETAIL_NONE, write_many(second, 1, 20, 2, &err));
    // What the second wrote before still stands, and once the first is gone it may stage.
    store_writer_abort(first);
    expect_ok(write_many(second, 1, 20, 2, &err));
    expect_ok(store_writer_commit(second, NULL, &err));
    struct store_pin *pin = pin_head(volume);
    for (uint32_t pageidx = 1; pageidx <= 20; pageidx++)
        expect_page(pin, pageidx, 2);
    store_pin_release(pin);
    store_volume_close(volume);
}

Test(store, forgets_what_a_writer_staged_and_cut_off_again)
{
    fixture_close(&fixture);
    fixture.settings.writer_memory_size = 4096;
    fixture_open(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    struct store_writer *writer;
    uint64_t lsn = 7;
    expect_ok(store_writer_begin(volume, &writer, &err));
    expect_ok(write_many(writer, 1, 20, 1, &err));
    expect_ok(store_writer_truncate(writer, 0, &err));
    expect_ok(store_writer_commit(writer, &lsn, &err));
    cr_assert_eq(lsn, 0, "nothing changed, so nothing was committed");

    // The next commit has the LSN that those pages were staged at; and others may stage.
    fixture_commit(volume, 2, 1, 2);
    struct token token = {.bytes = {1}};
    struct store_push push;
    _cleanup_(pageset_free_p) struct pageset *pages = NULL;
    expect_ok(store_push_begin(volume, &token, &push, &err));
    expect_ok(store_push_pages(volume, &pages, &err));
    cr_assert_eq(pageset_count(pages), 1);
    cr_assert(pageset_contains(pages, 2));
    expect_ok(store_writer_begin(volume, &writer, &err));
    expect_ok(write_many(writer, 1, 20, 3, &err));
    expect_ok(store_writer_commit(writer, NULL, &err));
    store_volume_close(volume);
}

Test(store, lets_a_pull_overtake_a_writer_that_staged)
{
    fixture_close(&fixture);
    fixture.settings.writer_memory_size = 4096;
    fixture_open(&fixture);
    struct store_volume *volume = clone(1, 5, 40);
    struct store_writer *writer;
    expect_ok(store_writer_begin(volume, &writer, &err));
    expect_ok(write_many(writer, 1, 20, 1, &err));
    _cleanup_(pageset_free_p) struct pageset *changed = pageset_new();
    pageset_add_run(changed, 2, 3);
    struct store_pull pull = {.after_lsn = 5, .head = fixture_remote(6, 40), .changed = changed, .cut = 40};
    expect_ok(store_apply_pull(volume, &pull, &err));
    struct store_page found;
    uint8_t page[512];
    expect_error(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD,
                 store_writer_read(writer, 2, page, sizeof page, &found, &err));
    expect_error(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, store_writer_commit(writer, NULL, &err));
    struct store_pin *pin = pin_head(volume);
    cr_assert_eq(read_page(pin, 1).ask.lsn, 6);
    cr_assert_eq(read_page(pin, 1).mark_lsn, 1);
    cr_assert_eq(read_page(pin, 2).mark_lsn, 2);
    store_pin_release(pin);
    store_volume_close(volume);
}

// ---- pulls

Test(store, refuses_a_pull_whose_conditions_have_gone)
{
    struct store_volume *volume = clone(1, 5, 10);
    struct store_pull pull = {.after_lsn = 4, .head = fixture_remote(8, 10), .cut = 10};
    expect_error(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, store_apply_pull(volume, &pull, &err));
    struct store_state state;
    store_volume_state(volume, &state);
    cr_assert_eq(state.remote_seen_lsn, 8);
    cr_assert_eq(state.remote.lsn, 5);
    pull.after_lsn = 5;
    pull.head = fixture_remote(5, 10);
    pull.head.chain.bytes[0] = 1;
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH, store_apply_pull(volume, &pull, &err));
    pull.head = fixture_remote(4, 10);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH, store_apply_pull(volume, &pull, &err));
    fixture_commit(volume, 1, 1, 1);
    pull.head = fixture_remote(9, 10);
    expect_error(GRAFT_CONFLICT, GRAFT_DETAIL_UNPUSHED, store_apply_pull(volume, &pull, &err));
    struct token token = {.bytes = {1}};
    struct store_push push;
    expect_ok(store_push_begin(volume, &token, &push, &err));
    expect_error(GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING, store_apply_reset(volume, &pull, &err));
    expect_ok(store_push_abandon(volume, &err));
    expect_ok(store_apply_reset(volume, &pull, &err));
    store_volume_state(volume, &state);
    cr_assert_eq(state.remote.lsn, 9);
    cr_assert_eq(state.mapped_lsn, state.local_lsn);
    store_volume_close(volume);
}

Test(store, takes_over_a_history_that_was_retired)
{
    struct store_volume *volume = clone(1, 5, 10);
    arrive(volume, 3, 1, 9);
    struct store_pin *old = pin_head(volume);
    struct store_pull pull = {.after_lsn = 5, .head = fixture_remote(900, 12), .everything = true};
    expect_ok(store_apply_pull(volume, &pull, &err));
    struct store_pin *new = pin_head(volume);
    expect_page(old, 3, 9);
    cr_assert_eq(read_page(old, 4).ask.lsn, 5); // which is gone, and only the servers can say so
    for (uint32_t pageidx = 1; pageidx <= 12; pageidx++)
        cr_assert_eq(read_page(new, pageidx).ask.lsn, 900);
    arrive(volume, 3, read_page(new, 3).mark_lsn, 10);
    expect_page(new, 3, 10);
    expect_page(old, 3, 9);
    store_pin_release(old);
    store_pin_release(new);
    store_volume_close(volume);
}

Test(store, keeps_nothing_of_a_mark_that_has_gone)
{
    struct store_volume *volume = clone(1, 5, 10);
    struct store_arrivals *arrivals;
    uint8_t page[512];
    fixture_fill(page, sizeof page, 3, 1);
    expect_ok(store_arrivals_new(volume, &arrivals, &err));
    expect_ok(store_arrivals_add(arrivals, 3, 1, page, sizeof page, &err));
    expect_ok(store_arrivals_add(arrivals, 4, 1, page, sizeof page, &err));
    fixture_commit(volume, 3, 1, 2); // while the chunk waits
    expect_ok(store_arrivals_flush(arrivals, &err));
    expect_ok(store_arrivals_add(arrivals, 3, 1, page, sizeof page, &err));
    expect_ok(store_arrivals_flush(arrivals, &err));
    store_arrivals_free(arrivals);
    struct store_counts counts;
    expect_ok(store_volume_counts(volume, &counts, &err));
    cr_assert_eq(counts.available, 2);
    cr_assert_eq(counts.pending, 8);
    struct store_pin *pin = pin_head(volume);
    expect_page(pin, 3, 2);
    store_pin_release(pin);
    store_volume_close(volume);
}

Test(store, names_missing_pages_of_a_huge_volume_quickly)
{
    struct store_volume *volume = clone(1, 5, 4000000000u);
    struct store_pin *pin = pin_head(volume);
    _cleanup_(pageset_free_p) struct pageset *all = pageset_new();
    pageset_add_run(all, 3999999990u, 20);
    struct store_page pages[32];
    size_t count;
    uint32_t cursor = 1;
    expect_ok(store_missing(pin, all, &cursor, pages, 32, &count, &err));
    cr_assert_eq(count, 11);
    cr_assert_eq(cursor, 0);
    cr_assert_eq(pages[10].pageidx, 4000000000u);
    store_pin_release(pin);
    store_volume_close(volume);
}

// ---- pushes

Test(store, remembers_a_push_across_reopening)
{
    struct store_volume *volume = clone(1, 5, 10);
    fixture_commit(volume, 1, 2, 1);
    fixture_commit(volume, 2, 2, 2);
    struct token token = {.bytes = {7}};
    struct store_push push;
    expect_ok(store_push_begin(volume, &token, &push, &err));
    fixture_commit(volume, 2, 1, 3); // belongs to the next push
    struct hash128 digest = {.bytes = {9}}, other = {.bytes = {8}};
    expect_ok(store_push_committing(volume, &digest, (struct bytes){(const uint8_t *)"request", 7}, &err));
    expect_ok(store_push_retreat(volume, &err));
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
                 store_push_committing(volume, &other, (struct bytes){(const uint8_t *)"other", 5}, &err));
    expect_error(GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING, store_push_abandon(volume, &err));
    expect_ok(store_push_committing(volume, &digest, (struct bytes){(const uint8_t *)"again", 5}, &err));
    store_volume_close(volume);
    fixture_close(&fixture);
    fixture_open(&fixture);
    struct gid vid = fixture_vid(1);
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
    struct store_state state;
    store_volume_state(volume, &state);
    cr_assert_eq(state.push.phase, STORE_PUSH_COMMITTING);
    cr_assert(token_equal(&state.push.token, &token));
    cr_assert(state.push.from_lsn == 1 && state.push.to_lsn == 3 && state.push.base.lsn == 5);
    _cleanup_(buffer_release) struct buffer request = BUFFER_INIT(100);
    expect_ok(store_push_request(volume, &request, &err));
    cr_assert(request.size == 5 && memcmp(request.data, "again", 5) == 0);
    struct store_pin *pin;
    expect_ok(store_pin_open_push(volume, &pin, &err));
    expect_page(pin, 1, 1);
    expect_page(pin, 2, 2);
    expect_page(pin, 3, 2);
    store_pin_release(pin);
    struct store_remote landed = fixture_remote(6, 10);
    expect_ok(store_push_settle(volume, &landed, &err));
    store_volume_state(volume, &state);
    cr_assert(state.push.phase == STORE_PUSH_IDLE && state.mapped_lsn == 3 && state.local_lsn == 4);
    expect_ok(store_push_begin(volume, &token, &push, &err));
    cr_assert(push.from_lsn == 3 && push.to_lsn == 4 && push.cut == 10);
    expect_ok(store_push_abandon(volume, &err));
    store_volume_close(volume);
}

Test(store, refuses_a_commit_request_beyond_its_limit)
{
    struct store_volume *volume = clone(1, 5, 10);
    fixture_commit(volume, 1, 2, 1);
    struct token token = {.bytes = {7}};
    struct store_push push;
    struct hash128 digest = {.bytes = {9}};
    expect_ok(store_push_begin(volume, &token, &push, &err));
    static uint8_t request[COMMIT_REQUEST_SIZE_MAX + 1];
    expect_error(GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                 store_push_committing(volume, &digest, (struct bytes){request, sizeof request}, &err));
    expect_ok(store_push_committing(volume, &digest, (struct bytes){request, sizeof request - 1}, &err));
    store_volume_close(volume);
}
