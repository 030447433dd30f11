// SPDX-License-Identifier: Apache-2.0
//
// The in-flight table, and one request from its start to its last page.
//
// A page found missing may arrive before its flight is registered, by a request that ends in between. So the
// pages of a request are looked up once more after they were registered, when nobody else can ask for them:
// what is here then is not asked for.
#include "client/fetch.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "client/fetch_internal.h"
#include "client/patience.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"

#define FLUSH_PAGES 128u // decoded pages handed to the source at once
#define RECHECK_CHUNK 64u

struct fetch_request {
    struct fetcher *fetcher;
    struct fetch_source *source;
    struct fetch_job *job;  // NULL: a demanded page; a reference
    struct flight *flights; // ascending by page
    size_t count;
    size_t unkept_count;            // HTTP thread
    struct http_exchange *exchange; // lock; NULL before it is known
    unsigned refs;                  // lock; its starter's and its exchange's
    LIST_ENTRY(fetch_request) link; // lock; in source->requests
};

enum graft_status fetcher_new(const struct remote *remote, struct fetcher **ret_fetcher,
                              struct graft_error *err)
{
    struct fetcher *fetcher = calloc(1, sizeof *fetcher);
    if (!fetcher || !(fetcher->codec = page_codec_new())) {
        free(fetcher);
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the in-flight table");
    }
    fetcher->remote = remote;
    mutex_init(&fetcher->lock, RANK_FETCH);
    cond_init(&fetcher->idle);
    for (size_t i = 0; i < FETCH_CONDS; i++)
        cond_init(&fetcher->landed[i]);
    *ret_fetcher = fetcher;
    return GRAFT_OK;
}

void fetcher_free(struct fetcher *fetcher)
{
    if (!fetcher)
        return;
    for (size_t i = 0; i < FLIGHT_BUCKETS; i++)
        CHECK(LIST_EMPTY(&fetcher->table[i]));
    for (size_t i = 0; i < FETCH_CONDS; i++)
        cond_release(&fetcher->landed[i]);
    cond_release(&fetcher->idle);
    mutex_release(&fetcher->lock);
    page_codec_free(fetcher->codec);
    free(fetcher);
}

void fetch_source_init(struct fetch_source *source, const struct fetch_source_ops *ops, const struct gid *vid,
                       uint32_t page_size, bool variable)
{
    *source = (struct fetch_source){
        .ops = ops,
        .vid = *vid,
        .page_size = page_size,
        .variable = variable,
        .window = 4,
        .batch_pages = MIN(FETCH_BATCH_SIZE / page_size, (size_t)READ_PAGES_MAX),
    };
    LIST_INIT(&source->requests);
}

// ---- the table ----------------------------------------------------------------------------------

static size_t bucket_of(const struct fetch_source *source, uint32_t pageidx, uint64_t mark)
{
    uint64_t key[3] = {(uintptr_t)source, pageidx, mark};
    return checksum64(key, sizeof key) % FLIGHT_BUCKETS;
}

static struct flight *table_find_locked(struct fetcher *fetcher, const struct fetch_source *source,
                                        uint32_t pageidx, uint64_t mark)
{
    struct flight *flight;

    mutex_assert_held(&fetcher->lock);
    LIST_FOREACH(flight, &fetcher->table[bucket_of(source, pageidx, mark)], link)
    {
        if (flight->item.pageidx == pageidx && flight->item.mark == mark && flight->request->source == source)
            return flight;
    }
    return NULL;
}

// Takes the flight off the table and gives its waiters their answer; the caller broadcasts cond_of(page)
// afterwards.
static void flight_land_locked(struct flight *flight, const struct graft_error *error)
{
    struct fetch_request *request = flight->request;
    struct fetch_waiter *waiter, *next;

    mutex_assert_held(&request->fetcher->lock);
    CHECK(!flight->landed);
    flight->landed = true;
    LIST_REMOVE(flight, link);
    for (waiter = LIST_FIRST(&flight->waiters); waiter; waiter = next) {
        next = LIST_NEXT(waiter, link);
        LIST_REMOVE(waiter, link);
        waiter->error = *error;
        waiter->done = true;
    }
    if (request->job && error->status != GRAFT_OK) {
        pageset_add(request->job->failed, flight->item.pageidx);
        if (request->job->error.status == GRAFT_OK)
            request->job->error = *error;
    }
}

static struct cond *cond_of(struct fetcher *fetcher, uint32_t pageidx)
{
    return &fetcher->landed[pageidx % FETCH_CONDS];
}

static void broadcast_all(struct fetcher *fetcher)
{
    for (size_t i = 0; i < FETCH_CONDS; i++)
        cond_broadcast(&fetcher->landed[i]);
}

