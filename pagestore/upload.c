// SPDX-License-Identifier: Apache-2.0
#include "pagestore/upload_internal.h"

#include <stdlib.h>

#include "common/base/check.h"

#define SPARE_BLOCKS_MAX 16u
#define BLOCKS_MAX 4u
#define BLOCKS_SHORT_MAX 2u // of a body that one block holds
#define UPLOAD_OVERHEAD (sizeof(struct upload) + 4 * KIB)
#define UPLOADS_MAX 2048u // as many jobs wait in the pool at most

// ---- the budget and the blocks

static bool body_is_short(uint64_t body_size)
{
    return body_size <= UPLOAD_BLOCK_SIZE;
}

// As much as the upload can ever hold: its blocks, and a frame that the decoder pieces together.
static size_t upload_reservation(uint64_t body_size)
{
    unsigned blocks = body_is_short(body_size) ? BLOCKS_SHORT_MAX : BLOCKS_MAX;
    size_t frame = (size_t)MIN(body_size, (uint64_t)PAGE_FRAME_SIZE_MAX);
    return UPLOAD_OVERHEAD + blocks * upload_block_memory(body_size) + frame;
}

static bool block_is_spare_sized(const struct upload_block *block)
{
    return block->capacity == UPLOAD_BLOCK_SIZE + PAGE_SIZE_MAX;
}

// NULL without memory.
static struct upload_block *block_obtain(struct upload *upload)
{
    struct uploads *uploads = upload->uploads;
    struct upload_block *block = NULL;
    if (upload->body_size >= UPLOAD_BLOCK_SIZE + PAGE_SIZE_MAX) {
        LOCK_GUARD(&uploads->lock);
        block = STAILQ_FIRST(&uploads->spare);
        if (block) {
            STAILQ_REMOVE_HEAD(&uploads->spare, next);
            uploads->spare_count--;
        }
    }
    return block ? block : upload_block_new(upload->body_size);
}

void upload_return_block(struct upload *upload, struct upload_block *block)
{
    struct uploads *uploads = upload->uploads;
    bool wake = false;
    upload_block_clear(block);
    {
        LOCK_GUARD(&uploads->lock);
        CHECK(upload->blocks_held > 0);
        upload->blocks_held--;
        wake = upload->starved;
        upload->starved = false;
        if (block_is_spare_sized(block) && uploads->spare_count < SPARE_BLOCKS_MAX) {
            STAILQ_INSERT_HEAD(&uploads->spare, block, next);
            uploads->spare_count++;
            block = NULL;
        }
    }
    upload_block_free(block);
    if (wake)
        upload->events.wake(upload->events.context);
}

static enum graft_status budget_take(struct uploads *uploads, size_t size, struct graft_error *err)
{
    LOCK_GUARD(&uploads->lock);
    if (size > RECEIVE_BUDGET_SIZE - uploads->reserved || uploads->count == UPLOADS_MAX)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                         "uploads under way hold the %llu MiB that they may; try again in a moment",
                         (unsigned long long)(RECEIVE_BUDGET_SIZE / MIB));
    uploads->reserved += size;
    uploads->count++;
    metric_set(uploads->reserved_gauge, (int64_t)uploads->reserved);
    return GRAFT_OK;
}

static void budget_return(struct uploads *uploads, size_t size)
{
    LOCK_GUARD(&uploads->lock);
    uploads->reserved -= size;
    metric_set(uploads->reserved_gauge, (int64_t)uploads->reserved);
}

// ---- life

struct upload *upload_ref(struct upload *upload)
{
    LOCK_GUARD(&upload->uploads->lock);
    upload->references++;
    return upload;
}

void upload_unref(struct upload *upload)
{
    struct uploads *uploads = upload->uploads;
    {
        LOCK_GUARD(&uploads->lock);
        if (--upload->references > 0)
            return;
        CHECK(upload->blocks_held == 0 && !upload->sealing && !upload->writer); // invariant 4
    }
    for (unsigned i = 0; i < upload->stored_count; i++)
        segment_reference_release(&upload->stored[i]);
    free(upload->stored);
    page_decoder_free(upload->decoder);
    budget_return(uploads, upload->reserved);
    upload->events.release(upload->events.context);
    {
        LOCK_GUARD(&uploads->lock);
        // Under the lock: once it is let go, uploads_free() may go on.
        if (--uploads->count == 0)
            cond_signal(&uploads->idle);
    }
    free(upload);
}

