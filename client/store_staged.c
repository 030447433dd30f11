// SPDX-License-Identifier: Apache-2.0
//
// What is staged above a volume's head: listed in `commits`, so that it can be found and dropped; noted under 'S', so that
// an opening need not look at other volumes.
#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"

void store_staged_release(struct store_staged *staged)
{
    pageset_free(TAKE(staged->pages));
}

enum graft_status store_remove_version_locked(struct store *store, const struct store_key *key,
                                              rocksdb_writebatch_t *batch, struct extent_changes *changes,
                                              struct store_version *ret_version, bool *ret_exists,
                                              struct graft_error *err)
{
    mutex_assert_held(&store->places_lock);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status = store_get(store->local, FAMILY_INDEX, key, &slice, err);
    *ret_exists = slice != NULL;
    if (status != GRAFT_OK || !slice)
        return status;
    store_delete(store->local, batch, FAMILY_INDEX, key);
    // One that cannot be read names no place, so nothing is counted for it; a read of it has said so, or will.
    if (!store_version_decode(rocks_slice(slice), ret_version))
        *ret_version = (struct store_version){.kind = STORE_VERSION_PENDING};
    if (ret_version->kind == STORE_VERSION_AVAILABLE)
        extent_changes_add(changes, ret_version->place, -(int64_t)ret_version->size);
    return GRAFT_OK;
}

// ---- dropping

static void forget_superseded(struct store *store, rocksdb_writebatch_t *batch, uint64_t number, uint64_t lsn,
                              uint32_t pageidx)
{
    struct store_key key = store_key_superseded(number, lsn, pageidx);
    store_delete(store->local, batch, FAMILY_SUPERSEDED, &key);
}

// Removes the versions at `lsn` of pages from the cursor on, with one batch of at most `max`.
static enum graft_status remove_some(struct store *store, uint64_t number, uint64_t lsn,
                                     struct pageset_cursor *cursor, unsigned max, bool *ret_more,
                                     struct graft_error *err)
{
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    _cleanup_(extent_changes_release) struct extent_changes changes = {.count = 0};
    LOCK_GUARD(&store->places_lock);
    unsigned count = 0;
    uint32_t pageidx;
    while (count < max && pageset_next(cursor, &pageidx)) {
        struct store_key key = store_key_version(number, pageidx, lsn);
        struct store_version version;
        bool exists;
        enum graft_status status =
            store_remove_version_locked(store, &key, batch, &changes, &version, &exists, err);
        if (status != GRAFT_OK)
            return status;
        forget_superseded(store, batch, number, lsn, pageidx);
        count++;
    }
    *ret_more = count == max;
    return store_write_changes(store, batch, &changes, err);
}

static enum graft_status remove_staged(struct store *store, uint64_t number, uint64_t lsn,
                                       const struct pageset *pages, uint32_t above, struct graft_error *err)
{
    struct pageset_cursor cursor = pageset_cursor(pages);
    cursor.next = (uint64_t)above + 1;
    bool more = true;
    while (more) {
        FAILPOINT("staged.remove");
        enum graft_status status = remove_some(store, number, lsn, &cursor, store->batch_entries, &more, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static enum graft_status bad_list(struct graft_error *err)
{
    return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_PAGESET,
                     "the local store's list of an unfinished commit is damaged");
}

// The pages first, then their list: what a crash leaves is found again.
static enum graft_status drop_part(struct store *store, uint64_t number, uint64_t lsn,
                                   const struct store_key *part_key, struct bytes part,
                                   struct graft_error *err)
{
    _cleanup_(pageset_free_p) struct pageset *pages = NULL;
    if (pageset_decode(part, PAGESET_RUNS_MAX, "pages", &pages, NULL) != GRAFT_OK)
        return bad_list(err);
    enum graft_status status = remove_staged(store, number, lsn, pages, 0, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    store_delete(store->local, batch, FAMILY_COMMITS, part_key);
    FAILPOINT("staged.drop.part");
    return store_write(store, store->local, false, batch, err);
}

static struct rocks_scan *scan_parts(struct store *store, uint64_t number, uint64_t lsn)
{
    struct store_key prefix = store_key_commit(number, lsn, 0);
    prefix.size -= 4;
    return store_scan(store->local, FAMILY_COMMITS, &prefix);
}

enum graft_status store_drop_staged(struct store *store, uint64_t number, uint64_t lsn,
                                    struct graft_error *err)
{
    // The note goes last: a crash in between leaves less to do.
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = scan_parts(store, number, lsn);
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator)) {
        uint64_t part_lsn;
        uint32_t part;
        if (!store_key_parse_commit(rocks_iter_key(scan->iterator), &part_lsn, &part))
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                             "the local store's list of commits has a damaged key");
        struct store_key key = store_key_commit(number, lsn, part);
        enum graft_status status = drop_part(store, number, lsn, &key, rocks_iter_value(scan->iterator), err);
        if (status != GRAFT_OK)
            return status;
    }
    enum graft_status status = rocks_iter_status(scan->iterator, "removing an unfinished commit", err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct store_key note = store_key_staging(number);
    store_delete(store->local, batch, FAMILY_VOLUMES, &note);
    FAILPOINT("staged.drop.note");
    return store_write(store, store->local, false, batch, err);
}

enum graft_status store_drop_staged_locked(struct store_volume *volume, struct graft_error *err)
{
    mutex_assert_held(&volume->commit_lock);
    uint64_t lsn = store_volume_record(volume).state.local_lsn + 1;
    enum graft_status status = store_drop_staged(volume->store, volume->number, lsn, err);
    volume->undropped = status != GRAFT_OK;
    return status;
}

enum graft_status store_drop_leftover_locked(struct store_volume *volume, struct graft_error *err)
{
    return volume->undropped ? store_drop_staged_locked(volume, err) : GRAFT_OK;
}

// ---- what a replay goes on with

// Adds the listed pages that have a version: others were cut off again.
static enum graft_status load_part(struct store_volume *volume, uint64_t lsn, struct bytes part,
                                   struct store_staged *staged, struct graft_error *err)
{
    _cleanup_(pageset_free_p) struct pageset *pages = NULL;
    if (pageset_decode(part, PAGESET_RUNS_MAX, "pages", &pages, NULL) != GRAFT_OK)
        return bad_list(err);
    struct pageset_cursor cursor = pageset_cursor(pages);
    uint32_t pageidx;
    while (pageset_next(&cursor, &pageidx)) {
        struct store_key key = store_key_version(volume->number, pageidx, lsn);
        _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
        enum graft_status status = store_get(volume->store->local, FAMILY_INDEX, &key, &slice, err);
        if (status != GRAFT_OK)
            return status;
        if (slice)
            pageset_add(staged->pages, pageidx);
    }
    return GRAFT_OK;
}

static enum graft_status load_note(struct store_volume *volume, struct store_staging *ret_staging,
                                   struct graft_error *err)
{
    struct store_key key = store_key_staging(volume->number);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    *ret_staging = (struct store_staging){.lsn = 0};
    enum graft_status status = store_get(volume->store->local, FAMILY_VOLUMES, &key, &slice, err);
    if (status == GRAFT_OK && slice && !store_staging_decode(rocks_slice(slice), ret_staging))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "the local store's note of an unfinished commit is damaged");
    return status;
}

