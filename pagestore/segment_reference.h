// SPDX-License-Identifier: Apache-2.0
//
// Segment references: what an upload's answer consists of, with the receipts that let the metastore believe
// them.
#ifndef PAGESTORE_SEGMENT_REFERENCE_H
#define PAGESTORE_SEGMENT_REFERENCE_H

#include "common/base/receipt.h"
#include "pagestore/segment_writer.h"

// One volume's pages in one segment. The page sets are in wire form.
struct segment_reference {
    struct segment_sealed segment;
    struct gid owner;
    struct buffer pages;
    struct buffer structural;
};

// The page sets of `pages`; `segment` is set later, by the caller. The caller releases it.
enum graft_status segment_reference_init(struct segment_reference *reference, const struct gid *owner,
                                         const struct segment_draft_page *pages, uint32_t count,
                                         struct graft_error *err);
void segment_reference_release(struct segment_reference *reference);

// Appends a WritePagesResponse with a receipt for each reference, valid from `now_ms` on for
// RECEIPT_LIFETIME_MS.
enum graft_status segment_references_encode(const struct segment_reference *references, size_t count,
                                            const struct cluster_key *key, uint64_t now_ms, struct buffer *to,
                                            struct graft_error *err);

#endif