void upload_kick(struct upload *upload)
{
    struct uploads *uploads = upload->uploads;
    {
        LOCK_GUARD(&uploads->lock);
        if (upload->running) {
            upload->again = true;
            return;
        }
        upload->running = true;
        upload->references++;
    }
    // The pool's queue has room for every upload that the budget lets in, and outlives them all.
    CHECK(pool_submit(uploads->pool, &upload->job, NULL) == GRAFT_OK);
}

enum graft_status upload_new(struct uploads *uploads, uint64_t body_size, const struct upload_events *events,
                             struct upload **ret_upload, struct graft_error *err)
{
    size_t reserved = upload_reservation(body_size);
    enum graft_status status = budget_take(uploads, reserved, err);
    if (status != GRAFT_OK)
        return status;
    struct upload *upload = calloc(1, sizeof *upload);
    struct page_decoder *decoder = page_decoder_new();
    if (!upload || !decoder) {
        free(upload);
        page_decoder_free(decoder);
        budget_return(uploads, reserved);
        LOCK_GUARD(&uploads->lock);
        uploads->count--;
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for an upload");
    }
    upload->uploads = uploads;
    upload->events = *events;
    upload->body_size = body_size;
    upload->reserved = reserved;
    upload->blocks_max = body_is_short(body_size) ? BLOCKS_SHORT_MAX : BLOCKS_MAX;
    upload->decoder = decoder;
    upload->references = 1;
    upload->large = body_size != UPLOAD_SIZE_UNKNOWN && body_size > SEGMENT_SHARED_STREAM_MAX;
    upload->job.run = upload_run;
    STAILQ_INIT(&upload->inbox);
    STAILQ_INIT(&upload->kept);
    *ret_upload = upload;
    return GRAFT_OK;
}

// ---- outcomes

void upload_answer(struct upload *upload, const struct graft_error *error, struct buffer *response)
{
    struct uploads *uploads = upload->uploads;
    {
        LOCK_GUARD(&uploads->lock);
        if (upload->answered)
            return;
        upload->answered = true;
    }
    if (!response)
        metric_add(uploads->failed_total, 1);
    upload->events.done(upload->events.context, error, response);
}

void upload_fail(struct upload *upload, const struct graft_error *error)
{
    bool finished, wake;
    {
        LOCK_GUARD(&upload->uploads->lock);
        if (upload->failed)
            return;
        upload->failed = true;
        upload->error = *error;
        finished = upload->finished;
        wake = upload->starved;
        upload->starved = false;
    }
    upload_kick(upload);
    if (finished)
        upload_answer(upload, &upload->error, NULL);
    else if (wake)
        upload->events.wake(upload->events.context);
}

// On the stream side's thread: whether the upload has failed, in which case its failure is answered now.
static bool stream_has_failed(struct upload *upload)
{
    {
        LOCK_GUARD(&upload->uploads->lock);
        if (!upload->failed)
            return false;
    }
    upload_answer(upload, &upload->error, NULL);
    return true;
}

// ---- the stream side

static void info_answered(struct volume_query *query, const struct volume_info *info,
                          const struct graft_error *error)
{
    struct upload *upload = CONTAINER_OF(query, struct upload, query);
    if (error->status != GRAFT_OK) {
        upload_fail(upload, error);
    } else {
        bool wake;
        {
            LOCK_GUARD(&upload->uploads->lock);
            upload->info = *info;
            upload->info_known = true;
            wake = upload->starved;
            upload->starved = false;
        }
        if (wake)
            upload->events.wake(upload->events.context);
    }
    upload_unref(upload);
}

static enum graft_status stream_begin(struct upload *upload, const struct page_event *event,
                                      struct graft_error *err)
{
    if (event->lsn != 0 || event->has_chain)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "begin.%s: an upload belongs to no commit yet; leave it out",
                         event->lsn ? "lsn" : "chain");
    upload->vid = event->vid;
    upload->begun = true;
    struct volume_infos *volumes = upload->uploads->settings.volumes;
    struct volume_info info;
    if (volume_infos_get(volumes, &event->vid, &info)) {
        LOCK_GUARD(&upload->uploads->lock);
        upload->info = info;
        upload->info_known = true;
        return GRAFT_OK;
    }
    upload->query.vid = event->vid;
    upload->query.done = info_answered;
    upload_ref(upload);
    enum graft_status status = volume_infos_ask(volumes, &upload->query, err);
    if (status != GRAFT_OK)
        upload_unref(upload);
    return status;
}

