// SPDX-License-Identifier: Apache-2.0
//
// Two kinds of entries, segments (their index) and blocks, with the same life: LOADING → READY or FAILED. A block holds its
// segment. An entry nobody holds is in the LRU list, and only there can it be evicted. A FAILED entry leaves the tables at
// once, so that the next reader tries again; its holders keep the error.
#include "pagestore/block_cache.h"

#include <stdlib.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/checksum.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"

// Damaged pages of a block that are remembered one by one; with more, the whole block counts as damaged.
#define DAMAGED_MAX 16u

struct entry {
    TAILQ_ENTRY(entry) lru; // while references == 0
    unsigned references;
    enum cache_state state;
    bool is_block;
    bool detached; // in no table any more
    size_t memory;
    struct cache_waiter *waiters;
    struct graft_error error; // FAILED
};
TAILQ_HEAD(entry_list, entry);

// All under cache->lock, but for what is immutable once READY: index, blocks' data and damage.
struct cached_segment {
    struct entry entry;
    struct block_cache *cache;
    struct segment_place place;
    uint32_t block_size, block_count;
    struct segment_index *index;
    struct cached_block **blocks; // by number; NULL: not in memory
    UT_hash_handle hh;            // by place.sid
};

struct cached_block {
    struct entry entry;
    struct cached_segment *segment; // held
    uint32_t number;
    uint32_t offset, size; // in the object
    uint8_t *data;
    uint32_t damaged[DAMAGED_MAX]; // places of the segment's index
    uint32_t damaged_count;
};

struct block_cache {
    struct objstore *store;
    size_t size_max;
    struct mutex lock;
    struct cached_segment *segments;
    struct entry_list lru; // least recently used first
    size_t memory;
    unsigned loading; // requests to the store that are not over
    struct cond loaded;
    struct metric *hits, *misses, *loads, *loaded_bytes, *held_bytes;
};

enum graft_status block_cache_new(struct objstore *store, size_t size_max, struct metrics *metrics,
                                  struct block_cache **ret_cache, struct graft_error *err)
{
    struct block_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the block cache");
    cache->store = store;
    cache->size_max = size_max;
    mutex_init(&cache->lock, RANK_PAGE_CACHE);
    cond_init(&cache->loaded);
    TAILQ_INIT(&cache->lru);
    cache->hits = metrics_counter(metrics, "graft_cache_hits_total", NULL, "blocks found in memory");
    cache->misses =
        metrics_counter(metrics, "graft_cache_misses_total", NULL, "blocks that had to be loaded");
    cache->loads = metrics_counter(metrics, "graft_cache_loads_total", NULL, "requests to the object store");
    cache->loaded_bytes =
        metrics_counter(metrics, "graft_cache_loaded_bytes_total", NULL, "bytes they brought");
    cache->held_bytes =
        metrics_gauge(metrics, "graft_cache_bytes", NULL, "bytes of blocks and indexes in memory");
    *ret_cache = cache;
    return GRAFT_OK;
}

// ---- entries --------------------------------------------------------------------------------------------------------

static void release_locked(struct block_cache *cache, struct entry *entry);

static void account_locked(struct block_cache *cache, struct entry *entry, size_t memory)
{
    cache->memory += memory - entry->memory;
    entry->memory = memory;
    metric_set(cache->held_bytes, (int64_t)cache->memory);
}

static void free_locked(struct block_cache *cache, struct entry *entry)
{
    CHECK(entry->references == 0 && !entry->waiters);
    account_locked(cache, entry, 0);
    if (entry->is_block) {
        struct cached_block *block = CONTAINER_OF(entry, struct cached_block, entry);
        struct cached_segment *segment = block->segment;
        if (!entry->detached)
            segment->blocks[block->number] = NULL;
        free(block->data);
        free(block);
        release_locked(cache, &segment->entry);
    } else {
        struct cached_segment *segment = CONTAINER_OF(entry, struct cached_segment, entry);
        if (!entry->detached)
            HASH_DEL(cache->segments, segment);
        segment_index_free(segment->index);
        free(segment->blocks);
        free(segment);
    }
}

