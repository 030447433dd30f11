// SPDX-License-Identifier: Apache-2.0
//
// Writing versions at a new LSN. Each version that takes the place of an older one leaves an entry in
// `superseded` in the same batch, so that the older one is found again when nobody needs it any more; nothing
// is removed here, because until the head has moved readers may still pin the LSN below.
#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/store/cut_index.h"

// The cut goes into the batch first: the index of cuts reads through an indexed batch, and the rest needs
// none.
static enum graft_status begin_with_cut(struct store_change *change, uint32_t cut, uint32_t page_count,
                                        struct graft_error *err)
{
    struct store_volume *volume = change->volume;
    struct rocks *local = volume->store->local;
    _cleanup_(rocks_indexed_batch_free_p) rocksdb_writebatch_wi_t *cuts = rocksdb_writebatch_wi_create(0, 1);
    struct store_key prefix = store_key_number(volume->number);
    enum graft_status status = cut_index_put(local->db, local->families[FAMILY_CUTS], local->read, cuts,
                                             store_key_bytes(&prefix), change->lsn, cut, err);
    if (status != GRAFT_OK)
        return status;
    size_t size;
    const char *data = rocksdb_writebatch_wi_data(cuts, &size);
    change->batch = rocksdb_writebatch_create_from(data, size);
    struct store_key key = store_key_cut(volume->number, change->lsn, cut);
    uint8_t value[4];
    put_le32(value, page_count);
    store_put(local, change->batch, FAMILY_SUPERSEDED, &key, (struct bytes){value, sizeof value});
    return GRAFT_OK;
}

enum graft_status store_change_init(struct store_change *change, struct store_volume *volume, uint64_t lsn,
                                    uint32_t cut, uint32_t page_count, struct graft_error *err)
{
    mutex_assert_held(&volume->commit_lock);
    struct store_record record = store_volume_record(volume);
    CHECK(lsn > record.state.local_lsn); // the next one, but where a replay has lost one
    *change = (struct store_change){.volume = volume, .lsn = lsn, .floor = record.floor};
    enum graft_status status = store_check_usable(volume->store, err);
    if (status != GRAFT_OK)
        return status;
    if (cut != UINT32_MAX) {
        CHECK(cut < page_count);
        status = begin_with_cut(change, cut, page_count, err);
        if (status != GRAFT_OK)
            return status;
    } else {
        change->batch = rocksdb_writebatch_create();
    }
    struct store_key prefix = store_key_number(volume->number);
    change->index = store_scan(volume->store->local, FAMILY_INDEX, &prefix);
    return GRAFT_OK;
}

void store_change_release(struct store_change *change)
{
    rocks_scan_free(TAKE(change->index));
    rocks_batch_free(TAKE(change->batch));
    extent_changes_release(&change->changes);
}

// The newest version below the change's LSN. The place where the last seek ended answers for the gap before
// it.
static enum graft_status find_previous(struct store_change *change, uint32_t pageidx, bool *ret_exists,
                                       uint64_t *ret_lsn, enum store_version_kind *ret_kind,
                                       struct graft_error *err)
{
    *ret_exists = false;
    if (change->looked && pageidx >= change->looked_from && pageidx < change->next_page)
        return GRAFT_OK;
    struct store_volume *volume = change->volume;
    struct store_key key = store_key_version(volume->number, pageidx, change->lsn - 1);
    store_scan_seek(change->index, &key);
    rocksdb_iterator_t *iterator = change->index->iterator;
    change->looked = true;
    change->looked_from = pageidx;
    change->next_page = (uint64_t)PAGEIDX_MAX + 1;
    if (!rocksdb_iter_valid(iterator))
        return rocks_iter_status(iterator, "looking for what a commit supersedes", err);
    uint32_t found_page;
    struct store_version version;
    if (!store_key_parse_version(rocks_iter_key(iterator), &found_page, ret_lsn) ||
        (found_page == pageidx && !store_version_decode(rocks_iter_value(iterator), &version)))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "volume %s, page %u: its entry in the local index is damaged",
                         gid_format(&volume->vid).text, pageidx);
    change->next_page = found_page;
    if (found_page == pageidx) {
        change->looked = false;
        *ret_exists = true;
        *ret_kind = version.kind;
    }
    return GRAFT_OK;
}

enum graft_status store_change_supersede(struct store_change *change, uint32_t pageidx,
                                         struct graft_error *err)
{
    CHECK(pageidx > 0);
    bool exists;
    uint64_t lsn = 0;
    enum store_version_kind kind = STORE_VERSION_FLOOR;
    enum graft_status status = find_previous(change, pageidx, &exists, &lsn, &kind, err);
    if (status != GRAFT_OK)
        return status;
    // A version below the floor's mark is hidden by the cut that came with the floor, and goes away with
    // that.
    if ((!exists || lsn < change->floor.mark_lsn) && pageidx <= change->floor.page_count) {
        exists = true;
        lsn = change->floor.mark_lsn;
        kind = STORE_VERSION_FLOOR;
    }
    if (!exists)
        return GRAFT_OK;
    CHECK(lsn < change->lsn);
    struct store_key key = store_key_superseded(change->volume->number, change->lsn, pageidx);
    uint8_t value[STORE_SUPERSEDED_SIZE];
    store_superseded_encode(lsn, kind, value);
    store_put(change->volume->store->local, change->batch, FAMILY_SUPERSEDED, &key,
              (struct bytes){value, sizeof value});
    return GRAFT_OK;
}

