// SPDX-License-Identifier: Apache-2.0
//
// Jobs: many pages for one view. A page goes from `wanted` into a request, or out because it is here, or to
// `elsewhere` because another request brings it, or after a failure to `failed`. Whoever adds pages, or ends
// a request, pumps: takes candidates off `wanted` and asks for what they miss until the window is full. One
// thread pumps at a time; another that comes leaves a note.
#include <stdlib.h>

#include "client/fetch_internal.h"
#include "client/patience.h"
#include "common/base/check.h"
#include "common/base/limits.h"

#define CANDIDATES_MAX 65536u // pages looked at in one round

enum graft_status fetch_job_new(struct fetcher *fetcher, struct fetch_source *source, void *view,
                                struct fetch_job **ret_job, struct graft_error *err)
{
    struct fetch_job *job = calloc(1, sizeof *job);
    struct fetch_item *items = calloc(source->batch_pages, sizeof *items);
    if (!job || !items) {
        free(job);
        free(items);
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to ask for pages");
    }
    *job = (struct fetch_job){
        .fetcher = fetcher,
        .source = source,
        .view = view,
        .items = items,
        .refs = 1,
        .wanted = pageset_new(),
        .failed = pageset_new(),
        .elsewhere = pageset_new(),
    };
    *ret_job = job;
    return GRAFT_OK;
}

void fetch_job_unref_locked(struct fetch_job *job)
{
    mutex_assert_held(&job->fetcher->lock);
    if (--job->refs > 0)
        return;
    pageset_free(job->wanted);
    pageset_free(job->failed);
    pageset_free(job->elsewhere);
    free(job->items);
    free(job);
}

void fetch_job_free(struct fetch_job *job)
{
    if (!job)
        return;
    LOCK_GUARD(&job->fetcher->lock);
    job->dropped = true;
    while (job->pumping)
        cond_wait(&job->fetcher->idle, &job->fetcher->lock);
    fetch_job_unref_locked(job);
}

// Moves candidates off `wanted`.
static struct pageset *job_take_locked(struct fetch_job *job)
{
    struct pageset *taken = pageset_new();
    struct pageset_cursor cursor = pageset_cursor(job->wanted);
    struct page_run run;

    for (uint32_t left = CANDIDATES_MAX; left > 0 && pageset_next_run(&cursor, &run);) {
        uint32_t count = MIN(run.count, left);
        pageset_add_run(taken, run.first, count);
        left -= count;
    }
    pageset_subtract(job->wanted, taken);
    return taken;
}

// Finds out what the candidates miss and asks for as much of it as one request takes; the rest is wanted
// again.
static enum graft_status job_round(struct fetch_job *job, struct pageset *candidates, struct graft_error *err)
{
    struct fetch_source *source = job->source;
    size_t count = 0, asked = 0;
    uint32_t cursor = 1;

    while (cursor != 0 && count < source->batch_pages) {
        size_t found = 0;
        enum graft_status status =
            source->ops->missing(source, job->view, candidates, &cursor, job->items + count,
                                 source->batch_pages - count, &found, err);
        if (status != GRAFT_OK)
            return status;
        count += found;
    }
    if (cursor > 1) {
        _cleanup_(pageset_free_p) struct pageset *seen = pageset_new();
        pageset_add_run(seen, 1, cursor - 1);
        pageset_subtract(candidates, seen);
    } else if (cursor == 0) {
        pageset_clear(candidates);
    }
    // One request asks at one LSN; items of another wait for their own.
    for (size_t i = 0; i < count; i++) {
        if (job->items[i].lsn == job->items[0].lsn)
            job->items[asked++] = job->items[i];
        else
            pageset_add(candidates, job->items[i].pageidx);
    }
    mutex_lock(&job->fetcher->lock);
    pageset_union(job->wanted, candidates);
    mutex_unlock(&job->fetcher->lock);
    if (asked > 0)
        fetch_request_start(job->fetcher, source, job->view, job, job->items, asked, NULL, NULL);
    return GRAFT_OK;
}

