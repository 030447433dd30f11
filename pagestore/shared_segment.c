// SPDX-License-Identifier: Apache-2.0
#include "pagestore/shared_segment.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/mutex.h"
#include "common/base/worker.h"

#define COMPANY_MAX 1024u // uploads in one segment

STAILQ_HEAD(item_list, shared_item);

struct shared_segments {
    struct objstore *store;
    uint64_t linger_us;
    struct metric *sealed_total;
    struct metric *uploads_total;
    struct worker worker;

    struct mutex lock;
    struct cond changed;      // an item came, the commit is done, or the end is wanted
    struct item_list waiting; // lock
    bool stopping;            // lock
    bool committed;           // lock: the segment under way is durable, or will not be
    struct graft_error error; // lock: of that commit

    // the worker's: the segment being gathered, ascending by VID
    struct shared_item *company[COMPANY_MAX];
    unsigned company_count;
    uint64_t company_size;
    uint32_t company_pages;
};

// The place of `vid` in the company; false if it is not in it, and then where it belongs.
static bool company_find(const struct shared_segments *shared, const struct gid *vid, unsigned *ret_place)
{
    unsigned low = 0, high = shared->company_count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        int order = gid_compare(&shared->company[middle]->vid, vid);
        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_place = low;
    return false;
}

// Takes what fits out of the waiting items, in their order. True: one was left that the segment has no room
// for.
static bool company_gather_locked(struct shared_segments *shared)
{
    mutex_assert_held(&shared->lock);
    struct item_list left = STAILQ_HEAD_INITIALIZER(left);
    bool full = false;
    struct shared_item *item;
    while ((item = STAILQ_FIRST(&shared->waiting)) != NULL) {
        STAILQ_REMOVE_HEAD(&shared->waiting, next);
        bool room =
            shared->company_count < COMPANY_MAX &&
            (shared->company_count == 0 || (shared->company_size + item->size <= SEGMENT_SEAL_SIZE &&
                                            shared->company_pages + item->page_count <= SEGMENT_PAGES_MAX));
        unsigned place;
        if (!room || company_find(shared, &item->vid, &place)) {
            full = full || !room;
            STAILQ_INSERT_TAIL(&left, item, next);
            continue;
        }
        memmove(&shared->company[place + 1], &shared->company[place],
                (shared->company_count - place) * sizeof shared->company[0]);
        shared->company[place] = item;
        shared->company_count++;
        shared->company_size += item->size;
        shared->company_pages += item->page_count;
    }
    STAILQ_CONCAT(&shared->waiting, &left);
    return full;
}

// Waits for the first item, then as long as the linger says. False: nothing waits and the end is wanted.
static bool company_await(struct shared_segments *shared)
{
    LOCK_GUARD(&shared->lock);
    while (STAILQ_EMPTY(&shared->waiting) && !shared->stopping)
        cond_wait(&shared->changed, &shared->lock);
    if (STAILQ_EMPTY(&shared->waiting))
        return false;
    uint64_t deadline_us = STAILQ_FIRST(&shared->waiting)->submitted_us + shared->linger_us;
    bool full = company_gather_locked(shared);
    while (!full && !shared->stopping && shared->linger_us > 0 &&
           cond_wait_until(&shared->changed, &shared->lock, deadline_us))
        full = company_gather_locked(shared);
    (void)company_gather_locked(shared);
    return true;
}

static void segment_committed(void *context, struct objstore_result *result)
{
    struct shared_segments *shared = context;
    FAILPOINT("shared.durable");
    LOCK_GUARD(&shared->lock);
    shared->error = result->error;
    shared->committed = true;
    // The segments may be freed as soon as their thread sees this: signal while holding the lock.
    cond_signal(&shared->changed);
}

