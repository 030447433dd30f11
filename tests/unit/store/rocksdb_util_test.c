// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/store/rocksdb_util.h"
#include "tests/unit/store/temp_folder.h"

static const struct rocks_family families[] = {
    {.name = "one", .compression = ROCKS_LZ4, .point_reads = true},
    {.name = "two"},
};
static const struct rocks_settings settings = {
    .block_cache_size = 4 << 20, .write_buffer_size = 4 << 20, .max_open_files = 64};

static struct temp_folder folder;
static struct rocks *rocks;

static void reopen(void)
{
    struct graft_error error;
    rocks_close(rocks);
    cr_assert_eq(rocks_open(folder.path, &settings, families, 2, &rocks, &error), GRAFT_OK, "%s",
                 error.message);
}

static void set_up(void)
{
    temp_folder_init(&folder);
    reopen();
}

static void tear_down(void)
{
    rocks_close(rocks);
    temp_folder_release(&folder);
}

TestSuite(rocksdb_util, .init = set_up, .fini = tear_down, .timeout = 30);

static struct bytes text(const char *value)
{
    return (struct bytes){(const uint8_t *)value, strlen(value)};
}

static void put(unsigned family, const char *key, const char *value)
{
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    rocks_batch_put(batch, rocks->families[family], text(key), text(value));
    cr_assert_eq(rocks_write(rocks->db, rocks->write_synced, batch, NULL), GRAFT_OK);
}

static void assert_value(unsigned family, const char *key, const char *expected)
{
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    cr_assert_eq(rocks_get(rocks->db, rocks->families[family], rocks->read, text(key), &value, NULL),
                 GRAFT_OK);
    cr_assert_eq(value != NULL, expected != NULL);
    if (!value)
        return;
    struct bytes bytes = rocks_slice(value);
    cr_assert_eq(bytes.size, strlen(expected));
    cr_assert(memcmp(bytes.data, expected, bytes.size) == 0);
}

Test(rocksdb_util, families_keep_their_places_and_contents)
{
    put(0, "key", "one");
    put(1, "key", "two");
    assert_value(0, "key", "one");
    reopen();
    assert_value(0, "key", "one");
    assert_value(1, "key", "two");
    assert_value(0, "absent", NULL);
}

static void assert_scan(struct bytes prefix, const char *expected)
{
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        rocks_scan_new(rocks->db, rocks->families[0], prefix, NULL);
    char joined[256] = "";
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator)) {
        struct bytes value = rocks_iter_value(scan->iterator);
        strncat(joined, (const char *)value.data, value.size);
    }
    cr_assert_eq(rocks_iter_status(scan->iterator, "scanning", NULL), GRAFT_OK);
    cr_assert_str_eq(joined, expected);
}

Test(rocksdb_util, joined_batches_do_what_each_does_in_order)
{
    rocksdb_writebatch_t *batches[3];
    for (unsigned i = 0; i < 3; i++)
        batches[i] = rocksdb_writebatch_create();
    rocks_batch_put(batches[0], rocks->families[0], text("a"), text("first"));
    rocks_batch_put(batches[0], rocks->families[1], text("b"), text("kept"));
    rocks_batch_delete(batches[2], rocks->families[0], text("c"));
    rocks_batch_put(batches[2], rocks->families[0], text("a"), text("last"));
    put(0, "c", "goes");
    rocksdb_writebatch_t *joined = rocks_batch_join(batches, 3);
    cr_assert_eq(rocksdb_writebatch_count(joined), 4);
    cr_assert_eq(rocks_write(rocks->db, rocks->write, joined, NULL), GRAFT_OK);
    reopen();
    assert_value(0, "a", "last");
    assert_value(1, "b", "kept");
    assert_value(0, "c", NULL);
    for (unsigned i = 0; i < 3; i++)
        rocks_batch_free(batches[i]);
    rocks_batch_free(joined);
}

