// SPDX-License-Identifier: Apache-2.0
//
// What was fetched: where its bytes lie in the page cache, and what is to happen when they are evicted. The table of what
// arrived, the live bytes of the cache's extents and the bytes themselves are never synced. A crash may lose any of them,
// and may leave the table naming bytes that are others by now; what cannot be vouched for by its checksum is dropped and
// is pending again.
#include <stdio.h>
#include <stdlib.h>

#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/random.h"

// A place that is not what the table said when it was looked up has moved meanwhile. Each time the hand has gone round
// once more, so it does not happen often.
#define LOOKS_MAX 16u
#define BATCH_PAGES RUN_PAGES_MAX

// ---- changing the table

// Changes of the table and the live bytes that follow from them. fetched_lock is held from the first look to the write.
struct change {
    struct store *store;
    rocksdb_writebatch_t *batch;
    struct extent_changes live;
};

static void change_begin(struct change *change, struct store *store)
{
    *change = (struct change){.store = store, .batch = rocksdb_writebatch_create()};
    mutex_lock(&store->fetched_lock);
}

static void change_end(struct change *change)
{
    mutex_unlock(&change->store->fetched_lock);
    rocksdb_writebatch_destroy(change->batch);
    extent_changes_release(&change->live);
}

// *ret_there: something is, of whatever form.
static enum graft_status get_entry(struct store *store, const struct store_key *key,
                                   struct store_arrived *ret_arrived, bool *ret_found, bool *ret_there,
                                   struct graft_error *err)
{
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status = store_get(store->fetched, FETCHED_ARRIVED, key, &slice, err);
    *ret_there = status == GRAFT_CORRUPT || slice;
    *ret_found = status == GRAFT_OK && slice && store_arrived_decode(rocks_slice(slice), ret_arrived);
    // What RocksDB cannot read is as good as not there.
    return status == GRAFT_CORRUPT ? GRAFT_OK : status;
}

static enum graft_status get_arrived(struct store *store, const struct store_key *key,
                                     struct store_arrived *ret_arrived, bool *ret_found,
                                     struct graft_error *err)
{
    bool there;
    return get_entry(store, key, ret_arrived, ret_found, &there, err);
}

// The bytes are dead from now on, if they were live: a damaged entry must not take from what others have.
static void change_kill(struct change *change, const struct store_arrived *there)
{
    if (there->size > 0 && page_cache_may_have(change->store->cache, there->place, there->size))
        extent_changes_add(&change->live, there->place, -(int64_t)there->size);
}

// Kills what arrived under the key, which is the caller's to overwrite or delete, once in a batch.
static enum graft_status change_forget(struct change *change, const struct store_key *key, bool *ret_found,
                                       struct graft_error *err)
{
    struct store_arrived there;
    enum graft_status status = get_arrived(change->store, key, &there, ret_found, err);
    if (status == GRAFT_OK && *ret_found)
        change_kill(change, &there);
    return status;
}

static void change_put(struct change *change, const struct store_key *key,
                       const struct store_arrived *arrived)
{
    uint8_t value[STORE_ARRIVED_SIZE];
    store_arrived_encode(arrived, value);
    store_put(change->store->fetched, change->batch, FETCHED_ARRIVED, key,
              (struct bytes){value, sizeof value});
    if (arrived->size > 0)
        extent_changes_add(&change->live, arrived->place, arrived->size);
}

static enum graft_status change_write(struct change *change, struct graft_error *err)
{
    struct store *store = change->store;
    struct extent_changes *live = &change->live;
    size_t count = 0;
    for (size_t i = 0; i < live->count; i++) {
        struct extent_change item = live->items[i];
        if (item.bytes == 0)
            continue;
        live->items[count++] = item;
        struct store_key key = store_key_extent(item.extent);
        rocks_batch_add(change->batch, store->fetched->families[FETCHED_EXTENTS], store_key_bytes(&key),
                        item.bytes);
        if (item.bytes < 0)
            continue;
        uint8_t age[8];
        put_le64(age, page_cache_age(store->cache, item.extent));
        key = store_key_extent_age(item.extent);
        store_put(store->fetched, change->batch, FETCHED_EXTENTS, &key, (struct bytes){age, sizeof age});
    }
    live->count = count;
    if (rocksdb_writebatch_count(change->batch) == 0)
        return GRAFT_OK;
    enum graft_status status = store_write(store, store->fetched, false, change->batch, err);
    if (status == GRAFT_OK)
        page_cache_apply(store->cache, live);
    return status;
}

