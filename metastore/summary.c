// SPDX-License-Identifier: Apache-2.0
#include "metastore/summary.h"

#include <stdlib.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/worker.h"
#include "common/store/objstore.h"
#include "metastore/fetch.h"

#define PACK_READ_SIZE (1 * MIB)

static uint64_t count_runs(const struct pageset *set)
{
    struct pageset_cursor cursor = pageset_cursor(set);
    struct page_run run;
    uint64_t count = 0;
    while (pageset_next_run(&cursor, &run))
        count++;
    return count;
}

// A set with the gaps of less than `gap_max` pages filled.
static struct pageset *fill_gaps(const struct pageset *set, uint64_t gap_max)
{
    struct pageset *filled = pageset_new();
    struct pageset_cursor cursor = pageset_cursor(set);
    struct page_run run;
    uint64_t end = 0; // behind the run before; 0: none
    while (pageset_next_run(&cursor, &run)) {
        uint64_t gap = run.first - end;
        if (end > 0 && gap < gap_max)
            pageset_add_run(filled, (uint32_t)end, (uint32_t)gap);
        pageset_add_run(filled, run.first, run.count);
        end = (uint64_t)run.first + run.count;
    }
    return filled;
}

void pageset_limit_runs(struct pageset **set, uint32_t runs_max)
{
    CHECK(runs_max > 0);
    for (uint64_t gap_max = 2; count_runs(*set) > runs_max; gap_max *= 2) {
        struct pageset *filled = fill_gaps(*set, gap_max);
        pageset_free(*set);
        *set = filled;
    }
}

// ---- waiting for an upload

struct waiter {
    struct mutex lock;
    struct cond done;
    bool is_done;
    struct graft_error error;
};

static void commit_done(void *context, struct objstore_result *result)
{
    struct waiter *waiter = context;
    LOCK_GUARD(&waiter->lock); // signalled under it: the waiter lies on a stack
    waiter->error = result->error;
    waiter->is_done = true;
    cond_signal(&waiter->done);
}

// Somebody else made the same object: fine.
static enum graft_status allow_existing(enum graft_status status)
{
    return status == GRAFT_CONFLICT ? GRAFT_OK : status;
}

static enum graft_status commit_upload(struct objstore_upload *upload, struct graft_error *err)
{
    struct waiter waiter = {0};
    mutex_init(&waiter.lock, RANK_META_READ);
    cond_init(&waiter.done);
    objstore_upload_commit(upload, commit_done, &waiter);
    mutex_lock(&waiter.lock);
    while (!waiter.is_done)
        cond_wait(&waiter.done, &waiter.lock);
    mutex_unlock(&waiter.lock);
    cond_release(&waiter.done);
    mutex_release(&waiter.lock);
    if (allow_existing(waiter.error.status) == GRAFT_OK)
        return GRAFT_OK;
    return error_copy(err, &waiter.error);
}

// ---- one window

struct window {
    struct objstore *store;
    uint32_t span; // of what is made: SUMMARY_SMALL from commits, SUMMARY_LARGE from small summaries
    uint64_t n;
    struct summary summary;
    struct pageset *pages;
    struct objstore_upload *pack; // NULL: left out
    uint64_t pack_size;
};

static void drop_pack(struct window *window)
{
    objstore_upload_abort(TAKE(window->pack));
}

static void window_release(struct window *window)
{
    drop_pack(window);
    pageset_free(window->pages);
}

static enum graft_status pack_append(struct window *window, struct bytes records, struct graft_error *err)
{
    if (!window->pack)
        return GRAFT_OK;
    window->pack_size += records.size;
    if (window->pack_size > SUMMARY_LARGE_PACK_SIZE_MAX) {
        drop_pack(window);
        return GRAFT_OK;
    }
    return objstore_upload_append(window->pack, records, err);
}

static struct object_key commit_key_at(void *context, size_t place)
{
    const struct window *window = context;
    return key_commit(&window->summary.vid, window->summary.first_lsn + place);
}

