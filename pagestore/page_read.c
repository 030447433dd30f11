// SPDX-License-Identifier: Apache-2.0
//
// A read's life: checked and admitted on an HTTP thread; waits for the catch-up; planned on a worker; then its source sends
// frames (page_send.c). It is counted, because a block that is being loaded may wake it after the peer has gone.
#include "pagestore/page_read.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/net/message.h"
#include "pagestore/page_read_internal.h"

#define REQUEST_MEMORY_MAX (4 * READ_PAGES_REQUEST_SIZE_MAX)
#define RETRY_AFTER_S 1

enum graft_status page_reader_new(const struct page_reader_settings *settings,
                                  struct page_reader **ret_reader, struct graft_error *err)
{
    struct page_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the page reader");
    snprintf(reader->index_path, sizeof reader->index_path, "%s", settings->index_path);
    disk_reserve_init(&reader->reserve, reader->index_path, settings->disk_reserve);
    struct page_index_settings index_settings = {
        .path = settings->index_path,
        .metrics = settings->metrics,
        .on_fatal = settings->on_fatal,
        .context = settings->context,
    };
    enum graft_status status = page_index_open(&index_settings, &reader->index, err);
    if (status == GRAFT_OK)
        status =
            block_cache_new(settings->store, settings->memory_cache, settings->metrics, &reader->cache, err);
    if (status == GRAFT_OK)
        status = catchup_new(reader->index, settings->metastore_url, &reader->reserve, settings->metrics,
                             &reader->catchup, err);
    if (status == GRAFT_OK)
        status = pool_new("page-read", settings->workers, READS_ACTIVE_MAX, &reader->pool, err);
    if (status != GRAFT_OK) {
        page_reader_free(reader);
        return status;
    }
    struct metrics *metrics = settings->metrics;
    reader->reads = metrics_counter(metrics, "graft_reads_total", NULL, "read_pages calls");
    reader->pages = metrics_counter(metrics, "graft_read_pages_total", NULL, "pages sent");
    reader->empty =
        metrics_counter(metrics, "graft_read_empty_total", NULL, "pages said to be never written");
    reader->damaged = metrics_counter(metrics, "graft_read_damaged_total", NULL, "pages found damaged");
    reader->bytes =
        metrics_counter(metrics, "graft_read_bytes_total", NULL, "bytes of pages sent, as stored");
    *ret_reader = reader;
    return GRAFT_OK;
}

void page_reader_free(struct page_reader *reader)
{
    if (!reader)
        return;
    // The catch-up gives jobs to the pool, and jobs of reads whose peer has gone may still ask it for something.
    if (reader->catchup)
        catchup_stop(reader->catchup);
    pool_free(reader->pool);
    catchup_free(reader->catchup);
    block_cache_free(reader->cache);
    page_index_close(reader->index);
    disk_reserve_release(&reader->reserve);
    free(reader);
}

void page_read_unref(struct page_read *read)
{
    if (!read || atomic_fetch_sub(&read->references, 1) > 1)
        return;
    page_read_release_blocks(read);
    index_volume_release(read->volume);
    pageset_free(read->pages);
    free(read->plan);
    free(read->scratch);
    buffer_release(&read->head);
    http_request_unref(read->request);
    free(read);
}

static void refuse(struct page_read *read, const struct graft_error *error)
{
    FAILPOINT("read.refusal.before");
    http_respond_error(read->request, error, error->status == GRAFT_UNAVAILABLE ? RETRY_AFTER_S : 0);
    FAILPOINT("read.refusal.after");
}

// ---- planning ---------------------------------------------------------------------------------------------------------

static int compare_versions(const void *a, const void *b)
{
    const struct page_version *left = a, *right = b;
    if (left->segment != right->segment)
        return left->segment < right->segment ? -1 : 1;
    return left->pageidx < right->pageidx ? -1 : left->pageidx > right->pageidx;
}

void page_plan_order(struct page_version *plan, size_t count, uint32_t first)
{
    size_t sorted_from = 0;
    for (size_t i = 0; first && i < count; i++) {
        if (plan[i].pageidx != first)
            continue;
        struct page_version demanded = plan[i];
        memmove(plan + 1, plan, i * sizeof demanded);
        plan[0] = demanded;
        sorted_from = 1;
        break;
    }
    for (size_t i = sorted_from + 1; i < count; i++) {
        if (compare_versions(&plan[i - 1], &plan[i]) > 0) {
            qsort(plan + sorted_from, count - sorted_from, sizeof *plan, compare_versions);
            break;
        }
    }
}

static enum graft_status make_plan(struct page_read *read, struct graft_error *err)
{
    read->plan_count = pageset_count(read->pages);
    read->plan = malloc(read->plan_count * sizeof *read->plan);
    if (!read->plan)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a read of %zu pages",
                         read->plan_count);
    enum graft_status status = index_volume_resolve(read->volume, read->lsn, read->pages, read->plan, err);
    if (status == GRAFT_OK)
        page_plan_order(read->plan, read->plan_count, read->first);
    return status;
}

