// SPDX-License-Identifier: Apache-2.0
//
// The page files' space: cleaned, given back, and accounted for; and the check, with planted damage.
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/store_check.h"
#include "client/store_internal.h"
#include "client/store_space.h"
#include "tests/unit/client/store_fixture.h"

// ---- looking --------------------------------------------------------------------------------------------------------

struct seen {
    unsigned count;
    struct graft_local_damage last; // without its texts
    char vid[GRAFT_VID_SIZE], file[512], message[GRAFT_ERROR_MESSAGE_SIZE];
};

static void see(void *context, const struct graft_local_damage *damage)
{
    struct seen *seen = context;
    seen->count++;
    seen->last = *damage;
    snprintf(seen->vid, sizeof seen->vid, "%s", damage->vid ? damage->vid : "");
    snprintf(seen->file, sizeof seen->file, "%s", damage->file ? damage->file : "");
    snprintf(seen->message, sizeof seen->message, "%s", damage->why->message);
    cr_log_info("%s", damage->why->message);
}

static struct graft_local_counts check(struct store_fixture *fixture, struct seen *seen)
{
    struct store_check_sink sink = {.damaged = see, .context = seen};
    struct graft_local_counts counts;
    *seen = (struct seen){.count = 0};
    store_space_settle(fixture->store->space);
    expect_ok(store_check(fixture->store, &sink, &counts, &err));
    cr_assert_eq(counts.size, counts.live + counts.dead + counts.headers + counts.unused + counts.free);
    cr_assert_eq(counts.damaged, seen->count);
    return counts;
}

static struct graft_local_counts expect_sound(struct store_fixture *fixture)
{
    struct seen seen;
    struct graft_local_counts counts = check(fixture, &seen);
    cr_assert_eq(seen.count, 0, "%s", seen.message);
    struct extents_usage usage;
    extents_usage(fixture->store->pages, &usage);
    cr_assert_eq(usage.live, counts.live);
    return counts;
}

static uint64_t files_size(const struct store_fixture *fixture)
{
    char path[512];
    uint64_t size = 0;
    snprintf(path, sizeof path, "%s/pages", fixture->directory);
    DIR *directory = opendir(path);
    cr_assert(directory);
    for (struct dirent *entry; (entry = readdir(directory));) {
        struct stat info;
        if (fstatat(dirfd(directory), entry->d_name, &info, 0) == 0 && S_ISREG(info.st_mode))
            size += (uint64_t)info.st_size;
    }
    closedir(directory);
    return size;
}

static struct store_space_counts counts_of(const struct store_fixture *fixture)
{
    struct store_space_counts counts;
    store_space_settle(fixture->store->space);
    store_space_counts(fixture->store->space, &counts);
    return counts;
}

static struct store_version version_of(struct store_volume *volume, uint32_t pageidx, uint64_t lsn)
{
    struct store_key key = store_key_version(volume->number, pageidx, lsn);
    struct store_version version;
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    expect_ok(store_get(volume->store->local, FAMILY_INDEX, &key, &value, &err));
    cr_assert(value && store_version_decode(rocks_slice(value), &version));
    return version;
}

