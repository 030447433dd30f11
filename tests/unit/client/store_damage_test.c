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
    static const struct rocks_family families[] = {
        {.name = "volumes"}, {.name = "index"},      {.name = "extents", .sums = true},
        {.name = "commits"}, {.name = "superseded"}, {.name = "cuts"}};
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
    static const uint8_t note[STORE_STAGING_SIZE] = {1};
    tamper(fixture.store->local, FAMILY_VOLUMES, store_key_staging(3), note, sizeof note);
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

static void set_version(struct store_volume *volume, uint32_t pageidx, uint64_t lsn,
                        const struct store_version *version)
{
    uint8_t value[STORE_VERSION_SIZE_MAX];
    size_t size = store_version_encode(version, value);
    tamper(fixture.store->local, FAMILY_INDEX, store_key_version(volume->number, pageidx, lsn), value, size);
}

Test(store_damage, a_local_page_that_went_bad_is_corrupt)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 6, 1);
    fixture_flip_page(&fixture, volume, 1, 1, 100);
    struct store_version version = fixture_version(volume, 2, 1);
    version.checksum ^= 1;
    set_version(volume, 2, 1, &version);
    version = fixture_version(volume, 3, 1);
    version.place += 8;
    set_version(volume, 3, 1, &version);
    version = fixture_version(volume, 4, 1);
    version.place = (uint64_t)4000 * EXTENT_SIZE; // no such extent
    set_version(volume, 4, 1, &version);
    version = fixture_version(volume, 5, 1);
    version.size = 600;
    set_version(volume, 5, 1, &version);
    for (uint32_t pageidx = 1; pageidx <= 5; pageidx++)
        expect_corrupt_page(volume, pageidx, GRAFT_DETAIL_BAD_CHECKSUM);
    struct store_pin *pin = pin_head(volume);
    expect_page(pin, 6, 1);
    store_pin_release(pin);
    store_volume_close(volume);
}

Test(store_damage, a_page_in_anothers_place_is_corrupt)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    fixture_commit(volume, 1, 2, 1);
    struct store_version version = fixture_version(volume, 1, 1);
    set_version(volume, 2, 1, &version);
    expect_corrupt_page(volume, 2, GRAFT_DETAIL_BAD_CHECKSUM);
    store_volume_close(volume);
}

// Pushes what is unpushed, as the servers' LSN 6.
static void push_all(struct store_volume *volume, uint32_t page_count)
{
    struct token token = {.bytes = {1}};
    struct hash128 digest = {.bytes = {2}};
    struct store_push push;
    struct store_remote landed = fixture_remote(6, page_count);
    expect_ok(store_push_begin(volume, &token, &push, &err));
    expect_ok(store_push_committing(volume, &digest, (struct bytes){(const uint8_t *)"x", 1}, &err));
    expect_ok(store_push_settle(volume, &landed, &err));
}

Test(store_damage, a_pushed_page_that_went_bad_is_pending_at_the_mapping)
{
    struct store_volume *volume = make_clone(1);
    struct store_counts counts;
    fixture_commit(volume, 1, 3, 1);
    push_all(volume, 10);
    fixture_commit(volume, 2, 1, 2);
    expect_ok(store_volume_counts(volume, &counts, &err));
    cr_assert_eq(counts.available, 3);
    struct store_pin *pin = pin_head(volume);
    expect_page(pin, 1, 1); // a hint must not matter
    fixture_flip_page(&fixture, volume, 1, 2, 100);
    fixture_flip_page(&fixture, volume, 2, 3, 100);
    uint8_t page[512];
    struct store_page found;
    expect_ok(store_read(pin, 1, page, sizeof page, &found, &err));
    cr_assert(found.state == STORE_PAGE_PENDING && found.mark_lsn == 2 && found.ask.lsn == 6);
    expect_exact_accounts(&fixture);
    expect_ok(store_volume_counts(volume, &counts, &err));
    cr_assert(counts.available == 2 && counts.pending == 8);
    // What comes from the servers is kept under it.
    struct store_arrivals *arrivals;
    fixture_fill(page, sizeof page, 1, 1);
    expect_ok(store_arrivals_new(volume, &arrivals, &err));
    expect_ok(store_arrivals_add(arrivals, 1, 2, page, sizeof page, &err));
    expect_ok(store_arrivals_flush(arrivals, &err));
    store_arrivals_free(arrivals);
    expect_page(pin, 1, 1);
    // The page that was not pushed is lost.
    expect_corrupt_page(volume, 2, GRAFT_DETAIL_BAD_CHECKSUM);
    store_pin_release(pin);
    fixture_commit(volume, 1, 3, 4);
    expect_exact_accounts(&fixture);
    store_volume_close(volume);
}

