// SPDX-License-Identifier: Apache-2.0
//
// The table of open volumes, and each one's record. A volume is in the table while it has references; the
// record in memory is copied out under store->lock, and replaced under it once the one on disk was.
#include <stdio.h>
#include <stdlib.h>

#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"

// ---- the table

static struct store_volume *find_and_ref(struct store *store, const struct gid *vid)
{
    LOCK_GUARD(&store->lock);
    struct store_volume *volume = NULL;
    HASH_FIND(by_vid, store->volumes, vid->bytes, GID_SIZE, volume);
    if (volume)
        volume->references++;
    return volume;
}

// Puts a volume with this record into the table. The table lock is held, and it is not there yet.
static struct store_volume *add_volume(struct store *store, const struct store_record *record)
{
    store_record_check(record);
    struct store_volume *volume = calloc(1, sizeof *volume);
    CHECK(volume);
    volume->store = store;
    volume->vid = record->state.vid;
    volume->number = record->number;
    volume->page_size = record->state.page_size;
    volume->kind = record->state.kind;
    volume->record = *record;
    volume->references = 1;
    mutex_init_ordered(&volume->commit_lock, RANK_VOLUME, volume->number);
    TAILQ_INIT(&volume->pins);
    // Pins are gone since the last opening: what they kept is looked at again by the first sweep.
    volume->sweep = (struct store_sweep){.versions_from = 0, .cuts_from = 0};
    LOCK_GUARD(&store->lock);
    if (record->state.push.phase != STORE_PUSH_IDLE)
        store_pins_add_locked(volume, record->state.push.to_lsn);
    HASH_ADD(by_vid, store->volumes, vid, GID_SIZE, volume);
    HASH_ADD(by_number, store->numbers, number, sizeof volume->number, volume);
    return volume;
}

struct store_volume *store_volume_ref(struct store_volume *volume)
{
    LOCK_GUARD(&volume->store->lock);
    CHECK(volume->references > 0);
    volume->references++;
    return volume;
}

struct store_volume *store_volume_find_number(struct store *store, uint64_t number)
{
    LOCK_GUARD(&store->lock);
    struct store_volume *volume = NULL;
    HASH_FIND(by_number, store->numbers, &number, sizeof number, volume);
    if (volume)
        volume->references++;
    return volume;
}

static void free_volume(struct store_volume *volume)
{
    struct pinned_lsn *node = TAILQ_FIRST(&volume->pins);
    while (node) {
        struct pinned_lsn *next = TAILQ_NEXT(node, entry);
        free(node);
        node = next;
    }
    CHECK(volume->stager == NULL);
    pageset_free(volume->available);
    pageset_free(volume->pending);
    mutex_release(&volume->commit_lock);
    free(volume);
}

void store_volume_close(struct store_volume *volume)
{
    if (!volume)
        return;
    struct store *store = volume->store;
    mutex_lock(&store->lock);
    CHECK(volume->references > 0);
    bool last = --volume->references == 0;
    if (last) {
        HASH_DELETE(by_vid, store->volumes, volume);
        HASH_DELETE(by_number, store->numbers, volume);
    }
    mutex_unlock(&store->lock);
    if (last)
        free_volume(volume);
}

// ---- making, opening, deleting

enum graft_status store_read_record(struct store *store, const struct gid *vid, bool *ret_exists,
                                    struct store_record *ret_record, struct graft_error *err)
{
    struct store_key key = store_key_volume(vid);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    enum graft_status status = store_get(store->local, FAMILY_VOLUMES, &key, &value, err);
    if (status != GRAFT_OK)
        return status;
    *ret_exists = value != NULL;
    if (!value)
        return GRAFT_OK;
    return store_record_decode(rocks_slice(value), vid, ret_record, err);
}

