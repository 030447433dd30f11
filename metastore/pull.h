// SPDX-License-Identifier: Apache-2.0
//
// What changed in (after, head]: the union of page sets and the lowest cut, from as few objects as there
// are: at most 255 commits and 255 small summaries at either end, and large summaries between. Where a
// summary is not made yet, the level below stands in for it.
//
//     (after ── commits ── small ── small ── large ── large ── small ── commits ── head]
//
// Blocks for the store: runs on a reader thread.
#ifndef METASTORE_PULL_H
#define METASTORE_PULL_H

#include "common/base/metrics.h"
#include "metastore/volume_load.h"

struct pull_result {
    struct pageset *changed; // within the head's page_count; the caller's
    uint32_t cut;
    bool everything; // `after` was retired: `changed` is empty and says nothing
    unsigned united; // objects that it took
};

// `state` is the volume at its head. NOT_FOUND / BEYOND_HEAD if `after` is above it, CORRUPT /
// CHAIN_MISMATCH if `chain` is not the chain there, GONE / DELETED, CORRUPT for damage.
enum graft_status pull(struct objstore *store, const struct volume_state *state, uint64_t after,
                       const struct hash128 *chain, struct pull_result *ret_result, struct graft_error *err);

// Whether `after` and `chain` name a point of this volume's history as far as memory tells: GRAFT_OK with
// *ret_known true (chain verified), or false (the commit at `after` must be read).
enum graft_status history_check(const struct volume_state *state, uint64_t after, const struct hash128 *chain,
                                bool *ret_known, struct graft_error *err);

#endif
