// SPDX-License-Identifier: Apache-2.0
//
// A segment's index, decoded: where each page lies. A reader loads the tail of the object, [index_offset,
// object_size), and gets what it may trust: whatever was decoded has passed every check. Immutable.
#ifndef PAGESTORE_SEGMENT_INDEX_H
#define PAGESTORE_SEGMENT_INDEX_H

#include "pagestore/segment_format.h"

// Pages first … up to the next run's first place − place are at place, place + 1, … of the index's pages.
struct segment_run {
    uint32_t first;
    uint32_t place;
};

struct segment_volume {
    struct gid vid;
    uint32_t first_run, run_count;
    uint32_t first_page, page_count;
};

// One allocation, immutable once decoded: any number of threads may read it.
struct segment_index {
    struct segment_footer footer;
    size_t memory;                        // bytes of the whole, for caches to account
    const struct segment_volume *volumes; // ascending by VID, footer.volume_count
    const struct segment_run *runs;   // by volume, ascending; one more than there are, which closes the last
    const struct segment_page *pages; // footer.page_count
};

// `stored` are the footer's index_size bytes at index_offset. CORRUPT naming the segment and the field;
// INTERNAL / NO_MEMORY. The caller frees the index with segment_index_free().
enum graft_status segment_index_decode(const struct segment_footer *footer, struct bytes stored,
                                       struct segment_index **ret_index, struct graft_error *err);
// Both in one: `tail` is everything from `index_offset` to the object's end.
enum graft_status segment_tail_decode(struct bytes tail, const struct gid *sid, uint64_t index_offset,
                                      uint64_t object_size, struct segment_index **ret_index,
                                      struct graft_error *err);
void segment_index_free(struct segment_index *index); // NULL is fine
DEFINE_CLEANUP(struct segment_index, segment_index_free)

// NULL if the segment holds nothing of that volume. O(log volumes).
const struct segment_volume *segment_index_volume(const struct segment_index *index, const struct gid *vid);
// NULL if the volume's part does not hold the page. O(log runs).
const struct segment_page *segment_index_page(const struct segment_index *index,
                                              const struct segment_volume *volume, uint32_t pageidx);
// The page number at `place` of index->pages, which belongs to `volume`.
uint32_t segment_index_pageidx(const struct segment_index *index, const struct segment_volume *volume,
                               uint32_t place);

#endif
