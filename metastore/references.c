// SPDX-License-Identifier: Apache-2.0
//
// Page sets are walked on the wire and never built: a commit may bring thousands, and few bytes can name many pages.
#include "metastore/references.h"

#include <stdlib.h>

#include "common/base/limits.h"
#include "common/base/pageset.h"

// A page set, run by run.
struct walk {
    struct bytes wire;
    size_t offset;
    uint32_t last;
    struct page_run run; // where it stands
    size_t number;       // of the reference
};

static bool walk_next(struct walk *walk)
{
    return pageset_wire_next(walk->wire, &walk->offset, &walk->last, &walk->run) > 0;
}

static uint32_t run_end(const struct page_run *run)
{
    return run->first + (run->count - 1);
}

static enum graft_status decode_claim(const Graft__SegmentRef *segment, struct receipt_claim *ret_claim,
                                      struct graft_error *err)
{
    *ret_claim = (struct receipt_claim){.object_size = segment->object_size,
                                        .index_offset = segment->index_offset,
                                        .index_size = segment->index_size,
                                        .expires_ms = segment->expires_ms,
                                        .pages = bytes_of(&segment->pages),
                                        .structural = bytes_of(&segment->structural)};
    enum graft_status status =
        gid_from_bytes(bytes_of(&segment->sid), GID_SEGMENT, "sid", &ret_claim->sid, err);
    if (status != GRAFT_OK)
        return status;
    return gid_from_bytes(bytes_of(&segment->owner), GID_VOLUME, "owner", &ret_claim->owner, err);
}

// Both are well formed.
static bool is_subset(struct bytes inner, struct bytes outer)
{
    struct walk in = {.wire = inner}, out = {.wire = outer};
    bool more = walk_next(&out);
    while (walk_next(&in)) {
        while (more && run_end(&out.run) < in.run.first)
            more = walk_next(&out);
        if (!more || in.run.first < out.run.first || run_end(&in.run) > run_end(&out.run))
            return false;
    }
    return true;
}

static enum graft_status check_pages(const struct receipt_claim *claim, uint32_t page_count,
                                     struct graft_error *err)
{
    struct pageset_measure pages, structural;
    enum graft_status status = pageset_wire_measure(claim->pages, "pages", &pages, err);
    if (status == GRAFT_OK)
        status = pageset_wire_measure(claim->structural, "structural", &structural, err);
    if (status != GRAFT_OK)
        return status;
    if (pages.runs > PAGESET_RUNS_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "pages: a page set of more than %u runs",
                         PAGESET_RUNS_MAX);
    if (pages.pages == 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_PAGESET, "pages is empty");
    if (pages.last > page_count)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_PAGESET, "page %u lies beyond page_count %u",
                         pages.last, page_count);
    if (!is_subset(claim->structural, claim->pages))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_PAGESET, "structural is no subset of pages");
    return GRAFT_OK;
}

static enum graft_status check_one(const struct cluster_key *key, const struct gid *vid, uint32_t page_count,
                                   const Graft__SegmentRef *segment, uint64_t *expires_ms,
                                   struct graft_error *err)
{
    struct receipt_claim claim;
    struct receipt receipt;
    enum graft_status status = decode_claim(segment, &claim, err);
    if (status != GRAFT_OK)
        return status;
    if (!gid_equal(&claim.owner, vid))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_RECEIPT, "its owner is volume %s",
                         gid_format(&claim.owner).text);
    if (segment->receipt.len != RECEIPT_SIZE)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_RECEIPT, "receipt has %zu bytes instead of %u",
                         segment->receipt.len, RECEIPT_SIZE);
    memcpy(receipt.bytes, segment->receipt.data, RECEIPT_SIZE);
    if (!receipt_verify(key, &claim, &receipt))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_RECEIPT,
                         "its receipt is not one that a pagestore of this cluster made for it");
    if (claim.expires_ms < *expires_ms)
        *expires_ms = claim.expires_ms;
    return check_pages(&claim, page_count, err);
}

// A heap of walks, the least first page on top.
static void sift_down(struct walk *heap, size_t count, size_t place)
{
    for (;;) {
        size_t least = place;
        for (size_t child = 2 * place + 1; child <= 2 * place + 2 && child < count; child++) {
            if (heap[child].run.first < heap[least].run.first)
                least = child;
        }
        if (least == place)
            return;
        struct walk moved = heap[place];
        heap[place] = heap[least];
        heap[least] = moved;
        place = least;
    }
}

// All page sets are well formed and not empty. Walks them together in the order of their pages.
static enum graft_status check_disjoint(Graft__SegmentRef *const *segments, size_t count,
                                        struct graft_error *err)
{
    _cleanup_(free_p) struct walk *heap = malloc(MAX(count, (size_t)1) * sizeof *heap);
    if (!heap)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to check %zu references",
                         count);
    for (size_t i = 0; i < count; i++) {
        heap[i] = (struct walk){.wire = bytes_of(&segments[i]->pages), .number = i};
        walk_next(&heap[i]);
    }
    for (size_t i = count / 2; i-- > 0;)
        sift_down(heap, count, i);
    size_t before = 0; // the reference with the pages up to `end`
    for (uint32_t end = 0; count > 0; sift_down(heap, count, 0)) {
        struct walk *top = &heap[0];
        if (top->run.first <= end)
            return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_PAGESET,
                             "segments[%zu] and segments[%zu] both have page %u", MIN(before, top->number),
                             MAX(before, top->number), top->run.first);
        end = run_end(&top->run);
        before = top->number;
        if (!walk_next(top))
            *top = heap[--count];
    }
    return GRAFT_OK;
}

enum graft_status references_check(const struct cluster_key *key, const struct gid *vid, uint32_t page_count,
                                   Graft__SegmentRef *const *segments, size_t count, uint64_t *ret_expires_ms,
                                   struct graft_error *err)
{
    uint64_t expires_ms = UINT64_MAX;
    if (count > COMMIT_SEGMENTS_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "segments has %zu entries; the limit is %u", count, COMMIT_SEGMENTS_MAX);
    for (size_t i = 0; i < count; i++) {
        enum graft_status status = check_one(key, vid, page_count, segments[i], &expires_ms, err);
        if (status != GRAFT_OK)
            return error_context(err, status, "segments[%zu]", i);
    }
    enum graft_status status = check_disjoint(segments, count, err);
    if (status == GRAFT_OK)
        *ret_expires_ms = expires_ms;
    return status;
}
