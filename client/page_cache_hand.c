// SPDX-License-Identifier: Apache-2.0
//
// The hand: emptying extents. An extent is read whole, its run headers say which pages lie in it, and the owner's index
// which of those it still has there.
#include <stdlib.h>

#include "client/page_cache_internal.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"

// What is written again of an extent that is emptied to make room, at most.
#define KEPT_SIZE_MAX (EXTENT_SIZE / 8 * 7)
#define VICTIMS_MAX 8u // that are tried, if some cannot be emptied
#define CLEAN_ROUNDS 2u
#define CLEAN_LIVE_MAX (EXTENT_SIZE / 4 * 3)

enum keep {
    KEEP_READ, // what was read since the hand came by last, as far as the credit goes; the rest is dropped
    KEEP_ALL,  // what does not fit within the limit stays where it is
    KEEP_NONE,
};

// An extent being emptied.
struct emptying {
    struct page_cache *cache;
    uint32_t extent;
    enum keep keep;
    uint32_t kept_size, kept_size_max;
    uint32_t count;
    struct page_cache_page pages[RUN_PAGES_MAX]; // found and not decided yet
    struct page_cache_arrival kept[RUN_PAGES_MAX];
    uint32_t kept_index[RUN_PAGES_MAX]; // of kept[i] in pages
};

static bool was_read(struct page_cache *cache, uint64_t place)
{
    uint32_t block = place_offset(place) / BLOCK_SIZE;
    uint32_t word = atomic_load_explicit(&cache_extent_at(cache, place_extent(place))->read[block / 32],
                                         memory_order_relaxed);
    return (word >> (block % 32)) & 1;
}

// ---- writing again

static uint32_t choose_kept(struct emptying *emptying)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < emptying->count && emptying->keep != KEEP_NONE; i++) {
        const struct page_cache_page *page = &emptying->pages[i];
        uint32_t size = page->entry.size + RUN_ENTRY_SIZE;
        if (!page->wanted)
            continue;
        if (emptying->keep == KEEP_READ &&
            (!was_read(emptying->cache, page->from) || emptying->kept_size + size > emptying->kept_size_max))
            continue;
        emptying->kept_size += size;
        emptying->kept_index[count] = i;
        emptying->kept[count++] = (struct page_cache_arrival){
            .entry = page->entry, .data = emptying->cache->victim + place_offset(page->from)};
    }
    return count;
}

// Writes what is kept at the front, as far as there is room: also into the extent that appends leave free.
static enum graft_status write_kept(struct emptying *emptying, uint32_t count, struct graft_error *err)
{
    struct page_cache *cache = emptying->cache;
    for (uint32_t done = 0; done < count;) {
        size_t written;
        enum graft_status status =
            page_cache_write_run(cache, emptying->kept + done, count - done, &written, err);
        if (status != GRAFT_OK)
            return status;
        for (size_t i = 0; i < written; i++, done++)
            emptying->pages[emptying->kept_index[done]].to = emptying->kept[done].place;
        if (written > 0)
            continue;
        page_cache_retire_front(cache);
        struct graft_error why = {0};
        uint32_t extent;
        status = page_cache_take(cache, &extent, &why);
        if (status != GRAFT_OK && why.detail != GRAFT_DETAIL_NO_SPACE)
            return error_copy(err, &why);
        if (status != GRAFT_OK || extent == EXTENT_NONE)
            return GRAFT_OK;
        page_cache_begin_front(cache, extent);
    }
    return GRAFT_OK;
}

static void count_decided(struct page_cache *cache, const struct page_cache_page *pages, uint32_t count)
{
    LOCK_GUARD(&cache->lock);
    for (uint32_t i = 0; i < count; i++) {
        if (pages[i].to != PAGE_CACHE_PLACE_NONE) {
            cache->moved_size += pages[i].entry.size;
            continue;
        }
        cache->evicted_pages++;
        cache->evicted_size += pages[i].entry.size;
    }
}

