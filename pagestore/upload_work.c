// SPDX-License-Identifier: Apache-2.0
//
// The work side of an upload (upload_internal.h): verify, write, seal, answer. Runs on the uploads' pool.
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "pagestore/upload_internal.h"

#define STEPS_IN_A_RUN 8u // each at most a block verified and written

enum step {
    STEP_AGAIN, // there may be more to do
    STEP_WAIT,  // until somebody kicks
};

static enum step step_failed(struct upload *upload, const struct graft_error *error)
{
    upload_fail(upload, error);
    return STEP_AGAIN; // to clean up
}

// ---- slots: how many segments of their own uploads may have open

// True: the upload may open one segment. False: it will be kicked when its turn comes.
static bool slot_take(struct upload *upload)
{
    struct uploads *uploads = upload->uploads;
    LOCK_GUARD(&uploads->lock);
    if (upload->slot_granted) {
        upload->slot_granted = false;
        return true;
    }
    if (upload->slot_waiting)
        return false;
    if (uploads->own_open < OWN_SEGMENTS_MAX) {
        uploads->own_open++;
        return true;
    }
    upload->slot_waiting = true;
    TAILQ_INSERT_TAIL(&uploads->slot_queue, upload, slot_next);
    return false;
}

// Gives a slot to whoever waits longest. A waiting upload cannot go away: it leaves the queue first.
static void slot_release(struct uploads *uploads)
{
    struct upload *heir;
    {
        LOCK_GUARD(&uploads->lock);
        heir = TAILQ_FIRST(&uploads->slot_queue);
        if (heir) {
            TAILQ_REMOVE(&uploads->slot_queue, heir, slot_next);
            heir->slot_waiting = false;
            heir->slot_granted = true;
            heir->references++;
        } else {
            CHECK(uploads->own_open > 0);
            uploads->own_open--;
        }
    }
    if (heir) {
        upload_kick(heir);
        upload_unref(heir);
    }
}

static void slot_forgo(struct upload *upload)
{
    struct uploads *uploads = upload->uploads;
    bool granted;
    {
        LOCK_GUARD(&uploads->lock);
        if (upload->slot_waiting)
            TAILQ_REMOVE(&uploads->slot_queue, upload, slot_next);
        granted = upload->slot_granted;
        upload->slot_waiting = upload->slot_granted = false;
    }
    if (granted)
        slot_release(uploads);
}

// ---- blocks

static void drop_blocks(struct upload *upload, struct upload_blocks *blocks)
{
    struct upload_block *block;
    while ((block = STAILQ_FIRST(blocks)) != NULL) {
        STAILQ_REMOVE_HEAD(blocks, next);
        upload_return_block(upload, block);
    }
}

// Takes the next block out of the inbox and verifies it. *ret_block NULL: there is none.
static enum graft_status next_verified(struct upload *upload, struct upload_block **ret_block,
                                       struct graft_error *err)
{
    struct uploads *uploads = upload->uploads;
    struct upload_block *block;
    struct codec_slot *codec;
    {
        LOCK_GUARD(&uploads->lock);
        block = STAILQ_FIRST(&upload->inbox);
        if (block)
            STAILQ_REMOVE_HEAD(&upload->inbox, next);
        codec = STAILQ_FIRST(&uploads->codecs);
        CHECK(codec); // one for each worker
        STAILQ_REMOVE_HEAD(&uploads->codecs, next);
    }
    enum graft_status status = block ? upload_block_verify(block, codec->codec, &upload->vid, err) : GRAFT_OK;
    {
        LOCK_GUARD(&uploads->lock);
        STAILQ_INSERT_HEAD(&uploads->codecs, codec, next);
    }
    if (status != GRAFT_OK) {
        upload_return_block(upload, block);
        return status;
    }
    *ret_block = block;
    return GRAFT_OK;
}

// ---- references and the answer

// Adds a reference for `pages` to those stored; its segment is set by whoever seals.
static enum graft_status reference_add(struct upload *upload, const struct segment_draft_page *pages,
                                       uint32_t count, struct graft_error *err)
{
    if (upload->stored_count == upload->stored_capacity) {
        unsigned capacity = upload->stored_capacity > 0 ? 2 * upload->stored_capacity : 1;
        struct segment_reference *grown = realloc(upload->stored, capacity * sizeof *grown);
        if (!grown)
            return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for segment references");
        upload->stored = grown;
        upload->stored_capacity = capacity;
    }
    enum graft_status status =
        segment_reference_init(&upload->stored[upload->stored_count], &upload->vid, pages, count, err);
    if (status == GRAFT_OK)
        upload->stored_count++;
    return status;
}

