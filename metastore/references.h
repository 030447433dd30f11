// SPDX-License-Identifier: Apache-2.0
//
// What a commit says about its segments, checked without asking anybody: receipts, page sets, bounds. Takes some
// hundred KiB of memory at most, whatever the page sets say.
#ifndef METASTORE_REFERENCES_H
#define METASTORE_REFERENCES_H

#include "common/base/receipt.h"
#include "common/net/message.h"

// INVALID / BAD_ARGUMENT, BAD_PAGESET or BAD_RECEIPT (message names the reference by its place and the
// field), LIMIT for more than COMMIT_SEGMENTS_MAX. *ret_expires_ms: when the first of the receipts expires;
// UINT64_MAX without references. An expired receipt is no error here: what to make of it depends on whether
// the commit landed before.
enum graft_status references_check(const struct cluster_key *key, const struct gid *vid, uint32_t page_count,
                                   Graft__SegmentRef *const *segments, size_t count, uint64_t *ret_expires_ms,
                                   struct graft_error *err);

#endif