// The same page twice in one batch: the bytes of the earlier one are dead. False if it is there once.
static bool replaces_earlier(struct change *change, const struct store_kept *kept, size_t at)
{
    for (size_t i = at; i-- > 0;) {
        if (kept[i].pageidx != kept[at].pageidx || kept[i].mark_lsn != kept[at].mark_lsn)
            continue;
        if (kept[i].arrived.size > 0)
            extent_changes_add(&change->live, kept[i].arrived.place, -(int64_t)kept[i].arrived.size);
        return true;
    }
    return false;
}

enum graft_status store_fetched_keep_locked(struct store_volume *volume, const struct store_kept *kept,
                                            size_t count, struct graft_error *err)
{
    mutex_assert_held(&volume->commit_lock);
    struct change change;
    _cleanup_(pageset_free_p) struct pageset *seen = pageset_new();
    change_begin(&change, volume->store);
    enum graft_status status = GRAFT_OK;
    for (size_t i = 0; i < count && status == GRAFT_OK; i++) {
        struct store_key key = store_key_fetched(volume->number, kept[i].pageidx, kept[i].mark_lsn);
        bool found;
        if (!pageset_contains(seen, kept[i].pageidx) || !replaces_earlier(&change, kept, i))
            status = change_forget(&change, &key, &found, err);
        pageset_add(seen, kept[i].pageidx);
        change_put(&change, &key, &kept[i].arrived);
    }
    if (status == GRAFT_OK)
        status = change_write(&change, err);
    change_end(&change);
    return status;
}

static int by_page(const void *left, const void *right)
{
    const struct store_fetched_key *a = left, *b = right;
    if (a->pageidx != b->pageidx)
        return a->pageidx < b->pageidx ? -1 : 1;
    return a->mark_lsn < b->mark_lsn ? -1 : a->mark_lsn > b->mark_lsn;
}

enum graft_status store_fetched_remove(struct store *store, uint64_t number, struct store_fetched_key *keys,
                                       size_t count, struct graft_error *err)
{
    struct change change;
    if (count == 0)
        return GRAFT_OK;
    // A page may be named twice, and is live once.
    qsort(keys, count, sizeof *keys, by_page);
    change_begin(&change, store);
    enum graft_status status = GRAFT_OK;
    for (size_t i = 0; i < count && status == GRAFT_OK; i++) {
        struct store_key key = store_key_fetched(number, keys[i].pageidx, keys[i].mark_lsn);
        bool found;
        if (i > 0 && by_page(&keys[i - 1], &keys[i]) == 0)
            continue;
        status = change_forget(&change, &key, &found, err);
        if (status == GRAFT_OK && found)
            store_delete(store->fetched, change.batch, FETCHED_ARRIVED, &key);
    }
    if (status == GRAFT_OK)
        status = change_write(&change, err);
    change_end(&change);
    return status;
}

// Removes the next pages of a volume; *ret_count: so many.
static enum graft_status remove_some(struct store *store, uint64_t number, size_t *ret_count,
                                     struct graft_error *err)
{
    struct change change;
    struct store_key prefix = store_key_number(number);
    change_begin(&change, store);
    struct rocks_scan *scan = store_scan(store->fetched, FETCHED_ARRIVED, &prefix);
    size_t count = 0;
    for (rocksdb_iter_seek_to_first(scan->iterator);
         rocksdb_iter_valid(scan->iterator) && count < store->batch_entries;
         rocksdb_iter_next(scan->iterator)) {
        struct store_arrived there;
        if (store_arrived_decode(rocks_iter_value(scan->iterator), &there))
            change_kill(&change, &there);
        rocks_batch_delete(change.batch, store->fetched->families[FETCHED_ARRIVED],
                           rocks_iter_key(scan->iterator));
        count++;
    }
    enum graft_status status = rocks_iter_status(scan->iterator, "removing fetched pages", err);
    rocks_scan_free(scan);
    if (status == GRAFT_OK)
        status = change_write(&change, err);
    change_end(&change);
    if (status == GRAFT_OK)
        *ret_count = count;
    return status;
}