// Decides about the pages that were found so far.
static enum graft_status decide(struct emptying *emptying, struct graft_error *err)
{
    struct page_cache *cache = emptying->cache;
    enum graft_status status = cache->index->look(cache->context, emptying->pages, emptying->count, err);
    if (status == GRAFT_OK)
        status = write_kept(emptying, choose_kept(emptying), err);
    if (status != GRAFT_OK) {
        page_cache_seal_filled(cache);
        return status;
    }
    uint32_t decided = 0;
    for (uint32_t i = 0; i < emptying->count; i++) {
        const struct page_cache_page *page = &emptying->pages[i];
        if (page->wanted && (page->to != PAGE_CACHE_PLACE_NONE || emptying->keep != KEEP_ALL))
            emptying->pages[decided++] = *page;
    }
    emptying->count = 0;
    if (decided > 0) {
        status = FAILPOINT_ERROR("cache.move.before", err);
        if (status == GRAFT_OK)
            status = cache->index->move(cache->context, emptying->pages, decided, err);
        FAILPOINT("cache.move.after");
    }
    if (status == GRAFT_OK)
        count_decided(cache, emptying->pages, decided);
    page_cache_seal_filled(cache);
    return status;
}

// ---- emptying

static enum graft_status add_run(struct emptying *emptying, const struct run_header *header, uint32_t at,
                                 struct graft_error *err)
{
    struct bytes bytes = {emptying->cache->victim + at, run_header_size(header->count)};
    uint32_t end = run_header_size(header->count);
    if (emptying->count + header->count > RUN_PAGES_MAX) {
        enum graft_status status = decide(emptying, err);
        if (status != GRAFT_OK)
            return status;
    }
    for (uint32_t i = 0; i < header->count; i++) {
        struct run_entry entry = run_entry_at(bytes, i);
        uint32_t offset = run_page_offset(end, entry.size);
        end = offset + entry.size;
        emptying->pages[emptying->count++] = (struct page_cache_page){
            .entry = entry, .from = place_make(emptying->extent, at + offset), .to = PAGE_CACHE_PLACE_NONE};
    }
    return GRAFT_OK;
}

// The runs that were written since the extent was begun; behind them may be those of its earlier use.
static enum graft_status walk(struct emptying *emptying, struct graft_error *err)
{
    struct page_cache *cache = emptying->cache;
    uint64_t epoch = 0, seq = 0;
    enum graft_status status = GRAFT_OK;
    for (uint32_t at = 0; at < EXTENT_SIZE && status == GRAFT_OK;) {
        struct run_header header;
        struct bytes bytes = {cache->victim + at, EXTENT_SIZE - at};
        if (!run_decode(bytes, cache->store, EXTENT_SIZE - at, &header, NULL) || header.kind != RUN_FETCHED)
            break;
        if (at > 0 && (header.epoch != epoch || header.seq <= seq))
            break;
        epoch = header.epoch;
        seq = header.seq;
        status = add_run(emptying, &header, at, err);
        at += header.size;
    }
    if (status == GRAFT_OK && emptying->count > 0)
        status = decide(emptying, err);
    return status;
}

static enum graft_status empty_extent_in(struct emptying *emptying, bool *ret_empty, struct graft_error *err)
{
    struct page_cache *cache = emptying->cache;
    uint64_t live = 0;
    *ret_empty = false;
    enum graft_status status =
        extents_read(cache->extents, place_make(emptying->extent, 0), cache->victim, EXTENT_SIZE, err);
    if (status == GRAFT_OK)
        status = walk(emptying, err);
    else if (emptying->keep != KEEP_ALL) // nobody can read it: its pages are found by the index
        status = GRAFT_OK;
    if (status != GRAFT_OK)
        return status;
    bool sealed = extents_state(cache->extents, emptying->extent, &live) == EXTENT_SEALED;
    if (sealed && emptying->keep != KEEP_ALL) {
        status = cache->index->forget_extent(cache->context, emptying->extent, err);
        sealed = extents_state(cache->extents, emptying->extent, &live) == EXTENT_SEALED;
    }
    *ret_empty = status == GRAFT_OK && !sealed;
    return status;
}

