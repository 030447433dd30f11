// SPDX-License-Identifier: Apache-2.0
//
// Commit requests without a pagestore: segment references made up on the spot, with receipts under the
// cluster's key.
#ifndef TESTS_LIB_COMMIT_PLAN_H
#define TESTS_LIB_COMMIT_PLAN_H

#include "common/base/pageset.h"
#include "common/base/receipt.h"
#include "common/net/message.h"

#define PLAN_SEGMENTS_MAX 8

// A commit that is right on its base unless a test spoils it.
struct commit_plan {
    struct gid vid;
    uint64_t base_lsn;
    struct hash128 base_chain;
    uint64_t token, digest; // numbers: token_of(), digest_of()
    uint32_t page_count, cut;
    uint64_t expires_ms;    // of the receipts
    unsigned segment_count; // how many of the following
    struct page_run segments[PLAN_SEGMENTS_MAX];
};

struct token token_of(uint64_t number);
struct hash128 digest_of(uint64_t number);

// On `base`, with one segment of `count` pages from `first` on; the volume grows to hold them. Token and
// digest from `token`.
struct commit_plan plan_on(const struct snapshot *base, uint64_t token, uint32_t first, uint32_t count);

struct built_segment {
    Graft__SegmentRef message;
    struct gid sid;
    uint8_t pages[2 * VARINT_SIZE_MAX];
    struct receipt receipt;
};

// The request and all that it points to; not to be moved once built.
struct built_commit {
    Graft__CommitRequest request;
    struct commit_plan plan;
    struct token token;
    struct hash128 digest;
    struct gid cid;
    struct built_segment segments[PLAN_SEGMENTS_MAX];
    Graft__SegmentRef *pointers[PLAN_SEGMENTS_MAX];
};

void commit_build(const struct cluster_key *key, const struct commit_plan *plan,
                  struct built_commit *ret_commit);

#endif