static enum graft_status add_commit(void *context, size_t place, struct bytes record, struct graft_error *err)
{
    struct window *window = context;
    uint64_t lsn = window->summary.first_lsn + place;
    struct commit_facts facts;
    if (!record.data)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "commit %llu is not there",
                         (unsigned long long)lsn);
    enum graft_status status =
        commit_record_decode(record, &window->summary.vid, lsn, &facts, window->pages, err);
    if (status != GRAFT_OK)
        return status;
    if (place > 0 && !hash_equal(&facts.base_chain, &window->summary.chain))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                         "commit %llu does not follow the one before it", (unsigned long long)lsn);
    window->summary.cut = MIN(window->summary.cut, facts.cut);
    window->summary.chain = facts.chain;
    return pack_append(window, record, err);
}

static struct object_key small_key_at(void *context, size_t place)
{
    const struct window *window = context;
    return key_summary(&window->summary.vid, SUMMARY_SMALL,
                       window->n * (SUMMARY_LARGE / SUMMARY_SMALL) + place);
}

// Adds one small window's pack to the large one, piece by piece. A small one that was left out leaves out
// the large one.
static enum graft_status pack_add_small(struct window *window, uint64_t n, struct graft_error *err)
{
    struct object_key key = key_pack(&window->summary.vid, SUMMARY_SMALL, n);
    for (uint64_t offset = 0; window->pack;) {
        _cleanup_(buffer_release) struct buffer piece = BUFFER_INIT(PACK_READ_SIZE);
        bool found;
        struct graft_error local;
        enum graft_status status =
            objstore_get_wait(window->store, key.text, offset, PACK_READ_SIZE, &piece, &local);
        found = status != GRAFT_NOT_FOUND;
        if (!found)
            drop_pack(window);
        else if (status != GRAFT_OK)
            return error_copy(err, &local);
        if (piece.size == 0)
            break;
        offset += piece.size;
        status = pack_append(window, buffer_bytes(&piece), err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static enum graft_status add_small(void *context, size_t place, struct bytes record, struct graft_error *err)
{
    struct window *window = context;
    uint64_t n = window->n * (SUMMARY_LARGE / SUMMARY_SMALL) + place;
    struct summary small;
    if (!record.data)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "summary %llu of %u commits is not there",
                         (unsigned long long)n, SUMMARY_SMALL);
    enum graft_status status = summary_decode(record, &window->summary.vid, &small, window->pages, err);
    if (status != GRAFT_OK)
        return status;
    if (small.first_lsn != n * SUMMARY_SMALL + 1 || small.last_lsn != (n + 1) * SUMMARY_SMALL)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "summary %llu of %u commits covers others",
                         (unsigned long long)n, SUMMARY_SMALL);
    window->summary.cut = MIN(window->summary.cut, small.cut);
    window->summary.chain = small.chain;
    return pack_add_small(window, n, err);
}

static enum graft_status make_window(struct objstore *store, const struct gid *vid, uint32_t span, uint64_t n,
                                     struct graft_error *err)
{
    _cleanup_(window_release) struct window window = {
        .store = store,
        .span = span,
        .n = n,
        .summary = {.vid = *vid, .first_lsn = n * span + 1, .last_lsn = (n + 1) * span, .cut = UINT32_MAX},
        .pages = pageset_new()};
    bool small = span == SUMMARY_SMALL;
    const struct fetch_spec parts = {.count = small ? SUMMARY_SMALL : SUMMARY_LARGE / SUMMARY_SMALL,
                                     .key = small ? commit_key_at : small_key_at,
                                     .visit = small ? add_commit : add_small,
                                     .context = &window,
                                     .object_size_max = RECORD_SIZE_MAX};
    enum graft_status status = objstore_upload_begin(store, key_pack(vid, span, n).text, &window.pack, err);
    if (status == GRAFT_OK)
        status = fetch_all(store, &parts, err);
    FAILPOINT("summary.pack.before");
    if (status == GRAFT_OK && window.pack)
        status = commit_upload(TAKE(window.pack), err);
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("summary.pack.after");
    pageset_limit_runs(&window.pages, PAGESET_RUNS_MAX);
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(RECORD_SIZE_MAX);
    status = summary_encode(&window.summary, window.pages, &record, err);
    if (status != GRAFT_OK)
        return status;
    return allow_existing(
        objstore_create_wait(store, key_summary(vid, span, n).text, buffer_bytes(&record), err));
}

// ---- what is due

static enum graft_status exists(struct objstore *store, const char *key, bool *ret_exists,
                                struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer byte = BUFFER_INIT(1);
    return fetch_one(store, key, ret_exists, &byte, err);
}

// The first window in [low, due) that is not there. They are made in order, so it is found by bisection;
// mostly it is the last one, so that is where the search begins.
static enum graft_status first_missing(struct objstore *store, const struct gid *vid, uint32_t span,
                                       uint64_t low, uint64_t due, uint64_t *ret_n, struct graft_error *err)
{
    uint64_t step = 1, high = due; // `high` is missing, or due
    while (low < high) {
        uint64_t n = step <= high - low ? high - step : low;
        bool there;
        enum graft_status status = exists(store, key_summary(vid, span, n).text, &there, err);
        if (status != GRAFT_OK)
            return status;
        if (there) {
            low = n + 1;
            step = (high - low) / 2 + 1;
        } else {
            high = n;
            step *= 2;
        }
        // Not beyond the middle of what is left.
        uint64_t half = (high - low) / 2 + 1;
        step = MIN(step, half);
    }
    *ret_n = low;
    return GRAFT_OK;
}

static enum graft_status retired_lsn(struct objstore *store, const struct gid *vid, uint64_t *ret_lsn,
                                     struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(RECORD_SIZE_MAX);
    bool found;
    struct summary mark = {0};
    enum graft_status status = fetch_one(store, key_retired(vid).text, &found, &record, err);
    if (status == GRAFT_OK && found)
        status = summary_decode(buffer_bytes(&record), vid, &mark, NULL, err);
    if (status == GRAFT_OK)
        *ret_lsn = mark.last_lsn;
    return status;
}

static enum graft_status summarise_span(struct objstore *store, const struct gid *vid, uint32_t span,
                                        uint64_t retired, uint64_t head_lsn, const struct worker *worker,
                                        struct graft_error *err)
{
    uint64_t due = head_lsn / span;
    uint64_t low = MIN((retired + span - 1) / span, due); // windows that are partly retired cannot be made
    uint64_t n;
    enum graft_status status = first_missing(store, vid, span, low, due, &n, err);
    for (; status == GRAFT_OK && n < due && !(worker && worker_stopping(worker)); n++) {
        status = make_window(store, vid, span, n, err);
        FAILPOINT("summary.after");
        if (status != GRAFT_OK)
            error_context(err, status, "summarising window %llu of %u commits of volume %s",
                          (unsigned long long)n, span, gid_format(vid).text);
    }
    return status;
}

static enum graft_status summarise_volume(struct objstore *store, const struct gid *vid, uint64_t head_lsn,
                                          const struct worker *worker, struct graft_error *err)
{
    uint64_t retired = 0;
    if (head_lsn < SUMMARY_SMALL)
        return GRAFT_OK;
    enum graft_status status = retired_lsn(store, vid, &retired, err);
    if (status == GRAFT_OK)
        status = summarise_span(store, vid, SUMMARY_SMALL, retired, head_lsn, worker, err);
    if (status == GRAFT_OK && head_lsn >= SUMMARY_LARGE && !(worker && worker_stopping(worker)))
        status = summarise_span(store, vid, SUMMARY_LARGE, retired, head_lsn, worker, err);
    return status;
}

enum graft_status summarise(struct objstore *store, const struct gid *vid, uint64_t head_lsn,
                            struct graft_error *err)
{
    return summarise_volume(store, vid, head_lsn, NULL, err);
}

// ---- in the background

struct due {
    struct gid vid;
    uint64_t head_lsn;
    TAILQ_ENTRY(due) link;
    UT_hash_handle hash;
};

struct summariser {
    struct objstore *store;
    struct worker worker;
    struct metric *lag, *failures;
    struct mutex lock; // for what follows
    struct cond changed;
    TAILQ_HEAD(, due) queue;
    struct due *by_vid; // what is in the queue
    unsigned count;
    bool busy, stopping;
};

static struct due *take_due(struct summariser *summariser)
{
    LOCK_GUARD(&summariser->lock);
    summariser->busy = false;
    metric_set(summariser->lag, summariser->count);
    cond_broadcast(&summariser->changed);
    while (!summariser->stopping && TAILQ_EMPTY(&summariser->queue))
        cond_wait(&summariser->changed, &summariser->lock);
    if (summariser->stopping)
        return NULL;
    struct due *due = TAILQ_FIRST(&summariser->queue);
    TAILQ_REMOVE(&summariser->queue, due, link);
    HASH_DELETE(hash, summariser->by_vid, due);
    summariser->count--;
    summariser->busy = true; // the lag counts it until it is made
    return due;
}

static void run(struct worker *worker, void *context)
{
    struct summariser *summariser = context;
    struct due *due;
    while ((due = take_due(summariser))) {
        struct graft_error error;
        enum graft_status status =
            summarise_volume(summariser->store, &due->vid, due->head_lsn, worker, &error);
        if (status != GRAFT_OK) {
            metric_add(summariser->failures, 1);
            log_warn("summary_failed", "%s", log_format_error(&error).text);
        }
        free(due);
    }
}

enum graft_status summariser_new(struct objstore *store, struct metrics *metrics,
                                 struct summariser **ret_summariser, struct graft_error *err)
{
    _cleanup_(summariser_free_p) struct summariser *summariser = calloc(1, sizeof *summariser);
    CHECK(summariser);
    summariser->store = store;
    summariser->lag = metrics_gauge(metrics, "graft_metastore_summary_lag_volumes", NULL,
                                    "Volumes with commits that are due to be summarised.");
    summariser->failures = metrics_counter(metrics, "graft_metastore_summary_failures_total", NULL,
                                           "Summaries that could not be made; see the log.");
    mutex_init(&summariser->lock, RANK_META_READ);
    cond_init(&summariser->changed);
    TAILQ_INIT(&summariser->queue);
    enum graft_status status = worker_start(&summariser->worker, "meta-summary", run, summariser, err);
    if (status != GRAFT_OK)
        return status;
    *ret_summariser = TAKE(summariser);
    return GRAFT_OK;
}

void summariser_free(struct summariser *summariser)
{
    if (!summariser)
        return;
    mutex_lock(&summariser->lock);
    summariser->stopping = true;
    mutex_unlock(&summariser->lock);
    worker_request_stop(&summariser->worker);
    cond_broadcast(&summariser->changed);
    worker_join(&summariser->worker);
    struct due *due;
    while ((due = TAILQ_FIRST(&summariser->queue))) {
        TAILQ_REMOVE(&summariser->queue, due, link);
        HASH_DELETE(hash, summariser->by_vid, due);
        free(due);
    }
    cond_release(&summariser->changed);
    mutex_release(&summariser->lock);
    free(summariser);
}

void summariser_note(struct summariser *summariser, const struct gid *vid, uint64_t head_lsn)
{
    LOCK_GUARD(&summariser->lock);
    struct due *due = NULL;
    HASH_FIND(hash, summariser->by_vid, vid, sizeof *vid, due);
    if (due) {
        due->head_lsn = MAX(due->head_lsn, head_lsn);
        return;
    }
    if (summariser->count >= SUMMARISER_QUEUE_MAX)
        return;
    due = calloc(1, sizeof *due);
    CHECK(due);
    due->vid = *vid;
    due->head_lsn = head_lsn;
    HASH_ADD(hash, summariser->by_vid, vid, sizeof due->vid, due);
    TAILQ_INSERT_TAIL(&summariser->queue, due, link);
    summariser->count++;
    metric_set(summariser->lag, summariser->count + summariser->busy);
    cond_broadcast(&summariser->changed);
}

void summariser_wait(struct summariser *summariser)
{
    LOCK_GUARD(&summariser->lock);
    while (summariser->busy || !TAILQ_EMPTY(&summariser->queue))
        cond_wait(&summariser->changed, &summariser->lock);
}
