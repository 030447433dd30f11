// SPDX-License-Identifier: Apache-2.0
//
// A disk that fails at each write in turn: this program's own write(), pwritev() and fdatasync() stand in front of the
// system's, also for RocksDB. A commit that met a failure is not there, a short write goes unnoticed, what is there reads as
// before, and the next commit lands; after a failed sync or a failed write of the index's log the store says so until it is
// opened again, and has the commit whole or not at all.
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client/store_internal.h"
#include "client/store_space.h"
#include "tests/unit/client/store_fixture.h"

#define PAGE_SIZE 4096u
#define STAGED_PAGES 60u // four times what a writer keeps in memory

enum fault {
    FAULT_FULL,
    FAULT_IO,
    FAULT_SHORT,
    FAULT_SYNC,
};

static struct {
    enum fault kind;
    const char *folder; // of the files concerned
    atomic_int left;    // calls until it happens; 0: it does not
    atomic_bool fired;
} plan;

// Whether it happens at this call.
static bool happens(int fd, bool sync)
{
    char link[64], path[256];
    if (plan.left == 0 || sync != (plan.kind == FAULT_SYNC))
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    path[size > 0 ? size : 0] = '\0';
    if (!strstr(path, plan.folder) || atomic_fetch_sub(&plan.left, 1) != 1)
        return false;
    plan.fired = true;
    errno = plan.kind == FAULT_FULL ? ENOSPC : EIO;
    return true;
}

