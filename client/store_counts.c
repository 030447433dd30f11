// SPDX-License-Identifier: Apache-2.0
//
// How many pages of the head are here, and how many are not: two page sets, made by one walk through the
// index when they are first asked for, and kept in step by every change after that. Pages in neither were
// never written.
#include "client/store_internal.h"

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/store/cut_index.h"

void store_counts_cut_locked(struct store_volume *volume, uint32_t page_count)
{
    if (!volume->available)
        return;
    pageset_remove_above(volume->available, page_count);
    pageset_remove_above(volume->pending, page_count);
}

void store_counts_available_locked(struct store_volume *volume, const struct pageset *pages)
{
    if (!volume->available)
        return;
    pageset_union(volume->available, pages);
    pageset_subtract(volume->pending, pages);
}

void store_counts_pending_locked(struct store_volume *volume, const struct pageset *pages)
{
    if (!volume->available)
        return;
    pageset_union(volume->pending, pages);
    pageset_subtract(volume->available, pages);
}

void store_counts_everything_locked(struct store_volume *volume, uint32_t page_count)
{
    if (!volume->available)
        return;
    pageset_clear(volume->available);
    pageset_clear(volume->pending);
    if (page_count > 0)
        pageset_add_run(volume->pending, 1, page_count);
}

static void count_page(struct store_volume *volume, uint32_t pageidx, enum store_page_state state)
{
    pageset_remove(volume->available, pageidx);
    pageset_remove(volume->pending, pageidx);
    if (state == STORE_PAGE_AVAILABLE)
        pageset_add(volume->available, pageidx);
    if (state == STORE_PAGE_PENDING)
        pageset_add(volume->pending, pageidx);
}

// Sets that could not be kept in step are made again when they are asked for.
static void forget_counts(struct store_volume *volume)
{
    pageset_free(TAKE(volume->available));
    pageset_free(TAKE(volume->pending));
}

void store_counts_fetched_locked(struct store_volume *volume, const struct store_counted *counted,
                                 size_t count)
{
    mutex_assert_held(&volume->commit_lock);
    if (!volume->available || count == 0)
        return;
    struct store_pin head = store_head_locked(volume);
    _cleanup_(store_view_close) struct store_view view = {.pin = &head};
    enum graft_status status = store_view_open(&head, &view, NULL);
    for (size_t i = 0; i < count && status == GRAFT_OK; i++) {
        struct store_found found;
        if (counted[i].pageidx > head.page_count)
            continue;
        status = store_view_find(&view, counted[i].pageidx, &found, NULL);
        if (status == GRAFT_OK && found.exists && found.lsn == counted[i].mark_lsn)
            count_page(volume, counted[i].pageidx, counted[i].state);
    }
    if (status != GRAFT_OK)
        forget_counts(volume);
}

// ---- the first time

struct counting {
    struct store_pin head;
    struct store_view view;
    struct pageset *available;
    struct pageset *pending;
    struct pageset *marked; // pending by a mark in the index, not by the floor
};

static void counting_release(struct counting *counting)
{
    store_view_close(&counting->view);
    pageset_free(counting->available);
    pageset_free(counting->pending);
    pageset_free(counting->marked);
}

// The floor's pages are pending until a version says otherwise.
static enum graft_status count_versions(struct counting *counting, struct graft_error *err)
{
    struct store_volume *volume = counting->head.volume;
    struct store_key prefix = store_key_number(volume->number);
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        store_scan(volume->store->local, FAMILY_INDEX, &prefix);
    uint32_t last = 0;
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator)) {
        uint32_t pageidx;
        uint64_t lsn;
        if (!store_key_parse_version(rocks_iter_key(scan->iterator), &pageidx, &lsn))
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                             "volume %s: the local index has a damaged key", gid_format(&volume->vid).text);
        if (pageidx > counting->head.page_count)
            break;
        if (pageidx == last)
            continue;
        last = pageidx;
        struct store_found found;
        enum graft_status status = store_view_find(&counting->view, pageidx, &found, err);
        if (status != GRAFT_OK)
            return status;
        pageset_remove(counting->pending, pageidx);
        if (!found.exists)
            continue;
        if (found.version.kind == STORE_VERSION_AVAILABLE) {
            pageset_add(counting->available, pageidx);
            continue;
        }
        pageset_add(counting->pending, pageidx);
        if (found.lsn != counting->head.floor.mark_lsn)
            pageset_add(counting->marked, pageidx);
    }
    return rocks_iter_status(scan->iterator, "counting pages", err);
}

