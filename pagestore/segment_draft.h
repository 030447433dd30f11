// SPDX-License-Identifier: Apache-2.0
//
// What a segment that is being written holds so far, and its index and footer once it is complete. Volumes
// ascend, each one's pages ascend, payloads have no gaps. Not thread-safe.
#ifndef PAGESTORE_SEGMENT_DRAFT_H
#define PAGESTORE_SEGMENT_DRAFT_H

#include "common/base/buffer.h"
#include "common/base/pageset.h"
#include "pagestore/segment_format.h"

struct segment_draft_page {
    uint32_t pageidx;
    struct segment_page page;
};

struct segment_draft_volume {
    struct gid vid;
    uint32_t first; // place of its first page in `pages`
    uint32_t count;
};

// What a segment that is being written holds so far. Zeroed before its first use.
struct segment_draft {
    struct segment_draft_volume *volumes;
    struct segment_draft_page *pages;
    uint32_t volume_count, volume_capacity;
    uint32_t page_count, page_capacity;
};
void segment_draft_release(struct segment_draft *draft);
// Adds pages of `vid`; all of them ascend, within the call and from call to call, and volumes ascend too
// (checked: they are our own doing). LIMIT / TOO_LARGE beyond SEGMENT_PAGES_MAX or SEGMENT_VOLUMES_MAX, the
// draft unchanged.
enum graft_status segment_draft_add(struct segment_draft *draft, const struct gid *vid,
                                    const struct segment_draft_page *pages, uint32_t count,
                                    struct graft_error *err);

// The pages, and those of them whose class is structural, as sets that the caller frees.
void segment_draft_page_sets(const struct segment_draft_page *pages, uint32_t count,
                             struct pageset **ret_pages, struct pageset **ret_structural);

// Appends index and footer, which begin at `index_offset` of the object. LIMIT if the index would exceed
// SEGMENT_INDEX_SIZE_MAX, or `to` its cap.
enum graft_status segment_tail_encode(const struct segment_draft *draft, const struct gid *sid,
                                      uint32_t index_offset, struct buffer *to,
                                      struct segment_footer *ret_footer, struct graft_error *err);

#endif
