// SPDX-License-Identifier: Apache-2.0
#include "pagestore/segment_reference.h"

#include <stdlib.h>

#include "common/base/limits.h"
#include "common/net/message.h"

#define PAGE_SET_SIZE_MAX (SEGMENT_PAGES_MAX * 2 * VARINT_SIZE_MAX)

enum graft_status segment_reference_init(struct segment_reference *reference, const struct gid *owner,
                                         const struct segment_draft_page *pages, uint32_t count,
                                         struct graft_error *err)
{
    *reference = (struct segment_reference){
        .owner = *owner,
        .pages = BUFFER_INIT(PAGE_SET_SIZE_MAX),
        .structural = BUFFER_INIT(PAGE_SET_SIZE_MAX),
    };
    _cleanup_(pageset_free_p) struct pageset *all = NULL;
    _cleanup_(pageset_free_p) struct pageset *structural = NULL;
    segment_draft_page_sets(pages, count, &all, &structural);
    enum graft_status status = pageset_encode(all, &reference->pages, err);
    if (status == GRAFT_OK)
        status = pageset_encode(structural, &reference->structural, err);
    if (status != GRAFT_OK)
        segment_reference_release(reference);
    return status;
}

void segment_reference_release(struct segment_reference *reference)
{
    buffer_release(&reference->pages);
    buffer_release(&reference->structural);
}

// The message and the receipt that it points to.
struct signed_reference {
    Graft__SegmentRef message;
    struct receipt receipt;
};

static void reference_sign(const struct segment_reference *reference, const struct cluster_key *key,
                           uint64_t expires_ms, struct signed_reference *ret_signed)
{
    const struct segment_sealed *segment = &reference->segment;
    struct receipt_claim claim = {
        .sid = segment->sid,
        .owner = reference->owner,
        .object_size = segment->object_size,
        .index_offset = segment->index_offset,
        .index_size = segment->index_size,
        .expires_ms = expires_ms,
        .pages = buffer_bytes(&reference->pages),
        .structural = buffer_bytes(&reference->structural),
    };
    ret_signed->receipt = receipt_make(key, &claim);
    Graft__SegmentRef *message = &ret_signed->message;
    graft__segment_ref__init(message);
    message->sid = binary_of(segment->sid.bytes, GID_SIZE);
    message->owner = binary_of(reference->owner.bytes, GID_SIZE);
    message->pages = binary_of(claim.pages.data, claim.pages.size);
    message->structural = binary_of(claim.structural.data, claim.structural.size);
    message->object_size = claim.object_size;
    message->index_offset = claim.index_offset;
    message->index_size = claim.index_size;
    message->expires_ms = expires_ms;
    message->receipt = binary_of(ret_signed->receipt.bytes, RECEIPT_SIZE);
}

enum graft_status segment_references_encode(const struct segment_reference *references, size_t count,
                                            const struct cluster_key *key, uint64_t now_ms, struct buffer *to,
                                            struct graft_error *err)
{
    struct signed_reference *refs = calloc(count + 1, sizeof *refs);
    Graft__SegmentRef **messages = calloc(count + 1, sizeof *messages);
    enum graft_status status;
    if (!refs || !messages) {
        status = error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY,
                           "no memory for %zu segment references", count);
    } else {
        for (size_t i = 0; i < count; i++) {
            reference_sign(&references[i], key, now_ms + RECEIPT_LIFETIME_MS, &refs[i]);
            messages[i] = &refs[i].message;
        }
        Graft__WritePagesResponse response = GRAFT__WRITE_PAGES_RESPONSE__INIT;
        response.n_segments = count;
        response.segments = messages;
        status = message_encode(&response.base, to, err);
    }
    free(refs);
    free(messages);
    return status;
}
