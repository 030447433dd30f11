// SPDX-License-Identifier: Apache-2.0
//
// Getting missing pages. A *source* is somebody who misses pages and keeps what arrives: a volume's replica
// in the local store, or a snapshot of the servers with its small cache. The in-flight table of all sources
// makes sure that a page's version is asked for once, however many readers want it.
//
//     fetch_page()     one page that somebody waits for: a request of its own, at once
//     fetch_job_…()    many pages: requests of at most FETCH_BATCH_SIZE, a window of them under way
//
// Invariants
// 1. A flight (source, pageidx, mark) is in the table exactly while a request for it is under way; there is
// at
//    most one.
// 2. A page's waiters wake after the source has kept it, so that they find it there.
// 3. A reader that waited for somebody else's request and sees it fail asks for its page itself: an error on
// a
//    speculative page never fails the demanded one.
// 4. Memory: a flight for each page under way; what is wanted later is a page set.
//
// Threads: any. A source's `put` and `flush` run on the HTTP client's thread, its `missing` on any. The
// table's lock is held across none of them, nor across the network.
#ifndef CLIENT_FETCH_H
#define CLIENT_FETCH_H

#include <stdbool.h>
#include <sys/queue.h>

#include "client/include/graft.h"
#include "client/remote.h"
#include "common/base/compiler.h"

struct fetcher;
struct fetch_request;

// One missing page: the version that it must have, and where that can be had.
struct fetch_item {
    uint32_t pageidx;
    uint64_t mark; // the local LSN that names the version
    uint64_t lsn;  // of the servers, to ask at
    struct hash128 chain;
};

#define FETCH_BATCH_SIZE (4 * MIB) // of plain pages, in one request of a job

struct fetch_source;
struct fetch_source_ops {
    // The missing pages among `pages` as `view` (a snapshot of the source) has them, ascending from *cursor
    // on (start with 1), at most `to_max`. Afterwards *cursor is where to go on, 0 at the end.
    enum graft_status (*missing)(struct fetch_source *source, void *view, const struct pageset *pages,
                                 uint32_t *cursor, struct fetch_item *to, size_t to_max, size_t *ret_count,
                                 struct graft_error *err);
    // A verified page arrived (data NULL: it was never written); kept by the next flush at the latest.
    enum graft_status (*put)(struct fetch_source *source, uint32_t pageidx, uint64_t mark,
                             const struct bytes *data, struct graft_error *err);
    enum graft_status (*flush)(struct fetch_source *source, struct graft_error *err);
};

struct fetch_source {
    const struct fetch_source_ops *ops;
    struct gid vid;
    uint32_t page_size;
    bool variable;
    unsigned window; // requests of one job under way
    size_t batch_pages;

    LIST_HEAD(, fetch_request) requests; // fetcher's lock
    bool closing;                        // fetcher's lock
    _Atomic uint64_t request_count, page_count, byte_count;
    uint64_t tallied; // requests that the store knows of
};

// `remote` outlives the fetcher.
enum graft_status fetcher_new(const struct remote *remote, struct fetcher **ret_fetcher,
                              struct graft_error *err);
void fetcher_free(struct fetcher *fetcher); // no request is under way; NULL is fine

void fetch_source_init(struct fetch_source *source, const struct fetch_source_ops *ops, const struct gid *vid,
                       uint32_t page_size, bool variable);
// Goes on counting from what was fetched earlier.
void fetch_source_set_tally(struct fetch_source *source, const struct graft_fetch_counts *tally);
struct graft_fetch_counts fetch_source_tally(struct fetch_source *source);
// Cancels what is under way for the source and waits until nothing is. Nobody waits for its pages.
void fetch_source_drain(struct fetcher *fetcher, struct fetch_source *source);

// Waits until the page, which the view misses, has arrived and is kept. UNAVAILABLE, CORRUPT, GONE: as the
// pagestore said. Failures that may pass are met with further tries until the client's deadline; no server at
// all is not.
enum graft_status fetch_page(struct fetcher *fetcher, struct fetch_source *source, void *view,
                             const struct fetch_item *item, struct graft_error *err);

// A job fetches sets of pages for one view, which outlives it.
struct fetch_job;
enum graft_status fetch_job_new(struct fetcher *fetcher, struct fetch_source *source, void *view,
                                struct fetch_job **ret_job, struct graft_error *err);
// What is wanted and not asked for yet is dropped; requests under way go on, and what they bring is kept.
void fetch_job_free(struct fetch_job *job); // NULL is fine
DEFINE_CLEANUP(struct fetch_job, fetch_job_free)
// Adds pages and starts what the window allows; the rest follows by itself.
void fetch_job_add(struct fetch_job *job, const struct pageset *pages);
// Waits until all that was added is here. Failures as with fetch_page().
enum graft_status fetch_job_wait(struct fetch_job *job, struct graft_error *err);

#endif