// What the headers alone tell. The bytes are the work side's to verify.
static enum graft_status page_check(const struct upload *upload, const struct page_event *event,
                                    struct graft_error *err)
{
    const struct page_header *page = &event->page;
    const struct volume_info *info = &upload->info;
    if (page->state != PAGE_STATE_STORED)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "page %u: state is %d; an upload has only stored pages", page->pageidx,
                         (int)page->state);
    if (page->pageidx <= upload->last_pageidx)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "pageidx %u after page %u: pages come in ascending order, each once", page->pageidx,
                         upload->last_pageidx);
    if (upload->page_count == WRITE_PAGES_PAGES_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "page %u: one upload has at most %u pages; use several", page->pageidx,
                         WRITE_PAGES_PAGES_MAX);
    if (page->raw_size > info->page_size)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "page %u: raw_size %u is more than the volume's page size, %u", page->pageidx,
                         page->raw_size, info->page_size);
    if (!info->variable && page->raw_size != info->page_size)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "page %u: raw_size %u in a volume of fixed pages of %u bytes", page->pageidx,
                         page->raw_size, info->page_size);
    if (page->encoding == PAGE_ENCODING_ZSTD && event->data.size >= page->raw_size)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "page %u: data of %zu bytes encode %u; send it raw", page->pageidx, event->data.size,
                         page->raw_size);
    return GRAFT_OK;
}

// Hands the block that is being filled to the work side.
static void stream_pass_block(struct upload *upload)
{
    struct upload_block *block = TAKE(upload->filling);
    if (!block)
        return;
    {
        LOCK_GUARD(&upload->uploads->lock);
        STAILQ_INSERT_TAIL(&upload->inbox, block, next);
    }
    upload_kick(upload);
}

static enum graft_status stream_event(struct upload *upload, const struct page_event *event,
                                      struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;
    switch (event->type) {
    case PAGE_EVENT_NEED_MORE:
        break;
    case PAGE_EVENT_BEGIN:
        status = stream_begin(upload, event, err);
        break;
    case PAGE_EVENT_OWNER:
        status = error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                           "an owner frame: all pages of an upload belong to the volume that begin names");
        break;
    case PAGE_EVENT_PAGE:
        status = page_check(upload, event, err);
        if (status == GRAFT_OK && !upload_block_add(upload->filling, &event->page, event->data))
            status = error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
                               "page %u: the body is longer than the %llu bytes that were announced",
                               event->page.pageidx, (unsigned long long)upload->body_size);
        upload->last_pageidx = event->page.pageidx;
        upload->page_count++;
        upload->payload_size += event->data.size;
        break;
    case PAGE_EVENT_END:
        if (event->error.status != GRAFT_OK)
            status = error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
                               "the sender ended the stream with: %s", event->error.message);
        upload->ended = true;
        stream_pass_block(upload);
        break;
    }
    return status;
}

