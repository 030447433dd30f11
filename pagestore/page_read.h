// SPDX-License-Identifier: Apache-2.0
//
// read_pages: pages at a snapshot, as a stream.
//
//     HTTP thread   request checked ──▶ catch-up (§ catchup.h) ──▶ worker: pages resolved to segments, a plan
//     HTTP thread   plan ──▶ frames: a page's header, then its bytes copied from the cached block to the socket's buffer
//
// The demanded page comes first, then pages that were never written, then the rest by segment and place. Blocks are asked
// for ahead of the page that is being sent, so the store works while the socket does.
#ifndef PAGESTORE_PAGE_READ_H
#define PAGESTORE_PAGE_READ_H

#include "common/base/worker.h"
#include "common/net/http_server.h"
#include "pagestore/block_cache.h"
#include "pagestore/catchup.h"

// The read half, made with the daemon.
struct page_reader;

struct page_reader_settings {
    const char *index_path; // shorter than PATH_MAX; copied
    const char *metastore_url;
    struct objstore *store;
    uint64_t memory_cache; // bytes
    uint64_t disk_reserve; // bytes: no catch-up while less is free where the index lies
    unsigned workers;
    struct metrics *metrics;
    // Called once at most, from any thread, when the index has failed for good: the daemon ends.
    void (*on_fatal)(void *context, const struct graft_error *error);
    void *context;
};

enum graft_status page_reader_new(const struct page_reader_settings *settings,
                                  struct page_reader **ret_reader, struct graft_error *err);
// No request is left: the HTTP server has stopped. NULL is fine.
void page_reader_free(struct page_reader *reader);

// The handlers of POST /v1/read_pages.
void page_read_ready(struct page_reader *reader, struct http_request *request, struct bytes whole);
void page_read_closed(struct http_request *request);

#endif