static void evict_locked(struct block_cache *cache, size_t size_max)
{
    mutex_assert_held(&cache->lock);
    while (cache->memory > size_max && !TAILQ_EMPTY(&cache->lru)) {
        struct entry *oldest = TAILQ_FIRST(&cache->lru);
        TAILQ_REMOVE(&cache->lru, oldest, lru);
        free_locked(cache, oldest);
    }
}

static void hold_locked(struct block_cache *cache, struct entry *entry)
{
    if (entry->references++ == 0)
        TAILQ_REMOVE(&cache->lru, entry, lru);
}

static void release_locked(struct block_cache *cache, struct entry *entry)
{
    CHECK(entry->references > 0);
    if (--entry->references > 0)
        return;
    if (entry->detached)
        free_locked(cache, entry);
    else
        TAILQ_INSERT_TAIL(&cache->lru, entry, lru);
}

static void release(struct block_cache *cache, struct entry *entry)
{
    LOCK_GUARD(&cache->lock);
    release_locked(cache, entry);
    evict_locked(cache, cache->size_max);
}

void block_cache_free(struct block_cache *cache)
{
    if (!cache)
        return;
    mutex_lock(&cache->lock);
    // A reader whose peer has gone leaves its loads behind.
    while (cache->loading)
        cond_wait(&cache->loaded, &cache->lock);
    // A freed block may put its segment on the list again.
    struct entry *entry;
    while ((entry = TAILQ_FIRST(&cache->lru))) {
        TAILQ_REMOVE(&cache->lru, entry, lru);
        free_locked(cache, entry);
    }
    CHECK(!cache->segments);
    mutex_unlock(&cache->lock);
    cond_release(&cache->loaded);
    mutex_release(&cache->lock);
    free(cache);
}

static enum cache_state poll_entry(struct block_cache *cache, struct entry *entry,
                                   struct cache_waiter *waiter, const struct graft_error **ret_error)
{
    LOCK_GUARD(&cache->lock);
    if (entry->state == CACHE_LOADING && waiter) {
        waiter->next = entry->waiters;
        entry->waiters = waiter;
    }
    if (entry->state == CACHE_FAILED)
        *ret_error = &entry->error;
    return entry->state;
}

// Takes the waiters along: they are woken once the lock is gone.
static void settle_locked(struct entry *entry, enum cache_state state, struct cache_waiter **waiters)
{
    entry->state = state;
    while (entry->waiters) {
        struct cache_waiter *waiter = entry->waiters;
        entry->waiters = waiter->next;
        waiter->next = *waiters;
        *waiters = waiter;
    }
}

static void begin_load(struct block_cache *cache)
{
    LOCK_GUARD(&cache->lock);
    cache->loading++;
}

// The last that a load does with the cache, which may be freed from then on.
static void end_load(struct block_cache *cache, struct cache_waiter *waiters)
{
    while (waiters) {
        struct cache_waiter *waiter = waiters;
        waiters = waiter->next;
        waiter->wake(waiter);
    }
    LOCK_GUARD(&cache->lock);
    if (--cache->loading == 0)
        cond_broadcast(&cache->loaded);
}

// ---- checking what was loaded ---------------------------------------------------------------------------------------