static void put_record(struct store *store, rocksdb_writebatch_t *batch, const struct store_record *record)
{
    store_record_check(record);
    struct store_key key = store_key_volume(&record->state.vid);
    uint8_t value[STORE_RECORD_SIZE_MAX];
    size_t size = store_record_encode(record, value);
    store_put(store->local, batch, FAMILY_VOLUMES, &key, (struct bytes){value, size});
}

static void put_vid(struct store *store, rocksdb_writebatch_t *batch, uint64_t number, const struct gid *vid)
{
    struct store_key key = store_key_vid(number);
    store_put(store->local, batch, FAMILY_VOLUMES, &key, (struct bytes){vid->bytes, GID_SIZE});
}

enum graft_status store_find_vid(struct store *store, uint64_t number, bool *ret_exists, struct gid *ret_vid,
                                 struct graft_error *err)
{
    struct store_key key = store_key_vid(number);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    enum graft_status status = store_get(store->local, FAMILY_VOLUMES, &key, &value, err);
    *ret_exists = value != NULL;
    if (status != GRAFT_OK || !value)
        return status;
    return gid_from_bytes(rocks_slice(value), GID_VOLUME, "vid", ret_vid, err);
}

static enum graft_status check_arguments(const struct gid *vid, uint32_t page_size,
                                         enum graft_volume_kind kind, struct graft_error *err)
{
    if (!gid_is_kind(vid, GID_VOLUME))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "the identifier is no VID");
    if (page_size < PAGE_SIZE_MIN || page_size > PAGE_SIZE_MAX || (page_size & (page_size - 1)) != 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "page size %u is no power of two from %u to %u", page_size, PAGE_SIZE_MIN,
                         PAGE_SIZE_MAX);
    if (kind != GRAFT_FIXED && kind != GRAFT_VARIABLE)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "volume kind %d is unknown",
                         (int)kind);
    return GRAFT_OK;
}

// A fork of `origin` (NULL: none) shows itself only when its record is published.
static enum graft_status make_volume(struct store *store, struct store_record *record,
                                     const struct store_volume *origin, struct store_volume **ret_volume,
                                     struct graft_error *err)
{
    const struct gid *vid = &record->state.vid;
    LOCK_GUARD(&store->table_lock);
    bool exists = false;
    struct store_record there;
    enum graft_status status = store_read_record(store, vid, &exists, &there, err);
    if (status != GRAFT_OK)
        return status;
    if (exists)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_EXISTS,
                         "volume %s is in this data directory already", gid_format(vid).text);

    record->number = store->next_number;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    if (!origin) {
        put_record(store, batch, record);
        put_vid(store, batch, record->number, vid);
    }
    struct store_key key = store_key_next_number();
    uint8_t next[8];
    put_le64(next, record->number + 1);
    store_put(store->local, batch, FAMILY_VOLUMES, &key, (struct bytes){next, sizeof next});
    status = FAILPOINT_ERROR("volume.create.before", err);
    if (status == GRAFT_OK)
        status = store_write(store, store->local, true, batch, err);
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("volume.create.after");
    store->next_number++;
    *ret_volume = add_volume(store, record);
    (*ret_volume)->origin_number = origin ? origin->number : 0;
    return GRAFT_OK;
}

static struct store_record record_of_clone(const struct gid *vid, uint32_t page_size,
                                           enum graft_volume_kind kind, const struct store_remote *head)
{
    struct store_record record = {
        .state = {.vid = *vid, .page_size = page_size, .kind = kind},
        .cuts = {.lowest = UINT32_MAX},
    };
    if (head->lsn > 0) {
        struct store_state *state = &record.state;
        state->local_lsn = 1;
        state->mapped_lsn = 1;
        state->page_count = head->page_count;
        state->remote = *head;
        state->remote_seen_lsn = head->lsn;
        record.floor = (struct store_floor){1, head->lsn, head->page_count};
    }
    return record;
}

