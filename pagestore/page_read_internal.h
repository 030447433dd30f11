// SPDX-License-Identifier: Apache-2.0
//
// Shared by page_read.c, which prepares a read, page_send.c, which sends it, and page_missing.c, which finds out about
// segments that are missing.
#ifndef PAGESTORE_PAGE_READ_INTERNAL_H
#define PAGESTORE_PAGE_READ_INTERNAL_H

#include <limits.h>
#include <stdatomic.h>

#include "common/net/page_stream.h"
#include "pagestore/page_read.h"

// A frame without its page: a header, or an error's message.
#define FRAME_HEAD_MAX 1024u
#define WINDOW_BLOCKS_MAX (BLOCK_LOAD_MAX / BLOCK_SIZE)

struct page_reader {
    char index_path[PATH_MAX];
    struct disk_reserve reserve; // of the disk under index_path
    struct page_index *index;
    struct block_cache *cache;
    struct catchup *catchup;
    struct pool *pool;
    atomic_uint active; // reads admitted and not closed
    struct metric *reads, *pages, *empty, *damaged, *bytes;
};

// Blocks [first, first + count) of the current segment, held.
struct block_window {
    uint32_t first, count;
    struct cached_block *blocks[WINDOW_BLOCKS_MAX];
};

enum missing_state {
    MISSING_IDLE,
    MISSING_ASKING, // the plan is page_missing.c's; the source waits
    MISSING_ANSWERED,
};

struct page_read {
    struct page_reader *reader;
    struct http_request *request; // a reference
    atomic_uint references;       // the request's, and one while a block's load may wake it

    // What is asked for; set before anybody else sees it.
    struct gid vid;
    uint64_t lsn;
    struct hash128 chain;
    struct pageset *pages;
    uint32_t first;
    struct index_volume *volume; // held
    struct catchup_wait wait;
    struct job job;

    // The plan, made by the worker before the source runs.
    struct page_version *plan;
    size_t plan_count;

    // The source's alone.
    size_t next; // place in the plan of the page whose frame comes next
    bool begun, ended;
    struct gid stream_owner; // of the pages that follow, as the peer knows it
    struct buffer head;      // what comes before the payload
    size_t head_sent;
    struct bytes payload;    // borrows from a held block or from scratch
    uint8_t *scratch;        // PAGE_SIZE_MAX: a page that lies in two blocks
    uint32_t segment_number; // of the current segment; 0: none
    struct segment_place place;
    struct cached_segment *segment;
    const struct segment_index *segment_index; // READY
    const struct segment_volume *segment_volume;
    struct block_window current, ahead;
    struct cache_waiter waiter;
    atomic_bool waiting; // the waiter is registered

    // A segment whose object is missing (page_missing.c). The source's while `state` is not ASKING.
    struct {
        atomic_int state; // enum missing_state
        struct job job;
        struct reread_wait reread;
        uint32_t segment;         // number; 0: none was missing yet
        uint32_t pageidx;         // whose commit was read again
        struct graft_error error; // why pages of `segment` do not come. GRAFT_OK: the plan was made anew
    } missing;
};

void page_read_unref(struct page_read *read);
void page_read_release_blocks(struct page_read *read);
// The page `first` (if it is there) to the front; behind it by segment, those never written (segment 0) first.
void page_plan_order(struct page_version *plan, size_t count, uint32_t first);

enum missing_outcome {
    MISSING_ASKED,     // give way; the request is woken
    MISSING_REPLANNED, // the pages that were not sent yet may lie elsewhere now
    MISSING_FAILED,
};
// The object of the current segment, with the page that comes next, is missing. FAILED: *ret_cause is the page's error.
enum missing_outcome page_read_missing(struct page_read *read, uint32_t pageidx,
                                       struct graft_error *ret_cause);
void page_read_wake(struct cache_waiter *waiter);
enum http_source_result page_read_source(struct http_request *request, void *to, size_t size,
                                         size_t *ret_size);

#endif
