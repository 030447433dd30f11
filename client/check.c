// SPDX-License-Identifier: Apache-2.0
//
// Reading every page of a snapshot of the servers past every cache of this client, to see whether it is what
// was written; and what lies in the data directory.
#include <stdlib.h>

#include "client/client.h"
#include "client/patience.h"
#include "client/store_check.h"
#include "common/base/check.h"
#include "common/base/limits.h"

struct finding {
    uint32_t pageidx;
    struct graft_error why;
};

// One read_pages call. The HTTP client's thread fills it, then says done.
struct check_batch {
    struct gid vid;
    uint32_t page_size;
    bool variable;
    struct page_codec *codec;
    struct pageset *left; // asked for and not come yet
    struct finding *findings;
    size_t finding_count, findings_max;
    struct graft_error outcome;
    struct mutex lock; // RANK_LEAF
    struct cond wake;
    bool done; // lock
};

static enum graft_status batch_verify(struct check_batch *batch, const struct gid *owner,
                                      const struct page_header *page, struct bytes data,
                                      struct graft_error *err)
{
    struct bytes plain;

    if (page->state == PAGE_STATE_EMPTY)
        return GRAFT_OK;
    enum graft_status status = page_codec_decode(batch->codec, owner, page, data, &plain, err);
    if (status == GRAFT_OK &&
        (plain.size > batch->page_size || (!batch->variable && plain.size != batch->page_size)))
        status = error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_PROTOCOL,
                           "it has %zu bytes, pages of this volume have %u", plain.size, batch->page_size);
    return status;
}

static enum graft_status batch_page(void *context, const struct gid *owner, const struct page_header *page,
                                    struct bytes data, const struct graft_error *damage,
                                    struct graft_error *err)
{
    struct check_batch *batch = context;
    struct graft_error why;

    if (!pageset_contains(batch->left, page->pageidx))
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                         "the pagestore sent page %u, which was not asked for", page->pageidx);
    pageset_remove(batch->left, page->pageidx);
    // Not to be had now is no damage: the batch is tried again, or fails with it.
    if (damage && damage->status != GRAFT_CORRUPT)
        return error_copy(err, damage);
    if (damage)
        why = *damage;
    else if (batch_verify(batch, owner, page, data, &why) == GRAFT_OK)
        return GRAFT_OK;
    CHECK(batch->finding_count < batch->findings_max);
    batch->findings[batch->finding_count++] = (struct finding){page->pageidx, why};
    return GRAFT_OK;
}

static enum graft_status batch_flush(void *context, struct graft_error *err)
{
    return GRAFT_OK;
}

static void batch_done(void *context, const struct graft_error *outcome, uint64_t size)
{
    struct check_batch *batch = context;

    batch->outcome = *outcome;
    if (outcome->status == GRAFT_OK && !pageset_is_empty(batch->left))
        error_set(&batch->outcome, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                  "the pagestore left out page %u, which was asked for", pageset_min(batch->left));
    LOCK_GUARD(&batch->lock);
    batch->done = true;
    cond_signal(&batch->wake);
}

static const struct remote_pages_sink batch_sink = {batch_page, batch_flush, batch_done};

static enum graft_status batch_once(struct check_batch *batch, const struct remote *remote,
                                    const struct snapshot *head, uint32_t first, uint32_t count,
                                    struct graft_error *err)
{
    struct http_exchange *exchange;
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();

    pageset_add_run(pages, first, count);
    pageset_free(batch->left);
    batch->left = pageset_copy(pages);
    batch->finding_count = 0;
    batch->done = false;
    enum graft_status status = remote_read_pages(remote, &head->vid, head->lsn, &head->chain, pages, 0,
                                                 &batch_sink, batch, &exchange, err);
    if (status != GRAFT_OK)
        return status;
    mutex_lock(&batch->lock);
    while (!batch->done)
        cond_wait(&batch->wake, &batch->lock);
    mutex_unlock(&batch->lock);
    http_exchange_unref(exchange);
    return batch->outcome.status == GRAFT_OK ? GRAFT_OK : error_copy(err, &batch->outcome);
}