enum graft_status store_fetched_remove_volume(struct store *store, uint64_t number, struct graft_error *err)
{
    size_t count;
    enum graft_status status;
    do {
        status = remove_some(store, number, &count, err);
    } while (status == GRAFT_OK && count > 0);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct store_key key = store_key_number(number);
    store_delete(store->fetched, batch, FETCHED_TALLIES, &key);
    status = store_write(store, store->fetched, false, batch, err);
    return status == GRAFT_OK ? page_cache_trim(store->cache, err) : status;
}

// ---- reading

static bool is_of_version(const struct store_volume *volume, uint64_t remote_lsn,
                          const struct store_arrived *arrived)
{
    return arrived->remote_lsn == remote_lsn && arrived->size <= volume->page_size;
}

enum graft_status store_fetched_find(struct store_volume *volume, uint32_t pageidx, uint64_t mark_lsn,
                                     uint64_t remote_lsn, struct store_arrived *ret_arrived, bool *ret_found,
                                     struct graft_error *err)
{
    struct store_key key = store_key_fetched(volume->number, pageidx, mark_lsn);
    enum graft_status status = get_arrived(volume->store, &key, ret_arrived, ret_found, err);
    *ret_found = *ret_found && is_of_version(volume, remote_lsn, ret_arrived);
    return status;
}

bool store_fetched_load(struct store_volume *volume, uint32_t pageidx, const struct store_arrived *arrived,
                        void *to)
{
    if (arrived->size > 0 &&
        page_cache_read(volume->store->cache, arrived->place, to, arrived->size, NULL) != GRAFT_OK)
        return false;
    return arrived->empty ||
           checksum_matches(arrived->checksum, page_checksum(&volume->vid, pageidx, to, arrived->size));
}

// Drops an entry that says nothing usable (`bad` NULL), or one whose bytes are not what it says, unless it changed
// meanwhile. Best effort: if it fails the store is closed, and that shows in the next call.
static void drop_bad(struct store_volume *volume, uint32_t pageidx, uint64_t mark_lsn, uint64_t remote_lsn,
                     const struct store_arrived *bad)
{
    struct store_key key = store_key_fetched(volume->number, pageidx, mark_lsn);
    struct change change;
    struct store_arrived arrived;
    bool found, there;
    LOCK_GUARD(&volume->commit_lock);
    change_begin(&change, volume->store);
    enum graft_status status = get_entry(volume->store, &key, &arrived, &found, &there, NULL);
    bool same = bad ? found && arrived.place == bad->place && arrived.checksum == bad->checksum
                    : there && !(found && is_of_version(volume, remote_lsn, &arrived));
    if (status == GRAFT_OK && same) {
        if (found)
            change_kill(&change, &arrived);
        store_delete(volume->store->fetched, change.batch, FETCHED_ARRIVED, &key);
        status = change_write(&change, NULL);
    }
    change_end(&change);
    struct store_counted counted = {pageidx, mark_lsn, STORE_PAGE_PENDING};
    if (same && status == GRAFT_OK)
        store_counts_fetched_locked(volume, &counted, 1);
}

