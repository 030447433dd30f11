// SPDX-License-Identifier: Apache-2.0
//
// Pages that the servers sent. They are kept under the mark that asked for them, in the page cache and the database that
// is never synced; the index is not touched, so an arrival costs the durable part nothing. What has lost its mark is not
// kept: while a chunk is collected and written the head may move, and then the chunk is looked through again before
// anybody is told of it. Its bytes are written before the commit lock is taken: making room for them takes the commit
// locks of others.
#include <stdlib.h>

#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"

#define CHUNK_PAGES_MAX 4096u

struct store_arrivals {
    struct store_volume *volume;
    struct rocks_scan *index; // NULL: the chunk is empty
    uint64_t head;            // when `index` was opened
    struct store_floor floor; // likewise
    struct buffer bytes;      // of the chunk's pages, one behind the other
    size_t count;
    struct store_kept chunk[CHUNK_PAGES_MAX];
};

enum graft_status store_arrivals_new(struct store_volume *volume, struct store_arrivals **ret_arrivals,
                                     struct graft_error *err)
{
    struct store_arrivals *arrivals = calloc(1, sizeof *arrivals);
    if (!arrivals)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for arriving pages");
    arrivals->volume = store_volume_ref(volume);
    buffer_init(&arrivals->bytes, STORE_ARRIVALS_SIZE + PAGE_SIZE_MAX);
    *ret_arrivals = arrivals;
    return GRAFT_OK;
}

void store_arrivals_free(struct store_arrivals *arrivals)
{
    if (!arrivals)
        return;
    rocks_scan_free(arrivals->index);
    buffer_release(&arrivals->bytes);
    store_volume_close(arrivals->volume);
    free(arrivals);
}

// ---- marks

static void open_index(struct store_arrivals *arrivals)
{
    // The record first: the index shows at least what the record speaks of.
    struct store_record record = store_volume_record(arrivals->volume);
    arrivals->head = record.state.local_lsn;
    arrivals->floor = record.floor;
    struct store_key prefix = store_key_number(arrivals->volume->number);
    rocks_scan_free(arrivals->index);
    arrivals->index = store_scan(arrivals->volume->store->local, FAMILY_INDEX, &prefix);
}

// A version pending by a mark in the index.
static enum graft_status find_index_mark(struct store_arrivals *arrivals, uint32_t pageidx, uint64_t mark_lsn,
                                         uint64_t *ret_remote_lsn, struct graft_error *err)
{
    struct store_key key = store_key_version(arrivals->volume->number, pageidx, mark_lsn);
    store_scan_seek(arrivals->index, &key);
    *ret_remote_lsn = 0;
    rocksdb_iterator_t *iterator = arrivals->index->iterator;
    if (!rocksdb_iter_valid(iterator))
        return rocks_iter_status(iterator, "looking for a page's mark", err);
    struct bytes found = rocks_iter_key(iterator);
    struct store_version version;
    if (found.size == key.size && memcmp(found.data, key.bytes, key.size) == 0 &&
        store_version_decode(rocks_iter_value(iterator), &version) && version.kind == STORE_VERSION_PENDING)
        *ret_remote_lsn = version.remote_lsn;
    return GRAFT_OK;
}

// The newest version of the page; 0: none.
static enum graft_status find_newest(struct store_arrivals *arrivals, uint32_t pageidx, uint64_t *ret_lsn,
                                     struct graft_error *err)
{
    struct store_key key = store_key_version(arrivals->volume->number, pageidx, UINT64_MAX);
    store_scan_seek(arrivals->index, &key);
    *ret_lsn = 0;
    rocksdb_iterator_t *iterator = arrivals->index->iterator;
    if (!rocksdb_iter_valid(iterator))
        return rocks_iter_status(iterator, "looking for a page's newest version", err);
    uint32_t found_page;
    uint64_t lsn;
    if (store_key_parse_version(rocks_iter_key(iterator), &found_page, &lsn) && found_page == pageidx)
        *ret_lsn = lsn;
    return GRAFT_OK;
}

static bool floor_covers(const struct store_floor *floor, uint32_t pageidx, uint64_t mark_lsn)
{
    return floor->mark_lsn == mark_lsn && pageidx <= floor->page_count;
}