static enum graft_status batch_run(struct check_batch *batch, const struct remote *remote,
                                   const struct snapshot *head, uint32_t first, uint32_t count,
                                   struct graft_error *err)
{
    struct patience patience;
    struct graft_error why;

    patience_init(&patience, remote->http, remote->deadline_ms);
    while (batch_once(batch, remote, head, first, count, &why) != GRAFT_OK) {
        if (!patience_wait(&patience, &why, 0))
            return error_copy(err, &why);
    }
    return GRAFT_OK;
}

struct check_call {
    void (*damaged)(void *context, uint32_t pageidx, const struct graft_error *why);
    void (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
    uint64_t damaged_count;
};

static enum graft_status check_run(struct check_batch *batch, const struct remote *remote,
                                   const struct snapshot *head, struct check_call *call,
                                   struct graft_error *err)
{
    for (uint64_t next = 1; next <= head->page_count;) {
        uint32_t count = (uint32_t)MIN((uint64_t)batch->findings_max, head->page_count - next + 1);
        enum graft_status status = batch_run(batch, remote, head, (uint32_t)next, count, err);
        if (status != GRAFT_OK)
            return status;
        for (size_t i = 0; i < batch->finding_count; i++) {
            if (call->damaged)
                call->damaged(call->context, batch->findings[i].pageidx, &batch->findings[i].why);
        }
        call->damaged_count += batch->finding_count;
        next += count;
        if (call->progress)
            call->progress(call->context, next - 1, head->page_count);
    }
    return GRAFT_OK;
}

static void batch_release(struct check_batch *batch)
{
    page_codec_free(batch->codec);
    pageset_free(batch->left);
    free(batch->findings);
    cond_release(&batch->wake);
    mutex_release(&batch->lock);
}

enum graft_status graft_remote_check(struct graft_volume *volume, uint64_t remote_lsn,
                                     void (*damaged)(void *context, uint32_t pageidx,
                                                     const struct graft_error *why),
                                     void (*progress)(void *context, uint64_t done, uint64_t total),
                                     void *context, uint64_t *ret_checked, struct graft_error *err)
{
    struct check_call call = {damaged, progress, context, 0};
    struct snapshot head;

    REQUIRE(volume);
    const struct remote *remote = &volume->client->remote;
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status == GRAFT_OK)
        status = remote_live_snapshot(remote, &volume->source.vid, remote_lsn, &head, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(batch_release) struct check_batch batch = {
        .vid = head.vid,
        .page_size = head.page_size,
        .variable = head.variable,
        .codec = page_codec_new(),
        .findings_max = MIN(FETCH_BATCH_SIZE / head.page_size, (size_t)READ_PAGES_MAX),
    };
    mutex_init(&batch.lock, RANK_LEAF);
    cond_init(&batch.wake);
    batch.findings = calloc(batch.findings_max, sizeof *batch.findings);
    if (!batch.codec || !batch.findings)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to check a volume");
    status = check_run(&batch, remote, &head, &call, err);
    struct gid_text vid = gid_format(&volume->source.vid);
    if (status != GRAFT_OK)
        return error_context(err, status, "checking volume %s", vid.text);
    if (ret_checked)
        *ret_checked = head.page_count;
    if (call.damaged_count > 0)
        return error_set(
            err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "volume %s: %llu of %u pages are damaged at LSN %llu",
            vid.text, (unsigned long long)call.damaged_count, head.page_count, (unsigned long long)head.lsn);
    return GRAFT_OK;
}

enum graft_status graft_local_check(struct graft *client,
                                    void (*damaged)(void *context, const struct graft_local_damage *damage),
                                    void (*progress)(void *context, uint64_t done, uint64_t total),
                                    void *context, struct graft_local_counts *ret_counts,
                                    struct graft_error *err)
{
    const struct store_check_sink sink = {damaged, progress, context};
    struct graft_local_counts counts;

    REQUIRE(client);
    enum graft_status status = store_check_fork(client->store, err);
    if (status == GRAFT_OK)
        status = store_check(client->store, &sink, &counts, err);
    if (status != GRAFT_OK)
        return status;
    if (ret_counts)
        *ret_counts = counts;
    if (counts.damaged > 0)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                         "the data directory is damaged in %llu places", (unsigned long long)counts.damaged);
    return GRAFT_OK;
}
