// SPDX-License-Identifier: Apache-2.0
//
// The store's page files and their log, and how the index beside them goes to the disk.
//
//     full     a commit: its run, synced ──▶ the index, logged and not synced; the next synced write takes it along
//     normal   a commit: its run, not synced ──▶ the index, its log held back in memory. A *sync point* comes before anything
//              synced, and before so much is held back that RocksDB would write some of it by itself: the page files are
//              synced, then the log of the index. So no index on the disk is ahead of its pages. After a crash of the
//              process alone the runs are there and are replayed.
//
// Claims are written synced, and so make all of the index before them durable: an extent that was empty when it began is
// free when that is done.
#include <stdio.h>
#include <stdlib.h>

#include "client/store_internal.h"
#include "client/store_space.h"
#include "common/base/checksum.h"
#include "common/base/failpoint.h"
#include "common/base/random.h"

#define PAGE_FILES_OPEN_MAX 128u

// ---- writing the index

// Half of what RocksDB holds back.
#define UNSYNCED_MAX (ROCKS_LOG_HELD_MAX / 2)

// Before RocksDB flushes by itself, as it may at any write: tables are to hold nothing that is not in the synced log.
static enum graft_status flush_in_time(struct store *store, struct graft_error *err)
{
    if (store->unflushed < store->unflushed_max)
        return GRAFT_OK;
    enum graft_status status = rocks_flush(store->local, err);
    if (status == GRAFT_OK)
        store->unflushed = 0;
    return status;
}

// With the batch, whose pages were appended before.
static enum graft_status sync_point_locked(struct store *store, rocksdb_writebatch_t *batch,
                                           struct graft_error *err)
{
    enum graft_status status = extents_sync(store->pages, err);
    if (status == GRAFT_OK)
        status = rocks_write(store->local->db, store->local->write_synced, batch, err);
    if (status == GRAFT_OK)
        store->unsynced = 0;
    return status == GRAFT_OK ? flush_in_time(store, err) : status;
}

static enum graft_status sync_point(struct store *store, rocksdb_writebatch_t *batch, struct graft_error *err)
{
    pthread_rwlock_wrlock(&store->sync_point_lock);
    enum graft_status status = sync_point_locked(store, batch, err);
    pthread_rwlock_unlock(&store->sync_point_lock);
    return status;
}

static enum graft_status write_held(struct store *store, rocksdb_writebatch_t *batch, struct graft_error *err)
{
    pthread_rwlock_rdlock(&store->sync_point_lock);
    enum graft_status status = rocks_write(store->local->db, store->local->write, batch, err);
    pthread_rwlock_unlock(&store->sync_point_lock);
    return status;
}

enum graft_status store_write_local(struct store *store, bool synced, rocksdb_writebatch_t *batch,
                                    struct graft_error *err)
{
    struct rocks *local = store->local;
    if (store->sync_commits)
        return rocks_write(local->db, synced ? local->write_synced : local->write, batch, err);
    size_t size;
    rocksdb_writebatch_data(batch, &size);
    atomic_fetch_add(&store->unflushed, size);
    synced = atomic_fetch_add(&store->unsynced, size) + size >= UNSYNCED_MAX || synced;
    return synced ? sync_point(store, batch, err) : write_held(store, batch, err);
}

void store_put_changes(struct rocks *rocks, unsigned family, rocksdb_writebatch_t *batch,
                       const struct extent_changes *changes)
{
    for (size_t i = 0; i < changes->count; i++) {
        struct store_key key = store_key_extent(changes->items[i].extent);
        if (changes->items[i].bytes != 0)
            rocks_batch_add(batch, rocks->families[family], store_key_bytes(&key), changes->items[i].bytes);
    }
}

enum graft_status store_write_changes(struct store *store, rocksdb_writebatch_t *batch,
                                      const struct extent_changes *changes, struct graft_error *err)
{
    store_put_changes(store->local, FAMILY_EXTENTS, batch, changes);
    enum graft_status status = store_write(store, store->local, false, batch, err);
    if (status == GRAFT_OK)
        extents_apply(store->pages, changes);
    if (status == GRAFT_OK && store->space)
        store_space_poke(store->space, EXTENT_SIZE); // something may have died
    return status;
}

enum graft_status store_log_settle(struct store *store, struct graft_error *err)
{
    // A synced write takes all before it along; this one says nothing.
    static const struct store_key nothing = {.bytes = {'Z'}, .size = 1};
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    store_delete(store->local, batch, FAMILY_VOLUMES, &nothing);
    uint64_t began = extents_settle_begin(store->pages);
    enum graft_status status = FAILPOINT_ERROR("settle.before", err);
    if (status == GRAFT_OK)
        status = store_write(store, store->local, true, batch, err);
    FAILPOINT("settle.after");
    if (status == GRAFT_OK)
        extents_settle_end(store->pages, began);
    return status;
}

// ---- appending

static enum graft_status keep_claims(void *context, const struct page_log_claims *claims,
                                     struct graft_error *err)
{
    struct store *store = context;
    _cleanup_(free_p) uint8_t *value = malloc(PAGE_LOG_CLAIMS_SIZE_MAX);
    if (!value)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to claim page files");
    size_t size = page_log_claims_encode(claims, value);
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct store_key key = store_key_claims();
    store_put(store->local, batch, FAMILY_VOLUMES, &key, (struct bytes){value, size});
    uint64_t began = extents_settle_begin(store->pages);
    enum graft_status status = FAILPOINT_ERROR("claims.before", err);
    if (status == GRAFT_OK)
        status = store_write(store, store->local, true, batch, err);
    FAILPOINT("claims.after");
    if (status == GRAFT_OK)
        extents_settle_end(store->pages, began);
    return status;
}