// The first place of the index whose page begins at or behind `offset`.
static uint32_t first_page_at(const struct segment_index *index, uint32_t offset)
{
    uint32_t low = 0, high = index->footer.page_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->pages[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void verify_block(struct cached_block *block, const struct segment_index *index)
{
    for (uint32_t place = first_page_at(index, block->offset); place < index->footer.page_count; place++) {
        const struct segment_page *page = &index->pages[place];
        uint32_t at = page->offset - block->offset;
        if (at >= block->size || page->size > block->size - at)
            return; // begins behind the block, or reaches out of it: its reader has both halves and checks it
        if (checksum_matches(page->stored_checksum, checksum64(block->data + at, page->size)))
            continue;
        if (block->damaged_count < DAMAGED_MAX)
            block->damaged[block->damaged_count] = place;
        block->damaged_count++;
    }
}

bool cached_block_is_damaged(const struct cached_block *block, uint32_t place)
{
    if (block->damaged_count > DAMAGED_MAX)
        return true;
    for (uint32_t i = 0; i < block->damaged_count; i++) {
        if (block->damaged[i] == place)
            return true;
    }
    return false;
}

static enum graft_status load_error(const struct cached_segment *segment,
                                    const struct objstore_result *result, size_t wanted,
                                    struct graft_error *err)
{
    struct gid_text sid = gid_format(&segment->place.sid);
    if (result->error.status == GRAFT_NOT_FOUND)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE,
                         "segment %s is missing from the object store", sid.text);
    if (result->error.status != GRAFT_OK) {
        error_copy(err, &result->error);
        return error_context(err, result->error.status, "loading segment %s", sid.text);
    }
    if (result->data.size != wanted)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_TRUNCATED,
                         "segment %s is cut off: %zu of %zu bytes", sid.text, result->data.size, wanted);
    return GRAFT_OK;
}

// ---- blocks -----------------------------------------------------------------------------------------------------------

static struct cached_block *block_new(struct cached_segment *segment, uint32_t number)
{
    struct cached_block *block = calloc(1, sizeof *block);
    if (!block)
        return NULL;
    block->entry.is_block = true;
    block->entry.references = 1;
    block->entry.state = CACHE_LOADING;
    block->segment = segment;
    block->number = number;
    block->offset = number * segment->block_size;
    block->size = MIN(segment->block_size, (uint32_t)segment->place.object_size - block->offset);
    return block;
}

static void link_block_locked(struct cached_block *block)
{
    hold_locked(block->segment->cache, &block->segment->entry);
    block->segment->blocks[block->number] = block;
}

// Neighbours that are loaded with one request. Each has a reference for the load.
struct load {
    struct cached_segment *segment;
    uint32_t first, count;
    struct cached_block *blocks[BLOCK_LOAD_MAX / BLOCK_SIZE];
};

static enum graft_status fill_block(struct cached_block *block, const uint8_t *data, struct graft_error *err)
{
    block->data = malloc(block->size);
    if (!block->data)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a block of a segment");
    memcpy(block->data, data, block->size);
    verify_block(block, block->segment->index);
    return GRAFT_OK;
}

static void load_done(void *context, struct objstore_result *result)
{
    struct load *load = context;
    struct cached_segment *segment = load->segment;
    struct block_cache *cache = segment->cache;
    struct cache_waiter *waiters = NULL;
    const struct cached_block *last = load->blocks[load->count - 1];
    uint32_t from = load->blocks[0]->offset; // a block may be gone once its reference is given back
    struct graft_error err;
    enum graft_status loaded = load_error(segment, result, last->offset + last->size - from, &err);
    metric_add(cache->loaded_bytes, (int64_t)result->data.size);
    for (uint32_t i = 0; i < load->count; i++) {
        struct cached_block *block = load->blocks[i];
        enum graft_status status = loaded;
        if (status == GRAFT_OK)
            status = fill_block(block, result->data.data + (block->offset - from), &err);
        LOCK_GUARD(&cache->lock);
        if (status == GRAFT_OK) {
            account_locked(cache, &block->entry, sizeof *block + block->size);
        } else {
            block->entry.error = err;
            block->entry.detached = true;
            segment->blocks[block->number] = NULL;
        }
        settle_locked(&block->entry, status == GRAFT_OK ? CACHE_READY : CACHE_FAILED, &waiters);
        release_locked(cache, &block->entry);
        evict_locked(cache, cache->size_max);
    }
    free(load);
    end_load(cache, waiters);
}