enum graft_status store_volume_create(struct store *store, const struct gid *vid, uint32_t page_size,
                                      enum graft_volume_kind kind, struct store_volume **ret_volume,
                                      struct graft_error *err)
{
    static const struct store_remote none = {.lsn = 0};
    return store_volume_clone(store, vid, page_size, kind, &none, ret_volume, err);
}

enum graft_status store_volume_clone(struct store *store, const struct gid *vid, uint32_t page_size,
                                     enum graft_volume_kind kind, const struct store_remote *head,
                                     struct store_volume **ret_volume, struct graft_error *err)
{
    enum graft_status status = check_arguments(vid, page_size, kind, err);
    if (status == GRAFT_OK)
        status = store_check_usable(store, err);
    if (status != GRAFT_OK)
        return status;
    struct store_record record = record_of_clone(vid, page_size, kind, head);
    return make_volume(store, &record, NULL, ret_volume, err);
}

enum graft_status store_volume_prepare(const struct store_volume *origin, const struct gid *vid,
                                       const struct store_remote *head, struct store_volume **ret_volume,
                                       struct graft_error *err)
{
    struct store_record record = record_of_clone(vid, origin->page_size, origin->kind, head);
    return make_volume(origin->store, &record, origin, ret_volume, err);
}

// Did somebody who had the volume open fail to remove what was staged?
static enum graft_status has_staged(struct store *store, uint64_t number, bool *ret_staged,
                                    struct graft_error *err)
{
    struct store_key key = store_key_staging(number);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    enum graft_status status = store_get(store->local, FAMILY_VOLUMES, &key, &value, err);
    *ret_staged = value != NULL;
    return status;
}

enum graft_status store_volume_open(struct store *store, const struct gid *vid,
                                    struct store_volume **ret_volume, struct graft_error *err)
{
    enum graft_status status = store_check_usable(store, err);
    if (status != GRAFT_OK)
        return status;
    LOCK_GUARD(&store->table_lock);
    struct store_volume *volume = find_and_ref(store, vid);
    if (!volume) {
        bool exists = false;
        struct store_record record;
        status = store_read_record(store, vid, &exists, &record, err);
        if (status != GRAFT_OK)
            return status;
        if (!exists)
            return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME,
                             "this data directory has no volume %s", gid_format(vid).text);
        bool staged;
        status = has_staged(store, record.number, &staged, err);
        if (status != GRAFT_OK)
            return status;
        volume = add_volume(store, &record);
        volume->undropped = staged;
    }
    *ret_volume = volume;
    return GRAFT_OK;
}

// ---- deleting
//
//     the record goes, and 'X' comes ──▶ the index, batch by batch ──▶ the other families, and 'X'
//
// An opening goes on where a crash ended that.

static void delete_range(struct rocks *rocks, rocksdb_writebatch_t *batch, unsigned family, uint64_t number)
{
    struct store_key from = store_key_number(number);
    struct store_key to = store_key_number(number + 1);
    rocksdb_writebatch_delete_range_cf(batch, rocks->families[family], (const char *)from.bytes, from.size,
                                       (const char *)to.bytes, to.size);
}

static void add_dead(struct bytes value, struct extent_changes *changes)
{
    struct store_version version;
    if (store_version_decode(value, &version) && version.kind == STORE_VERSION_AVAILABLE)
        extent_changes_add(changes, version.place, -(int64_t)version.size);
}

// Removes a batch of index entries.
static enum graft_status remove_some(struct store *store, uint64_t number, bool *ret_more,
                                     struct graft_error *err)
{
    struct store_key prefix = store_key_number(number);
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    _cleanup_(extent_changes_release) struct extent_changes changes = {.count = 0};
    LOCK_GUARD(&store->places_lock);
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = store_scan(store->local, FAMILY_INDEX, &prefix);
    unsigned count = 0;
    for (rocksdb_iter_seek_to_first(scan->iterator);
         rocksdb_iter_valid(scan->iterator) && count < store->batch_entries;
         rocksdb_iter_next(scan->iterator)) {
        add_dead(rocks_iter_value(scan->iterator), &changes);
        rocks_batch_delete(batch, store->local->families[FAMILY_INDEX], rocks_iter_key(scan->iterator));
        count++;
    }
    enum graft_status status = rocks_iter_status(scan->iterator, "removing a deleted volume", err);
    *ret_more = count == store->batch_entries;
    return status == GRAFT_OK && count > 0 ? store_write_changes(store, batch, &changes, err) : status;
}

