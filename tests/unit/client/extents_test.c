// SPDX-License-Identifier: Apache-2.0
//
// Extents: their states, what is read and written, growth and removal, open files, and failures of the disk.
#include "client/extents.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/random.h"
#include "tests/unit/client/store_fixture.h"

// What the disk is told to do; the tests of failures have one thread.
static struct {
    size_t room;     // bytes that may still be written; beyond it NO_SPACE, after as much as fits
    size_t step_max; // of one call
    int sync_error;
    _Atomic unsigned syncs;
} disk;

static ssize_t disk_pwritev(int fd, const struct iovec *from, int count, off_t offset)
{
    static _Thread_local uint8_t block[EXTENT_SIZE];
    size_t size = 0;
    for (int i = 0; i < count && size < sizeof block; i++) {
        size_t step = MIN(from[i].iov_len, sizeof block - size);
        memcpy(block + size, from[i].iov_base, step);
        size += step;
    }
    size = MIN(size, disk.step_max);
    size = MIN(size, disk.room);
    if (size == 0) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t written = pwrite(fd, block, size, offset);
    if (written > 0 && disk.room != SIZE_MAX)
        disk.room -= (size_t)written;
    return written;
}

static int disk_fdatasync(int fd)
{
    disk.syncs++;
    if (disk.sync_error != 0) {
        errno = disk.sync_error;
        return -1;
    }
    return 0;
}

static void disk_reset(void)
{
    disk.room = SIZE_MAX;
    disk.step_max = SIZE_MAX;
    disk.sync_error = 0;
    disk.syncs = 0;
}

static char folder[64];

static void setup(void)
{
    strcpy(folder, "/tmp/graft-extents-XXXXXX");
    cr_assert(mkdtemp(folder));
    disk_reset();
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(extents, .init = setup, .fini = teardown);

static struct extents *open_as(bool durable, unsigned open_files_max)
{
    struct extents_settings settings = {.directory = folder,
                                        .durable = durable,
                                        .open_files_max = open_files_max,
                                        .pwritev = disk_pwritev,
                                        .fdatasync = disk_fdatasync};
    struct extents *extents = NULL;
    expect_ok(extents_open(&settings, &extents, &err));
    return extents;
}

static struct extents *open_started(void)
{
    struct extents *extents = open_as(true, 4);
    extents_start(extents);
    return extents;
}

static enum extent_state state_of(struct extents *extents, uint32_t extent)
{
    uint64_t live;
    return extents_state(extents, extent, &live);
}

static void change(struct extents *extents, uint32_t extent, int64_t bytes)
{
    struct extent_changes changes = {0};
    extent_changes_add(&changes, place_make(extent, 0), bytes);
    extents_apply(extents, &changes);
    extent_changes_release(&changes);
}

static void write_word(struct extents *extents, uint64_t place, uint64_t word)
{
    struct iovec from = {&word, sizeof word};
    expect_ok(extents_write(extents, place, &from, 1, &err));
}

static uint64_t read_word(struct extents *extents, uint64_t place)
{
    uint64_t word = 0;
    expect_ok(extents_read(extents, place, &word, sizeof word, &err));
    return word;
}

static off_t size_of_file(const char *name)
{
    char path[128];
    struct stat file;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return stat(path, &file) == 0 ? file.st_size : -1;
}

static void resize_file(const char *name, off_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, size) == 0);
    close(fd);
}

Test(extents, live_through_their_states)
{
    struct extents *extents = open_started();
    cr_assert_eq(extents_take(extents, EXTENT_NONE), EXTENT_NONE);
    expect_ok(extents_grow(extents, 3, &err));
    cr_assert_eq(state_of(extents, 0), EXTENT_FREE);
    cr_assert_eq(state_of(extents, 3), EXTENT_ABSENT);
    cr_assert_eq(extents_take(extents, EXTENT_NONE), 0);
    cr_assert_eq(extents_take(extents, 1), 2, "the one behind");
    cr_assert_eq(extents_take(extents, 2), 1, "the lowest");
    cr_assert_eq(extents_take(extents, EXTENT_NONE), EXTENT_NONE);
    extents_give_back(extents, 1);

    change(extents, 0, 4096);
    extents_seal(extents, 0);
    cr_assert_eq(state_of(extents, 0), EXTENT_SEALED);
    uint64_t early = extents_settle_begin(extents);
    change(extents, 0, -4096);
    extents_seal(extents, 2);
    cr_assert_eq(state_of(extents, 0), EXTENT_EMPTY);
    cr_assert_eq(state_of(extents, 2), EXTENT_EMPTY, "nothing was ever live in it");
    extents_settle_end(extents, early);
    cr_assert_eq(state_of(extents, 0), EXTENT_EMPTY, "it became empty after that settling had begun");
    extents_settle_end(extents, extents_settle_begin(extents));
    cr_assert_eq(state_of(extents, 0), EXTENT_FREE);

    struct extents_usage usage;
    extents_usage(extents, &usage);
    cr_assert(usage.extents == 3 && usage.free == 3 && usage.empty == 0 && usage.live == 0);
    extents_close(extents);
}