static void start_load(struct load *load)
{
    struct block_cache *cache = load->segment->cache;
    const struct cached_block *first = load->blocks[0], *last = load->blocks[load->count - 1];
    metric_add(cache->loads, 1);
    metric_add(cache->misses, load->count);
    begin_load(cache);
    objstore_get(cache->store, segment_key(&load->segment->place.sid).text, first->offset,
                 last->offset + last->size - first->offset, load_done, load);
}

bool cached_segment_blocks(struct cached_segment *segment, uint32_t first, uint32_t count,
                           struct cached_block **blocks)
{
    struct block_cache *cache = segment->cache;
    struct load *loads[BLOCK_LOAD_MAX / BLOCK_SIZE];
    uint32_t load_count = 0, got = 0, hits = 0;
    CHECK(count >= 1 && count <= BLOCK_LOAD_MAX / BLOCK_SIZE && first + count <= segment->block_count);
    mutex_lock(&cache->lock);
    CHECK(segment->entry.state == CACHE_READY);
    for (; got < count; got++) {
        uint32_t number = first + got;
        struct cached_block *block = segment->blocks[number];
        if (block) {
            hold_locked(cache, &block->entry);
            blocks[got] = block;
            hits++;
            continue;
        }
        struct load *load = load_count ? loads[load_count - 1] : NULL;
        if (!load || load->first + load->count != number) {
            load = calloc(1, sizeof *load);
            if (!load)
                break;
            load->segment = segment;
            load->first = number;
            loads[load_count++] = load;
        }
        block = block_new(segment, number);
        if (!block)
            break;
        link_block_locked(block);
        hold_locked(cache, &block->entry); // the load's
        load->blocks[load->count++] = block;
        blocks[got] = block;
    }
    bool whole = got == count;
    for (uint32_t i = 0; !whole && i < got; i++)
        release_locked(cache, &blocks[i]->entry);
    mutex_unlock(&cache->lock);
    metric_add(cache->hits, hits);
    // What was begun is loaded even if this caller got nothing: others may wait for it by now.
    for (uint32_t i = 0; i < load_count; i++) {
        if (loads[i]->count)
            start_load(loads[i]);
        else
            free(loads[i]);
    }
    return whole;
}

void cached_block_release(struct cached_block *block)
{
    if (block)
        release(block->segment->cache, &block->entry);
}

enum cache_state cached_block_poll(struct cached_block *block, struct cache_waiter *waiter,
                                   const struct graft_error **ret_error)
{
    return poll_entry(block->segment->cache, &block->entry, waiter, ret_error);
}

struct bytes cached_block_bytes(const struct cached_block *block, uint32_t *ret_offset)
{
    *ret_offset = block->offset;
    return (struct bytes){block->data, block->size};
}

// ---- segments -------------------------------------------------------------------------------------------------------

// Of a small segment everything has come, so it is block 0 as well: *ret_block, not yet linked.
static enum graft_status take_segment(struct cached_segment *segment, const struct objstore_result *result,
                                      bool whole, struct cached_block **ret_block, struct graft_error *err)
{
    const struct segment_place *place = &segment->place;
    enum graft_status status =
        load_error(segment, result, place->object_size - (whole ? 0 : place->index_offset), err);
    if (status != GRAFT_OK)
        return status;
    struct bytes tail = buffer_bytes(&result->data);
    if (whole)
        tail = (struct bytes){tail.data + place->index_offset, tail.size - place->index_offset};
    status =
        segment_tail_decode(tail, &place->sid, place->index_offset, place->object_size, &segment->index, err);
    if (status != GRAFT_OK || !whole)
        return status;
    struct cached_block *block = block_new(segment, 0);
    if (!block)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a block of a segment");
    status = fill_block(block, result->data.data, err);
    if (status == GRAFT_OK)
        *ret_block = block;
    else
        free(block);
    return status;
}

