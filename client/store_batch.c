// SPDX-License-Identifier: Apache-2.0
//
// Reading many pages at once: first where each of them lies, then their bytes in the order of their places, neighbours
// with one call. What does not come out that way (missing, moved meanwhile, damaged) is read by itself.
#include <stdlib.h>

#include "client/store_internal.h"
#include "common/base/checksum.h"

#define CHUNK 256u

struct plan {
    struct store_read *read;
    struct store_hint at;
    bool hinted; // it need not be told to the hints
};

struct batch {
    struct store_pin *pin;
    struct store_view view; // opened for the first page without a hint
    struct plan plans[CHUNK];
    size_t count;
};

// ---- where they lie

static void plan(struct batch *batch, struct store_read *read, const struct store_hint *at, bool hinted)
{
    if (at->size == STORE_HINT_EMPTY)
        read->page = (struct store_page){.pageidx = read->pageidx, .state = STORE_PAGE_EMPTY};
    else
        batch->plans[batch->count++] = (struct plan){read, *at, hinted};
}

// The version that the view found.
static enum graft_status plan_found(struct batch *batch, struct store_read *read,
                                    const struct store_found *found, struct graft_error *err)
{
    struct store_volume *volume = batch->pin->volume;
    struct store_hint at = {.number = volume->number,
                            .lsn = found->lsn,
                            .upto = batch->pin->lsn,
                            .remote_lsn = found->version.remote_lsn,
                            .pageidx = read->pageidx,
                            .place = found->version.place,
                            .size = found->version.size,
                            .checksum = found->version.checksum};
    if (found->version.kind == STORE_VERSION_PENDING) {
        struct store_arrived arrived;
        bool here;
        enum graft_status status = store_fetched_find(volume, read->pageidx, found->lsn,
                                                      found->version.remote_lsn, &arrived, &here, err);
        if (status != GRAFT_OK || !here)
            return status;
        at.place = arrived.place;
        at.size = arrived.empty ? STORE_HINT_EMPTY : arrived.size;
        at.checksum = arrived.checksum;
    }
    if (at.size == STORE_HINT_EMPTY || at.size <= volume->page_size)
        plan(batch, read, &at, false);
    return GRAFT_OK;
}

static enum graft_status plan_read(struct batch *batch, struct store_read *read, struct graft_error *err)
{
    struct store_pin *pin = batch->pin;
    struct store_hint hint;
    struct store_found found;
    if (read->pageidx > pin->page_count) {
        read->page = (struct store_page){.pageidx = read->pageidx, .state = STORE_PAGE_EMPTY};
        return GRAFT_OK;
    }
    if (store_hints_get(pin->volume->store->hints, pin->volume->number, read->pageidx, pin->lsn, &hint)) {
        plan(batch, read, &hint, true);
        return GRAFT_OK;
    }
    enum graft_status status = GRAFT_OK;
    if (!batch->view.index)
        status = store_view_open(pin, &batch->view, err);
    if (status == GRAFT_OK)
        status = store_view_find(&batch->view, read->pageidx, &found, err);
    if (status != GRAFT_OK)
        return status;
    if (found.exists)
        return plan_found(batch, read, &found, err);
    read->page = (struct store_page){.pageidx = read->pageidx, .state = STORE_PAGE_EMPTY};
    return GRAFT_OK;
}

// ---- their bytes

static int by_place(const void *left, const void *right)
{
    const struct plan *a = left, *b = right;
    bool a_fetched = a->at.remote_lsn > 0, b_fetched = b->at.remote_lsn > 0;
    if (a_fetched != b_fetched)
        return a_fetched ? 1 : -1;
    return a->at.place < b->at.place ? -1 : a->at.place > b->at.place;
}

static bool follows(const struct plan *before, const struct plan *plan)
{
    return (before->at.remote_lsn > 0) == (plan->at.remote_lsn > 0) &&
           before->at.place + before->at.size == plan->at.place && before->at.size > 0 && plan->at.size > 0 &&
           place_extent(before->at.place) == place_extent(plan->at.place);
}

// Neighbours. Those that turn out to be what they should are done.
static void read_neighbours(struct batch *batch, struct plan *plans, size_t count)
{
    struct store_volume *volume = batch->pin->volume;
    struct store *store = volume->store;
    struct iovec pieces[CHUNK];
    enum graft_status status = GRAFT_OK;
    for (size_t i = 0; i < count; i++)
        pieces[i] = (struct iovec){plans[i].read->to, plans[i].at.size};
    if (plans[0].at.size > 0)
        status = plans[0].at.remote_lsn > 0
                     ? page_cache_readv(store->cache, plans[0].at.place, pieces, (unsigned)count, NULL)
                     : extents_readv(store->pages, plans[0].at.place, pieces, (unsigned)count, NULL);
    for (size_t i = 0; i < count && status == GRAFT_OK; i++) {
        struct store_read *read = plans[i].read;
        const struct store_hint *at = &plans[i].at;
        if (!checksum_matches(at->checksum, page_checksum(&volume->vid, read->pageidx, read->to, at->size)))
            continue;
        read->page =
            (struct store_page){.pageidx = read->pageidx, .state = STORE_PAGE_AVAILABLE, .size = at->size};
        if (!plans[i].hinted)
            store_hints_put(store->hints, at);
    }
}

static enum graft_status read_chunk(struct batch *batch, struct store_read *reads, size_t count,
                                    struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;
    batch->count = 0;
    for (size_t i = 0; i < count && status == GRAFT_OK; i++) {
        reads[i].page.state = 0;
        status = reads[i].pageidx > 0 ? plan_read(batch, &reads[i], err) : GRAFT_OK;
    }
    if (status != GRAFT_OK)
        return status;
    qsort(batch->plans, batch->count, sizeof batch->plans[0], by_place);
    for (size_t i = 0, end; i < batch->count; i = end) {
        for (end = i + 1; end < batch->count && follows(&batch->plans[end - 1], &batch->plans[end]); end++)
            ;
        read_neighbours(batch, batch->plans + i, end - i);
    }
    for (size_t i = 0; i < count; i++) {
        if (reads[i].page.state != 0)
            continue;
        status = store_read(batch->pin, reads[i].pageidx, reads[i].to, batch->pin->volume->page_size,
                            &reads[i].page, err);
        if (status != GRAFT_OK)
            return error_context(err, status, "reading page %u", reads[i].pageidx);
    }
    return GRAFT_OK;
}

enum graft_status store_read_many(struct store_pin *pin, struct store_read *reads, size_t count,
                                  struct graft_error *err)
{
    struct batch batch = {.pin = pin};
    enum graft_status status = store_check_usable(pin->volume->store, err);
    for (size_t i = 0; i < count && status == GRAFT_OK; i += CHUNK)
        status = read_chunk(&batch, reads + i, MIN(count - i, (size_t)CHUNK), err);
    if (batch.view.index)
        store_view_close(&batch.view);
    return status;
}
