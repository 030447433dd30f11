// SPDX-License-Identifier: Apache-2.0
//
// Forks in the local store: whole or not at all, and what the origin keeps of one that was not finished.
#include <criterion/criterion.h>

#include "client/store_internal.h"
#include "tests/unit/client/store_fixture.h"

static struct store_fixture fixture;
static struct store_volume *volume;
static const struct store_remote nothing;

static void begin(void)
{
    fixture = (struct store_fixture){.settings = {.writer_memory_size = 16384}};
    fixture_begin(&fixture);
    volume = fixture_create(&fixture, 1, 4096);
}

static void end(void)
{
    store_volume_close(volume);
    fixture_end(&fixture);
}

TestSuite(store_fork, .init = begin, .fini = end);

static struct gid named(unsigned fresh)
{
    struct gid vid = fixture_vid(fresh), found;

    expect_ok(store_fork_begin(volume, &vid, &found, &err));
    return found;
}

static bool is_named(unsigned fresh, unsigned expected)
{
    struct gid found = named(fresh), vid = fixture_vid(expected);
    return gid_equal(&found, &vid);
}

static bool exists(const struct gid *vid)
{
    struct store_volume *found;
    if (store_volume_open(fixture.store, vid, &found, NULL) != GRAFT_OK)
        return false;
    store_volume_close(found);
    return true;
}

static void reopen(void)
{
    struct gid vid = fixture_vid(1);

    store_volume_close(volume);
    fixture_close(&fixture);
    fixture_open(&fixture);
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
}

static struct store_volume *fork_to(const struct gid *vid)
{
    struct store_volume *fork;

    expect_ok(store_fork_finish(volume, vid, &nothing, &fork, &err));
    return fork;
}

static void expect_pages(struct store_volume *of, uint32_t first, uint32_t count, uint32_t tag)
{
    struct store_pin *pin;

    expect_ok(store_pin_open(of, &pin, &err));
    for (uint32_t page = first; page < first + count; page++)
        expect_page(pin, page, tag);
    store_pin_release(pin);
}

Test(store_fork, has_the_same_name_until_it_is_finished)
{
    fixture_commit(volume, 1, 3, 1);
    cr_assert(is_named(2, 2));
    cr_assert(is_named(3, 2));
    reopen();
    cr_assert(is_named(4, 2));
    struct gid vid = fixture_vid(2);
    store_volume_close(fork_to(&vid));
    reopen();
    cr_assert(exists(&vid));
    cr_assert(is_named(5, 5), "a fork that is done gave its name again");
}

Test(store_fork, has_another_name_once_the_base_moved)
{
    struct token token = {.bytes = {1}};
    struct hash128 digest = {.bytes = {2}};
    struct store_remote landed = fixture_remote(1, 3);
    struct store_push push;

    fixture_commit(volume, 1, 3, 1);
    cr_assert(is_named(2, 2));
    expect_ok(store_push_begin(volume, &token, &push, &err));
    expect_ok(store_push_committing(volume, &digest, (struct bytes){(const uint8_t *)"r", 1}, &err));
    expect_ok(store_push_settle(volume, &landed, &err));
    cr_assert(is_named(3, 3));
}

Test(store_fork, is_the_origin_s_state_in_one_commit)
{
    // More than a writer keeps in memory, rewritten, cut and grown again.
    fixture_commit(volume, 1, 30, 1);
    fixture_commit(volume, 5, 2, 2);
    struct gid vid = named(2);
    struct store_volume *fork = fork_to(&vid);
    struct store_state state;
    store_volume_state(fork, &state);
    cr_assert_eq(state.local_lsn, 1);
    cr_assert_eq(state.mapped_lsn, 0);
    cr_assert_eq(state.page_count, 30);
    store_volume_close(fork);
    reopen();
    expect_ok(store_volume_open(fixture.store, &vid, &fork, &err));
    expect_pages(fork, 1, 4, 1);
    expect_pages(fork, 5, 2, 2);
    expect_pages(fork, 7, 24, 1);
    // They go separate ways.
    fixture_commit(fork, 1, 1, 8);
    fixture_commit(volume, 1, 1, 9);
    expect_pages(fork, 1, 1, 8);
    expect_pages(volume, 1, 1, 9);
    store_volume_close(fork);
}

Test(store_fork, of_a_volume_without_pages_is_one)
{
    struct gid vid = named(2);

    store_volume_close(fork_to(&vid));
    reopen();
    cr_assert(exists(&vid));
}

Test(store_fork, that_fails_midway_leaves_nothing)
{
    fixture_commit(volume, 1, 40, 1);
    struct gid vid = named(2);
    struct store_volume *fork;
    // The last page cannot be copied; the others were staged before.
    fixture_flip_page(&fixture, volume, 40, 1, 7);
    cr_assert_eq(store_fork_finish(volume, &vid, &nothing, &fork, NULL), GRAFT_CORRUPT);
    cr_assert(!exists(&vid));
    reopen();
    cr_assert(!exists(&vid));
    fixture_commit(volume, 40, 1, 1);
    cr_assert(is_named(3, 2));
    fork = fork_to(&vid);
    expect_pages(fork, 1, 40, 1);
    store_volume_close(fork);
}
