// SPDX-License-Identifier: Apache-2.0
//
// Directories that are locked, foreign or damaged, and disks that fail: a clear answer, and never other
// bytes.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/store_internal.h"
#include "common/base/files.h"
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

TestSuite(store_damage, .init = begin, .fini = end);

static struct store_volume *make_clone(unsigned number)
{
    struct gid vid = fixture_vid(number);
    struct store_remote head = fixture_remote(5, 10);
    struct store_volume *volume;
    expect_ok(store_volume_clone(fixture.store, &vid, 512, GRAFT_FIXED, &head, &volume, &err));
    return volume;
}

static void arrive(struct store_volume *volume, uint32_t pageidx)
{
    struct store_arrivals *arrivals;
    uint8_t page[512];
    fixture_fill(page, sizeof page, pageidx, 1);
    expect_ok(store_arrivals_new(volume, &arrivals, &err));
    expect_ok(store_arrivals_add(arrivals, pageidx, 1, page, sizeof page, &err));
    expect_ok(store_arrivals_flush(arrivals, &err));
    store_arrivals_free(arrivals);
}

static struct store_pin *pin_head(struct store_volume *volume)
{
    struct store_pin *pin;
    expect_ok(store_pin_open(volume, &pin, &err));
    return pin;
}

// Replaces a value behind the store's back; NULL removes it.
static void tamper(struct rocks *rocks, unsigned family, struct store_key key, const void *value, size_t size)
{
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    if (value)
        store_put(rocks, batch, family, &key, (struct bytes){value, size});
    else
        store_delete(rocks, batch, family, &key);
    expect_ok(rocks_write(rocks->db, rocks->write, batch, &err));
}

// Changes one byte of a value that is there.
static void flip(struct rocks *rocks, unsigned family, struct store_key key, size_t offset)
{
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    expect_ok(store_get(rocks, family, &key, &slice, &err));
    cr_assert(slice);
    uint8_t value[PAGE_SIZE_MAX];
    struct bytes bytes = rocks_slice(slice);
    cr_assert(offset < bytes.size && bytes.size <= sizeof value);
    memcpy(value, bytes.data, bytes.size);
    value[offset] ^= 1;
    tamper(rocks, family, key, value, bytes.size);
}

static void expect_corrupt_page(struct store_volume *volume, uint32_t pageidx, enum graft_detail detail)
{
    struct store_pin *pin = pin_head(volume);
    struct graft_error said;
    struct store_page found;
    uint8_t page[PAGE_SIZE_MAX];
    cr_assert_eq(store_read(pin, pageidx, page, sizeof page, &found, &said), GRAFT_CORRUPT);
    cr_assert_eq(said.detail, detail, "%s", said.message);
    cr_assert(strstr(said.message, gid_format(store_volume_vid(volume)).text), "%s", said.message);
    char name[32];
    snprintf(name, sizeof name, "page %u", pageidx);
    cr_assert(strstr(said.message, name), "%s", said.message);
    store_pin_release(pin);
}

// ---- the directory

Test(store_damage, a_locked_directory_names_its_holder)
{
    struct store *second;
    struct store_settings settings = {.directory = fixture.directory};
    struct graft_error err;
    cr_assert_eq(store_open(&settings, &second, &err), GRAFT_BUSY);
    cr_assert_eq(err.detail, GRAFT_DETAIL_LOCKED);
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    cr_assert(strstr(err.message, pid), "%s", err.message);
}

