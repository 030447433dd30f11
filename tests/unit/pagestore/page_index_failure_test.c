// SPDX-License-Identifier: Apache-2.0
//
// The page-version index on a disk that refuses writes: this program's own write() stands in front of the system's, also for
// RocksDB.
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/random.h"
#include "common/net/message.h"
#include "pagestore/page_index.h"
#include "tests/lib/daemon.h"

#define PAGES 8u
#define RECOVERY_S 60 // RocksDB looks every few seconds whether there is room again

static atomic_int write_error; // of writes to the index's log; 0: none
static char folder_path[2048];

static bool is_log(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 4)
        return false;
    path[size] = '\0';
    return strncmp(path, folder_path, strlen(folder_path)) == 0 && strcmp(path + size - 4, ".log") == 0;
}

__attribute__((visibility("default"))) ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*next)(int, const void *, size_t);
    if (!next)
        next = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (write_error == 0 || !is_log(fd))
        return next(fd, data, size);
    errno = write_error;
    return -1;
}

// ---- a volume's history: each commit writes all its pages

static struct history {
    struct gid vid, sid;
    struct hash128 chain[4];
} history;

static enum graft_status apply(struct index_volume *volume, uint64_t lsn, uint32_t cut,
                               struct graft_error *err)
{
    Graft__Commit commit = GRAFT__COMMIT__INIT;
    Graft__SegmentRef ref = GRAFT__SEGMENT_REF__INIT, *refs[] = {&ref};
    struct token token;
    struct hash128 digest = {{0}};
    _cleanup_(buffer_release) struct buffer wire = BUFFER_INIT(4096);
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    pageset_add_run(pages, 1, PAGES);
    cr_assert_eq(pageset_encode(pages, &wire, NULL), GRAFT_OK);
    memset(&token, (int)lsn, sizeof token);
    history.chain[lsn] = chain_next(&history.chain[lsn - 1], &history.vid, lsn, &token, &digest, PAGES);
    put_be64(history.sid.bytes + 8, lsn); // a segment for each commit
    ref.sid = (ProtobufCBinaryData){GID_SIZE, history.sid.bytes};
    ref.owner = commit.vid = (ProtobufCBinaryData){GID_SIZE, history.vid.bytes};
    ref.pages = (ProtobufCBinaryData){wire.size, wire.data};
    commit.lsn = lsn;
    commit.base_lsn = lsn - 1;
    commit.base_chain = (ProtobufCBinaryData){HASH_SIZE, history.chain[lsn - 1].bytes};
    commit.token = (ProtobufCBinaryData){TOKEN_SIZE, token.bytes};
    commit.digest = (ProtobufCBinaryData){HASH_SIZE, digest.bytes};
    commit.chain = (ProtobufCBinaryData){HASH_SIZE, history.chain[lsn].bytes};
    commit.page_count = PAGES;
    commit.cut = cut;
    commit.segments = refs;
    commit.n_segments = 1;
    return index_volume_apply(volume, &commit, err);
}

// The LSN that wrote each page that is seen at `lsn`.
static void expect_pages(struct page_index *index, struct index_volume *volume, uint64_t lsn)
{
    struct page_version versions[PAGES];
    struct graft_error err;
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    pageset_add_run(pages, 1, PAGES);
    cr_assert_eq(index_volume_resolve(volume, lsn, pages, versions, &err), GRAFT_OK, "%s", err.message);
    for (uint32_t i = 0; i < PAGES; i++) {
        struct segment_place place;
        cr_assert_eq(page_index_segment(index, versions[i].segment, &place, &err), GRAFT_OK, "%s",
                     err.message);
        cr_assert_eq(get_be64(place.sid.bytes + 8), lsn);
    }
}

// ---- the index

struct end {
    unsigned count;
    struct graft_error error;
};

static void on_fatal(void *context, const struct graft_error *error)
{
    struct end *end = context;
    end->count++;
    end->error = *error;
}

static struct page_index *open_index(struct end *end, struct index_volume **ret_volume)
{
    struct page_index *index;
    struct graft_error err;
    struct page_index_settings settings = {.path = folder_path, .on_fatal = on_fatal, .context = end};
    cr_assert_eq(page_index_open(&settings, &index, &err), GRAFT_OK, "%s", err.message);
    cr_assert_eq(page_index_volume(index, &history.vid, ret_volume, &err), GRAFT_OK, "%s", err.message);
    return index;
}

static void close_index(struct page_index *index, struct index_volume *volume)
{
    index_volume_release(volume);
    page_index_close(index);
}

