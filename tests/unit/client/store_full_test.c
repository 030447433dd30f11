// SPDX-License-Identifier: Apache-2.0
//
// A disk that is full for the database of the index: this program's own write() stands in front of the system's, also for
// RocksDB. Commits fail whole, reads go on, and once there is room so do commits, without anybody opening anything again.
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/store_internal.h"
#include "common/base/clock.h"
#include "tests/unit/client/store_fixture.h"

#define PAGE_SIZE 4096u
#define RECOVERY_MS 30000u // RocksDB looks for room every 5 s

static atomic_bool full;

static bool is_of_index(int fd)
{
    char link[64], path[256];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    path[size > 0 ? size : 0] = '\0';
    return strstr(path, "/local/") != NULL;
}

__attribute__((visibility("default"))) ssize_t write(int fd, const void *data, size_t size)
{
    ssize_t (*next)(int, const void *, size_t) =
        (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");

    if (!full || !is_of_index(fd))
        return next(fd, data, size);
    errno = ENOSPC;
    return -1;
}

static struct store_fixture fixture;
static struct store_volume *volume;

static void begin_with(enum graft_durability durability)
{
    full = false;
    fixture = (struct store_fixture){
        .settings = {.durability = durability, .writer_memory_size = 64 * KIB, .batch_entries = 8}};
    fixture_begin(&fixture);
    volume = fixture_create(&fixture, 1, PAGE_SIZE);
}

static void end(void)
{
    store_volume_close(volume);
    fixture_end(&fixture);
}

TestSuite(store_full, .fini = end, .timeout = 120);

static enum graft_status try_commit(uint32_t first, uint32_t count, uint32_t tag, struct graft_error *err)
{
    struct store_writer *writer;
    uint8_t page[PAGE_SIZE];
    enum graft_status status = store_writer_begin(volume, &writer, err);
    for (uint32_t pageidx = first; pageidx < first + count && status == GRAFT_OK; pageidx++) {
        fixture_fill(page, sizeof page, pageidx, tag);
        status = store_writer_write(writer, pageidx, page, sizeof page, err);
    }
    if (status == GRAFT_OK)
        return store_writer_commit(writer, NULL, err);
    store_writer_abort(writer);
    return status;
}

static void expect_pages(uint32_t count, uint32_t tag)
{
    struct store_pin *pin;
    expect_ok(store_pin_open(volume, &pin, &err));
    for (uint32_t pageidx = 1; pageidx <= count; pageidx++)
        expect_page(pin, pageidx, tag);
    store_pin_release(pin);
}

static void await_room(uint32_t count, uint32_t tag)
{
    uint64_t deadline_ms = clock_monotonic_ms(clock_system()) + RECOVERY_MS;
    struct graft_error said;
    while (try_commit(1, count, tag, &said) != GRAFT_OK) {
        cr_assert_eq(said.detail, GRAFT_DETAIL_NO_SPACE, "%s", said.message);
        cr_assert_lt(clock_monotonic_ms(clock_system()), deadline_ms, "%s", said.message);
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
}

static void reopen(void)
{
    struct gid vid = fixture_vid(1);
    store_volume_close(volume);
    fixture_close(&fixture);
    fixture_open(&fixture);
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
}

static uint64_t head(void)
{
    struct store_state state;
    store_volume_state(volume, &state);
    return state.local_lsn;
}

// `count` pages in a commit.
static void fill_and_make_room(uint32_t count)
{
    struct graft_error said;
    for (uint32_t tag = 1; tag <= 5; tag++)
        fixture_commit(volume, 1, count, tag);
    full = true;
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(try_commit(1, count, 100 + i, &said), GRAFT_INTERNAL);
        cr_assert_eq(said.detail, GRAFT_DETAIL_NO_SPACE, "%s", said.message);
        cr_assert_eq(head(), 5);
        expect_pages(count, 5);
    }
    full = false;
    await_room(count, 6);
    cr_assert_eq(head(), 6);
    expect_pages(count, 6);
    expect_exact_accounts(&fixture);
    reopen();
    cr_assert_eq(head(), 6);
    expect_pages(count, 6);
    expect_exact_accounts(&fixture);
    fixture_commit(volume, 1, count, 7);
    expect_pages(count, 7);
}

Test(store_full, a_commit_in_memory_fails_whole_and_the_next_lands)
{
    begin_with(GRAFT_DURABILITY_FULL);
    fill_and_make_room(2);
}

Test(store_full, a_staged_commit_fails_whole_and_the_next_lands)
{
    begin_with(GRAFT_DURABILITY_FULL);
    fill_and_make_room(60);
}

Test(store_full, what_was_staged_before_is_taken_back_later)
{
    struct store_writer *writer;
    struct graft_error said;
    uint8_t page[PAGE_SIZE] = {1};
    begin_with(GRAFT_DURABILITY_FULL);
    fixture_commit(volume, 1, 20, 1);
    expect_ok(store_writer_begin(volume, &writer, &err));
    for (uint32_t pageidx = 5; pageidx < 50; pageidx++)
        expect_ok(store_writer_write(writer, pageidx, page, sizeof page, &err));
    full = true;
    store_writer_abort(writer);
    cr_assert_eq(try_commit(1, 1, 2, &said), GRAFT_INTERNAL);
    full = false;
    await_room(1, 3);
    expect_pages(1, 3);
    struct store_pin *pin;
    expect_ok(store_pin_open(volume, &pin, &err));
    cr_assert_eq(store_pin_page_count(pin), 20);
    for (uint32_t pageidx = 2; pageidx <= 20; pageidx++)
        expect_page(pin, pageidx, 1);
    store_pin_release(pin);
    expect_exact_accounts(&fixture);
}