// ---- one request --------------------------------------------------------------------------------

static void request_unref(struct fetch_request *request)
{
    mutex_lock(&request->fetcher->lock);
    unsigned left = --request->refs;
    mutex_unlock(&request->fetcher->lock);
    if (left > 0)
        return;
    http_exchange_unref(request->exchange);
    free(request->flights);
    free(request);
}

static struct flight *request_find(struct fetch_request *request, uint32_t pageidx)
{
    size_t low = 0, high = request->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (request->flights[middle].item.pageidx < pageidx)
            low = middle + 1;
        else
            high = middle;
    }
    return low < request->count && request->flights[low].item.pageidx == pageidx ? &request->flights[low]
                                                                                 : NULL;
}

static void flight_land(struct flight *flight, const struct graft_error *error)
{
    struct fetcher *fetcher = flight->request->fetcher;

    mutex_lock(&fetcher->lock);
    flight_land_locked(flight, error);
    mutex_unlock(&fetcher->lock);
    cond_broadcast(cond_of(fetcher, flight->item.pageidx));
}

// Decodes and verifies a page's payload.
static enum graft_status request_decode(struct fetch_request *request, const struct gid *owner,
                                        const struct page_header *page, struct bytes data,
                                        struct bytes *ret_plain, struct graft_error *err)
{
    const struct fetch_source *source = request->source;
    struct bytes plain;

    enum graft_status status = page_codec_decode(request->fetcher->codec, owner, page, data, &plain, err);
    if (status != GRAFT_OK)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
                         "page %u of volume %s arrived damaged from the pagestore", page->pageidx,
                         gid_format(&source->vid).text);
    if (plain.size > source->page_size || (!source->variable && plain.size != source->page_size))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_PROTOCOL,
                         "page %u of volume %s came with %zu bytes, its pages have %u", page->pageidx,
                         gid_format(&source->vid).text, plain.size, source->page_size);
    *ret_plain = plain;
    return GRAFT_OK;
}

static enum graft_status request_flush(void *context, struct graft_error *err)
{
    struct fetch_request *request = context;
    struct fetcher *fetcher = request->fetcher;
    static const struct graft_error kept = {0};

    if (request->unkept_count == 0)
        return GRAFT_OK;
    enum graft_status status = request->source->ops->flush(request->source, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "keeping pages of volume %s",
                             gid_format(&request->source->vid).text);
    mutex_lock(&fetcher->lock);
    for (size_t i = 0; i < request->count; i++) {
        struct flight *flight = &request->flights[i];
        if (flight->unkept) {
            flight->unkept = false;
            flight_land_locked(flight, &kept);
        }
    }
    mutex_unlock(&fetcher->lock);
    broadcast_all(fetcher);
    request->unkept_count = 0;
    return GRAFT_OK;
}

static enum graft_status request_page(void *context, const struct gid *owner, const struct page_header *page,
                                      struct bytes data, const struct graft_error *damage,
                                      struct graft_error *err)
{
    struct fetch_request *request = context;
    struct fetch_source *source = request->source;
    struct graft_error why;
    struct bytes plain;

    struct flight *flight = request_find(request, page->pageidx);
    if (!flight || flight->arrived)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                         "the pagestore sent page %u, which was not asked for", page->pageidx);
    flight->arrived = true;
    atomic_fetch_add(&source->page_count, 1);
    if (damage) {
        why = *damage;
        if (why.status == GRAFT_OK)
            error_set(&why, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "the pagestore calls it damaged");
        error_context(&why, why.status, "page %u of volume %s", page->pageidx, gid_format(&source->vid).text);
        flight_land(flight, &why);
        return GRAFT_OK;
    }
    if (page->state == PAGE_STATE_STORED &&
        request_decode(request, owner, page, data, &plain, &why) != GRAFT_OK) {
        flight_land(flight, &why);
        return GRAFT_OK;
    }
    enum graft_status status = source->ops->put(source, page->pageidx, flight->item.mark,
                                                page->state == PAGE_STATE_STORED ? &plain : NULL, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "keeping page %u of volume %s", page->pageidx,
                             gid_format(&source->vid).text);
    flight->unkept = true;
    if (++request->unkept_count == FLUSH_PAGES)
        return request_flush(request, err);
    return GRAFT_OK;
}