static void flip(const struct store_fixture *fixture, uint64_t place)
{
    char path[512];
    uint8_t byte;
    uint32_t extent = place_extent(place);
    off_t at = (off_t)(extent % EXTENTS_PER_FILE) * EXTENT_SIZE + place_offset(place);
    snprintf(path, sizeof path, "%s/pages/%08x", fixture->directory, extent / EXTENTS_PER_FILE);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void expect_pages(struct store_volume *volume, uint32_t first, uint32_t count, uint32_t tag)
{
    _cleanup_(store_pin_release_p) struct store_pin *pin = NULL;
    expect_ok(store_pin_open(volume, &pin, &err));
    for (uint32_t i = 0; i < count; i++)
        expect_page(pin, first + i, tag);
}

// ---- cleaning -------------------------------------------------------------------------------------------------------

#define PAGES 4000u // of 4 KiB: 15.6 MiB

Test(store_space, rewriting_keeps_the_files_within_their_budget)
{
    struct store_fixture fixture = {.settings = {.durability = GRAFT_DURABILITY_NORMAL}};
    fixture_begin(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 4096);
    // Every seventh page is written once: without a cleaner they would keep almost every extent.
    fixture_commit(volume, 1, PAGES, 1);
    for (uint32_t round = 2; round < 14; round++) {
        for (uint32_t first = 1; first < PAGES; first += 100)
            for (uint32_t at = first; at < first + 98; at += 7)
                fixture_commit(volume, at, 6, round);
    }
    struct store_space_counts counts = counts_of(&fixture);
    cr_log_info("%lu bytes, %lu extents cleaned, %lu pages moved, %lu waits",
                (unsigned long)files_size(&fixture), (unsigned long)counts.cleaned_extents,
                (unsigned long)counts.moved_pages, (unsigned long)counts.waits);
    cr_assert_gt(counts.cleaned_extents, 0);
    cr_assert_leq(files_size(&fixture), PAGES * 4096u * 13 / 10 + 24 * MIB);
    cr_assert_eq(expect_sound(&fixture).live, PAGES * 4096u);
    for (uint32_t at = 1; at < 98; at += 7) {
        expect_pages(volume, at, 6, 13);
        expect_pages(volume, at + 6, 1, 1);
    }
    store_volume_close(volume);
    fixture_close(&fixture);
    fixture_open(&fixture);
    cr_assert_eq(expect_sound(&fixture).live, PAGES * 4096u);
    fixture_end(&fixture);
}

Test(store_space, what_a_snapshot_shows_is_moved_and_kept)
{
    struct store_fixture fixture = {.settings = {.durability = GRAFT_DURABILITY_NORMAL}};
    struct store_pin *pin;
    fixture_begin(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 4096);
    // Between others that die, so that the cleaner comes by.
    for (uint32_t at = 1; at <= 200; at++) {
        fixture_commit(volume, at, 1, 1);
        fixture_commit(volume, 1000, 10, at);
    }
    struct store_version before = version_of(volume, 100, 199);
    expect_ok(store_pin_open(volume, &pin, &err));
    for (uint32_t round = 0; round < 1500; round++)
        fixture_commit(volume, 1 + round % 200, 10, 2 + round);
    cr_assert_gt(counts_of(&fixture).moved_pages, 0);
    cr_assert_neq(version_of(volume, 100, 199).place, before.place);
    for (uint32_t at = 1; at <= 200; at++)
        expect_page(pin, at, 1);
    expect_sound(&fixture);
    store_pin_release(pin);
    store_sweep(volume, SIZE_MAX);
    cr_assert_eq(expect_sound(&fixture).live, (200 + 9 + 10) * 4096u);
    store_volume_close(volume);
    fixture_end(&fixture);
}

Test(store_space, small_commits_are_packed)
{
    struct store_fixture fixture = {.settings = {.durability = GRAFT_DURABILITY_NORMAL}};
    fixture_begin(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    // A run each: 4 KiB for 512 bytes.
    for (uint32_t page = 1; page <= 12000; page++)
        fixture_commit(volume, page, 1, 5);
    counts_of(&fixture);
    struct graft_local_counts counts = expect_sound(&fixture);
    cr_assert_eq(counts.live, 12000 * 512u);
    cr_assert_leq(counts.size, 24 * MIB, "%lu bytes", (unsigned long)counts.size);
    expect_pages(volume, 1, 200, 5);
    store_volume_close(volume);
    fixture_end(&fixture);
}

Test(store_space, deleting_much_gives_the_disk_back)
{
    struct store_fixture fixture = {.settings = {.durability = GRAFT_DURABILITY_NORMAL}};
    fixture_begin(&fixture);
    struct store_volume *large = fixture_create(&fixture, 1, 65536);
    struct store_volume *small = fixture_create(&fixture, 2, 4096);
    // Pages that stay lie between those that go, to the end of the last file.
    for (uint32_t i = 0; i < 330; i++) {
        fixture_commit(large, 1 + i * 15, 15, 1);
        fixture_commit(small, 1 + i, 1, 2);
    }
    cr_assert_gt(files_size(&fixture), 300 * MIB);
    struct gid vid = fixture_vid(1);
    store_volume_close(large);
    expect_ok(store_volume_delete(fixture.store, &vid, &err));
    store_space_settle(fixture.store->space);
    cr_assert_leq(files_size(&fixture), (SPACE_SLACK_EXTENTS + 3 * EXTENTS_PER_FILE) * (uint64_t)EXTENT_SIZE,
                  "%lu bytes are left", (unsigned long)files_size(&fixture));
    cr_assert_eq(expect_sound(&fixture).live, 330 * 4096u);
    expect_pages(small, 1, 330, 2);
    store_volume_close(small);
    fixture_end(&fixture);
}

static void commit_empty(struct store_volume *volume, uint32_t pageidx)
{
    struct store_writer *writer;
    expect_ok(store_writer_begin(volume, &writer, &err));
    expect_ok(store_writer_write(writer, pageidx, "", 0, &err));
    expect_ok(store_writer_commit(writer, NULL, &err));
}

// A page of no bytes keeps no extent: the file where its run was goes, and it can be read and replaced all the same.
Test(store_space, a_page_without_bytes_outlives_its_file)
{
    struct store_fixture fixture = {.settings = {.durability = GRAFT_DURABILITY_NORMAL}};
    struct store_volume *variable;
    struct gid vid = fixture_vid(2);
    fixture_begin(&fixture);
    struct store_volume *large = fixture_create(&fixture, 1, 65536);
    expect_ok(store_volume_create(fixture.store, &vid, 4096, GRAFT_VARIABLE, &variable, &err));
    for (uint32_t i = 0; i < 330; i++)
        fixture_commit(large, 1 + i * 15, 15, 1);
    for (uint32_t pageidx = 1; pageidx <= 8; pageidx++)
        commit_empty(variable, pageidx);
    vid = fixture_vid(1);
    store_volume_close(large);
    expect_ok(store_volume_delete(fixture.store, &vid, &err));
    store_space_settle(fixture.store->space);
    cr_assert_lt(files_size(&fixture), 300 * MIB);
    expect_sound(&fixture);
    struct store_pin *pin;
    expect_ok(store_pin_open(variable, &pin, &err));
    for (uint32_t pageidx = 1; pageidx <= 8; pageidx++) {
        uint8_t page[4096];
        struct store_page found;
        expect_ok(store_read(pin, pageidx, page, sizeof page, &found, &err));
        cr_assert_eq(found.state, STORE_PAGE_AVAILABLE);
        cr_assert_eq(found.size, 0);
    }
    store_pin_release(pin);
    for (uint32_t pageidx = 1; pageidx <= 8; pageidx++)
        commit_empty(variable, pageidx);
    expect_sound(&fixture);
    store_volume_close(variable);
    fixture_end(&fixture);
}

Test(store_space, damage_stays_where_it_is)
{
    struct store_fixture fixture = {.store = NULL};
    struct seen seen;
    fixture_begin(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 4096);
    for (uint32_t at = 1; at <= 40; at++) {
        fixture_commit(volume, at, 1, 1);
        fixture_commit(volume, 1000, 30, at);
    }
    store_space_settle(fixture.store->space); // or the page is moved between the look and the flip
    struct store_version bad = version_of(volume, 20, 39);
    flip(&fixture, bad.place + 100);
    for (uint32_t round = 0; round < 900; round++)
        fixture_commit(volume, 1000, 30, round);
    cr_assert_gt(counts_of(&fixture).cleaned_extents, 0);
    cr_assert_eq(version_of(volume, 20, 39).place, bad.place);
    check(&fixture, &seen);
    cr_assert_eq(seen.count, 1);
    cr_assert_eq(seen.last.pageidx, 20);
    cr_assert_eq(seen.last.local_lsn, 39);
    cr_assert_eq(seen.last.offset, (uint64_t)(place_extent(bad.place) % EXTENTS_PER_FILE) * EXTENT_SIZE +
                                       place_offset(bad.place));
    cr_assert_not(seen.last.fetchable);
    expect_pages(volume, 1, 19, 1);
    expect_pages(volume, 21, 20, 1);
    store_volume_close(volume);
    fixture_end(&fixture);
}

// ---- the check ------------------------------------------------------------------------------------------------------

Test(store_space, a_wrong_counter_is_found)
{
    struct store_fixture fixture = {.store = NULL};
    struct seen seen;
    fixture_begin(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 4096);
    fixture_commit(volume, 1, 100, 1);
    expect_sound(&fixture);
    uint32_t extent = place_extent(version_of(volume, 1, 1).place);
    struct store_key key = store_key_extent(extent);
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    rocks_batch_add(batch, fixture.store->local->families[FAMILY_EXTENTS], store_key_bytes(&key), 1);
    expect_ok(rocks_write(fixture.store->local->db, fixture.store->local->write, batch, &err));
    check(&fixture, &seen);
    cr_assert_eq(seen.count, 1);
    cr_assert(strstr(seen.message, "409600") && strstr(seen.message, "409601"), "%s", seen.message);
    cr_assert_eq(seen.last.offset, (uint64_t)(extent % EXTENTS_PER_FILE) * EXTENT_SIZE);
    store_volume_close(volume);
    fixture_end(&fixture);
}

static void put_version(struct store_volume *volume, uint32_t pageidx, uint64_t lsn,
                        struct store_version version)
{
    struct store_key key = store_key_version(volume->number, pageidx, lsn);
    uint8_t value[STORE_VERSION_SIZE_MAX];
    size_t size = store_version_encode(&version, value);
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    store_put(volume->store->local, batch, FAMILY_INDEX, &key, (struct bytes){value, size});
    expect_ok(rocks_write(volume->store->local->db, volume->store->local->write, batch, &err));
}

Test(store_space, an_index_that_points_elsewhere_is_found)
{
    struct store_fixture fixture = {.store = NULL};
    struct seen seen;
    fixture_begin(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 4096);
    fixture_commit(volume, 1, 100, 1);
    struct store_version seven = version_of(volume, 7, 1), eight = version_of(volume, 8, 1);
    struct store_version wrong = seven;
    wrong.place = eight.place;
    put_version(volume, 7, 1, wrong);
    check(&fixture, &seen);
    cr_assert_eq(seen.count, 1);
    cr_assert_eq(seen.last.pageidx, 7);
    wrong.place = place_make(extents_end(fixture.store->pages) + 5, 0);
    put_version(volume, 7, 1, wrong);
    check(&fixture, &seen);
    cr_assert_geq(seen.count, 1); // and the counter of the extent where it was
    put_version(volume, 7, 1, seven);
    expect_sound(&fixture);
    store_volume_close(volume);
    fixture_end(&fixture);
}

Test(store_space, a_damaged_header_is_told_once_and_its_pages_are_sound)
{
    struct store_fixture fixture = {.store = NULL};
    struct seen seen;
    fixture_begin(&fixture);
    struct store_volume *volume = fixture_create(&fixture, 1, 4096);
    fixture_commit(volume, 1, 50, 1);
    fixture_commit(volume, 51, 50, 2);
    struct store_version first = version_of(volume, 51, 2);
    // The header lies before its first page.
    flip(&fixture, first.place - RUN_ALIGNMENT + 50);
    struct graft_local_counts counts = check(&fixture, &seen);
    cr_assert_eq(seen.count, 1);
    cr_assert_eq(counts.unnamed, 50);
    cr_assert_eq(seen.last.pageidx, 0);
    expect_pages(volume, 51, 50, 2);
    store_volume_close(volume);
    fixture_end(&fixture);
}