static bool job_may_ask_locked(const struct fetch_job *job)
{
    return !job->dropped && job->error.status == GRAFT_OK && job->requests < job->source->window &&
           !pageset_is_empty(job->wanted);
}

void fetch_job_pump(struct fetch_job *job)
{
    struct fetcher *fetcher = job->fetcher;

    mutex_lock(&fetcher->lock);
    if (job->pumping || job->dropped) {
        job->pump_again = true;
        mutex_unlock(&fetcher->lock);
        return;
    }
    job->pumping = true;
    do {
        job->pump_again = false;
        while (job_may_ask_locked(job)) {
            _cleanup_(pageset_free_p) struct pageset *candidates = job_take_locked(job);
            struct graft_error why;
            mutex_unlock(&fetcher->lock);
            enum graft_status status = job_round(job, candidates, &why);
            mutex_lock(&fetcher->lock);
            if (status != GRAFT_OK && job->error.status == GRAFT_OK)
                job->error = why;
        }
    } while (job->pump_again);
    job->pumping = false;
    // Under the lock: once it is free the owner may drop the job.
    cond_broadcast(&fetcher->idle);
    mutex_unlock(&fetcher->lock);
}

void fetch_job_add(struct fetch_job *job, const struct pageset *pages)
{
    mutex_lock(&job->fetcher->lock);
    job->error = (struct graft_error){0};
    pageset_clear(job->failed);
    pageset_clear(job->elsewhere);
    pageset_union(job->wanted, pages);
    mutex_unlock(&job->fetcher->lock);
    fetch_job_pump(job);
}

// Waits until nothing is under way and nothing more will be; takes what is left over.
static void job_settle(struct fetch_job *job, struct pageset **ret_left, struct graft_error *ret_error)
{
    struct fetcher *fetcher = job->fetcher;

    LOCK_GUARD(&fetcher->lock);
    while (job->pumping || job->requests > 0 || job_may_ask_locked(job))
        cond_wait(&fetcher->idle, &fetcher->lock);
    *ret_error = job->error;
    *ret_left = pageset_copy(job->wanted);
    pageset_union(*ret_left, job->failed);
    pageset_union(*ret_left, job->elsewhere);
}

// Waits for one page that another request brings, or asks for it.
static enum graft_status job_await_one(struct fetch_job *job, uint32_t pageidx, struct graft_error *err)
{
    struct fetch_item item;
    uint32_t cursor = 1;
    size_t found = 0;

    _cleanup_(pageset_free_p) struct pageset *one = pageset_new();
    pageset_add(one, pageidx);
    while (cursor != 0 && found == 0) {
        enum graft_status status =
            job->source->ops->missing(job->source, job->view, one, &cursor, &item, 1, &found, err);
        if (status != GRAFT_OK)
            return status;
    }
    return found == 0 ? GRAFT_OK : fetch_page(job->fetcher, job->source, job->view, &item, err);
}

enum graft_status fetch_job_wait(struct fetch_job *job, struct graft_error *err)
{
    struct patience patience;

    for (uint64_t before = UINT64_MAX;;) {
        _cleanup_(pageset_free_p) struct pageset *left = NULL;
        struct graft_error why;
        job_settle(job, &left, &why);
        // The deadline is that of a standstill.
        if (pageset_count(left) < before)
            patience_init(&patience, job->fetcher->remote->http, job->fetcher->remote->deadline_ms);
        before = pageset_count(left);
        if (why.status != GRAFT_OK && !patience_wait(&patience, &why, 0))
            return error_copy(err, &why);
        if (why.status == GRAFT_OK && pageset_is_empty(left))
            return GRAFT_OK;
        if (why.status == GRAFT_OK) {
            enum graft_status status = job_await_one(job, pageset_min(left), err);
            if (status != GRAFT_OK)
                return status;
        }
        fetch_job_add(job, left);
    }
}