// The floor of the head, or of a pin below the page's newest version: floors are cut and replaced, but who
// pinned one before that still reads through it.
static enum graft_status find_floor_mark(struct store_arrivals *arrivals, uint32_t pageidx, uint64_t mark_lsn,
                                         uint64_t *ret_remote_lsn, struct graft_error *err)
{
    uint64_t newest;
    enum graft_status status = find_newest(arrivals, pageidx, &newest, err);
    if (status != GRAFT_OK)
        return status;
    if (newest < mark_lsn)
        newest = UINT64_MAX;
    *ret_remote_lsn = 0;
    if (newest == UINT64_MAX && floor_covers(&arrivals->floor, pageidx, mark_lsn)) {
        *ret_remote_lsn = arrivals->floor.remote_lsn;
        return GRAFT_OK;
    }
    struct store_volume *volume = arrivals->volume;
    LOCK_GUARD(&volume->store->lock);
    struct pinned_lsn *node;
    TAILQ_FOREACH (node, &volume->pins, entry) {
        if (node->lsn < newest && floor_covers(&node->floor, pageidx, mark_lsn))
            *ret_remote_lsn = node->floor.remote_lsn;
    }
    return GRAFT_OK;
}

// The remote LSN of the mark; 0: it has gone.
static enum graft_status find_mark(struct store_arrivals *arrivals, uint32_t pageidx, uint64_t mark_lsn,
                                   uint64_t *ret_remote_lsn, struct graft_error *err)
{
    enum graft_status status = find_index_mark(arrivals, pageidx, mark_lsn, ret_remote_lsn, err);
    if (status != GRAFT_OK || *ret_remote_lsn > 0)
        return status;
    return find_floor_mark(arrivals, pageidx, mark_lsn, ret_remote_lsn, err);
}

// ---- adding

static enum graft_status add(struct store_arrivals *arrivals, uint32_t pageidx, uint64_t mark_lsn, bool empty,
                             struct bytes data, struct graft_error *err)
{
    struct store_volume *volume = arrivals->volume;
    struct store_arrived arrived = {.empty = empty, .size = (uint32_t)data.size};
    enum graft_status status = store_check_usable(volume->store, err);
    if (status == GRAFT_OK)
        status = store_take_room(volume->store, STORE_ARRIVED_SIZE, err);
    if (status != GRAFT_OK)
        return status;
    if (!arrivals->index)
        open_index(arrivals);
    status = find_mark(arrivals, pageidx, mark_lsn, &arrived.remote_lsn, err);
    if (status != GRAFT_OK || arrived.remote_lsn == 0)
        return status;
    status = buffer_append(&arrivals->bytes, data.data, data.size, err);
    if (status != GRAFT_OK)
        return status;
    if (!empty)
        arrived.checksum = page_checksum(&volume->vid, pageidx, data.data, data.size);
    arrivals->chunk[arrivals->count++] =
        (struct store_kept){.pageidx = pageidx, .mark_lsn = mark_lsn, .arrived = arrived};
    if (arrivals->count < CHUNK_PAGES_MAX && arrivals->bytes.size < STORE_ARRIVALS_SIZE)
        return GRAFT_OK;
    return store_arrivals_flush(arrivals, err);
}

enum graft_status store_arrivals_add(struct store_arrivals *arrivals, uint32_t pageidx, uint64_t mark_lsn,
                                     const void *data, size_t size, struct graft_error *err)
{
    const struct store_volume *volume = arrivals->volume;
    if (pageidx == 0 || (volume->kind == GRAFT_FIXED ? size != volume->page_size : size > volume->page_size))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "page %u of volume %s arrived with %zu bytes; it takes %s %u", pageidx,
                         gid_format(&volume->vid).text, size,
                         volume->kind == GRAFT_FIXED ? "exactly" : "at most", volume->page_size);
    return add(arrivals, pageidx, mark_lsn, false, (struct bytes){data, size}, err);
}

enum graft_status store_arrivals_add_empty(struct store_arrivals *arrivals, uint32_t pageidx,
                                           uint64_t mark_lsn, struct graft_error *err)
{
    CHECK(pageidx > 0);
    return add(arrivals, pageidx, mark_lsn, true, (struct bytes){NULL, 0}, err);
}