Test(rocksdb_util, merges_add_also_in_a_database_that_holds_its_log)
{
    static const struct rocks_family sums[] = {{.name = "sums", .sums = true}, {.name = "other"}};
    struct rocks_settings held = settings;
    held.holds_log = true;
    struct temp_folder second;
    temp_folder_init(&second);
    struct rocks *database;
    cr_assert_eq(rocks_open(second.path, &held, sums, 2, &database, NULL), GRAFT_OK);
    for (int64_t i = 1; i <= 10; i++) {
        _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
        rocks_batch_add(batch, database->families[0], text("x"), 100);
        rocks_batch_add(batch, database->families[0], text("x"), -i);
        rocks_batch_put(batch, database->families[1], text("y"), text("there"));
        rocksdb_writeoptions_t *options = i % 4 == 0 ? database->write_synced : database->write;
        cr_assert_eq(rocks_write(database->db, options, batch, NULL), GRAFT_OK);
        if (i % 6 == 0)
            cr_assert_eq(rocks_flush(database, NULL), GRAFT_OK);
    }
    rocks_close(database);
    cr_assert_eq(rocks_open(second.path, &held, sums, 2, &database, NULL), GRAFT_OK);
    rocksdb_pinnableslice_t *value = NULL;
    cr_assert_eq(rocks_get(database->db, database->families[0], database->read, text("x"), &value, NULL),
                 GRAFT_OK);
    cr_assert(value && get_le64(rocks_slice(value).data) == 1000 - 55);
    rocks_slice_free(value);
    rocks_close(database);
    temp_folder_release(&second);
}

Test(rocksdb_util, scans_see_their_prefix_and_nothing_else)
{
    put(0, "a", "1");
    put(0, "ab", "2");
    put(0, "abc", "3");
    put(0, "ac", "4");
    put(0, "b", "5");
    put(0, "a\xff", "6");
    put(0, "a\xff\xff", "7");
    put(0, "\xff", "8");
    put(0, "\xff\xff", "9");
    assert_scan(text(""), "123467589");
    assert_scan(text("a"), "123467");
    assert_scan(text("ab"), "23");
    assert_scan(text("a\xff"), "67");
    assert_scan(text("\xff"), "89");
    assert_scan(text("\xff\xff"), "9");
    assert_scan(text("c"), "");
}

Test(rocksdb_util, a_scan_of_a_snapshot_does_not_see_later_writes)
{
    put(0, "a", "1");
    const rocksdb_snapshot_t *snapshot = rocksdb_create_snapshot(rocks->db);
    put(0, "b", "2");
    struct rocks_scan *scan = rocks_scan_new(rocks->db, rocks->families[0], text(""), snapshot);
    rocksdb_iter_seek_to_first(scan->iterator);
    rocksdb_iter_next(scan->iterator);
    cr_assert_not(rocksdb_iter_valid(scan->iterator));
    rocks_scan_free(scan);
    rocksdb_release_snapshot(rocks->db, snapshot);
}

Test(rocksdb_util, error_strings_become_statuses)
{
    static const struct {
        const char *message;
        enum graft_status status;
        enum graft_detail detail;
    } cases[] = {
        {"IO error: No space left on device: While appending to file: /x/1.log", GRAFT_INTERNAL,
         GRAFT_DETAIL_NO_SPACE},
        {"IO error: While appending to file: /x/000012.log: Input/output error", GRAFT_INTERNAL,
         GRAFT_DETAIL_IO},
        {"IO error: While lock file: /x/LOCK: Resource temporarily unavailable", GRAFT_BUSY,
         GRAFT_DETAIL_LOCKED},
        {"IO error: lock hold by current process, acquire time 1: /x/LOCK", GRAFT_BUSY, GRAFT_DETAIL_LOCKED},
        {"IO error: While open a file for appending: /x: Permission denied", GRAFT_DENIED, GRAFT_DETAIL_NONE},
        {"Corruption: block checksum mismatch: in /x/000005.sst", GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM},
        {"Corruption: CURRENT file does not end with newline", GRAFT_CORRUPT, GRAFT_DETAIL_NONE},
        {"Invalid argument: Column families not opened: x", GRAFT_INVALID, GRAFT_DETAIL_NONE},
        {"Shutdown in progress: Database shutdown", GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING},
        {"Something new", GRAFT_INTERNAL, GRAFT_DETAIL_NONE},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct graft_error error;
        cr_assert_eq(rocks_status(&error, strdup(cases[i].message), "opening %s", "x"), cases[i].status, "%s",
                     cases[i].message);
        cr_assert_eq(error.status, cases[i].status);
        cr_assert_eq(error.detail, cases[i].detail, "%s", cases[i].message);
        cr_assert(strstr(error.message, "opening x: ") == error.message);
    }
    cr_assert_eq(rocks_status(NULL, NULL, "nothing"), GRAFT_OK);
}

Test(rocksdb_util, a_database_with_families_of_others_is_refused)
{
    rocks_close(TAKE(rocks));
    struct graft_error error;
    struct rocks *fewer = NULL;
    cr_assert_eq(rocks_open(folder.path, &settings, families, 1, &fewer, &error), GRAFT_INVALID);
    cr_assert(strstr(error.message, folder.path), "%s", error.message);
    reopen(); // the failed opening let go of the lock
}