enum graft_status store_fetched_read(struct store_volume *volume, uint32_t pageidx, uint64_t mark_lsn,
                                     uint64_t remote_lsn, void *to, struct store_arrived *ret_arrived,
                                     bool *ret_found, struct graft_error *err)
{
    struct store_key key = store_key_fetched(volume->number, pageidx, mark_lsn);
    struct store_arrived arrived, last = {.place = PAGE_CACHE_PLACE_NONE};
    *ret_found = false;
    for (unsigned look = 0; look < LOOKS_MAX; look++) {
        bool found, there;
        enum graft_status status = get_entry(volume->store, &key, &arrived, &found, &there, err);
        if (status != GRAFT_OK || !there)
            return status;
        if (!found || !is_of_version(volume, remote_lsn, &arrived)) {
            drop_bad(volume, pageidx, mark_lsn, remote_lsn, NULL);
            return GRAFT_OK;
        }
        if (store_fetched_load(volume, pageidx, &arrived, to)) {
            *ret_arrived = arrived;
            *ret_found = true;
            return GRAFT_OK;
        }
        // Twice the same: nobody moved it.
        if (arrived.place == last.place && arrived.checksum == last.checksum) {
            drop_bad(volume, pageidx, mark_lsn, remote_lsn, &arrived);
            return GRAFT_OK;
        }
        last = arrived;
    }
    return GRAFT_OK;
}

// ---- what the hand asks

static enum graft_status look(void *context, struct page_cache_page *pages, size_t count,
                              struct graft_error *err)
{
    struct store *store = context;
    for (size_t i = 0; i < count; i++) {
        struct page_cache_page *page = &pages[i];
        struct store_key key = store_key_fetched(page->entry.number, page->entry.pageidx, page->entry.lsn);
        struct store_arrived there;
        bool found;
        enum graft_status status = get_arrived(store, &key, &there, &found, err);
        if (status != GRAFT_OK)
            return status;
        page->wanted = found && there.size > 0 && there.place == page->from &&
                       there.size == page->entry.size && there.checksum == page->entry.checksum;
    }
    return GRAFT_OK;
}

// Pages of one volume. *ret_dropped gets those that are pending now, for its counts.
static enum graft_status move_pages(struct store *store, const struct page_cache_page *const *pages,
                                    size_t count, struct store_counted *ret_dropped, size_t *ret_count,
                                    struct graft_error *err)
{
    struct change change;
    size_t dropped = 0;
    change_begin(&change, store);
    enum graft_status status = GRAFT_OK;
    for (size_t i = 0; i < count && status == GRAFT_OK; i++) {
        const struct page_cache_page *page = pages[i];
        struct store_key key = store_key_fetched(page->entry.number, page->entry.pageidx, page->entry.lsn);
        struct store_arrived there;
        bool found;
        status = get_arrived(store, &key, &there, &found, err);
        if (status != GRAFT_OK || !found || there.size == 0 || there.place != page->from)
            continue;
        change_kill(&change, &there);
        if (page->to != PAGE_CACHE_PLACE_NONE) {
            there.place = page->to;
            change_put(&change, &key, &there);
            continue;
        }
        store_delete(store->fetched, change.batch, FETCHED_ARRIVED, &key);
        ret_dropped[dropped++] =
            (struct store_counted){page->entry.pageidx, page->entry.lsn, STORE_PAGE_PENDING};
    }
    if (status == GRAFT_OK)
        status = change_write(&change, err);
    for (size_t i = 0; i < count && status == GRAFT_OK; i++)
        store_hints_move(store->hints, pages[i]->entry.number, pages[i]->entry.pageidx, true, pages[i]->from,
                         pages[i]->to);
    change_end(&change);
    *ret_count = status == GRAFT_OK ? dropped : 0;
    return status;
}

// An open volume's counts follow, under its commit lock. One that is not open has none, and is not opened meanwhile: NULL,
// with the table lock.
static struct store_volume *hold_volume(struct store *store, uint64_t number)
{
    for (;;) {
        struct store_volume *volume = store_volume_find_number(store, number);
        if (volume) {
            mutex_lock(&volume->commit_lock);
            return volume;
        }
        mutex_lock(&store->table_lock);
        volume = store_volume_find_number(store, number);
        if (!volume)
            return NULL;
        mutex_unlock(&store->table_lock);
        store_volume_close(volume);
    }
}