static void put_version(struct store_change *change, const struct store_key *key,
                        const struct store_version *version)
{
    uint8_t value[STORE_VERSION_SIZE_MAX];
    size_t size = store_version_encode(version, value);
    store_put(change->volume->store->local, change->batch, FAMILY_INDEX, key, (struct bytes){value, size});
}

void store_change_page(struct store_change *change, uint32_t pageidx, const struct store_version *version)
{
    CHECK(version->kind == STORE_VERSION_AVAILABLE && version->size <= change->volume->page_size);
    struct store_key key = store_key_version(change->volume->number, pageidx, change->lsn);
    put_version(change, &key, version);
    extent_changes_add(&change->changes, version->place, version->size);
}

enum graft_status store_change_replace(struct store_change *change, uint32_t pageidx, struct graft_error *err)
{
    struct store_key key = store_key_version(change->volume->number, pageidx, change->lsn);
    struct store_version version;
    bool exists;
    return store_remove_version_locked(change->volume->store, &key, change->batch, &change->changes, &version,
                                       &exists, err);
}

enum graft_status store_change_mark(struct store_change *change, uint32_t pageidx, uint64_t remote_lsn,
                                    struct graft_error *err)
{
    enum graft_status status = store_change_supersede(change, pageidx, err);
    if (status != GRAFT_OK)
        return status;
    struct store_key key = store_key_version(change->volume->number, pageidx, change->lsn);
    put_version(change, &key,
                &(struct store_version){.kind = STORE_VERSION_PENDING, .remote_lsn = remote_lsn});
    return GRAFT_OK;
}

enum graft_status store_change_part(struct store_change *change, uint32_t part, uint32_t page_count,
                                    uint32_t cut, const struct pageset *pages, struct graft_error *err)
{
    struct store_volume *volume = change->volume;
    _cleanup_(buffer_release) struct buffer value = BUFFER_INIT(STORE_PART_SIZE_MAX);
    enum graft_status status = GRAFT_OK;
    if (part == 0) {
        uint8_t header[STORE_COMMIT_HEADER_SIZE];
        put_le32(header, page_count);
        put_le32(header + 4, cut);
        status = buffer_append(&value, header, sizeof header, err);
    }
    if (status == GRAFT_OK)
        status = pageset_encode(pages, &value, err);
    if (status != GRAFT_OK)
        return status;
    struct store_key key = store_key_commit(volume->number, change->lsn, part);
    store_put(volume->store->local, change->batch, FAMILY_COMMITS, &key, buffer_bytes(&value));
    return GRAFT_OK;
}

void store_change_note_staging(struct store_change *change, const struct store_staging *staging)
{
    CHECK(staging->lsn == change->lsn);
    struct store_key key = store_key_staging(change->volume->number);
    uint8_t value[STORE_STAGING_SIZE];
    store_staging_encode(staging, value);
    store_put(change->volume->store->local, change->batch, FAMILY_VOLUMES, &key,
              (struct bytes){value, sizeof value});
}

void store_change_end_staging(struct store_change *change)
{
    struct store_key key = store_key_staging(change->volume->number);
    store_delete(change->volume->store->local, change->batch, FAMILY_VOLUMES, &key);
}

void store_change_forget_lists(struct store_change *change, uint32_t parts)
{
    for (uint32_t part = 1; part <= parts; part++) {
        struct store_key key = store_key_commit(change->volume->number, change->lsn, part);
        store_delete(change->volume->store->local, change->batch, FAMILY_COMMITS, &key);
    }
}

enum graft_status store_change_stage(struct store_change *change, struct graft_error *err)
{
    return store_write_changes(change->volume->store, change->batch, &change->changes, err);
}

enum graft_status store_change_publish(struct store_change *change, const struct store_record *next,
                                       bool synced, struct graft_error *err)
{
    struct store *store = change->volume->store;
    store_put_changes(store->local, FAMILY_EXTENTS, change->batch, &change->changes);
    enum graft_status status = store_publish_locked(change->volume, change->batch, next, synced, err);
    if (status == GRAFT_OK)
        extents_apply(store->pages, &change->changes);
    return status;
}

void store_record_cut(struct store_record *record, uint64_t lsn, uint32_t cut)
{
    record->cuts.last_lsn = lsn;
    record->cuts.lowest = MIN(record->cuts.lowest, cut);
    record->floor.page_count = MIN(record->floor.page_count, cut);
}