Test(store_damage, a_forked_child_is_told_so)
{
    pid_t child = fork();
    if (child == 0) {
        struct graft_error err;
        bool told =
            store_check_fork(fixture.store, &err) == GRAFT_INVALID && err.detail == GRAFT_DETAIL_FORKED;
        store_close(fixture.store); // returns, though the parent's threads are not here
        _exit(told ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    expect_ok(store_check_fork(fixture.store, &err));
}

static void put_file(const char *name, const void *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", fixture.directory, name);
    if (data)
        expect_ok(files_replace(path, data, size, &err));
    else
        cr_assert_eq(unlink(path), 0);
}

static enum graft_status reopen(struct graft_error *err)
{
    return store_open(&fixture.settings, &fixture.store, err);
}

Test(store_damage, a_foreign_or_newer_directory_is_refused)
{
    struct gid cid = *store_cid(fixture.store);
    fixture_close(&fixture);
    uint8_t file[STORE_CLIENT_FILE_SIZE];
    store_client_encode(&cid, file);
    put_file("client", NULL, 0);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, reopen(&err));
    put_file("client", "something else entirely", 23);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, reopen(&err));
    file[8]++;
    put_file("client", file, sizeof file);
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, reopen(&err));
    file[8]--;
    file[15] ^= 1;
    put_file("client", file, sizeof file);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM, reopen(&err));
    file[15] ^= 1;
    put_file("client", file, sizeof file);
    expect_ok(reopen(&err));
}

Test(store_damage, damaged_notes_of_the_store_itself_keep_it_from_opening)
{
    tamper(fixture.store->local, FAMILY_VOLUMES, store_key_next_number(), "123", 3);
    fixture_close(&fixture);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, reopen(&err));
    fixture.store = NULL;
    // Mended by hand, as nothing else can.
    struct rocks_settings settings = {
        .block_cache_size = 1 << 20, .write_buffer_size = 1 << 20, .max_open_files = 16};
    static const struct rocks_family families[] = {{.name = "volumes"},    {.name = "index"},
                                                   {.name = "pages"},      {.name = "commits"},
                                                   {.name = "superseded"}, {.name = "cuts"}};
    char path[128];
    snprintf(path, sizeof path, "%s/local", fixture.directory);
    struct rocks *rocks;
    expect_ok(rocks_open(path, &settings, families, ARRAY_COUNT(families), &rocks, &err));
    tamper(rocks, FAMILY_VOLUMES, store_key_next_number(), NULL, 0);
    tamper(rocks, FAMILY_VOLUMES, store_key_staging(3), "short", 5);
    rocks_close(rocks);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, reopen(&err));
    expect_ok(rocks_open(path, &settings, families, ARRAY_COUNT(families), &rocks, &err));
    tamper(rocks, FAMILY_VOLUMES, store_key_staging(3), NULL, 0);
    rocks_close(rocks);
    expect_ok(reopen(&err));
}

Test(store_damage, a_damaged_list_of_staged_pages_keeps_the_store_from_opening)
{
    tamper(fixture.store->local, FAMILY_VOLUMES, store_key_staging(3), "\1\0\0\0\0\0\0\0", 8);
    tamper(fixture.store->local, FAMILY_COMMITS, store_key_commit(3, 1, 1), "\x80", 1);
    fixture_close(&fixture);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_PAGESET, reopen(&err));
}

// ---- records

Test(store_damage, a_damaged_volume_harms_no_other)
{
    store_volume_close(fixture_create(&fixture, 1, 512));
    store_volume_close(fixture_create(&fixture, 2, 512));
    struct gid first = fixture_vid(1), second = fixture_vid(2);
    flip(fixture.store->local, FAMILY_VOLUMES, store_key_volume(&first), 60);
    struct store_volume *volume;
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
                 store_volume_open(fixture.store, &first, &volume, &err));
    expect_ok(store_volume_open(fixture.store, &second, &volume, &err));
    fixture_commit(volume, 1, 1, 1);
    store_volume_close(volume);
}

Test(store_damage, a_damaged_index_entry_is_reported)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 2, 1);
    tamper(fixture.store->local, FAMILY_INDEX, store_key_version(volume->number, 2, 1), "\7", 1);
    expect_corrupt_page(volume, 2, GRAFT_DETAIL_BAD_MESSAGE);
    struct store_writer *writer;
    uint8_t page[512] = {0};
    expect_ok(store_writer_begin(volume, &writer, &err));
    expect_ok(store_writer_write(writer, 2, page, sizeof page, &err));
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, store_writer_commit(writer, NULL, &err));
    struct store_pin *pin = pin_head(volume);
    expect_page(pin, 1, 1);
    store_pin_release(pin);
    store_volume_close(volume);
}

