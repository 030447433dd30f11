// SPDX-License-Identifier: Apache-2.0
//
// What the local store syncs, seen from below: this program's own fdatasync() and fsync() stand in front of the
// system's, also for RocksDB, and count, or fail.
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "tests/unit/client/store_fixture.h"

static atomic_uint syncs;
static atomic_bool syncs_fail;

static int sync_counted(int fd, const char *name)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);

    syncs++;
    if (!syncs_fail)
        return next(fd);
    errno = EIO;
    return -1;
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    return sync_counted(fd, "fdatasync");
}

__attribute__((visibility("default"))) int fsync(int fd)
{
    return sync_counted(fd, "fsync");
}

static struct store_fixture fixture;
static struct store_volume *volume;

static void begin_with(enum graft_durability durability)
{
    fixture = (struct store_fixture){.settings = {.durability = durability, .writer_memory_size = 16384}};
    fixture_begin(&fixture);
    volume = fixture_create(&fixture, 1, 4096);
}

static void reopen(void)
{
    struct gid vid = fixture_vid(1);

    store_volume_close(volume);
    fixture_close(&fixture);
    fixture_open(&fixture);
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
}

static void end(void)
{
    syncs_fail = false;
    store_volume_close(volume);
    fixture_end(&fixture);
}

static unsigned syncs_of(unsigned commits)
{
    unsigned before = syncs;

    for (unsigned i = 1; i <= commits; i++)
        fixture_commit(volume, 1, 1, i);
    return syncs - before;
}

static struct store_state state_now(void)
{
    struct store_state state;

    store_volume_state(volume, &state);
    return state;
}

TestSuite(store_durability, .fini = end);

Test(store_durability, full_syncs_each_commit)
{
    begin_with(GRAFT_DURABILITY_FULL);
    cr_assert_geq(syncs_of(10), 10);
}

Test(store_durability, normal_syncs_none_small_or_staged)
{
    begin_with(GRAFT_DURABILITY_NORMAL);
    syncs_of(1); // makes and claims the first extents
    cr_assert_eq(syncs_of(10), 0);
    unsigned before = syncs;
    fixture_commit(volume, 1, 40, 7);
    cr_assert_eq(syncs - before, 0);
    reopen();
    cr_assert_eq(state_now().local_lsn, 12);
}

Test(store_durability, normal_syncs_every_step_of_a_push)
{
    struct token token = {.bytes = {1}};
    struct hash128 digest = {.bytes = {2}};
    struct store_remote landed = fixture_remote(1, 1);
    struct graft_error why = {GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, "somebody came first"};
    const struct bytes request = {(const uint8_t *)"request", 7};
    struct store_push push;

    begin_with(GRAFT_DURABILITY_NORMAL);
#define EXPECT_SYNCED(call)           \
    do {                              \
        unsigned before_ = syncs;     \
        expect_ok(call);              \
        cr_assert_gt(syncs, before_); \
    } while (0)
    syncs_of(3);
    EXPECT_SYNCED(store_push_begin(volume, &token, &push, &err));
    EXPECT_SYNCED(store_push_committing(volume, &digest, request, &err));
    EXPECT_SYNCED(store_push_retreat(volume, &err));
    EXPECT_SYNCED(store_push_fence(volume, request, &err));
    EXPECT_SYNCED(store_push_unfence(volume, &err));
    EXPECT_SYNCED(store_push_settle(volume, &landed, &err));
    syncs_of(3);
    EXPECT_SYNCED(store_push_begin(volume, &token, &push, &err));
    EXPECT_SYNCED(store_push_committing(volume, &digest, request, &err));
    EXPECT_SYNCED(store_push_give_up(volume, GRAFT_VOLUME_REJECTED, &why, &err));
    struct gid vid = fixture_vid(2), named;
    EXPECT_SYNCED(store_fork_begin(volume, &vid, &named, &err));
    struct store_volume *fork;
    EXPECT_SYNCED(store_fork_finish(volume, &named, &landed, &fork, &err));
    store_volume_close(fork);
    struct store_pull pull = {.after_lsn = 1, .head = fixture_remote(2, 1), .cut = 1};
    EXPECT_SYNCED(store_apply_reset(volume, &pull, &err));
}

Test(store_durability, a_failed_sync_is_never_tried_again)
{
    struct store_writer *writer;
    uint8_t page[4096] = {9};

    begin_with(GRAFT_DURABILITY_FULL);
    syncs_of(5);
    expect_ok(store_writer_begin(volume, &writer, &err));
    expect_ok(store_writer_write(writer, 1, page, sizeof page, &err));
    syncs_fail = true;
    unsigned before = syncs;
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, store_writer_commit(writer, NULL, &err));
    cr_assert_eq(syncs, before + 1);
    // That syncs work again is no reason to go on.
    syncs_fail = false;
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, store_writer_begin(volume, &writer, &err));
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, store_set_status(volume, GRAFT_VOLUME_OK, NULL, &err));
    cr_assert_eq(syncs, before + 1);
    reopen();
    uint64_t lsn = state_now().local_lsn;
    cr_assert(lsn == 5 || lsn == 6, "LSN %lu", (unsigned long)lsn);
    cr_assert_geq(syncs_of(3), 3);
}