// A log that will never write again closes the store; one that could not write just now does not.
static void fail_with_log(struct store *store)
{
    struct graft_error why;
    if (page_log_claim_ahead(store->log, 0, &why) != GRAFT_OK)
        store_fail(store, &why);
}

static uint64_t size_of_append(const struct page_log_append *append)
{
    uint64_t size = RUN_ALIGNMENT;
    for (uint32_t i = 0; i < append->page_count; i++)
        size += append->pages[i].entry.size;
    return size;
}

enum graft_status store_log_append(struct store *store, struct page_log_append *appends, unsigned count,
                                   bool synced, struct graft_error *err)
{
    // The cleaner's own make room.
    bool takes_room = appends[0].header.kind == RUN_COMMIT;
    uint64_t size = 0;
    for (unsigned i = 0; takes_room && i < count; i++)
        size += size_of_append(&appends[i]);
    if (takes_room)
        store_space_wait(store->space, size);
    enum graft_status status = page_log_append(store->log, appends, count, synced, err);
    if (status != GRAFT_OK)
        fail_with_log(store);
    if (takes_room)
        store_space_poke(store->space, size);
    return status;
}

void store_log_void(struct store *store, struct page_log_append *appends, unsigned count)
{
    struct graft_error why;
    // One that is missing takes the others of its group along.
    if (page_log_void(store->log, &appends[0], &why) != GRAFT_OK)
        store_fail(store, &why);
    for (unsigned i = 1; i < count; i++)
        page_log_applied(store->log, &appends[i]);
}

// ---- opening and closing

static enum graft_status load_live(struct store *store, struct graft_error *err)
{
    struct store_key all = {.size = 0};
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = store_scan(store->local, FAMILY_EXTENTS, &all);
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator)) {
        struct bytes value = rocks_iter_value(scan->iterator);
        uint32_t extent;
        if (!store_key_parse_extent(rocks_iter_key(scan->iterator), &extent) || value.size != 8)
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                             "the local store's table of extents has a damaged entry");
        uint64_t live = get_le64(value.data);
        enum graft_status status = live > 0 ? extents_set_live(store->pages, extent, live, err) : GRAFT_OK;
        if (status != GRAFT_OK)
            return status;
    }
    return rocks_iter_status(scan->iterator, "reading what the page files hold", err);
}

static enum graft_status read_claims(struct store *store, struct page_log_claims *claims, bool *ret_exists,
                                     struct graft_error *err)
{
    struct store_key key = store_key_claims();
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status = store_get(store->local, FAMILY_VOLUMES, &key, &slice, err);
    *ret_exists = slice != NULL;
    if (status != GRAFT_OK || !slice)
        return status;
    return page_log_claims_decode(rocks_slice(slice), claims, err);
}

// What is replayed may have been written and not synced by a process that was killed: the index is not to get ahead of it.
static enum graft_status sync_claimed(struct store *store, const struct page_log_claims *claims,
                                      struct graft_error *err)
{
    for (uint32_t i = 0; i < claims->count; i++) {
        enum graft_status status = extents_unsynced(store->pages, claims->extents[i], err);
        if (status != GRAFT_OK && status != GRAFT_CORRUPT) // one that is not there has no pages either
            return status;
    }
    return extents_sync(store->pages, err);
}

enum graft_status store_log_open(struct store *store, struct graft_error *err)
{
    store->log_store = checksum64(store->cid.bytes, GID_SIZE);
    char *path = NULL;
    CHECK(asprintf(&path, "%s/pages", store->directory) > 0);
    struct extents_settings settings = {
        .directory = path, .durable = true, .open_files_max = PAGE_FILES_OPEN_MAX};
    enum graft_status status = extents_open(&settings, &store->pages, err);
    free(path);
    if (status == GRAFT_OK)
        status = load_live(store, err);
    _cleanup_(free_p) struct page_log_claims *claims = calloc(1, sizeof *claims);
    CHECK(claims);
    bool exists = false;
    if (status == GRAFT_OK)
        status = read_claims(store, claims, &exists, err);
    FAILPOINT("replay.before");
    if (status == GRAFT_OK && exists)
        status = sync_claimed(store, claims, err);
    if (status == GRAFT_OK && exists && claims->count > 0)
        status = store_replay(store, claims, err);
    FAILPOINT("replay.after");
    return status;
}

static struct page_log_claims *no_claims(uint64_t epoch)
{
    struct page_log_claims *claims = calloc(1, sizeof *claims);
    CHECK(claims);
    claims->epoch = epoch;
    return claims;
}

enum graft_status store_log_start(struct store *store, struct graft_error *err)
{
    struct page_log_settings settings = {
        .extents = store->pages, .store = store->log_store, .context = store, .keep_claims = keep_claims};
    random_bytes(&settings.epoch, sizeof settings.epoch);
    _cleanup_(free_p) struct page_log_claims *claims = no_claims(settings.epoch);
    enum graft_status status = keep_claims(store, claims, err);
    if (status != GRAFT_OK)
        return status;
    // The index that is on the disk now says what is free.
    extents_start(store->pages);
    return page_log_new(&settings, &store->log, err);
}

void store_log_stop(struct store *store)
{
    if (!store->log || store_check_usable(store, NULL) != GRAFT_OK)
        return;
    // Of an epoch that nobody writes in: whatever lies in the files is no run of it.
    uint64_t epoch;
    random_bytes(&epoch, sizeof epoch);
    _cleanup_(free_p) struct page_log_claims *claims = no_claims(epoch);
    // If it fails the next opening replays.
    keep_claims(store, claims, NULL);
}

void store_log_close(struct store *store)
{
    page_log_free(TAKE(store->log));
    extents_close(TAKE(store->pages));
}