static enum graft_status finish_deletion(struct store *store, uint64_t number, struct graft_error *err)
{
    static const unsigned others[] = {FAMILY_COMMITS, FAMILY_SUPERSEDED, FAMILY_CUTS};
    enum graft_status status = GRAFT_OK;
    for (bool more = true; status == GRAFT_OK && more;) {
        FAILPOINT("volume.delete.batch");
        status = remove_some(store, number, &more, err);
    }
    if (status != GRAFT_OK)
        return status;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (unsigned i = 0; i < ARRAY_COUNT(others); i++)
        delete_range(store->local, batch, others[i], number);
    struct store_key note = store_key_deleted(number);
    store_delete(store->local, batch, FAMILY_VOLUMES, &note);
    FAILPOINT("volume.delete.last");
    return store_write(store, store->local, false, batch, err);
}

enum graft_status store_finish_deletions(struct store *store, struct graft_error *err)
{
    struct store_key prefix = {.bytes = {'X'}, .size = 1};
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = store_scan(store->local, FAMILY_VOLUMES, &prefix);
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator)) {
        uint64_t number;
        if (!store_key_parse_deleted(rocks_iter_key(scan->iterator), &number))
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                             "the local store's note of a deleted volume is damaged");
        enum graft_status status = finish_deletion(store, number, err);
        if (status != GRAFT_OK)
            return status;
    }
    return rocks_iter_status(scan->iterator, "looking for deleted volumes", err);
}

// The table lock is held.
static enum graft_status delete_record(struct store *store, const struct gid *vid, uint64_t *ret_number,
                                       struct graft_error *err)
{
    struct store_volume *open = find_and_ref(store, vid);
    if (open) {
        store_volume_close(open);
        return error_set(err, GRAFT_BUSY, GRAFT_DETAIL_NONE, "volume %s is open here; close it first",
                         gid_format(vid).text);
    }
    bool exists = false;
    struct store_record record;
    enum graft_status status = store_read_record(store, vid, &exists, &record, err);
    if (status != GRAFT_OK)
        return status;
    if (!exists)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME,
                         "this data directory has no volume %s", gid_format(vid).text);
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct store_key keys[] = {
        store_key_volume(vid),         store_key_request(record.number), store_key_fence(record.number),
        store_key_fork(record.number), store_key_staging(record.number), store_key_vid(record.number)};
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
        store_delete(store->local, batch, FAMILY_VOLUMES, &keys[i]);
    struct store_key note = store_key_deleted(record.number);
    store_put(store->local, batch, FAMILY_VOLUMES, &note, (struct bytes){(const uint8_t *)"", 0});
    FAILPOINT("volume.delete.before");
    status = store_write(store, store->local, true, batch, err);
    FAILPOINT("volume.delete.local");
    *ret_number = record.number;
    return status;
}

enum graft_status store_volume_delete(struct store *store, const struct gid *vid, struct graft_error *err)
{
    uint64_t number = 0;
    enum graft_status status = store_check_usable(store, err);
    if (status != GRAFT_OK)
        return status;
    // The hand holds volumes open for a moment; nobody is to hear of that.
    mutex_lock(&store->evict_lock);
    mutex_lock(&store->table_lock);
    mutex_unlock(&store->evict_lock);
    status = delete_record(store, vid, &number, err);
    mutex_unlock(&store->table_lock);
    if (status == GRAFT_OK)
        status = finish_deletion(store, number, err);
    if (status != GRAFT_OK)
        return status;
    // The number is never used again, so it does not matter if a crash loses this.
    return store_fetched_remove_volume(store, number, err);
}