Test(rocksdb_util, a_second_opening_is_refused)
{
    struct graft_error error;
    struct rocks *second = NULL;
    cr_assert_eq(rocks_open(folder.path, &settings, families, 2, &second, &error), GRAFT_BUSY);
    cr_assert_eq(error.detail, GRAFT_DETAIL_LOCKED);
    put(0, "still", "works");
}

Test(rocksdb_util, a_damaged_database_is_corrupt)
{
    put(0, "key", "value");
    rocks_close(TAKE(rocks));
    char path[96];
    snprintf(path, sizeof path, "%s/CURRENT", folder.path);
    int fd = open(path, O_WRONLY | O_TRUNC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, "rubbish", 7), 7);
    close(fd);
    struct graft_error error;
    struct rocks *damaged = NULL;
    cr_assert_eq(rocks_open(folder.path, &settings, families, 2, &damaged, &error), GRAFT_CORRUPT, "%s",
                 error.message);
}

// ---- a MANIFEST whose end did not reach the disk whole

static void manifest_path(char to[4096])
{
    char current[4096], name[64] = "";
    snprintf(current, sizeof current, "%s/CURRENT", folder.path);
    FILE *file = fopen(current, "r");
    cr_assert(file && fscanf(file, "%63s", name) == 1);
    fclose(file);
    snprintf(to, 4096, "%s/%s", folder.path, name);
}

// A record of 700 bytes with a wrong checksum: what a loss of power leaves where only its first sector was written.
static void append_torn_record(const char *path, bool zeros)
{
    uint8_t record[707] = {1, 2, 3, 4, 700 & 0xff, 700 >> 8, 1};
    memset(record + 7, 0x5a, zeros ? 20 : 700);
    int fd = open(path, O_WRONLY | O_APPEND);
    cr_assert(fd >= 0 && write(fd, record, sizeof record) == sizeof record);
    close(fd);
}

static uint8_t *read_manifest(const char *path, size_t *ret_size)
{
    FILE *file = fopen(path, "r");
    uint8_t *data = malloc(1 << 16);
    cr_assert(file && data);
    *ret_size = fread(data, 1, 1 << 16, file);
    fclose(file);
    return data;
}

Test(rocksdb_util, a_torn_end_of_the_manifest_is_cut_off)
{
    char path[4096];
    put(0, "key", "one");
    put(1, "key", "two");
    rocks_close(TAKE(rocks));
    manifest_path(path);
    append_torn_record(path, true);
    reopen();
    assert_value(0, "key", "one");
    assert_value(1, "key", "two");

    // The next append, which the same sync was to cover, may have come through whole.
    rocks_close(TAKE(rocks));
    manifest_path(path);
    size_t size;
    uint8_t *sound = read_manifest(path, &size);
    append_torn_record(path, true);
    int fd = open(path, O_WRONLY | O_APPEND);
    cr_assert(fd >= 0 && write(fd, sound, size) == (ssize_t)size);
    close(fd);
    free(sound);
    reopen();
    assert_value(0, "key", "one");
    assert_value(1, "key", "two");
}

static void expect_corrupt(void)
{
    char path[4096];
    size_t before, after;
    struct graft_error error;
    manifest_path(path);
    uint8_t *old = read_manifest(path, &before);
    cr_assert_eq(rocks_open(folder.path, &settings, families, 2, &rocks, &error), GRAFT_CORRUPT);
    uint8_t *new = read_manifest(path, &after);
    cr_assert(before == after && memcmp(old, new, before) == 0, "the evidence is changed");
    free(old);
    free(new);
}

Test(rocksdb_util, other_damage_of_the_manifest_is_reported)
{
    char path[4096];
    put(0, "key", "one");
    rocks_close(TAKE(rocks));
    manifest_path(path);
    size_t size;
    uint8_t *sound = read_manifest(path, &size);

    // No sector is missing.
    append_torn_record(path, false);
    expect_corrupt();
    // A byte in the middle.
    cr_assert_eq(truncate(path, (off_t)size), 0);
    sound[size / 2] ^= 1;
    int all = open(path, O_WRONLY);
    cr_assert(all >= 0 && pwrite(all, sound, size, 0) == (ssize_t)size);
    expect_corrupt();

    sound[size / 2] ^= 1;
    cr_assert_eq(pwrite(all, sound, size, 0), (ssize_t)size);
    close(all);
    free(sound);
    reopen();
    assert_value(0, "key", "one");
}
