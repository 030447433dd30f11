// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/client/store_fixture.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/store_internal.h"

void expect_status_(enum graft_status expected, enum graft_status status, const struct graft_error *err,
                    const char *file, int line)
{
    cr_assert_eq(status, expected, "%s:%d: %s instead of %s: %s", file, line, graft_status_name(status),
                 graft_status_name(expected), err->message);
}

void fixture_open(struct store_fixture *fixture)
{
    fixture->settings.directory = fixture->directory;
    expect_ok(store_open(&fixture->settings, &fixture->store, &err));
}

void fixture_close(struct store_fixture *fixture)
{
    store_close(fixture->store);
    fixture->store = NULL;
}

void fixture_begin(struct store_fixture *fixture)
{
    const char *parent = getenv("TMPDIR");
    snprintf(fixture->directory, sizeof fixture->directory, "%.40s/store-XXXXXX", parent ? parent : "/tmp");
    cr_assert(mkdtemp(fixture->directory));
    fixture_open(fixture);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at)
{
    return remove(path);
}

void fixture_end(struct store_fixture *fixture)
{
    fixture_close(fixture);
    cr_assert_eq(nftw(fixture->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static uint64_t disk_size;

static int add_size(const char *path, const struct stat *info, int type, struct FTW *at)
{
    if (type == FTW_F)
        disk_size += (uint64_t)info->st_blocks * 512;
    return 0;
}

uint64_t fixture_disk_size(const struct store_fixture *fixture)
{
    disk_size = 0;
    nftw(fixture->directory, add_size, 16, FTW_PHYS);
    return disk_size;
}

struct gid fixture_vid(unsigned number)
{
    struct gid vid = {.bytes = {GID_VOLUME}};
    put_be32(vid.bytes + 12, number);
    return vid;
}

void fixture_fill(uint8_t *to, size_t size, uint32_t pageidx, uint32_t tag)
{
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)(tag * 31 + pageidx * 7 + i);
    uint8_t head[8];
    put_le32(head, pageidx);
    put_le32(head + 4, tag);
    memcpy(to, head, size < sizeof head ? size : sizeof head);
}

struct store_remote fixture_remote(uint64_t lsn, uint32_t page_count)
{
    struct store_remote remote = {.lsn = lsn, .page_count = page_count};
    put_be64(remote.chain.bytes, lsn);
    return remote;
}

struct store_volume *fixture_create(struct store_fixture *fixture, unsigned number, uint32_t page_size)
{
    struct gid vid = fixture_vid(number);
    struct store_volume *volume;
    expect_ok(store_volume_create(fixture->store, &vid, page_size, GRAFT_FIXED, &volume, &err));
    return volume;
}

uint64_t fixture_commit(struct store_volume *volume, uint32_t first, uint32_t count, uint32_t tag)
{
    struct store_writer *writer;
    expect_ok(store_writer_begin(volume, &writer, &err));
    uint32_t page_size = store_volume_page_size(volume);
    uint8_t page[PAGE_SIZE_MAX];
    for (uint32_t i = 0; i < count; i++) {
        fixture_fill(page, page_size, first + i, tag);
        expect_ok(store_writer_write(writer, first + i, page, page_size, &err));
    }
    uint64_t lsn;
    expect_ok(store_writer_commit(writer, &lsn, &err));
    return lsn;
}

enum graft_status fixture_arrive(struct store_volume *volume, uint32_t first, uint32_t count,
                                 struct graft_error *err)
{
    struct store_arrivals *arrivals;
    uint8_t page[PAGE_SIZE_MAX];
    enum graft_status status = store_arrivals_new(volume, &arrivals, err);
    for (uint32_t i = 0; i < count && status == GRAFT_OK; i++) {
        fixture_fill(page, store_volume_page_size(volume), first + i, 1);
        status = store_arrivals_add(arrivals, first + i, 1, page, store_volume_page_size(volume), err);
    }
    if (status == GRAFT_OK)
        status = store_arrivals_flush(arrivals, err);
    store_arrivals_free(arrivals);
    return status;
}

void expect_page(struct store_pin *pin, uint32_t pageidx, uint32_t tag)
{
    uint8_t page[PAGE_SIZE_MAX], expected[PAGE_SIZE_MAX];
    struct store_page found;
    expect_ok(store_read(pin, pageidx, page, sizeof page, &found, &err));
    cr_assert_eq(found.state, STORE_PAGE_AVAILABLE, "page %u is in state %d", pageidx, (int)found.state);
    fixture_fill(expected, found.size, pageidx, tag);
    cr_assert_eq(memcmp(page, expected, found.size), 0, "page %u is not the one of tag %u but %u", pageidx,
                 tag, get_le32(page + 4));
}

void expect_state(struct store_pin *pin, uint32_t pageidx, enum store_page_state state)
{
    uint8_t page[PAGE_SIZE_MAX];
    struct store_page found;
    expect_ok(store_read(pin, pageidx, page, sizeof page, &found, &err));
    cr_assert_eq(found.state, state, "page %u is in state %d", pageidx, (int)found.state);
}

struct store_version fixture_version(struct store_volume *volume, uint32_t pageidx, uint64_t lsn)
{
    struct store_key key = store_key_version(volume->number, pageidx, lsn);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    struct store_version version;
    expect_ok(store_get(volume->store->local, FAMILY_INDEX, &key, &slice, &err));
    cr_assert(slice && store_version_decode(rocks_slice(slice), &version));
    return version;
}

void fixture_flip_byte(const struct store_fixture *fixture, uint64_t place)
{
    uint64_t file_size = (uint64_t)EXTENTS_PER_FILE * EXTENT_SIZE;
    char path[128];
    snprintf(path, sizeof path, "%s/pages/%08x", fixture->directory, (unsigned)(place / file_size));
    int fd = open(path, O_RDWR);
    cr_assert(fd >= 0, "%s", path);
    uint8_t byte;
    cr_assert_eq(pread(fd, &byte, 1, (off_t)(place % file_size)), 1);
    byte ^= 1;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)(place % file_size)), 1);
    close(fd);
}