static void segment_loaded(void *context, struct objstore_result *result)
{
    struct cached_segment *segment = context;
    struct block_cache *cache = segment->cache;
    struct cache_waiter *waiters = NULL;
    struct cached_block *block = NULL;
    struct graft_error err;
    bool whole = segment->place.object_size <= WHOLE_SEGMENT_MAX;
    enum graft_status status = take_segment(segment, result, whole, &block, &err);
    metric_add(cache->loaded_bytes, (int64_t)result->data.size);
    mutex_lock(&cache->lock);
    if (block) {
        link_block_locked(block);
        block->entry.state = CACHE_READY;
        account_locked(cache, &block->entry, sizeof *block + block->size);
        release_locked(cache, &block->entry);
    }
    if (status == GRAFT_OK) {
        account_locked(cache, &segment->entry,
                       sizeof *segment + segment->block_count * sizeof *segment->blocks +
                           segment->index->memory);
    } else {
        segment->entry.error = err;
        segment->entry.detached = true;
        HASH_DEL(cache->segments, segment);
    }
    settle_locked(&segment->entry, status == GRAFT_OK ? CACHE_READY : CACHE_FAILED, &waiters);
    release_locked(cache, &segment->entry);
    evict_locked(cache, cache->size_max);
    mutex_unlock(&cache->lock);
    end_load(cache, waiters);
}

static struct cached_segment *segment_new(struct block_cache *cache, const struct segment_place *place)
{
    struct cached_segment *segment = calloc(1, sizeof *segment);
    if (!segment)
        return NULL;
    segment->cache = cache;
    segment->place = *place;
    segment->entry.state = CACHE_LOADING;
    segment->entry.references = 2; // the caller's and the load's
    segment->block_size = place->object_size <= WHOLE_SEGMENT_MAX ? WHOLE_SEGMENT_MAX : BLOCK_SIZE;
    segment->block_count = (uint32_t)((place->object_size + segment->block_size - 1) / segment->block_size);
    segment->blocks = calloc(segment->block_count + 1, sizeof(struct cached_block *));
    if (!segment->blocks) {
        free(segment);
        return NULL;
    }
    return segment;
}

struct cached_segment *block_cache_segment(struct block_cache *cache, const struct segment_place *place)
{
    struct cached_segment *segment;
    mutex_lock(&cache->lock);
    HASH_FIND(hh, cache->segments, &place->sid, sizeof place->sid, segment);
    if (segment) {
        hold_locked(cache, &segment->entry);
        mutex_unlock(&cache->lock);
        return segment;
    }
    // The place is the metastore's word, covered by a receipt; the sizes are bounded here all the same.
    bool sane = place->object_size <= SEGMENT_SIZE_MAX && place->index_offset < place->object_size;
    segment = sane ? segment_new(cache, place) : NULL;
    if (segment)
        HASH_ADD(hh, cache->segments, place.sid, sizeof place->sid, segment);
    mutex_unlock(&cache->lock);
    if (!segment)
        return NULL;
    metric_add(cache->loads, 1);
    uint64_t offset = place->object_size <= WHOLE_SEGMENT_MAX ? 0 : place->index_offset;
    begin_load(cache);
    objstore_get(cache->store, segment_key(&place->sid).text, offset, place->object_size - offset,
                 segment_loaded, segment);
    return segment;
}

void cached_segment_release(struct cached_segment *segment)
{
    if (segment)
        release(segment->cache, &segment->entry);
}

enum cache_state cached_segment_poll(struct cached_segment *segment, struct cache_waiter *waiter,
                                     const struct segment_index **ret_index,
                                     const struct graft_error **ret_error)
{
    enum cache_state state = poll_entry(segment->cache, &segment->entry, waiter, ret_error);
    if (state == CACHE_READY)
        *ret_index = segment->index;
    return state;
}

uint32_t cached_segment_block_of(const struct cached_segment *segment, uint32_t offset)
{
    return offset / segment->block_size;
}