Test(extents, changes_are_collected_by_extent)
{
    struct extent_changes changes = {0};
    static const uint32_t order[] = {5, 7, 5, 2, 9, 7, 2, 1};
    for (size_t i = 0; i < ARRAY_COUNT(order); i++)
        extent_changes_add(&changes, place_make(order[i], 77), i % 2 ? -10 : 100);
    cr_assert_eq(changes.count, 5);
    static const struct extent_change expected[] = {{1, -10}, {2, 90}, {5, 200}, {7, -20}, {9, 100}};
    for (size_t i = 0; i < changes.count; i++)
        cr_assert(changes.items[i].extent == expected[i].extent &&
                  changes.items[i].bytes == expected[i].bytes);
    extent_changes_release(&changes);
}

Test(extents, keep_bytes_and_live_counts_over_openings)
{
    struct extents *extents = open_started();
    expect_ok(extents_grow(extents, EXTENTS_PER_FILE + 2, &err));
    cr_assert_eq(size_of_file("00000000"), 64ll << 20);
    cr_assert_eq(size_of_file("00000001"), 2ll << 20);
    write_word(extents, place_make(1, 8), 11);
    write_word(extents, place_make(EXTENTS_PER_FILE + 1, 16), 22);
    expect_ok(extents_sync(extents, &err));
    extents_close(extents);

    extents = open_as(true, 4);
    cr_assert_eq(extents_end(extents), EXTENTS_PER_FILE + 2);
    expect_ok(extents_set_live(extents, 1, 8, &err));
    expect_ok(extents_set_live(extents, 4000, 0, &err));
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, extents_set_live(extents, 4000, 1, &err));
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                 extents_set_live(extents, 1, EXTENT_SIZE + 1, &err));
    change(extents, 2, 10); // as a replay does: there, and gone, and there again
    change(extents, 2, -10);
    change(extents, 2, 20);
    change(extents, 3, 10);
    change(extents, 3, -10);
    extents_start(extents);
    cr_assert_eq(state_of(extents, 1), EXTENT_SEALED);
    cr_assert_eq(state_of(extents, 2), EXTENT_SEALED);
    cr_assert_eq(state_of(extents, 3), EXTENT_FREE);
    cr_assert_eq(read_word(extents, place_make(1, 8)), 11);
    cr_assert_eq(read_word(extents, place_make(EXTENTS_PER_FILE + 1, 16)), 22);
    extents_close(extents);
}

Test(extents, are_removed_from_the_end)
{
    struct extents *extents = open_started();
    expect_ok(extents_grow(extents, 3 * EXTENTS_PER_FILE, &err));
    uint32_t kept = extents_take(extents, EXTENTS_PER_FILE);
    cr_assert_eq(kept, 0, "a file before it has free ones");
    while (kept < EXTENTS_PER_FILE)
        kept = extents_take(extents, kept);
    uint64_t gone = place_make(2 * EXTENTS_PER_FILE + 1, 0);
    write_word(extents, gone, 1);
    expect_ok(extents_shrink(extents, 3 * EXTENTS_PER_FILE, &err));
    cr_assert_eq(extents_end(extents), 3 * EXTENTS_PER_FILE, "as many are to be kept free");
    expect_ok(extents_shrink(extents, 0, &err));
    cr_assert_eq(extents_end(extents), 2 * EXTENTS_PER_FILE, "extent %u is in use", kept);
    cr_assert_eq(size_of_file("00000002"), -1);
    uint64_t word;
    struct graft_error failure;
    cr_assert_eq(extents_read(extents, gone, &word, sizeof word, &failure), GRAFT_CORRUPT);
    cr_assert(strstr(failure.message, "00000002 at 1048576"), "%s", failure.message);
    expect_ok(extents_sync(extents, &err));
    expect_ok(extents_grow(extents, 1, &err));
    cr_assert_eq(read_word(extents, gone - EXTENT_SIZE), 0);
    extents_close(extents);
}

Test(extents, files_of_others_are_refused)
{
    static const char *const names[] = {"0000000", "0000000g", "00000001.new", "ffffffff", "00010000"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        resize_file(names[i], 0);
        struct extents_settings settings = {.directory = folder, .durable = true, .open_files_max = 4};
        struct extents *extents;
        expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, extents_open(&settings, &extents, &err));
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        cr_assert_eq(unlink(path), 0);
    }
    struct extents_settings settings = {.directory = folder, .durable = true, .open_files_max = 4};
    struct extents *extents;
    resize_file("00000000", (64 << 20) + 1);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, extents_open(&settings, &extents, &err));
    resize_file("00000000", (64 << 20) - 1);
    resize_file("00000001", 1 << 20);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, extents_open(&settings, &extents, &err));
    resize_file("00000000", 64 << 20);
    resize_file("00000001", (3 << 20) - 1);
    extents = open_started();
    cr_assert_eq(extents_end(extents), EXTENTS_PER_FILE + 2, "what a crash kept from growing whole");
    expect_ok(extents_grow(extents, 1, &err));
    cr_assert_eq(size_of_file("00000001"), 3 << 20);
    extents_close(extents);
}