static void request_done(void *context, const struct graft_error *outcome, uint64_t size)
{
    struct fetch_request *request = context;
    struct fetcher *fetcher = request->fetcher;
    struct fetch_job *job = request->job;
    struct graft_error error = *outcome;

    if (error.status == GRAFT_OK)
        error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                  "the pagestore left out a page of volume %s that was asked for",
                  gid_format(&request->source->vid).text);
    atomic_fetch_add(&request->source->byte_count, size);
    mutex_lock(&fetcher->lock);
    for (size_t i = 0; i < request->count; i++) {
        if (!request->flights[i].landed)
            flight_land_locked(&request->flights[i], &error);
    }
    LIST_REMOVE(request, link);
    if (job)
        job->requests--;
    mutex_unlock(&fetcher->lock);
    broadcast_all(fetcher);
    if (job) {
        fetch_job_pump(job);
        mutex_lock(&fetcher->lock);
        fetch_job_unref_locked(job);
        mutex_unlock(&fetcher->lock);
    }
    // The source may go as soon as its drain sees no request: nothing after this touches it.
    cond_broadcast(&fetcher->idle);
    request_unref(request);
}

static const struct remote_pages_sink request_sink = {request_page, request_flush, request_done};

// Registers the items that nobody asks for yet.
static void request_register_locked(struct fetch_request *request, const struct fetch_item *items,
                                    size_t count, struct fetch_waiter *waiter)
{
    struct fetcher *fetcher = request->fetcher;
    struct fetch_source *source = request->source;

    for (size_t i = 0; i < count; i++) {
        CHECK(i == 0 || (items[i].pageidx > items[i - 1].pageidx && items[i].lsn == items[0].lsn));
        struct flight *flight = table_find_locked(fetcher, source, items[i].pageidx, items[i].mark);
        if (!flight) {
            flight = &request->flights[request->count++];
            flight->item = items[i];
            flight->request = request;
            LIST_INIT(&flight->waiters);
            LIST_INSERT_HEAD(&fetcher->table[bucket_of(source, items[i].pageidx, items[i].mark)], flight,
                             link);
        } else if (request->job) {
            pageset_add(request->job->elsewhere, items[i].pageidx);
        }
        if (waiter)
            LIST_INSERT_HEAD(&flight->waiters, waiter, link);
    }
    if (request->count == 0)
        return;
    LIST_INSERT_HEAD(&source->requests, request, link);
    if (request->job) {
        request->job->requests++;
        request->job->refs++;
    }
}

// Lands what has arrived since it was found missing; the pages that still are go to *ret_pages.
static enum graft_status request_recheck(struct fetch_request *request, void *view,
                                         struct pageset **ret_pages, struct graft_error *err)
{
    static const struct graft_error kept = {0};
    struct fetcher *fetcher = request->fetcher;
    struct fetch_item found[RECHECK_CHUNK];
    uint32_t cursor = 1;
    size_t count;

    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    _cleanup_(pageset_free_p) struct pageset *missing = pageset_new();
    for (size_t i = 0; i < request->count; i++)
        pageset_add(pages, request->flights[i].item.pageidx);
    while (cursor != 0) {
        enum graft_status status = request->source->ops->missing(request->source, view, pages, &cursor, found,
                                                                 RECHECK_CHUNK, &count, err);
        if (status != GRAFT_OK)
            return status;
        for (size_t i = 0; i < count; i++)
            pageset_add(missing, found[i].pageidx);
    }
    if (pageset_count(missing) < request->count) {
        mutex_lock(&fetcher->lock);
        for (size_t i = 0; i < request->count; i++) {
            struct flight *flight = &request->flights[i];
            flight->arrived = !pageset_contains(missing, flight->item.pageidx);
            if (flight->arrived)
                flight_land_locked(flight, &kept);
        }
        mutex_unlock(&fetcher->lock);
        broadcast_all(fetcher);
    }
    *ret_pages = TAKE(missing);
    return GRAFT_OK;
}

// Sends the request. Its exchange may be over before this returns.
static void request_send(struct fetch_request *request, void *view, bool demanded)
{
    struct fetcher *fetcher = request->fetcher;
    const struct fetch_item *first = &request->flights[0].item;
    struct http_exchange *exchange = NULL;
    struct graft_error why = {0};

    _cleanup_(pageset_free_p) struct pageset *pages = NULL;
    enum graft_status status = request_recheck(request, view, &pages, &why);
    bool nothing = status == GRAFT_OK && pageset_is_empty(pages);
    if (status == GRAFT_OK && !nothing) {
        atomic_fetch_add(&request->source->request_count, 1);
        status = remote_read_pages(fetcher->remote, &request->source->vid, first->lsn, &first->chain, pages,
                                   demanded ? first->pageidx : 0, &request_sink, request, &exchange, &why);
    }
    if (status != GRAFT_OK || nothing) {
        request_done(request, &why, 0);
        return;
    }
    mutex_lock(&fetcher->lock);
    request->exchange = exchange;
    bool cancel = request->refs == 2 && request->source->closing;
    mutex_unlock(&fetcher->lock);
    if (cancel)
        http_exchange_cancel(exchange);
}