// Changes a byte of a page that arrived, in its file.
static void flip_byte_in_cache(struct rocks *fetched, struct store_key key, off_t offset)
{
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    struct store_arrived arrived;
    char path[128];
    uint8_t byte;
    expect_ok(store_get(fetched, FETCHED_ARRIVED, &key, &slice, &err));
    cr_assert(slice && store_arrived_decode(rocks_slice(slice), &arrived) && arrived.size > offset);
    snprintf(path, sizeof path, "%s/cache/%08x", fixture.directory,
             place_extent(arrived.place) / EXTENTS_PER_FILE);
    int fd = open(path, O_RDWR);
    offset += (off_t)(arrived.place % ((uint64_t)EXTENTS_PER_FILE * EXTENT_SIZE));
    cr_assert(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
    byte ^= 0x10;
    cr_assert(pwrite(fd, &byte, 1, offset) == 1);
    close(fd);
}

Test(store_damage, a_fetched_page_that_went_bad_is_pending_again)
{
    struct store_volume *volume = make_clone(1);
    struct rocks *fetched = fixture.store->fetched;
    struct store_counts counts;
    for (uint32_t pageidx = 1; pageidx <= 6; pageidx++)
        arrive(volume, pageidx);
    expect_ok(store_volume_counts(volume, &counts, &err));
    cr_assert_eq(counts.available, 6);
    struct store_pin *pin = pin_head(volume);
    expect_page(pin, 1, 1); // leaves a hint, which must not matter
    flip_byte_in_cache(fetched, store_key_fetched(volume->number, 1, 1), 100);
    flip(fetched, FETCHED_ARRIVED, store_key_fetched(volume->number, 2, 1), 22); // its checksum
    flip(fetched, FETCHED_ARRIVED, store_key_fetched(volume->number, 3, 1), 2);  // whose mark it is
    tamper(fetched, FETCHED_ARRIVED, store_key_fetched(volume->number, 4, 1), "short", 5);
    flip(fetched, FETCHED_ARRIVED, store_key_fetched(volume->number, 5, 1),
         15); // its place: far beyond the files
    flip(fetched, FETCHED_ARRIVED, store_key_fetched(volume->number, 6, 1), 17); // its size
    for (uint32_t pageidx = 1; pageidx <= 6; pageidx++)
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
    for (uint32_t pageidx = 1; pageidx <= 6; pageidx++) {
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

// Page 1, and one that was not there: what is rewritten alone soon needs no more space.
static enum graft_status commit_one(struct store_volume *volume, uint32_t tag, struct graft_error *err)
{
    struct store_writer *writer;
    uint8_t page[4096];
    fixture_fill(page, sizeof page, 1, tag);
    enum graft_status status = store_writer_begin(volume, &writer, err);
    if (status != GRAFT_OK)
        return status;
    status = store_writer_write(writer, 1, page, sizeof page, err);
    if (status == GRAFT_OK)
        status = store_writer_write(writer, 1 + tag, page, sizeof page, err);
    if (status != GRAFT_OK) {
        store_writer_abort(writer);
        return status;
    }
    return store_writer_commit(writer, NULL, err);
}

static void expect_head(struct store_volume *volume, uint32_t tag)
{
    struct store_pin *pin = pin_head(volume);
    expect_page(pin, 1, tag);
    store_pin_release(pin);
}

Test(store_damage, a_page_file_that_cannot_grow_fails_commits_and_nothing_else)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 4096);
    struct graft_error said;
    limit_file_size(256 * 1024);
    cr_assert_eq(commit_one(volume, 1, &said), GRAFT_INTERNAL);
    limit_file_size(RLIM_INFINITY);
    fixture_commit(volume, 1, 1, 2);
    // The next extents are claimed when the first are full.
    uint64_t size = 4 * MIB;
    uint32_t tag = 2, failures = 0;
    limit_file_size(size);
    for (unsigned i = 0; i < 1500 && failures < 3; i++) {
        enum graft_status status = commit_one(volume, tag + 1, &said);
        tag += status == GRAFT_OK;
        failures += status != GRAFT_OK;
        expect_head(volume, tag);
    }
    cr_assert_eq(failures, 3);
    cr_assert_eq(said.status, GRAFT_INTERNAL);
    limit_file_size(RLIM_INFINITY);
    for (unsigned i = 0; i < 100; i++)
        fixture_commit(volume, 1, 1, ++tag);
    expect_head(volume, tag);
    expect_exact_accounts(&fixture);
    store_volume_close(volume);
    fixture_close(&fixture);
    fixture_open(&fixture);
    struct gid vid = fixture_vid(1);
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
    expect_head(volume, tag);
    expect_exact_accounts(&fixture);
    store_volume_close(volume);
}