static enum graft_status move_of_volume(struct store *store, const struct page_cache_page *const *pages,
                                        size_t count, struct graft_error *err)
{
    struct store_counted dropped[BATCH_PAGES];
    size_t dropped_count;
    LOCK_GUARD(&store->evict_lock);
    struct store_volume *volume = hold_volume(store, pages[0]->entry.number);
    enum graft_status status = move_pages(store, pages, count, dropped, &dropped_count, err);
    if (!volume) {
        mutex_unlock(&store->table_lock);
        return status;
    }
    store_counts_fetched_locked(volume, dropped, dropped_count);
    mutex_unlock(&volume->commit_lock);
    store_volume_close(volume);
    return status;
}

static int by_number(const void *left, const void *right)
{
    const struct page_cache_page *a = *(const struct page_cache_page *const *)left;
    const struct page_cache_page *b = *(const struct page_cache_page *const *)right;
    return a->entry.number < b->entry.number ? -1 : a->entry.number > b->entry.number;
}

static enum graft_status move(void *context, const struct page_cache_page *pages, size_t count,
                              struct graft_error *err)
{
    const struct page_cache_page *sorted[BATCH_PAGES];
    CHECK(count <= BATCH_PAGES);
    for (size_t i = 0; i < count; i++)
        sorted[i] = &pages[i];
    qsort(sorted, count, sizeof sorted[0], by_number);
    enum graft_status status = GRAFT_OK;
    for (size_t i = 0, end; i < count && status == GRAFT_OK; i = end) {
        for (end = i + 1; end < count && sorted[end]->entry.number == sorted[i]->entry.number; end++)
            ;
        status = move_of_volume(context, sorted + i, end - i, err);
    }
    return status;
}

static enum graft_status forget_extent(void *context, uint32_t extent, struct graft_error *err)
{
    struct store *store = context;
    struct store_key prefix = {.size = 0};
    _cleanup_(free_p) struct page_cache_page *pages = calloc(BATCH_PAGES, sizeof *pages);
    if (!pages)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to evict fetched pages");
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        store_scan(store->fetched, FETCHED_ARRIVED, &prefix);
    size_t count = 0;
    enum graft_status status = GRAFT_OK;
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator) && status == GRAFT_OK;
         rocksdb_iter_next(scan->iterator)) {
        struct bytes key = rocks_iter_key(scan->iterator);
        struct store_arrived there;
        struct page_cache_page *page = &pages[count];
        if (!store_arrived_decode(rocks_iter_value(scan->iterator), &there) || there.size == 0 ||
            place_extent(there.place) != extent ||
            !store_key_parse_fetched(key, &page->entry.pageidx, &page->entry.lsn))
            continue;
        page->entry.number = get_be64(key.data);
        page->from = there.place;
        page->to = PAGE_CACHE_PLACE_NONE;
        if (++count < BATCH_PAGES)
            continue;
        status = move(store, pages, count, err);
        count = 0;
    }
    if (status == GRAFT_OK)
        status = rocks_iter_status(scan->iterator, "looking for fetched pages", err);
    return status == GRAFT_OK && count > 0 ? move(store, pages, count, err) : status;
}

static enum graft_status may_grow(void *context, size_t size, struct graft_error *err)
{
    struct store *store = context;
    return disk_reserve_take(&store->reserve, size, err);
}

static const struct page_cache_index cache_index = {look, move, forget_extent, may_grow};

// ---- opening

// What the index says of an extent.
struct said {
    uint32_t extent;
    bool is_age;
    uint64_t value;
};

