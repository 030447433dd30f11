// SPDX-License-Identifier: Apache-2.0
//
// What page_cache.c (space, reading, writing) and page_cache_hand.c (making room) share.
#ifndef CLIENT_PAGE_CACHE_INTERNAL_H
#define CLIENT_PAGE_CACHE_INTERNAL_H

#include <stdatomic.h>
#include <sys/queue.h>

#include "client/page_cache.h"
#include "common/base/mutex.h"

#define BLOCK_SIZE 4096u // one bit says whether a page that starts in it was read
#define BLOCK_WORDS (EXTENT_SIZE / BLOCK_SIZE / 32)
#define FILES_MAX 65536u // 4 TiB
// What the hand may write again, bytes: each extent that it empties adds half of its own to that. So where nearly all was
// read, each gives half an extent on the average, and where little was, all of it is kept.
#define CREDIT_MAX (2 * EXTENT_SIZE)
// One append is at most a chunk of arrivals: two extents, and one begun. What the hand writes again meanwhile fills half
// an extent for each that it empties.
#define FILLED_MAX 16u

struct cache_extent {
    _Atomic uint32_t read[BLOCK_WORDS]; // since the hand came by
    uint32_t number;
    bool listed;                      // lock
    uint64_t age;                     // lock; 0: never begun
    TAILQ_ENTRY(cache_extent) by_age; // lock
};

struct cache_file {
    struct cache_extent extents[EXTENTS_PER_FILE];
};

struct page_cache {
    struct extents *extents;
    const struct page_cache_index *index;
    void *context;
    uint64_t store;

    struct mutex lock; // RANK_CACHE
    struct cond turn_over;
    bool turn_taken; // lock
    TAILQ_HEAD(cache_extents, cache_extent)
    ages;              // lock; oldest first; those that were begun and not freed since
    uint64_t next_age; // lock
    uint64_t evicted_pages, evicted_size, moved_size; // lock

    atomic_uint limit; // extents; 0: none

    // The turn's.
    uint32_t front;    // being filled, TAKEN; or EXTENT_NONE
    uint32_t front_at; // its end
    uint64_t seq;
    uint64_t epoch;
    uint64_t chain;
    bool appending;              // the index was not told yet of what lies in `filled` and the front
    uint32_t filled[FILLED_MAX]; // full, not sealed
    unsigned filled_count;
    uint32_t credit;                         // bytes that the hand may write again
    uint8_t *run;                            // EXTENT_SIZE: being put together
    struct run_entry entries[RUN_PAGES_MAX]; // of it
    uint8_t *victim;                         // EXTENT_SIZE: being emptied

    _Atomic(struct cache_file *) files[FILES_MAX]; // made as the files grow, freed with the cache
};

// ---- page_cache.c

struct cache_extent *cache_extent_at(struct page_cache *cache, uint32_t extent);
void page_cache_turn_take(struct page_cache *cache);
void page_cache_turn_give(struct page_cache *cache);
// The front is full, or not wanted any more.
void page_cache_retire_front(struct page_cache *cache);
// The index knows all that was written: full extents are given away. Nothing while pages are being appended.
void page_cache_seal_filled(struct page_cache *cache);
void page_cache_begin_front(struct page_cache *cache, uint32_t extent); // TAKEN
// Extents that may still be taken: FREE ones, and what the files may grow by.
uint32_t page_cache_room(struct page_cache *cache);
// A FREE extent, or one more in the files. EXTENT_NONE with GRAFT_OK: there is none within the limit.
enum graft_status page_cache_take(struct page_cache *cache, uint32_t *ret_extent, struct graft_error *err);
// Writes as many of the pages as fit behind the front's end as one run, at least one; 0 if none does.
enum graft_status page_cache_write_run(struct page_cache *cache, struct page_cache_arrival *arrivals,
                                       size_t count, size_t *ret_count, struct graft_error *err);

// ---- page_cache_hand.c

// Empties the oldest extent. *ret_done false: there is none that could be.
enum graft_status page_cache_evict(struct page_cache *cache, bool *ret_done, struct graft_error *err);
// Writes extents together that are mostly dead, if there is reason to; a little at a time.
void page_cache_clean(struct page_cache *cache);

#endif