void fixture_flip_page(const struct store_fixture *fixture, struct store_volume *volume, uint32_t pageidx,
                       uint64_t lsn, uint32_t offset)
{
    fixture_flip_byte(fixture, fixture_version(volume, pageidx, lsn).place + offset);
}

// Adds the sizes of all versions to the extents that they lie in.
static uint64_t add_versions(struct store *store, uint64_t *live, uint32_t end)
{
    struct store_key all = {.size = 0};
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = store_scan(store->local, FAMILY_INDEX, &all);
    uint64_t sum = 0;
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator)) {
        struct store_version version;
        cr_assert(store_version_decode(rocks_iter_value(scan->iterator), &version));
        if (version.kind != STORE_VERSION_AVAILABLE || version.size == 0)
            continue;
        cr_assert_lt(place_extent(version.place), end);
        live[place_extent(version.place)] += version.size;
        sum += version.size;
    }
    return sum;
}

void expect_exact_accounts(const struct store_fixture *fixture)
{
    struct store *store = fixture->store;
    uint32_t end = extents_end(store->pages);
    uint64_t *live = calloc(end + 1, sizeof *live);
    uint64_t sum = add_versions(store, live, end);
    for (uint32_t extent = 0; extent < end; extent++) {
        uint64_t said;
        extents_state(store->pages, extent, &said);
        cr_assert_eq(said, live[extent], "extent %u has %lu live bytes, and is said to have %lu", extent,
                     (unsigned long)live[extent], (unsigned long)said);
        struct store_key key = store_key_extent(extent);
        _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
        expect_ok(store_get(store->local, FAMILY_EXTENTS, &key, &slice, &err));
        cr_assert_eq(slice ? get_le64(rocks_slice(slice).data) : 0, live[extent], "extent %u on disk",
                     extent);
    }
    struct extents_usage usage;
    extents_usage(store->pages, &usage);
    cr_assert_eq(usage.live, sum);
    free(live);
}
