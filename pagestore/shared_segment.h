// SPDX-License-Identifier: Apache-2.0
//
// The shared open segment: short uploads that are complete and verified travel together. One thread gathers
// what waits, writes it as one segment and answers all of them once it is durable; what completes meanwhile
// is the next one's company. So with no linger a lone writer is never held back, and many at once share an
// object and a sync.
//
// Two uploads for one volume never share a segment: a page has one version there.
#ifndef PAGESTORE_SHARED_SEGMENT_H
#define PAGESTORE_SHARED_SEGMENT_H

#include "common/base/metrics.h"
#include "pagestore/segment_writer.h"
#include "pagestore/upload_block.h"

struct shared_segments;

// Embedded in an upload; belongs to the shared segments from the submit until `done` runs, its blocks
// included.
struct shared_item {
    STAILQ_ENTRY(shared_item) next;
    struct gid vid;
    struct upload_blocks *blocks; // verified, not empty
    uint64_t size;                // of their payloads
    uint32_t page_count;
    uint64_t submitted_us;
    // Exactly once, on the shared segments' thread: durable in *sealed, or *error says why not (and nothing
    // is stored).
    void (*done)(struct shared_item *item, const struct segment_sealed *sealed,
                 const struct graft_error *error);
};

// `linger_ms`: how long the first of a segment waits for company.
enum graft_status shared_segments_new(struct objstore *store, uint64_t linger_ms, struct metrics *metrics,
                                      struct shared_segments **ret_shared, struct graft_error *err);
void shared_segments_free(struct shared_segments *shared); // stores what was submitted first; NULL is fine

void shared_segments_submit(struct shared_segments *shared, struct shared_item *item);

#endif
