// SPDX-License-Identifier: Apache-2.0
//
// Segments in memory, by blocks: a segment of up to 1 MiB is one block, a larger one is cut into aligned blocks of 256 KiB.
// Each block is loaded once however many ask for it at the same time; neighbours that are missing are loaded together.
// What is loaded is checked once, against the checksums of the stored bytes; a page that fails is known to be damaged.
//
//     segment = block_cache_segment(cache, &place)            its load is started where it is not in memory
//     cached_segment_poll(segment, &waiter, &index, &error)   READY, FAILED, or LOADING: `wake` will be called
//     cached_segment_blocks(segment, first, count, blocks)    the same for blocks of a READY segment
//     cached_block_poll(blocks[i], &waiter, &error)
//     cached_block_bytes(blocks[i], &offset) …
//     cached_block_release(blocks[i]) …, cached_segment_release(segment)
//
// Blocks nobody holds are kept up to the cache's size, the least recently used go first. Held blocks are the holders' to
// bound. Thread-safe.
#ifndef PAGESTORE_BLOCK_CACHE_H
#define PAGESTORE_BLOCK_CACHE_H

#include "common/base/metrics.h"
#include "common/store/objstore.h"
#include "pagestore/page_index.h"
#include "pagestore/segment_index.h"

#define BLOCK_SIZE (256u * 1024)
#define WHOLE_SEGMENT_MAX (1024u * 1024)
#define BLOCK_LOAD_MAX (4u * 1024 * 1024)

struct block_cache;
struct cached_segment; // a segment's index
struct cached_block;

enum graft_status block_cache_new(struct objstore *store, size_t size_max, struct metrics *metrics,
                                  struct block_cache **ret_cache, struct graft_error *err);
// Nothing is held any more. Waits for loads under way. NULL is fine.
void block_cache_free(struct block_cache *cache);

enum cache_state {
    CACHE_READY,
    CACHE_LOADING,
    CACHE_FAILED,
};

// Embedded in who waits. `wake` runs once, on a thread of the store, when what it waits for is READY or FAILED.
struct cache_waiter {
    void (*wake)(struct cache_waiter *waiter);
    struct cache_waiter *next; // the cache's
};

// A segment's index, held until it is released. Where it is not in memory its load is started. Always succeeds in giving a
// handle, but for NULL without memory.
struct cached_segment *block_cache_segment(struct block_cache *cache, const struct segment_place *place);
void cached_segment_release(struct cached_segment *segment); // NULL is fine
DEFINE_CLEANUP(struct cached_segment, cached_segment_release)
// CACHE_LOADING: `waiter` (if not NULL) is registered. FAILED: *ret_error says why (until the release): NOT_FOUND where the
// object is missing, CORRUPT where it is not what it should be, or the store's own error.
enum cache_state cached_segment_poll(struct cached_segment *segment, struct cache_waiter *waiter,
                                     const struct segment_index **ret_index,
                                     const struct graft_error **ret_error);

// How the segment is cut: the block in which an offset lies.
uint32_t cached_segment_block_of(const struct cached_segment *segment, uint32_t offset);

// Blocks [first, first + count) of a READY segment, at most BLOCK_LOAD_MAX bytes: `blocks` gets a handle to each. Those not
// in memory are being loaded when it returns, neighbours with one request. False without memory: then none is held.
bool cached_segment_blocks(struct cached_segment *segment, uint32_t first, uint32_t count,
                           struct cached_block **blocks);
void cached_block_release(struct cached_block *block); // NULL is fine
enum cache_state cached_block_poll(struct cached_block *block, struct cache_waiter *waiter,
                                   const struct graft_error **ret_error);

// Of a READY block: its bytes, the first of which lies at *ret_offset of the object.
struct bytes cached_block_bytes(const struct cached_block *block, uint32_t *ret_offset);
// True if the page at `place` of the index, which lies wholly in this block, failed its check when the block was loaded.
bool cached_block_is_damaged(const struct cached_block *block, uint32_t place);

#endif