Test(store_damage, a_damaged_list_of_commits_is_reported)
{
    struct store_volume *volume = make_clone(1);
    fixture_commit(volume, 1, 2, 1);
    fixture_commit(volume, 1, 2, 2);
    struct token token = {.bytes = {1}};
    struct store_push push;
    tamper(fixture.store->local, FAMILY_COMMITS, store_key_commit(volume->number, 2, 0), "\1", 1);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, store_push_begin(volume, &token, &push, &err));
    tamper(fixture.store->local, FAMILY_COMMITS, store_key_commit(volume->number, 2, 0), NULL, 0);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, store_push_begin(volume, &token, &push, &err));
    tamper(fixture.store->local, FAMILY_COMMITS, store_key_commit(volume->number, 2, 0),
           "\0\0\0\0\0\0\0\0\x80", 9);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, store_push_begin(volume, &token, &push, &err));
    struct store_pull pull = {.after_lsn = 5, .head = fixture_remote(6, 10), .cut = 10};
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, store_apply_reset(volume, &pull, &err));
    store_volume_close(volume);
}

Test(store_damage, a_missing_commit_request_is_reported)
{
    struct store_volume *volume = make_clone(1);
    fixture_commit(volume, 1, 2, 1);
    struct token token = {.bytes = {1}};
    struct store_push push;
    struct hash128 digest = {.bytes = {2}};
    expect_ok(store_push_begin(volume, &token, &push, &err));
    expect_ok(store_push_committing(volume, &digest, (struct bytes){(const uint8_t *)"x", 1}, &err));
    tamper(fixture.store->local, FAMILY_VOLUMES, store_key_request(volume->number), NULL, 0);
    _cleanup_(buffer_release) struct buffer request = BUFFER_INIT(100);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, store_push_request(volume, &request, &err));
    store_volume_close(volume);
}

// ---- pages

Test(store_damage, a_local_page_that_went_bad_is_corrupt)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 5, 1);
    struct rocks *local = fixture.store->local;
    uint8_t bytes[600] = {0};
    flip(local, FAMILY_PAGES, store_key_version(volume->number, 1, 1), 100); // its bytes
    flip(local, FAMILY_PAGES, store_key_version(volume->number, 2, 1), 3);   // its checksum
    tamper(local, FAMILY_PAGES, store_key_version(volume->number, 3, 1), NULL, 0);
    tamper(local, FAMILY_PAGES, store_key_version(volume->number, 4, 1), bytes, 600);
    tamper(local, FAMILY_PAGES, store_key_version(volume->number, 5, 1), bytes, 4);
    for (uint32_t pageidx = 1; pageidx <= 5; pageidx++)
        expect_corrupt_page(volume, pageidx, GRAFT_DETAIL_BAD_CHECKSUM);
    store_volume_close(volume);
}

Test(store_damage, a_page_in_anothers_place_is_corrupt)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 2, 1);
    struct rocks *local = fixture.store->local;
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    struct store_key key = store_key_version(volume->number, 1, 1);
    expect_ok(store_get(local, FAMILY_PAGES, &key, &slice, &err));
    tamper(local, FAMILY_PAGES, store_key_version(volume->number, 2, 1), rocks_slice(slice).data,
           rocks_slice(slice).size);
    expect_corrupt_page(volume, 2, GRAFT_DETAIL_BAD_CHECKSUM);
    store_volume_close(volume);
}