// *ret_empty: it was given away.
static enum graft_status empty_extent(struct page_cache *cache, uint32_t extent, enum keep keep,
                                      bool *ret_empty, struct graft_error *err)
{
    if (!cache->victim && !(cache->victim = malloc(EXTENT_SIZE)))
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to evict fetched pages");
    struct emptying *emptying = malloc(sizeof *emptying);
    if (!emptying)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to evict fetched pages");
    emptying->cache = cache;
    emptying->extent = extent;
    emptying->keep = keep;
    emptying->kept_size = 0;
    emptying->kept_size_max = MIN(cache->credit, KEPT_SIZE_MAX);
    emptying->count = 0;
    enum graft_status status = FAILPOINT_ERROR("cache.evict.before", err);
    if (status == GRAFT_OK)
        status = empty_extent_in(emptying, ret_empty, err);
    FAILPOINT("cache.evict.after");
    if (keep == KEEP_READ)
        cache->credit = MIN(cache->credit - emptying->kept_size + EXTENT_SIZE / 2, CREDIT_MAX);
    free(emptying);
    return status == GRAFT_OK ? GRAFT_OK
                              : error_context(err, status, "emptying extent %u of the page cache", extent);
}

// The sealed extent that was begun longest ago; those that were given away leave the list.
static uint32_t oldest(struct page_cache *cache)
{
    LOCK_GUARD(&cache->lock);
    struct cache_extent *extent, *next;
    for (extent = TAILQ_FIRST(&cache->ages); extent; extent = next) {
        next = TAILQ_NEXT(extent, by_age);
        uint64_t live;
        enum extent_state state = extents_state(cache->extents, extent->number, &live);
        if (state == EXTENT_SEALED)
            return extent->number;
        if (state == EXTENT_TAKEN)
            continue;
        TAILQ_REMOVE(&cache->ages, extent, by_age);
        extent->listed = false;
    }
    return EXTENT_NONE;
}

// One that cannot be emptied now: the hand goes on and comes by again.
static void pass_over(struct page_cache *cache, uint32_t number)
{
    LOCK_GUARD(&cache->lock);
    struct cache_extent *extent = cache_extent_at(cache, number);
    CHECK(extent->listed);
    TAILQ_REMOVE(&cache->ages, extent, by_age);
    TAILQ_INSERT_TAIL(&cache->ages, extent, by_age);
}

static enum graft_status evict(struct page_cache *cache, enum keep keep, bool *ret_done,
                               struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;
    *ret_done = false;
    for (unsigned i = 0; i < VICTIMS_MAX; i++) {
        uint32_t extent = oldest(cache);
        if (extent == EXTENT_NONE)
            return status;
        bool empty = false;
        status = empty_extent(cache, extent, keep, &empty, err);
        if (empty) {
            *ret_done = true;
            return GRAFT_OK;
        }
        pass_over(cache, extent);
    }
    return status;
}

enum graft_status page_cache_evict(struct page_cache *cache, bool *ret_done, struct graft_error *err)
{
    return evict(cache, KEEP_READ, ret_done, err);
}

// ---- dead bytes

static bool has_too_many_dead(struct page_cache *cache)
{
    struct extents_usage usage;
    uint64_t front_live = 0;
    extents_usage(cache->extents, &usage);
    uint64_t sealed = usage.extents - usage.free;
    if (cache->front != EXTENT_NONE) {
        extents_state(cache->extents, cache->front, &front_live);
        sealed--;
    }
    uint64_t live = usage.live - front_live, size = sealed * EXTENT_SIZE;
    return sealed > CLEAN_ROUNDS && size > live && (size - live) * 3 > size;
}