__attribute__((visibility("default"))) ssize_t write(int fd, const void *data, size_t size)
{
    ssize_t (*next)(int, const void *, size_t) =
        (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (!happens(fd, false))
        return next(fd, data, size);
    return plan.kind == FAULT_SHORT ? next(fd, data, (size + 1) / 2) : -1;
}

// Fails after the first vector was written, a short one within the last.
static ssize_t write_vectors(int fd, const struct iovec *from, int count, off_t offset, const char *name)
{
    ssize_t (*next)(int, const struct iovec *, int, off_t) =
        (ssize_t(*)(int, const struct iovec *, int, off_t))dlsym(RTLD_NEXT, name);
    if (!happens(fd, false))
        return next(fd, from, count, offset);
    int reason = errno;
    if (plan.kind == FAULT_SHORT) {
        struct iovec part = {from[0].iov_base, (from[0].iov_len + 1) / 2};
        return count > 1 ? next(fd, from, count - 1, offset) : next(fd, &part, 1, offset);
    }
    cr_assert_gt(next(fd, from, count, offset),
                 0); // as if all of it, or some, had come to the disk all the same
    errno = reason;
    return -1;
}

__attribute__((visibility("default"))) ssize_t pwritev(int fd, const struct iovec *from, int count,
                                                       off_t offset)
{
    return write_vectors(fd, from, count, offset, "pwritev64"); // which is what the headers call it
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return happens(fd, true) ? -1 : next(fd);
}

static struct store_fixture fixture;
static struct store_volume *volume;
static uint32_t tag; // of the last commit that landed: pages 1 to STAGED_PAGES, or fewer, have it
static uint32_t tags[STAGED_PAGES + 1];

static void begin_with(enum graft_durability durability)
{
    plan.left = 0;
    fixture = (struct store_fixture){
        .settings = {.durability = durability, .writer_memory_size = 64 * KIB, .batch_entries = 8}};
    fixture_begin(&fixture);
    volume = fixture_create(&fixture, 1, PAGE_SIZE);
    fixture_commit(volume, 1, STAGED_PAGES, ++tag);
    for (uint32_t i = 1; i <= STAGED_PAGES; i++)
        tags[i] = tag;
}

static void end(void)
{
    store_volume_close(volume);
    fixture_end(&fixture);
}

TestSuite(store_faults, .fini = end, .timeout = 200);

static enum graft_status try_commit(uint32_t count, uint32_t new_tag, struct graft_error *err)
{
    struct store_writer *writer;
    uint8_t page[PAGE_SIZE];
    enum graft_status status = store_writer_begin(volume, &writer, err);
    if (status != GRAFT_OK)
        return status;
    for (uint32_t pageidx = 1; pageidx <= count && status == GRAFT_OK; pageidx++) {
        fixture_fill(page, sizeof page, pageidx, new_tag);
        status = store_writer_write(writer, pageidx, page, sizeof page, err);
    }
    if (status == GRAFT_OK)
        return store_writer_commit(writer, NULL, err);
    store_writer_abort(writer);
    return status;
}

static void expect_pages(void)
{
    struct store_pin *pin;
    expect_ok(store_pin_open(volume, &pin, &err));
    for (uint32_t pageidx = 1; pageidx <= STAGED_PAGES; pageidx++)
        expect_page(pin, pageidx, tags[pageidx]);
    store_pin_release(pin);
}

static uint64_t head(void)
{
    struct store_state state;
    store_volume_state(volume, &state);
    return state.local_lsn;
}

static void landed(uint32_t count)
{
    for (uint32_t i = 1; i <= count; i++)
        tags[i] = tag;
}

static void reopen(void)
{
    struct gid vid = fixture_vid(1);
    store_volume_close(volume);
    volume = NULL;
    fixture_close(&fixture);
    fixture_open(&fixture);
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
}

// A commit of `count` pages meets the fault at its call number `at`. False if it made fewer calls.
static bool commit_with_fault(enum fault kind, const char *folder, uint32_t count, int at, bool *ret_failed)
{
    struct graft_error said = {.message = ""};
    uint64_t before = head();
    store_space_settle(fixture.store->space); // or the fault meets its thread's writing
    plan.kind = kind;
    plan.folder = folder;
    plan.fired = false;
    plan.left = at;
    enum graft_status status = try_commit(count, ++tag, &said);
    plan.left = 0;
    *ret_failed = status != GRAFT_OK;
    if (!plan.fired || kind == FAULT_SHORT)
        cr_assert_eq(status, GRAFT_OK, "%s", said.message);
    if (status == GRAFT_OK) {
        landed(count);
        return plan.fired;
    }
    cr_assert_eq(status, GRAFT_INTERNAL);
    cr_assert_eq(said.detail, kind == FAULT_FULL ? GRAFT_DETAIL_NO_SPACE : GRAFT_DETAIL_IO, "%s",
                 said.message);
    cr_assert_eq(head(), before);
    return true;
}

// Faults that the store gets over by itself, one at each write.
static void get_over(enum fault kind, const char *folder, uint32_t count, unsigned failures_min)
{
    unsigned failures = 0;
    bool failed;
    for (int at = 1; commit_with_fault(kind, folder, count, at, &failed); at++) {
        cr_assert_lt(at, 500);
        failures += failed;
        expect_pages();
        struct graft_error said = {.message = ""};
        cr_assert_eq(try_commit(count, ++tag, &said), GRAFT_OK, "after the fault at %d: %s", at,
                     said.message);
        landed(count);
        expect_pages();
    }
    expect_exact_accounts(&fixture);
    uint64_t lsn = head();
    reopen();
    cr_assert_eq(head(), lsn);
    expect_pages();
    expect_exact_accounts(&fixture);
    cr_assert_geq(failures, failures_min);
}

// Faults after which the directory is to be opened again, one at each call.
static void open_again_after(enum fault kind, const char *folder, uint32_t count, unsigned failures_min)
{
    unsigned failures = 0;
    bool failed;
    for (int at = 1; commit_with_fault(kind, folder, count, at, &failed); at++) {
        uint64_t lsn = head();
        cr_assert_lt(at, 500);
        failures += failed;
        reopen();
        cr_assert(head() == lsn || (failed && head() == lsn + 1));
        if (head() == lsn + 1) // its sync failed, so nobody could know
            landed(count);
        expect_pages();
    }
    expect_exact_accounts(&fixture);
    cr_assert_geq(failures, failures_min);
}

Test(store_faults, page_files_are_full_at_each_write)
{
    begin_with(GRAFT_DURABILITY_FULL);
    get_over(FAULT_FULL, "/pages/", 2, 1);
    get_over(FAULT_FULL, "/pages/", STAGED_PAGES, 3);
}

Test(store_faults, page_files_fail_at_each_write)
{
    begin_with(GRAFT_DURABILITY_FULL);
    get_over(FAULT_IO, "/pages/", 2, 1);
    get_over(FAULT_IO, "/pages/", STAGED_PAGES, 3);
}

Test(store_faults, page_files_fail_at_each_write_that_is_not_synced)
{
    begin_with(GRAFT_DURABILITY_NORMAL);
    get_over(FAULT_FULL, "/pages/", 2, 1);
    get_over(FAULT_IO, "/pages/", STAGED_PAGES, 3);
}

Test(store_faults, writes_are_short_each_in_turn)
{
    begin_with(GRAFT_DURABILITY_FULL);
    get_over(FAULT_SHORT, "/pages/", STAGED_PAGES, 0);
    get_over(FAULT_SHORT, "/local/", STAGED_PAGES, 0);
    get_over(FAULT_SHORT, "/local/", 2, 0);
}

Test(store_faults, the_index_fails_at_each_write)
{
    begin_with(GRAFT_DURABILITY_FULL);
    open_again_after(FAULT_IO, "/local/", 2, 1);
    open_again_after(FAULT_IO, "/local/", STAGED_PAGES, 1);
}

Test(store_faults, page_files_fail_at_each_sync)
{
    begin_with(GRAFT_DURABILITY_FULL);
    open_again_after(FAULT_SYNC, "/pages/", 2, 1);
    open_again_after(FAULT_SYNC, "/pages/", STAGED_PAGES, 1);
}

Test(store_faults, after_a_failed_sync_every_call_says_so)
{
    begin_with(GRAFT_DURABILITY_FULL);
    bool failed;
    cr_assert(commit_with_fault(FAULT_SYNC, "/pages/", 2, 1, &failed));
    cr_assert(failed);
    struct graft_error said;
    cr_assert_eq(try_commit(2, 9999, &said), GRAFT_INTERNAL);
    cr_assert_eq(said.detail, GRAFT_DETAIL_IO, "%s", said.message);
    reopen();
    struct graft_error err;
    cr_assert_eq(try_commit(2, ++tag, &err), GRAFT_OK, "%s", err.message);
    landed(2);
    expect_pages();
}
