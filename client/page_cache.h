// SPDX-License-Identifier: Apache-2.0
//
// Fetched pages: bytes that can be had again, in extents of their own (DIR/cache), never synced. Where a page lies and
// what its checksum is the owner keeps in its index; this is the space, its limit, and the hand that makes room.
//
//     page_cache_open ─▶ set_live, set_age for each extent that the index names ─▶ start
//     page_cache_append ─▶ the owner tells its index ─▶ page_cache_appended
//
// Room is made by CLOCK over extents. The hand takes the extent that was begun longest ago: pages that were read since it
// last came by are written again at the front (as far as that leaves room), the others are dropped. Where more than a third of the extents' bytes is
// dead (pages that the owner forgot, headers of small runs), extents with the least live bytes are written together.
//
// Invariants
// 1. With a limit of L extents there are never more than L in the files, FREE ones and those being written included. One of
//    them is kept free for what the hand writes again.
// 2. An extent that was written to is not given away (sealed) before the index was told of what lies in it.
// 3. Whoever takes space or gives it away has the turn. It is never waited for by a thread that holds a lock: the hand
//    takes the owner's.
// 4. The index may name a place whose bytes are gone or others (after a crash; during a read): the checksum tells.
//
// Threads: any. page_cache_append(), _appended(), _set_limit() and _trim() as invariant 3 says; readers take no lock here.
#ifndef CLIENT_PAGE_CACHE_H
#define CLIENT_PAGE_CACHE_H

#include "client/extents.h"
#include "client/run.h"

#define PAGE_CACHE_PLACE_NONE UINT64_MAX

struct page_cache;

// A page that the hand found.
struct page_cache_page {
    struct run_entry entry; // lsn: its mark's
    uint64_t from;
    bool wanted;
    uint64_t to; // PAGE_CACHE_PLACE_NONE: dropped
};

// The owner's index. Called by the thread that has the turn; no lock of the cache is held.
struct page_cache_index {
    // Sets `wanted` of the pages that the index has at `from`.
    enum graft_status (*look)(void *context, struct page_cache_page *pages, size_t count,
                              struct graft_error *err);
    // The pages are at `to` now, or dropped. Those that the index does not have at `from` any more are passed over. The
    // live bytes follow (page_cache_apply).
    enum graft_status (*move)(void *context, const struct page_cache_page *pages, size_t count,
                              struct graft_error *err);
    // Drops all pages that the index has in the extent, whose headers cannot be read.
    enum graft_status (*forget_extent)(void *context, uint32_t extent, struct graft_error *err);
    // Before the files grow by `size` bytes: NO_SPACE if they had better not.
    enum graft_status (*may_grow)(void *context, size_t size, struct graft_error *err);
};

struct page_cache_settings {
    const char *directory; // made if missing
    uint64_t store;        // of the run headers
    uint64_t epoch;        // never used before
    uint32_t extents;      // that the index names: one above the last
    const struct page_cache_index *index;
    void *context;
};
// Extents that the index names and whose files a crash took away are there again, with zeros.
enum graft_status page_cache_open(const struct page_cache_settings *settings, struct page_cache **ret_cache,
                                  struct graft_error *err);
void page_cache_close(struct page_cache *cache); // NULL is fine
DEFINE_CLEANUP(struct page_cache, page_cache_close)

// Removes the files of a cache that is not open, of whatever form.
enum graft_status page_cache_remove_files(const char *directory, struct graft_error *err);

// What the index says of an extent, before page_cache_start(): its live bytes, and its age (page_cache_age()). CORRUPT as
// extents_set_live().
enum graft_status page_cache_set_live(struct page_cache *cache, uint32_t extent, uint64_t live,
                                      struct graft_error *err);
void page_cache_set_age(struct page_cache *cache, uint32_t extent, uint64_t age);
// Everything was said; without a limit until one is set.
void page_cache_start(struct page_cache *cache);

// Whether a page that the index has may lie there. False only for an index that is damaged, if nobody changes it meanwhile.
bool page_cache_may_have(struct page_cache *cache, uint64_t place, uint32_t size);

// Its space, for checking; not to be changed.
struct extents *page_cache_extents(struct page_cache *cache);

// ---- reading

// As extents_readv(); the pages that start in [place, place + size of all) count as read.
enum graft_status page_cache_read(struct page_cache *cache, uint64_t place, void *to, size_t size,
                                  struct graft_error *err);
enum graft_status page_cache_readv(struct page_cache *cache, uint64_t place, const struct iovec *to,
                                   unsigned count, struct graft_error *err);

// ---- writing

struct page_cache_arrival {
    struct run_entry entry; // size > 0
    const void *data;
    uint64_t place; // set
};

// Writes the pages, evicting others if need be, and takes the turn, which page_cache_appended() gives back: call that
// whatever the answer, after the index was told of the pages (or never will be). LIMIT / TOO_LARGE if there is no room
// for them and none can be made; other errors as the disk gives them.
enum graft_status page_cache_append(struct page_cache *cache, struct page_cache_arrival *arrivals,
                                    size_t count, struct graft_error *err);
void page_cache_appended(struct page_cache *cache);
// Live bytes as the index has them now.
void page_cache_apply(struct page_cache *cache, const struct extent_changes *changes);
// The extent's place in the order in which they were begun; kept beside its live bytes with each batch that adds to them.
uint64_t page_cache_age(struct page_cache *cache, uint32_t extent);

// ---- the limit

// Bytes, of which whole extents count; 0: none. A lower one than before frees the disk before this returns. INVALID /
// BAD_ARGUMENT below CACHE_LIMIT_MIN.
enum graft_status page_cache_set_limit(struct page_cache *cache, uint64_t limit, struct graft_error *err);
// Gives free extents at the end of the files back to the disk.
enum graft_status page_cache_trim(struct page_cache *cache, struct graft_error *err);

struct page_cache_usage {
    uint64_t limit;         // bytes; 0: none
    uint64_t size;          // of the files
    uint64_t live;          // bytes of pages that the index has
    uint64_t evicted_pages; // dropped by the hand since it was opened
    uint64_t evicted_size;  // their bytes
    uint64_t moved_size;    // bytes written again by it
};
void page_cache_usage(struct page_cache *cache, struct page_cache_usage *ret_usage);

#endif