// ---- flushing

// The chunk's bytes, to the page cache; its turn is the caller's from then on.
static enum graft_status write_bytes(struct store_arrivals *arrivals, struct graft_error *err)
{
    struct store_volume *volume = arrivals->volume;
    struct page_cache_arrival *pages = calloc(arrivals->count, sizeof *pages);
    CHECK(pages);
    size_t count = 0, at = 0;
    for (size_t i = 0; i < arrivals->count; i++) {
        const struct store_kept *kept = &arrivals->chunk[i];
        if (kept->arrived.size == 0)
            continue;
        pages[count++] = (struct page_cache_arrival){
            .entry = {.number = volume->number,
                      .lsn = kept->mark_lsn,
                      .checksum = kept->arrived.checksum,
                      .pageidx = kept->pageidx,
                      .size = kept->arrived.size},
            .data = arrivals->bytes.data + at,
        };
        at += kept->arrived.size;
    }
    enum graft_status status = page_cache_append(volume->store->cache, pages, count, err);
    for (size_t i = 0, page = 0; i < arrivals->count && status == GRAFT_OK; i++) {
        if (arrivals->chunk[i].arrived.size > 0)
            arrivals->chunk[i].arrived.place = pages[page++].place;
    }
    free(pages);
    return status;
}

// The head moved since the chunk was begun: what lost its mark is taken out again.
static enum graft_status drop_unmarked(struct store_arrivals *arrivals, struct graft_error *err)
{
    open_index(arrivals);
    size_t kept = 0;
    for (size_t i = 0; i < arrivals->count; i++) {
        struct store_kept arrival = arrivals->chunk[i];
        uint64_t remote_lsn;
        enum graft_status status = find_mark(arrivals, arrival.pageidx, arrival.mark_lsn, &remote_lsn, err);
        if (status != GRAFT_OK)
            return status;
        if (remote_lsn > 0)
            arrivals->chunk[kept++] = arrival;
    }
    arrivals->count = kept;
    return GRAFT_OK;
}

static void count_kept_locked(struct store_arrivals *arrivals)
{
    struct store_counted counted[256];
    size_t count = 0;
    for (size_t i = 0; i < arrivals->count; i++) {
        const struct store_kept *kept = &arrivals->chunk[i];
        counted[count++] = (struct store_counted){
            kept->pageidx, kept->mark_lsn, kept->arrived.empty ? STORE_PAGE_EMPTY : STORE_PAGE_AVAILABLE};
        if (count < ARRAY_COUNT(counted) && i + 1 < arrivals->count)
            continue;
        store_counts_fetched_locked(arrivals->volume, counted, count);
        count = 0;
    }
}

static enum graft_status keep_locked(struct store_arrivals *arrivals, struct graft_error *err)
{
    struct store_volume *volume = arrivals->volume;
    enum graft_status status = GRAFT_OK;
    if (store_volume_record(volume).state.local_lsn != arrivals->head)
        status = drop_unmarked(arrivals, err);
    if (status == GRAFT_OK)
        status = FAILPOINT_ERROR("fetch.keep.before", err);
    if (status == GRAFT_OK)
        status = store_fetched_keep_locked(volume, arrivals->chunk, arrivals->count, err);
    FAILPOINT("fetch.keep.after");
    if (status == GRAFT_OK)
        count_kept_locked(arrivals);
    return status;
}

enum graft_status store_arrivals_flush(struct store_arrivals *arrivals, struct graft_error *err)
{
    struct store_volume *volume = arrivals->volume;
    enum graft_status status = store_check_usable(volume->store, err);
    if (arrivals->count == 0)
        return status;
    if (status == GRAFT_OK) {
        status = write_bytes(arrivals, err);
        if (status == GRAFT_OK) {
            LOCK_GUARD(&volume->commit_lock);
            status = keep_locked(arrivals, err);
        }
        page_cache_appended(volume->store->cache);
    }
    rocks_scan_free(TAKE(arrivals->index));
    buffer_release(&arrivals->bytes); // most volumes rest most of the time
    arrivals->count = 0;
    return status;
}