static enum graft_status read_said(struct store *store, struct said **ret_said, size_t *ret_count,
                                   uint32_t *ret_extents, struct graft_error *err)
{
    struct store_key prefix = {.size = 0};
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        store_scan(store->fetched, FETCHED_EXTENTS, &prefix);
    _cleanup_(free_p) struct said *said = NULL;
    size_t count = 0, capacity = 0;
    uint32_t extents = 0;
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator)) {
        struct said one = {0};
        struct bytes key = rocks_iter_key(scan->iterator), value = rocks_iter_value(scan->iterator);
        one.is_age = store_key_parse_extent_age(key, &one.extent);
        if (value.size != 8 || (!one.is_age && !store_key_parse_extent(key, &one.extent)))
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                             "the index of the page cache has a damaged entry");
        one.value = get_le64(value.data);
        if (one.value == 0)
            continue;
        if (!one.is_age)
            extents = MAX(extents, one.extent + 1);
        if (count == capacity) {
            capacity = capacity ? 2 * capacity : 256;
            struct said *more = reallocarray(said, capacity, sizeof *said);
            if (!more)
                return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the page cache");
            said = more;
        }
        said[count++] = one;
    }
    *ret_said = TAKE(said);
    *ret_count = count;
    *ret_extents = extents;
    return rocks_iter_status(scan->iterator, "reading the index of the page cache", err);
}

static enum graft_status open_cache(struct store *store, const char *directory, struct graft_error *err)
{
    _cleanup_(free_p) struct said *said = NULL;
    size_t count = 0;
    struct page_cache_settings settings = {.directory = directory,
                                           .store = checksum64(store->cid.bytes, GID_SIZE),
                                           .index = &cache_index,
                                           .context = store};
    random_bytes(&settings.epoch, sizeof settings.epoch);
    enum graft_status status = read_said(store, &said, &count, &settings.extents, err);
    if (status == GRAFT_OK)
        status = page_cache_open(&settings, &store->cache, err);
    for (size_t i = 0; i < count && status == GRAFT_OK; i++) {
        if (said[i].is_age)
            page_cache_set_age(store->cache, said[i].extent, said[i].value);
        else
            status = page_cache_set_live(store->cache, said[i].extent, said[i].value, err);
    }
    if (status == GRAFT_OK)
        page_cache_start(store->cache);
    return status;
}

// What was fetched can be fetched again: a cache that is not sound goes as a whole.
static enum graft_status forget_everything(struct store *store, const char *directory,
                                           struct graft_error *err)
{
    static const char first[1] = {0};
    char last[STORE_KEY_SIZE_MAX];
    memset(last, 0xff, sizeof last);
    page_cache_close(TAKE(store->cache));
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    static const unsigned families[] = {FETCHED_ARRIVED, FETCHED_EXTENTS};
    for (size_t i = 0; i < ARRAY_COUNT(families); i++)
        rocksdb_writebatch_delete_range_cf(batch, store->fetched->families[families[i]], first, 0, last,
                                           sizeof last);
    enum graft_status status = store_write(store, store->fetched, false, batch, err);
    return status == GRAFT_OK ? page_cache_remove_files(directory, err) : status;
}

enum graft_status store_fetched_open(struct store *store, uint64_t cache_limit, struct graft_error *err)
{
    _cleanup_(free_p) char *directory = NULL;
    struct graft_error why;
    CHECK(asprintf(&directory, "%s/cache", store->directory) > 0);
    enum graft_status status = open_cache(store, directory, &why);
    if (status == GRAFT_CORRUPT) {
        status = forget_everything(store, directory, &why);
        if (status == GRAFT_OK)
            status = open_cache(store, directory, &why);
    }
    if (status == GRAFT_OK && cache_limit > 0)
        status = page_cache_set_limit(store->cache, cache_limit, &why);
    return status == GRAFT_OK ? GRAFT_OK : error_copy(err, &why);
}

enum graft_status store_cache_limit_set(struct store *store, uint64_t limit, struct graft_error *err)
{
    enum graft_status status = store_check_usable(store, err);
    return status == GRAFT_OK ? page_cache_set_limit(store->cache, limit, err) : status;
}

void store_cache_usage(struct store *store, struct store_cache_usage *ret_usage)
{
    struct page_cache_usage usage;
    page_cache_usage(store->cache, &usage);
    *ret_usage = (struct store_cache_usage){
        .limit = usage.limit,
        .size = usage.size,
        .live = usage.live,
        .evicted_pages = usage.evicted_pages,
        .evicted_size = usage.evicted_size,
    };
}
