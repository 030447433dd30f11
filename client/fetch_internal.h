// SPDX-License-Identifier: Apache-2.0
//
// What fetch.c (the in-flight table and its requests) and fetch_job.c (many pages) share.
#ifndef CLIENT_FETCH_INTERNAL_H
#define CLIENT_FETCH_INTERNAL_H

#include "client/fetch.h"
#include "common/base/mutex.h"

#define FLIGHT_BUCKETS 4096u
#define FETCH_CONDS 16u

struct fetch_waiter {
    LIST_ENTRY(fetch_waiter) link;
    bool done;
    struct graft_error error; // once done; .status GRAFT_OK: the page is kept
};

// One page under way. All fields but `arrived` and `unkept` belong to the fetcher's lock.
struct flight {
    struct fetch_item item;
    struct fetch_request *request;
    bool landed; // no longer in the table
    LIST_ENTRY(flight) link;
    LIST_HEAD(, fetch_waiter) waiters;
    bool arrived; // HTTP thread: a frame for it came
    bool unkept;  // HTTP thread: put, not flushed
};

struct fetcher {
    const struct remote *remote;
    struct page_codec *codec;                  // HTTP thread
    struct mutex lock;                         // RANK_FETCH
    struct cond landed[FETCH_CONDS];           // by page: a waiter is done
    struct cond idle;                          // a job or a source has nothing under way
    LIST_HEAD(, flight) table[FLIGHT_BUCKETS]; // lock
};

struct fetch_job {
    struct fetcher *fetcher;
    struct fetch_source *source;
    void *view;
    struct fetch_item *items; // source->batch_pages of them; whoever pumps

    // fetcher's lock
    unsigned refs;             // the owner and each request
    unsigned requests;         // under way
    struct pageset *wanted;    // not looked at yet
    struct pageset *failed;    // asked for in vain
    struct pageset *elsewhere; // found under way for somebody else
    struct graft_error error;  // the first failure
    bool pumping, pump_again, dropped;
};

// Asks for the items (ascending, of one LSN) that are not under way already. `waiter` (may be NULL) waits for
// items[0], the only one then; *ret_mine (with a waiter) tells whether a request was started for it. Failures
// reach the waiter or the job.
void fetch_request_start(struct fetcher *fetcher, struct fetch_source *source, void *view,
                         struct fetch_job *job, const struct fetch_item *items, size_t count,
                         struct fetch_waiter *waiter, bool *ret_mine);

void fetch_job_unref_locked(struct fetch_job *job);
// Starts what the window allows. No lock is held.
void fetch_job_pump(struct fetch_job *job);

#endif