static void begin(const char *folder)
{
    snprintf(folder_path, sizeof folder_path, "%s/index", folder);
    history = (struct history){.vid = gid_make(GID_VOLUME, 1), .sid = gid_make(GID_SEGMENT, 1)};
}

static void expect_closed(enum graft_status status, const struct graft_error *err, const struct end *end)
{
    cr_assert_eq(status, GRAFT_UNAVAILABLE, "%s", err->message);
    cr_assert_eq(err->detail, GRAFT_DETAIL_IO);
    cr_assert(strstr(err->message, "page-version index"), "%s", err->message);
    cr_assert_eq(end->count, 1);
    cr_assert_eq(end->error.status, GRAFT_INTERNAL);
    cr_assert(strstr(end->error.message, "writing the page-version index"), "%s", end->error.message);
}

// A write fails, of a commit's entries or of its cut: that is the end, even if the next one would succeed.
static void expect_end_by_commit(uint32_t cut)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct end end = {0};
    struct graft_error err;
    struct index_volume *volume;
    begin(folder);
    struct page_index *index = open_index(&end, &volume);
    cr_assert_eq(apply(volume, 1, 0, &err), GRAFT_OK, "%s", err.message);
    write_error = EIO;
    expect_closed(apply(volume, 2, cut, &err), &err, &end);
    write_error = 0;
    expect_closed(apply(volume, 2, cut, &err), &err, &end);
    expect_closed(index_volume_drop(volume, &err), &err, &end);
    close_index(index, volume);

    index = open_index(&end, &volume);
    cr_assert_eq(index_volume_state(volume).lsn, 1);
    expect_pages(index, volume, 1);
    cr_assert_eq(apply(volume, 2, cut, &err), GRAFT_OK, "%s", err.message);
    expect_pages(index, volume, 2);
    cr_assert_eq(end.count, 1);
    close_index(index, volume);
}

Test(page_index_failure, a_failed_write_of_entries_closes_it)
{
    expect_end_by_commit(PAGES);
}

Test(page_index_failure, a_failed_write_of_a_cut_closes_it)
{
    expect_end_by_commit(PAGES / 2);
}

Test(page_index_failure, a_failed_drop_closes_it_and_what_was_applied_is_still_read_until_then)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct end end = {0};
    struct graft_error err;
    struct index_volume *volume, *other;
    struct gid vid = gid_make(GID_VOLUME, 2);
    begin(folder);
    struct page_index *index = open_index(&end, &volume);
    cr_assert_eq(apply(volume, 1, 0, &err), GRAFT_OK, "%s", err.message);
    write_error = EIO;
    cr_assert_eq(page_index_volume(index, &vid, &other, &err), GRAFT_OK);
    cr_assert_eq(index_volume_drop(other, &err), GRAFT_OK); // nothing is known of it: nothing to write
    cr_assert_eq(end.count, 0);
    index_volume_release(other);
    expect_pages(index, volume, 1);
    expect_closed(index_volume_drop(volume, &err), &err, &end);
    write_error = 0;
    close_index(index, volume);

    index = open_index(&end, &volume);
    expect_pages(index, volume, 1);
    cr_assert_eq(index_volume_drop(volume, &err), GRAFT_OK, "%s", err.message);
    cr_assert_eq(index_volume_state(volume).lsn, 0);
    close_index(index, volume);
}

// RocksDB notices by itself that there is room again.
Test(page_index_failure, a_full_disk_passes, .timeout = 2 * RECOVERY_S)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    struct end end = {0};
    struct graft_error err;
    struct index_volume *volume;
    begin(folder);
    struct page_index *index = open_index(&end, &volume);
    cr_assert_eq(apply(volume, 1, 0, &err), GRAFT_OK, "%s", err.message);
    write_error = ENOSPC;
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(apply(volume, 2, PAGES / 2, &err), GRAFT_INTERNAL, "%s", err.message);
        cr_assert_eq(err.detail, GRAFT_DETAIL_NO_SPACE, "%s", err.message);
    }
    expect_pages(index, volume, 1);
    write_error = 0;
    struct timespec tenth = {.tv_nsec = 100000000};
    enum graft_status status = GRAFT_INTERNAL;
    for (int i = 0; i < 10 * RECOVERY_S && status != GRAFT_OK; i++) {
        status = apply(volume, 2, PAGES / 2, &err);
        cr_assert(status == GRAFT_OK || err.detail == GRAFT_DETAIL_NO_SPACE, "%s", err.message);
        if (status != GRAFT_OK)
            nanosleep(&tenth, NULL);
    }
    cr_assert_eq(status, GRAFT_OK, "%s", err.message);
    expect_pages(index, volume, 2);
    cr_assert_eq(end.count, 0);
    close_index(index, volume);
}