enum graft_status store_volume_list(struct store *store, bool (*visit)(void *context, const struct gid *vid),
                                    void *context, struct graft_error *err)
{
    enum graft_status status = store_check_usable(store, err);
    if (status != GRAFT_OK)
        return status;
    struct store_key prefix = {.bytes = {'V'}, .size = 1};
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = store_scan(store->local, FAMILY_VOLUMES, &prefix);
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator)) {
        struct gid vid;
        if (!store_key_parse_vid(rocks_iter_key(scan->iterator), &vid))
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                             "the local store's table of volumes has a damaged key");
        if (!visit(context, &vid))
            return GRAFT_OK;
    }
    return rocks_iter_status(scan->iterator, "listing the volumes", err);
}

// ---- records

const struct gid *store_volume_vid(const struct store_volume *volume)
{
    return &volume->vid;
}

uint32_t store_volume_page_size(const struct store_volume *volume)
{
    return volume->page_size;
}

enum graft_volume_kind store_volume_kind(const struct store_volume *volume)
{
    return volume->kind;
}

struct store_record store_volume_record(struct store_volume *volume)
{
    LOCK_GUARD(&volume->store->lock);
    return volume->record;
}

void store_volume_state(struct store_volume *volume, struct store_state *ret_state)
{
    LOCK_GUARD(&volume->store->lock);
    *ret_state = volume->record.state;
}

void store_put_record(struct store_volume *volume, rocksdb_writebatch_t *batch,
                      const struct store_record *next)
{
    CHECK(next->number == volume->number);
    put_record(volume->store, batch, next);
    // A fork's first record ends what its origin kept of it.
    if (volume->origin_number > 0) {
        put_vid(volume->store, batch, volume->number, &volume->vid);
        struct store_key key = store_key_fork(volume->origin_number);
        store_delete(volume->store->local, batch, FAMILY_VOLUMES, &key);
    }
}

enum graft_status store_publish_locked(struct store_volume *volume, rocksdb_writebatch_t *batch,
                                       const struct store_record *next, bool synced, struct graft_error *err)
{
    mutex_assert_held(&volume->commit_lock);
    store_put_record(volume, batch, next);
    enum graft_status status = store_write(volume->store, volume->store->local, synced, batch, err);
    if (status == GRAFT_OK)
        store_set_record_locked(volume, next);
    return status;
}

void store_set_record_locked(struct store_volume *volume, const struct store_record *next)
{
    mutex_assert_held(&volume->commit_lock);
    volume->origin_number = 0;
    LOCK_GUARD(&volume->store->lock);
    CHECK(next->state.local_lsn >= volume->record.state.local_lsn);
    volume->record = *next;
}

// Publishes a record that differs in small things only.
static enum graft_status publish_small_locked(struct store_volume *volume, const struct store_record *next,
                                              bool synced, struct graft_error *err)
{
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    return store_publish_locked(volume, batch, next, synced, err);
}

enum graft_status store_note_remote(struct store_volume *volume, uint64_t remote_lsn, struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    struct store_record next = store_volume_record(volume);
    if (remote_lsn <= next.state.remote_seen_lsn)
        return store_check_usable(volume->store, err);
    next.state.remote_seen_lsn = remote_lsn;
    return publish_small_locked(volume, &next, false, err);
}

enum graft_status store_set_status(struct store_volume *volume, enum graft_volume_status status,
                                   const struct graft_error *why, struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    struct store_record next = store_volume_record(volume);
    next.state.status = status;
    next.state.status_error = why ? *why : (struct graft_error){.status = GRAFT_OK};
    return publish_small_locked(volume, &next, true, err);
}