static void answer_stored(struct upload *upload)
{
    _cleanup_(buffer_release) struct buffer response = BUFFER_INIT(UNARY_RESPONSE_SIZE_MAX);
    struct uploads *uploads = upload->uploads;
    struct graft_error error;
    enum graft_status status =
        segment_references_encode(upload->stored, upload->stored_count, uploads->settings.key,
                                  clock_wall_ms(clock_system()), &response, &error);
    if (status != GRAFT_OK) {
        upload_fail(upload, &error);
        return;
    }
    metric_add(uploads->pages_total, upload->page_count);
    metric_add(uploads->bytes_total, (int64_t)upload->payload_size);
    upload_answer(upload, NULL, &response);
}

// ---- a short upload: into the shared segment

static void shared_done(struct shared_item *item, const struct segment_sealed *sealed,
                        const struct graft_error *error)
{
    struct upload *upload = CONTAINER_OF(item, struct upload, item);
    drop_blocks(upload, &upload->kept);
    if (error->status != GRAFT_OK) {
        upload_fail(upload, error);
    } else {
        upload->stored[0].segment = *sealed;
        answer_stored(upload);
    }
    upload_unref(upload);
}

// All pages of the upload, in one array: the caller frees it.
static struct segment_draft_page *kept_pages(const struct upload *upload, uint32_t count)
{
    struct segment_draft_page *pages = calloc(count, sizeof *pages);
    const struct upload_block *block;
    uint32_t at = 0;
    if (!pages)
        return NULL;
    STAILQ_FOREACH (block, &upload->kept, next) {
        memcpy(pages + at, block->pages, block->page_count * sizeof *pages);
        at += block->page_count;
    }
    CHECK(at == count);
    return pages;
}