static enum graft_status count_arrived(struct counting *counting, struct graft_error *err)
{
    struct store_volume *volume = counting->head.volume;
    struct store_key prefix = store_key_number(volume->number);
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        store_scan(volume->store->fetched, FETCHED_ARRIVED, &prefix);
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator)) {
        uint32_t pageidx;
        uint64_t mark_lsn;
        struct store_arrived arrived;
        if (!store_key_parse_fetched(rocks_iter_key(scan->iterator), &pageidx, &mark_lsn) ||
            !store_arrived_decode(rocks_iter_value(scan->iterator), &arrived) ||
            !pageset_contains(counting->pending, pageidx))
            continue;
        struct store_found found = {
            .lsn = counting->head.floor.mark_lsn,
            .version.remote_lsn = counting->head.floor.remote_lsn,
        };
        if (pageset_contains(counting->marked, pageidx)) {
            enum graft_status status = store_view_find(&counting->view, pageidx, &found, err);
            if (status != GRAFT_OK)
                return status;
        }
        if (found.lsn != mark_lsn || found.version.remote_lsn != arrived.remote_lsn)
            continue;
        pageset_remove(counting->pending, pageidx);
        if (!arrived.empty)
            pageset_add(counting->available, pageidx);
    }
    return rocks_iter_status(scan->iterator, "counting fetched pages", err);
}

static enum graft_status count_all_locked(struct store_volume *volume, struct graft_error *err)
{
    _cleanup_(counting_release) struct counting counting = {
        .head = store_head_locked(volume),
        .available = pageset_new(),
        .pending = pageset_new(),
        .marked = pageset_new(),
    };
    if (counting.head.floor.page_count > 0)
        pageset_add_run(counting.pending, 1, counting.head.floor.page_count);
    enum graft_status status = store_view_open(&counting.head, &counting.view, err);
    if (status == GRAFT_OK)
        status = count_versions(&counting, err);
    if (status == GRAFT_OK)
        status = count_arrived(&counting, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "counting the pages of volume %s", gid_format(&volume->vid).text);
    volume->available = TAKE(counting.available);
    volume->pending = TAKE(counting.pending);
    return GRAFT_OK;
}

enum graft_status store_volume_counts(struct store_volume *volume, struct store_counts *ret_counts,
                                      struct graft_error *err)
{
    enum graft_status status = store_check_usable(volume->store, err);
    if (status != GRAFT_OK)
        return status;
    LOCK_GUARD(&volume->commit_lock);
    if (!volume->available)
        status = count_all_locked(volume, err);
    if (status != GRAFT_OK)
        return status;
    *ret_counts = (struct store_counts){
        .available = pageset_count(volume->available),
        .pending = pageset_count(volume->pending),
    };
    return GRAFT_OK;
}

// ---- what was fetched

#define TALLY_SIZE 24

enum graft_status store_tally_read(struct store_volume *volume, struct graft_fetch_counts *ret_tally,
                                   struct graft_error *err)
{
    struct store_key key = store_key_number(volume->number);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status = store_get(volume->store->fetched, FETCHED_TALLIES, &key, &slice, err);
    if (status != GRAFT_OK)
        return status;
    *ret_tally = (struct graft_fetch_counts){0};
    if (slice && rocks_slice(slice).size == TALLY_SIZE) {
        const uint8_t *value = rocks_slice(slice).data;
        *ret_tally = (struct graft_fetch_counts){get_le64(value), get_le64(value + 8), get_le64(value + 16)};
    }
    return GRAFT_OK;
}

enum graft_status store_tally_write(struct store_volume *volume, const struct graft_fetch_counts *tally,
                                    struct graft_error *err)
{
    enum graft_status status = store_check_usable(volume->store, err);
    if (status != GRAFT_OK)
        return status;
    struct store_key key = store_key_number(volume->number);
    uint8_t value[TALLY_SIZE];
    put_le64(value, tally->requests);
    put_le64(value + 8, tally->pages);
    put_le64(value + 16, tally->bytes);
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    store_put(volume->store->fetched, batch, FETCHED_TALLIES, &key, (struct bytes){value, sizeof value});
    FAILPOINT("fetch.tally");
    return store_write(volume->store, volume->store->fetched, false, batch, err);
}