Test(store_damage, a_fetched_page_that_went_bad_is_pending_again)
{
    struct store_volume *volume = make_clone(1);
    struct rocks *fetched = fixture.store->fetched;
    struct store_counts counts;
    for (uint32_t pageidx = 1; pageidx <= 5; pageidx++)
        arrive(volume, pageidx);
    expect_ok(store_volume_counts(volume, &counts, &err));
    cr_assert_eq(counts.available, 5);
    struct store_pin *pin = pin_head(volume);
    expect_page(pin, 1, 1); // leaves a hint, which must not matter
    flip(fetched, FETCHED_PAGES, store_key_fetched(volume->number, 1, 1), 100); // its bytes
    flip(fetched, FETCHED_PAGES, store_key_fetched(volume->number, 2, 1), 12);  // its checksum
    flip(fetched, FETCHED_PAGES, store_key_fetched(volume->number, 3, 1), 2);   // whose mark it is
    tamper(fetched, FETCHED_PAGES, store_key_fetched(volume->number, 4, 1), "short", 5);
    tamper(fetched, FETCHED_PAGES, store_key_fetched(volume->number, 5, 1), NULL, 0);
    for (uint32_t pageidx = 1; pageidx <= 5; pageidx++)
        expect_state(pin, pageidx, STORE_PAGE_PENDING);
    expect_ok(store_volume_counts(volume, &counts, &err));
    cr_assert_eq(counts.available, 0);
    cr_assert_eq(counts.pending, 10);
    _cleanup_(pageset_free_p) struct pageset *all = pageset_new();
    pageset_add_run(all, 1, 10);
    struct store_page missing[10];
    size_t count;
    uint32_t cursor = 1;
    expect_ok(store_missing(pin, all, &cursor, missing, 10, &count, &err));
    cr_assert_eq(count, 10);
    for (uint32_t pageidx = 1; pageidx <= 5; pageidx++) {
        arrive(volume, pageidx);
        expect_page(pin, pageidx, 1);
    }
    store_pin_release(pin);
    store_volume_close(volume);
}

// ---- failing disks

static void limit_file_size(rlim_t size)
{
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {.rlim_cur = size, .rlim_max = RLIM_INFINITY};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static enum graft_status commit_one(struct store_volume *volume, uint32_t tag, struct graft_error *err)
{
    struct store_writer *writer;
    uint8_t page[4096];
    fixture_fill(page, sizeof page, 1, tag);
    enum graft_status status = store_writer_begin(volume, &writer, err);
    if (status != GRAFT_OK)
        return status;
    status = store_writer_write(writer, 1, page, sizeof page, err);
    if (status != GRAFT_OK) {
        store_writer_abort(writer);
        return status;
    }
    return store_writer_commit(writer, NULL, err);
}

Test(store_damage, a_failed_write_closes_the_store_and_loses_nothing)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 4096);
    uint32_t acknowledged = 0;
    struct graft_error said = {.message = ""};
    limit_file_size(256 * 1024);
    enum graft_status status = GRAFT_OK;
    while (status == GRAFT_OK && acknowledged < 1000) {
        status = commit_one(volume, acknowledged + 1, &said);
        acknowledged += status == GRAFT_OK;
    }
    cr_assert_eq(status, GRAFT_INTERNAL, "%s", said.message);
    cr_assert_eq(said.detail, GRAFT_DETAIL_IO, "%s", said.message);
    limit_file_size(RLIM_INFINITY);
    // Room is no reason to go on: nobody knows what of the failed write is on the disk.
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, commit_one(volume, 5000, &err));
    struct store_pin *pin;
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, store_pin_open(volume, &pin, &err));
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, store_set_status(volume, GRAFT_VOLUME_OK, NULL, &err));
    store_volume_close(volume);
    fixture_close(&fixture);
    fixture_open(&fixture);
    struct gid vid = fixture_vid(1);
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
    expect_ok(store_pin_open(volume, &pin, &err));
    cr_assert(store_pin_lsn(pin) == acknowledged || store_pin_lsn(pin) == acknowledged + 1);
    expect_page(pin, 1, (uint32_t)store_pin_lsn(pin));
    store_pin_release(pin);
    store_volume_close(volume);
}