static void plan_job(struct job *job)
{
    struct page_read *read = CONTAINER_OF(job, struct page_read, job);
    struct graft_error err;
    FAILPOINT("read.plan");
    if (make_plan(read, &err) == GRAFT_OK)
        http_respond_stream(read->request, HTTP_STREAM, page_read_source);
    else
        refuse(read, &err);
}

static void caught_up(struct catchup_wait *wait, const struct graft_error *error)
{
    struct page_read *read = CONTAINER_OF(wait, struct page_read, wait);
    struct graft_error err = *error;
    if (err.status == GRAFT_OK && pool_submit(read->reader->pool, &read->job, &err) != GRAFT_OK)
        err.status = GRAFT_UNAVAILABLE;
    if (err.status != GRAFT_OK)
        refuse(read, &err);
}

// ---- the request ------------------------------------------------------------------------------------------------------

static enum graft_status take_request(struct page_read *read, const Graft__ReadPagesRequest *message,
                                      struct graft_error *err)
{
    enum graft_status status = gid_from_bytes(bytes_of(&message->vid), GID_VOLUME, "vid", &read->vid, err);
    if (status == GRAFT_OK)
        status = hash_from_bytes(bytes_of(&message->chain), "chain", &read->chain, err);
    if (status == GRAFT_OK && message->lsn == 0)
        status =
            error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "lsn is 0: commits are numbered from 1");
    struct pageset_measure pages;
    if (status == GRAFT_OK)
        status = pageset_wire_measure(bytes_of(&message->pages), "pages", &pages, err);
    if (status == GRAFT_OK && pages.pages > READ_PAGES_MAX)
        status =
            error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "pages has %llu pages; a call may ask for %u",
                      (unsigned long long)pages.pages, READ_PAGES_MAX);
    if (status == GRAFT_OK)
        status = pageset_decode(bytes_of(&message->pages), READ_PAGES_MAX, "pages", &read->pages, err);
    if (status != GRAFT_OK)
        return status;
    read->lsn = message->lsn;
    read->first = message->first;
    if (pageset_is_empty(read->pages))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "pages is empty");
    if (read->first && !pageset_contains(read->pages, read->first))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "first, %u, is not one of pages",
                         read->first);
    return GRAFT_OK;
}

static enum graft_status decode_request(struct page_read *read, struct bytes whole, struct graft_error *err)
{
    ProtobufCMessage *message = NULL;
    enum graft_status status =
        message_decode(&graft__read_pages_request__descriptor, whole, REQUEST_MEMORY_MAX, &message, err);
    if (status == GRAFT_OK)
        status = take_request(read, (const Graft__ReadPagesRequest *)message, err);
    message_free(message);
    return status;
}

static struct page_read *page_read_new(struct page_reader *reader, struct http_request *request)
{
    struct page_read *read = calloc(1, sizeof *read);
    if (!read)
        return NULL;
    read->reader = reader;
    read->request = http_request_ref(request);
    atomic_init(&read->references, 1);
    buffer_init(&read->head, FRAME_HEAD_MAX);
    read->job.run = plan_job;
    read->wait.done = caught_up;
    read->waiter.wake = page_read_wake;
    return read;
}

void page_read_ready(struct page_reader *reader, struct http_request *request, struct bytes whole)
{
    struct graft_error err;
    if (atomic_fetch_add(&reader->active, 1) >= READS_ACTIVE_MAX) {
        atomic_fetch_sub(&reader->active, 1);
        error_set(&err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                  "%u reads are under way already; ask again", READS_ACTIVE_MAX);
        http_respond_error(request, &err, RETRY_AFTER_S);
        return;
    }
    FAILPOINT("read.received");
    metric_add(reader->reads, 1);
    struct page_read *read = page_read_new(reader, request);
    if (!read) {
        atomic_fetch_sub(&reader->active, 1);
        error_set(&err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a read");
        http_respond_error(request, &err, 0);
        return;
    }
    http_request_set_state(request, read);
    enum graft_status status = decode_request(read, whole, &err);
    if (status == GRAFT_OK)
        status = page_index_volume(reader->index, &read->vid, &read->volume, &err);
    if (status != GRAFT_OK) {
        refuse(read, &err);
        return;
    }
    read->stream_owner = read->vid;
    read->wait.volume = read->volume;
    read->wait.lsn = read->lsn;
    read->wait.chain = read->chain;
    catchup_wait(reader->catchup, &read->wait);
}

void page_read_closed(struct http_request *request)
{
    struct page_read *read = http_request_state(request);
    if (!read)
        return;
    http_request_set_state(request, NULL);
    atomic_fetch_sub(&read->reader->active, 1);
    page_read_unref(read);
}