static uint32_t least_live(struct page_cache *cache)
{
    LOCK_GUARD(&cache->lock);
    struct cache_extent *extent;
    uint32_t best = EXTENT_NONE;
    uint64_t best_live = CLEAN_LIVE_MAX;
    TAILQ_FOREACH (extent, &cache->ages, by_age) {
        uint64_t live;
        if (extents_state(cache->extents, extent->number, &live) != EXTENT_SEALED || live >= best_live)
            continue;
        best = extent->number;
        best_live = live;
    }
    return best;
}

void page_cache_clean(struct page_cache *cache)
{
    for (unsigned round = 0; round < CLEAN_ROUNDS && has_too_many_dead(cache); round++) {
        uint32_t extent = least_live(cache);
        bool empty = false;
        // Not done is not lost: whoever needs the room meets the reason.
        if (extent == EXTENT_NONE || empty_extent(cache, extent, KEEP_ALL, &empty, NULL) != GRAFT_OK ||
            !empty)
            return;
    }
}

// ---- the limit

static uint32_t in_use(struct page_cache *cache)
{
    struct extents_usage usage;
    extents_usage(cache->extents, &usage);
    return usage.extents - usage.free;
}

// Moves what lies above the limit below it, where by now there is room, or drops it.
static enum graft_status empty_above(struct page_cache *cache, uint32_t limit, struct graft_error *err)
{
    for (uint32_t extent = limit; extent < extents_end(cache->extents); extent++) {
        uint64_t live;
        bool empty = true;
        enum graft_status status = GRAFT_OK;
        if (extents_state(cache->extents, extent, &live) == EXTENT_SEALED)
            status = empty_extent(cache, extent, KEEP_ALL, &empty, err);
        if (status != GRAFT_OK || !empty)
            status = empty_extent(cache, extent, KEEP_NONE, &empty, err);
        if (status == GRAFT_OK && !empty)
            status = error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_IO,
                               "extent %u of the page cache is not given free", extent);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static enum graft_status shrink_to(struct page_cache *cache, uint32_t limit, struct graft_error *err)
{
    // Also one that is begun now and lies below: it is continued by nobody, which is simpler than moving its end.
    if (extents_end(cache->extents) > limit) {
        page_cache_retire_front(cache);
        page_cache_seal_filled(cache);
    }
    while (in_use(cache) >= limit) {
        bool done;
        enum graft_status status = evict(cache, KEEP_READ, &done, err);
        if (status != GRAFT_OK)
            return status;
        if (!done)
            return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_IO, "the page cache cannot be made smaller");
    }
    enum graft_status status = GRAFT_OK;
    if (extents_end(cache->extents) > limit) {
        page_cache_retire_front(cache);
        page_cache_seal_filled(cache);
        status = empty_above(cache, limit, err);
    }
    return status == GRAFT_OK ? extents_cut(cache->extents, limit, err) : status;
}

enum graft_status page_cache_set_limit(struct page_cache *cache, uint64_t limit, struct graft_error *err)
{
    if (limit > 0 && limit < CACHE_LIMIT_MIN)
        return error_set(
            err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
            "a limit of %llu bytes is too little for the page cache: it needs %llu, or 0 for no limit",
            (unsigned long long)limit, (unsigned long long)CACHE_LIMIT_MIN);
    uint64_t extents = MIN(limit / EXTENT_SIZE, (uint64_t)FILES_MAX * EXTENTS_PER_FILE);
    page_cache_turn_take(cache);
    atomic_store(&cache->limit, (unsigned)extents);
    enum graft_status status = GRAFT_OK;
    if (extents > 0)
        status = shrink_to(cache, (uint32_t)extents, err);
    page_cache_turn_give(cache);
    return status == GRAFT_OK ? GRAFT_OK : error_context(err, status, "limiting the page cache");
}

enum graft_status page_cache_trim(struct page_cache *cache, struct graft_error *err)
{
    return extents_cut(cache->extents, 0, err);
}