// Obtains a block if the upload may have one more. False: not now, or it has failed.
static bool stream_obtain_block(struct upload *upload)
{
    bool room, kick = false;
    {
        LOCK_GUARD(&upload->uploads->lock);
        if (upload->failed)
            return false;
        room = upload->blocks_held < upload->blocks_max;
        if (room) {
            upload->blocks_held++;
        } else {
            kick = !upload->large;
            upload->large = true; // too long to be kept whole: its blocks must go somewhere
            upload->starved = true;
        }
    }
    if (kick)
        upload_kick(upload);
    if (!room)
        return false;
    upload->filling = block_obtain(upload);
    if (upload->filling)
        return true;
    {
        LOCK_GUARD(&upload->uploads->lock);
        upload->blocks_held--;
    }
    struct graft_error error;
    (void)error_set(&error, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for an upload");
    upload_fail(upload, &error);
    return false;
}

// Whether the next frame may be decoded: a page that was taken out of the stream must have a place.
static bool stream_is_ready(struct upload *upload)
{
    if (!upload->begun || upload->ended)
        return true;
    if (!upload->info_seen) {
        LOCK_GUARD(&upload->uploads->lock);
        upload->info_seen = upload->info_known;
        upload->starved = !upload->info_known;
        if (!upload->info_seen)
            return false;
    }
    if (upload->filling && !upload_block_is_full(upload->filling))
        return true;
    stream_pass_block(upload);
    return stream_obtain_block(upload);
}

size_t upload_take(struct upload *upload, const void *data, size_t size)
{
    if (stream_has_failed(upload))
        return size;
    struct bytes input = {data, size};
    while (stream_is_ready(upload)) {
        struct page_event event;
        struct graft_error error;
        enum graft_status status = page_decoder_next(upload->decoder, &input, &event, &error);
        if (status == GRAFT_OK)
            status = stream_event(upload, &event, &error);
        if (status != GRAFT_OK) {
            upload_fail(upload, &error);
            break;
        }
        if (event.type == PAGE_EVENT_NEED_MORE)
            return size;
    }
    return stream_has_failed(upload) ? size : size - input.size;
}

void upload_finish(struct upload *upload)
{
    struct graft_error error;
    bool failed;
    if (page_decoder_finish(upload->decoder, &error) != GRAFT_OK)
        upload_fail(upload, &error);
    {
        LOCK_GUARD(&upload->uploads->lock);
        CHECK(!upload->finished);
        upload->finished = true;
        failed = upload->failed;
    }
    if (failed)
        upload_answer(upload, &upload->error, NULL);
    upload_kick(upload);
}

void upload_close(struct upload *upload)
{
    if (upload->filling)
        upload_return_block(upload, TAKE(upload->filling));
    {
        LOCK_GUARD(&upload->uploads->lock);
        upload->closed = true;
        // Nobody is left to be woken or answered.
        upload->starved = false;
        if (!upload->finished)
            upload->answered = true;
    }
    upload_kick(upload);
    upload_unref(upload);
}

// ---- all of them

static enum graft_status uploads_start(struct uploads *uploads, struct graft_error *err)
{
    const struct uploads_settings *settings = &uploads->settings;
    for (unsigned i = 0; i < settings->workers; i++) {
        struct codec_slot *slot = calloc(1, sizeof *slot);
        if (slot)
            slot->codec = page_codec_new();
        if (!slot || !slot->codec) {
            free(slot);
            return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the upload workers");
        }
        STAILQ_INSERT_TAIL(&uploads->codecs, slot, next);
    }
    enum graft_status status = shared_segments_new(settings->store, settings->segment_linger_ms,
                                                   settings->metrics, &uploads->shared, err);
    if (status == GRAFT_OK)
        status = pool_new("upload", settings->workers, UPLOADS_MAX, &uploads->pool, err);
    return status;
}

enum graft_status uploads_new(const struct uploads_settings *settings, struct uploads **ret_uploads,
                              struct graft_error *err)
{
    struct uploads *uploads = calloc(1, sizeof *uploads);
    if (!uploads)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for uploads");
    uploads->settings = *settings;
    struct metrics *metrics = settings->metrics;
    uploads->pages_total =
        metrics_counter(metrics, "pagestore_pages_written_total", NULL, "Pages made durable");
    uploads->bytes_total =
        metrics_counter(metrics, "pagestore_page_bytes_written_total", NULL, "Bytes of pages made durable");
    uploads->sealed_total = metrics_counter(metrics, "pagestore_segments_sealed_total", "kind=\"own\"",
                                            "Segments that became durable");
    uploads->failed_total =
        metrics_counter(metrics, "pagestore_uploads_failed_total", NULL, "Uploads refused");
    uploads->reserved_gauge =
        metrics_gauge(metrics, "pagestore_upload_reserved_bytes", NULL, "Memory set aside for uploads");
    mutex_init(&uploads->lock, RANK_PAGE_UPLOAD);
    cond_init(&uploads->idle);
    STAILQ_INIT(&uploads->spare);
    STAILQ_INIT(&uploads->codecs);
    TAILQ_INIT(&uploads->slot_queue);
    enum graft_status status = uploads_start(uploads, err);
    if (status != GRAFT_OK) {
        uploads_free(uploads);
        return status;
    }
    *ret_uploads = uploads;
    return GRAFT_OK;
}

void uploads_free(struct uploads *uploads)
{
    if (!uploads)
        return;
    {
        LOCK_GUARD(&uploads->lock);
        while (uploads->count > 0)
            cond_wait(&uploads->idle, &uploads->lock);
    }
    pool_free(uploads->pool);
    shared_segments_free(uploads->shared);
    CHECK(uploads->reserved == 0 && uploads->own_open == 0);
    struct codec_slot *slot;
    while ((slot = STAILQ_FIRST(&uploads->codecs)) != NULL) {
        STAILQ_REMOVE_HEAD(&uploads->codecs, next);
        page_codec_free(slot->codec);
        free(slot);
    }
    struct upload_block *block;
    while ((block = STAILQ_FIRST(&uploads->spare)) != NULL) {
        STAILQ_REMOVE_HEAD(&uploads->spare, next);
        upload_block_free(block);
    }
    cond_release(&uploads->idle);
    mutex_release(&uploads->lock);
    free(uploads);
}