static enum step share(struct upload *upload)
{
    struct shared_item *item = &upload->item;
    struct graft_error error;
    const struct upload_block *block;
    *item = (struct shared_item){.vid = upload->vid, .blocks = &upload->kept, .done = shared_done};
    STAILQ_FOREACH (block, &upload->kept, next) {
        item->size += block->size;
        item->page_count += block->page_count;
    }
    if (item->page_count == 0) {
        drop_blocks(upload, &upload->kept);
        answer_stored(upload); // nothing to store: no reference
        return STEP_WAIT;
    }
    struct segment_draft_page *pages = kept_pages(upload, item->page_count);
    enum graft_status status =
        pages ? reference_add(upload, pages, item->page_count, &error)
              : error_set(&error, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for an upload's pages");
    free(pages);
    if (status != GRAFT_OK)
        return step_failed(upload, &error);
    upload->submitted = true;
    upload_ref(upload); // the shared segment's
    shared_segments_submit(upload->uploads->shared, item);
    return STEP_WAIT;
}

static enum step step_short(struct upload *upload, bool finished)
{
    struct upload_block *block;
    struct graft_error error;
    if (upload->submitted)
        return STEP_WAIT;
    if (next_verified(upload, &block, &error) != GRAFT_OK)
        return step_failed(upload, &error);
    if (block) {
        STAILQ_INSERT_TAIL(&upload->kept, block, next);
        return STEP_AGAIN;
    }
    return finished ? share(upload) : STEP_WAIT;
}

// ---- a long one: segments of its own

static void own_committed(void *context, struct objstore_result *result)
{
    struct upload *upload = context;
    FAILPOINT("upload.own.durable");
    if (result->error.status != GRAFT_OK)
        upload_fail(upload, &result->error);
    {
        LOCK_GUARD(&upload->uploads->lock);
        upload->sealing = false;
    }
    metric_add(upload->uploads->sealed_total, result->error.status == GRAFT_OK ? 1 : 0);
    slot_release(upload->uploads);
    upload_kick(upload);
    upload_unref(upload);
}

// The segment that is being written starts to become durable. One at a time: the next is written meanwhile.
static enum step seal(struct upload *upload)
{
    struct uploads *uploads = upload->uploads;
    struct segment_writer *writer = TAKE(upload->writer);
    const struct segment_draft *draft = segment_writer_draft(writer);
    struct graft_error error;
    if (reference_add(upload, draft->pages, draft->page_count, &error) != GRAFT_OK) {
        segment_writer_abort(writer);
        slot_release(uploads);
        return step_failed(upload, &error);
    }
    {
        LOCK_GUARD(&uploads->lock);
        upload->sealing = true;
        upload->references++; // the commit's
    }
    struct segment_reference *reference = &upload->stored[upload->stored_count - 1];
    if (segment_writer_seal(writer, &reference->segment, own_committed, upload, &error) == GRAFT_OK)
        return STEP_WAIT;
    {
        LOCK_GUARD(&uploads->lock);
        upload->sealing = false;
    }
    segment_reference_release(&upload->stored[--upload->stored_count]);
    slot_release(uploads);
    upload_fail(upload, &error);
    upload_unref(upload); // never the last: the actor has one
    return STEP_AGAIN;
}

static bool is_sealing(struct upload *upload)
{
    LOCK_GUARD(&upload->uploads->lock);
    return upload->sealing;
}

static enum step finish_long(struct upload *upload)
{
    if (is_sealing(upload))
        return STEP_WAIT;
    if (upload->writer)
        return seal(upload);
    answer_stored(upload);
    return STEP_WAIT;
}

// Chooses the block to write next: those kept while the upload was short come first.
static enum graft_status pend_next(struct upload *upload, struct graft_error *err)
{
    if (upload->pending)
        return GRAFT_OK;
    struct upload_block *block = STAILQ_FIRST(&upload->kept);
    if (!block)
        return next_verified(upload, &upload->pending, err);
    STAILQ_REMOVE_HEAD(&upload->kept, next);
    upload->pending = block;
    return GRAFT_OK;
}

static enum step step_long(struct upload *upload, bool finished)
{
    struct graft_error error;
    if (pend_next(upload, &error) != GRAFT_OK)
        return step_failed(upload, &error);
    struct upload_block *block = upload->pending;
    if (!block)
        return finished ? finish_long(upload) : STEP_WAIT;
    if (upload->writer && !segment_writer_fits(upload->writer, block->size, block->page_count)) {
        if (is_sealing(upload))
            return STEP_WAIT;
        (void)seal(upload);
        return STEP_AGAIN;
    }
    if (!upload->writer) {
        if (!slot_take(upload))
            return STEP_WAIT;
        if (segment_writer_begin(upload->uploads->settings.store, &upload->writer, &error) != GRAFT_OK) {
            slot_release(upload->uploads);
            return step_failed(upload, &error);
        }
    }
    if (segment_writer_append(upload->writer, &upload->vid, block->pages, block->page_count,
                              upload_block_payload(block), &error) != GRAFT_OK)
        return step_failed(upload, &error);
    upload->pending = NULL;
    upload_return_block(upload, block);
    return STEP_AGAIN;
}

// ---- the end of a failed or abandoned one

static void removed(void *context, struct objstore_result *result)
{
    if (result->error.status != GRAFT_OK)
        log_warn("segment_left_behind", "%s", log_format_error(&result->error).text);
}

// Nobody was given a reference to these. Best effort: what stays behind is collected as garbage later.
static void remove_stored(struct upload *upload)
{
    struct objstore *store = upload->uploads->settings.store;
    for (unsigned i = 0; i < upload->stored_count; i++) {
        objstore_remove(store, segment_key(&upload->stored[i].segment.sid).text, removed, NULL);
        segment_reference_release(&upload->stored[i]);
    }
    upload->stored_count = 0;
}

// Invariant 4.
static enum step discard(struct upload *upload)
{
    struct uploads *uploads = upload->uploads;
    struct upload_blocks inbox;
    STAILQ_INIT(&inbox);
    bool sealing;
    {
        LOCK_GUARD(&uploads->lock);
        STAILQ_CONCAT(&inbox, &upload->inbox);
        sealing = upload->sealing;
    }
    drop_blocks(upload, &inbox);
    if (!upload->submitted) // those are the shared segment's until it is done
        drop_blocks(upload, &upload->kept);
    if (upload->pending)
        upload_return_block(upload, TAKE(upload->pending));
    if (upload->writer) {
        segment_writer_abort(TAKE(upload->writer));
        slot_release(uploads);
    }
    slot_forgo(upload);
    if (!upload->submitted && !sealing) // a shared segment is not this upload's alone
        remove_stored(upload);
    return STEP_WAIT;
}

// ---- the actor

static enum step upload_step(struct upload *upload)
{
    bool dead, answered, large, finished;
    {
        LOCK_GUARD(&upload->uploads->lock);
        dead = upload->failed || (upload->closed && !upload->finished);
        answered = upload->answered;
        large = upload->large;
        finished = upload->finished;
    }
    if (dead)
        return discard(upload);
    if (answered)
        return STEP_WAIT;
    return large ? step_long(upload, finished) : step_short(upload, finished);
}

void upload_run(struct job *job)
{
    struct upload *upload = CONTAINER_OF(job, struct upload, job);
    struct uploads *uploads = upload->uploads;
    enum step step = STEP_AGAIN;
    bool more;
    for (unsigned i = 0; i < STEPS_IN_A_RUN && step == STEP_AGAIN; i++)
        step = upload_step(upload);
    {
        LOCK_GUARD(&uploads->lock);
        more = step == STEP_AGAIN || upload->again;
        upload->again = false;
        upload->running = more;
    }
    if (more)
        CHECK(pool_submit(uploads->pool, job, NULL) == GRAFT_OK);
    else
        upload_unref(upload);
}