enum graft_status store_staged_load(struct store_volume *volume, uint64_t lsn,
                                    struct store_staged *ret_staged, struct graft_error *err)
{
    struct store_staging note;
    _cleanup_(store_staged_release) struct store_staged staged = {.pages = pageset_new(), .cut = UINT32_MAX};
    enum graft_status status = load_note(volume, &note, err);
    if (status != GRAFT_OK)
        return status;
    if (note.lsn == lsn) {
        staged.runs = note.runs;
        staged.seq = note.seq;
        staged.cut = note.cut;
        _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = scan_parts(volume->store, volume->number, lsn);
        for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
             rocksdb_iter_next(scan->iterator)) {
            staged.lists++;
            status = load_part(volume, lsn, rocks_iter_value(scan->iterator), &staged, err);
            if (status != GRAFT_OK)
                return status;
        }
        staged.was_cut = true; // or may have been
        status = rocks_iter_status(scan->iterator, "reading an unfinished commit", err);
    }
    if (status == GRAFT_OK) {
        *ret_staged = staged;
        staged.pages = NULL;
    }
    return status;
}

// ---- cutting and publishing

enum graft_status store_staged_cut_locked(struct store_staged *staged, struct store_volume *volume,
                                          uint64_t lsn, uint32_t page_count, struct graft_error *err)
{
    mutex_assert_held(&volume->commit_lock);
    if (pageset_max(staged->pages) <= page_count)
        return GRAFT_OK;
    FAILPOINT("commit.cut_staged");
    enum graft_status status =
        remove_staged(volume->store, volume->number, lsn, staged->pages, page_count, err);
    if (status != GRAFT_OK)
        return status;
    pageset_remove_above(staged->pages, page_count);
    staged->was_cut = true;
    return GRAFT_OK;
}

// The lists of staged pages, made anew where pages in them were cut off again.
static enum graft_status list_again(const struct store_staged *staged, struct store_change *change,
                                    struct graft_error *err)
{
    store_change_forget_lists(change, staged->lists);
    struct pageset_cursor cursor = pageset_cursor(staged->pages);
    uint32_t pageidx, part = 0;
    bool more = pageset_next(&cursor, &pageidx);
    while (more) {
        _cleanup_(pageset_free_p) struct pageset *list = pageset_new();
        for (unsigned i = 0; more && i < 16 * change->volume->store->batch_entries; i++) {
            pageset_add(list, pageidx);
            more = pageset_next(&cursor, &pageidx);
        }
        enum graft_status status = store_change_part(change, ++part, 0, 0, list, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

enum graft_status store_staged_end(const struct store_staged *staged, struct store_change *change,
                                   struct graft_error *err)
{
    enum graft_status status = staged->was_cut ? list_again(staged, change, err) : GRAFT_OK;
    if (status == GRAFT_OK && (staged->lists > 0 || staged->runs > 0))
        store_change_end_staging(change);
    return status;
}