static void start_failed(struct fetcher *fetcher, struct fetch_job *job, struct fetch_waiter *waiter,
                         const struct graft_error *why)
{
    LOCK_GUARD(&fetcher->lock);
    if (waiter) {
        waiter->error = *why;
        waiter->done = true;
    }
    if (job && job->error.status == GRAFT_OK)
        job->error = *why;
}

void fetch_request_start(struct fetcher *fetcher, struct fetch_source *source, void *view,
                         struct fetch_job *job, const struct fetch_item *items, size_t count,
                         struct fetch_waiter *waiter, bool *ret_mine)
{
    struct graft_error why;

    CHECK(count > 0 && (!waiter || count == 1));
    struct fetch_request *request = calloc(1, sizeof *request);
    struct flight *flights = calloc(count, sizeof *flights);
    if (!request || !flights) {
        free(request);
        free(flights);
        error_set(&why, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a request of %zu pages",
                  count);
        start_failed(fetcher, job, waiter, &why);
        return;
    }
    *request = (struct fetch_request){
        .fetcher = fetcher, .source = source, .job = job, .flights = flights, .refs = 1};
    mutex_lock(&fetcher->lock);
    bool closing = source->closing;
    if (!closing)
        request_register_locked(request, items, count, waiter);
    if (request->count > 0)
        request->refs = 2;
    mutex_unlock(&fetcher->lock);
    if (closing) {
        error_set(&why, GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING, "volume %s is being closed",
                  gid_format(&source->vid).text);
        start_failed(fetcher, job, waiter, &why);
    }
    if (waiter)
        *ret_mine = request->count > 0;
    if (request->count > 0)
        request_send(request, view, waiter != NULL);
    request_unref(request);
}

void fetch_source_set_tally(struct fetch_source *source, const struct graft_fetch_counts *tally)
{
    atomic_store(&source->request_count, tally->requests);
    atomic_store(&source->page_count, tally->pages);
    atomic_store(&source->byte_count, tally->bytes);
    source->tallied = tally->requests;
}

struct graft_fetch_counts fetch_source_tally(struct fetch_source *source)
{
    return (struct graft_fetch_counts){atomic_load(&source->request_count), atomic_load(&source->page_count),
                                       atomic_load(&source->byte_count)};
}

void fetch_source_drain(struct fetcher *fetcher, struct fetch_source *source)
{
    struct fetch_request *request;

    LOCK_GUARD(&fetcher->lock);
    source->closing = true;
    LIST_FOREACH(request, &source->requests, link)
    {
        if (request->exchange)
            http_exchange_cancel(request->exchange);
    }
    while (!LIST_EMPTY(&source->requests))
        cond_wait(&fetcher->idle, &fetcher->lock);
}

// ---- one page -----------------------------------------------------------------------------------

// Waits for the page's flight. *ret_mine: the request was made for this reader.
static enum graft_status wait_once(struct fetcher *fetcher, struct fetch_source *source, void *view,
                                   const struct fetch_item *item, uint64_t deadline_us, bool *ret_mine,
                                   struct graft_error *err)
{
    struct fetch_waiter waiter = {0};

    *ret_mine = true;
    fetch_request_start(fetcher, source, view, NULL, item, 1, &waiter, ret_mine);
    LOCK_GUARD(&fetcher->lock);
    while (!waiter.done) {
        if (cond_wait_until(cond_of(fetcher, item->pageidx), &fetcher->lock, deadline_us))
            continue;
        if (waiter.done)
            break;
        LIST_REMOVE(&waiter, link);
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TIMEOUT,
                         "page %u of volume %s did not arrive within %u ms", item->pageidx,
                         gid_format(&source->vid).text, fetcher->remote->deadline_ms);
    }
    return waiter.error.status == GRAFT_OK ? GRAFT_OK : error_copy(err, &waiter.error);
}

enum graft_status fetch_page(struct fetcher *fetcher, struct fetch_source *source, void *view,
                             const struct fetch_item *item, struct graft_error *err)
{
    struct patience patience;
    struct graft_error why;
    bool mine;

    patience_init(&patience, fetcher->remote->http, fetcher->remote->deadline_ms);
    for (;;) {
        if (wait_once(fetcher, source, view, item, patience.deadline_us, &mine, &why) == GRAFT_OK)
            return GRAFT_OK;
        bool again = mine ? patience_wait(&patience, &why, 0)
                          : clock_monotonic_us(clock_system()) < patience.deadline_us;
        if (!again)
            return error_copy(err, &why);
    }
}