Test(extents, a_cache_is_made_again_where_a_crash_cut_it)
{
    resize_file("00000000", 3 << 20);
    resize_file("00000001", 1 << 20);
    struct extents *extents = open_as(false, 4);
    expect_ok(extents_set_live(extents, 2 * EXTENTS_PER_FILE + 1, 4096, &err));
    expect_ok(extents_set_live(extents, 10, 4096, &err));
    extents_start(extents);
    cr_assert_eq(extents_end(extents), 2 * EXTENTS_PER_FILE + 2);
    change(extents, 10, -4096);
    cr_assert_eq(state_of(extents, 10), EXTENT_FREE, "a cache waits for no settling");
    cr_assert_eq(read_word(extents, place_make(2 * EXTENTS_PER_FILE + 1, 0)), 0);
    expect_ok(extents_grow(extents, 1, &err));
    cr_assert_eq(disk.syncs, 0);
    extents_close(extents);
}

Test(extents, go_on_after_a_full_disk)
{
    struct extents *extents = open_started();
    expect_ok(extents_grow(extents, 1, &err));
    disk.room = 10 << 10;
    disk.step_max = 4096;
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, extents_grow(extents, 1, &err));
    cr_assert_eq(size_of_file("00000000"), 1 << 20);
    disk.room = 0;
    uint64_t word = 5;
    struct iovec from = {&word, sizeof word};
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, extents_write(extents, 0, &from, 1, &err));
    disk.room = SIZE_MAX;
    disk.step_max = 3; // short writes are continued
    write_word(extents, 0, 0x1234567890abcdef);
    cr_assert_eq(read_word(extents, 0), 0x1234567890abcdef);
    disk.step_max = SIZE_MAX;
    expect_ok(extents_grow(extents, EXTENTS_PER_FILE - 1, &err));
    disk.room = 10 << 10;
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, extents_grow(extents, 1, &err));
    cr_assert_eq(size_of_file("00000001"), -1);
    disk.room = SIZE_MAX;
    expect_ok(extents_grow(extents, 1, &err));
    expect_ok(extents_sync(extents, &err));
    extents_close(extents);
}

Test(extents, fail_for_good_after_a_failed_sync)
{
    struct extents *extents = open_started();
    expect_ok(extents_grow(extents, 1, &err));
    unsigned syncs = disk.syncs;
    expect_ok(extents_sync(extents, &err));
    cr_assert_eq(disk.syncs, syncs, "nothing was written");
    write_word(extents, 0, 1);
    disk.sync_error = EIO;
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, extents_sync(extents, &err));
    disk.sync_error = 0;
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, extents_sync(extents, &err));
    cr_assert_eq(read_word(extents, 0), 1, "reads go on");
    extents_close(extents);
}

// Eight threads read and write 6 files through 2 descriptors, while one syncs.
#define THREAD_FILES 6

struct thread {
    struct extents *extents;
    unsigned number;
    pthread_t handle;
};

static unsigned open_files_of(const char *under)
{
    unsigned count = 0;
    for (int fd = 0; fd < 256; fd++) {
        char link[32], target[256];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t size = readlink(link, target, sizeof target - 1);
        if (size > 0 && strncmp(target, under, strlen(under)) == 0)
            count++;
    }
    return count;
}

static void *read_and_write(void *argument)
{
    struct thread *thread = argument;
    struct rng rng;
    rng_seed(&rng, thread->number);
    for (unsigned i = 0; i < 400; i++) {
        uint64_t place =
            place_make((uint32_t)rng_below(&rng, THREAD_FILES) * EXTENTS_PER_FILE, thread->number * 8);
        write_word(thread->extents, place, i);
        cr_assert_eq(read_word(thread->extents, place), i);
        if (i % 16 == 0)
            expect_ok(extents_sync(thread->extents, &err));
        cr_assert_leq(open_files_of(folder), 2);
    }
    return NULL;
}

Test(extents, keep_few_files_open)
{
    for (unsigned i = 0; i < THREAD_FILES; i++) {
        char name[16];
        snprintf(name, sizeof name, "%08x", i);
        resize_file(name, 64 << 20);
    }
    struct extents *extents = open_as(true, 2);
    extents_start(extents);
    struct thread threads[8];
    for (unsigned i = 0; i < ARRAY_COUNT(threads); i++) {
        threads[i] = (struct thread){extents, i, 0};
        cr_assert_eq(pthread_create(&threads[i].handle, NULL, read_and_write, &threads[i]), 0);
    }
    for (unsigned i = 0; i < ARRAY_COUNT(threads); i++)
        pthread_join(threads[i].handle, NULL);
    cr_assert_gt(disk.syncs, 0);
    extents_close(extents);
}