static enum graft_status company_append(struct shared_segments *shared, struct segment_writer *writer,
                                        struct graft_error *err)
{
    for (unsigned i = 0; i < shared->company_count; i++) {
        struct shared_item *item = shared->company[i];
        struct upload_block *block;
        STAILQ_FOREACH (block, item->blocks, next) {
            enum graft_status status = segment_writer_append(
                writer, &item->vid, block->pages, block->page_count, upload_block_payload(block), err);
            if (status != GRAFT_OK)
                return status;
        }
    }
    return GRAFT_OK;
}

// Writes the company as one segment and waits until it is durable.
static enum graft_status company_store(struct shared_segments *shared, struct segment_sealed *ret_sealed,
                                       struct graft_error *err)
{
    struct segment_writer *writer;
    enum graft_status status = segment_writer_begin(shared->store, &writer, err);
    if (status != GRAFT_OK)
        return status;
    status = company_append(shared, writer, err);
    if (status != GRAFT_OK) {
        segment_writer_abort(writer);
        return status;
    }
    shared->committed = false; // no commit is under way: nobody else looks at it
    status = segment_writer_seal(writer, ret_sealed, segment_committed, shared, err);
    if (status != GRAFT_OK)
        return status;
    LOCK_GUARD(&shared->lock);
    while (!shared->committed)
        cond_wait(&shared->changed, &shared->lock);
    return shared->error.status == GRAFT_OK ? GRAFT_OK : error_copy(err, &shared->error);
}

static void shared_run(struct worker *worker, void *context)
{
    struct shared_segments *shared = context;
    while (company_await(shared)) {
        struct segment_sealed sealed = {0};
        struct graft_error error = {0};
        if (company_store(shared, &sealed, &error) == GRAFT_OK) {
            metric_add(shared->sealed_total, 1);
            metric_add(shared->uploads_total, shared->company_count);
        }
        FAILPOINT("shared.answer");
        for (unsigned i = 0; i < shared->company_count; i++)
            shared->company[i]->done(shared->company[i], &sealed, &error);
        shared->company_count = 0;
        shared->company_size = 0;
        shared->company_pages = 0;
    }
}

enum graft_status shared_segments_new(struct objstore *store, uint64_t linger_ms, struct metrics *metrics,
                                      struct shared_segments **ret_shared, struct graft_error *err)
{
    struct shared_segments *shared = calloc(1, sizeof *shared);
    if (!shared)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the shared segment");
    shared->store = store;
    shared->linger_us = linger_ms * 1000;
    shared->sealed_total = metrics_counter(metrics, "pagestore_segments_sealed_total", "kind=\"shared\"",
                                           "Segments that became durable");
    shared->uploads_total = metrics_counter(metrics, "pagestore_shared_uploads_total", NULL,
                                            "Uploads stored in a shared segment");
    mutex_init(&shared->lock, RANK_PAGE_UPLOAD);
    cond_init(&shared->changed);
    STAILQ_INIT(&shared->waiting);
    enum graft_status status = worker_start(&shared->worker, "shared-segment", shared_run, shared, err);
    if (status != GRAFT_OK) {
        shared_segments_free(shared);
        return status;
    }
    *ret_shared = shared;
    return GRAFT_OK;
}

void shared_segments_free(struct shared_segments *shared)
{
    if (!shared)
        return;
    mutex_lock(&shared->lock);
    shared->stopping = true;
    mutex_unlock(&shared->lock);
    cond_signal(&shared->changed);
    worker_join(&shared->worker);
    CHECK(STAILQ_EMPTY(&shared->waiting));
    cond_release(&shared->changed);
    mutex_release(&shared->lock);
    free(shared);
}

void shared_segments_submit(struct shared_segments *shared, struct shared_item *item)
{
    CHECK(item->page_count > 0);
    item->submitted_us = clock_monotonic_us(clock_system());
    {
        LOCK_GUARD(&shared->lock);
        CHECK(!shared->stopping);
        STAILQ_INSERT_TAIL(&shared->waiting, item, next);
    }
    cond_signal(&shared->changed);
}
